#include "worker/admission.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/auth.h"
#include "worker/input.h"
#include "worker/kept.h"
#include "worker/limits.h"
#include "worker/output.h"
#include "worker/place.h"
#include "worker/rules.h"
#include "worker/worker.h"

enum admit {
	ADMIT_NEXT,
	ADMIT_WAIT,
	ADMIT_OVER, /* a member, or refused; `c` may be gone */
};

/* The request, while it is still there: the first time through only. */
struct request {
	const struct http_parser *p;
	const char *head;
};

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

void admission_address(const struct worker *w, const struct conn *c, char dst[ADMISSION_ADDRESS_SIZE])
{
	const struct session *s = session_of(w, c);
	const struct address a = s == NULL ? address_peer(c->fd) : session_address(s);

	address_text(&a, dst);
}

/* ---------------------------------------------------------------- refusals */

static void log_refusal(const struct worker *w, const struct conn *c, const struct admission *a,
			const struct admission_refusal *r)
{
	const struct session *s = session_of(w, c);
	struct slice user = {a->user, a->user_len};
	char address[ADMISSION_ADDRESS_SIZE];
	struct log_quoted room, who, text;

	if (r->is_quiet || !log_on(LOG_INFO))
		return;
	if (s != NULL && session_user(w, s).len > 0)
		user = session_user(w, s);
	address_text(&a->from, address);
	log_event(LOG_INFO, "refused", "ns=%s room=%s user=%s addr=%s code=%d reason=%s msg=%s",
		  ns_of(w, c)->name, log_quote(&room, a->h.room, a->h.room_len),
		  log_quote(&who, user.p, user.len), address,
		  ns_of(w, c)->refuse == CFG_REFUSE_CLOSE ? r->code : r->status, count_refused_names[r->why],
		  log_quote(&text, r->reason.p, r->reason.len));
}

void admission_refuse(struct worker *w, struct conn *c, const struct admission *a,
		      const struct admission_refusal *r)
{
	char answer[HANDSHAKE_RESPONSE_SIZE], reason[IDENTITY_REASON_MAX + 1];
	size_t len, n = u64_min(r->reason.len, IDENTITY_REASON_MAX);

	count_add(&w->count->refused[r->why], 1);
	log_refusal(w, c, a, r);
	if (ns_of(w, c)->refuse != CFG_REFUSE_CLOSE) {
		input_answer(w, c, r->status);
		return;
	}
	len = handshake_response(answer, sizeof(answer), &a->h);
	if (n > 0)
		memcpy(reason, r->reason.p, n);
	reason[n] = '\0';
	conn_reject(w, c, (struct slice){answer, len}, r->code, reason);
}

static void refuse(struct worker *w, struct conn *c, const struct admission *a, enum count_refused why,
		   int status, uint16_t code, const char *reason)
{
	const struct admission_refusal r = {why, status, code, {reason, strlen(reason)}, false};

	admission_refuse(w, c, a, &r);
}

/* No verdict could be had; what went wrong is nobody's business outside. */
static void refuse_failed(struct worker *w, struct conn *c, const struct admission *a)
{
	refuse(w, c, a, COUNT_REFUSED_hook, 503, 1011, "internal error");
}

/* ---------------------------------------------------------------- steps */

/* Who the client is, and whether it comes too fast. Before all else: a storm shall not reach the hook. */
static enum admit step_rate(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	char address[ADMISSION_ADDRESS_SIZE];
	uint8_t key[16];
	uint32_t n;

	if (!a->from.is_known)
		a->from = address_peer(c->fd);
	a->from = address_client(w->config, &a->from, rq->p, rq->head);
	if (limits_connect(w, &a->from))
		return ADMIT_NEXT;
	count_add(&w->count->refused[COUNT_REFUSED_rate], 1);
	address_key(&a->from, key);
	limits_said(w, COUNT_REFUSED_rate, (struct slice){(const char *)key, sizeof(key)}, &n);
	address_text(&a->from, address);
	if (n > 0)
		log_event(LOG_INFO, "refused", "ns=%s addr=%s code=429 reason=rate total=%u",
			  ns_of(w, c)->name, address, n);
	input_answer(w, c, 429);
	return ADMIT_OVER;
}

/* A {room:int} that is none is refused in the namespace's own manner, like a user that is none. */
static enum admit step_room(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	(void)rq;
	if (!a->h.is_bad_room)
		return ADMIT_NEXT;
	refuse(w, c, a, COUNT_REFUSED_no_namespace, 403, 1008, "no valid room named");
	return ADMIT_OVER;
}

static enum admit step_session(struct worker *w, struct conn *c, struct admission *a,
			       const struct request *rq)
{
	(void)rq;
	if (!session_is_needed(w, ns_of(w, c)))
		return ADMIT_NEXT;
	if (session_open(w, c) == NULL || session_equip(w, c, &a->from) == -1) {
		input_refuse(w, c, 503, "no_memory");
		return ADMIT_OVER;
	}
	return ADMIT_NEXT;
}

/* What the query says about the user. It is believed with an auth of type "query" alone; with others it must
 * agree. */
static enum admit step_user(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	const struct cfg_namespace *ns = ns_of(w, c);

	if (ns->user_query == NULL)
		return ADMIT_NEXT;
	a->user_len = (uint8_t)place_user(http_slice(rq->head, rq->p->query), ns->user_query,
					  ns->user_query_is_int, a->user, sizeof(a->user));
	if (a->user_len > 0)
		return ADMIT_NEXT;
	refuse(w, c, a, COUNT_REFUSED_user, 403, 1008, "no valid user named");
	return ADMIT_OVER;
}

/* Let in, or not, whom the verdict is about; the session owns it. */
static enum admit judge(struct worker *w, struct conn *c, struct admission *a, struct identity *who)
{
	struct session *s = session_of(w, c);

	s->who = who;
	if (!who->is_allowed) {
		const struct admission_refusal r = {COUNT_REFUSED_auth, who->status, who->code, who->reason,
						    false};

		admission_refuse(w, c, a, &r);
		return ADMIT_OVER;
	}
	if (a->user_len > 0 && who->user.len > 0 &&
	    (who->user.len != a->user_len || memcmp(who->user.p, a->user, a->user_len) != 0)) {
		refuse(w, c, a, COUNT_REFUSED_user, 403, 1008, "another user");
		return ADMIT_OVER;
	}
	return ADMIT_NEXT;
}

static enum admit step_auth(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	struct auth_ask ask = {.ns = ns_of(w, c),
			       .room = {a->h.room, a->h.room_len},
			       .user = {a->user, a->user_len},
			       .parser = rq->p,
			       .head = rq->head};
	struct identity *who = NULL;
	enum auth_result r;

	if (ask.ns->auth == NULL)
		return ADMIT_NEXT;
	c->state = CONN_AUTHORIZING;
	r = auth_begin(w, c, &ask, &who);
	a->h.is_bearer = ask.is_bearer;
	switch (r) {
	case AUTH_DONE:
		return judge(w, c, a, who);
	case AUTH_WAIT:
		return ADMIT_WAIT;
	case AUTH_FAILED:
		break;
	}
	refuse_failed(w, c, a);
	return ADMIT_OVER;
}

/* Ask the master whether there may be one more. */
static enum admit ask_limit(struct worker *w, struct conn *c, enum up_limit what, struct slice key)
{
	c->state = CONN_JOINING;
	if (limits_ask(w, c, what, key) == 0)
		return ADMIT_WAIT;
	input_refuse(w, c, 503, "no_memory");
	return ADMIT_OVER;
}

static enum admit step_limit_address(struct worker *w, struct conn *c, struct admission *a,
				     const struct request *rq)
{
	uint8_t key[16];

	(void)rq;
	if (w->config->limits.per_address == 0 || !a->from.is_known)
		return ADMIT_NEXT;
	address_key(&a->from, key);
	return ask_limit(w, c, UP_LIMIT_ADDRESS, (struct slice){(const char *)key, sizeof(key)});
}

static enum admit step_limit_user(struct worker *w, struct conn *c, struct admission *a,
				  const struct request *rq)
{
	const struct session *s = session_of(w, c);

	(void)a;
	(void)rq;
	if (w->config->limits.per_user == 0 || session_user(w, s).len == 0)
		return ADMIT_NEXT;
	return ask_limit(w, c, UP_LIMIT_USER, session_user(w, s));
}

static enum admit step_prepare(struct worker *w, struct conn *c, struct admission *a,
			       const struct request *rq)
{
	const struct session *s = session_of(w, c);
	int r;

	(void)a;
	(void)rq;
	if (s == NULL || session_user(w, s).len == 0)
		return ADMIT_NEXT;
	c->state = CONN_JOINING;
	r = user_prepare(w, c);
	if (r == -1) {
		input_refuse(w, c, 503, "no_memory");
		return ADMIT_OVER;
	}
	return r == 1 ? ADMIT_NEXT : ADMIT_WAIT;
}

/* What Redis keeps for him is asked for while he is no member yet. */
static enum admit step_kept(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	(void)rq;
	switch (kept_begin(w, c, (struct slice){a->h.room, a->h.room_len})) {
	case KEPT_DONE:
		return ADMIT_NEXT;
	case KEPT_WAIT:
		c->state = CONN_JOINING;
		return ADMIT_WAIT;
	case KEPT_NO_MEMORY:
		break;
	}
	input_refuse(w, c, 503, "no_memory");
	return ADMIT_OVER;
}

static void welcome(struct worker *w, struct conn *c, struct slice answer);

static enum admit step_join(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	char answer[HANDSHAKE_RESPONSE_SIZE];
	size_t len = handshake_response(answer, sizeof(answer), &a->h);
	int joined;

	(void)rq;
	c->state = CONN_JOINING;
	joined = channel_join(w, c, c->ns, (struct slice){a->h.room, a->h.room_len});
	if (joined == 1) {
		welcome(w, c, (struct slice){answer, len});
		return ADMIT_OVER;
	}
	if (joined == -1 || conn_ext(c) == NULL || buf_put(&c->ext->out, answer, len) == -1) {
		input_refuse(w, c, 503, "no_memory");
		return ADMIT_OVER;
	}
	/* channel_subscribed() calls join_done(); nothing else is needed then. */
	admission_free(c->ext->admission);
	c->ext->admission = NULL;
	return ADMIT_OVER;
}

static enum admit (*const steps[])(struct worker *, struct conn *, struct admission *,
				   const struct request *) = {
	step_rate,          step_room,       step_session, step_user, step_auth,
	step_limit_address, step_limit_user, step_prepare, step_kept, step_join};

/* Keep what the rest of the way needs. */
static int keep(struct conn *c, const struct admission *a)
{
	struct conn_ext *x = conn_ext(c);

	if (x == NULL)
		return -1;
	if (x->admission != NULL)
		return 0;
	x->admission = malloc(sizeof(*a));
	if (x->admission == NULL)
		return -1;
	*x->admission = *a;
	return 0;
}

static void run(struct worker *w, struct conn *c, struct admission *a, const struct request *rq)
{
	for (;;) {
		/* Counted first: whoever ends a wait goes on behind the step that waited. */
		switch (steps[a->step++](w, c, a, rq)) {
		case ADMIT_NEXT:
			break;
		case ADMIT_WAIT:
			if (keep(c, a) == -1)
				input_refuse(w, c, 503, "no_memory");
			return;
		case ADMIT_OVER:
			return;
		}
	}
}

void admission_begin(struct worker *w, struct conn *c, struct admission *a, const struct http_parser *p,
		     const char *head, struct slice rest)
{
	const struct request rq = {p, head};
	char id[CONN_ID_SIZE];

	c->ns = (uint16_t)(a->h.ns - w->config->namespaces);
	a->step = 0;
	a->user_len = 0;
	if (a->h.ns->room == CFG_ROOM_CONN) {
		conn_id(w, c, id);
		a->h.room_len = (uint16_t)strlen(id);
		memcpy(a->h.room, id, a->h.room_len + 1u);
	}
	/* Whoever waits for the 101 sends nothing more before it; most have not. */
	if (rest.len > 0 && (conn_ext(c) == NULL || buf_put(&c->ext->in, rest.p, rest.len) == -1)) {
		input_refuse(w, c, 503, "no_memory");
		return;
	}
	run(w, c, a, &rq);
}

void admission_verdict(struct worker *w, struct conn *c, struct identity *who)
{
	struct admission *a = c->ext->admission;

	if (who == NULL)
		refuse_failed(w, c, a);
	else if (judge(w, c, a, who) == ADMIT_NEXT)
		run(w, c, a, NULL);
}

/* The master has said no. One line for each user or address in a while: there may be many. */
static void refuse_over(struct worker *w, struct conn *c, enum up_limit what)
{
	const struct session *s = session_of(w, c);
	struct admission_refusal r = {COUNT_REFUSED_per_user, 429, 1008, {"too many connections", 20}, false};
	const struct address from = session_address(s);
	struct slice key = what == UP_LIMIT_USER ? session_user(w, s)
						 : (struct slice){(const char *)from.ip, sizeof(from.ip)};
	uint32_t n;

	if (what == UP_LIMIT_ADDRESS)
		r.why = COUNT_REFUSED_per_address;
	limits_said(w, (uint16_t)r.why, key, &n);
	r.is_quiet = n == 0;
	admission_refuse(w, c, c->ext->admission, &r);
}

void admission_admitted(struct worker *w, struct conn *c, enum up_limit what, bool may_come)
{
	if (may_come)
		run(w, c, c->ext->admission, NULL);
	else
		refuse_over(w, c, what);
}

void user_prepared(struct worker *w, struct conn *c)
{
	run(w, c, c->ext->admission, NULL);
}

void admission_go_on(struct worker *w, struct conn *c)
{
	run(w, c, c->ext->admission, NULL);
}

void admission_expired(struct worker *w, struct conn *c)
{
	if (c->flags & CONN_PROXY)
		input_refuse_proxy(w, c);
	else if (c->state == CONN_AUTHORIZING)
		refuse_failed(w, c, c->ext->admission);
	else
		input_refuse(w, c, 408, "timeout");
}

void admission_free(struct admission *a)
{
	free(a);
}

/* ---------------------------------------------------------------- OPEN */

/* What a newcomer is told, in this order: the greeting, the hook's frames; ring records follow. 0, or -1: no
 * memory. */
static int first_frames(struct worker *w, struct conn *c, struct buf *out)
{
	const struct session *s = session_of(w, c);

	if (ns_of(w, c)->greeting != NULL && rules_greeting(w, c, out) == -1)
		return -1;
	return ns_of(w, c)->hook_first_frames && s != NULL && s->who != NULL
		       ? identity_put_frames(s->who, out)
		       : 0;
}

/* A member now: the 101 and the first frames in one write, then what the client sent before them. */
static void welcome(struct worker *w, struct conn *c, struct slice answer)
{
	struct buf out = {0}, in = {0}, first = {0};

	if (c->ext != NULL) {
		in = c->ext->in;
		first = c->ext->first;
		c->ext->in = c->ext->first = (struct buf){0};
		admission_free(c->ext->admission);
		c->ext->admission = NULL;
	}
	if (user_join(w, c) == -1 || buf_put(&out, answer.p, answer.len) == -1 ||
	    first_frames(w, c, &out) == -1 ||
	    kept_put(w, c, (struct slice){first.p, first.len}, &out) == -1) {
		input_refuse(w, c, 503, "no_memory");
	} else {
		auth_opened(w, c);
		conn_opened(w, c);
		if (output_first(w, c, &out))
			input_early(w, c, (struct slice){in.p, in.len});
	}
	buf_free(&out);
	buf_free(&in);
	buf_free(&first);
}

void join_done(struct worker *w, struct conn *c)
{
	struct buf answer = c->ext->out;

	c->ext->out = (struct buf){0};
	welcome(w, c, (struct slice){answer.p, answer.len});
	buf_free(&answer);
}
