/* LINK: tests/unit/redis_rig.c master/store.c master/receipts.c master/redis.c master/redis_own.c
 *       master/redis_pending.c master/redis_subs.c master/redis_link.c master/redis_link_in.c
 *       master/redis_hello.c master/redis_reply.c master/redis_dial.c master/redis_tls.c
 *       master/redis_resolve.c master/redis_form.c master/redis_cmd.c master/redis_route.c
 *       master/redis_watch.c */
/* What Redis keeps for clients, with a real server; and receipts without one. Answers to workers end here. */
#include "master/store.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "master/delivered.h"
#include "master/receipts.h"
#include "master/redis_cmd.h"
#include "tests/unit/redis_rig.h"

#define LONG_MS 20000

/* ---- the worker's side of an answer */

static struct {
	unsigned n, reply;
	char text[262144];
	size_t len, max;
} got;

void ask_answer(struct master *m, const struct ask_from *to, enum rec_reply reply, struct slice payload)
{
	(void)m;
	assert_int_equal(to->request, 7);
	got.n++;
	got.reply = reply;
	got.len = payload.len;
	assert_true(payload.len < sizeof(got.text));
	if (payload.len > 0)
		memcpy(got.text, payload.p, payload.len);
	got.text[payload.len] = '\0';
}

void ask_answer_bad(struct master *m, const struct ask_from *to, const char *code)
{
	ask_answer(m, to, REC_REPLY_BAD, (struct slice){code, strlen(code)});
}

const struct cfg_namespace *ask_namespace(const struct master *m, const struct ask_question *q)
{
	return q->ns < CFG_MAX_NAMESPACES ? m->seq.ns[q->ns] : NULL;
}

size_t ask_reply_max(const struct master *m)
{
	(void)m;
	return got.max;
}

/* Message "d" is known as number 9. */
uint32_t delivered_find(const struct master *m, uint16_t ns_id, struct slice room, struct slice id)
{
	(void)m;
	(void)room;
	assert_int_equal(ns_id, 3);
	return id.len == 1 && id.p[0] == 'd' ? 9 : 0;
}

int delivered_put(const struct master *m, uint32_t number, struct buf *out)
{
	(void)m;
	return number == 0 ? 0 : buf_printf(out, ",\"delivered\":%u", number);
}

/* ---- the stage */

static struct cfg_namespace ns;
static struct counters counts;

struct stage {
	struct rig g;
	struct rig_node n;
	struct master m;
};

static void ignore(void *arg)
{
	(void)arg;
}

static void stage_open(struct stage *s, bool with_redis)
{
	const struct redis_cmd_events ev = {.open = ignore, .lost = ignore};
	static char name[] = "n";

	memset(s, 0, sizeof(*s));
	memset(&counts, 0, sizeof(counts));
	ns = (struct cfg_namespace){.name = name,
				    .id = 3,
				    .receipts = true,
				    .receipts_ttl = 60000,
				    .offline_max = 100,
				    .offline_ttl = 60000};
	rig_open(&s->g);
	rig_node_init(&s->n, &s->g, 1);
	s->m.loop = s->g.loop;
	s->m.redis_cfg = s->n.cfg;
	s->m.count = &counts;
	s->m.seq.ns[3] = &ns;
	got.n = 0;
	got.max = 100000;
	assert_int_equal(store_start(&s->m), 0);
	if (!with_redis)
		return;
	rig_redis_start(&s->g, NULL);
	s->m.cmd = redis_cmd_new(s->g.loop, &s->m.redis_cfg, &ev);
	assert_non_null(s->m.cmd);
	RIG_WAIT(&s->g, redis_cmd_is_open(s->m.cmd), LONG_MS);
}

static void stage_close(struct stage *s)
{
	redis_cmd_free(s->m.cmd);
	store_stop(&s->m);
	rig_close(&s->g);
}

static void ask(struct stage *s, enum up_ask what, const char *room, const char *payload, size_t len,
		uint32_t total)
{
	const struct ask_question q = {.what = (uint8_t)what,
				       .ns = 3,
				       .room = {room, strlen(room)},
				       .payload = {payload, len},
				       .total = total,
				       .from = {.request = 7}};
	unsigned before = got.n;

	store_ask(&s->m, &q);
	RIG_WAIT(&s->g, got.n == before + 1, LONG_MS);
}

#define BEGINS(text_)         (strncmp(got.text, text_, sizeof(text_) - 1) == 0)
#define ASK(s, what, payload) ask((s), (what), "", (payload), sizeof(payload) - 1, 0)

/* ---- */

static void values_are_fetched_unless(void **state)
{
	struct stage s;

	(void)state;
	stage_open(&s, true);
	ASK(&s, UP_ASK_FETCH, "k\0");
	assert_int_equal(got.reply, REC_REPLY_NONE);
	(void)rig_command(&s.g, "SET k %b", "{\"id\":7}", (size_t)8);
	ASK(&s, UP_ASK_FETCH, "k\0");
	assert_int_equal(got.reply, REC_REPLY_OK);
	assert_string_equal(got.text, "{\"id\":7}");
	ASK(&s, UP_ASK_FETCH, "k\0seen:7");
	assert_int_equal(got.reply, REC_REPLY_OK);
	(void)rig_command(&s.g, "SET seen:7 1");
	ASK(&s, UP_ASK_FETCH, "k\0seen:7");
	assert_int_equal(got.reply, REC_REPLY_NONE);
	(void)rig_command(&s.g, "LPUSH list x");
	ASK(&s, UP_ASK_FETCH, "list\0"); /* WRONGTYPE */
	assert_int_equal(got.reply, REC_REPLY_UNAVAILABLE);
	ASK(&s, UP_ASK_FETCH, "no separator");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	ASK(&s, UP_ASK_FETCH, "\0x");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	stage_close(&s);
}

static void values_are_stored(void **state)
{
	struct stage s;

	(void)state;
	stage_open(&s, true);
	ask(&s, UP_ASK_STORE, "", "a\0v\0w", 5, 0);
	assert_int_equal(got.reply, REC_REPLY_OK);
	assert_int_equal(rig_command(&s.g, "STRLEN a"), 3);
	assert_int_equal(rig_command(&s.g, "PTTL a"), -1);
	ask(&s, UP_ASK_STORE, "", "b\0", 2, 5000);
	assert_int_equal(rig_command(&s.g, "STRLEN b"), 0);
	assert_true(rig_command(&s.g, "PTTL b") > 1000);
	ASK(&s, UP_ASK_STORE, "\0v");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	stage_close(&s);
}

static void readers_are_kept_in_redis(void **state)
{
	struct stage s;
	char *at;

	(void)state;
	stage_open(&s, true);
	ask(&s, UP_ASK_RECEIPTS, "a:b", "m%1", 3, 0);
	assert_int_equal(got.reply, REC_REPLY_OK);
	assert_string_equal(got.text, "{\"read\":[]}");
	ask(&s, UP_ASK_RECEIPTS, "a:b", "d", 1, 0);
	assert_string_equal(got.text, "{\"read\":[],\"delivered\":9}");
	ask(&s, UP_ASK_RECEIPT, "a:b", "u\"7\0m%1", 7, 0);
	assert_int_equal(got.reply, REC_REPLY_OK);
	ask(&s, UP_ASK_RECEIPT, "a:b", "u\"7\0m%1", 7, 0); /* again: the first counts */
	/* In the same millisecond Redis sorts by name: later in both orders. */
	ask(&s, UP_ASK_RECEIPT, "a:b", "v8\0m%1", 6, 0);
	ask(&s, UP_ASK_RECEIPT, "a", "9\0b:m%1", 7, 0);
	assert_int_equal(rig_command(&s.g, "ZCARD %s", "ringcast:receipts:n:a%3Ab:m%1"), 2);
	assert_int_equal(rig_command(&s.g, "ZCARD %s", "ringcast:receipts:n:a:b:m%1"), 1);
	assert_true(rig_command(&s.g, "PTTL %s", "ringcast:receipts:n:a%3Ab:m%1") > 30000);
	ask(&s, UP_ASK_RECEIPTS, "a:b", "m%1", 3, 0);
	assert_true(BEGINS("{\"read\":[{\"user\":\"u\\\"7\",\"at\":1"));
	at = strstr(got.text, "},{\"user\":\"v8\",\"at\":1");
	assert_non_null(at);
	assert_string_equal(got.text + got.len - 3, "}]}");
	ASK(&s, UP_ASK_RECEIPT, "\0m");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	ASK(&s, UP_ASK_RECEIPT, "7\0");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	ns.receipts = false;
	ASK(&s, UP_ASK_RECEIPT, "7\0m");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	stage_close(&s);
}

static void readers_are_kept_here_without_redis(void **state)
{
	struct stage s;
	char payload[64];

	(void)state;
	stage_open(&s, false);
	ASK(&s, UP_ASK_RECEIPTS, "m");
	assert_string_equal(got.text, "{\"read\":[]}");
	ASK(&s, UP_ASK_RECEIPTS, "d");
	assert_string_equal(got.text, "{\"read\":[],\"delivered\":9}");
	for (unsigned i = 0; i < RECEIPTS_LOCAL_MAX + 10; i++) {
		int len = snprintf(payload, sizeof(payload), "7%cm%u", 0, i);

		ask(&s, UP_ASK_RECEIPT, "r", payload, (size_t)len, 0);
		assert_int_equal(got.reply, REC_REPLY_OK);
		ask(&s, UP_ASK_RECEIPT, "r", payload, (size_t)len, 0);
	}
	ask(&s, UP_ASK_RECEIPT, "r", "\xc3\xa4\0m20", 6, 0);
	ask(&s, UP_ASK_RECEIPTS, "r", "m20", 3, 0);
	assert_true(BEGINS("{\"read\":[{\"user\":\"7\",\"at\":1"));
	assert_non_null(strstr(got.text, "},{\"user\":\"\xc3\xa4\",\"at\":1"));
	ask(&s, UP_ASK_RECEIPTS, "r", "m9", 2, 0); /* the oldest went */
	assert_string_equal(got.text, "{\"read\":[]}");
	ask(&s, UP_ASK_RECEIPTS, "r", "m10", 3, 0);
	assert_non_null(strstr(got.text, "\"7\""));
	ASK(&s, UP_ASK_FETCH, "k\0");
	assert_int_equal(got.reply, REC_REPLY_UNAVAILABLE);
	ASK(&s, UP_ASK_OFFLINE, "7");
	assert_int_equal(got.reply, REC_REPLY_UNAVAILABLE);
	stage_close(&s);
}

/* Length and bytes of each, in order. */
static void check_messages(const char *const *want)
{
	size_t at = 0;

	for (; *want != NULL; want++) {
		uint32_t len;

		assert_true(at + sizeof(len) <= got.len);
		memcpy(&len, got.text + at, sizeof(len));
		at += sizeof(len);
		assert_int_equal(len, strlen(*want));
		assert_memory_equal(got.text + at, *want, len);
		at += len;
	}
	assert_int_equal(at, got.len);
}

static void the_queue_is_taken_once_and_in_order(void **state)
{
	static const char *const three[] = {"one", "two", "three", NULL}, *const last[] = {"two", "three",
											   NULL};
	struct stage s;

	(void)state;
	stage_open(&s, true);
	ASK(&s, UP_ASK_OFFLINE, "7");
	assert_int_equal(got.reply, REC_REPLY_NONE);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 3; i++)
			(void)rig_command(&s.g, "XADD ringcast:offline:n:7 * m %s", three[i]);
		got.max = round == 0 ? 100000 : 16; /* 4 + 3 + 4 + 5 */
		ASK(&s, UP_ASK_OFFLINE, "7");
		assert_int_equal(got.reply, REC_REPLY_OK);
		check_messages(round == 0 ? three : last);
		ASK(&s, UP_ASK_OFFLINE, "7");
		assert_int_equal(got.reply, REC_REPLY_NONE);
		assert_int_equal(counts.offline_lost, round);
	}
	ns.offline_max = 0;
	ASK(&s, UP_ASK_OFFLINE, "7");
	assert_int_equal(got.reply, REC_REPLY_BAD);
	stage_close(&s);
}

static void silence_is_answered_in_time(void **state)
{
	const struct ask_question q = {
		.what = UP_ASK_FETCH, .ns = 3, .payload = {"k", 2}, .from = {.request = 7}};
	struct stage s;

	(void)state;
	stage_open(&s, true);
	s.m.redis_cfg.timeout = 300;
	assert_int_equal(kill(s.g.pid, SIGSTOP), 0);
	store_ask(&s.m, &q);
	store_tick(&s.m, clock_mono_ms());
	assert_int_equal(got.n, 0);
	store_tick(&s.m, clock_mono_ms() + 301);
	assert_int_equal(got.n, 1);
	assert_int_equal(got.reply, REC_REPLY_UNAVAILABLE);
	assert_int_equal(kill(s.g.pid, SIGCONT), 0);
	rig_run(&s.g, 100); /* the late answer is nobody's */
	assert_int_equal(got.n, 1);
	/* The link is lost while one is under way: answered, too. */
	assert_int_equal(kill(s.g.pid, SIGSTOP), 0);
	store_ask(&s.m, &q);
	rig_redis_kill(&s.g);
	RIG_WAIT(&s.g, got.n == 2, LONG_MS);
	assert_int_equal(got.reply, REC_REPLY_UNAVAILABLE);
	stage_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_fetched_unless),
		cmocka_unit_test(values_are_stored),
		cmocka_unit_test(readers_are_kept_in_redis),
		cmocka_unit_test(readers_are_kept_here_without_redis),
		cmocka_unit_test(the_queue_is_taken_once_and_in_order),
		cmocka_unit_test(silence_is_answered_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
