/* hist.h - a histogram of nanoseconds in HdrHistogram's bucket layout, three significant digits.
 *
 * Values below 2048 have a slot each; above, every octave has 1024, so a value is off by 0.1 % at most. That
 * is what an HdrHistogram with lowestDiscernibleValue 1, highestTrackableValue HIST_TOP and 3 digits counts,
 * slot for slot, and why bench/hdr.h can write one without converting anything.
 *
 * All zero is a valid empty one. One writer, who never blocks and never allocates. It may live in shared
 * memory: another process may read it at any time by hist_interval() alone, and by the rest once the writer
 * has said that it is done. Each count is written and read whole; no order among them is promised, nor
 * needed.
 */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include "common/base.h"

#define HIST_HALF_LOG 10 /* log2 of the slots of an octave */
#define HIST_HALF     (1u << HIST_HALF_LOG)
#define HIST_DIGITS   3
#define HIST_TOP_LOG  43 /* 2.4 hours: longer than any run */
#define HIST_TOP      ((UINT64_C(1) << HIST_TOP_LOG) - 1)
#define HIST_BUCKETS                                                                                         \
	(HIST_TOP_LOG - HIST_HALF_LOG) /* HdrHistogram's word for octaves; the first is a double one */
#define HIST_SLOTS ((HIST_BUCKETS + 1u) * HIST_HALF)

struct hist {
	uint64_t count, max, sum;
	uint64_t slot[HIST_SLOTS];
};

/* The slot of a value; what is above HIST_TOP counts as HIST_TOP. */
static inline uint32_t hist_slot(uint64_t v)
{
	unsigned octave;

	if (unlikely(v > HIST_TOP))
		return HIST_SLOTS - 1;
	octave = 63u - (unsigned)__builtin_clzll(v | (2 * HIST_HALF - 1)) - HIST_HALF_LOG;
	return octave * HIST_HALF + (uint32_t)(v >> octave);
}

/* Relaxed: nobody else writes, and hist_interval() asks for no more than whole words. */
static inline void hist_word_add(uint64_t *word, uint64_t n)
{
	__atomic_store_n(word, *word + n, __ATOMIC_RELAXED);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	hist_word_add(&h->slot[hist_slot(v)], 1);
	hist_word_add(&h->sum, v);
	if (v > h->max)
		__atomic_store_n(&h->max, v, __ATOMIC_RELAXED);
	hist_word_add(&h->count, 1);
}

/* The smallest and the largest value of a slot, and the one that stands for all of them. */
uint64_t hist_slot_low(uint32_t slot);
uint64_t hist_slot_high(uint32_t slot);
uint64_t hist_slot_mid(uint32_t slot);

/* Add all of `from` to `to`. */
void hist_merge(struct hist *to, const struct hist *from);

/* What `live` has come to hold since the last call with the same `seen`, added to `interval`. `seen` begins
 * all zero and is the caller's; `live` may have its writer at work. The interval's max and sum are those of
 * its slots (the largest value of the highest, the middle of each): nothing that is exact is known of a
 * second. */
void hist_interval(struct hist *interval, struct hist *seen, const struct hist *live);

/* The value that `share` (0..1) of all values do not pass: the upper edge of its slot, never above the
 * largest value seen. 0 if there is none. */
uint64_t hist_quantile(const struct hist *h, double share);

/* The mean, 0 if there is none. */
double hist_mean(const struct hist *h);

/* Forget everything; touches only what was used. */
void hist_clear(struct hist *h);

#endif
