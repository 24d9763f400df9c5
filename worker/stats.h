/* stats.h - reading the counters of all workers: what stats.c and metrics.c share. Worker; never blocks,
 * except that stats_json() reads /proc. Sums are of relaxed loads: each number is right for a moment, not all
 * for the same. */
#ifndef RC_STATS_H
#define RC_STATS_H

#include "shm/counters.h"

struct worker;

/* The counter at `offset` of struct counters, over all blocks. */
uint64_t stats_sum(const struct worker *w, size_t offset);
#define STATS_SUM(w, field) stats_sum((w), offsetof(struct counters, field))

static inline size_t stats_ns_offset(unsigned ns)
{
	return offsetof(struct counters, ns) + ns * sizeof(struct counters_ns);
}

/* Namespaces ever configured; names in globals. */
unsigned stats_namespaces(const struct worker *w);

/* Bytes of the ring that a worker still has before it. */
uint64_t stats_lag(const struct worker *w, unsigned slot);

/* "off", "up", "down", "subscriber_only", "publisher_only". */
const char *stats_redis_state(const struct worker *w);

uint32_t stats_u32(const _Atomic uint32_t *p);
uint64_t stats_u64(const _Atomic uint64_t *p);

#endif
