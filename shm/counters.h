/* counters.h - the numbers that /stats and /metrics show. One block per slot and one for the master, in one segment;
 * each block has one writer (the worker in the slot; the master its own), everybody may read. A block outlives the
 * worker: its successor goes on counting, so totals never fall; the master zeroes the gauges of a dead one.
 * All words are relaxed atomics: each stands for itself, nothing else is published by them.
 */
#ifndef RC_COUNTERS_H
#define RC_COUNTERS_H

#include <stdatomic.h>

#include "common/base.h"
#include "common/config.h"
#include "shm/slot.h"

typedef _Atomic uint64_t counter; /* the one typedef: it names a meaning, hides nothing */

/* X(field, what it counts). `g` in the second list: gauges, zeroed at the worker's death. */
#define COUNTERS_WORKER(X)                                                                                          \
	X(wakes, "times the worker was woken by its eventfd")                                                       \
	X(batches, "batches of records handled")                                                                    \
	X(records, "records looked at")                                                                             \
	X(sends, "send or writev calls of the fan-out")                                                             \
	X(catchup_reads, "records visited for clients that were behind")                                            \
	X(slow_copies, "half-sent frames copied out of the ring")                                                   \
	X(uplink_full, "times a publisher was paused because the uplink was full")                                  \
	X(subscribe_timeouts, "memberships begun without Redis' confirmation")                                      \
	X(handshakes, "101 answers")                                                                                \
	X(hook_requests, "requests to authorization hooks")                                                         \
	X(hook_failures, "of these, not answered as they should be")                                                \
	X(hook_cached, "connections decided without asking the hook")                                               \
	X(hook_open, "connections refused at once because a hook's breaker was open")                               \
	X(forwards_dropped, "client messages for a hook that were dropped: too many at once, or it did not answer")         \
	X(evicted, "connections closed by disconnect, recheck or expiry")                                           \
	X(accepted, "connections accepted")
#define COUNTERS_MASTER(X)                                                                                          \
	X(ring_records, "records committed")                                                                        \
	X(ring_full, "times a publication waited for the ring")                                                     \
	X(wakeups, "eventfd writes to workers")                                                                     \
	X(stuck_kills, "workers killed because they held the ring or stood still")                                  \
	X(restarts_crash, "workers replaced after a crash or kill")                                                 \
	X(restarts_stuck, "workers replaced after a stuck kill")                                                    \
	X(restarts_exit, "workers replaced after an unexpected exit")                                               \
	X(broken_uplinks, "workers replaced because they broke the uplink's rules")                                 \
	X(redis_reconnects, "Redis links re-established")                                                           \
	X(redis_gaps, "losses of the Redis subscriber link while it was up")                                        \
	X(redis_given_up, "publications that did not fit the pending list while Redis was away")                    \
	X(redis_duplicates, "publications dropped because their id was seen before")                                \
	X(targets_skipped, "elements of target lists that are neither strings nor integers")                        \
	X(controls, "orders (disconnect, groups) handed to the workers")                                            \
	X(controls_bad, "messages on the control channel that are no order")                                        \
	X(controls_lost, "orders that did not reach the workers: too much waited for a full ring")                      \
	X(presence_refused, "commands about who is online that Redis answered with an error")                       \
	X(retained_evicted, "retained messages forgotten because too many bytes were kept")                                \
	X(offline_queued, "messages kept for users who were away")                                                         \
	X(offline_lost, "of these, and of those for them, lost: too many, too large, or Redis did not take them")          \
	X(counts_partial, "publish answers that not all workers and replicas had a part in in time")
#define COUNTERS_GAUGE(X)                                                                                           \
	X(connections, "established WebSocket connections")                                                         \
	X(handshaking, "connections before their 101")                                                              \
	X(memory, "bytes of memory of its own, while there is a memory_limit")                                      \
	X(slow_bytes, "bytes held for half-sent frames")                                                            \
	X(jemalloc_allocated, "bytes allocated, as jemalloc says")

/* Per namespace: by worker, or by the master (publications, and dropped for what the master drops). */
#define COUNTERS_NS(X)                                                                                              \
	X(opened, "connections opened")                                                                             \
	X(deliveries, "frames handed to the kernel for a client")                                                   \
	X(bytes_out, "bytes of those frames")                                                                       \
	X(pub_client, "publications by clients")                                                                    \
	X(pub_api, "publications by the HTTP API")                                                                  \
	X(pub_redis, "publications from Redis by others")                                                           \
	X(client_messages, "messages that clients sent")                                                            \
	X(bad_frames, "client messages that are no JSON object where one is expected")                              \
	X(rate_limited, "client messages held back or dropped by a rate limit")
#define COUNTERS_NS_GAUGE(X)                                                                                        \
	X(connections, "established connections")                                                                   \
	X(channels, "channels with a member")                                                                       \
	X(users, "distinct users online on this host (counted by the master)")

#define COUNTERS_DROPPED(X)                                                                                         \
	X(no_route) X(no_target) X(untargeted) X(bad_json) X(not_object) X(bad_utf8) X(too_large) X(rate) X(shed) X(slow_skip)

#define COUNTERS_REFUSED(X)                                                                                         \
	X(bad_request) X(no_namespace) X(not_get) X(timeout) X(url_too_long) X(no_upgrade) X(bad_version)            \
	X(head_too_large) X(origin) X(full) X(rate) X(aborted)                                                      \
	X(auth) X(user) X(hook) X(per_user) X(per_address) X(proxy) X(memory)

#define COUNTERS_CLOSED(X)                                                                                          \
	X(1000) X(1001) X(1002) X(1003) X(1005) X(1006) X(1007) X(1008) X(1009) X(1011) X(1012) X(1013) X(other)

#define X(f, ...) COUNT_DROPPED_##f,
enum count_dropped { COUNTERS_DROPPED(X) COUNT_DROPPED_N };
#undef X
#define X(f, ...) COUNT_REFUSED_##f,
enum count_refused { COUNTERS_REFUSED(X) COUNT_REFUSED_N };
#undef X
#define X(f, ...) COUNT_CLOSED_##f,
enum count_closed { COUNTERS_CLOSED(X) COUNT_CLOSED_N };
#undef X

/* Delivery latency, from the master's time stamp to the send: upper bounds in microseconds; the last is +Inf. */
#define COUNTERS_LATENCY_BOUNDS                                                                                     \
	{100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000}
#define COUNT_LATENCY_N 16

struct counters_ns {
#define X(f, ...) counter f;
	COUNTERS_NS(X)
	COUNTERS_NS_GAUGE(X)
#undef X
	counter dropped[COUNT_DROPPED_N];
};

struct counters {
#define X(f, ...) counter f;
	COUNTERS_WORKER(X)
	COUNTERS_MASTER(X)
	COUNTERS_GAUGE(X)
#undef X
	counter closed[COUNT_CLOSED_N];
	counter refused[COUNT_REFUSED_N];
	counter latency[COUNT_LATENCY_N];
	counter latency_sum_us;
	struct counters_ns ns[CFG_MAX_NAMESPACES];
};

#define COUNTERS_BLOCK  16384u /* bytes of one block: whole pages */
#define COUNTERS_MASTER_BLOCK SLOT_MAX
#define COUNTERS_BYTES  (COUNTERS_BLOCK * (SLOT_MAX + 1u))

_Static_assert(sizeof(struct counters) <= COUNTERS_BLOCK, "counters: a block");

/* Add to a counter of one's own block (single writer, so load and store suffice). */
static inline void count_add(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void count_sub(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) - n, memory_order_relaxed);
}

static inline void count_set(counter *c, uint64_t v)
{
	atomic_store_explicit(c, v, memory_order_relaxed);
}

static inline uint64_t count_get(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void count_latency(struct counters *c, uint64_t us, uint64_t n)
{
	static const uint64_t bounds[] = COUNTERS_LATENCY_BOUNDS;
	size_t i = 0;

	while (i < ARRAY_LEN(bounds) && us > bounds[i])
		i++;
	count_add(&c->latency[i], n);
	count_add(&c->latency_sum_us, us * n);
}

/* Slot of a close code in `closed`. */
enum count_closed count_closed_index(unsigned code);

/* Names for answers: "1013", "origin", "no_route". */
extern const char *const count_closed_names[COUNT_CLOSED_N];
extern const char *const count_refused_names[COUNT_REFUSED_N];
extern const char *const count_dropped_names[COUNT_DROPPED_N];

/* The segment's descriptor, writable; COUNTERS_BYTES. Master. -1 with errno. */
int counters_create(void) MUST_CHECK;

/* Map one's own block writable (worker: then close the descriptor), or all of them read-only. NULL with errno. */
struct counters *counters_map_block(int fd, unsigned block) MUST_CHECK;
const uint8_t *counters_map_all(int fd) MUST_CHECK;

static inline const struct counters *counters_block(const uint8_t *all, unsigned block)
{
	return (const struct counters *)(all + (size_t)block * COUNTERS_BLOCK);
}

/* Zero what says "now": of a worker that is gone; the connections it still held are counted as closed (1006). Master, through a writable block mapping. */
void counters_zero_gauges(struct counters *c);

#endif
