#include "master/interest.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN  1024u
#define MOVE_BUCKETS 4u /* old buckets moved by each insertion: growth is over long before the next one */

static struct interest_entry **buckets_new(uint64_t n)
{
	return calloc(n, sizeof(struct interest_entry *)); /* large ones come as untouched zero pages */
}

int interest_init(struct interest *t)
{
	*t = (struct interest){.bucket = buckets_new(BUCKETS_MIN), .n_buckets = BUCKETS_MIN};
	return t->bucket == NULL ? -1 : 0;
}

static void entry_free(struct interest_entry *e)
{
	if (e->n_readers > INTEREST_FEW)
		free(e->many);
	free(e);
}

static void free_chains(struct interest_entry **bucket, uint64_t n)
{
	for (uint64_t i = 0; bucket != NULL && i < n; i++) {
		struct interest_entry *next;

		for (struct interest_entry *e = bucket[i]; e != NULL; e = next) {
			next = e->next;
			entry_free(e);
		}
	}
	free(bucket);
}

void interest_free(struct interest *t)
{
	free_chains(t->old, t->n_old);
	free_chains(t->bucket, t->n_buckets);
	*t = (struct interest){0};
}

/* ---- buckets */

static struct interest_entry **bucket_of(const struct interest *t, uint64_t hash)
{
	if (t->old != NULL && (hash & (t->n_old - 1)) >= t->moved)
		return &t->old[hash & (t->n_old - 1)];
	return &t->bucket[hash & (t->n_buckets - 1)];
}

static void move_some(struct interest *t, uint64_t n)
{
	for (; t->old != NULL && n > 0; n--) {
		struct interest_entry *e = t->old[t->moved], *next;

		t->old[t->moved] = NULL;
		for (; e != NULL; e = next) {
			struct interest_entry **to = &t->bucket[e->hash & (t->n_buckets - 1)];

			next = e->next;
			e->next = *to;
			*to = e;
		}
		if (++t->moved == t->n_old) {
			free(t->old);
			t->old = NULL;
		}
	}
}

/* Without memory the chains grow longer instead. */
static void grow(struct interest *t)
{
	struct interest_entry **bucket = buckets_new(t->n_buckets * 2);

	if (bucket == NULL)
		return;
	t->old = t->bucket;
	t->n_old = t->n_buckets;
	t->moved = 0;
	t->bucket = bucket;
	t->n_buckets *= 2;
	t->sweep = 0; /* places change: the pass begins anew */
}

static bool is_named(const struct interest_entry *e, uint64_t hash, uint16_t ns, struct slice room)
{
	return e->hash == hash && e->ns == ns && e->name_len == room.len &&
	       (room.len == 0 || memcmp(e->room, room.p, room.len) == 0);
}

struct interest_entry *interest_find(struct interest *t, uint64_t hash, uint16_t ns, struct slice room)
{
	struct interest_entry *e = *bucket_of(t, hash);

	while (e != NULL && !is_named(e, hash, ns, room))
		e = e->next;
	return e;
}

static struct interest_entry *entry_new(uint64_t hash, uint16_t ns, struct slice room)
{
	struct interest_entry *e =
		calloc(1, u64_max(sizeof(*e), offsetof(struct interest_entry, room) + room.len));

	if (e == NULL)
		return NULL;
	e->hash = hash;
	e->ns = ns;
	e->name_len = (uint8_t)room.len;
	if (room.len > 0)
		memcpy(e->room, room.p, room.len);
	return e;
}

struct interest_entry *interest_family(uint16_t ns)
{
	struct interest_entry *e = entry_new(0, ns, (struct slice){0});

	if (e != NULL)
		e->is_family = true;
	return e;
}

struct interest_entry *interest_get(struct interest *t, uint64_t hash, uint16_t ns, struct slice room)
{
	struct interest_entry *e = interest_find(t, hash, ns, room), **at;

	if (e != NULL)
		return e;
	e = entry_new(hash, ns, room);
	if (e == NULL)
		return NULL;
	e->created = t->created++;
	move_some(t, MOVE_BUCKETS);
	if (t->n >= t->n_buckets && t->old == NULL)
		grow(t);
	at = bucket_of(t, hash);
	e->next = *at;
	*at = e;
	t->n++;
	return e;
}

/* ---- readers */

static uint8_t *readers_of(struct interest_entry *e)
{
	return e->n_readers <= INTEREST_FEW ? e->few : e->many;
}

static int find_reader(const struct interest_entry *e, uint8_t reader)
{
	const uint8_t *list = interest_readers(e), *at;

	if (e->n_readers == 0)
		return -1;
	at = memchr(list, reader, e->n_readers);
	return at == NULL ? -1 : (int)(at - list);
}

bool interest_has(const struct interest_entry *e, uint8_t reader)
{
	return find_reader(e, reader) >= 0;
}

/* The list of n readers has room for another one. Its capacity follows from n: INTEREST_FEW, 16, 32 ... */
static int reserve_reader(struct interest_entry *e)
{
	uint16_t n = e->n_readers;
	uint8_t *many;

	if (n < INTEREST_FEW || (n & (n - 1)) != 0)
		return 0;
	many = n == INTEREST_FEW ? malloc(2u * n) : realloc(e->many, 2u * n);
	if (many == NULL)
		return -1;
	if (n == INTEREST_FEW)
		memcpy(many, e->few, n);
	e->many = many;
	return 0;
}

int interest_add(struct interest_entry *e, uint8_t reader)
{
	if (find_reader(e, reader) >= 0)
		return 0;
	if (reserve_reader(e) == -1)
		return -1;
	e->n_readers++;
	readers_of(e)[e->n_readers - 1] = reader;
	return 0;
}

bool interest_drop(struct interest_entry *e, uint8_t reader, uint64_t now_ms)
{
	int i = find_reader(e, reader);
	uint8_t *list = readers_of(e);

	if (i < 0)
		return false;
	list[i] = list[e->n_readers - 1];
	e->n_readers--;
	if (e->n_readers == INTEREST_FEW) { /* back into the entry */
		uint8_t few[INTEREST_FEW];

		memcpy(few, list, sizeof(few));
		free(list);
		memcpy(e->few, few, sizeof(few));
	}
	if (e->n_readers > 0)
		return false;
	e->idle_ms = now_ms;
	return true;
}

void interest_reader_died(struct interest *t, uint8_t reader)
{
	if (interest_is_dead(t, reader))
		return;
	t->dead[reader / 64] |= UINT64_C(1) << reader % 64;
	t->dead_pass[reader] = t->pass;
	t->n_dead++;
}

/* ---- the sweep */

/* The pass that a reader died in was half over: the next one sees all. */
static void bury(struct interest *t)
{
	for (unsigned i = 0; i < INTEREST_READERS && t->n_dead > 0; i++) {
		if (interest_is_dead(t, (uint8_t)i) && t->pass >= t->dead_pass[i] + 2) {
			t->dead[i / 64] &= ~(UINT64_C(1) << i % 64);
			t->n_dead--;
		}
	}
}

static void drop_dead(struct interest *t, struct interest_entry *e, const struct interest_sweep *how)
{
	for (int i = e->n_readers; i-- > 0;) {
		uint8_t reader = interest_readers(e)[i];

		if (interest_is_dead(t, reader) && interest_drop(e, reader, how->now_ms) &&
		    how->on_idle != NULL)
			how->on_idle(how->arg, e);
	}
}

static bool is_forgettable(const struct interest_entry *e, uint64_t reclaim)
{
	return e->n_readers == 0 && e->sub == NULL && !e->has_linger && !e->has_wait && e->last < reclaim;
}

static void sweep_bucket(struct interest *t, struct interest_entry **link, const struct interest_sweep *how)
{
	while (*link != NULL) {
		struct interest_entry *e = *link;

		if (t->n_dead > 0)
			drop_dead(t, e, how);
		if (is_forgettable(e, how->reclaim)) {
			*link = e->next;
			entry_free(e);
			t->n--;
		} else {
			link = &e->next;
		}
	}
}

void interest_sweep(struct interest *t, uint64_t buckets, const struct interest_sweep *how)
{
	for (; buckets > 0; buckets--) {
		if (t->old != NULL) {
			move_some(t, 1);
			continue;
		}
		sweep_bucket(t, &t->bucket[t->sweep], how);
		if (++t->sweep == t->n_buckets) {
			t->sweep = 0;
			t->pass++;
			if (t->n_dead > 0)
				bury(t);
		}
	}
}

void interest_walk(struct interest *t, uint16_t ns, void (*fn)(void *arg, struct interest_entry *e),
		   void *arg)
{
	while (t->old != NULL)
		move_some(t, t->n_old);
	for (uint64_t i = 0; i < t->n_buckets; i++) {
		for (struct interest_entry *e = t->bucket[i]; e != NULL; e = e->next) {
			if (e->ns == ns)
				fn(arg, e);
		}
	}
}
