#include "master/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"
#include "master/drain.h"
#include "master/redis_subs.h"
#include "master/status.h"
#include "shm/uplink.h"

#define CHANNEL_NAME_MAX (2 * CFG_PATH_MAX + CFG_ROOM_MAX)
#define QUEUE_MIN        64u

/* ---- timers: two queues in order of time */

static int queue_grow(struct subscribe_queue *q)
{
	size_t cap = q->cap == 0 ? QUEUE_MIN : q->cap * 2;
	struct subscribe_timer *v = malloc(cap * sizeof(*v));

	if (v == NULL)
		return -1;
	for (size_t i = 0; i < q->n; i++)
		v[i] = q->v[(q->at + i) & (q->cap - 1)];
	free(q->v);
	*q = (struct subscribe_queue){.v = v, .cap = cap, .n = q->n};
	return 0;
}

static int queue_put(struct subscribe_queue *q, struct interest_entry *e, uint64_t due_ms)
{
	if (q->n == q->cap && queue_grow(q) == -1)
		return -1;
	q->v[(q->at + q->n) & (q->cap - 1)] = (struct subscribe_timer){e, due_ms};
	q->n++;
	return 0;
}

static struct subscribe_timer *queue_first(const struct subscribe_queue *q)
{
	return q->n == 0 ? NULL : &q->v[q->at];
}

static void queue_shift(struct subscribe_queue *q)
{
	q->at = (q->at + 1) & (q->cap - 1);
	q->n--;
}

static void arm_timer(struct master *m)
{
	const struct subscribe_timer *wait = queue_first(&m->waits), *linger = queue_first(&m->lingers);
	uint64_t due = UINT64_MAX, now = clock_mono_ms();

	if (wait != NULL)
		due = wait->due_ms;
	if (linger != NULL)
		due = u64_min(due, linger->due_ms);
	ev_timer_stop(m->loop, &m->subscribe_timer);
	if (due == UINT64_MAX)
		return;
	ev_timer_set(&m->subscribe_timer, due <= now ? 0. : (double)(due - now) / 1e3, 0.);
	ev_timer_start(m->loop, &m->subscribe_timer);
}

/* ---- answers to interest */

static void subscribed(struct master *m, uint8_t reader, const struct interest_entry *e, bool is_confirmed)
{
	const struct rec h = {.type = REC_SUBSCRIBED, .ns = e->ns, .hash = e->hash, .arg = {is_confirmed ? 0 : 1}};

	seq_control(&m->seq, reader, &h, interest_room(e));
}

static void subscribed_all(struct master *m, struct interest_entry *e, bool is_confirmed)
{
	const uint8_t *list = interest_readers(e);

	e->is_waiting = false;
	for (unsigned i = 0; i < e->n_readers; i++)
		subscribed(m, list[i], e, is_confirmed);
}

static struct redis_sub *sub_of(const struct master *m, const struct interest_entry *e)
{
	if (m->family[e->ns] != NULL)
		return m->family[e->ns]->sub;
	return e->sub;
}

/* Has the subscriber link been away for so long that waiting for it makes no sense? */
static bool is_redis_down(const struct master *m)
{
	struct redis_stats s;

	redis_get_stats(m->redis, &s);
	return !s.sub_up && m->redis_down_ms != 0 && clock_mono_ms() - m->redis_down_ms >= m->redis_cfg.timeout;
}

/* NULL: there is no memory for it, or the name does not fit. */
static struct redis_sub *subscribe(struct master *m, const struct cfg_namespace *ns, struct interest_entry *e)
{
	char channel[CHANNEL_NAME_MAX + 1];
	struct redis_sub *sub = NULL;

	if (config_redis_channel(ns, interest_room(e), channel, sizeof(channel)) > 0)
		sub = redis_subscribe(m->redis, ns, channel, e);
	if (sub == NULL)
		log_event(LOG_ERROR, "subscribe_failed", "ns=%s errno=%d", ns->name, errno);
	return sub;
}

static void wait_for_redis(struct master *m, struct interest_entry *e)
{
	e->is_waiting = true;
	if (e->has_wait)
		return;
	if (queue_put(&m->waits, e, clock_mono_ms() + m->redis_cfg.subscribe_timeout) == -1) {
		subscribed_all(m, e, false);
		return;
	}
	e->has_wait = true;
	if (m->waits.n == 1)
		arm_timer(m);
}

void relay_add(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	struct interest_entry *e = interest_get(&m->seq.interest, seq_hash(&m->seq, ns->id, room), ns->id, room);

	if (e == NULL || interest_add(e, c->reader) == -1) {
		/* Its clients run into the handshake's deadline. */
		log_event(LOG_ERROR, "no_memory", "ns=%s msg=\"interest in a channel is lost\"", ns->name);
		return;
	}
	if (m->redis == NULL) {
		subscribed(m, c->reader, e, true);
		return;
	}
	if (m->family[ns->id] == NULL && e->sub == NULL)
		e->sub = subscribe(m, ns, e);
	if (sub_of(m, e) == NULL || is_redis_down(m))
		subscribed(m, c->reader, e, sub_of(m, e) != NULL && redis_sub_confirmed(sub_of(m, e)));
	else if (redis_sub_confirmed(sub_of(m, e)))
		subscribed(m, c->reader, e, true);
	else
		wait_for_redis(m, e);
}

/* Nobody wants it any more; e->idle_ms says since when. */
static void linger(void *arg, struct interest_entry *e)
{
	struct master *m = arg;

	e->is_waiting = false;
	if (e->sub == NULL || e->has_linger)
		return;
	if (queue_put(&m->lingers, e, e->idle_ms + m->redis_cfg.unsubscribe_delay) == -1) {
		redis_unsubscribe(m->redis, e->sub);
		e->sub = NULL;
		return;
	}
	e->has_linger = true;
	if (m->lingers.n == 1)
		arm_timer(m);
}

void relay_drop(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	struct interest_entry *e = interest_find(&m->seq.interest, seq_hash(&m->seq, ns->id, room), ns->id, room);

	if (e != NULL && interest_drop(e, c->reader, clock_mono_ms()))
		linger(m, e);
}

static void end_waits(struct master *m, uint64_t now)
{
	struct subscribe_timer *t;

	while ((t = queue_first(&m->waits)) != NULL && t->due_ms <= now) {
		struct interest_entry *e = t->entry;

		queue_shift(&m->waits);
		e->has_wait = false;
		if (e->is_waiting)
			subscribed_all(m, e, false);
	}
}

static void end_lingers(struct master *m, uint64_t now)
{
	struct subscribe_timer *t;

	while ((t = queue_first(&m->lingers)) != NULL && t->due_ms <= now) {
		struct interest_entry *e = t->entry;
		uint64_t due;

		queue_shift(&m->lingers);
		e->has_linger = false;
		if (e->n_readers > 0 || e->sub == NULL)
			continue;
		due = e->idle_ms + m->redis_cfg.unsubscribe_delay;
		if (due > now && queue_put(&m->lingers, e, due) == 0) {
			e->has_linger = true; /* somebody came and went meanwhile */
		} else {
			redis_unsubscribe(m->redis, e->sub);
			e->sub = NULL;
		}
	}
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct master *m = timer->data;
	uint64_t now = clock_mono_ms();

	(void)loop;
	(void)events;
	end_waits(m, now);
	end_lingers(m, now);
	arm_timer(m);
}

void relay_sweep(struct master *m, uint64_t buckets)
{
	const struct interest_sweep how = {
		.now_ms = clock_mono_ms(),
		.reclaim = m->seq.ring.reclaim,
		.on_idle = m->redis == NULL ? NULL : linger,
		.arg = m,
	};

	interest_sweep(&m->seq.interest, buckets, &how);
}

/* ---- publications of workers */

static void answer(struct master *m, uint8_t reader, uint32_t request, enum rec_answer what,
		   const struct seq_outcome *out)
{
	const struct rec h = {.type = REC_ANSWER, .id = request, .seq = out->seq, .arg = {what, out->epoch}};

	if (request & UP_REQUEST_ANSWER)
		seq_control(&m->seq, reader, &h, (struct slice){0});
}

/* The same for a publication that has been to Redis: its worker may be gone. */
static void answer_token(struct master *m, struct redis_token token, enum rec_answer what, const struct seq_outcome *out)
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

static uint64_t max_of(const struct cfg_namespace *ns, uint8_t source)
{
	return source == CFG_SRC_CLIENT ? ns->max_message : ns->max_publication;
}

bool relay_refuses_size(struct master *m, struct child *c, const struct relay_message *msg, uint64_t total)
{
	if (total <= u64_min(max_of(msg->ns, msg->source), m->seq.ring.size / 4))
		return false;
	seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_too_large);
	relay_refuse(m, c, msg, REC_TOO_LARGE);
	return true;
}

static void count_own(struct master *m, const struct relay_message *msg)
{
	struct counters_ns *n = &m->count->ns[msg->ns->id];

	count_add(msg->source == CFG_SRC_CLIENT ? &n->pub_client : &n->pub_api, 1);
}

/* Where all rooms share one Redis channel the payload must name the room, or other hosts could not tell. The first look
 * at the payload is one at a private copy. */
static bool is_routed(struct master *m, struct relay_message *msg)
{
	static char copy[UPLINK_CHUNK];
	static char room[CFG_ROOM_MAX];
	size_t len;

	if (msg->ns->route_key == NULL)
		return (msg->room.len == 0) == (msg->ns->room == CFG_ROOM_NONE);
	if (!msg->is_private) {
		memcpy(copy, msg->payload.p, msg->payload.len);
		msg->payload.p = copy;
		msg->is_private = true;
	}
	len = seq_route(&m->seq, msg->ns, msg->payload, room);
	if (len == 0)
		return false;
	if (msg->room.len > 0 && (msg->room.len != len || memcmp(msg->room.p, room, len) != 0)) {
		seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_no_route);
		return false;
	}
	msg->room = (struct slice){room, len};
	return true;
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

static bool publish_locally(struct master *m, struct child *c, const struct relay_message *msg)
{
	struct seq_message s = {
		.ns = msg->ns,
		.room = msg->room,
		.payload = msg->payload,
		.opcode = msg->opcode,
		.is_trusted = true,
		.max_size = UINT32_MAX,
		.time_ns = clock_mono_ns(),
	};
	struct seq_outcome out;
	enum seq_result r;

	set_publisher(&s, c->slot, c->incarnation, msg->request);
	r = seq_publish(&m->seq, &s, &out);
	if (r == SEQ_FULL) {
		status_ring_full(m);
		return false;
	}
	if (r == SEQ_DONE)
		count_own(m, msg);
	if (c->pid != 0)
		answer(m, c->reader, msg->request, r == SEQ_DONE ? REC_OFF : out.why, &out);
	return true;
}

static bool publish_to_redis(struct master *m, struct child *c, const struct relay_message *msg)
{
	struct interest_entry *e = interest_find(&m->seq.interest, seq_hash(&m->seq, msg->ns->id, msg->room), msg->ns->id,
						 msg->room);
	struct interest_entry *family = m->family[msg->ns->id];
	struct redis_sub *sub = family != NULL ? family->sub : e != NULL ? e->sub : NULL;
	struct redis_token token = {0};
	char channel[CHANNEL_NAME_MAX + 1];

	if (config_redis_channel(msg->ns, msg->room, channel, sizeof(channel)) == 0) {
		relay_refuse(m, c, msg, REC_NO_ROUTE);
		return true;
	}
	if (msg->request != 0)
		token = (struct redis_token){c->slot, c->incarnation, msg->request};
	/* What happens next may happen inside: on_publication() answers for what does not need Redis. */
	if (redis_publish(m->redis, msg->ns, msg->room, channel, sub, msg->opcode, msg->payload, token) == REDIS_FULL) {
		m->is_redis_full = true;
		return false;
	}
	count_own(m, msg);
	return true;
}

bool relay_publish(struct master *m, struct child *c, const struct relay_message *message)
{
	struct relay_message msg = *message;

	if (relay_refuses_size(m, c, &msg, msg.payload.len))
		return true;
	/* Looking into the payload costs more than seeing that it must wait anyway. */
	if (m->seq.is_full || m->is_redis_full)
		return false;
	if (!is_routed(m, &msg)) {
		relay_refuse(m, c, &msg, REC_NO_ROUTE);
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

static struct slice room_of(const struct redis_publication *pub)
{
	const struct interest_entry *owner = pub->sub == NULL ? NULL : pub->sub->owner;

	return owner != NULL && !owner->is_family ? interest_room(owner) : pub->room;
}

static bool on_publication(void *arg, const struct redis_publication *pub)
{
	struct master *m = arg;
	const struct cfg_namespace *ns = pub->ns;
	bool is_own = pub->origin == m->seq.origin;
	struct seq_message s = {
		.ns = ns,
		.payload = pub->payload,
		.opcode = pub->opcode,
		.is_trusted = is_own,
		.origin = pub->origin,
		.id = pub->id,
		.time_ns = pub->time_ns,
	};
	struct seq_outcome out;
	enum seq_result r;

	if (ns == NULL || (pub->origin == 0 && (ns->publish & CFG_SRC_REDIS) == 0))
		return true; /* whoever may PUBLISH to Redis may not speak for a namespace that does not say so */
	drain_control(m); /* why: sequencer.h */
	s.room = room_of(pub);
	/* An own message was checked when it came up; another host's may be one of a client there. */
	s.max_size = pub->origin == 0 ? ns->max_publication : is_own ? UINT32_MAX : (uint32_t)u64_max(ns->max_message, ns->max_publication);
	set_publisher(&s, pub->token.slot, pub->token.incarnation, pub->token.request);
	r = seq_publish(&m->seq, &s, &out);
	if (r == SEQ_FULL) {
		status_ring_full(m);
		return false;
	}
	if (!is_own && r == SEQ_DONE)
		count_add(&m->count->ns[ns->id].pub_redis, 1);
	answer_token(m, pub->token, r == SEQ_DROPPED ? out.why : pub->local ? REC_QUEUED : REC_SENT, &out);
	return true;
}

/* All waiting channels of a family. */
static void family_confirmed(struct master *m, uint16_t ns)
{
	for (size_t i = 0; i < m->waits.n; i++) {
		struct interest_entry *e = m->waits.v[(m->waits.at + i) & (m->waits.cap - 1)].entry;

		if (e->ns == ns && e->is_waiting)
			subscribed_all(m, e, true);
	}
	m->was_subscribed[ns] = true;
}

static void on_subscribed(void *arg, struct redis_sub *sub, void *owner)
{
	struct interest_entry *e = owner;
	struct master *m = arg;

	(void)sub;
	if (e->is_family)
		family_confirmed(m, e->ns);
	else if (e->is_waiting)
		subscribed_all(m, e, true);
}

static void on_published(void *arg, struct redis_token token, bool ok)
{
	const struct seq_outcome none = {0};

	answer_token(arg, token, ok ? REC_SENT : REC_OVERLOADED, &none);
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

/* ---- start, reload, end */

static int set_family(struct master *m, uint16_t id, const struct cfg_namespace *ns)
{
	struct interest_entry *e;

	if (m->redis == NULL || ns == NULL || ns->redis_has_room || m->family[id] != NULL)
		return 0;
	e = interest_family(id);
	if (e == NULL)
		return -1;
	e->sub = subscribe(m, ns, e);
	if (e->sub == NULL) {
		free(e);
		return -1;
	}
	m->family[id] = e;
	m->was_subscribed[id] = false;
	return 0;
}

static void clear_family(struct master *m, uint16_t id)
{
	struct interest_entry *e = m->family[id];

	m->family[id] = NULL;
	if (e == NULL)
		return;
	if (m->redis != NULL)
		redis_unsubscribe(m->redis, e->sub);
	free(e);
}

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
	return copy_string(&dst->url, src->url) == -1 || copy_string(&dst->host, src->host) == -1 ||
			       copy_string(&dst->user, src->user) == -1 ||
			       copy_string(&dst->password, src->password) == -1 ||
			       copy_string(&dst->path, src->path) == -1 || copy_string(&dst->ca_file, src->ca_file) == -1 ?
		       -1 :
		       0;
}

int relay_start(struct master *m)
{
	const struct redis_events events = {
		.arg = m,
		.on_publication = on_publication,
		.on_subscribed = on_subscribed,
		.on_published = on_published,
		.on_state = on_state,
		.on_gap = on_gap,
		.on_room = on_room,
	};

	ev_timer_init(&m->subscribe_timer, on_timer, 0., 0.);
	m->subscribe_timer.data = m;
	if (copy_redis(&m->redis_cfg, &m->generation->config->redis) == -1)
		return -1;
	m->seq.is_local = m->redis_cfg.url == NULL || *m->redis_cfg.url == '\0';
	if (m->seq.is_local)
		return 0;
	m->redis_down_ms = clock_mono_ms();
	m->redis = redis_new(m->loop, &m->redis_cfg, m->seq.origin, &events);
	if (m->redis == NULL)
		return -1;
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (set_family(m, i, m->seq.ns[i]) == -1)
			return -1;
	}
	return 0;
}

void relay_stop(struct master *m)
{
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++)
		clear_family(m, i);
	redis_free(m->redis);
	m->redis = NULL;
	ev_timer_stop(m->loop, &m->subscribe_timer);
	free(m->waits.v);
	free(m->lingers.v);
	config_redis_clear(&m->redis_cfg);
	free(m->redis_cfg.ca_file);
}

static bool is_same_channel(const struct cfg_namespace *a, const struct cfg_namespace *b)
{
	return a->redis_has_room == b->redis_has_room && strcmp(a->redis_prefix, b->redis_prefix) == 0 &&
	       (!a->redis_has_room || strcmp(a->redis_suffix, b->redis_suffix) == 0);
}

static void unsubscribe_entry(void *arg, struct interest_entry *e)
{
	struct master *m = arg;

	if (e->sub == NULL)
		return;
	redis_unsubscribe(m->redis, e->sub);
	e->sub = NULL;
}

static void subscribe_entry(void *arg, struct interest_entry *e)
{
	struct master *m = arg;

	if (e->n_readers > 0 && e->sub == NULL)
		e->sub = subscribe(m, m->seq.ns[e->ns], e);
}

void relay_set_namespace(struct master *m, uint16_t id, const struct cfg_namespace *ns)
{
	const struct cfg_namespace *before = m->seq.ns[id];
	bool is_moved = m->redis != NULL && before != NULL && (ns == NULL || !is_same_channel(before, ns));

	if (is_moved) {
		clear_family(m, id);
		interest_walk(&m->seq.interest, id, unsubscribe_entry, m);
	}
	m->seq.ns[id] = ns;
	if (set_family(m, id, ns) == -1)
		log_event(LOG_ERROR, "subscribe_failed", "ns=%s msg=\"its Redis channel is not subscribed\"", ns->name);
	if (is_moved && ns != NULL && ns->redis_has_room)
		interest_walk(&m->seq.interest, id, subscribe_entry, m);
}

void relay_rebind(struct master *m)
{
	if (m->redis != NULL)
		redis_rebind(m->redis, m->generation->config);
}

static bool is_subscribed(const struct master *m)
{
	if (m->redis != NULL && !m->was_synced)
		return false;
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (m->family[i] != NULL && !m->was_subscribed[i])
			return false;
	}
	return true;
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
	status_redis(m, &s, is_subscribed(m));
}
