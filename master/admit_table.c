#include "master/admit_table.h"

#include <stdlib.h>
#include <string.h>

#include "shm/record.h"

int admit_table_init(struct admit_table *t, uint64_t hash_key)
{
	*t = (struct admit_table){.hash_key = hash_key};
	return table_init(&t->table);
}

static uint64_t hash_of(const struct admit_table *t, uint8_t kind, struct slice key)
{
	return rec_channel_hash(t->hash_key, kind, key);
}

static struct admit_entry *find(const struct admit_table *t, uint8_t kind, struct slice key)
{
	uint64_t hash = hash_of(t, kind, key);
	struct table_link *l = NULL;

	while ((l = table_next(&t->table, hash, l)) != NULL) {
		struct admit_entry *e = CONTAINER_OF(l, struct admit_entry, link);

		if (e->kind == kind && e->len == key.len && memcmp(e->key, key.p, key.len) == 0)
			return e;
	}
	return NULL;
}

static uint64_t total(const struct admit_entry *e)
{
	uint64_t n = 0;

	for (const struct admit_share *s = e == NULL ? NULL : e->shares; s != NULL; s = s->next)
		n += s->reader->is_dead ? 0 : s->n;
	return n;
}

uint64_t admit_count(const struct admit_table *t, uint8_t kind, struct slice key)
{
	return total(find(t, kind, key));
}

/* ---- shares */

static struct admit_share *share_of(const struct admit_entry *e, const struct admit_reader *r)
{
	for (struct admit_share *s = e == NULL ? NULL : e->shares; s != NULL; s = s->next)
		if (s->reader == r)
			return s;
	return NULL;
}

/* The last share takes its entry along. */
static void share_free(struct admit_table *t, struct admit_share *s)
{
	struct admit_entry *e = s->entry;
	struct admit_share **link = &e->shares;

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	if (s->newer != NULL)
		s->newer->older = s->older;
	else
		s->reader->newest = s->older;
	if (s->older != NULL)
		s->older->newer = s->newer;
	free(s);
	if (e->shares == NULL) {
		table_remove(&t->table, &e->link);
		free(e);
	}
}

static struct admit_entry *entry_new(struct admit_table *t, uint8_t kind, struct slice key)
{
	struct admit_entry *e = calloc(1, sizeof(*e) + key.len);

	if (e == NULL)
		return NULL;
	e->kind = kind;
	e->len = (uint8_t)key.len;
	memcpy(e->key, key.p, key.len);
	e->link.hash = hash_of(t, kind, key);
	return e;
}

int admit_take(struct admit_table *t, struct admit_reader *r, uint8_t kind, struct slice key, uint32_t limit)
{
	struct admit_entry *e = find(t, kind, key);
	struct admit_share *s = share_of(e, r);

	if (total(e) >= limit)
		return 0;
	if (s != NULL) {
		s->n++;
		return 1;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -1;
	if (e == NULL) {
		e = entry_new(t, kind, key);
		if (e == NULL) {
			free(s);
			return -1;
		}
		table_insert(&t->table, &e->link);
	}
	*s = (struct admit_share){.entry = e, .reader = r, .next = e->shares, .older = r->newest, .n = 1};
	e->shares = s;
	if (r->newest != NULL)
		r->newest->newer = s;
	r->newest = s;
	return 1;
}

bool admit_give(struct admit_table *t, struct admit_reader *r, uint8_t kind, struct slice key)
{
	struct admit_share *s = share_of(find(t, kind, key), r);

	if (s == NULL)
		return false;
	if (--s->n == 0)
		share_free(t, s);
	return true;
}

/* ---- readers */

struct admit_reader *admit_reader_new(struct admit_table *t)
{
	struct admit_reader *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->next = t->readers;
	if (r->next != NULL)
		r->next->prev = r;
	t->readers = r;
	return r;
}

static void reader_free(struct admit_table *t, struct admit_reader *r)
{
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		t->readers = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	free(r);
}

void admit_reader_died(struct admit_table *t, struct admit_reader *r)
{
	r->is_dead = true;
	t->n_dead++;
}

bool admit_forget(struct admit_table *t, uint32_t max)
{
	struct admit_reader *next;

	for (struct admit_reader *r = t->n_dead > 0 ? t->readers : NULL; r != NULL; r = next) {
		next = r->next;
		if (!r->is_dead)
			continue;
		while (r->newest != NULL) {
			if (max-- == 0)
				return true;
			share_free(t, r->newest);
		}
		reader_free(t, r);
		t->n_dead--;
	}
	return t->n_dead > 0;
}

void admit_table_free(struct admit_table *t)
{
	while (t->readers != NULL) {
		while (t->readers->newest != NULL)
			share_free(t, t->readers->newest);
		reader_free(t, t->readers);
	}
	table_free(&t->table);
}
