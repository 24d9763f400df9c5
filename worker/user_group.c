/* user_group.c - groups of users (user.h): who is in which, by name and by user. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/user_int.h"

#define USERS_MIN  4u
#define GROUPS_MIN 2u

/* ---------------------------------------------------------------- groups by name */

static uint64_t node_hash(uint16_t ns, uint64_t hash)
{
	return hash + ns * UINT64_C(0x9e3779b97f4a7c15);
}

static bool is_named(const struct user_group *g, uint64_t hash, struct slice name)
{
	return g->hash == hash && g->len == name.len && memcmp(g->name, name.p, name.len) == 0;
}

struct user_group *user_group_find(const struct user_table *t, uint16_t ns, uint64_t hash, struct slice name)
{
	struct hash_node *n = hash_first(&t->groups, node_hash(ns, hash));

	for (; n != NULL; n = hash_next(n)) {
		struct user_group *g = CONTAINER_OF(n, struct user_group, node);

		if (g->ns == ns && is_named(g, hash, name))
			return g;
	}
	return NULL;
}

static struct user_group *group_create(struct user_table *t, uint16_t ns, uint64_t hash, struct slice name)
{
	struct user_group *g = malloc(sizeof(*g) + name.len);

	if (g == NULL)
		return NULL;
	*g = (struct user_group){
		.node = {.hash = node_hash(ns, hash)}, .hash = hash, .ns = ns, .len = (uint8_t)name.len};
	memcpy(g->name, name.p, name.len);
	if (hash_put(&t->groups, &g->node) == -1) {
		free(g);
		return NULL;
	}
	return g;
}

/* Without users it is none. */
static void group_trim(struct user_table *t, struct user_group *g)
{
	if (g->n > 0)
		return;
	hash_remove(&t->groups, &g->node);
	free(g->users);
	free(g);
}

static int group_reserve(struct user_group *g)
{
	uint32_t cap = g->cap == 0 ? USERS_MIN : g->cap + g->cap / 2;
	struct user **users;

	if (g->n < g->cap)
		return 0;
	users = realloc(g->users, cap * sizeof(struct user *));
	if (users == NULL)
		return -1;
	g->users = users;
	g->cap = cap;
	return 0;
}

/* ---------------------------------------------------------------- groups of a user */

/* His first membership in a group of this hash or a larger one. */
static uint16_t lower_bound(const struct user *u, uint64_t hash)
{
	uint16_t from = 0, to = user_n_groups(u);

	while (from < to) {
		uint16_t mid = (uint16_t)((from + to) / 2);

		if (u->more->groups[mid].group->hash < hash)
			from = (uint16_t)(mid + 1);
		else
			to = mid;
	}
	return from;
}

static struct user_member *member_of(const struct user *u, uint64_t hash, struct slice name)
{
	for (uint16_t i = lower_bound(u, hash);
	     i < user_n_groups(u) && u->more->groups[i].group->hash == hash; i++) {
		if (is_named(u->more->groups[i].group, hash, name))
			return &u->more->groups[i];
	}
	return NULL;
}

bool user_in_group(const struct user *u, uint64_t hash, struct slice name)
{
	return member_of(u, hash, name) != NULL;
}

static int reserve_member(struct user *u)
{
	struct user_more *more = u->more;
	uint32_t cap = more == NULL ? 0 : more->cap;

	if (user_n_groups(u) < cap)
		return 0;
	cap = cap == 0 ? GROUPS_MIN : cap * 2;
	more = realloc(more, sizeof(*more) + cap * sizeof(more->groups[0]));
	if (more == NULL)
		return -1;
	if (u->more == NULL)
		*more = (struct user_more){0};
	more->cap = (uint16_t)cap;
	u->more = more;
	return 0;
}

/* 0, or -1: no memory, or in too many already. */
static int enter(struct worker *w, struct user *u, uint64_t hash, struct slice name)
{
	struct user_table *t = w->users;
	struct user_group *g = user_group_find(t, u->ns, hash, name);
	uint16_t at = lower_bound(u, hash);

	if (name.len > IDENTITY_USER_MAX || user_n_groups(u) == USER_GROUPS_MAX || reserve_member(u) == -1)
		return -1;
	if (g == NULL)
		g = group_create(t, u->ns, hash, name);
	if (g == NULL)
		return -1;
	if (group_reserve(g) == -1) {
		group_trim(t, g);
		return -1;
	}
	memmove(&u->more->groups[at + 1], &u->more->groups[at],
		(size_t)(u->more->n - at) * sizeof(*u->more->groups));
	u->more->groups[at] = (struct user_member){.group = g, .place = g->n, .is_named = true};
	u->more->n++;
	g->users[g->n++] = u;
	return 0;
}

static void leave(struct worker *w, struct user *u, struct user_member *m)
{
	struct user_group *g = m->group;
	struct user *last = g->users[--g->n];
	size_t behind = (size_t)(&u->more->groups[u->more->n] - (m + 1));

	if (last != u) {
		g->users[m->place] = last;
		member_of(last, g->hash, (struct slice){g->name, g->len})->place = m->place;
	}
	memmove(m, m + 1, behind * sizeof(*m));
	u->more->n--;
	group_trim(w->users, g);
}

static void unname_all(struct user *u)
{
	for (uint16_t i = 0; i < user_n_groups(u); i++)
		u->more->groups[i].is_named = false;
}

static void leave_unnamed(struct worker *w, struct user *u)
{
	for (uint16_t i = user_n_groups(u); i-- > 0;) {
		if (!u->more->groups[i].is_named)
			leave(w, u, &u->more->groups[i]);
	}
}

void user_groups_leave(struct worker *w, struct user *u)
{
	unname_all(u);
	leave_unnamed(w, u);
}

int user_groups_replace(struct worker *w, struct user *u, const struct slice *names, unsigned n)
{
	int result = 0;

	unname_all(u);
	for (unsigned i = 0; i < n; i++) {
		uint64_t hash = rec_group_hash(w->globals->hash_key, names[i]);
		struct user_member *m = member_of(u, hash, names[i]);

		if (m != NULL)
			m->is_named = true;
		else if (enter(w, u, hash, names[i]) == -1)
			result = -1;
	}
	/* Also without memory: he shall not be where he does not belong any more. */
	leave_unnamed(w, u);
	return result;
}

/* ---------------------------------------------------------------- changes at runtime */

static void change(struct worker *w, uint16_t ns, uint64_t hash, struct slice group, struct slice id,
		   bool is_in)
{
	uint32_t index = user_find(w, ns, id);
	struct user *u = index == USER_NONE ? NULL : user_at(w, index);
	struct user_member *m = u == NULL ? NULL : member_of(u, hash, group);

	if (u == NULL || (m != NULL) == is_in)
		return;
	if (!is_in)
		leave(w, u, m);
	else if (enter(w, u, hash, group) == -1)
		log_event(LOG_ERROR, "no_memory", "msg=\"a user is not in all of his groups\"");
}

void user_change_group(struct worker *w, struct slice group, const struct slice *add, size_t n_add,
		       const struct slice *remove, size_t n_remove)
{
	uint64_t hash = rec_group_hash(w->globals->hash_key, group);

	for (uint16_t ns = 0; ns < w->config->n_namespaces; ns++) {
		if (w->users->ns[ns].claims == 0)
			continue;
		for (size_t i = 0; i < n_add; i++)
			change(w, ns, hash, group, add[i], true);
		for (size_t i = 0; i < n_remove; i++)
			change(w, ns, hash, group, remove[i], false);
	}
}
