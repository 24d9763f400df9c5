#include "worker/channel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"

#define BUCKETS_MIN 64u
#define MEMBERS_MIN 4u

int channel_table_init(struct channel_table *t)
{
	*t = (struct channel_table){.free = CHANNEL_NONE};
	t->bucket = malloc(BUCKETS_MIN * sizeof(*t->bucket));
	if (t->bucket == NULL)
		return -1;
	t->n_buckets = BUCKETS_MIN;
	memset(t->bucket, 0xff, BUCKETS_MIN * sizeof(*t->bucket));
	return 0;
}

void channel_table_free(struct channel_table *t)
{
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	free(t->segment);
	free(t->bucket);
}

static uint32_t *bucket_of(const struct channel_table *t, uint64_t hash)
{
	return &t->bucket[hash & (t->n_buckets - 1)];
}

static int grow_buckets(struct channel_table *t)
{
	uint32_t n = t->n_buckets * 2;
	uint32_t *b = malloc(n * sizeof(*b));

	if (b == NULL)
		return -1;
	memset(b, 0xff, n * sizeof(*b));
	for (uint32_t i = 0; i < t->n_buckets; i++) {
		uint32_t next;

		for (uint32_t c = t->bucket[i]; c != CHANNEL_NONE; c = next) {
			uint32_t *to = &b[channel_at(t, c)->hash & (n - 1)];

			next = channel_at(t, c)->next;
			channel_at(t, c)->next = *to;
			*to = c;
		}
	}
	free(t->bucket);
	t->bucket = b;
	t->n_buckets = n;
	return 0;
}

static int add_segment(struct channel_table *t)
{
	struct channel **list = realloc(t->segment, (t->n_segments + 1) * sizeof(*list));
	struct channel *seg;

	if (list == NULL)
		return -1;
	t->segment = list;
	seg = calloc(CHANNEL_SEGMENT, sizeof(*seg));
	if (seg == NULL)
		return -1;
	list[t->n_segments] = seg;
	for (uint32_t i = CHANNEL_SEGMENT; i-- > 0;) {
		seg[i].next = t->free;
		t->free = t->n_segments * CHANNEL_SEGMENT + i;
	}
	t->n_segments++;
	return 0;
}

static bool is_named(const struct channel *ch, uint64_t hash, uint16_t ns, struct slice room)
{
	return ch->hash == hash && ch->ns == ns && ch->room_len == room.len &&
	       (room.len == 0 || memcmp(channel_room(ch).p, room.p, room.len) == 0);
}

static uint32_t find(const struct channel_table *t, uint64_t hash, uint16_t ns, struct slice room)
{
	uint32_t i = *bucket_of(t, hash);

	while (i != CHANNEL_NONE && !is_named(channel_at(t, i), hash, ns, room))
		i = channel_at(t, i)->next;
	return i;
}

uint32_t channel_find(const struct worker *w, uint64_t hash, uint16_t ns_id, struct slice room)
{
	const struct channel_table *t = &w->channels;
	uint32_t i = *bucket_of(t, hash);

	while (i != CHANNEL_NONE) {
		const struct channel *ch = channel_at(t, i);

		if (ch->hash == hash && w->config->namespaces[ch->ns].id == ns_id &&
		    is_named(ch, hash, ch->ns, room))
			return i;
		i = ch->next;
	}
	return CHANNEL_NONE;
}

void channel_ahead(const struct worker *w, const uint64_t hash[CHANNEL_AHEAD], unsigned n)
{
	const struct channel_table *t = &w->channels;
	uint32_t index[CHANNEL_AHEAD];

	for (unsigned i = 0; i < n; i++)
		__builtin_prefetch(bucket_of(t, hash[i]));
	for (unsigned i = 0; i < n; i++) {
		index[i] = *bucket_of(t, hash[i]);
		if (index[i] == CHANNEL_NONE)
			continue;
		__builtin_prefetch(channel_at(t, index[i]));
		__builtin_prefetch(&channel_at(t, index[i])->room);
	}
	for (unsigned i = 0; i < n; i++) {
		const struct channel *ch = index[i] == CHANNEL_NONE ? NULL : channel_at(t, index[i]);

		if (ch == NULL)
			continue;
		if (ch->room_len > CHANNEL_ROOM_SHORT)
			__builtin_prefetch(ch->room.out);
		if (ch->n > 0 && ch->cap == 0)
			__builtin_prefetch(conn_at(&w->conns, ch->members.one));
	}
}

/* A fresh PENDING channel, and the master is told. */
static uint32_t create(struct worker *w, uint64_t hash, uint16_t ns, struct slice room)
{
	struct channel_table *t = &w->channels;
	struct channel *ch;
	uint32_t index, *bucket;
	char *name = NULL; /* of a long room */

	if (t->free == CHANNEL_NONE && add_segment(t) == -1)
		return CHANNEL_NONE;
	if (t->n >= t->n_buckets && grow_buckets(t) == -1)
		return CHANNEL_NONE;
	if (room.len > CHANNEL_ROOM_SHORT) {
		name = malloc(room.len);
		if (name == NULL)
			return CHANNEL_NONE;
		memcpy(name, room.p, room.len);
	}
	index = t->free;
	ch = channel_at(t, index);
	t->free = ch->next;
	bucket = bucket_of(t, hash);
	*ch = (struct channel){.hash = hash,
			       .next = *bucket,
			       .waiting = CONN_NONE,
			       .batch = CHANNEL_NONE,
			       .ns = ns,
			       .room_len = (uint8_t)room.len,
			       .state = CHANNEL_PENDING};
	if (name != NULL)
		ch->room.out = name;
	else if (room.len > 0)
		memcpy(ch->room.in, room.p, room.len);
	*bucket = index;
	t->n++;
	publish_control(w, UP_ADD, w->config->namespaces[ns].id, room);
	return index;
}

static void destroy(struct worker *w, uint32_t index)
{
	struct channel_table *t = &w->channels;
	struct channel *ch = channel_at(t, index);
	uint32_t *link = bucket_of(t, ch->hash);

	publish_control(w, UP_DROP, w->config->namespaces[ch->ns].id, channel_room(ch));
	while (*link != index)
		link = &channel_at(t, *link)->next;
	*link = ch->next;
	if (ch->cap > 0)
		free(ch->members.many);
	if (ch->room_len > CHANNEL_ROOM_SHORT)
		free(ch->room.out);
	latest_drop(w, index);
	/* A batch under way may still name it: it has no members, so the batch passes over it. */
	*ch = (struct channel){.next = t->free, .batch = ch->batch};
	t->free = index;
	t->n--;
}

static counter *count_channels(struct worker *w, const struct channel *ch)
{
	return &w->count->ns[w->config->namespaces[ch->ns].id].channels;
}

static void destroy_unused(struct worker *w, uint32_t index)
{
	const struct channel *ch = channel_at(&w->channels, index);

	if (ch->n == 0 && ch->waiting == CONN_NONE && !ch->is_held)
		destroy(w, index);
}

/* Room for one more member. */
static int reserve_member(struct channel *ch)
{
	uint32_t cap = ch->cap == 0 ? 1 : ch->cap;
	uint32_t *many;

	if (ch->n < cap)
		return 0;
	cap = ch->cap == 0 ? MEMBERS_MIN : ch->cap + ch->cap / 2;
	many = ch->cap == 0 ? malloc(cap * sizeof(*many)) : realloc(ch->members.many, cap * sizeof(*many));
	if (many == NULL)
		return -1;
	if (ch->cap == 0)
		many[0] = ch->members.one;
	ch->members.many = many;
	ch->cap = cap;
	return 0;
}

static void put(struct worker *w, struct channel *ch, uint32_t place, uint32_t conn)
{
	channel_members(ch)[place] = conn;
	conn_at(&w->conns, conn)->member = place;
}

static void swap(struct worker *w, struct channel *ch, uint32_t a, uint32_t b)
{
	uint32_t *m = channel_members(ch);
	uint32_t at_a = m[a];

	put(w, ch, a, m[b]);
	put(w, ch, b, at_a);
}

static int add_member(struct worker *w, uint32_t index, struct conn *c)
{
	struct channel *ch = channel_at(&w->channels, index);

	if (reserve_member(ch) == -1)
		return -1;
	c->channel = index;
	if (ch->n++ == 0)
		count_add(count_channels(w, ch), 1);
	put(w, ch, ch->n - 1, c->index);
	swap(w, ch, ch->n_live, ch->n - 1);
	ch->n_live++;
	return 0;
}

static uint32_t find_or_create(struct worker *w, uint16_t ns_index, struct slice room)
{
	uint64_t hash = rec_channel_hash(w->globals->hash_key, w->config->namespaces[ns_index].id, room);
	uint32_t index = find(&w->channels, hash, ns_index, room);

	return index != CHANNEL_NONE ? index : create(w, hash, ns_index, room);
}

uint32_t channel_hold(struct worker *w, uint16_t ns_index)
{
	uint32_t index = find_or_create(w, ns_index, (struct slice){0});

	if (index != CHANNEL_NONE)
		channel_at(&w->channels, index)->is_held = true;
	return index;
}

void channel_release(struct worker *w, uint32_t index)
{
	channel_at(&w->channels, index)->is_held = false;
	destroy_unused(w, index);
}

int channel_join(struct worker *w, struct conn *c, uint16_t ns_index, struct slice room)
{
	uint32_t index = find_or_create(w, ns_index, room);
	struct channel *ch;

	if (index == CHANNEL_NONE)
		return -1;
	ch = channel_at(&w->channels, index);
	c->ns = ns_index;
	if (ch->state == CHANNEL_SUBSCRIBED)
		return add_member(w, index, c) == -1 ? -1 : 1;
	c->channel = index;
	c->member = ch->waiting;
	ch->waiting = c->index;
	return 0;
}

void channel_subscribed(struct worker *w, uint32_t index)
{
	struct channel *ch = channel_at(&w->channels, index);
	uint32_t next = ch->waiting;

	if (ch->state != CHANNEL_PENDING)
		return;
	ch->state = CHANNEL_SUBSCRIBED;
	ch->waiting = CONN_NONE;
	/* All become members before the first 101 goes out: a 101 may fail and leave the channel. */
	for (uint32_t i = next; i != CONN_NONE; i = next) {
		struct conn *c = conn_at(&w->conns, i);

		next = c->member;
		if (add_member(w, index, c) == -1) {
			c->channel = CHANNEL_NONE;
			conn_drop(w, c, true, 1011);
		}
	}
	for (uint32_t i = ch->n; i-- > 0;) {
		ch = channel_at(&w->channels, index);
		if (i < ch->n)
			join_done(w, conn_at(&w->conns, channel_members(ch)[i]));
		if (i % 64 == 63)
			slot_beat(&w->slot);
	}
	ch = channel_at(&w->channels, index);
	if (ch->state != CHANNEL_SUBSCRIBED)
		return; /* all have left meanwhile */
	if (ch->is_held)
		user_subscribed(w, ch->ns);
	else
		destroy_unused(w, index);
}

static void remove_waiter(struct worker *w, struct channel *ch, struct conn *c)
{
	uint32_t *link = &ch->waiting;

	while (*link != c->index)
		link = &conn_at(&w->conns, *link)->member;
	*link = c->member;
}

static void remove_member(struct worker *w, struct channel *ch, struct conn *c)
{
	uint32_t place = c->member;

	if (place < ch->n_live) {
		ch->n_live--;
		swap(w, ch, place, ch->n_live);
		place = ch->n_live;
	}
	swap(w, ch, place, ch->n - 1);
	if (--ch->n == 0)
		count_sub(count_channels(w, ch), 1);
}

void channel_leave(struct worker *w, struct conn *c)
{
	uint32_t index = c->channel;
	struct channel *ch;

	if (index == CHANNEL_NONE)
		return;
	ch = channel_at(&w->channels, index);
	if (c->state == CONN_JOINING && ch->state == CHANNEL_PENDING)
		remove_waiter(w, ch, c);
	else
		remove_member(w, ch, c);
	c->channel = CHANNEL_NONE;
	c->member = CONN_NONE;
	destroy_unused(w, index);
}

void channel_set_live(struct worker *w, struct conn *c, bool is_live)
{
	struct channel *ch = channel_at(&w->channels, c->channel);

	if (is_live && c->member >= ch->n_live) {
		swap(w, ch, c->member, ch->n_live);
		ch->n_live++;
	} else if (!is_live && c->member < ch->n_live) {
		ch->n_live--;
		swap(w, ch, c->member, ch->n_live);
	}
}

const char *channel_log_name(const struct worker *w, uint32_t index, struct log_quoted *dst)
{
	const struct channel *ch = channel_at(&w->channels, index);
	char name[CFG_NAME_MAX + 1 + CFG_ROOM_MAX + 1];
	int len = snprintf(name, sizeof(name), "%s%s%.*s", w->config->namespaces[ch->ns].name,
			   ch->room_len > 0 ? ":" : "", (int)ch->room_len, channel_room(ch).p);

	return log_quote(dst, name, u64_min((uint64_t)len, sizeof(name) - 1));
}
