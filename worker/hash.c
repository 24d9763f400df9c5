#include "worker/hash.h"

#include <stdlib.h>

static struct hash_node **bucket_at(const struct hash_table *t, uint32_t i)
{
	return &t->segment[i >> HASH_SEGMENT_BITS][i & (HASH_SEGMENT - 1)];
}

static struct hash_node **bucket_of(const struct hash_table *t, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & (2 * t->mask + 1);

	return bucket_at(t, i < t->n_buckets ? i : i & t->mask);
}

static int add_segment(struct hash_table *t)
{
	struct hash_node ***list = realloc(t->segment, (t->n_segments + 1) * sizeof(*list));

	if (list == NULL)
		return -1;
	t->segment = list;
	list[t->n_segments] = calloc(HASH_SEGMENT, sizeof(**list));
	if (list[t->n_segments] == NULL)
		return -1;
	t->n_segments++;
	return 0;
}

/* One bucket more: it takes its share of the one that it was split from. */
static void grow(struct hash_table *t)
{
	uint32_t made = t->n_buckets;
	struct hash_node **from, **to;

	if (made == t->n_segments * HASH_SEGMENT && add_segment(t) == -1)
		return;
	from = bucket_at(t, made & t->mask);
	to = bucket_at(t, made);
	while (*from != NULL) {
		struct hash_node *n = *from;

		if (((uint32_t)n->hash & (2 * t->mask + 1)) != made) {
			from = &n->next;
			continue;
		}
		*from = n->next;
		n->next = *to;
		*to = n;
	}
	t->n_buckets++;
	if (t->n_buckets == 2 * (t->mask + 1))
		t->mask = 2 * t->mask + 1;
}

int hash_put(struct hash_table *t, struct hash_node *n)
{
	struct hash_node **b;

	if (t->n_buckets == 0) {
		if (add_segment(t) == -1)
			return -1;
		t->n_buckets = 1;
	}
	if (t->n >= t->n_buckets && t->n_buckets < UINT32_MAX / 4)
		grow(t);
	b = bucket_of(t, n->hash);
	n->next = *b;
	*b = n;
	t->n++;
	return 0;
}

void hash_remove(struct hash_table *t, struct hash_node *n)
{
	struct hash_node **link = bucket_of(t, n->hash);

	while (*link != n)
		link = &(*link)->next;
	*link = n->next;
	t->n--;
}

struct hash_node *hash_first(const struct hash_table *t, uint64_t hash)
{
	return t->n == 0 ? NULL : hash_same(*bucket_of(t, hash), hash);
}

void hash_free(struct hash_table *t)
{
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	free(t->segment);
	*t = (struct hash_table){0};
}
