#include "master/table.h"

#include <stdlib.h>

#define BUCKETS_MIN  256u
#define MOVE_BUCKETS 4u

static struct table_link **buckets_new(size_t n)
{
	return calloc(n, sizeof(struct table_link *));
}

int table_init(struct table *t)
{
	*t = (struct table){.bucket = buckets_new(BUCKETS_MIN), .n_buckets = BUCKETS_MIN};
	return t->bucket == NULL ? -1 : 0;
}

void table_free(struct table *t)
{
	free(t->old);
	free(t->bucket);
	*t = (struct table){0};
}

static struct table_link **bucket_of(const struct table *t, uint64_t hash)
{
	if (t->old != NULL && (hash & (t->n_old - 1)) >= t->moved)
		return &t->old[hash & (t->n_old - 1)];
	return &t->bucket[hash & (t->n_buckets - 1)];
}

static void move_some(struct table *t)
{
	for (unsigned n = MOVE_BUCKETS; t->old != NULL && n > 0; n--) {
		struct table_link *l = t->old[t->moved], *next;

		t->old[t->moved] = NULL;
		for (; l != NULL; l = next) {
			struct table_link **to = &t->bucket[l->hash & (t->n_buckets - 1)];

			next = l->next;
			l->next = *to;
			*to = l;
		}
		if (++t->moved == t->n_old) {
			free(t->old);
			t->old = NULL;
		}
	}
}

static void grow(struct table *t)
{
	struct table_link **bucket = buckets_new(t->n_buckets * 2);

	if (bucket == NULL)
		return;
	t->old = t->bucket;
	t->n_old = t->n_buckets;
	t->moved = 0;
	t->bucket = bucket;
	t->n_buckets *= 2;
}

void table_insert(struct table *t, struct table_link *l)
{
	struct table_link **b;

	if (t->old != NULL)
		move_some(t);
	else if (t->n >= t->n_buckets)
		grow(t);
	b = bucket_of(t, l->hash);
	l->next = *b;
	*b = l;
	t->n++;
}

void table_remove(struct table *t, struct table_link *l)
{
	struct table_link **b = bucket_of(t, l->hash);

	while (*b != l)
		b = &(*b)->next;
	*b = l->next;
	t->n--;
}

struct table_link *table_next(const struct table *t, uint64_t hash, struct table_link *l)
{
	l = l == NULL ? *bucket_of(t, hash) : l->next;
	while (l != NULL && l->hash != hash)
		l = l->next;
	return l;
}
