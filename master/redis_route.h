/* redis_route.h - which address a link to Redis dials when Sentinel knows it: the question, put to one
 * sentinel after the other.
 *
 * Master process only, on its libev loop; never blocks. Whoever asks bounds it (the attempt's cfg.timeout); a
 * sentinel that says nothing has its share of that, cfg.timeout / (number of sentinels + 1), then the next is
 * asked.
 *
 *              redis_route_start()       connected          the master's address
 *        IDLE ------------------> DIAL ------------> ASK ------------------------> IDLE, done(true)
 *         ^                        |  ^               |
 *         |      all were asked    |  +---------------+  refused, silent, knows no such master: the next one
 *         +------------------------+  done(false, why of the last)
 *
 * Each question begins with the sentinel behind the one that answered last: an attempt that its answer led
 * astray (the address is dead, or a replica) does not get the same answer again.
 *
 * The protocol: https://redis.io/docs/reference/sentinel-clients/ (its steps 1 and 2; step 3, ROLE, is
 * redis_hello.h).
 */
#ifndef RC_REDIS_ROUTE_H
#define RC_REDIS_ROUTE_H

#include <ev.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/config.h"
#include "master/redis_dial.h"
#include "master/redis_reply.h"

struct redis_route {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	/* Found: host and port below; or one word. Once per redis_route_start(), perhaps from within it. */
	void (*done)(void *arg, bool found, const char *why);
	void *arg;

	char host[REDIS_HOST_MAX + 1]; /* what was found last, or told */
	uint16_t port;
	bool is_told; /* the next start needs no question */

	struct redis_dial dial;
	int fd; /* of the sentinel being asked; -1: none */
	ev_io io;
	ev_timer timer;
	struct redis_reply *in;
	unsigned next, left; /* sentinels: index of the next, how many may still be asked */
	unsigned answers;    /* to come before the one that matters (AUTH's) */
	const char *verdict; /* of the answer: NULL: none yet; "" = found; else why not */
};

void redis_route_init(struct redis_route *r, struct ev_loop *loop, const struct cfg_redis *cfg,
		      void (*done)(void *arg, bool found, const char *why), void *arg);
void redis_route_start(struct redis_route *r);

/* The address is known: the next start finds it at once. */
void redis_route_tell(struct redis_route *r, const char *host, uint16_t port);

/* Stop asking: done() will not be called. Fine when idle. */
void redis_route_stop(struct redis_route *r);
void redis_route_free(struct redis_route *r);

/* Take what Sentinel says: an address of host and port as text. False: it is none. */
bool redis_route_read(struct slice host, struct slice port, char *host_out, uint16_t *port_out) MUST_CHECK;

/* Append the question about the master's address. 0, or -1 (ENOMEM). */
int redis_route_put_question(struct buf *out, const struct cfg_redis *cfg) MUST_CHECK;

#endif
