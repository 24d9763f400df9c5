/* table.h - a chained hash table for things that carry their own link. Master process; pure but for its
 * buckets.
 *
 * It grows in pieces: while it does there are two arrays of buckets, and each insertion moves a few. Without
 * memory for a larger one the chains become longer instead.
 */
#ifndef RC_TABLE_H
#define RC_TABLE_H

#include "common/base.h"

struct table_link {
	struct table_link *next;
	uint64_t hash;
};

struct table {
	struct table_link **bucket, **old; /* old: NULL unless growing */
	size_t n_buckets, n_old, moved;
	size_t n;
};

/* 0, or -1 with ENOMEM. */
int table_init(struct table *t) MUST_CHECK;
/* The things themselves are the caller's: gone before, or not his any more. */
void table_free(struct table *t);

void table_insert(struct table *t, struct table_link *l); /* l->hash is set */
void table_remove(struct table *t, struct table_link *l); /* it is in there */

/* Things with this hash, one after another: `l` the last one, NULL for the first. */
struct table_link *table_next(const struct table *t, uint64_t hash, struct table_link *l);

#endif
