/* track.c - the irregular cases of a receiver's view of one publisher (track.h). */
#include "bench/track.h"

static enum track_verdict see_gap(struct track *t, uint32_t seq, uint32_t *lost)
{
	uint32_t step = seq - t->next + 1;

	*lost = step - 1;
	t->seen = step < 64 ? t->seen << step | 1 : 1;
	t->next = seq + 1;
	return TRACK_GAP;
}

enum track_verdict track_odd(struct track *t, uint32_t seq, uint32_t *lost)
{
	uint32_t back;

	if (seq >= t->next)
		return see_gap(t, seq, lost);
	back = t->next - 1 - seq;
	if (back >= 64 || t->seen & (uint64_t)1 << back)
		return TRACK_REPEAT;
	t->seen |= (uint64_t)1 << back;
	return TRACK_LATE;
}
