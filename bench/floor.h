/* floor.h - the lower bound: the least a prefork server must do to hand every message to every socket.
 *
 *     parent: one source of messages --frame--> shared bytes --eventfd--> worker 0.. : send() to each socket
 *
 * No protocol beyond a canned 101, no slow-client care (a full socket blocks its worker, for at most
 * SEND_WAIT_MS), nobody's input is looked at except for an end. What ringcast costs above this is what its
 * features cost.
 *
 * Without --channels everybody gets everything. With it, a client's path and a message's channel name end in
 * a number: the message goes to the one client with that number, looked up in an array.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <netinet/in.h>
#include <stdatomic.h>

#include "common/base.h"

#define FLOOR_WORKERS 64
#define FLOOR_BYTES   (32u << 20) /* shared message bytes, a power of two */
#define FLOOR_INDEX   (1u << 16)  /* messages in them at most, a power of two */
#define SEND_WAIT_MS  5000

struct floor_opts {
	const char *listen, *publish, *redis, *channel;
	uint32_t workers, batch, size;
	uint32_t channels; /* 0: one channel, all clients in it */
	double rate;
	uint64_t messages;
	uint16_t run;
	bool binary, uring;
};

/* The shared messages: frames lie one behind the other (never over the end of `bytes`), so a batch is one
 * contiguous send. The parent alone writes `head`, `end` and `bytes`; each worker its own slot. Message m
 * occupies bytes [start, end) with end[m % FLOOR_INDEX]; start is the end of m - 1, or 0 behind a wrap, which
 * begin[] says. The parent overwrites nothing that a worker has not passed. */
struct floor_shared {
	_Alignas(64) _Atomic uint64_t head; /* messages committed */
	struct {
		_Alignas(64) _Atomic uint64_t cursor; /* messages this worker has done */
		_Atomic uint32_t asleep;
		int wake_fd;
		_Atomic uint64_t sends, deliveries; /* calls, and messages in them times their receivers */
	} slot[FLOOR_WORKERS];
	uint32_t begin[FLOOR_INDEX], end[FLOOR_INDEX], channel[FLOOR_INDEX];
	uint8_t bytes[FLOOR_BYTES];
};

/* floor_ring.c, parent only: append one frame for `channel` (waits for the slowest worker), and wake who
 * sleeps. Returns -1 if the message is too large or a worker does not move for SEND_WAIT_MS * 2. */
int floor_put(const struct floor_opts *o, struct floor_shared *sh, uint32_t channel, const void *payload,
	      size_t len) MUST_CHECK;
int floor_wake(struct floor_shared *sh, uint32_t workers) MUST_CHECK;

/* floor_input.c, parent only: feed messages until a signal says stop. They return the exit status. */
extern volatile int floor_stop;
int floor_feed_rate(const struct floor_opts *o, struct floor_shared *sh);
int floor_feed_http(const struct floor_opts *o, struct floor_shared *sh);
int floor_feed_redis(const struct floor_opts *o, struct floor_shared *sh);
/* The number that a name of n bytes ends in, 0 without one. */
uint32_t floor_number(const char *name, size_t n);
int floor_listen(const char *addr, bool reuse_port, struct sockaddr_in *bound) MUST_CHECK;

/* floor_worker.c: the life of a worker. */
int floor_worker(const struct floor_opts *o, struct floor_shared *sh, uint32_t slot, int listener);

/* floor_uring.c: send n bytes to each of the sockets by io_uring. `stuck` gets those that did not take all,
 * with what is left. Built without liburing, open fails with ENOSYS. */
struct floor_uring;
struct floor_uring *floor_uring_open(void);
int floor_uring_send(struct floor_uring *u, const int *fds, uint32_t n_fds, const uint8_t *p, size_t n,
		     void (*stuck)(void *arg, int fd, size_t done), void *arg) MUST_CHECK;

#endif
