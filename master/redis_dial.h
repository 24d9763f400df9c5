/* redis_dial.h - from a configured address to a connected socket, with TLS if asked for.
 *
 * Master process only, on its libev loop; never blocks. It has no timer: whoever dials bounds it, and hangs
 * up.
 *
 *            redis_dial_start()       addresses           connected        (rediss: only)
 *     IDLE ------------------> RESOLVE ------------> CONNECT ------------> TLS ------------> IDLE, done(fd)
 *       ^                         |                     |                   |
 *       +-------------------------+---------------------+-------------------+  done(-1, why), or
 * redis_dial_stop()
 *
 * It dials the address of the configuration, unless redis_dial_to() has named another.
 *
 * RESOLVE is skipped for unix sockets and addresses in digits. Of a name's addresses a refused one costs
 * nothing, the next is tried at once; a silent one costs the attempt, and the next attempt begins behind it.
 * A question to the resolver outlives the attempt that asked, so that a dead name server costs one thread and
 * not one per attempt; while it is open no other name can be asked for (an attempt that wants to fails).
 */
#ifndef RC_REDIS_DIAL_H
#define RC_REDIS_DIAL_H

#include <ev.h>

#include "common/base.h"
#include "common/config.h"
#include "master/redis_resolve.h"
#include "master/redis_tls.h"

#define REDIS_HOST_MAX 255 /* bytes of a host name */

enum redis_dial_step { DIAL_IDLE, DIAL_RESOLVE, DIAL_CONNECT, DIAL_TLS };

struct redis_dial {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	/* Connected: fd, which is the caller's from here (with d->tls holding its session); else -1 and one
	 * word. Called once per redis_dial_start(), perhaps from within it. */
	void (*done)(void *arg, int fd, const char *why);
	void *arg;

	char host[REDIS_HOST_MAX + 1]; /* what is dialled, unless cfg.is_unix; "" = nothing is known */
	uint16_t port;
	enum redis_dial_step step;
	int fd; /* being connected; -1: none */
	ev_io io;
	struct redis_tls *tls; /* NULL until rediss: first needs it */
	struct redis_resolve *query;
	char query_host[REDIS_HOST_MAX + 1]; /* what the query, and fresh addrs, are about */
	uint16_t query_port;
	struct redis_addrs addrs;
	unsigned addr_next; /* index of the next address to try */
	unsigned addr_left; /* how many this attempt may still try */
	bool addrs_fresh;   /* an answer that came after its attempt had ended */
};

void redis_dial_init(struct redis_dial *d, struct ev_loop *loop, const struct cfg_redis *cfg,
		     void (*done)(void *arg, int fd, const char *why), void *arg);
void redis_dial_start(struct redis_dial *d);

/* Dial this from now on (copied; a host over REDIS_HOST_MAX bytes is cut). While idle. */
void redis_dial_to(struct redis_dial *d, const char *host, uint16_t port);

/* Hang up: done() will not be called. Fine when idle. */
void redis_dial_stop(struct redis_dial *d);
void redis_dial_free(struct redis_dial *d);

/* What is dialled: "127.0.0.1:6379", "[::1]:6379", "unix:/path": no credentials. Returns dst. */
const char *redis_dial_address(const struct redis_dial *d, char *dst, size_t size);

/* One word for an errno of the socket, for the log. */
const char *redis_dial_word(const struct redis_dial *d, int err);

#endif
