#include "worker/user.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/user_int.h"

#define SOCKETS_MIN 4u

struct user_table *user_table_new(void)
{
	struct user_table *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->free = USER_NONE;
	for (size_t i = 0; i < ARRAY_LEN(t->ns); i++)
		t->ns[i] = (struct user_ns){.channel = CHANNEL_NONE, .waiting = CONN_NONE};
	return t;
}

void user_table_free(struct user_table *t)
{
	if (t == NULL)
		return;
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	free(t->segment);
	hash_free(&t->users);
	hash_free(&t->groups);
	hash_free(&t->places);
	free(t);
}

/* ---------------------------------------------------------------- users */

struct user *user_at(const struct worker *w, uint32_t index)
{
	return &w->users->segment[index >> USER_SEGMENT_BITS][index & (USER_SEGMENT - 1)];
}

struct user *user_of(const struct worker *w, const struct conn *c)
{
	const struct session *s = session_of(w, c);

	return s == NULL || s->user == USER_NONE ? NULL : user_at(w, s->user);
}

static int add_segment(struct user_table *t)
{
	struct user **list = realloc(t->segment, (t->n_segments + 1) * sizeof(struct user *));
	struct user *seg;

	if (list == NULL)
		return -1;
	t->segment = list;
	seg = calloc(USER_SEGMENT, sizeof(*seg));
	if (seg == NULL)
		return -1;
	list[t->n_segments] = seg;
	for (uint32_t i = USER_SEGMENT; i-- > 0;) {
		seg[i].index = t->free;
		t->free = t->n_segments * USER_SEGMENT + i;
	}
	t->n_segments++;
	return 0;
}

static struct user *find_hashed(const struct user_table *t, uint16_t ns, uint64_t hash, struct slice id)
{
	struct hash_node *n = hash_first(&t->users, hash);

	for (; n != NULL; n = hash_next(n)) {
		struct user *u = CONTAINER_OF(n, struct user, node);

		if (u->ns == ns && u->id_len == id.len && memcmp(user_text(u).p, id.p, id.len) == 0)
			return u;
	}
	return NULL;
}

static uint64_t hash_of(const struct worker *w, uint16_t ns, struct slice id)
{
	return rec_user_hash(w->globals->hash_key, w->config->namespaces[ns].id, id);
}

uint32_t user_find(const struct worker *w, uint16_t ns_index, struct slice id)
{
	const struct user *u = find_hashed(w->users, ns_index, hash_of(w, ns_index, id), id);

	return u == NULL ? USER_NONE : u->index;
}

/* 0, or -1: no memory; then nothing has to be freed. */
static int set_id(struct user *u, struct slice id)
{
	if (id.len > USER_ID_SHORT) {
		u->id.out = malloc(id.len);
		if (u->id.out == NULL)
			return -1;
		memcpy(u->id.out, id.p, id.len);
	} else {
		memcpy(u->id.in, id.p, id.len);
	}
	u->id_len = (uint8_t)id.len;
	return 0;
}

static void release(struct user_table *t, struct user *u)
{
	uint32_t index = u->index;

	if (u->cap > 0)
		free(u->sockets.many);
	if (u->id_len > USER_ID_SHORT)
		free(u->id.out);
	free(u->more);
	*u = (struct user){.index = t->free};
	t->free = index;
}

static struct user *create(struct worker *w, uint16_t ns, struct slice id)
{
	struct user_table *t = w->users;
	struct user *u;
	uint32_t index;

	if (id.len > IDENTITY_USER_MAX || (t->free == USER_NONE && add_segment(t) == -1))
		return NULL;
	index = t->free;
	u = user_at(w, index);
	t->free = u->index;
	*u = (struct user){.node = {.hash = hash_of(w, ns, id)}, .index = index, .ns = ns};
	if (w->config->namespaces[ns].user_rate != 0)
		u->more = calloc(1, sizeof(*u->more));
	if ((w->config->namespaces[ns].user_rate != 0 && u->more == NULL) || set_id(u, id) == -1 ||
	    hash_put(&t->users, &u->node) == -1) {
		release(t, u);
		return NULL;
	}
	return u;
}

static void destroy(struct worker *w, struct user *u)
{
	user_groups_leave(w, u);
	hash_remove(&w->users->users, &u->node);
	release(w->users, u);
}

/* Room for one more socket. */
static int reserve_socket(struct user *u)
{
	uint32_t cap = u->cap == 0 ? 1 : u->cap;
	uint32_t *many;

	if (u->n < cap)
		return 0;
	cap = u->cap == 0 ? SOCKETS_MIN : u->cap + u->cap / 2;
	many = u->cap == 0 ? malloc(cap * sizeof(*many)) : realloc(u->sockets.many, cap * sizeof(*many));
	if (many == NULL)
		return -1;
	if (u->cap == 0)
		many[0] = u->sockets.one;
	u->sockets.many = many;
	u->cap = cap;
	return 0;
}

static uint32_t *sockets_of(struct user *u)
{
	return u->cap == 0 ? &u->sockets.one : u->sockets.many;
}

/* ---------------------------------------------------------------- presence */

static uint64_t place_hash(const struct user *u, uint32_t channel)
{
	uint64_t x = ((uint64_t)u->index << 32 | channel) * UINT64_C(0x9e3779b97f4a7c15);

	return x ^ x >> 32;
}

static struct user_place *place_find(const struct user_table *t, const struct user *u, uint32_t channel)
{
	struct hash_node *n = hash_first(&t->places, place_hash(u, channel));

	for (; n != NULL; n = hash_next(n)) {
		struct user_place *p = CONTAINER_OF(n, struct user_place, node);

		if (p->user == u->index && p->channel == channel)
			return p;
	}
	return NULL;
}

/* One socket more of this user in that channel. */
static int place_enter(struct user_table *t, const struct user *u, uint32_t channel)
{
	struct user_place *p = place_find(t, u, channel);

	if (p == NULL) {
		p = malloc(sizeof(*p));
		if (p == NULL)
			return -1;
		*p = (struct user_place){
			.node = {.hash = place_hash(u, channel)}, .user = u->index, .channel = channel};
		if (hash_put(&t->places, &p->node) == -1) {
			free(p);
			return -1;
		}
	}
	p->n++;
	return 0;
}

/* One less. Returns how many are left. */
static uint32_t place_leave(struct user_table *t, const struct user *u, uint32_t channel)
{
	struct user_place *p = place_find(t, u, channel);
	uint32_t left = --p->n;

	if (left == 0) {
		hash_remove(&t->places, &p->node);
		free(p);
	}
	return left;
}

static bool has_presence(const struct worker *w, const struct user *u)
{
	return w->config->namespaces[u->ns].presence;
}

/* Of `c`'s channel the user has `n` sockets here now. */
static void tell_presence(struct worker *w, const struct conn *c, const struct user *u, uint32_t n)
{
	struct up_rec h = {.type = UP_PRESENCE, .ns = w->config->namespaces[u->ns].id, .total = n};
	struct slice room = {0};

	if (has_presence(w, u)) {
		const struct channel *ch = channel_at(&w->channels, c->channel);

		room = channel_room(ch);
	}
	publish_control_payload(w, &h, room, user_text(u));
}

/* ---------------------------------------------------------------- the namespace's own channel */

static bool is_anonymous(const struct worker *w, const struct session *s)
{
	return s == NULL || session_user(w, s).len == 0;
}

uint32_t user_channel(const struct worker *w, uint16_t ns_index)
{
	return w->users->ns[ns_index].channel;
}

static void wait_remove(struct worker *w, struct user_ns *n, struct conn *c, struct session *s)
{
	if (s->place == CONN_NONE)
		n->waiting = c->member;
	else
		conn_at(&w->conns, s->place)->member = c->member;
	if (c->member != CONN_NONE)
		session_of(w, conn_at(&w->conns, c->member))->place = s->place;
	c->member = CONN_NONE;
}

int user_prepare(struct worker *w, struct conn *c)
{
	struct user_ns *n = &w->users->ns[c->ns];
	struct session *s = session_of(w, c);

	if (is_anonymous(w, s))
		return 1;
	if (n->claims == 0) {
		n->channel = channel_hold(w, c->ns);
		if (n->channel == CHANNEL_NONE)
			return -1;
	}
	n->claims++;
	if (channel_at(&w->channels, n->channel)->state == CHANNEL_SUBSCRIBED) {
		s->claim = USER_CLAIM_HELD;
		return 1;
	}
	s->claim = USER_CLAIM_WAITING;
	s->place = CONN_NONE;
	c->member = n->waiting;
	if (n->waiting != CONN_NONE)
		session_of(w, conn_at(&w->conns, n->waiting))->place = c->index;
	n->waiting = c->index;
	return 0;
}

void user_subscribed(struct worker *w, uint16_t ns_index)
{
	struct user_ns *n = &w->users->ns[ns_index];

	for (uint32_t i = 1; n->waiting != CONN_NONE; i++) {
		struct conn *c = conn_at(&w->conns, n->waiting);
		struct session *s = session_of(w, c);

		wait_remove(w, n, c, s);
		s->claim = USER_CLAIM_HELD;
		user_prepared(w, c);
		if (i % 64 == 0)
			slot_beat(&w->slot);
	}
}

static void give_up_claim(struct worker *w, struct conn *c, struct session *s)
{
	struct user_ns *n = &w->users->ns[c->ns];

	if (s->claim == USER_CLAIM_WAITING)
		wait_remove(w, n, c, s);
	s->claim = USER_CLAIM_NONE;
	n->claims--;
	if (n->claims == 0) {
		channel_release(w, n->channel);
		n->channel = CHANNEL_NONE;
	}
}

/* ---------------------------------------------------------------- in and out */

int user_join(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);
	struct user_table *t = w->users;
	struct user *u;

	if (is_anonymous(w, s))
		return 0;
	assert(s->claim == USER_CLAIM_HELD);
	u = find_hashed(t, c->ns, hash_of(w, c->ns, s->who->user), s->who->user);
	if (u == NULL)
		u = create(w, c->ns, s->who->user);
	if (u == NULL)
		return -1;
	if (fanout_reserve(w, t->n_sockets + 1) == -1 || reserve_socket(u) == -1 ||
	    user_groups_replace(w, u, s->who->groups, s->who->n_groups) == -1 ||
	    (has_presence(w, u) && place_enter(t, u, c->channel) == -1)) {
		if (u->n == 0)
			destroy(w, u);
		return -1;
	}
	s->user = u->index;
	s->place = u->n;
	sockets_of(u)[u->n++] = c->index;
	t->n_sockets++;
	tell_presence(w, c, u, has_presence(w, u) ? place_find(t, u, c->channel)->n : u->n);
	return 0;
}

void user_leave(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);
	struct user_table *t = w->users;
	struct user *u = user_of(w, c);

	if (u != NULL) {
		uint32_t last = sockets_of(u)[--u->n];

		sockets_of(u)[s->place] = last;
		session_of(w, conn_at(&w->conns, last))->place = s->place;
		s->user = USER_NONE;
		t->n_sockets--;
		tell_presence(w, c, u, has_presence(w, u) ? place_leave(t, u, c->channel) : u->n);
		if (u->n == 0)
			destroy(w, u);
	}
	if (s != NULL && s->claim != USER_CLAIM_NONE)
		give_up_claim(w, c, s);
}

void user_refresh(struct worker *w, struct conn *c, const struct identity *who)
{
	struct user *u = user_of(w, c);

	/* Without memory for all groups he is in fewer: less than he may see, never more. */
	if (u != NULL && user_groups_replace(w, u, who->groups, who->n_groups) == -1)
		log_event(LOG_ERROR, "no_memory", "msg=\"a user is not in all of his groups\"");
}

/* ---------------------------------------------------------------- matching */

uint64_t user_cluster_hash(const struct worker *w, const struct user *u)
{
	const char *name = w->config->namespaces[u->ns].name;

	return rec_cluster_hash((struct slice){name, strlen(name)}, user_text(u));
}

struct matching {
	uint64_t pos;
	void (*fn)(struct worker *w, struct user *u, void *arg);
	void *arg;
};

static void match_one(struct worker *w, struct user *u, const struct matching *m)
{
	if (u->stamp == m->pos)
		return;
	u->stamp = m->pos;
	m->fn(w, u, m->arg);
}

void user_match(struct worker *w, uint16_t ns_index, struct slice targets, uint64_t pos,
		void (*fn)(struct worker *w, struct user *u, void *arg), void *arg)
{
	const struct matching m = {pos, fn, arg};
	const struct user_table *t = w->users;
	const struct rec_target *e;
	size_t off = 0;

	while ((e = rec_target_next(targets, &off)) != NULL) {
		struct slice id = {e->id, e->len};

		if (e->kind == REC_TARGET_USER) {
			struct user *u = find_hashed(t, ns_index, e->hash, id);

			if (u != NULL)
				match_one(w, u, &m);
		} else if (e->kind == REC_TARGET_GROUP) {
			const struct user_group *g = user_group_find(t, ns_index, e->hash, id);

			for (uint32_t i = 0; g != NULL && i < g->n; i++)
				match_one(w, g->users[i], &m);
		}
	}
}

bool user_is_target(const struct worker *w, const struct conn *c, struct slice targets, size_t *used)
{
	const struct user *u = user_of(w, c);
	const struct rec_target *e;
	bool is_target = false;
	size_t off = 0;

	while (u != NULL && !is_target && (e = rec_target_next(targets, &off)) != NULL) {
		struct slice id = {e->id, e->len};

		if (e->kind == REC_TARGET_USER)
			is_target = e->hash == u->node.hash && id.len == u->id_len &&
				    memcmp(id.p, user_text(u).p, id.len) == 0;
		else if (e->kind == REC_TARGET_GROUP)
			is_target = user_in_group(u, e->hash, id);
	}
	if (used != NULL)
		*used = off;
	return is_target;
}
