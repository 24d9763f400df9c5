/* worker.h - one worker process: what its rooms share.
 *
 *    accept.c     listeners, the reuseport group, limits on connections
 *    proxy.c address.c   who is at the other end
 *    limits.c     limits by user and by address
 *    conn.c       the connection's record, its life, its epoll entry, its timer
 *    input.c      what the socket gave: handshake, then WebSocket messages
 *    output.c     what goes to one socket outside the ring: pongs, Close, small replies
 *    auth*.c      who may connect: hooks, tokens
 *    session.c    what a connection has beyond its plain record
 *    user*.c      users, their sockets and groups
 *    rules*.c     clients' messages to actions; greeting, idle frame
 *    rate.c       how fast clients may send
 *    channel.c    the channel table, members, interest told to the master
 *    fanout.c     ring records to live members; the cursor
 *    behind.c     members that could not take everything: catch-up, slow-client policy
 *    partial.c    frames that somebody has got a piece of
 *    matched.c    how many a publication reaches here, for publishers that ask
 *    delivered.c  how many have taken a message, for publishers that named it
 *    publish.c    publications and interest up the uplinks
 *    control.c    control records down from the master
 *    ask.c        questions to the master, and its answers
 *    wheel.c      timers
 *    ws*.c http.c handshake.c   protocols, without sockets
 *    admin.c api.c stats.c      the admin listener
 *
 * One thread; nothing blocks. libev runs listeners, timers, wake-ups and the admin side. Client sockets sit
 * in an epoll set of the worker's own, which one ev_io watches: 68 bytes a connection less.
 */
#ifndef RC_WORKER_H
#define RC_WORKER_H

#include <ev.h>

#include "common/buf.h"
#include "common/config.h"
#include "shm/boot.h"
#include "shm/counters.h"
#include "shm/globals.h"
#include "shm/record.h"
#include "shm/uplink.h"
#include "worker/ask.h"
#include "worker/behind.h"
#include "worker/channel.h"
#include "worker/conn.h"
#include "worker/delivered.h"
#include "worker/fanout.h"
#include "worker/latest.h"
#include "worker/session.h"
#include "worker/user.h"
#include "worker/wheel.h"
#include "worker/ws.h"

struct admin;
struct rules;

/* A message larger than one uplink record, half-way up. */
struct chunking {
	bool is_active;
	uint32_t owner; /* its request */
	size_t done;    /* payload bytes pushed */
};

struct worker {
	const struct worker_boot *boot;
	const struct config *config;
	struct ev_loop *loop;

	struct ring ring; /* read-only view */
	struct slot slot;
	const struct globals *globals;
	const uint8_t *all_counters;
	struct counters *count; /* this worker's block */

	ev_io wake_io, clients_io, master_io;
	ev_prepare prepare;
	ev_check check;
	ev_idle idle; /* active while there is work left: the loop then does not block */
	ev_timer tick;

	struct acceptor *acceptors;
	size_t n_acceptors;
	bool accept_paused;      /* WINCH, or a drain */
	uint64_t accept_rest_ms; /* the system had no descriptor left: listeners are looked at again then; 0 =
				    no rest */

	/* accept_rate: what this worker may still accept, in thousandths, and when that was. memory_limit: when the
	 * own size was looked at, and what came of it. */
	uint64_t accept_credit, accept_credit_ms, resident_ms, purged_ms;
	bool is_memory_short;
	ev_timer accept_timer; /* out of credit */

	struct conn_table conns;
	struct channel_table channels;
	struct session_table sessions;
	struct user_table *users;
	struct auth *auth; /* auth.c */
	struct limits *limits;
	struct wheel wheel;
	struct fanout fanout;
	struct behind behind;
	struct delivered *delivered; /* NULL until there is something to track */
	struct latest_table latest;
	struct ws_pool *ws_pool;
	uint64_t ws_memory;  /* its bound */
	struct rules *rules; /* rules.c: its buffers */
	struct admin *admin;
	unsigned admin_max; /* connections that the admin side may hold */

	uint32_t master_nap;         /* globals_must_wake() */
	bool uplink_pushed;          /* something went up since the last look at the master's nap */
	struct buf control_overflow; /* interest that did not fit the control uplink, as records, in order */
	uint32_t starving_head,
		starving_tail; /* connections paused until the data uplink has space (linked by ext) */
	struct chunking chunking;
	struct ask_table asks;

	uint64_t now_ms;    /* CLOCK_MONOTONIC at the start of this loop turn */
	uint64_t memory_ms; /* when the allocator was asked last */
	bool is_draining;
	bool is_replaced;    /* draining, and a successor serves our listeners */
	uint16_t drain_code; /* 0: wait for the clients */
	uint64_t drain_start_ms, drain_end_ms;
	uint32_t drain_total;  /* open when it began */
	uint32_t drain_closed; /* closed so far */
	uint32_t drain_cursor; /* next connection index to look at */
	int exit_status;
};

/* accept.c */
struct acceptor {
	ev_io io;
	struct worker *worker;
	int fd;
	bool is_unix;
	bool is_proxied; /* each connection begins with a PROXY header */
	bool is_left;    /* shut down: out of the reuseport group */
};
int accept_start(struct worker *w) MUST_CHECK;
/* Leave or come back: full, draining, paused. Idempotent. */
void accept_update(struct worker *w);

/* Watch no listener any more, but leave it in the group: a successor accepts from it. */
void accept_abandon(struct worker *w);

/* From the tick: is a rest over? */
void accept_tick(struct worker *w);
void accept_stop(struct worker *w);

/* worker.c */
void worker_stop(struct worker *w, int status);

/* worker_main() in pieces, for the tests, which turn the loop by hand under a clock of their own (now_ms).
 * NULL: errno says why; the process is to exit. */
struct worker *worker_new(const struct worker_boot *boot) MUST_CHECK;
/* Before the loop blocks: handle a batch; with nothing left, say so to the master and look once more. True:
 * there is more, do not block. */
bool worker_records(struct worker *w);
/* Deadlines, slow clients, drain, heartbeat. */
void worker_tick(struct worker *w);
void worker_free(struct worker *w);

/* control.c: one control record addressed to this worker (or to all). payload.p == NULL: it has none. */
void control_handle(struct worker *w, const struct rec *h, struct slice room, struct slice payload);
/* Close some more clients if draining; exit when done. From the tick and after closes. */
void control_drain_step(struct worker *w);

/* publish.c */
enum publish_result {
	PUBLISH_OK,
	PUBLISH_BUSY, /* no space in the uplink. Offer it again when publish_resume() runs */
};
/* A message up the data uplink. `request`: see UP_REQUEST_ANSWER; after BUSY the caller offers the same
 * message with the same request again (part of a large one may be up already), or calls publish_abandon(). */
enum publish_result publish_message(struct worker *w, const struct cfg_namespace *ns, struct slice room,
				    uint8_t opcode, struct slice payload, enum cfg_source source,
				    uint32_t request) MUST_CHECK;
/* What the master shall do with it besides (uplink.h); all zero: nothing. With UP_LOW, BUSY is the end of it.
 */
struct publish_extra {
	uint64_t throttle_key; /* 0: none */
	uint32_t throttle_ms, throttle_value;
	uint16_t flags; /* enum up_flag */
};
enum publish_result publish_with(struct worker *w, const struct cfg_namespace *ns, struct slice room,
				 uint8_t opcode, struct slice payload, enum cfg_source source,
				 uint32_t request, const struct publish_extra *extra) MUST_CHECK;
/* The publisher of a BUSY message is gone. */
void publish_abandon(struct worker *w, uint32_t request);
/* Interest (UP_ADD, UP_DROP), UP_HELLO, UP_DRAINED: never lost; what does not fit waits in order, in memory
 * that is bounded by what there is to say: of a connection an ADD and a DROP, its presence, its admission and
 * its release. */
void publish_control(struct worker *w, enum up_type type, uint16_t ns, struct slice room);
/* The same with a payload, of which 16 KiB are allowed, and with the other fields of `h` (len, name_len and
 * payload are set here). Whoever says more than a client's coming and going asks for looks at
 * w->control_overflow first. */
void publish_control_payload(struct worker *w, const struct up_rec *h, struct slice room,
			     struct slice payload);
/* Wake the master if it sleeps and something was pushed. Called before the loop blocks. */
void publish_flush(struct worker *w);
/* The master made space: send what waits, resume paused connections and the admin side. */
void publish_resume(struct worker *w);
/* Pause / forget a connection that got PUBLISH_BUSY. */
void publish_wait(struct worker *w, struct conn *c);
void publish_forget(struct worker *w, struct conn *c);

/* admin.c: the admin listener; NULL config of admins = nothing. */
int admin_start(struct worker *w) MUST_CHECK;
void admin_stop(struct worker *w);
/* A successor serves the admin sockets from now on: accept no more. */
void admin_leave(struct worker *w);
/* From the tick: is a rest over? */
void admin_tick(struct worker *w);
/* Is nobody waiting for an answer, or about to ask? (before the worker exits) */
bool admin_is_quiet(const struct worker *w);
/* REC_ANSWER for `request` arrived. */
void admin_answer(struct worker *w, uint32_t request, enum rec_answer answer, uint64_t seq, uint64_t epoch,
		  const struct rec_counts *counts);
/* The uplink has space again. */
void admin_resume(struct worker *w);

#endif
