#include "master/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "master/offline.h"
#include "master/delivered.h"
#include "master/receipts.h"
#include "master/redis_cmd.h"
#include "master/redis_hello.h"

#define LOG_EVERY_MS 10000u

/* A question that Redis is being asked. Freed when the last command's answer has come, which it does, if only
 * because the link is lost. */
struct question {
	struct store *store;
	struct question *older, *newer;
	uint64_t due_ms;
	unsigned commands;
	bool is_answered, is_blocked;
	struct ask_from from;
	uint32_t delivered; /* UP_ASK_RECEIPTS: number of the message, 0 = unknown */
	void (*answer)(struct question *q, const redisReply *reply); /* to the command that matters */
};

struct store {
	struct master *m;
	struct question *oldest, *newest;
	unsigned n;
	struct receipts *receipts; /* local mode */
	struct buf key, out;
	uint64_t logged_ms;
};

int store_start(struct master *m)
{
	struct store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return -1;
	s->m = m;
	m->store = s;
	return 0;
}

void store_stop(struct master *m)
{
	struct store *s = m->store;

	if (s == NULL)
		return;
	receipts_free(s->receipts);
	buf_free(&s->key);
	buf_free(&s->out);
	free(s);
	m->store = NULL;
}

/* ---- keys */

/* What separates the parts must not occur in the middle one. */
static int put_room(struct buf *out, struct slice room)
{
	for (size_t i = 0; i < room.len; i++) {
		const char *as = room.p[i] == ':' ? "%3A" : room.p[i] == '%' ? "%25" : NULL;

		if ((as != NULL ? buf_puts(out, as) : buf_put(out, room.p + i, 1)) == -1)
			return -1;
	}
	return 0;
}

int store_key(struct buf *out, const char *prefix, const char *ns, struct slice room, struct slice last)
{
	size_t start = out->len;

	if (buf_puts(out, prefix) == -1 || buf_puts(out, ns) == -1 || buf_puts(out, ":") == -1 ||
	    (room.len > 0 && (put_room(out, room) == -1 || buf_puts(out, ":") == -1)) ||
	    buf_put(out, last.p, last.len) == -1)
		return -1;
	return out->len - start <= STORE_KEY_MAX ? 0 : -1;
}

/* Into s->key. */
static int make_key(struct store *s, const char *prefix, const struct cfg_namespace *ns, struct slice room,
		    struct slice last)
{
	s->key.len = 0;
	return store_key(&s->key, prefix, ns->name, room, last);
}

static struct slice slice_of(const struct buf *b)
{
	return (struct slice){b->p, b->len};
}

/* ---- questions under way */

static void unavailable(struct master *m, const struct ask_from *from)
{
	ask_answer(m, from, REC_REPLY_UNAVAILABLE, (struct slice){0});
}

static void answer(struct question *q, enum rec_reply reply, struct slice payload)
{
	if (!q->is_answered)
		ask_answer(q->store->m, &q->from, reply, payload);
	q->is_answered = true;
}

static struct question *begin(struct store *s, const struct ask_question *ask,
			      void (*fn)(struct question *q, const redisReply *reply))
{
	struct question *q;

	if (s->m->cmd == NULL || !redis_cmd_is_open(s->m->cmd) || s->n == STORE_MAX)
		return NULL;
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return NULL;
	q->store = s;
	q->from = ask->from;
	q->answer = fn;
	q->due_ms = clock_mono_ms() + u64_min(s->m->redis_cfg.timeout, ASK_ANSWER_MS);
	q->older = s->newest;
	*(s->newest == NULL ? &s->oldest : &s->newest->newer) = q;
	s->newest = q;
	s->n++;
	return q;
}

static void end(struct question *q)
{
	struct store *s = q->store;

	answer(q, REC_REPLY_UNAVAILABLE, (struct slice){0});
	*(q->older == NULL ? &s->oldest : &q->older->newer) = q->newer;
	*(q->newer == NULL ? &s->newest : &q->newer->older) = q->older;
	s->n--;
	free(q);
}

static void command_done(struct question *q)
{
	if (--q->commands == 0)
		end(q);
}

static void log_refused(struct store *s, const redisReply *reply)
{
	uint64_t now = clock_mono_ms();
	struct redis_word word;
	struct log_quoted quoted;

	if (s->logged_ms != 0 && now - s->logged_ms < LOG_EVERY_MS)
		return;
	s->logged_ms = now;
	redis_word_take(&word, reply->str, reply->len);
	log_event(LOG_WARN, "store_refused", "reason=%s msg=\"Redis refused a command\"",
		  log_quote(&quoted, word.s, strlen(word.s)));
}

static void on_reply(void *arg, const redisReply *reply)
{
	struct question *q = arg;

	if (reply != NULL && reply->type == REDIS_REPLY_ERROR)
		log_refused(q->store, reply);
	else if (reply != NULL)
		q->answer(q, reply);
	command_done(q);
}

/* Send one command of the question. After the last one: sent(). */
static bool send(struct question *q, redis_cmd_fn *fn, size_t argc, const struct slice *argv)
{
	q->commands++;
	if (redis_cmd_call(q->store->m->cmd, argc, argv, fn, q) == 0)
		return true;
	q->commands--;
	return false;
}

/* What could not be sent is answered now; what has been sent keeps the question alive. */
static void sent(struct question *q, bool all)
{
	if (!all)
		answer(q, REC_REPLY_UNAVAILABLE, (struct slice){0});
	if (q->commands == 0)
		end(q);
}

void store_tick(struct master *m, uint64_t now_ms)
{
	for (struct question *q = m->store->oldest; q != NULL && q->due_ms <= now_ms; q = q->newer)
		answer(q, REC_REPLY_UNAVAILABLE, (struct slice){0});
}

/* "first NUL rest": false: there is no NUL. */
static bool split(struct slice text, struct slice *first, struct slice *rest)
{
	const char *nul = text.len == 0 ? NULL : memchr(text.p, '\0', text.len);

	if (nul == NULL)
		return false;
	*first = (struct slice){text.p, (size_t)(nul - text.p)};
	*rest = (struct slice){nul + 1, text.len - first->len - 1};
	return true;
}

/* ---- retained values */

static void fetched(struct question *q, const redisReply *reply)
{
	if (q->is_blocked || reply->type == REDIS_REPLY_NIL)
		answer(q, REC_REPLY_NONE, (struct slice){0});
	else if (reply->type == REDIS_REPLY_STRING)
		answer(q, REC_REPLY_OK, (struct slice){reply->str, reply->len});
}

static void on_exists(void *arg, const redisReply *reply)
{
	struct question *q = arg;

	q->is_blocked = reply == NULL || reply->type != REDIS_REPLY_INTEGER || reply->integer != 0;
	command_done(q);
}

static void fetch(struct master *m, const struct ask_question *ask)
{
	struct slice key, unless;
	struct question *q;
	bool ok = true;

	if (!split(ask->payload, &key, &unless) || key.len == 0) {
		ask_answer_bad(m, &ask->from, "bad_request");
		return;
	}
	q = begin(m->store, ask, fetched);
	if (q == NULL) {
		unavailable(m, &ask->from);
		return;
	}
	if (unless.len > 0)
		ok = send(q, on_exists, 2, (struct slice[]){{"EXISTS", 6}, unless});
	ok = ok && send(q, on_reply, 2, (struct slice[]){{"GET", 3}, key});
	sent(q, ok);
}

/* ---- values that rules store */

static void stored(struct question *q, const redisReply *reply)
{
	(void)reply;
	answer(q, REC_REPLY_OK, (struct slice){0});
}

static void store(struct master *m, const struct ask_question *ask)
{
	struct slice argv[5] = {{"SET", 3}, {0}, {0}, {"PX", 2}, {0}};
	struct question *q;
	char ttl[12];

	if (!split(ask->payload, &argv[1], &argv[2]) || argv[1].len == 0) {
		ask_answer_bad(m, &ask->from, "bad_request");
		return;
	}
	q = begin(m->store, ask, stored);
	if (q == NULL) {
		unavailable(m, &ask->from);
		return;
	}
	argv[4] = (struct slice){ttl, (size_t)snprintf(ttl, sizeof(ttl), "%" PRIu32, ask->total)};
	sent(q, send(q, on_reply, ask->total == 0 ? 3 : 5, argv));
}

/* ---- receipts */

/* KEYS[1]; ARGV: ms, user, ttl, users at most. One step: no key is ever without its ttl. */
static const char receipt_script[] = "if redis.call('ZCARD',KEYS[1])<tonumber(ARGV[4]) then "
				     "redis.call('ZADD',KEYS[1],'NX',ARGV[1],ARGV[2]) end "
				     "return redis.call('PEXPIRE',KEYS[1],ARGV[3])";

/* What receipts and their questions have in common: the namespace has them, and the key fits. */
static const struct cfg_namespace *receipt_key(struct master *m, const struct ask_question *ask,
					       struct slice id)
{
	const struct cfg_namespace *ns = ask_namespace(m, ask);

	if (ns == NULL || !ns->receipts || id.len == 0 || id.len > STORE_ID_MAX ||
	    make_key(m->store, CFG_OWN_PREFIX "receipts:", ns, ask->room, id) == -1) {
		ask_answer_bad(m, &ask->from, "bad_request");
		return NULL;
	}
	return ns;
}

static void keep_locally(struct master *m, const struct ask_question *ask, struct slice user)
{
	struct store *s = m->store;

	if (s->receipts == NULL)
		s->receipts = receipts_new(RECEIPTS_LOCAL_MAX);
	if (s->receipts == NULL || receipts_add(s->receipts, slice_of(&s->key), user, clock_wall_ms()) == -1)
		unavailable(m, &ask->from);
	else
		ask_answer(m, &ask->from, REC_REPLY_OK, (struct slice){0});
}

static void receipt(struct master *m, const struct ask_question *ask)
{
	const struct cfg_namespace *ns;
	struct slice user, id;
	char now[24], ttl[12], max[12];
	struct question *q;

	if (!split(ask->payload, &user, &id) || user.len == 0 || user.len > UINT8_MAX) {
		ask_answer_bad(m, &ask->from, "bad_request");
		return;
	}
	ns = receipt_key(m, ask, id);
	if (ns == NULL)
		return;
	if (m->cmd == NULL) {
		keep_locally(m, ask, user);
		return;
	}
	q = begin(m->store, ask, stored);
	if (q == NULL) {
		unavailable(m, &ask->from);
		return;
	}
	{
		const struct slice argv[] = {
			{"EVAL", 4},
			{receipt_script, sizeof(receipt_script) - 1},
			{"1", 1},
			slice_of(&m->store->key),
			{now, (size_t)snprintf(now, sizeof(now), "%" PRIu64, clock_wall_ms())},
			user,
			{ttl, (size_t)snprintf(ttl, sizeof(ttl), "%" PRIu32, ns->receipts_ttl)},
			{max, (size_t)snprintf(max, sizeof(max), "%u", RECEIPTS_USERS_MAX)},
		};

		sent(q, send(q, on_reply, ARRAY_LEN(argv), argv));
	}
}

static int put_reader(struct buf *out, struct slice user, struct slice at)
{
	if ((out->len > sizeof("{\"read\":[") - 1 && buf_puts(out, ",") == -1) ||
	    buf_puts(out, "{\"user\":") == -1 || json_put_string(out, user) == -1 ||
	    buf_puts(out, ",\"at\":") == -1 || buf_put(out, at.p, at.len) == -1)
		return -1;
	return buf_puts(out, "}");
}

static bool is_number(const redisReply *r)
{
	return r->type == REDIS_REPLY_STRING && r->len > 0 && strspn(r->str, "0123456789") == r->len;
}

static int put_readers(struct buf *out, const redisReply *reply)
{
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		const redisReply *user = reply->element[i], *at = reply->element[i + 1];

		if (user->type == REDIS_REPLY_STRING && is_number(at) &&
		    put_reader(out, (struct slice){user->str, user->len}, (struct slice){at->str, at->len}) ==
			    -1)
			return -1;
	}
	return 0;
}

static void readers(struct question *q, const redisReply *reply)
{
	struct buf *out = &q->store->out;

	out->len = 0;
	if (reply->type == REDIS_REPLY_ARRAY && buf_puts(out, "{\"read\":[") == 0 &&
	    put_readers(out, reply) == 0 && buf_puts(out, "]") == 0 &&
	    delivered_put(q->store->m, q->delivered, out) == 0 && buf_puts(out, "}") == 0)
		answer(q, REC_REPLY_OK, slice_of(out));
	buf_free(out);
}

struct local_readers {
	struct buf *out;
	int rc;
};

static void local_reader(void *arg, struct slice user, uint64_t ms)
{
	struct local_readers *l = arg;
	char at[24];

	if (l->rc == 0)
		l->rc = put_reader(l->out, user,
				   (struct slice){at, (size_t)snprintf(at, sizeof(at), "%" PRIu64, ms)});
}

static void answer_locally(struct master *m, const struct ask_question *ask)
{
	struct store *s = m->store;
	struct local_readers l = {.out = &s->out};

	s->out.len = 0;
	l.rc = buf_puts(&s->out, "{\"read\":[");
	if (s->receipts != NULL)
		receipts_each(s->receipts, slice_of(&s->key), local_reader, &l);
	if (l.rc == -1 || buf_puts(&s->out, "]") == -1 ||
	    delivered_put(m, delivered_find(m, ask->ns, ask->room, ask->payload), &s->out) == -1 ||
	    buf_puts(&s->out, "}") == -1)
		unavailable(m, &ask->from);
	else
		ask_answer(m, &ask->from, REC_REPLY_OK, slice_of(&s->out));
	buf_free(&s->out);
}

static void receipts(struct master *m, const struct ask_question *ask)
{
	struct question *q;

	if (receipt_key(m, ask, ask->payload) == NULL)
		return;
	if (m->cmd == NULL) {
		answer_locally(m, ask);
		return;
	}
	q = begin(m->store, ask, readers);
	if (q == NULL) {
		unavailable(m, &ask->from);
		return;
	}
	q->delivered = delivered_find(m, ask->ns, ask->room, ask->payload);
	sent(q,
	     send(q, on_reply, 5,
		  (struct slice[]){
			  {"ZRANGE", 6}, slice_of(&m->store->key), {"0", 1}, {"-1", 2}, {"WITHSCORES", 10}}));
}

/* ---- messages for a user who was away */

/* The message of an entry of the stream: (id, (field, value, ...)). */
static bool message_of(const redisReply *entry, struct slice *message)
{
	const redisReply *fields;

	if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2)
		return false;
	fields = entry->element[1];
	if (fields->type != REDIS_REPLY_ARRAY || fields->elements < 2 ||
	    fields->element[1]->type != REDIS_REPLY_STRING)
		return false;
	*message = (struct slice){fields->element[1]->str, fields->element[1]->len};
	return true;
}

/* Newest first, as XREVRANGE has them: how many fit one answer. */
static size_t fitting(const struct master *m, const redisReply *list)
{
	struct slice message;
	size_t bytes = 0, n = 0;

	for (; n < list->elements; n++) {
		if (!message_of(list->element[n], &message))
			continue;
		bytes += sizeof(uint32_t) + message.len;
		if (bytes > ask_reply_max(m))
			break;
	}
	return n;
}

static int put_messages(struct buf *out, const redisReply *list, size_t n)
{
	struct slice message;

	while (n-- > 0) {
		uint32_t len;

		if (!message_of(list->element[n], &message))
			continue;
		len = (uint32_t)message.len;
		if (buf_put(out, &len, sizeof(len)) == -1 || buf_put(out, message.p, message.len) == -1)
			return -1;
	}
	return 0;
}

static void taken(struct question *q, const redisReply *list)
{
	struct store *s = q->store;
	size_t n;

	if (list->type != REDIS_REPLY_ARRAY)
		return;
	if (list->elements == 0) {
		answer(q, REC_REPLY_NONE, (struct slice){0});
		return;
	}
	n = fitting(s->m, list);
	s->out.len = 0;
	if (q->is_answered || put_messages(&s->out, list, n) == -1)
		n = 0; /* too late: nobody would read them */
	else
		answer(q, REC_REPLY_OK, slice_of(&s->out));
	count_add(&s->m->count->offline_lost, list->elements - n);
	buf_free(&s->out);
}

static void on_mark(void *arg, const redisReply *reply)
{
	(void)reply;
	command_done(arg);
}

/* KEYS[1]; ARGV: messages at most. */
static const char take_script[] = "local l=redis.call('XREVRANGE',KEYS[1],'+','-','COUNT',ARGV[1]) "
				  "redis.call('DEL',KEYS[1]) return l";

static void offline(struct master *m, const struct ask_question *ask)
{
	const struct cfg_namespace *ns = ask_namespace(m, ask);
	struct slice argv[] = {{"EVAL", 4}, {take_script, sizeof(take_script) - 1}, {"1", 1}, {0}, {0}};
	struct question *q;
	char count[12];

	if (ns == NULL || ns->offline_max == 0 || ask->payload.len == 0 || ask->payload.len > UINT8_MAX ||
	    make_key(m->store, STORE_OFFLINE_PREFIX, ns, (struct slice){0}, ask->payload) == -1) {
		ask_answer_bad(m, &ask->from, "bad_request");
		return;
	}
	q = begin(m->store, ask, taken);
	if (q == NULL) {
		unavailable(m, &ask->from);
		return;
	}
	{
		/* In front of the taking: who comes is as good as there. */
		struct buf *mark = &m->store->out;
		char ms[12];

		mark->len = 0;
		if (store_key(mark, OFFLINE_ONLINE_PREFIX, ns->name, (struct slice){0}, ask->payload) == 0)
			(void)send(q, on_mark, 5,
				   (struct slice[]){
					   {"SET", 3},
					   slice_of(mark),
					   {"1", 1},
					   {"PX", 2},
					   {ms, (size_t)snprintf(ms, sizeof(ms), "%u", OFFLINE_ONLINE_MS)}});
		buf_free(mark);
	}
	argv[3] = slice_of(&m->store->key);
	argv[4] = (struct slice){count, (size_t)snprintf(count, sizeof(count), "%u", OFFLINE_TAKE_MAX)};
	sent(q, send(q, on_reply, ARRAY_LEN(argv), argv));
}

void store_ask(struct master *m, const struct ask_question *q)
{
	switch ((enum up_ask)q->what) {
	case UP_ASK_FETCH:
		fetch(m, q);
		break;
	case UP_ASK_STORE:
		store(m, q);
		break;
	case UP_ASK_RECEIPT:
		receipt(m, q);
		break;
	case UP_ASK_RECEIPTS:
		receipts(m, q);
		break;
	case UP_ASK_OFFLINE:
		offline(m, q);
		break;
	default:
		ask_answer_bad(m, &q->from, "bad_request");
	}
}
