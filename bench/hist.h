/* hist.h - a log-linear histogram of nanoseconds: 32 steps an octave, so a value is off by 3 % at most.
 *
 * All zero is a valid empty one. One writer; it may live in shared memory and be read by another process
 * once the writer has said that it is done. Never blocks, never allocates.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include "common/base.h"

#define HIST_STEPS_LOG 5
#define HIST_STEPS     (1u << HIST_STEPS_LOG)
#define HIST_SLOTS     ((64u - HIST_STEPS_LOG + 1u) * HIST_STEPS)

struct hist {
	uint64_t count, max, sum;
	uint64_t slot[HIST_SLOTS];
};

/* The slot of a value. Values below 32 have a slot each. */
static inline uint32_t hist_slot(uint64_t v)
{
	unsigned octave;

	if (v < HIST_STEPS)
		return (uint32_t)v;
	octave = 63u - (unsigned)__builtin_clzll(v) - HIST_STEPS_LOG;
	return (octave + 1) * HIST_STEPS + ((uint32_t)(v >> octave) & (HIST_STEPS - 1));
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->slot[hist_slot(v)]++;
	h->count++;
	h->sum += v;
	if (v > h->max)
		h->max = v;
}

/* The smallest value of a slot. */
uint64_t hist_slot_low(uint32_t slot);

/* Add all of `from` to `to`. */
void hist_merge(struct hist *to, const struct hist *from);

/* The value that `share` (0..1) of all values do not pass: the upper edge of its slot, never above the
 * largest value seen. 0 if there is none. */
uint64_t hist_quantile(const struct hist *h, double share);

/* The mean, 0 if there is none. */
double hist_mean(const struct hist *h);

#endif
