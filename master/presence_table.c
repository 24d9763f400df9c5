#include "master/presence_table.h"

#include <stdlib.h>
#include <string.h>

#include "shm/record.h"

uint64_t presence_hash(const char *ns_name, struct slice user)
{
	return rec_user_hash(rec_channel_hash(0, 0, (struct slice){ns_name, strlen(ns_name)}), 0, user);
}

int presence_table_init(struct presence_table *t, uint64_t hash_key)
{
	*t = (struct presence_table){.hash_key = hash_key};
	return table_init(&t->places) == -1 || table_init(&t->members) == -1 ||
			       crowd_init(&t->crowd, hash_key) == -1
		       ? -1
		       : 0;
}

void presence_table_free(struct presence_table *t)
{
	presence_table_keep_changes(t, false);
	for (unsigned i = 0; i < CROWD_READERS; i++)
		(void)presence_table_forget(t, (uint8_t)i, UINT32_MAX);
	table_free(&t->places);
	table_free(&t->members);
	crowd_free(&t->crowd);
}

/* ---- places */

static uint64_t place_hash(const struct presence_table *t, uint16_t ns, struct slice room)
{
	return rec_channel_hash(t->hash_key, ns, room);
}

static struct presence_place *find_place(const struct presence_table *t, uint16_t ns, struct slice room)
{
	uint64_t hash = place_hash(t, ns, room);
	struct table_link *l = NULL;

	while ((l = table_next(&t->places, hash, l)) != NULL) {
		struct presence_place *p = CONTAINER_OF(l, struct presence_place, link);

		if (p->ns == ns && p->room_len == room.len && memcmp(p->room, room.p, room.len) == 0)
			return p;
	}
	return NULL;
}

const struct presence_place *presence_table_place(const struct presence_table *t, uint16_t ns,
						  struct slice room)
{
	return find_place(t, ns, room);
}

static struct presence_place *place_new(struct presence_table *t, uint16_t ns, struct slice room)
{
	struct presence_place *p = calloc(1, sizeof(*p) + room.len);

	if (p == NULL)
		return NULL;
	p->link.hash = place_hash(t, ns, room);
	p->ns = ns;
	p->room_len = (uint8_t)room.len;
	memcpy(p->room, room.p, room.len);
	table_insert(&t->places, &p->link);
	return p;
}

static void place_forget(struct presence_table *t, struct presence_place *p)
{
	if (p->first != NULL)
		return;
	table_remove(&t->places, &p->link);
	free(p);
}

/* ---- members */

static uint64_t member_hash(const struct presence_place *p, struct slice user)
{
	return rec_user_hash(p->link.hash, p->ns, user);
}

static struct presence_member *find_member(const struct presence_table *t, const struct presence_place *p,
					   struct slice user)
{
	struct table_link *l = NULL;
	uint64_t hash;

	if (p == NULL)
		return NULL;
	hash = member_hash(p, user);
	while ((l = table_next(&t->members, hash, l)) != NULL) {
		struct presence_member *m = CONTAINER_OF(l, struct presence_member, link);

		if (m->place == p && m->user_len == user.len && memcmp(m->user, user.p, user.len) == 0)
			return m;
	}
	return NULL;
}

const struct presence_member *presence_table_member(const struct presence_table *t, uint16_t ns,
						    struct slice room, struct slice user)
{
	return find_member(t, find_place(t, ns, room), user);
}

static struct presence_member *member_new(struct presence_table *t, struct presence_place *p,
					  struct slice user, uint64_t public_hash)
{
	struct presence_member *m = calloc(1, sizeof(*m) + user.len);
	struct presence_ns *n = &t->ns[p->ns];

	if (m == NULL)
		return NULL;
	m->link.hash = member_hash(p, user);
	m->place = p;
	m->public_hash = public_hash;
	m->user_len = (uint8_t)user.len;
	memcpy(m->user, user.p, user.len);
	m->next = p->first;
	if (p->first != NULL)
		p->first->prev = m;
	p->first = m;
	/* In front, where the cursor has been already: a new one is a change. */
	m->next_ns = n->first;
	if (n->first != NULL)
		n->first->prev_ns = m;
	n->first = m;
	table_insert(&t->members, &m->link);
	return m;
}

static void change_take(struct presence_table *t, struct presence_member *m)
{
	if (!m->is_changed)
		return;
	if (m->older == NULL)
		t->first_change = m->newer;
	else
		m->older->newer = m->newer;
	if (m->newer == NULL)
		t->last_change = m->older;
	else
		m->newer->older = m->older;
	m->older = m->newer = NULL;
	m->is_changed = false;
}

static void change_note(struct presence_table *t, struct presence_member *m)
{
	if (!t->keeps_changes || m->is_changed)
		return;
	m->is_changed = true;
	m->older = t->last_change;
	if (t->last_change == NULL)
		t->first_change = m;
	else
		t->last_change->newer = m;
	t->last_change = m;
}

/* Nobody has anything to say about it any more. */
static void member_forget(struct presence_table *t, struct presence_member *m)
{
	struct presence_place *p = m->place;
	struct presence_ns *n = &t->ns[p->ns];

	if (m->shares != NULL || (t->keeps_changes && presence_written(t, m) > 0))
		return;
	change_take(t, m);
	if (n->cursor == m)
		n->cursor = m->next_ns;
	if (m->prev == NULL)
		p->first = m->next;
	else
		m->prev->next = m->next;
	if (m->next != NULL)
		m->next->prev = m->prev;
	if (m->prev_ns == NULL)
		n->first = m->next_ns;
	else
		m->prev_ns->next_ns = m->next_ns;
	if (m->next_ns != NULL)
		m->next_ns->prev_ns = m->prev_ns;
	table_remove(&t->members, &m->link);
	free(m);
	place_forget(t, p);
}

/* ---- shares */

static struct presence_share **find_share(struct presence_member *m, uint8_t reader)
{
	struct presence_share **s = &m->shares;

	while (*s != NULL && (*s)->reader != reader)
		s = &(*s)->next;
	return s;
}

static struct presence_share *share_new(struct presence_table *t, struct presence_member *m, uint8_t reader)
{
	struct presence_share *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->member = m;
	s->reader = reader;
	s->next = m->shares;
	m->shares = s;
	s->older = t->newest[reader];
	if (s->older != NULL)
		s->older->newer = s;
	t->newest[reader] = s;
	return s;
}

static void share_free(struct presence_table *t, struct presence_share **link)
{
	struct presence_share *s = *link;

	*link = s->next;
	if (s->newer == NULL)
		t->newest[s->reader] = s->older;
	else
		s->newer->older = s->older;
	if (s->older != NULL)
		s->older->newer = s->newer;
	free(s);
}

/* The share counts `sockets` from now on: sums, changes. */
static void share_set(struct presence_table *t, struct presence_share *s, uint32_t sockets)
{
	struct presence_member *m = s->member;
	uint32_t before = m->sockets;

	m->sockets = before - s->sockets + sockets;
	m->place->sockets += (uint64_t)sockets - s->sockets;
	t->ns[m->place->ns].sockets += (uint64_t)sockets - s->sockets;
	m->place->users += (m->sockets > 0) - (before > 0);
	s->sockets = sockets;
	if (m->sockets != before)
		change_note(t, m);
}

static void share_drop(struct presence_table *t, struct presence_share **link)
{
	struct presence_member *m = (*link)->member;

	share_set(t, *link, 0);
	crowd_drop(&t->crowd, m->place->ns, m->public_hash, (*link)->reader);
	share_free(t, link);
	member_forget(t, m);
}

static int set_listed(struct presence_table *t, const struct presence_word *w)
{
	struct presence_place *p = find_place(t, w->ns, w->room);
	struct presence_member *m = find_member(t, p, w->user);
	struct presence_share **s = m == NULL ? NULL : find_share(m, w->reader);
	struct presence_share *mine = s == NULL ? NULL : *s;

	if (w->sockets == 0) {
		if (mine != NULL)
			share_drop(t, s);
		return 0;
	}
	if (mine == NULL) {
		if (p == NULL && (p = place_new(t, w->ns, w->room)) == NULL)
			return -1;
		if (m == NULL && (m = member_new(t, p, w->user, w->public_hash)) == NULL) {
			place_forget(t, p);
			return -1;
		}
		if ((mine = share_new(t, m, w->reader)) == NULL) {
			member_forget(t, m);
			return -1;
		}
		if (crowd_add(&t->crowd, w->ns, w->public_hash, w->reader) == -1) {
			share_free(t, &m->shares); /* the newest stands first */
			member_forget(t, m);
			return -1;
		}
	}
	share_set(t, mine, w->sockets);
	return 0;
}

int presence_table_set(struct presence_table *t, const struct presence_word *w)
{
	if (w->is_listed)
		return set_listed(t, w);
	if (w->sockets > 0)
		return crowd_put(&t->crowd, w->ns, w->public_hash, w->reader);
	crowd_drop(&t->crowd, w->ns, w->public_hash, w->reader);
	return 0;
}

uint32_t presence_table_forget(struct presence_table *t, uint8_t reader, uint32_t max)
{
	uint32_t n = 0;

	for (; n < max && t->newest[reader] != NULL; n++)
		share_drop(t, find_share(t->newest[reader]->member, reader));
	return n + crowd_forget(&t->crowd, reader, max - n);
}

/* ---- for Redis */

void presence_table_written(struct presence_table *t, struct presence_member *m)
{
	change_take(t, m);
	m->written = m->sockets;
	m->written_epoch = t->ns[m->place->ns].epoch;
	member_forget(t, m);
}

void presence_table_restart(struct presence_table *t, uint16_t ns)
{
	struct presence_ns *n = &t->ns[ns];
	struct presence_member *m, *newer;

	n->epoch++;
	/* Those without sockets were kept for Redis alone; all of them are changes. */
	for (m = t->first_change; m != NULL; m = newer) {
		newer = m->newer;
		if (m->place->ns == ns)
			member_forget(t, m);
	}
	n->cursor = n->first;
}

void presence_table_keep_changes(struct presence_table *t, bool keep)
{
	t->keeps_changes = keep;
	while (t->first_change != NULL) {
		struct presence_member *m = t->first_change;

		change_take(t, m);
		if (!keep)
			member_forget(t, m);
	}
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++)
		t->ns[i].cursor = NULL;
}
