#include "master/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"
#include "master/drain.h"
#include "master/offline.h"
#include "master/delivered.h"
#include "master/reached.h"
#include "master/redis_subs.h"
#include "master/status.h"
#include "master/subscribe.h"
#include "shm/uplink.h"

/* ---- publications of workers */

static void answer(struct master *m, uint8_t reader, uint32_t request, enum rec_answer what,
		   const struct seq_outcome *out)
{
	const struct rec h = {.type = REC_ANSWER, .id = request, .seq = out->seq, .arg = {what, out->epoch}};

	if (request & UP_REQUEST_ANSWER)
		seq_control(&m->seq, reader, &h, (struct slice){0});
}

/* The same for a publication that has been to Redis: its worker may be gone. */
static void answer_token(struct master *m, struct redis_token token, enum rec_answer what,
			 const struct seq_outcome *out)
{
	const struct child *c = &m->child[token.slot % SLOT_MAX];

	if (token.request != 0 && c->pid != 0 && c->incarnation == token.incarnation)
		answer(m, c->reader, token.request, what, out);
}

void relay_refuse(struct master *m, struct child *c, const struct relay_message *msg, enum rec_answer why)
{
	const struct seq_outcome none = {0};

	if (why == REC_OVERLOADED)
		seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_shed);
	if (c->pid != 0)
		answer(m, c->reader, msg->request, why, &none);
}

/* Are these words that a client chose? */
static bool is_clients(const struct relay_message *msg)
{
	return msg->source == CFG_SRC_CLIENT && !msg->is_rule;
}

bool relay_refuses_size(struct master *m, struct child *c, const struct relay_message *msg, uint64_t total)
{
	uint64_t max = is_clients(msg) ? msg->ns->max_message : msg->ns->max_publication;

	if (total <= u64_min(max, m->seq.ring.size / 4))
		return false;
	seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_too_large);
	relay_refuse(m, c, msg, REC_TOO_LARGE);
	return true;
}

static void count_own(struct master *m, const struct relay_message *msg)
{
	struct counters_ns *n = &m->count->ns[msg->ns->id];

	count_add(msg->source == CFG_SRC_CLIENT ? &n->pub_client : &n->pub_api, 1);
	if (msg->envelope != NULL)
		seq_count_skipped(&m->seq, msg->ns, msg->envelope->skipped);
}

/* The first look at a payload is one at a private copy: a worker can write where it stands. */
static void make_private(struct relay_message *msg)
{
	static char copy[UPLINK_CHUNK];

	if (msg->is_private)
		return;
	memcpy(copy, msg->payload.p, msg->payload.len);
	msg->payload.p = copy;
	msg->is_private = true;
}

/* Where all rooms share one Redis channel the payload must name the room, or other hosts could not tell. */
static enum rec_answer route_plain(struct master *m, struct relay_message *msg)
{
	static char room[CFG_ROOM_MAX];
	size_t len;

	if (msg->ns->route_key == NULL) {
		if ((msg->room.len == 0) == (msg->ns->room == CFG_ROOM_NONE))
			return REC_SENT;
		seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_no_route);
		return REC_NO_ROUTE;
	}
	make_private(msg);
	len = seq_route(&m->seq, msg->ns, msg->payload, room);
	if (len == 0)
		return REC_NO_ROUTE;
	if (msg->room.len > 0 && (msg->room.len != len || memcmp(msg->room.p, room, len) != 0)) {
		seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_no_route);
		return REC_NO_ROUTE;
	}
	msg->room = (struct slice){room, len};
	return REC_SENT;
}

/* A client has no say in what is for the server: what it wrote there is gone before anybody looks. */
static void forget_server_keys(const struct cfg_namespace *ns, struct envelope *e)
{
	e->is_targeted = e->has_origin = e->is_asking = false;
	e->n_users = e->n_groups = e->skipped = 0;
	e->ids.len = 0;
	if (ns->route_key != NULL && ns->route_key[0] == '_')
		e->has_room = false;
}

/* The text that others may read, and the room. _rc_ keys are ours alone, whoever publishes. */
static enum rec_answer route_json(struct master *m, struct relay_message *msg)
{
	struct envelope *e = &m->inbound;
	enum rec_answer why;

	make_private(msg);
	e->seed = m->seq.hash_key;
	why = seq_read(&m->seq, msg->ns, msg->payload, e);
	if (why != REC_SENT)
		return why;
	if (is_clients(msg)) {
		forget_server_keys(msg->ns, e);
		msg->payload = e->payload;
	} else if (e->has_own_keys) {
		m->unsigned_text.len = 0;
		if (envelope_unsign(&m->unsigned_text, msg->payload) == -1)
			return REC_OVERLOADED;
		msg->payload = (struct slice){m->unsigned_text.p, m->unsigned_text.len};
	}
	why = seq_judge(&m->seq, msg->ns, msg->room, e, &msg->room);
	if (why == REC_NO_TARGET)
		seq_count_skipped(&m->seq, msg->ns, e->skipped);
	msg->envelope = e;
	msg->opcode = WS_TEXT;
	return why;
}

/* A client's number for its publication is carried by the record; a request for an answer is not. */
static void set_publisher(struct seq_message *s, uint16_t slot, uint32_t incarnation, uint32_t request)
{
	s->slot = REC_ALL;
	if (request == 0 || (request & UP_REQUEST_ANSWER))
		return;
	s->slot = slot;
	s->incarnation = incarnation;
	s->tag = request;
}

/* The publisher asks how many it reached: a number for it, or 0. */
static uint32_t count_number(struct master *m, const struct child *c, const struct relay_message *msg)
{
	uint32_t n;

	if (!msg->wants_count || c->pid == 0 || (msg->request & UP_REQUEST_ANSWER) == 0)
		return 0;
	n = reached_new(m, c->slot, c->incarnation, msg->request);
	if (msg->is_tracked)
		delivered_bind(m, c, msg->request, msg->room, n);
	return n;
}

/* It is not published. */
static void uncount(struct master *m, uint32_t number)
{
	reached_drop(m, number);
	delivered_drop(m, number);
}

static bool publish_locally(struct master *m, struct child *c, const struct relay_message *msg)
{
	struct seq_message s = {
		.ns = msg->ns,
		.room = msg->room,
		.payload = msg->payload,
		.envelope = msg->envelope,
		.opcode = msg->opcode,
		.is_trusted = true,
		.max_size = UINT32_MAX,
		.time_ns = clock_mono_ns(),
		.count = count_number(m, c, msg),
	};
	struct seq_outcome out;
	enum seq_result r;

	s.is_tracked = delivered_is_tracked(m, s.count);
	set_publisher(&s, c->slot, c->incarnation, msg->request);
	r = seq_publish(&m->seq, &s, &out);
	if (r != SEQ_DONE)
		uncount(m, s.count);
	if (r == SEQ_FULL) {
		status_ring_full(m);
		return false;
	}
	if (r == SEQ_DONE)
		count_own(m, msg);
	if (r == SEQ_DONE && reached_begin(m, s.count, out.entry, REC_OFF, &out))
		return true;
	if (c->pid != 0)
		answer(m, c->reader, msg->request, r == SEQ_DONE ? REC_OFF : out.why, &out);
	return true;
}

static bool publish_to_redis(struct master *m, struct child *c, const struct relay_message *msg)
{
	struct interest_entry *e = interest_find(&m->seq.interest, seq_hash(&m->seq, msg->ns->id, msg->room),
						 msg->ns->id, msg->room);
	struct interest_entry *family = m->family[msg->ns->id];
	struct redis_sub *sub = family != NULL ? family->sub : e != NULL ? e->sub : NULL;
	struct redis_token token = {0};
	char channel[SUBSCRIBE_NAME_MAX + 1];

	if (config_redis_channel(msg->ns, msg->room, channel, sizeof(channel)) == 0) {
		relay_refuse(m, c, msg, REC_NO_ROUTE);
		return true;
	}
	if (msg->request != 0)
		token = (struct redis_token){.slot = c->slot,
					     .incarnation = c->incarnation,
					     .request = msg->request,
					     .count = count_number(m, c, msg)};
	token.asks = token.count != 0 && reached_asks_others(m);
	/* What happens next may happen inside: on_publication() answers for what does not need Redis. */
	if (redis_publish(m->redis, msg->ns, msg->room, channel, sub, msg->opcode, msg->payload, token) ==
	    REDIS_FULL) {
		uncount(m, token.count);
		m->is_redis_full = true;
		return false;
	}
	if (token.asks)
		reached_sent(m, token.count, redis_last_id(m->redis), family != NULL);
	count_own(m, msg);
	return true;
}

bool relay_publish(struct master *m, struct child *c, const struct relay_message *message)
{
	struct relay_message msg = *message;
	enum rec_answer why;

	if (relay_refuses_size(m, c, &msg, msg.payload.len))
		return true;
	/* Looking into the payload costs more than seeing that it must wait anyway. */
	if (m->seq.is_full || m->is_redis_full)
		return false;
	why = msg.ns->envelope == CFG_ENVELOPE_JSON ? route_json(m, &msg) : route_plain(m, &msg);
	if (why != REC_SENT) {
		relay_refuse(m, c, &msg, why);
		return true;
	}
	return m->redis == NULL ? publish_locally(m, c, &msg) : publish_to_redis(m, c, &msg);
}

void relay_resume(struct master *m)
{
	if (m->redis != NULL)
		redis_resume(m->redis);
}

/* ---- what Redis says */

/* The room's channel, if it came by a Redis channel of its own. */
static struct interest_entry *entry_of(const struct redis_publication *pub)
{
	struct interest_entry *owner = pub->sub == NULL ? NULL : pub->sub->owner;

	return owner != NULL && !owner->is_family ? owner : NULL;
}

/* What another replica took from a client or the API of its own. */
static uint32_t max_of_replica(const struct cfg_namespace *ns)
{
	uint64_t max = u64_max(ns->max_message, ns->max_publication);

	if (ns->envelope == CFG_ENVELOPE_JSON)
		max += ENVELOPE_SIGN_MAX;
	return (uint32_t)u64_min(max, UINT32_MAX);
}

static bool on_publication(void *arg, const struct redis_publication *pub)
{
	struct master *m = arg;
	const struct cfg_namespace *ns = pub->ns;
	bool is_own = pub->origin == m->seq.origin;
	struct seq_message s = {
		.ns = ns,
		.payload = pub->payload,
		.envelope = pub->envelope,
		.opcode = pub->opcode,
		.is_trusted = is_own,
		.origin = pub->origin,
		.id = pub->id,
		.time_ns = pub->time_ns,
	};
	struct seq_outcome out;
	enum rec_answer what;
	enum seq_result r;

	/* Whoever may PUBLISH to Redis may not speak for a namespace that does not say so. */
	if (ns == NULL || (pub->origin == 0 && (ns->publish & CFG_SRC_REDIS) == 0))
		return true;
	drain_control(m); /* why: sequencer.h */
	s.entry = entry_of(pub);
	s.room = s.entry != NULL ? interest_room(s.entry) : pub->room;
	/* An own message was checked when it came up; another host's may be one of a client there. */
	s.max_size = pub->origin == 0 ? ns->max_publication : is_own ? UINT32_MAX : max_of_replica(ns);
	set_publisher(&s, pub->token.slot, pub->token.incarnation, pub->token.request);
	s.count = pub->is_asking ? reached_new_other(m, pub->origin, pub->id) : pub->token.count;
	s.is_tracked = !pub->is_asking && delivered_is_tracked(m, s.count);
	r = seq_publish(&m->seq, &s, &out);
	if (r == SEQ_FULL) {
		if (pub->is_asking)
			reached_drop(m, s.count);
		status_ring_full(m);
		return false;
	}
	if (!is_own && r == SEQ_DONE)
		count_add(&m->count->ns[ns->id].pub_redis, 1);
	what = r == SEQ_DROPPED ? out.why : pub->local ? REC_QUEUED : REC_SENT;
	if (!reached_begin(m, s.count, out.entry, what, &out))
		answer_token(m, pub->token, what, &out);
	if (r == SEQ_DONE && ns->offline_max > 0 && ns->envelope == CFG_ENVELOPE_JSON)
		offline_publication(m, ns, pub->origin,
				    pub->envelope != NULL ? pub->envelope : &m->seq.envelope);
	return true;
}

static void on_subscribed(void *arg, struct redis_sub *sub, void *owner)
{
	(void)sub;
	subscribe_confirmed(arg, owner);
}

static void on_published(void *arg, struct redis_token token, bool ok)
{
	const struct seq_outcome none = {0};

	if (ok && reached_begin(arg, token.count, NULL, REC_SENT, &none))
		return;
	if (!ok)
		uncount(arg, token.count);
	answer_token(arg, token, ok ? REC_SENT : REC_OVERLOADED, &none);
}

static void on_receivers(void *arg, struct redis_token token, uint64_t receivers, bool is_own)
{
	reached_receivers(arg, token.count, receivers, is_own);
}

static void on_state(void *arg, bool up)
{
	struct master *m = arg;

	log_event(up ? LOG_INFO : LOG_WARN, up ? "redis_up" : "redis_down", NULL);
	relay_tick(m, clock_mono_ms());
}

static void on_gap(void *arg)
{
	struct master *m = arg;

	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		const struct rec h = {.type = REC_GAP, .ns = i};

		if (m->seq.ns[i] != NULL && m->seq.ns[i]->on_gap_close)
			seq_control_all(&m->seq, &h);
	}
}

static void on_room(void *arg)
{
	struct master *m = arg;

	m->is_redis_full = false; /* the look before the loop blocks finds what waits */
}

/* ---- what the other parts of the master do with Redis */

struct relay_table {
	struct {
		const char *channel;
		relay_internal_fn *fn;
		void *arg;
	} internal[RELAY_INTERNAL_MAX];
	struct redis_cmd_events watch[RELAY_WATCH_MAX];
	unsigned n_internal, n_watch;
};

static struct relay_table *table(struct master *m)
{
	if (m->relay == NULL)
		m->relay = calloc(1, sizeof(*m->relay));
	return m->relay;
}

int relay_listen(struct master *m, const char *channel, relay_internal_fn *fn, void *arg)
{
	struct relay_table *t = table(m);

	if (t == NULL)
		return -1;
	if (t->n_internal == RELAY_INTERNAL_MAX) {
		errno = ENOSPC;
		return -1;
	}
	if (m->redis != NULL && redis_listen(m->redis, channel) == -1)
		return -1;
	t->internal[t->n_internal].channel = channel;
	t->internal[t->n_internal].fn = fn;
	t->internal[t->n_internal++].arg = arg;
	return 0;
}

int relay_watch(struct master *m, const struct redis_cmd_events *ev)
{
	struct relay_table *t = table(m);

	if (t == NULL)
		return -1;
	if (t->n_watch == RELAY_WATCH_MAX) {
		errno = ENOSPC;
		return -1;
	}
	t->watch[t->n_watch++] = *ev;
	return 0;
}

static void on_internal(void *arg, struct slice channel, struct slice payload)
{
	struct master *m = arg;
	struct relay_table *t = m->relay;

	for (unsigned i = 0; i < t->n_internal; i++)
		if (strlen(t->internal[i].channel) == channel.len &&
		    memcmp(t->internal[i].channel, channel.p, channel.len) == 0)
			t->internal[i].fn(t->internal[i].arg, channel, payload);
}

static void on_master(void *arg, const char *host, uint16_t port)
{
	struct master *m = arg;

	redis_cmd_follow(m->cmd, host, port);
}

static void on_cmd_open(void *arg)
{
	struct master *m = arg;

	for (unsigned i = 0; m->relay != NULL && i < m->relay->n_watch; i++)
		if (m->relay->watch[i].open != NULL)
			m->relay->watch[i].open(m->relay->watch[i].arg);
}

static void on_cmd_lost(void *arg)
{
	struct master *m = arg;

	for (unsigned i = 0; m->relay != NULL && i < m->relay->n_watch; i++)
		if (m->relay->watch[i].lost != NULL)
			m->relay->watch[i].lost(m->relay->watch[i].arg);
}

/* ---- start, end, upkeep */

/* Strings that the Redis side borrows for its life; a configuration lives only until the next reload. */
static int copy_string(char **dst, const char *src)
{
	*dst = src == NULL ? NULL : strdup(src);
	return src != NULL && *dst == NULL ? -1 : 0;
}

static int copy_redis(struct cfg_redis *dst, const struct cfg_redis *src)
{
	*dst = *src;
	dst->url = dst->host = dst->user = dst->password = dst->path = dst->ca_file = NULL;
	dst->sentinel_name = NULL;
	for (unsigned i = 0; i < dst->n_sentinels; i++)
		dst->sentinels[i].host = NULL;
	for (unsigned i = 0; i < dst->n_sentinels; i++)
		if (copy_string(&dst->sentinels[i].host, src->sentinels[i].host) == -1)
			return -1;
	return copy_string(&dst->url, src->url) == -1 || copy_string(&dst->host, src->host) == -1 ||
			       copy_string(&dst->user, src->user) == -1 ||
			       copy_string(&dst->password, src->password) == -1 ||
			       copy_string(&dst->path, src->path) == -1 ||
			       copy_string(&dst->ca_file, src->ca_file) == -1 ||
			       copy_string(&dst->sentinel_name, src->sentinel_name) == -1
		       ? -1
		       : 0;
}

static int start_links(struct master *m)
{
	const struct redis_cmd_events cmd = {.arg = m, .open = on_cmd_open, .lost = on_cmd_lost};
	const struct redis_events events = {
		.arg = m,
		.on_publication = on_publication,
		.on_subscribed = on_subscribed,
		.on_published = on_published,
		.on_receivers = on_receivers,
		.on_state = on_state,
		.on_gap = on_gap,
		.on_room = on_room,
		.on_internal = on_internal,
		.on_master = on_master,
	};

	m->redis_down_ms = clock_mono_ms();
	m->redis = redis_new(m->loop, &m->redis_cfg, m->seq.origin, &events);
	m->cmd = redis_cmd_new(m->loop, &m->redis_cfg, &cmd);
	if (m->redis == NULL || m->cmd == NULL)
		return -1;
	for (unsigned i = 0; m->relay != NULL && i < m->relay->n_internal; i++)
		if (redis_listen(m->redis, m->relay->internal[i].channel) == -1)
			return -1;
	return 0;
}

int relay_start(struct master *m)
{
	if (copy_redis(&m->redis_cfg, &m->generation->config->redis) == -1)
		return -1;
	m->seq.is_local = m->redis_cfg.url == NULL || *m->redis_cfg.url == '\0';
	if (!m->seq.is_local && start_links(m) == -1)
		return -1;
	return subscribe_start(m);
}

void relay_stop(struct master *m)
{
	subscribe_stop(m);
	redis_cmd_free(m->cmd);
	m->cmd = NULL;
	redis_free(m->redis);
	m->redis = NULL;
	free(m->relay);
	m->relay = NULL;
	config_redis_clear(&m->redis_cfg);
	free(m->redis_cfg.ca_file);
}

void relay_rebind(struct master *m)
{
	bool keep[CFG_MAX_NAMESPACES];

	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++)
		keep[i] = m->seq.ns[i] != NULL && m->seq.ns[i]->retain == CFG_RETAIN_LAST;
	retained_only(m->seq.retained, keep);
	if (m->redis != NULL)
		redis_rebind(m->redis, m->generation->config);
}

void relay_tick(struct master *m, uint64_t now_ms)
{
	struct redis_stats s = {0};

	if (m->redis != NULL) {
		redis_get_stats(m->redis, &s);
		m->was_synced = m->was_synced || s.sub_up;
		if (s.sub_up)
			m->redis_down_ms = 0;
		else if (m->redis_down_ms == 0)
			m->redis_down_ms = now_ms;
	}
	status_redis(m, &s, subscribe_is_complete(m));
}
