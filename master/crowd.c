#include "master/crowd.h"

#include <stdlib.h>

#include "shm/record.h"

#define NONE         UINT32_MAX
#define BUCKETS_MIN  1024u
#define MOVE_BUCKETS 4u /* old buckets moved by each insertion: growth is over long before the next one */

static uint32_t *buckets_new(uint32_t n)
{
	/* Bucket words are indices + 1, so that large arrays come as untouched zero pages. */
	return calloc(n, sizeof(uint32_t));
}

int crowd_init(struct crowd *t, uint64_t key)
{
	*t = (struct crowd){.key = key, .free = NONE, .n_buckets = BUCKETS_MIN};
	for (unsigned i = 0; i < CROWD_READERS; i++)
		t->newest[i] = NONE;
	t->bucket = buckets_new(BUCKETS_MIN);
	return t->bucket == NULL ? -1 : 0;
}

void crowd_free(struct crowd *t)
{
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	free(t->segment);
	free(t->bucket);
	free(t->old);
	*t = (struct crowd){.free = NONE};
}

static struct crowd_entry *at(const struct crowd *t, uint32_t index)
{
	return &t->segment[index >> CROWD_SEGMENT_BITS][index & (CROWD_SEGMENT - 1)];
}

/* ---- buckets */

static uint64_t place_of(const struct crowd *t, uint16_t ns, uint64_t hash)
{
	return rec_channel_hash(t->key, ns, (struct slice){(const char *)&hash, sizeof(hash)});
}

static uint32_t *bucket_of(const struct crowd *t, uint16_t ns, uint64_t hash)
{
	uint64_t place = place_of(t, ns, hash);

	if (t->old != NULL && (place & (t->n_old - 1)) >= t->moved)
		return &t->old[place & (t->n_old - 1)];
	return &t->bucket[place & (t->n_buckets - 1)];
}

static void move_some(struct crowd *t)
{
	for (uint32_t n = MOVE_BUCKETS; t->old != NULL && n > 0; n--) {
		uint32_t word = t->old[t->moved];

		t->old[t->moved] = 0;
		while (word != 0) {
			struct crowd_entry *e = at(t, word - 1);
			uint32_t *to = &t->bucket[place_of(t, e->ns, e->hash) & (t->n_buckets - 1)];
			uint32_t next = e->next;

			e->next = *to;
			*to = word;
			word = next;
		}
		if (++t->moved == t->n_old) {
			free(t->old);
			t->old = NULL;
		}
	}
}

/* Without memory the chains grow longer instead. */
static void grow(struct crowd *t)
{
	uint32_t *bucket = t->n_buckets > UINT32_MAX / 2 ? NULL : buckets_new(t->n_buckets * 2);

	if (bucket == NULL)
		return;
	t->old = t->bucket;
	t->n_old = t->n_buckets;
	t->moved = 0;
	t->bucket = bucket;
	t->n_buckets *= 2;
}

/* ---- entries */

static int add_segment(struct crowd *t)
{
	struct crowd_entry **segment = realloc(t->segment, (t->n_segments + 1) * sizeof(*segment));

	if (segment == NULL)
		return -1;
	t->segment = segment;
	segment[t->n_segments] = malloc(CROWD_SEGMENT * sizeof(**segment));
	if (segment[t->n_segments] == NULL)
		return -1;
	t->n_segments++;
	return 0;
}

static uint32_t take_entry(struct crowd *t)
{
	uint32_t index = t->free;

	if (index != NONE) {
		t->free = at(t, index)->next;
		return index;
	}
	if (t->n_used == t->n_segments << CROWD_SEGMENT_BITS &&
	    (t->n_used >= NONE - CROWD_SEGMENT || add_segment(t) == -1))
		return NONE;
	return t->n_used++;
}

static bool is_user(const struct crowd_entry *e, uint16_t ns, uint64_t hash)
{
	return e->hash == hash && e->ns == ns;
}

/* The word that names the user's entry of that reader, or NULL. *is_known: he has one of any reader. */
static uint32_t *find(const struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader, bool *is_known)
{
	uint32_t *word = bucket_of(t, ns, hash), *found = NULL;

	*is_known = false;
	for (; *word != 0; word = &at(t, *word - 1)->next) {
		const struct crowd_entry *e = at(t, *word - 1);

		if (!is_user(e, ns, hash))
			continue;
		*is_known = true;
		if (e->reader == reader)
			found = word;
	}
	return found;
}

static int insert(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader, bool is_known)
{
	uint32_t index, *word;
	struct crowd_entry *e;

	if (t->old != NULL)
		move_some(t);
	else if (t->n >= t->n_buckets)
		grow(t);
	index = take_entry(t);
	if (index == NONE)
		return -1;
	word = bucket_of(t, ns, hash);
	e = at(t, index);
	*e = (struct crowd_entry){
		.hash = hash, .next = *word, .ns = (uint8_t)ns, .reader = reader, .places = 1};
	*word = index + 1;
	e->older = t->newest[reader];
	e->newer = NONE;
	if (e->older != NONE)
		at(t, e->older)->newer = index;
	t->newest[reader] = index;
	t->n++;
	t->users[ns] += !is_known;
	return 0;
}

static int put(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader, bool is_more)
{
	bool is_known;
	uint32_t *word = find(t, ns, hash, reader, &is_known);
	struct crowd_entry *e;

	if (word == NULL)
		return insert(t, ns, hash, reader, is_known);
	e = at(t, *word - 1);
	if (!is_more)
		e->places = 1;
	else if (e->places < UINT16_MAX)
		e->places++;
	return 0;
}

int crowd_add(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader)
{
	return put(t, ns, hash, reader, true);
}

int crowd_put(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader)
{
	return put(t, ns, hash, reader, false);
}

static void unlink_entry(struct crowd *t, uint32_t *word)
{
	uint32_t index = *word - 1;
	struct crowd_entry *e = at(t, index);

	*word = e->next;
	if (e->newer == NONE)
		t->newest[e->reader] = e->older;
	else
		at(t, e->newer)->older = e->older;
	if (e->older != NONE)
		at(t, e->older)->newer = e->newer;
	e->next = t->free;
	e->places = 0;
	t->free = index;
	t->n--;
}

static void drop(struct crowd *t, uint16_t ns, uint64_t hash, uint32_t *word)
{
	unlink_entry(t, word);
	t->users[ns] -= !crowd_has(t, ns, hash);
}

void crowd_drop(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader)
{
	bool is_known;
	uint32_t *word = find(t, ns, hash, reader, &is_known);
	struct crowd_entry *e;

	if (word == NULL)
		return;
	e = at(t, *word - 1);
	if (e->places == UINT16_MAX)
		return;
	if (--e->places == 0)
		drop(t, ns, hash, word);
}

bool crowd_has(const struct crowd *t, uint16_t ns, uint64_t hash)
{
	for (uint32_t word = *bucket_of(t, ns, hash); word != 0; word = at(t, word - 1)->next) {
		if (is_user(at(t, word - 1), ns, hash))
			return true;
	}
	return false;
}

uint32_t crowd_forget(struct crowd *t, uint8_t reader, uint32_t max)
{
	uint32_t n = 0;

	for (; n < max && t->newest[reader] != NONE; n++) {
		const struct crowd_entry *e = at(t, t->newest[reader]);
		uint16_t ns = e->ns;
		uint64_t hash = e->hash;
		bool is_known;

		drop(t, ns, hash, find(t, ns, hash, reader, &is_known));
	}
	return n;
}
