#include "master/presence_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "master/nodes.h"
#include "master/presence_redis.h"
#include "master/redis_cmd.h"

#define SEEN_MIN 64u

struct listed {
	struct table_link link;
	struct listed *next;
	uint64_t sockets;
	uint8_t user_len;
	char user[];
};

struct question {
	struct presence_asks *owner;
	struct question *next, *prev;
	struct ask_from from;
	uint64_t due_ms;
	uint16_t ns;
	bool is_stats, is_whole; /* whole: all rooms of the namespace */
	bool is_partial, is_too_large, is_answered;
	bool is_under_way; /* a page has been asked for: the callback will name this */

	uint64_t clients, users; /* stats */
	uint64_t *seen;          /* of other replicas' users, by public hash: open addressing, 0 = free */
	size_t n_seen, cap_seen;
	struct table names; /* list */
	struct listed *first;
	size_t bytes;

	unsigned n_nodes, at;
	struct buf last; /* member that the page before ended with */
	uint8_t room_len;
	char room[CFG_ROOM_MAX];
	uint64_t *node; /* n_nodes */
};

struct presence_asks {
	struct master *m;
	struct question *first;
	unsigned n;
	uint64_t seen_bytes;
};

static const struct presence_table *table_of(const struct question *q)
{
	return &q->owner->m->presence->table;
}

static struct slice room_of(const struct question *q)
{
	return (struct slice){q->room, q->room_len};
}

/* ---- the list */

static void list_user(struct question *q, struct slice user, uint64_t sockets)
{
	struct master *m = q->owner->m;
	uint64_t hash = rec_user_hash(m->seq.hash_key, q->ns, user);
	struct table_link *l = NULL;
	struct listed *u;

	while ((l = table_next(&q->names, hash, l)) != NULL) {
		u = CONTAINER_OF(l, struct listed, link);
		if (u->user_len == user.len && memcmp(u->user, user.p, user.len) == 0) {
			u->sockets += sockets;
			return;
		}
	}
	q->bytes += 2 * user.len + sizeof("\"\":{\"user\":\"\",\"sockets\":1},");
	if (q->names.n == PRESENCE_LIST_MAX || q->bytes > ask_reply_max(m) ||
	    (u = malloc(sizeof(*u) + user.len)) == NULL) {
		q->is_too_large = true;
		return;
	}
	u->link.hash = hash;
	u->sockets = sockets;
	u->user_len = (uint8_t)user.len;
	memcpy(u->user, user.p, user.len);
	u->next = q->first;
	q->first = u;
	table_insert(&q->names, &u->link);
}

static void list_own(struct question *q)
{
	const struct presence_table *t = table_of(q);
	const struct presence_place *p = presence_table_place(t, q->ns, room_of(q));
	const struct presence_member *m = q->is_whole ? t->ns[q->ns].first : p == NULL ? NULL : p->first;

	for (; m != NULL && !q->is_too_large; m = q->is_whole ? m->next_ns : m->next) {
		if (m->sockets > 0)
			list_user(q, presence_user(m), m->sockets);
	}
}

static int put_list(const struct question *q, struct buf *b)
{
	if (buf_puts(b, "{\"presence\":{") == -1)
		return -1;
	for (const struct listed *u = q->first; u != NULL; u = u->next) {
		struct slice user = {u->user, u->user_len};

		if ((u != q->first && buf_puts(b, ",") == -1) || json_put_string(b, user) == -1 ||
		    buf_puts(b, ":{\"user\":") == -1 || json_put_string(b, user) == -1 ||
		    buf_printf(b, ",\"sockets\":%" PRIu64 "}", u->sockets) == -1)
			return -1;
	}
	return buf_printf(b, "},\"partial\":%s}", q->is_partial ? "true" : "false");
}

/* ---- the count */

static uint64_t *seen_place(uint64_t *seen, size_t cap, uint64_t hash)
{
	size_t i = (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (cap - 1);

	while (seen[i] != 0 && seen[i] != hash)
		i = (i + 1) & (cap - 1);
	return &seen[i];
}

static bool seen_grow(struct question *q)
{
	size_t cap = q->cap_seen == 0 ? SEEN_MIN : q->cap_seen * 2;
	uint64_t *seen;

	if (q->owner->seen_bytes + (cap - q->cap_seen) * sizeof(*seen) > PRESENCE_COUNT_BYTES)
		return false;
	seen = calloc(cap, sizeof(*seen));
	if (seen == NULL)
		return false;
	for (size_t i = 0; i < q->cap_seen; i++) {
		if (q->seen[i] != 0)
			*seen_place(seen, cap, q->seen[i]) = q->seen[i];
	}
	q->owner->seen_bytes += (cap - q->cap_seen) * sizeof(*seen);
	free(q->seen);
	q->seen = seen;
	q->cap_seen = cap;
	return true;
}

static bool is_here(const struct question *q, struct slice user, uint64_t hash)
{
	const struct presence_member *m;

	if (q->is_whole)
		return crowd_has(&table_of(q)->crowd, q->ns, hash);
	m = presence_table_member(table_of(q), q->ns, room_of(q), user);
	return m != NULL && m->sockets > 0;
}

/* A user of another replica. */
static void count_user(struct question *q, struct slice user, uint64_t sockets)
{
	uint64_t hash = presence_hash(q->owner->m->globals->namespaces[q->ns], user), *place;

	q->clients += sockets;
	if (is_here(q, user, hash))
		return;
	hash = hash == 0 ? 1 : hash;
	if (2 * q->n_seen >= q->cap_seen && !seen_grow(q)) {
		q->is_partial = true;
		return;
	}
	place = seen_place(q->seen, q->cap_seen, hash);
	if (*place == hash)
		return;
	*place = hash;
	q->n_seen++;
	q->users++;
}

static void count_own(struct question *q)
{
	const struct presence_table *t = table_of(q);
	const struct presence_place *p = presence_table_place(t, q->ns, room_of(q));

	if (q->is_whole) {
		q->clients = t->ns[q->ns].sockets;
		q->users = t->crowd.users[q->ns];
	} else if (p != NULL) {
		q->clients = p->sockets;
		q->users = p->users;
	}
}

/* ---- life of a question */

static void question_free(struct question *q)
{
	struct presence_asks *all = q->owner;
	struct listed *u, *next;

	if (q->prev == NULL)
		all->first = q->next;
	else
		q->prev->next = q->next;
	if (q->next != NULL)
		q->next->prev = q->prev;
	all->n--;
	all->seen_bytes -= q->cap_seen * sizeof(*q->seen);
	for (u = q->first; u != NULL; u = next) {
		next = u->next;
		free(u);
	}
	table_free(&q->names);
	free(q->seen);
	free(q->node);
	buf_free(&q->last);
	free(q);
}

/* One answer; the question lives on until Redis' answer to its last page has come. */
static void answer(struct question *q)
{
	struct master *m = q->owner->m;
	struct buf b = {0};
	int rc;

	if (!q->is_answered) {
		q->is_answered = true;
		rc = !q->is_stats ? put_list(q, &b)
				  : buf_printf(&b,
					       "{\"num_clients\":%" PRIu64 ",\"num_users\":%" PRIu64
					       ",\"partial\":%s}",
					       q->clients, q->users, q->is_partial ? "true" : "false");
		if (q->is_too_large)
			ask_answer_bad(m, &q->from, "too_large");
		else if (rc == -1)
			ask_answer(m, &q->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
		else
			ask_answer(m, &q->from, REC_REPLY_OK, (struct slice){b.p, b.len});
		buf_free(&b);
	}
	if (!q->is_under_way)
		question_free(q);
}

static void go_on(struct question *q);

static void take_member(struct question *q, struct slice text)
{
	struct slice room, user;
	uint32_t sockets;

	if (!presence_redis_read(text, &room, &user, &sockets))
		return; /* somebody else wrote there */
	if (!q->is_whole && (room.len != q->room_len || memcmp(room.p, q->room, room.len) != 0))
		return;
	if (q->is_stats)
		count_user(q, user, sockets);
	else
		list_user(q, user, sockets);
}

static void on_page(void *arg, const redisReply *reply)
{
	struct question *q = arg;

	q->is_under_way = false;
	if (q->is_answered) {
		question_free(q);
		return;
	}
	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY) {
		q->is_partial = true;
		q->last.len = 0;
		q->at = reply == NULL ? q->n_nodes : q->at + 1;
		go_on(q);
		return;
	}
	for (size_t i = 0; i < reply->elements && !q->is_too_large; i++) {
		const redisReply *r = reply->element[i];

		if (r->type == REDIS_REPLY_STRING)
			take_member(q, (struct slice){r->str, r->len});
	}
	q->last.len = 0;
	if (reply->elements == PRESENCE_PAGE) {
		const redisReply *r = reply->element[PRESENCE_PAGE - 1];

		if (r->type != REDIS_REPLY_STRING || buf_puts(&q->last, "(") == -1 ||
		    buf_put(&q->last, r->str, r->len) == -1) {
			q->is_partial = true;
			q->last.len = 0;
			q->at++;
		}
	} else {
		q->at++;
	}
	go_on(q);
}

/* Ask for the next page of the node that is looked at. ZRANGEBYLEX: all scores are the same. */
static int ask_page(struct question *q)
{
	struct master *m = q->owner->m;
	char key[PRESENCE_KEY_MAX], from[CFG_ROOM_MAX + 2], to[CFG_ROOM_MAX + 2], count[12];
	struct slice min = {from, q->room_len + 2u}, max = {to, q->room_len + 2u};

	from[0] = '[';
	to[0] = '(';
	memcpy(from + 1, q->room, q->room_len);
	memcpy(to + 1, q->room, q->room_len);
	from[q->room_len + 1] = '\0';
	to[q->room_len + 1] = '\1';
	if (q->is_whole) {
		min = (struct slice){"-", 1};
		max = (struct slice){"+", 1};
	}
	if (q->last.len > 0)
		min = (struct slice){q->last.p, q->last.len};
	presence_redis_key(key, q->node[q->at], m->globals->namespaces[q->ns]);
	snprintf(count, sizeof(count), "%u", PRESENCE_PAGE);
	const struct slice argv[] = {
		{"ZRANGEBYLEX", 11},   {key, strlen(key)}, min, max, {"LIMIT", 5}, {"0", 1},
		{count, strlen(count)}};

	return redis_cmd_call(m->cmd, ARRAY_LEN(argv), argv, on_page, q);
}

static void go_on(struct question *q)
{
	if (q->node != NULL && q->at < q->n_nodes && !q->is_too_large) {
		if (ask_page(q) == 0) {
			q->is_under_way = true;
			return;
		}
		q->is_partial = true;
	}
	answer(q);
}

/* ---- asking */

static void on_nodes(void *arg, const redisReply *reply)
{
	struct question *q = arg;

	q->is_under_way = false;
	if (q->is_answered) {
		question_free(q);
		return;
	}
	if (reply != NULL && reply->type == REDIS_REPLY_ARRAY &&
	    (q->node = calloc(NODES_MAX, sizeof(*q->node))) != NULL)
		q->n_nodes = nodes_read(q->owner->m, reply, q->node);
	else
		q->is_partial = true;
	go_on(q);
}

/* Who is there now: one who has come just now counts, too. */
static void ask_nodes(struct question *q)
{
	static const struct slice argv[] = {
		{"ZRANGE", 6}, {KEY_NODES, sizeof(KEY_NODES) - 1}, {"0", 1}, {"-1", 2}};
	struct master *m = q->owner->m;

	if (m->cmd != NULL) {
		q->is_under_way = redis_cmd_call(m->cmd, ARRAY_LEN(argv), argv, on_nodes, q) == 0;
		q->is_partial = !q->is_under_way;
	}
	if (!q->is_under_way)
		answer(q);
}

static struct question *question_new(struct presence_asks *all, const struct ask_question *asked)
{
	struct master *m = all->m;
	struct question *q;

	if (all->n == PRESENCE_ASKS_MAX)
		return NULL;
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return NULL;
	if (table_init(&q->names) == -1) {
		free(q);
		return NULL;
	}
	q->owner = all;
	q->from = asked->from;
	q->due_ms = clock_mono_ms() + ASK_ANSWER_MS;
	q->ns = asked->ns;
	q->is_stats = asked->what == UP_ASK_PRESENCE_STATS;
	q->is_whole = asked->room.len == 0 && m->seq.ns[asked->ns]->room != CFG_ROOM_NONE;
	q->room_len = (uint8_t)asked->room.len;
	memcpy(q->room, asked->room.p, asked->room.len);
	q->next = all->first;
	if (all->first != NULL)
		all->first->prev = q;
	all->first = q;
	all->n++;
	return q;
}

void presence_ask(struct master *m, const struct ask_question *asked)
{
	struct question *q;

	if (ask_namespace(m, asked) == NULL) {
		ask_answer_bad(m, &asked->from, "bad_request");
		return;
	}
	q = question_new(m->presence->asks, asked);
	if (q == NULL) {
		ask_answer(m, &asked->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
		return;
	}
	if (q->is_stats)
		count_own(q);
	else
		list_own(q);
	ask_nodes(q);
}

void presence_ask_tick(struct master *m, uint64_t now_ms)
{
	struct question *next;

	for (struct question *q = m->presence->asks->first; q != NULL; q = next) {
		next = q->next;
		if (q->is_answered || now_ms < q->due_ms)
			continue;
		q->is_partial = true;
		answer(q);
	}
}

int presence_ask_start(struct master *m)
{
	m->presence->asks = calloc(1, sizeof(*m->presence->asks));
	if (m->presence->asks == NULL)
		return -1;
	m->presence->asks->m = m;
	return 0;
}

void presence_ask_stop(struct master *m)
{
	while (m->presence->asks != NULL && m->presence->asks->first != NULL)
		question_free(m->presence->asks->first);
	free(m->presence->asks);
	m->presence->asks = NULL;
}
