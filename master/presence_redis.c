#include "master/presence_redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/redis_cmd.h"
#include "master/relay.h"

#define WRITE_S      0.05 /* a change and what follows it within that time are one batch */
#define WRITE_MORE_S 0.01
#define BATCH        256u /* members of one EVAL */
#define BATCHES      16u  /* of them in a turn of the loop */
#define LOG_EVERY_MS 10000u

/* KEYS[1]; ARGV: lease in ms, "1" = begin anew, how many leave, those, those who come. */
static const char script[] = "local k,n=KEYS[1],tonumber(ARGV[3]) "
			     "if ARGV[2]=='1' then redis.call('DEL',k) end "
			     "if n>0 then redis.call('ZREM',k,unpack(ARGV,4,3+n)) end "
			     "local a={} "
			     "for i=4+n,#ARGV do a[#a+1]=0 a[#a+1]=ARGV[i] end "
			     "if #a>0 then redis.call('ZADD',k,unpack(a)) end "
			     "return redis.call('PEXPIRE',k,ARGV[1])";

struct sync_ns {
	struct presence_sync *sync;
	uint16_t ns;
	bool is_fresh;  /* what Redis has under the key is not ours any more: the next batch deletes it */
	bool is_kept;   /* something may be there */
	bool is_failed; /* Redis refused something: all anew at the next renewal */
};

struct presence_sync {
	struct master *m;
	ev_timer timer;
	bool is_open;
	uint64_t renew_ms, logged_ms;
	struct sync_ns ns[CFG_MAX_NAMESPACES];
	struct batch {
		struct presence_member *member[BATCH];
		struct slice rem[BATCH], add[BATCH];
		unsigned n, n_rem, n_add;
		struct buf text;
	} batch;
};

/* ---- the form */

void presence_redis_key(char dst[PRESENCE_KEY_MAX], uint64_t node, const char *ns)
{
	snprintf(dst, PRESENCE_KEY_MAX, CFG_OWN_PREFIX "presence:%016" PRIx64 ":%s", node, ns);
}

static size_t put_member(char *dst, const struct presence_member *m, uint32_t sockets)
{
	char *p = dst;

	memcpy(p, m->place->room, m->place->room_len);
	p += m->place->room_len;
	*p++ = '\0';
	memcpy(p, m->user, m->user_len);
	p += m->user_len;
	*p++ = '\0';
	return (size_t)(p - dst) + (size_t)snprintf(p, 11, "%" PRIu32, sockets);
}

/* No room has a NUL, no number has; a user may. */
bool presence_redis_read(struct slice text, struct slice *room, struct slice *user, uint32_t *sockets)
{
	const char *a = memchr(text.p, '\0', text.len), *end = text.p + text.len;
	const char *b = memrchr(text.p, '\0', text.len);
	uint64_t n = 0;

	if (a == NULL || a == b || b + 1 == end || end - b > 11)
		return false;
	for (const char *p = b + 1; p < end; p++) {
		if (*p < '0' || *p > '9')
			return false;
		n = n * 10 + (uint64_t)(*p - '0');
	}
	*room = (struct slice){text.p, (size_t)(a - text.p)};
	*user = (struct slice){a + 1, (size_t)(b - a - 1)};
	*sockets = (uint32_t)n;
	return room->len <= CFG_ROOM_MAX && user->len > 0 && user->len <= PRESENCE_USER_MAX && n > 0 &&
	       n <= UINT32_MAX;
}

/* ---- what Redis answers */

static void refused(struct sync_ns *n, const redisReply *reply)
{
	struct presence_sync *s = n->sync;
	uint64_t now = clock_mono_ms();
	struct log_quoted q;

	n->is_failed = true;
	count_add(&s->m->count->presence_refused, 1);
	if (s->logged_ms != 0 && now - s->logged_ms < LOG_EVERY_MS)
		return;
	s->logged_ms = now;
	log_event(LOG_WARN, "presence_refused", "ns=%s reason=%s msg=\"Redis does not keep who is online\"",
		  s->m->globals->namespaces[n->ns], log_quote(&q, reply->str, reply->len));
}

static void on_written(void *arg, const redisReply *reply)
{
	if (reply != NULL && reply->type == REDIS_REPLY_ERROR)
		refused(arg, reply);
}

/* Redis has lost the key: flushed, restarted empty, or the lease ran out while nothing got through. */
static void restart(struct presence_sync *s, uint16_t ns)
{
	presence_table_restart(&s->m->presence->table, ns);
	s->ns[ns].is_fresh = true;
	s->ns[ns].is_failed = false;
	presence_redis_poke(s->m);
}

static void on_renewed(void *arg, const redisReply *reply)
{
	struct sync_ns *n = arg;

	if (reply == NULL)
		return;
	if (reply->type == REDIS_REPLY_ERROR)
		refused(n, reply);
	else if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 0 &&
		 n->sync->m->presence->table.ns[n->ns].first != NULL)
		restart(n->sync, n->ns);
}

/* ---- batches */

static void batch_add(struct batch *b, const struct presence_table *t, struct presence_member *m)
{
	uint32_t written = presence_written(t, m);
	char *p = b->text.p + b->text.len;

	b->member[b->n++] = m;
	if (written == m->sockets)
		return;
	if (written > 0) {
		b->rem[b->n_rem] = (struct slice){p, put_member(p, m, written)};
		p += b->rem[b->n_rem++].len;
	}
	if (m->sockets > 0) {
		b->add[b->n_add] = (struct slice){p, put_member(p, m, m->sockets)};
		p += b->add[b->n_add++].len;
	}
	b->text.len = (size_t)(p - b->text.p);
}

/* Members of one namespace: those behind the cursor first, then changes. Returns the namespace, or -1:
 * nothing to do. */
static int batch_fill(struct presence_sync *s, struct presence_member **cursor)
{
	struct presence_table *t = &s->m->presence->table;
	struct batch *b = &s->batch;
	int ns = -1;

	b->n = b->n_rem = b->n_add = 0;
	b->text.len = 0;
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES && ns == -1; i++) {
		if (s->ns[i].is_fresh || t->ns[i].cursor != NULL)
			ns = i;
	}
	if (ns == -1 && t->first_change == NULL)
		return -1;
	if (ns == -1)
		ns = t->first_change->place->ns;
	*cursor = t->ns[ns].cursor;
	for (; *cursor != NULL && b->n < BATCH; *cursor = (*cursor)->next_ns)
		batch_add(b, t, *cursor);
	if (*cursor != NULL || b->n == BATCH)
		return ns;
	if (t->ns[ns].cursor != NULL)
		return ns; /* a member must not be in the batch twice */
	for (struct presence_member *m = t->first_change; m != NULL && b->n < BATCH; m = m->newer) {
		if (m->place->ns == ns)
			batch_add(b, t, m);
	}
	return ns;
}

static int batch_send(struct presence_sync *s, uint16_t ns)
{
	struct slice argv[7 + 2 * BATCH];
	struct batch *b = &s->batch;
	char key[PRESENCE_KEY_MAX], lease[12], n_rem[12];
	size_t n = 0;

	presence_redis_key(key, s->m->seq.origin, s->m->globals->namespaces[ns]);
	snprintf(lease, sizeof(lease), "%" PRIu32, s->m->redis_cfg.lease);
	snprintf(n_rem, sizeof(n_rem), "%u", b->n_rem);
	argv[n++] = (struct slice){"EVAL", 4};
	argv[n++] = (struct slice){script, sizeof(script) - 1};
	argv[n++] = (struct slice){"1", 1};
	argv[n++] = (struct slice){key, strlen(key)};
	argv[n++] = (struct slice){lease, strlen(lease)};
	argv[n++] = (struct slice){s->ns[ns].is_fresh ? "1" : "0", 1};
	argv[n++] = (struct slice){n_rem, strlen(n_rem)};
	memcpy(argv + n, b->rem, b->n_rem * sizeof(*argv));
	memcpy(argv + n + b->n_rem, b->add, b->n_add * sizeof(*argv));
	return redis_cmd_call(s->m->cmd, n + b->n_rem + b->n_add, argv, on_written, &s->ns[ns]);
}

/* One batch. Returns false if there was nothing to do, or it can't be done now. */
static bool write_batch(struct presence_sync *s)
{
	struct presence_table *t = &s->m->presence->table;
	struct presence_member *cursor = NULL;
	int ns;

	if (buf_reserve(&s->batch.text, BATCH * 2 * PRESENCE_MEMBER_MAX) == -1)
		return false;
	ns = batch_fill(s, &cursor);
	if (ns == -1 || batch_send(s, (uint16_t)ns) == -1)
		return false;
	s->ns[ns].is_fresh = false;
	s->ns[ns].is_kept = true;
	t->ns[ns].cursor = cursor;
	for (unsigned i = 0; i < s->batch.n; i++)
		presence_table_written(t, s->batch.member[i]);
	return true;
}

static bool has_work(const struct presence_sync *s)
{
	const struct presence_table *t = &s->m->presence->table;

	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (s->ns[i].is_fresh || t->ns[i].cursor != NULL)
			return true;
	}
	return t->first_change != NULL;
}

static void start_timer(struct presence_sync *s, double seconds)
{
	if (ev_is_active(&s->timer))
		return;
	ev_timer_set(&s->timer, seconds, 0.);
	ev_timer_start(s->m->loop, &s->timer);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct presence_sync *s = timer->data;

	(void)loop;
	(void)events;
	for (unsigned i = 0; i < BATCHES; i++) {
		if (!write_batch(s))
			break;
	}
	if (s->is_open && has_work(s))
		start_timer(s, WRITE_MORE_S);
}

void presence_redis_poke(struct master *m)
{
	struct presence_sync *s = m->presence->sync;

	if (s != NULL && s->is_open && has_work(s))
		start_timer(s, WRITE_S);
}

/* ---- the link */

static bool is_listed(const struct master *m, uint16_t ns)
{
	return m->presence->table.ns[ns].first != NULL || (m->seq.ns[ns] != NULL && m->seq.ns[ns]->presence);
}

static void on_open(void *arg)
{
	struct presence_sync *s = arg;

	s->is_open = true;
	s->renew_ms = clock_mono_ms();
	presence_table_keep_changes(&s->m->presence->table, true);
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (s->ns[i].is_kept || is_listed(s->m, i))
			restart(s, i);
	}
}

static void on_lost(void *arg)
{
	struct presence_sync *s = arg;

	s->is_open = false;
	ev_timer_stop(s->m->loop, &s->timer);
	presence_table_keep_changes(&s->m->presence->table, false);
}

void presence_redis_tick(struct master *m, uint64_t now_ms)
{
	struct presence_sync *s = m->presence->sync;
	char key[PRESENCE_KEY_MAX], lease[12];

	if (s == NULL || !s->is_open || now_ms - s->renew_ms < m->redis_cfg.lease / 3)
		return;
	s->renew_ms = now_ms;
	snprintf(lease, sizeof(lease), "%" PRIu32, m->redis_cfg.lease);
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		struct slice argv[] = {{"PEXPIRE", 7}, {key, 0}, {lease, strlen(lease)}};

		if (!s->ns[i].is_kept)
			continue;
		if (s->ns[i].is_failed)
			restart(s, i);
		presence_redis_key(key, m->seq.origin, m->globals->namespaces[i]);
		argv[1].len = strlen(key);
		/* Refused: the next one will do, there are two more before the lease is over. */
		(void)!redis_cmd_call(m->cmd, ARRAY_LEN(argv), argv, on_renewed, &s->ns[i]);
	}
}

void presence_redis_leave(struct master *m)
{
	struct presence_sync *s = m->presence->sync;
	char key[PRESENCE_KEY_MAX];

	if (s == NULL)
		return;
	s->is_open = false;
	ev_timer_stop(m->loop, &s->timer);
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		struct slice argv[] = {{"DEL", 3}, {key, 0}};

		if (!s->ns[i].is_kept)
			continue;
		s->ns[i].is_kept = false;
		presence_redis_key(key, m->seq.origin, m->globals->namespaces[i]);
		argv[1].len = strlen(key);
		(void)!redis_cmd_call(m->cmd, ARRAY_LEN(argv), argv, NULL,
				      NULL); /* else the lease will do it */
	}
}

int presence_redis_start(struct master *m)
{
	struct presence_sync *s = calloc(1, sizeof(*s));
	struct redis_cmd_events ev = {.arg = s, .open = on_open, .lost = on_lost};

	if (s == NULL)
		return -1;
	s->m = m;
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++)
		s->ns[i] = (struct sync_ns){.sync = s, .ns = i};
	ev_timer_init(&s->timer, on_timer, 0., 0.);
	s->timer.data = s;
	m->presence->sync = s;
	return relay_watch(m, &ev);
}

void presence_redis_stop(struct master *m)
{
	struct presence_sync *s = m->presence->sync;

	if (s == NULL)
		return;
	ev_timer_stop(m->loop, &s->timer);
	buf_free(&s->batch.text);
	free(s);
	m->presence->sync = NULL;
}
