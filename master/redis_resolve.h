/* redis_resolve.h - a host name to addresses without blocking the loop.
 *
 * Master process only, on its loop. getaddrinfo() runs in a detached thread with all signals blocked, one per
 * unanswered question; the answer comes back through an eventfd. The thread touches nothing but its question,
 * which is freed by whoever is done with it last. Numeric addresses need no thread.
 */
#ifndef RC_REDIS_RESOLVE_H
#define RC_REDIS_RESOLVE_H

#include <ev.h>
#include <netinet/in.h>

#include "common/base.h"

#define REDIS_ADDRS_MAX 8

struct redis_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
	socklen_t len;
};

struct redis_addrs {
	unsigned n; /* 0: the name has no address (or the resolver failed) */
	struct redis_addr addr[REDIS_ADDRS_MAX];
};

/* Fill `out` if `host` is an address in digits. Returns false if it is a name. Never blocks. */
bool redis_resolve_numeric(const char *host, uint16_t port, struct redis_addrs *out) MUST_CHECK;

struct redis_resolve;
typedef void redis_resolve_fn(void *arg, const struct redis_addrs *addrs);

/* Ask; `done` is called once, from the loop, with addresses borrowed for the call, and the question is gone
 * then. host is copied. Returns NULL with errno if no thread or descriptor could be had. */
struct redis_resolve *redis_resolve_start(struct ev_loop *loop, const char *host, uint16_t port,
					  redis_resolve_fn *done, void *arg) MUST_CHECK;

/* Give up: `done` will not be called. The thread ends by itself. NULL is fine. */
void redis_resolve_cancel(struct redis_resolve *q);

#endif
