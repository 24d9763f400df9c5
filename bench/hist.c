/* hist.c - reading a log-linear histogram; adding is inline (hist.h). */
#include "bench/hist.h"

uint64_t hist_slot_low(uint32_t slot)
{
	uint32_t octave = slot / HIST_STEPS;

	if (octave == 0)
		return slot;
	return (uint64_t)(HIST_STEPS + slot % HIST_STEPS) << (octave - 1);
}

void hist_merge(struct hist *to, const struct hist *from)
{
	for (uint32_t i = 0; i < HIST_SLOTS; i++)
		to->slot[i] += from->slot[i];
	to->count += from->count;
	to->sum += from->sum;
	to->max = u64_max(to->max, from->max);
}

uint64_t hist_quantile(const struct hist *h, double share)
{
	uint64_t want = (uint64_t)(share * (double)h->count + 0.5), seen = 0;

	if (want == 0)
		want = 1;
	for (uint32_t i = 0; i < HIST_SLOTS; i++) {
		seen += h->slot[i];
		if (seen >= want)
			return i + 1 == HIST_SLOTS ? h->max : u64_min(hist_slot_low(i + 1) - 1, h->max);
	}
	return h->max;
}

double hist_mean(const struct hist *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0;
}
