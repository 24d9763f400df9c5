/* redis.c - the two links put together: subscriptions, incoming messages, state. */
#include "master/redis_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"

#define BULK_MIN   (16u << 20) /* the largest publication that a namespace may allow by default */
#define BULK_SLACK (64u << 10)

/* ---- incoming messages ---- */

bool redis_offer(struct redis *r, const struct redis_publication *pub)
{
	bool taken;

	/* The sequencer may look after its interest first, and unsubscribe the very channel. */
	r->offering = true;
	redis_subs_pin(pub->sub);
	taken = r->ev.on_publication(r->ev.arg, pub);
	redis_subs_unpin(&r->subs, pub->sub);
	r->offering = false;
	if (likely(taken))
		return true;
	r->blocked = true;
	redis_link_pause(r->sub);
	return false;
}

static bool offer_foreign(struct redis *r, struct redis_sub *sub, struct slice payload,
			  const struct envelope *envelope, uint64_t time_ns)
{
	struct redis_publication pub = {
		.sub = sub,
		.ns = r->ns[sub->ns],
		.payload = payload,
		.envelope = envelope,
		.time_ns = time_ns,
	};

	return redis_offer(r, &pub);
}

/* Of another replica. */
static bool offer_replica(struct redis *r, struct redis_sub *sub, const struct redis_form *form,
			  uint64_t time_ns)
{
	struct redis_publication pub = {
		.sub = sub,
		.ns = r->ns[sub->ns],
		.payload = form->payload,
		.envelope = form->envelope,
		.opcode = form->opcode,
		.origin = form->origin,
		.id = form->id,
		.is_asking = form->is_asking,
		.time_ns = time_ns,
	};

	if (form->id <= redis_origins_last(r->origins, form->origin)) {
		r->duplicates++;
		return true;
	}
	if (!redis_offer(r, &pub))
		return false;
	redis_origins_heard(r->origins, form->origin, form->id);
	return true;
}

/* Of another replica, or an echo. */
static bool offer_own_form(struct redis *r, struct redis_sub *sub, struct slice bytes, uint64_t time_ns)
{
	struct redis_form form;

	if (!redis_form_get(&form, bytes.p, bytes.len) ||
	    (form.origin == r->origin && form.id > r->last_id)) {
		r->bad_form++;
		return true;
	}
	return form.origin == r->origin ? redis_own_echo(r, sub, &form, time_ns)
					: offer_replica(r, sub, &form, time_ns);
}

/* On the bare channel of a json namespace: anybody's. What is too large is not even read; what is no object,
 * or has keys of ours that are not just so, is foreign, and the sequencer's to judge. */
static bool offer_json(struct redis *r, struct redis_sub *sub, struct slice text, uint64_t time_ns)
{
	const struct cfg_namespace *ns = r->ns[sub->ns];
	struct envelope *e = &r->envelope;
	struct redis_form form = {.opcode = WS_TEXT, .payload = text, .envelope = e};

	if (text.len > u64_max(ns->max_publication, ns->max_message) + (uint64_t)ENVELOPE_SIGN_MAX ||
	    envelope_read(e, text, ns->route_key) != ENVELOPE_OK)
		return offer_foreign(r, sub, text, NULL, time_ns);
	form.origin = e->origin;
	form.id = e->id;
	form.is_asking = e->is_asking;
	if (!e->has_origin || (form.origin == r->origin && form.id > r->last_id))
		return offer_foreign(r, sub, text, e, time_ns);
	return form.origin == r->origin ? redis_own_echo(r, sub, &form, time_ns)
					: offer_replica(r, sub, &form, time_ns);
}

static bool offer_message(struct redis *r, struct redis_sub *sub, bool is_own_form, struct slice bytes,
			  uint64_t time_ns)
{
	const struct cfg_namespace *ns = r->ns[sub->ns];

	if (is_own_form)
		return offer_own_form(r, sub, bytes, time_ns);
	if (ns != NULL && ns->envelope == CFG_ENVELOPE_JSON)
		return offer_json(r, sub, bytes, time_ns);
	return offer_foreign(r, sub, bytes, NULL, time_ns);
}

/* The reader's memory is its own: the one message that the ring did not take is copied. */
static void park(struct redis *r, struct redis_sub *sub, bool is_own_form, struct slice bytes,
		 uint64_t time_ns)
{
	char *copy;

	assert(r->parked.p == NULL);
	if (!sub->wanted)
		return; /* it was given up from within the offer */
	copy = malloc(bytes.len == 0 ? 1 : bytes.len);
	if (copy == NULL) {
		redis_link_drop(r->sub, "memory");
		return;
	}
	if (bytes.len > 0)
		memcpy(copy, bytes.p, bytes.len);
	r->parked = (struct redis_parked){copy, bytes.len, sub, time_ns, is_own_form};
}

static void unpark(struct redis *r)
{
	free(r->parked.p);
	r->parked = (struct redis_parked){0};
}

/* false = still blocked. While it is offered it is nobody's: its channel may go from within. */
static bool offer_parked(struct redis *r)
{
	struct redis_parked p = r->parked;
	bool taken;

	if (p.p == NULL)
		return true;
	r->parked = (struct redis_parked){0};
	redis_subs_pin(p.sub);
	taken = offer_message(r, p.sub, p.is_own_form, (struct slice){p.p, p.len}, p.time_ns);
	if (taken || !p.sub->wanted)
		free(p.p);
	else
		r->parked = p;
	redis_subs_unpin(&r->subs, p.sub);
	return taken;
}

static bool take_payload(struct redis *r, struct slice bytes)
{
#ifdef FUZZ_PLANT_BUG
	struct redis_sub *sub = r->subs.last; /* was a bug once: the table may have been used since */
#else
	struct redis_sub *sub = r->subs.reading;
#endif
	uint64_t now = redis_link_read_ns(r->sub);

	if (sub == NULL || !sub->wanted)
		return true; /* a channel on its way out */
	if (unlikely(sub->is_internal)) {
		r->ev.on_internal(r->ev.arg, (struct slice){sub->name, sub->len}, bytes);
		return true;
	}
	r->messages_in++;
	r->bytes_in += bytes.len;
	redis_subs_pin(sub);
	if (unlikely(!offer_message(r, sub, r->push_own_form, bytes, now)))
		park(r, sub, r->push_own_form, bytes, now);
	redis_subs_unpin(&r->subs, sub);
	return true;
}

/* ---- what the subscriber link says ---- */

static bool is_word(const struct redis_item *it, const char *word, size_t len)
{
	return it->len == len && memcmp(it->p, word, len) == 0;
}

static enum redis_push push_kind(const struct redis_item *it)
{
	if (likely(is_word(it, "message", 7)))
		return PUSH_MESSAGE;
	if (is_word(it, "subscribe", 9) || is_word(it, "unsubscribe", 11))
		return PUSH_CONFIRM;
	return is_word(it, "pong", 4) ? PUSH_PONG : PUSH_UNKNOWN;
}

/* A Redis channel's name to the entry it belongs to: its bare name. */
static struct slice bare_name(const struct redis_item *it, bool *is_own_form)
{
	struct slice name = {it->p, it->len};

	*is_own_form = it->len >= REDIS_META_PREFIX_LEN &&
		       memcmp(it->p, REDIS_META_PREFIX, REDIS_META_PREFIX_LEN) == 0;
	if (*is_own_form) {
		name.p += REDIS_META_PREFIX_LEN;
		name.len -= REDIS_META_PREFIX_LEN;
	}
	return name;
}

static void look_up_channel(struct redis *r, const struct redis_item *it)
{
	struct slice name = bare_name(it, &r->push_own_form);

	/* The payload may come turns later: subs.last will not do. */
	r->subs.reading = redis_subs_find(&r->subs, name.p, name.len);
}

static void check_synced(struct redis *r);

static bool take_confirmation(struct redis *r, const struct redis_item *it)
{
	struct slice name;
	bool is_own_form;

	if (it->type == REDIS_REPLY_NIL)
		return true; /* "unsubscribe" of nothing */
	name = bare_name(it, &is_own_form);
	redis_subs_reply(&r->subs, name.p, name.len);
	check_synced(r);
	return true;
}

static bool on_item(void *arg, const struct redis_item *it)
{
	struct redis *r = arg;
	bool is_string = it->type == REDIS_REPLY_STRING;

	if (it->idx == 0) {
		r->push = is_string ? push_kind(it) : PUSH_UNKNOWN;
		return r->push != PUSH_UNKNOWN && it->elements == (r->push == PUSH_PONG ? 2 : 3);
	}
	if (r->push == PUSH_MESSAGE) {
		if (!is_string)
			return false;
		if (it->idx == 2)
			return take_payload(r, (struct slice){it->p, it->len});
		look_up_channel(r, it);
		return true;
	}
	if (r->push == PUSH_PONG) {
		redis_link_pong(r->sub);
		return is_string;
	}
	if (it->idx == 1)
		return (is_string || it->type == REDIS_REPLY_NIL) && take_confirmation(r, it);
	return it->type == REDIS_REPLY_INTEGER;
}

/* No command of this link is answered outside of pushes. */
static bool on_sub_reply(void *arg, int type, const char *word)
{
	(void)arg;
	(void)type;
	(void)word;
	return false;
}

/* ---- state ---- */

static void tell_state(struct redis *r)
{
	bool up = r->synced && redis_link_is_open(r->pub);

	if (up == r->up_told)
		return;
	r->up_told = up;
	r->ev.on_state(r->ev.arg, up);
}

static void check_synced(struct redis *r)
{
	if (r->synced || !redis_subs_is_synced(&r->subs))
		return;
	r->synced = true;
	log_event(LOG_INFO, "redis_synced", "total=%zu msg=\"subscribed to all Redis channels\"",
		  redis_subs_channels(&r->subs));
	redis_own_update(r);
	tell_state(r);
}

static void on_confirmed(void *arg, struct redis_sub *sub)
{
	struct redis *r = arg;
	const struct cfg_namespace *ns = r->ns[sub->ns];
	enum log_level level =
		ns != NULL && ns->redis_has_room ? LOG_DEBUG : LOG_INFO; /* rooms come in masses */
	struct log_quoted q;

	if (log_on(level))
		log_event(level, "redis_subscribed", "channel=%s msg=\"subscribed to Redis channel\"",
			  log_quote(&q, sub->name, sub->len));
	r->ev.on_subscribed(r->ev.arg, sub, sub->owner);
}

static void write_subs(struct redis *r)
{
	if (!redis_link_is_open(r->sub))
		return;
	if (redis_subs_write(&r->subs, r->sub) == -1)
		redis_link_drop(r->sub, "memory");
	else
		check_synced(r); /* the last one missing may have been unsubscribed */
}

static void on_sub_open(void *arg)
{
	struct redis *r = arg;

	if (redis_subs_open(&r->subs) == -1)
		redis_link_drop(r->sub, "memory"); /* sent by on_prepare() */
}

static void on_sub_lost(void *arg, const char *reason)
{
	struct redis *r = arg;
	bool was_synced = r->synced;

	(void)reason;
	r->synced = false;
	r->push = PUSH_UNKNOWN;
	redis_subs_lost(&r->subs);
	if (was_synced) {
		r->gaps++;
		log_event(LOG_WARN, "redis_gap", "total=%llu msg=\"messages of others may have been missed\"",
			  (unsigned long long)r->gaps);
		r->ev.on_gap(r->ev.arg);
	}
	redis_own_sub_lost(r);
	tell_state(r);
}

static void on_sub_drained(void *arg)
{
	write_subs(arg);
}

static void on_sub_ping(void *arg)
{
	redis_own_sub_ping(arg);
}

static void on_sub_pong(void *arg)
{
	redis_own_sub_pong(arg);
}

static bool on_no_item(void *arg, const struct redis_item *it)
{
	(void)arg;
	(void)it;
	return false;
}

static void on_pub_open(void *arg)
{
	struct redis *r = arg;
	struct redis_link_stats s;

	redis_link_get_stats(r->pub, &s);
	redis_own_pub_open(r, s.opened == 1 && s.failed == 0);
	tell_state(r);
}

static void on_pub_lost(void *arg, const char *reason)
{
	struct redis *r = arg;

	redis_own_pub_lost(r);
	tell_state(r);
	if (strcmp(reason, "replica") == 0)
		redis_link_drop(r->sub, reason); /* it can't see for itself */
}

static void on_master(void *arg, const char *host, uint16_t port)
{
	struct redis *r = arg;

	redis_link_follow(r->sub, host, port);
	redis_link_follow(r->pub, host, port);
	if (r->ev.on_master != NULL)
		r->ev.on_master(r->ev.arg, host, port);
}

static bool on_pub_reply(void *arg, int type, const char *word)
{
	struct log_quoted q;

	if (type == REDIS_REPLY_ERROR)
		log_event(LOG_WARN, "redis_refused", "reason=%s msg=\"Redis refused a PUBLISH\"",
			  log_quote(&q, word, strlen(word)));
	return redis_own_replied(arg, type == REDIS_REPLY_INTEGER,
				 (uint64_t)redis_link_integer(((struct redis *)arg)->pub));
}

static void on_pub_drained(void *arg)
{
	redis_own_pump(arg);
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct redis *r = w->data;

	(void)loop;
	(void)revents;
	write_subs(r);
	redis_own_turn(r);
	redis_link_flush(r->sub);
	redis_link_flush(r->pub);
}

/* ---- the interface ---- */

static void allow_bulk(struct redis *r, size_t publication)
{
	r->max_bulk = u64_max(r->max_bulk, publication);
	redis_link_set_max_bulk(r->sub, r->max_bulk + BULK_SLACK);
}

static void set_namespace(struct redis *r, const struct cfg_namespace *ns)
{
	r->ns[ns->id] = ns;
	allow_bulk(r, u64_max(ns->max_publication, ns->max_message));
}

struct redis_sub *redis_subscribe(struct redis *r, const struct cfg_namespace *ns, const char *channel,
				  void *owner)
{
	set_namespace(r, ns);
	return redis_subs_want(&r->subs, ns->id, channel, owner);
}

int redis_listen(struct redis *r, const char *channel)
{
	return redis_subs_listen(&r->subs, channel);
}

void redis_unsubscribe(struct redis *r, struct redis_sub *sub)
{
	redis_own_unsubscribe(r, sub);
	if (r->parked.sub == sub)
		unpark(r); /* still blocked: redis_resume() will come */
	if (redis_subs_unwant(&r->subs, sub) == -1)
		redis_link_drop(r->sub, "memory");
}

bool redis_sub_confirmed(const struct redis_sub *sub)
{
	return sub->confirmed;
}

void redis_resume(struct redis *r)
{
	if (!r->blocked || r->offering)
		return;
	r->blocked = false;
	if (!offer_parked(r))
		return;
	redis_own_resume(r);
	if (!r->blocked)
		redis_link_resume(r->sub);
}

void redis_rebind(struct redis *r, const struct config *cfg)
{
	memset(r->ns, 0, sizeof(r->ns));
	for (size_t i = 0; i < cfg->n_namespaces; i++)
		set_namespace(r, &cfg->namespaces[i]);
}

bool redis_is_up(const struct redis *r)
{
	return r->up_told;
}

uint64_t redis_last_id(const struct redis *r)
{
	return r->last_id;
}

void redis_get_stats(const struct redis *r, struct redis_stats *out)
{
	struct redis_link_stats s, p;

	redis_link_get_stats(r->sub, &s);
	redis_link_get_stats(r->pub, &p);
	*out = (struct redis_stats){
		.sub_up = r->synced,
		.pub_up = redis_link_is_open(r->pub),
		.up = r->up_told,
		.channels = (uint32_t)redis_subs_channels(&r->subs),
		.rtt_us = p.rtt_us,
		.reconnects = s.opened + p.opened - (s.opened > 0) - (p.opened > 0),
		.gaps = r->gaps,
		.pending_messages = r->pending.count,
		.pending_bytes = r->pending.bytes,
		.messages_in = r->messages_in,
		.bytes_in = r->bytes_in,
		.duplicates = r->duplicates,
		.given_up = r->given_up,
		.bad_form = r->bad_form + s.bad_form + p.bad_form,
	};
	redis_link_address(r->pub, out->address, sizeof(out->address));
}

static int make_links(struct redis *r)
{
	struct redis_link_events sub = {
		.arg = r,
		.open = on_sub_open,
		.lost = on_sub_lost,
		.item = on_item,
		.reply = on_sub_reply,
		.drained = on_sub_drained,
		.ping = on_sub_ping,
		.pong = on_sub_pong,
	};
	struct redis_link_events pub = {
		.arg = r,
		.open = on_pub_open,
		.lost = on_pub_lost,
		.item = on_no_item,
		.reply = on_pub_reply,
		.drained = on_pub_drained,
	};

	r->sub = redis_link_new(r->loop, r->cfg, REDIS_LINK_SUB, &sub);
	r->pub = redis_link_new(r->loop, r->cfg, REDIS_LINK_PUB, &pub);
	if (r->sub == NULL || r->pub == NULL)
		return -1;
	if (r->cfg->n_sentinels > 0 && (r->watch = redis_watch_new(r->loop, r->cfg, on_master, r)) == NULL)
		return -1;
	allow_bulk(r, BULK_MIN);
	return 0;
}

struct redis *redis_new(struct ev_loop *loop, const struct cfg_redis *cfg, uint64_t origin,
			const struct redis_events *ev)
{
	struct redis *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->loop = loop;
	r->cfg = cfg;
	r->origin = origin;
	r->envelope.seed = clock_mono_ns() ^ origin;
	r->ev = *ev;
	r->subs.on_confirmed = on_confirmed;
	r->subs.arg = r;
	redis_own_init(r);
	ev_prepare_init(&r->prepare, on_prepare);
	ev_set_priority(&r->prepare, EV_MINPRI); /* after all others of the turn */
	r->prepare.data = r;
	r->origins = redis_origins_new();
	if (r->origins == NULL || make_links(r) == -1) {
		redis_free(r);
		return NULL;
	}
	ev_prepare_start(loop, &r->prepare);
	return r;
}

void redis_free(struct redis *r)
{
	if (r == NULL)
		return;
	ev_prepare_stop(r->loop, &r->prepare);
	redis_watch_free(r->watch);
	redis_link_free(r->sub);
	redis_link_free(r->pub);
	redis_own_free(r);
	redis_subs_free(&r->subs);
	redis_origins_free(r->origins);
	envelope_free(&r->envelope);
	unpark(r);
	free(r);
}
