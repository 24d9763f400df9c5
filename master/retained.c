#include "master/retained.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 64u

struct entry {
	uint64_t hash;
	struct entry *next;          /* in its bucket */
	struct entry *older, *newer; /* by age of the message */
	size_t len, cap;             /* of the payload; cap: what was allocated for room and payload */
	uint16_t ns;
	uint8_t opcode;
	uint8_t room_len;
	char bytes[]; /* room, payload */
};

struct retained {
	struct entry **bucket; /* a power of two */
	size_t n_buckets, n;
	struct entry *oldest, *newest;
	uint64_t bytes, max_bytes, evicted;
};

struct retained *retained_new(uint64_t max_bytes)
{
	struct retained *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->max_bytes = max_bytes;
	r->n_buckets = BUCKETS_MIN;
	r->bucket = calloc(r->n_buckets, sizeof(struct entry *));
	if (r->bucket == NULL) {
		free(r);
		return NULL;
	}
	return r;
}

void retained_free(struct retained *r)
{
	if (r == NULL)
		return;
	for (struct entry *e = r->oldest, *newer; e != NULL; e = newer) {
		newer = e->newer;
		free(e);
	}
	free(r->bucket);
	free(r);
}

/* ---- the table */

static struct entry **link_of(const struct retained *r, uint64_t hash, uint16_t ns, struct slice room)
{
	struct entry **at = &r->bucket[hash & (r->n_buckets - 1)];

	while (*at != NULL && ((*at)->hash != hash || (*at)->ns != ns || (*at)->room_len != room.len ||
			       (room.len > 0 && memcmp((*at)->bytes, room.p, room.len) != 0)))
		at = &(*at)->next;
	return at;
}

/* Without memory the chains get longer. */
static void grow(struct retained *r)
{
	size_t n = r->n_buckets * 2;
	struct entry **bucket = calloc(n, sizeof(struct entry *));

	if (bucket == NULL)
		return;
	for (struct entry *e = r->oldest; e != NULL; e = e->newer) {
		struct entry **to = &bucket[e->hash & (n - 1)];

		e->next = *to;
		*to = e;
	}
	free(r->bucket);
	r->bucket = bucket;
	r->n_buckets = n;
}

static uint64_t cost(const struct entry *e)
{
	return sizeof(*e) + e->cap;
}

static void leave_line(struct retained *r, struct entry *e)
{
	*(e->older == NULL ? &r->oldest : &e->older->newer) = e->newer;
	*(e->newer == NULL ? &r->newest : &e->newer->older) = e->older;
}

static void join_line(struct retained *r, struct entry *e)
{
	e->newer = NULL;
	e->older = r->newest;
	*(r->newest == NULL ? &r->oldest : &r->newest->newer) = e;
	r->newest = e;
}

static void drop(struct retained *r, struct entry **at)
{
	struct entry *e = *at;

	*at = e->next;
	leave_line(r, e);
	r->bytes -= cost(e);
	r->n--;
	free(e);
}

static void drop_entry(struct retained *r, const struct entry *e)
{
	drop(r, link_of(r, e->hash, e->ns, (struct slice){e->bytes, e->room_len}));
}

/* Room for `more` bytes, at the cost of those that have been silent longest. */
static void make_room(struct retained *r, uint64_t more)
{
	while (r->oldest != NULL && r->bytes + more > r->max_bytes) {
		drop_entry(r, r->oldest);
		r->evicted++;
	}
}

/* ---- the interface */

static struct entry *insert(struct retained *r, uint64_t hash, uint16_t ns, struct slice room, size_t len)
{
	size_t cap = room.len + len;
	struct entry *e, **at;

	if (sizeof(*e) + cap > r->max_bytes) {
		r->evicted++;
		return NULL;
	}
	make_room(r, sizeof(*e) + cap);
	e = malloc(sizeof(*e) + cap);
	if (e == NULL) {
		r->evicted++;
		return NULL;
	}
	if (r->n >= r->n_buckets)
		grow(r);
	at = &r->bucket[hash & (r->n_buckets - 1)];
	*e = (struct entry){.hash = hash, .next = *at, .cap = cap, .ns = ns, .room_len = (uint8_t)room.len};
	*at = e;
	if (room.len > 0)
		memcpy(e->bytes, room.p, room.len);
	join_line(r, e);
	r->n++;
	r->bytes += cost(e);
	return e;
}

/* A busy channel's messages are much of a size: the memory of the one before does. */
static bool fits(const struct entry *e, size_t len)
{
	return e->room_len + len <= e->cap && e->cap <= 2 * (e->room_len + len) + 64;
}

void retained_keep(struct retained *r, uint64_t hash, uint16_t ns, struct slice room, uint8_t opcode,
		   struct slice payload)
{
	struct entry **at = link_of(r, hash, ns, room), *e = *at;

	if (e != NULL && fits(e, payload.len)) {
		leave_line(r, e);
		join_line(r, e);
	} else {
		if (e != NULL)
			drop(r, at);
		e = insert(r, hash, ns, room, payload.len);
	}
	if (e == NULL)
		return;
	e->opcode = opcode;
	e->len = payload.len;
	if (payload.len > 0)
		memcpy(e->bytes + e->room_len, payload.p, payload.len);
}

bool retained_find(const struct retained *r, uint64_t hash, uint16_t ns, struct slice room, uint8_t *opcode,
		   struct slice *payload)
{
	const struct entry *e = *link_of(r, hash, ns, room);

	if (e == NULL)
		return false;
	*opcode = e->opcode;
	*payload = (struct slice){e->bytes + e->room_len, e->len};
	return true;
}

void retained_only(struct retained *r, const bool keep[CFG_MAX_NAMESPACES])
{
	for (struct entry *e = r->oldest, *newer; e != NULL; e = newer) {
		newer = e->newer;
		if (!keep[e->ns])
			drop_entry(r, e);
	}
}

void retained_get_stats(const struct retained *r, struct retained_stats *out)
{
	*out = (struct retained_stats){.n = r->n, .bytes = r->bytes, .evicted = r->evicted};
}
