/* address.h - which address a client has: behind a socket, a PROXY header, an X-Forwarded-For. Worker; pure
 * but for getpeername().
 *
 *    getpeername --> PROXY header, if the listener expects one --> X-Forwarded-For, if who stands there is
 * trusted
 *
 * Addresses are IPv6; IPv4 is mapped into it (::ffff:a.b.c.d). Ports are nobody's business here.
 */
#ifndef RC_ADDRESS_H
#define RC_ADDRESS_H

#include "common/base.h"
#include "common/config.h"
#include "worker/http.h"

#define ADDRESS_TEXT_SIZE 46 /* INET6_ADDRSTRLEN */

/* X-Forwarded-For: proxies in a row that are walked through at most. */
#define ADDRESS_HOPS_MAX 32

struct address {
	bool is_known; /* false: a unix socket, or nobody has looked yet */
	uint8_t ip[16];
};

/* Who is at the other end of the socket; unknown for a unix socket. */
struct address address_peer(int fd);

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80". False: it is none of
 * these. */
bool address_parse(struct slice text, struct address *out) MUST_CHECK;

/* IPv4 as a.b.c.d; "" if it is unknown. */
void address_text(const struct address *a, char dst[ADDRESS_TEXT_SIZE]);

/* May whoever is at `a` (unknown: a unix socket) say who the client is? */
bool address_is_trusted(const struct config *c, const struct address *a) MUST_CHECK;

/* Who the client is. `from`: the socket's other end, or what the PROXY header said. If that is trusted,
 * X-Forwarded-For (all of its lines, as one list) is walked from the right, where each proxy has put what it
 * saw: the first address that is not a trusted proxy is the client. What is no address ends the walk where it
 * stands, and so do ADDRESS_HOPS_MAX proxies: what an untrusted client writes there counts for nothing. */
struct address address_client(const struct config *c, const struct address *from, const struct http_parser *p,
			      const char *head);

/* Is it an IPv4 address (mapped)? */
bool address_is_ip4(const struct address *a);
/* The 4 bytes of an IPv4 address, in network order. */
void address_set_ip4(struct address *a, const void *ip4);

/* What limits by address count: an IPv4 address, and of an IPv6 one the network of 64 bits, of which a client
 * usually has all addresses. */
void address_key(const struct address *a, uint8_t key[16]);

#endif
