/* kmv.h - how many distinct things there are in several lists of which only the smallest hashes are known: k
 * minimum values (Beyer, Haas, Reinwald, Sismanis, Gemulla: On synopses for distinct-value estimation under
 * multiset operations, SIGMOD 2007). Pure.
 *
 * Of uniform 64-bit hashes the KMV_MAX smallest distinct ones are kept, in growing order. Of fewer things all
 * are, so that unions are exact; else the estimate has a standard error of 1 / sqrt(KMV_MAX - 2), 4.4 %.
 */
#ifndef RC_KMV_H
#define RC_KMV_H

#include "common/base.h"

#define KMV_MAX 512u

struct kmv {
	unsigned n;
	uint64_t hash[KMV_MAX];
};

void kmv_add(struct kmv *k, uint64_t hash);
void kmv_merge(struct kmv *k, const struct kmv *other);

/* Distinct things in all that was added and merged. */
uint64_t kmv_count(const struct kmv *k);

#endif
