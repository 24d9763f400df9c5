#include "worker/session.h"

#include <stdlib.h>
#include <string.h>

#include "worker/auth.h"
#include "worker/limits.h"
#include "worker/worker.h"

void session_table_init(struct session_table *t)
{
	*t = (struct session_table){.free = SESSION_NONE};
}

void session_table_free(struct session_table *t)
{
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	free(t->segment);
}

static int add_segment(struct session_table *t)
{
	struct session **list = realloc(t->segment, (t->n_segments + 1) * sizeof(struct session *));
	struct session *seg;

	if (list == NULL)
		return -1;
	t->segment = list;
	seg = calloc(SESSION_SEGMENT, sizeof(*seg));
	if (seg == NULL)
		return -1;
	list[t->n_segments] = seg;
	for (uint32_t i = SESSION_SEGMENT; i-- > 0;) {
		seg[i].user = t->free;
		t->free = t->n_segments * SESSION_SEGMENT + i;
	}
	t->n_segments++;
	return 0;
}

bool session_is_needed(const struct worker *w, const struct cfg_namespace *ns)
{
	const struct cfg_limits *l = &w->config->limits;

	return ns->auth != NULL || ns->user_query != NULL || ns->n_rules > 0 || ns->idle.after != 0 ||
	       ns->msg_rate != 0 || ns->user_rate != 0 || ns->envelope == CFG_ENVELOPE_JSON ||
	       l->per_user != 0 || l->per_address != 0;
}

struct session *session_open(struct worker *w, struct conn *c)
{
	struct session_table *t = &w->sessions;
	struct session *s;
	uint32_t index;

	if (c->session != SESSION_NONE)
		return session_at(t, c->session);
	if (t->free == SESSION_NONE && add_segment(t) == -1)
		return NULL;
	index = t->free;
	s = session_at(t, index);
	t->free = s->user;
	t->n++;
	*s = (struct session){.user = USER_NONE};
	c->session = index;
	return s;
}

struct session *session_of(const struct worker *w, const struct conn *c)
{
	return c->session == SESSION_NONE ? NULL : session_at(&w->sessions, c->session);
}

struct session_more *session_more(struct session *s)
{
	if (s->more == NULL)
		s->more = calloc(1, sizeof(*s->more));
	return s->more;
}

static int set_address(struct session *s, const struct address *from)
{
	if (!from->is_known || address_is_ip4(from)) {
		memcpy(&s->address, from->ip + 12, sizeof(s->address));
	} else {
		if (session_more(s) == NULL)
			return -1;
		memcpy(s->more->address, from->ip, sizeof(s->more->address));
		s->is_address_long = true;
	}
	s->has_address = from->is_known;
	return 0;
}

static bool needs_more(const struct cfg_namespace *ns)
{
	return ns->idle.after != 0 || ns->msg_rate != 0 || ns->user_rate != 0;
}

void session_trim(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);

	if (s->more == NULL || s->more->request != NULL || s->is_address_long ||
	    needs_more(&w->config->namespaces[c->ns]))
		return;
	free(s->more);
	s->more = NULL;
}

int session_equip(struct worker *w, struct conn *c, const struct address *from)
{
	const struct cfg_namespace *ns = &w->config->namespaces[c->ns];
	struct session *s = session_of(w, c);

	if (needs_more(ns) && session_more(s) == NULL)
		return -1;
	return set_address(s, from);
}

struct address session_address(const struct session *s)
{
	struct address a = {s->has_address, {0}};

	if (s->is_address_long)
		memcpy(a.ip, s->more->address, sizeof(a.ip));
	else if (s->has_address)
		address_set_ip4(&a, &s->address);
	return a;
}

/* ---- who it is */

static void drop_identity(struct session *s)
{
	if (s->is_settled)
		free(s->rest);
	else
		identity_free(s->who);
	s->who = NULL;
	s->is_settled = false;
}

void session_settle(struct worker *w, struct session *s, struct identity *who)
{
	/* A user has his name in the tables; only where the master counts him it has to be known after he has
	 * left them. */
	bool needs_user = w->config->limits.per_user != 0;
	struct identity_rest *rest;

	s->has_expiry = who->expires_at != 0;
	s->expires_at = (uint32_t)u64_min(who->expires_at, UINT32_MAX);
	if (who != s->who || s->is_settled)
		drop_identity(s);
	if (identity_rest_of(who, needs_user, &rest) == -1) {
		s->who = who; /* without memory for less it stays as it is */
		return;
	}
	identity_free(who);
	s->rest = rest;
	s->is_settled = true;
}

struct slice session_user(const struct worker *w, const struct session *s)
{
	if (s->user != USER_NONE)
		return user_text(user_at(w, s->user));
	if (s->is_settled)
		return identity_rest_user(s->rest);
	return s->who == NULL ? (struct slice){0} : s->who->user;
}

struct slice session_tag(const struct session *s)
{
	if (s->is_settled)
		return identity_rest_session(s->rest);
	return s->who == NULL ? (struct slice){0} : s->who->session;
}

struct slice session_info(const struct session *s)
{
	if (s->is_settled)
		return identity_rest_info(s->rest);
	return s->who == NULL ? (struct slice){0} : s->who->info;
}

void session_close(struct worker *w, struct conn *c)
{
	struct session_table *t = &w->sessions;
	struct session *s = session_of(w, c);

	if (s == NULL)
		return;
	auth_forget(w, c);
	limits_release(w, s);
	drop_identity(s);
	free(s->more);
	*s = (struct session){.user = t->free};
	t->free = c->session;
	c->session = SESSION_NONE;
	t->n--;
}

bool bucket_take(struct bucket *b, uint32_t rate, uint32_t burst, uint64_t now_ms)
{
	uint32_t now = (uint32_t)now_ms, most = (burst > 0 ? burst : rate) * 1000;
	uint64_t milli;

	if (rate == 0)
		return true;
	if (b->at == 0 && b->milli == 0)
		milli = most;
	else
		milli = u64_min(b->milli + (uint64_t)(now - b->at) * rate, most);
	b->at = now == 0 ? 1 : now;
	b->milli = (uint32_t)milli;
	if (milli < 1000)
		return false;
	b->milli -= 1000;
	return true;
}

uint32_t bucket_wait(const struct bucket *b, uint32_t rate)
{
	return b->milli >= 1000 || rate == 0 ? 0 : (1000 - b->milli + rate - 1) / rate;
}
