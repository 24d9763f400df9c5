/* ring_bench.h - what the parts of bench-ring share: two figures of the ring, taken between processes.
 *
 *   ring_flow.c   records a second: one producer, 1 to FLOW_MAX consumers
 *   ring_wake.c   from a commit to a woken reader, beside a bare eventfd ping-pong
 *   ring.c        options, and the report
 *
 * All functions exit(1) with a line on stderr when the system refuses something, and when a figure would be a
 * lie: a record that was lost, repeated, out of order or not what was written.
 */
#ifndef RC_RING_BENCH_H
#define RC_RING_BENCH_H

#include <stdio.h>
#include <sys/types.h>

#include "shm/ring.h"
#include "shm/slot.h"

#define FLOW_MAX 4u /* consumers */

struct bench {
	struct ring ring;
	uint64_t bytes; /* of the ring */
	struct slot slot[FLOW_MAX];
	pid_t pid[FLOW_MAX];
	unsigned n;
};

struct flow {
	double per_s; /* records, to each consumer */
	double ns_out,
		ns_in; /* CPU a record: of the producer; of one consumer (their mean). Waiting is not in it */
};

struct wakes {
	uint32_t bare_p50, bare_p99, ring_p50, ring_p99; /* ns */
};

/* One run of so many seconds; the CPUs of the machine are shared out in turn, the producer's first. */
struct flow ring_flow(uint64_t ring_bytes, unsigned consumers, size_t payload_len, double seconds);

struct wakes ring_wake(void);

/* ---- for the parts (ring.c) */

_Noreturn void ring_die(const char *what);

/* A ring with `consumers` slots, its memory touched; and its end, when the children of b->pid are gone: all
 * must have exited with status 0. */
void ring_begin(struct bench *b, uint64_t bytes, unsigned consumers);
void ring_end(struct bench *b);

/* CPU number n, modulo the CPUs there are. */
void ring_pin(unsigned n);

/* Zeroed memory for this process and its children. */
void *ring_shared(size_t bytes);

#endif
