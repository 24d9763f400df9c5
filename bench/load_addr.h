/* load_addr.h - addresses: of servers, and the ones that clients connect from.
 *
 * One source address has some 28,000 ports towards one target (net.ipv4.ip_local_port_range), and the
 * kernel's search for a free one gets slow when most are taken. So clients are spread over several: client i
 * takes address i % total. No names anywhere: nothing here may block. One owner; pure but for load_ports().
 */
#ifndef BENCH_LOAD_ADDR_H
#define BENCH_LOAD_ADDR_H

#include <sys/socket.h>

#include "common/base.h"

#define LOAD_RANGES 16

struct load_addr {
	struct sockaddr_storage ss;
	socklen_t len;
};

/* Addresses that follow each other; at most 2^32 of them, in the last 32 bits. */
struct load_range {
	struct load_addr first; /* port 0 */
	uint32_t n;
};

struct load_sources {
	struct load_range range[LOAD_RANGES];
	uint32_t n_ranges;
	uint64_t total; /* addresses in all ranges; 0: the kernel chooses */
};

/* A sockaddr for "1.2.3.4:80", "[::1]:80" or "unix:/path". Returns 0 or -1. */
int load_addr_parse(const char *text, struct load_addr *a) MUST_CHECK;

/* Is it one of 127.0.0.0/8, any of which a client may come from? */
bool load_addr_is_loopback4(const struct load_addr *a);

/* "A", "A,B-C", ...: IPv4 or IPv6, all of the given family. Returns 0 or -1. */
int load_sources_parse(const char *text, int family, struct load_sources *s) MUST_CHECK;

/* n addresses from 127.0.1.1 on. */
void load_sources_loopback(struct load_sources *s, uint32_t n);

/* The address of client i. s->total must not be 0. */
struct load_addr load_source(const struct load_sources *s, uint32_t i);

/* How many ports the kernel hands out for one pair of addresses. */
uint32_t load_ports(void);

#endif
