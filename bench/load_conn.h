/* load_conn.h - one receiver process: its connections and how they live. Private to the load client.
 *
 *              start            socket writable       101 read
 *     NONE -----------> CONNECT ----------> UPGRADE ----------> OPEN ---- leave ----> LEAVING
 *      ^                   | failed            | refused          | closed by the server  |
 *      |                   v                   v                  v                       |
 *      +---- rejoin ---- GONE <---------------------------------------------- EOF or 5 s -+
 *
 * CONNECT and UPGRADE are bounded by HANDSHAKE_NS, LEAVING by LEAVE_NS, OPEN by the run. conn_gone() and
 * conn_start() alone make and end sockets.
 */
#ifndef BENCH_LOAD_CONN_H
#define BENCH_LOAD_CONN_H

#include "bench/load.h"
#include "bench/payload.h"
#include "bench/track.h"
#include "bench/wsin.h"

#define HANDSHAKE_NS 10000000000ull
#define LEAVE_NS     5000000000ull
#define READ_SIZE    (256u << 10)

enum conn_state { CONN_NONE, CONN_CONNECT, CONN_UPGRADE, CONN_OPEN, CONN_LEAVING, CONN_GONE };

/* STEADY: must get everything, and completes messages. PAUSE: must get everything, in its own time.
 * CHURN: must get an unbroken run from its 101 to its leaving. STALL: never reads. */
enum conn_role { ROLE_STEADY, ROLE_PAUSE, ROLE_CHURN, ROLE_STALL };

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
	bool began;    /* has been open before: from now on it is a rejoin */
	bool paused;   /* not in the epoll set for reading */
	bool closing;  /* the server's Close has come */
	bool aimed;    /* churn: about to leave, see check_aim() */
	bool credited; /* in the receiver's gone[] */
	bool body_ok, body_known;
	uint32_t index, channel;
	uint32_t place;   /* in the receiver's table */
	uint32_t members; /* steady clients of the channel */
	uint32_t body_seed;
	uint64_t body_off; /* fill bytes checked so far */
	struct payload_id body;
	uint64_t since_ns; /* connect begun; OPEN churn and pause: when to act next */
	struct wsin in;
	struct conn_pub pub[]; /* one for each publisher */
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
	uint32_t n_gone; /* steady clients that are over, in gone[] by place in conns */
	uint32_t *gone;
	uint64_t started_ns, now_ns;
	uint64_t stall_deadline_ns, cpu_start_ns;
	uint64_t random;
	uint16_t run; /* taken from the first message when nobody here publishes */
	bool run_known;
	bool want_churn; /* between PUBLISH and DRAIN */
	uint8_t *room;   /* WSIN_STASH + READ_SIZE */
};

static inline struct conn *receiver_conn(const struct receiver *r, uint32_t i)
{
	return (struct conn *)(void *)(r->conns + (size_t)i * r->stride);
}

uint32_t receiver_random(struct receiver *r, uint32_t below);

/* Note what went wrong, if it is the first thing. */
void receiver_why(struct receiver *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* load_conn.c: sockets */
void conn_start(struct receiver *r, struct conn *c);
void conn_event(struct receiver *r, struct conn *c, uint32_t events);
void conn_pause(struct receiver *r, struct conn *c);
void conn_resume(struct receiver *r, struct conn *c);
/* Leave: with a Close frame and waiting for the answer, or (abrupt) by closing the socket. */
void conn_leave(struct receiver *r, struct conn *c, bool abrupt);
/* The connection is over; `end` says how, END_COUNT = as we wanted. */
void conn_gone(struct receiver *r, struct conn *c, enum load_end end);
/* Write one masked control frame. False if the socket did not take it. */
bool conn_control(struct conn *c, uint8_t opcode, const uint8_t *payload, uint64_t len);

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
