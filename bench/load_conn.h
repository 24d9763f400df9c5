/* load_conn.h - one receiver process: its connections and how they live. Private to the load client.
 *
 *              start            socket writable       101 read
 *     NONE -----------> CONNECT ----------> UPGRADE ----------> OPEN ---- leave ----> LEAVING
 *      ^                   | failed            | refused          | closed by the server  |
 *      |                   v                   v                  v                       |
 *      +---- rejoin ---- GONE <---------------------------------------------- EOF or 5 s -+
 *
 * CONNECT and UPGRADE are bounded by HANDSHAKE_NS, LEAVING by LEAVE_NS, OPEN by the run. conn_gone() and
 * conn_start() alone make and end sockets. Where connect() is done at once, as on loopback, CONNECT is passed
 * through in conn_start().
 *
 * Sockets are watched edge-triggered: what is readable is read until a read comes short, so that epoll does
 * not ask every socket again whether there is more.
 */
#ifndef BENCH_LOAD_CONN_H
#define BENCH_LOAD_CONN_H

#include <sys/epoll.h>

#include "bench/load.h"
#include "bench/payload.h"
#include "bench/track.h"
#include "bench/wsin.h"

#define HANDSHAKE_NS 10000000000ull
#define LEAVE_NS     5000000000ull
#define READ_SIZE    (256u << 10)
#define HEAD_MAX     8192 /* of an answer to the upgrade */

enum conn_state { CONN_NONE, CONN_CONNECT, CONN_UPGRADE, CONN_OPEN, CONN_LEAVING, CONN_GONE };

/* STEADY: must get everything, and completes messages. PAUSE: must get everything, in its own time.
 * CHURN: must get an unbroken run from its 101 to its leaving. STALL: never reads. SLOW: must get everything,
 * but reads so many bytes a second until DRAIN; the server may close it. STORM: an unbroken run from its 101
 * until it is cut, and after the last storm everything. */
enum conn_role { ROLE_STEADY, ROLE_PAUSE, ROLE_CHURN, ROLE_STALL, ROLE_SLOW, ROLE_STORM };

/* The message that is being read. IGNORED: --ignore names it. */
enum conn_body { BODY_BAD, BODY_FOREIGN, BODY_OURS, BODY_IGNORED };

/* One connection's view of one publisher. */
struct conn_pub {
	struct track track;
	uint32_t from;   /* the first that must come: what was next when our 101 was read */
	uint32_t credit; /* steady: counted in `got` up to here */
	uint32_t target; /* leaving: to be had before */
	bool started;
};

struct conn {
	int fd;
	uint8_t state, role;
	bool began;      /* has been open before: from now on it is a rejoin */
	bool paused;     /* not in the epoll set for reading */
	bool closing;    /* the server's Close has come */
	bool aimed;      /* churn: about to leave, see check_aim() */
	bool credited;   /* in the receiver's gone[] */
	bool storming;   /* cut by a storm, and not back yet */
	uint8_t body_is; /* enum conn_body */
	uint32_t index, channel;
	uint32_t place;   /* in the receiver's table */
	uint32_t members; /* steady clients of the channel */
	uint32_t body_seed;
	uint64_t body_off;  /* bytes behind the payload's head that were checked so far */
	uint64_t body_fill; /* of those to come: the fill; behind it stands the wrap's tail */
	struct payload_id body;
	uint64_t since_ns; /* connect begun, or due to; OPEN churn and pause: when to act next; slow: last
			      read */
	struct head_part *part; /* UPGRADE: an answer that came in pieces; heap, NULL if it did not */
	struct wsin in;
	struct conn_pub pub[]; /* one for each publisher */
};

struct load_cpu {
	uint64_t user_ns, sys_ns;
};

struct head_part {
	uint32_t len;
	char text[HEAD_MAX];
};

struct receiver {
	const struct load_opts *o;
	struct load_shared *sh;
	struct load_result *res;
	uint32_t proc;
	int epfd;
	int phase;
	struct load_addr target;
	uint8_t *conns; /* n_conns records of `stride` bytes */
	size_t stride;
	uint32_t n_conns, next_start, underway;
	uint32_t storm_from, storm_to;   /* the storm's clients: places in conns */
	uint32_t storm_next, storm_seen; /* cut and yet to reconnect: from here on; the last storm begun */
	uint32_t n_gone;                 /* steady clients that are over, in gone[] by place in conns */
	uint32_t *gone;
	uint64_t started_ns, now_ns;
	uint64_t stall_deadline_ns;
	struct load_cpu cpu_start;
	uint64_t random;
	uint16_t run; /* taken from the first message when nobody here publishes */
	bool run_known;
	bool want_churn;     /* between PUBLISH and DRAIN */
	uint8_t *room;       /* WSIN_STASH + HEAD_MAX + READ_SIZE */
	struct wsin_ops ops; /* check_ops, with room for the wrap's head */
};

static inline struct conn *receiver_conn(const struct receiver *r, uint32_t i)
{
	return (struct conn *)(void *)(r->conns + (size_t)i * r->stride);
}

uint32_t receiver_random(struct receiver *r, uint32_t below);

/* Note what went wrong, if it is the first thing. */
void receiver_why(struct receiver *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* load_conn.c: sockets */
/* Connect; `due_ns`: when that should have begun, for the time that the handshake takes. */
void conn_start(struct receiver *r, struct conn *c, uint64_t due_ns);
void conn_event(struct receiver *r, struct conn *c, uint32_t events);
void conn_pause(struct receiver *r, struct conn *c);
void conn_resume(struct receiver *r, struct conn *c);
/* Read up to `max` bytes (at most READ_SIZE) and check them. */
enum conn_read { READ_NOTHING, READ_SHORT, READ_FULL, READ_OVER /* the connection is gone */ };
enum conn_read conn_read(struct receiver *r, struct conn *c, size_t max);
/* Leave: with a Close frame and waiting for the answer, or (abrupt) by closing the socket. */
void conn_leave(struct receiver *r, struct conn *c, bool abrupt);
/* The 101 has been read. */
void conn_opened(struct receiver *r, struct conn *c);
/* The connection is over; `end` says how, END_COUNT = as we wanted. */
void conn_gone(struct receiver *r, struct conn *c, enum load_end end);
/* Write one masked control frame. False if the socket did not take it. */
bool conn_control(struct conn *c, uint8_t opcode, const uint8_t *payload, uint64_t len);
int conn_watch(const struct receiver *r, struct conn *c, int op, uint32_t events);
#define CONN_READS (EPOLLIN | EPOLLRDHUP | EPOLLET)

/* load_shake.c: from a socket to the 101. On failure they end the connection. */
/* Send the request. Returns 1, 0 if the socket is not connected yet, or -1 (the connection is gone). */
int shake_send(struct receiver *r, struct conn *c);
/* Take the n bytes at r->room + WSIN_STASH, an answer or a part of it. Returns -1 if the connection is gone,
 * else how many bytes behind the head they hold, which stand at *rest. */
ssize_t shake_read(struct receiver *r, struct conn *c, size_t n, uint8_t **rest);

/* load_roles.c: clients that do other things than read */
/* Every TICK_NS: what is due for each. */
void roles_tick(struct receiver *r);
/* Every turn: cut and reconnect when the parent says so. */
void roles_storm(struct receiver *r);
/* The connection is open. */
void roles_opened(struct receiver *r, struct conn *c);
/* PUBLISH begins; PUBLISH is over: everybody reads; read out those that never did. */
void roles_publish(struct receiver *r);
void roles_drain(struct receiver *r);
void roles_read_stalled(struct receiver *r);

/* load_check.c: messages */
extern const struct wsin_ops check_ops; /* arg: struct check_arg */
struct check_arg {
	struct receiver *r;
	struct conn *c;
	enum load_end end; /* set when a callback says stop */
};
/* The connection's 101 has been read: from here on everything must come. */
void check_open(struct receiver *r, struct conn *c);
/* Count messages up to seq (exclusive) as had by a steady client, so that publishers can go on. */
void check_credit(struct receiver *r, struct conn *c, uint32_t pub, uint32_t upto);
/* Fix what a leaving client must still get, and whether it has got it. */
void check_aim(struct receiver *r, struct conn *c);
bool check_reached(const struct receiver *r, const struct conn *c);
/* Whether the connection has all that was published in its channel; *missing is how many not. */
bool check_complete(const struct receiver *r, const struct conn *c, uint64_t *missing);

#endif
