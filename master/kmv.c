#include "master/kmv.h"

#include <string.h>

void kmv_add(struct kmv *k, uint64_t hash)
{
	unsigned low = 0, high = k->n;

	while (low < high) {
		unsigned mid = low + (high - low) / 2;

		if (k->hash[mid] < hash)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == KMV_MAX || (low < k->n && k->hash[low] == hash))
		return;
	if (k->n < KMV_MAX)
		k->n++;
	memmove(k->hash + low + 1, k->hash + low, (k->n - 1 - low) * sizeof(*k->hash));
	k->hash[low] = hash;
}

void kmv_merge(struct kmv *k, const struct kmv *other)
{
	for (unsigned i = 0; i < other->n; i++)
		kmv_add(k, other->hash[i]);
}

/* n hashes in [0, h] of a space of 2^64: (n - 1) / (h / 2^64) is the unbiased estimate. */
uint64_t kmv_count(const struct kmv *k)
{
	double share;

	if (k->n < KMV_MAX)
		return k->n;
	share = (double)k->hash[KMV_MAX - 1] / 18446744073709551616.0;
	return (uint64_t)((double)(KMV_MAX - 1) / share);
}
