#include "worker/rate.h"

#include "worker/input.h"
#include "worker/worker.h"

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

/* What his sockets here share; NULL: nobody in particular, or no limit. */
static struct bucket *user_bucket(const struct worker *w, const struct cfg_namespace *ns,
				  const struct session *s)
{
	return ns->user_rate == 0 || s->user == USER_NONE ? NULL : &user_at(w, s->user)->more->rate;
}

bool rate_take(struct worker *w, struct conn *c)
{
	const struct cfg_namespace *ns = ns_of(w, c);
	struct session *s = session_of(w, c);
	struct bucket *user;

	if (s == NULL || (ns->msg_rate == 0 && ns->user_rate == 0))
		return true;
	if (!bucket_take(&s->more->rate, ns->msg_rate, ns->msg_burst, w->now_ms))
		return false;
	user = user_bucket(w, ns, s);
	if (user == NULL || bucket_take(user, ns->user_rate, 0, w->now_ms))
		return true;
	if (ns->msg_rate != 0)
		s->more->rate.milli += 1000; /* not used: it waits for the other */
	return false;
}

/* ms from now until the bucket has a token. It says so from the time when it was last looked at. */
static uint64_t wait_for(const struct worker *w, const struct bucket *b, uint32_t rate)
{
	uint32_t wait = bucket_wait(b, rate), since = (uint32_t)w->now_ms - b->at;

	return wait > since ? wait - since : 0;
}

static uint64_t wait_of(const struct worker *w, const struct conn *c)
{
	const struct cfg_namespace *ns = ns_of(w, c);
	const struct session *s = session_of(w, c);
	const struct bucket *user = user_bucket(w, ns, s);
	uint64_t wait = wait_for(w, &s->more->rate, ns->msg_rate);

	return user == NULL ? wait : u64_max(wait, wait_for(w, user, ns->user_rate));
}

void rate_hold(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);

	c->flags |= CONN_HELD;
	if (!s->is_held) {
		s->is_held = true;
		s->more->held_since = (uint32_t)w->now_ms;
	}
	count_add(&w->count->ns[ns_of(w, c)->id].rate_limited, 1);
	conn_arm(w, c);
	conn_retime(w, c);
}

void rate_at_rest(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);

	if (s != NULL && (c->flags & CONN_HELD) == 0)
		s->is_held = false;
}

uint64_t rate_due(const struct worker *w, const struct conn *c)
{
	return (c->flags & CONN_HELD) == 0 ? UINT64_MAX : wait_of(w, c);
}

bool rate_expired(struct worker *w, struct conn *c)
{
	if ((c->flags & CONN_HELD) == 0)
		return true;
	if ((uint32_t)w->now_ms - session_of(w, c)->more->held_since >= RATE_PATIENCE_MS) {
		conn_close(w, c, 1008, "message rate");
		return false;
	}
	return wait_of(w, c) > 0 || input_release(w, c);
}
