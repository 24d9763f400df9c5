/* redis_own.c - own publications: by Redis and back, or to local clients at once. */
#include "master/redis_int.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define PUB_QUEUE_HIGH (256 * 1024u) /* bytes on the publisher link beyond which the list waits */
#define LOG_EVERY_NS   10000000000u  /* for events that may come in masses */

/* ---- leaving the list ---- */

static void published(struct redis *r, struct redis_token token, bool ok)
{
	if (token.request != 0 || token.incarnation != 0 || token.slot != 0)
		r->ev.on_published(r->ev.arg, token, ok);
}

/* The callback comes last: it may publish. */
static void finish(struct redis *r, struct redis_entry *e, bool ok)
{
	struct redis_token token = e->token;
	bool answered = e->flags & ENTRY_DELIVERED;

	redis_pending_remove(&r->pending, e);
	if (!answered)
		published(r, token, ok);
}

static void finish_if_done(struct redis *r, struct redis_entry *e)
{
	if (redis_entry_is_done(e))
		finish(r, e, true);
}

static void sweep(struct redis *r)
{
	struct redis_entry *e = r->pending.head, *next;

	r->sweep = false;
	for (; e != NULL; e = next) {
		next = e->next;
		finish_if_done(r, e);
	}
}

/* ---- local delivery without Redis ---- */

static bool offer_entry(struct redis *r, const struct redis_entry *e)
{
	struct redis_publication pub = {
		.sub = e->sub,
		.ns = r->ns[e->ns],
		.room = redis_entry_room(e),
		.payload = redis_entry_payload(e),
		.opcode = e->opcode,
		.origin = r->origin,
		.id = e->id,
		.time_ns = e->time_ns,
		.local = true,
		.token = e->token,
	};

	return pub.ns == NULL || redis_offer(r, &pub); /* its namespace went at a reload: nobody is there */
}

static void mark_delivered(struct redis *r, struct redis_entry *e)
{
	e->flags = (uint8_t)((e->flags | ENTRY_DELIVERED) & ~ENTRY_WANTED);
	r->last_local = e->id;
}

/* From pending.next_local to local_upto, until the ring is full. An id below the last one given to local
 * clients belongs to a channel that nobody here had confirmed: after later ones it would come out of order.
 */
static void deliver_local(struct redis *r)
{
	struct redis_entry *e;

	if (r->offering || r->blocked)
		return; /* goes on in redis_own_turn(), or when the ring has room */
	while ((e = r->pending.next_local) != NULL && e->id <= r->local_upto) {
		if (e->id > r->last_local) {
			if (!offer_entry(r, e))
				break;
			mark_delivered(r, e);
		}
		r->pending.next_local = e->next;
		finish_if_done(r, e);
	}
	if (e != NULL && e->id > r->local_upto)
		r->pending.next_local = NULL;
}

/* All that local clients do not have yet, up to that id: none may be left out, or its echo would come too
 * late. */
static void start_local(struct redis *r, uint64_t upto)
{
	struct redis_entry *e = r->pending.head;

	if (r->pending.next_local != NULL) {
		r->local_upto = u64_max(r->local_upto, upto);
	} else {
		while (e != NULL && e->id <= r->last_local)
			e = e->next;
		r->pending.next_local = e;
		r->local_upto = upto;
	}
	deliver_local(r);
}

/* ---- the two states ---- */

static bool is_fallback(const struct redis *r)
{
	return !r->synced || !redis_link_is_open(r->pub) || r->holding;
}

void redis_own_update(struct redis *r)
{
	bool fallback = is_fallback(r);

	if (fallback == r->fallback)
		return;
	r->fallback = fallback;
	if (fallback)
		start_local(r, UINT64_MAX);
	else
		r->local_upto = r->last_id; /* a pass that is held up goes on, but what comes now is echoed */
}

static void start_holding(struct redis *r)
{
	if (r->holding)
		return; /* a link that comes and goes must not put it off for ever */
	r->holding = true;
	ev_now_update(r->loop);
	ev_timer_set(&r->hold, r->cfg->resend_delay / 1e3, 0.);
	ev_timer_start(r->loop, &r->hold);
}

static void stop_holding(struct redis *r)
{
	r->holding = false;
	ev_timer_stop(r->loop, &r->hold);
}

/* Answers are matched by order, so what is in flight must have landed before it is sent a second time. */
static void end_holding(struct redis *r)
{
	if (!r->holding || ev_is_active(&r->hold) || r->pending.inflight > 0)
		return;
	r->holding = false;
	redis_pending_rewind(&r->pending);
	redis_own_update(r);
}

static void on_hold(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	end_holding(w->data); /* sent by redis_own_turn(), before the loop sleeps again */
}

void redis_own_pub_open(struct redis *r, bool first)
{
	if (!first)
		start_holding(r);
	redis_own_update(r);
}

void redis_own_pub_lost(struct redis *r)
{
	stop_holding(r);
	redis_pending_mark(&r->pending);
	redis_pending_unsend(&r->pending);
	r->sweep = true;
	redis_own_update(r);
}

void redis_own_sub_lost(struct redis *r)
{
	redis_pending_mark(&r->pending);
	if (redis_link_is_open(r->pub))
		start_holding(r);
	redis_own_update(r);
}

/* ---- to Redis ---- */

static void log_sent(const struct redis_entry *e)
{
	struct slice channel = redis_entry_channel(e);
	struct log_quoted q;

	if (log_on(LOG_DEBUG))
		log_event(LOG_DEBUG, "redis_sent", "channel=%s msg=\"Broadcast sent to Redis\"",
			  log_quote(&q, channel.p, channel.len));
}

void redis_own_pump(struct redis *r)
{
	struct redis_entry *e;

	if (r->holding || !redis_link_is_open(r->pub))
		return;
	while ((e = r->pending.next_send) != NULL && redis_link_queued(r->pub) < PUB_QUEUE_HIGH) {
		if (redis_entry_is_done(e)) { /* its echo came late, from the link that was lost */
			finish(r, e, true);
			continue;
		}
		if (redis_link_put(r->pub, e->cmd, e->cmd_len, 1) == -1)
			return; /* ENOMEM: next turn */
		redis_pending_sent(&r->pending);
		log_sent(e);
	}
}

/* Redis refused it (a right is missing): no echo will come, and sending it again would not help. */
static void refused(struct redis *r, struct redis_entry *e)
{
	r->given_up++;
	e->flags &= (uint8_t)~ENTRY_RESEND;
	if (redis_entry_is_done(e))
		finish(r, e, false);
	else if (!r->fallback)
		start_local(r, e->id); /* finishes it */
}

bool redis_own_replied(struct redis *r, bool ok, uint64_t receivers)
{
	struct redis_entry *e = redis_pending_replied(&r->pending);

	if (e == NULL)
		return false;
	r->replied_id = e->id;
	if (ok && e->token.count != 0)
		r->ev.on_receivers(r->ev.arg, e->token, receivers, e->sub != NULL && e->sub->confirmed);
	if (!ok)
		refused(r, e);
	else
		finish_if_done(r, e);
	end_holding(r);
	return true;
}

/* ---- and back ---- */

/* The order of echoes is the order of sending, so those passed over will not come any more. */
static bool deliver_missed(struct redis *r, uint64_t upto)
{
	log_event(LOG_WARN, "redis_echo_missing", "msg=\"an acknowledged message did not come back\"");
	start_local(r, upto);
	return !r->blocked;
}

static bool offer_echo(struct redis *r, struct redis_sub *sub, const struct redis_form *form,
		       uint64_t time_ns, const struct redis_entry *e)
{
	struct redis_publication pub = {
		.sub = sub,
		.ns = r->ns[sub->ns],
		.payload = form->payload,
		.envelope = form->envelope,
		.opcode = form->opcode,
		.origin = form->origin,
		.id = form->id,
		.time_ns = time_ns,
	};

	if (e != NULL) {
		pub.room = redis_entry_room(e);
		pub.token = e->token;
	}
	return redis_offer(r, &pub);
}

bool redis_own_echo(struct redis *r, struct redis_sub *sub, const struct redis_form *form, uint64_t time_ns)
{
	struct redis_entry *missed, *e;

	deliver_local(r); /* if an earlier pass was held up: those before it come first */
	if (r->blocked)
		return false;
	e = redis_pending_find(&r->pending, form->id, &missed);
	if (form->id <= r->last_local) {
		r->duplicates++;
	} else {
		if (missed != NULL && !deliver_missed(r, form->id - 1))
			return false;
		if (!sub->wanted) /* given up meanwhile, by those before it */
			return true;
		if (!offer_echo(r, sub, form, time_ns, e))
			return false;
		r->last_local = form->id;
		if (e != NULL)
			e->flags |= ENTRY_DELIVERED;
	}
	if (e != NULL) {
		e->flags = (uint8_t)((e->flags | ENTRY_ECHOED) & ~ENTRY_WANTED);
		finish_if_done(r, e);
	}
	return true;
}

void redis_own_sub_ping(struct redis *r)
{
	r->echo_due_id = r->pending.count == 0 ? 0 : r->replied_id;
}

void redis_own_sub_pong(struct redis *r)
{
	struct redis_entry *e = r->pending.head;

	if (r->fallback || r->blocked || r->echo_due_id == 0)
		return;
	while (e != NULL && e->id <= r->echo_due_id && !(e->flags & ENTRY_WANTED))
		e = e->next;
	if (e != NULL && e->id <= r->echo_due_id)
		(void)deliver_missed(r, r->echo_due_id);
}

void redis_own_resume(struct redis *r)
{
	deliver_local(r);
}

void redis_own_unsubscribe(struct redis *r, struct redis_sub *sub)
{
	if (sub->pending == 0)
		return;
	for (struct redis_entry *e = r->pending.head; e != NULL; e = e->next) {
		if (e->sub != sub)
			continue;
		e->sub = NULL;
		e->flags &= (uint8_t)~ENTRY_WANTED;
	}
	sub->pending = 0;
	r->sweep = true;
}

/* ---- back-pressure, and giving up ---- */

static bool has_room(const struct redis *r, uint64_t need)
{
	return r->pending.count == 0 || r->pending.bytes + need <= r->cfg->pending_size;
}

static void tell_room(struct redis *r)
{
	/* Not for every entry that leaves: a quarter of the list must be free. */
	uint64_t need = u64_max(r->full_need, r->cfg->pending_size / 4);

	if (!r->full_told)
		return;
	if (!has_room(r, need) && (redis_link_is_open(r->pub) || r->blocked))
		return;
	r->full_told = false;
	r->ev.on_room(r->ev.arg);
}

static enum redis_result full(struct redis *r, uint64_t need)
{
	r->full_told = true;
	r->full_need = need;
	return REDIS_FULL;
}

static void log_given_up(struct redis *r)
{
	uint64_t now = clock_mono_ns();

	r->given_up++;
	if (r->give_up_logged_ns != 0 && now - r->give_up_logged_ns < LOG_EVERY_NS)
		return;
	r->give_up_logged_ns = now;
	log_event(LOG_WARN, "redis_given_up",
		  "total=%llu msg=\"Redis is away and pending_size is reached: "
		  "messages reach local clients only\"",
		  (unsigned long long)r->given_up);
}

/* The list is full and Redis away: local clients still get it, nobody else will. */
static enum redis_result give_up(struct redis *r, const struct cfg_namespace *ns,
				 const struct redis_entry_spec *spec, uint64_t need)
{
	struct redis_publication pub = {
		.sub = spec->sub,
		.ns = ns,
		.room = spec->room,
		.payload = spec->payload,
		.opcode = spec->opcode,
		.origin = spec->origin,
		.id = spec->id,
		.time_ns = spec->time_ns,
		.local = true,
		.token = spec->token,
	};

	if (r->blocked || r->offering || r->pending.next_local != NULL)
		return full(r, need);
	r->last_id = spec->id;
	if (!redis_offer(r, &pub))
		return full(r, need); /* the id is lost, which nobody minds */
	r->last_local = spec->id;
	log_given_up(r);
	published(r, spec->token, false);
	return REDIS_LOCAL;
}

/* A json text goes to the bare channel: who we are, and which message it is, stand inside. */
static bool sign(struct redis *r, struct redis_entry_spec *spec)
{
	r->signed_text.len = 0;
	if (envelope_sign(&r->signed_text, spec->payload, spec->origin, spec->id, spec->token.asks) == -1)
		return false;
	spec->payload = (struct slice){r->signed_text.p, r->signed_text.len};
	return true;
}

enum redis_result redis_publish(struct redis *r, const struct cfg_namespace *ns, struct slice room,
				const char *channel, struct redis_sub *sub, uint8_t opcode,
				struct slice payload, struct redis_token token)
{
	struct redis_entry_spec spec = {
		.origin = r->origin,
		.id = r->last_id + 1,
		.time_ns = clock_mono_ns(),
		.sub = sub,
		.ns = ns->id,
		.opcode = opcode,
		.channel = channel,
		.room = room,
		.payload = payload,
		.is_bare = ns->envelope == CFG_ENVELOPE_JSON,
		.token = token,
	};
	struct redis_entry *e;
	uint64_t need;

	r->ns[ns->id] = ns;
	if (spec.is_bare && !sign(r, &spec))
		return full(r, ENVELOPE_SIGN_MAX + payload.len);
	need = redis_entry_cost(&spec);
	if (!has_room(r, need))
		return redis_link_is_open(r->pub) ? full(r, need) : give_up(r, ns, &spec, need);
	e = redis_pending_add(&r->pending, &spec);
	if (e == NULL)
		return full(r, need);
	r->last_id = spec.id;
	if (r->fallback || (sub != NULL && sub->confirmed))
		e->flags |= ENTRY_WANTED;
	if (!r->fallback)
		return REDIS_SENT;
	if (r->pending.next_local == NULL)
		r->pending.next_local = e;
	deliver_local(r);
	return REDIS_LOCAL;
}

void redis_own_turn(struct redis *r)
{
	deliver_local(r);
	if (r->sweep)
		sweep(r);
	tell_room(r);
	redis_own_pump(r);
}

void redis_own_init(struct redis *r)
{
	r->fallback = true;
	r->local_upto = UINT64_MAX;
	ev_init(&r->hold, on_hold);
	r->hold.data = r;
}

void redis_own_free(struct redis *r)
{
	ev_timer_stop(r->loop, &r->hold);
	redis_pending_free(&r->pending);
	buf_free(&r->signed_text);
}
