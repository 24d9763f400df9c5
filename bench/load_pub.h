/* load_pub.h - one publisher process and its three ways out. Private to the load client. */
#ifndef BENCH_LOAD_PUB_H
#define BENCH_LOAD_PUB_H

#include <poll.h>

#include "bench/load.h"
#include "common/buf.h"

#define PUB_FDS   256
#define PUB_BATCH 64 /* messages between two flushes at most */
#define PUB_IO_MS 10000

struct pub;

/* A way to publish. Calls may block up to PUB_IO_MS; on failure they return -1 with p->ps->why set. */
struct pub_way {
	int (*open)(struct pub *p);
	/* Hand over one message (wrapped, where it is to be); it may stay in a buffer until flush(). */
	int (*send)(struct pub *p, uint32_t channel, const uint8_t *payload, size_t len);
	/* All that was handed over is with the server, as far as this way can tell. */
	int (*flush)(struct pub *p);
	/* One of p->fds[1..] is readable while the publisher waits; NULL: none is watched. */
	int (*readable)(struct pub *p);
	void (*close)(struct pub *p);
};

struct pub {
	const struct load_opts *o;
	struct load_shared *sh;
	struct load_pub_shared *ps;
	const struct pub_way *way;
	uint32_t number;
	uint32_t next, done;        /* messages begun; messages that all steady clients have had */
	uint8_t *message;           /* the wrap's head, size_max bytes of payload, the wrap's tail */
	struct pollfd fds[PUB_FDS]; /* 0: wake_fd */
	nfds_t n_fds;
	void *state; /* the way's own */
};

/* Note what went wrong, if it is the first thing, and count it. Returns -1. */
int pub_fail(struct pub *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The number of a publisher's connection, for templates. */
static inline uint32_t pub_conn_number(const struct pub *p, uint32_t channel)
{
	return load_total(p->o) + p->number * p->o->channels + channel;
}

/* A blocking TCP or unix socket with timeouts of PUB_IO_MS. Returns the descriptor or -1 (pub_fail called).
 */
int pub_connect(struct pub *p, const char *addr);

extern const struct pub_way pub_redis, pub_http, pub_ws;

#endif
