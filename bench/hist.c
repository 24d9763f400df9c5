/* hist.c - reading a histogram; adding is inline (hist.h). */
#include "bench/hist.h"

#include <string.h>

uint64_t hist_slot_low(uint32_t slot)
{
	const uint32_t octave = slot < 2 * HIST_HALF ? 0 : slot / HIST_HALF - 1;

	return (uint64_t)(slot - octave * HIST_HALF) << octave;
}

uint64_t hist_slot_high(uint32_t slot)
{
	return hist_slot_low(slot + 1) - 1;
}

uint64_t hist_slot_mid(uint32_t slot)
{
	const uint64_t low = hist_slot_low(slot);

	return low + (hist_slot_low(slot + 1) - low) / 2;
}

/* How many slots are worth a look: no value is above the largest. */
static uint32_t used(uint64_t max)
{
	return hist_slot(max) + 1;
}

void hist_merge(struct hist *to, const struct hist *from)
{
	for (uint32_t i = 0; i < used(from->max); i++)
		to->slot[i] += from->slot[i];
	to->count += from->count;
	to->sum += from->sum;
	to->max = u64_max(to->max, from->max);
}

void hist_interval(struct hist *interval, struct hist *seen, const struct hist *live)
{
	const uint64_t max = __atomic_load_n(&live->max, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < used(max); i++) {
		const uint64_t now = __atomic_load_n(&live->slot[i], __ATOMIC_RELAXED);
		const uint64_t n = now - seen->slot[i];

		if (n == 0)
			continue;
		seen->slot[i] = now;
		interval->slot[i] += n;
		interval->count += n;
		interval->sum += n * hist_slot_mid(i);
		interval->max = u64_max(interval->max, u64_min(hist_slot_high(i), max));
	}
}

uint64_t hist_quantile(const struct hist *h, double share)
{
	uint64_t want = (uint64_t)(share * (double)h->count + 0.5), seen = 0;

	if (want == 0)
		want = 1;
	for (uint32_t i = 0; i < used(h->max); i++) {
		seen += h->slot[i];
		if (seen >= want)
			return u64_min(hist_slot_high(i), h->max);
	}
	return h->max;
}

double hist_mean(const struct hist *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0;
}

void hist_clear(struct hist *h)
{
	memset(h->slot, 0, used(h->max) * sizeof(h->slot[0]));
	h->count = h->max = h->sum = 0;
}
