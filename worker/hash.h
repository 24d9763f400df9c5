/* hash.h - a hash table of things that carry their own link. Worker; one thread.
 *
 * It grows by one bucket at a time (linear hashing, Litwin 1980): no insertion ever pays for all that are
 * there. Buckets lie in segments of HASH_SEGMENT, so growing moves none of them. Without memory for a segment
 * it stays as large as it is: chains grow longer, nothing is refused.
 *
 * Hashes are good already (rec_user_hash() and the like), all of their low bits count.
 */
#ifndef RC_HASH_H
#define RC_HASH_H

#include "common/base.h"

#define HASH_SEGMENT_BITS 8u
#define HASH_SEGMENT      (1u << HASH_SEGMENT_BITS)

struct hash_node {
	uint64_t hash;
	struct hash_node *next;
};

struct hash_table {
	struct hash_node ***segment;
	uint32_t n_segments;
	uint32_t n_buckets; /* mask < n_buckets <= 2 * mask + 1, but for 0: nothing was ever put in */
	uint32_t mask;      /* of the last full round */
	uint32_t n;
};

/* All zero is a valid empty one. */
void hash_free(struct hash_table *t);

/* 0, or -1: no memory for its very first segment. */
int hash_put(struct hash_table *t, struct hash_node *n) MUST_CHECK;
void hash_remove(struct hash_table *t, struct hash_node *n);

/* The first of those that have this hash, or NULL: the caller compares the rest, and goes on by hash_next().
 */
struct hash_node *hash_first(const struct hash_table *t, uint64_t hash);

static inline struct hash_node *hash_same(struct hash_node *n, uint64_t hash)
{
	while (n != NULL && n->hash != hash)
		n = n->next;
	return n;
}

static inline struct hash_node *hash_next(const struct hash_node *n)
{
	return hash_same(n->next, n->hash);
}

#endif
