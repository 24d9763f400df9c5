#include "master/nodes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "master/presence_redis.h"
#include "master/redis_cmd.h"
#include "master/relay.h"
#include "master/sketch.h"
#include "shm/seg.h"

#define KEY_NODE     CFG_OWN_PREFIX "node:"
#define KEY_USERS    CFG_OWN_PREFIX "users:"
#define KEY_NODE_MAX (sizeof(KEY_USERS) + 16)
#define LEAVE_MS     1000u
#define CHANGE_MS    50u /* between two looks at who is there */
#define LOG_EVERY_MS 60000u
#define TICK_MS      250u  /* of nodes_tick() */
#define SHOW_MS      1000u /* between two looks at what the own workers have */

/* KEYS: nodes; ARGV: node, lease in ms, channel. Those whose lease is over go; the key itself lives as long
 * as the longest lease; a newcomer is told to the others, so that nobody counts without him. The answer: all
 * that are left. */
static const char script_nodes[] = "local t=redis.call('TIME') "
				   "local now=t[1]*1000+math.floor(t[2]/1000) "
				   "redis.call('ZREMRANGEBYSCORE',KEYS[1],'-inf',now) "
				   "if redis.call('ZADD',KEYS[1],now+ARGV[2],ARGV[1])==1 then "
				   "redis.call('PUBLISH',ARGV[3],ARGV[1]) end "
				   "if redis.call('PTTL',KEYS[1])<tonumber(ARGV[2]) then "
				   "redis.call('PEXPIRE',KEYS[1],ARGV[2]) end "
				   "return redis.call('ZRANGE',KEYS[1],0,-1)";

struct nodes {
	struct master *m;
	const uint8_t *counters; /* of all workers, read-only */
	char host[65], name[17];
	bool is_open, is_known, is_here; /* is_here: Redis has something of ours */
	bool is_stale;                   /* somebody has come or gone since the list was read */
	bool has_left;                   /* nodes_leave(): Redis has answered */
	uint64_t renew_ms, logged_ms, shown_ms;
	unsigned n;
	uint64_t other[NODES_MAX];
	char *text[NODES_MAX]; /* what that one says; NULL: nothing yet */
	uint64_t their_connections;
	struct kmv *theirs[CFG_MAX_NAMESPACES]; /* the others' users; NULL: none */
	struct sketch sketch;                   /* ours */
	unsigned n_asked;                       /* MGET under way: for so many of `asked` */
	uint64_t asked[NODES_MAX];
};

/* ---- what this one says */

static uint64_t sum_workers(const struct nodes *n, size_t offset)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < globals_slots(n->m->globals); i++)
		v += count_get(
			(const counter *)(const void *)(n->counters + (size_t)i * COUNTERS_BLOCK + offset));
	return v;
}

static uint64_t ns_connections(const struct nodes *n, unsigned ns)
{
	return sum_workers(n, offsetof(struct counters, ns) + ns * sizeof(struct counters_ns) +
				      offsetof(struct counters_ns, connections));
}

static uint64_t ns_users(const struct nodes *n, unsigned ns)
{
	return count_get(&n->m->count->ns[ns].users);
}

static unsigned n_namespaces(const struct nodes *n)
{
	return atomic_load_explicit(&n->m->globals->n_namespaces, memory_order_relaxed); /* we write it */
}

static uint64_t users(const struct nodes *n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n_namespaces(n); i++)
		v += ns_users(n, i);
	return v;
}

static int describe(const struct nodes *n, struct buf *out)
{
	const struct globals *g = n->m->globals;

	if (buf_printf(out, "{\"node\":\"%s\",\"version\":\"" RC_VERSION "\",\"host\":", n->name) == -1 ||
	    json_put_string(out, (struct slice){n->host, strlen(n->host)}) == -1 ||
	    buf_printf(out,
		       ",\"pid\":%" PRIu32 ",\"uptime_s\":%" PRIu64 ",\"connections\":%" PRIu64
		       ",\"users\":%" PRIu64 ",\"namespaces\":{",
		       g->master_pid, (clock_mono_ms() - g->start_ms) / 1000,
		       sum_workers(n, offsetof(struct counters, connections)), users(n)) == -1)
		return -1;
	for (unsigned i = 0; i < n_namespaces(n); i++) {
		if (buf_printf(out, "%s\"%s\":{\"connections\":%" PRIu64 ",\"users\":%" PRIu64 "}",
			       i == 0 ? "" : ",", g->namespaces[i], ns_connections(n, i),
			       ns_users(n, i)) == -1)
			return -1;
	}
	return buf_puts(out, "}}");
}

/* ---- what the others say */

static uint64_t member_number(struct slice text, const char *key)
{
	char digits[24];
	size_t len = 0;

	if (json_route_value(text, key, digits, sizeof(digits) - 1, &len) != JSON_ROUTE_OK)
		return 0;
	digits[len] = '\0';
	return strtoull(digits, NULL, 10);
}

#define SET(field, value) atomic_store_explicit(&n->m->globals->field, (value), memory_order_relaxed)

/* Users of a namespace on all replicas: one who is on two of them counts once. */
static uint64_t cluster_users(const struct nodes *n, unsigned ns)
{
	static struct kmv all; /* 4 KiB: not on the stack */
	uint64_t own = ns_users(n, ns);

	if (n->theirs[ns] == NULL)
		return own;
	all = *n->theirs[ns];
	if (n->sketch.ready[ns] != NULL)
		kmv_merge(&all, n->sketch.ready[ns]);
	return u64_max(own, kmv_count(&all));
}

/* What /stats says about the cluster. */
static void show(struct nodes *n)
{
	SET(cluster_nodes, n->n + 1);
	SET(cluster_connections,
	    n->their_connections + sum_workers(n, offsetof(struct counters, connections)));
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++)
		SET(cluster_users[i], cluster_users(n, i));
}

static void forget_others(struct nodes *n)
{
	for (unsigned i = 0; i < n->n; i++) {
		free(n->text[i]);
		n->text[i] = NULL;
	}
	n->n = 0;
	n->their_connections = 0;
	sketch_clear(n->theirs);
}

static void refused(struct nodes *n, const redisReply *reply)
{
	uint64_t now = clock_mono_ms();
	struct log_quoted q;

	count_add(&n->m->count->presence_refused, 1);
	if (n->logged_ms != 0 && now - n->logged_ms < LOG_EVERY_MS)
		return;
	n->logged_ms = now;
	log_event(LOG_WARN, "nodes_refused", "reason=%s msg=\"Redis does not keep the list of replicas\"",
		  log_quote(&q, reply->str, reply->len));
}

/* Whatever somebody wrote there: an object, or nothing. */
static char *take_text(const redisReply *r)
{
	enum json_type type;
	char *text;

	if (r->type != REDIS_REPLY_STRING || r->len > NODES_TEXT_MAX ||
	    memchr(r->str, '\0', r->len) != NULL || !json_validate((struct slice){r->str, r->len}, &type) ||
	    type != JSON_TYPE_OBJECT)
		return NULL;
	text = malloc(r->len + 1);
	if (text == NULL)
		return NULL;
	memcpy(text, r->str, r->len);
	text[r->len] = '\0';
	return text;
}

static void take_node(struct nodes *n, unsigned i, const redisReply *text, const redisReply *users_text)
{
	n->text[i] = take_text(text);
	if (n->text[i] != NULL)
		n->their_connections +=
			member_number((struct slice){n->text[i], strlen(n->text[i])}, "connections");
	if (users_text->type == REDIS_REPLY_STRING)
		sketch_read(n->theirs, n->m, (struct slice){users_text->str, users_text->len});
}

static void on_texts(void *arg, const redisReply *reply)
{
	struct nodes *n = arg;
	unsigned asked = n->n_asked;

	n->n_asked = 0;
	if (reply == NULL)
		return;
	if (reply->type == REDIS_REPLY_ERROR) {
		refused(n, reply);
		return;
	}
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 * asked)
		return;
	forget_others(n);
	n->n = asked;
	memcpy(n->other, n->asked, asked * sizeof(*n->asked));
	for (unsigned i = 0; i < asked; i++)
		take_node(n, i, reply->element[2 * i], reply->element[2 * i + 1]);
	show(n);
}

/* The others' texts, in one question. */
static void ask_texts(struct nodes *n)
{
	static char keys[2 * NODES_MAX][KEY_NODE_MAX];
	struct slice argv[2 * NODES_MAX + 1];

	argv[0] = (struct slice){"MGET", 4};
	for (unsigned i = 0; i < 2 * n->n_asked; i++) {
		snprintf(keys[i], sizeof(keys[i]),
			 i % 2 == 0 ? KEY_NODE "%016" PRIx64 : KEY_USERS "%016" PRIx64, n->asked[i / 2]);
		argv[i + 1] = (struct slice){keys[i], strlen(keys[i])};
	}
	if (redis_cmd_call(n->m->cmd, 2 * n->n_asked + 1, argv, on_texts, n) == -1)
		n->n_asked = 0;
}

static bool read_name(const redisReply *r, uint64_t *node)
{
	char *end;

	if (r->type != REDIS_REPLY_STRING || r->len != 16 || strspn(r->str, "0123456789abcdef") != 16)
		return false;
	*node = strtoull(r->str, &end, 16);
	return true;
}

static bool is_among(const uint64_t *v, unsigned n, uint64_t x)
{
	while (n > 0 && v[n - 1] != x)
		n--;
	return n > 0;
}

unsigned nodes_read(const struct master *m, const redisReply *reply, uint64_t *others)
{
	unsigned n = 0;

	for (size_t i = 0; i < reply->elements && n < NODES_MAX; i++) {
		if (read_name(reply->element[i], &others[n]) && others[n] != m->seq.origin &&
		    !is_among(others, n, others[n]))
			n++;
	}
	return n;
}

/* Take over who is there. Texts of those who were there before stay until the new ones come. */
static void replace_others(struct nodes *n, const uint64_t *others, unsigned count)
{
	char *text[NODES_MAX] = {NULL};

	for (unsigned i = 0; i < n->n; i++) {
		unsigned k = 0;

		while (k < count && others[k] != n->other[i])
			k++;
		if (k < count)
			text[k] = n->text[i];
		else
			free(n->text[i]);
	}
	memcpy(n->other, others, count * sizeof(*others));
	memcpy(n->text, text, count * sizeof(*text));
	n->n = count;
}

static void on_nodes(void *arg, const redisReply *reply)
{
	struct nodes *n = arg;

	if (reply == NULL)
		return;
	if (reply->type == REDIS_REPLY_ERROR)
		refused(n, reply);
	if (reply->type != REDIS_REPLY_ARRAY)
		return;
	if (n->n_asked > 0) {
		n->is_stale = true; /* texts are under way for an older list */
		return;
	}
	n->n_asked = nodes_read(n->m, reply, n->asked);
	n->is_known = true;
	replace_others(n, n->asked, n->n_asked);
	if (n->n_asked > 0)
		ask_texts(n);
	else
		forget_others(n);
	show(n);
}

/* ---- upkeep */

/* SET key text PX lease. Refused: the next one will do, there are two more before the lease is over. */
static void set_text(const struct nodes *n, const char *prefix, const struct buf *text, const char *lease)
{
	char key[KEY_NODE_MAX];
	const struct slice set[] = {{"SET", 3},
				    {key, strlen(prefix) + 16},
				    {text->p, text->len},
				    {"PX", 2},
				    {lease, strlen(lease)}};

	snprintf(key, sizeof(key), "%s%s", prefix, n->name);
	(void)!redis_cmd_call(n->m->cmd, ARRAY_LEN(set), set, NULL, NULL);
}

static void renew(struct nodes *n)
{
	char lease[12];
	struct buf text = {0}, users_text = {0};
	const struct slice eval[] = {
		{"EVAL", 4},
		{script_nodes, sizeof(script_nodes) - 1},
		{"1", 1},
		{KEY_NODES, sizeof(KEY_NODES) - 1},
		{n->name, 16},
		{lease, (size_t)snprintf(lease, sizeof(lease), "%" PRIu32, n->m->redis_cfg.lease)},
		{CHANNEL_NODES, sizeof(CHANNEL_NODES) - 1}};

	n->renew_ms = clock_mono_ms();
	n->is_stale = false;

	if (describe(n, &text) == 0 && sketch_put(&n->sketch, n->m, &users_text) == 0) {
		set_text(n, KEY_NODE, &text, lease);
		set_text(n, KEY_USERS, &users_text, lease);
		(void)!redis_cmd_call(n->m->cmd, ARRAY_LEN(eval), eval, on_nodes, n); /* likewise */
		n->is_here = true;
	}
	buf_free(&text);
	buf_free(&users_text);
}

static void on_open(void *arg)
{
	struct nodes *n = arg;

	n->is_open = true;
	renew(n);
}

/* Somebody has come, or gone. Of several at once the last ones wait for the tick. */
static void on_change(void *arg, struct slice channel, struct slice payload)
{
	struct nodes *n = arg;

	(void)channel;
	if (payload.len == 16 && memcmp(payload.p, n->name, 16) == 0)
		return;
	n->is_stale = true;
	if (n->is_open && clock_mono_ms() - n->renew_ms >= CHANGE_MS)
		renew(n);
}

static void on_lost(void *arg)
{
	struct nodes *n = arg;

	n->is_open = n->is_known = false;
	forget_others(n);
	show(n);
}

void nodes_tick(struct master *m, uint64_t now_ms)
{
	struct nodes *n = m->nodes;
	unsigned turns = (unsigned)u64_max(1, m->redis_cfg.lease / 3 / TICK_MS);

	if (m->cmd != NULL)
		sketch_walk(&n->sketch, m, turns);
	if (n->is_open && (n->is_stale || now_ms - n->renew_ms >= m->redis_cfg.lease / 3))
		renew(n);
	if (now_ms - n->shown_ms >= SHOW_MS) {
		n->shown_ms = now_ms;
		show(n); /* the own share */
	}
}

const uint64_t *nodes_others(const struct master *m, unsigned *n, bool *is_known)
{
	*n = m->nodes->n;
	*is_known = m->nodes->is_known;
	return m->nodes->other;
}

int nodes_info(struct master *m, struct buf *out)
{
	const struct nodes *n = m->nodes;

	if (buf_puts(out, "{\"nodes\":[") == -1 || describe(n, out) == -1)
		return -1;
	for (unsigned i = 0; i < n->n; i++) {
		if (n->text[i] != NULL && (buf_puts(out, ",") == -1 || buf_puts(out, n->text[i]) == -1))
			return -1;
	}
	return buf_puts(out, "]}");
}

/* ---- start and end */

int nodes_start(struct master *m)
{
	struct nodes *n = calloc(1, sizeof(*n));
	struct redis_cmd_events ev = {.arg = n, .open = on_open, .lost = on_lost};

	if (n == NULL)
		return -1;
	m->nodes = n;
	n->m = m;
	n->counters = counters_map_all(m->counters_fd);
	if (n->counters == NULL)
		return -1;
	if (gethostname(n->host, sizeof(n->host) - 1) == -1)
		n->host[0] = '\0';
	snprintf(n->name, sizeof(n->name), "%016" PRIx64, m->seq.origin);
	show(n);
	return relay_watch(m, &ev) == -1 ? -1 : relay_listen(m, CHANNEL_NODES, on_change, n);
}

void nodes_stop(struct master *m)
{
	struct nodes *n = m->nodes;

	if (n == NULL)
		return;
	forget_others(n);
	sketch_free(&n->sketch);
	seg_unmap((void *)(uintptr_t)n->counters, COUNTERS_BYTES);
	free(n);
	m->nodes = NULL;
}

static void on_left(void *arg, const redisReply *reply)
{
	struct nodes *n = arg;

	(void)reply;
	n->has_left = true;
}

static void on_late(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)timer;
	(void)events; /* the loop turns: that is all */
}

void nodes_leave(struct master *m)
{
	struct nodes *n = m->nodes;
	uint64_t end = clock_mono_ms() + LEAVE_MS;
	char key[KEY_NODE_MAX], users_key[KEY_NODE_MAX];
	ev_timer timer;

	if (n == NULL || m->cmd == NULL || !redis_cmd_is_open(m->cmd) || !n->is_here)
		return;
	n->is_open = n->is_here = false;
	presence_redis_leave(m);
	snprintf(key, sizeof(key), KEY_NODE "%s", n->name);
	snprintf(users_key, sizeof(users_key), KEY_USERS "%s", n->name);
	const struct slice del[] = {{"DEL", 3}, {key, strlen(key)}, {users_key, strlen(users_key)}};
	const struct slice rem[] = {{"ZREM", 4}, {KEY_NODES, sizeof(KEY_NODES) - 1}, {n->name, 16}};
	const struct slice tell[] = {
		{"PUBLISH", 7}, {CHANNEL_NODES, sizeof(CHANNEL_NODES) - 1}, {n->name, 16}};

	if (redis_cmd_call(m->cmd, ARRAY_LEN(del), del, NULL, NULL) == -1 ||
	    redis_cmd_call(m->cmd, ARRAY_LEN(rem), rem, NULL, NULL) == -1 ||
	    redis_cmd_call(m->cmd, ARRAY_LEN(tell), tell, on_left, n) == -1)
		return;
	ev_timer_init(&timer, on_late, 0.05, 0.05);
	ev_timer_start(m->loop, &timer);
	while (!n->has_left && !m->is_hurried && clock_mono_ms() < end)
		ev_run(m->loop, EVRUN_ONCE);
	ev_timer_stop(m->loop, &timer);
}
