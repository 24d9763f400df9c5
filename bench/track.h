/* track.h - what one receiver has had of one publisher: loss, repetition, order.
 *
 * Knows the next sequence number and which of the 64 before it have come, like the replay window of
 * IPsec: a late one is told from a repeated one. Pure; one owner.
 */
#ifndef BENCH_TRACK_H
#define BENCH_TRACK_H

#include "common/base.h"

struct track {
	uint32_t next; /* one past the highest sequence number seen */
	uint64_t seen; /* bit i: next - 1 - i has come */
};

enum track_verdict {
	TRACK_OK,
	TRACK_GAP,    /* numbers before it are missing: *lost of them */
	TRACK_LATE,   /* it was missing: one lost less, but out of order */
	TRACK_REPEAT, /* came before, or is older than the window */
};

/* Begin at `seq`: the first number expected. What is older counts as come. */
static inline void track_start(struct track *t, uint32_t seq)
{
	t->next = seq;
	t->seen = ~(uint64_t)0;
}

/* The irregular cases of track_see(). */
enum track_verdict track_odd(struct track *t, uint32_t seq, uint32_t *lost);

/* Note that `seq` came. *lost is written for TRACK_GAP alone. Numbers do not wrap (2^32 a run). */
static inline enum track_verdict track_see(struct track *t, uint32_t seq, uint32_t *lost)
{
	if (unlikely(seq != t->next))
		return track_odd(t, seq, lost);
	t->next++;
	t->seen = t->seen << 1 | 1;
	return TRACK_OK;
}

#endif
