#include "worker/session.h"

#include <stdlib.h>

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
		seg[i].conn = t->free;
		t->free = t->n_segments * SESSION_SEGMENT + i;
	}
	t->n_segments++;
	return 0;
}

bool session_is_needed(const struct worker *w, const struct cfg_namespace *ns)
{
	const struct cfg_limits *l = &w->config->limits;

	return ns->auth != NULL || ns->user_query != NULL || ns->n_rules > 0 || ns->idle.after != 0 ||
	       ns->msg_rate != 0 || ns->user_rate != 0 || ns->envelope == CFG_ENVELOPE_JSON || l->per_user != 0 ||
	       l->per_address != 0;
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
	t->free = s->conn;
	t->n++;
	*s = (struct session){.conn = c->index, .user = USER_NONE};
	c->session = index;
	return s;
}

struct session *session_of(const struct worker *w, const struct conn *c)
{
	return c->session == SESSION_NONE ? NULL : session_at(&w->sessions, c->session);
}

void session_close(struct worker *w, struct conn *c)
{
	struct session_table *t = &w->sessions;
	struct session *s = session_of(w, c);

	if (s == NULL)
		return;
	auth_forget(w, c);
	limits_release(w, s);
	identity_free(s->who);
	*s = (struct session){.conn = t->free, .user = USER_NONE};
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
