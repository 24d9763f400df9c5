#include "master/subscribe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define QUEUE_MIN 64u

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
	struct rec h = {.type = REC_SUBSCRIBED, .ns = e->ns, .hash = e->hash, .arg = {is_confirmed ? 0 : 1}};
	struct slice retained = {0};

	/* What came before this record; the worker sees for itself what comes behind it. */
	if (m->seq.retained != NULL &&
	    retained_find(m->seq.retained, e->hash, e->ns, interest_room(e), &h.opcode, &retained))
		h.flags = REC_RETAINED;
	seq_control_payload(&m->seq, reader, &h, interest_room(e), retained);
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
	return !s.sub_up && m->redis_down_ms != 0 &&
	       clock_mono_ms() - m->redis_down_ms >= m->redis_cfg.timeout;
}

/* NULL: there is no memory for it, or the name does not fit. */
static struct redis_sub *subscribe(struct master *m, const struct cfg_namespace *ns, struct interest_entry *e)
{
	char channel[SUBSCRIBE_NAME_MAX + 1];
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

void subscribe_add(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	struct interest_entry *e =
		interest_get(&m->seq.interest, seq_hash(&m->seq, ns->id, room), ns->id, room);

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

void subscribe_drop(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	struct interest_entry *e =
		interest_find(&m->seq.interest, seq_hash(&m->seq, ns->id, room), ns->id, room);

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

void subscribe_sweep(struct master *m, uint64_t buckets)
{
	const struct interest_sweep how = {
		.now_ms = clock_mono_ms(),
		.reclaim = m->seq.ring.reclaim,
		.on_idle = m->redis == NULL ? NULL : linger,
		.arg = m,
	};

	interest_sweep(&m->seq.interest, buckets, &how);
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

void subscribe_confirmed(struct master *m, struct interest_entry *e)
{
	if (e->is_family)
		family_confirmed(m, e->ns);
	else if (e->is_waiting)
		subscribed_all(m, e, true);
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

int subscribe_start(struct master *m)
{
	ev_timer_init(&m->subscribe_timer, on_timer, 0., 0.);
	m->subscribe_timer.data = m;
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (set_family(m, i, m->seq.ns[i]) == -1)
			return -1;
	}
	return 0;
}

void subscribe_stop(struct master *m)
{
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++)
		clear_family(m, i);
	ev_timer_stop(m->loop, &m->subscribe_timer);
	free(m->waits.v);
	free(m->lingers.v);
	m->waits = m->lingers = (struct subscribe_queue){0};
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

void subscribe_set_namespace(struct master *m, uint16_t id, const struct cfg_namespace *ns)
{
	const struct cfg_namespace *before = m->seq.ns[id];
	bool is_moved = m->redis != NULL && before != NULL && (ns == NULL || !is_same_channel(before, ns));

	if (is_moved) {
		clear_family(m, id);
		interest_walk(&m->seq.interest, id, unsubscribe_entry, m);
	}
	m->seq.ns[id] = ns;
	if (set_family(m, id, ns) == -1)
		log_event(LOG_ERROR, "subscribe_failed", "ns=%s msg=\"its Redis channel is not subscribed\"",
			  ns->name);
	if (is_moved && ns != NULL && ns->redis_has_room)
		interest_walk(&m->seq.interest, id, subscribe_entry, m);
}

bool subscribe_is_complete(const struct master *m)
{
	if (m->redis != NULL && !m->was_synced)
		return false;
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (m->family[i] != NULL && !m->was_subscribed[i])
			return false;
	}
	return true;
}
