/* LINK: master/redis_form.c master/redis_reply.c master/redis_hello.c master/redis_pending.c */
/* The pure parts of the Redis side: the form of own messages, who was heard, RESP, the greeting, the pending
 * list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/wsframe.h"
#include "master/redis_form.h"
#include "master/redis_hello.h"
#include "master/redis_pending.h"
#include "master/redis_reply.h"
#include "master/redis_resp.h"

/* ---- the form ---- */

static void the_form_is_written_to_the_byte(void **state)
{
	static const uint8_t want[REDIS_FORM_HEADER] = {1,    2,    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
							0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10};
	uint8_t got[REDIS_FORM_HEADER + 3];
	struct redis_form f;

	(void)state;
	redis_form_put(got, WS_BINARY, 0x0123456789abcdef, 0xfedcba9876543210);
	assert_memory_equal(got, want, sizeof(want));
	memcpy(got + REDIS_FORM_HEADER, "a\0b", 3);
	assert_true(redis_form_get(&f, (char *)got, sizeof(got)));
	assert_int_equal(f.opcode, WS_BINARY);
	assert_true(f.origin == 0x0123456789abcdef && f.id == 0xfedcba9876543210);
	assert_int_equal(f.payload.len, 3);
	assert_ptr_equal(f.payload.p, got + REDIS_FORM_HEADER);
	assert_true(redis_form_get(&f, (char *)got, REDIS_FORM_HEADER));
	assert_int_equal(f.payload.len, 0);
}

static void what_is_no_form_is_refused(void **state)
{
	uint8_t m[REDIS_FORM_HEADER], bad[REDIS_FORM_HEADER];
	struct redis_form f;

	(void)state;
	redis_form_put(m, WS_TEXT, 5, 6);
	for (size_t len = 0; len < sizeof(m); len++)
		assert_false(redis_form_get(&f, (char *)m, len));
	for (unsigned v = 0; v < 256; v++) {
		memcpy(bad, m, sizeof(m));
		bad[0] = (uint8_t)v;
		assert_int_equal(redis_form_get(&f, (char *)bad, sizeof(bad)), v == 1);
		memcpy(bad, m, sizeof(m));
		bad[1] = (uint8_t)v;
		assert_int_equal(redis_form_get(&f, (char *)bad, sizeof(bad)),
				 (v & 0x7f) == 1 || (v & 0x7f) == 2);
		assert_int_equal(f.is_asking, v >> 7);
		assert_int_equal(f.opcode, v & 0x7f);
	}
	redis_form_put(m, WS_TEXT, 0, 6);
	assert_false(redis_form_get(&f, (char *)m, sizeof(m)));
	redis_form_put(m, WS_TEXT, 5, 0);
	assert_false(redis_form_get(&f, (char *)m, sizeof(m)));
}

/* ---- origins ---- */

static void each_origin_has_its_own_last_id(void **state)
{
	struct redis_origins *o = redis_origins_new();

	(void)state;
	assert_non_null(o);
	assert_int_equal(redis_origins_last(o, 7), 0);
	redis_origins_heard(o, 7, 3);
	redis_origins_heard(o, 8, UINT64_MAX);
	redis_origins_heard(o, 7, 4);
	assert_int_equal(redis_origins_last(o, 7), 4);
	assert_true(redis_origins_last(o, 8) == UINT64_MAX);
	assert_int_equal(redis_origins_last(o, 9), 0);
	redis_origins_free(o);
}

/* Against a plain array: the table keeps exactly the last 1024 origins heard. */
static void the_origin_silent_for_longest_is_forgotten(void **state)
{
	enum { ORIGINS = 3000, STEPS = 40000 };
	static uint64_t last[ORIGINS], when[ORIGINS];
	struct redis_origins *o = redis_origins_new();
	uint32_t seed = 1;

	(void)state;
	assert_non_null(o);
	for (uint64_t step = 1; step <= STEPS; step++) {
		unsigned i, newer = 0;

		seed = seed * 1664525u + 1013904223u;
		i = (seed >> 8) % (step % 3 == 0 ? 50 : ORIGINS);
		for (unsigned k = 0; k < ORIGINS; k++)
			newer += when[k] > when[i];
		if (when[i] == 0 || newer >= REDIS_ORIGINS_MAX)
			last[i] = 0;
		assert_int_equal(redis_origins_last(o, i * 1024ull + 1), last[i]);
		redis_origins_heard(o, i * 1024ull + 1, step);
		last[i] = when[i] = step;
	}
	redis_origins_free(o);
}

/* ---- RESP ---- */

struct seen {
	struct redis_reply *r;
	char log[512];
	int pause_at; /* call redis_reply_pause() in that item */
	int items;
	bool no_arrays, refuse;
};

static void note(struct seen *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void note(struct seen *s, const char *fmt, ...)
{
	size_t at = strlen(s->log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->log + at, sizeof(s->log) - at, fmt, ap);
	va_end(ap);
}

static bool on_array(void *arg)
{
	return !((struct seen *)arg)->no_arrays;
}

static bool on_item(void *arg, const struct redis_item *it)
{
	struct seen *s = arg;

	note(s, "[%d/%d t%d %.*s]", it->idx, it->elements, it->type, (int)(it->len < 20 ? it->len : 20),
	     it->p == NULL ? "" : it->p);
	if (++s->items == s->pause_at)
		redis_reply_pause(s->r);
	return !s->refuse;
}

static bool on_plain(void *arg, int type, const char *p, size_t len)
{
	if (type == REDIS_REPLY_INTEGER) {
		long long value;

		assert_int_equal(len, sizeof(value));
		memcpy(&value, p, sizeof(value));
		note(arg, "(t%d %lld)", type, value);
		return true;
	}
	note(arg, "(t%d %.*s)", type, (int)len, p == NULL ? "" : p);
	return true;
}

static void seen_open(struct seen *s)
{
	struct redis_reply_events ev = {.arg = s, .array = on_array, .item = on_item, .plain = on_plain};

	memset(s, 0, sizeof(*s));
	s->r = redis_reply_new(&ev);
	assert_non_null(s->r);
}

static const char mixed[] = "+PONG\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n:17\r\n-ERR no\r\n"
			    "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n$3\r\nabc\r\n";
static const char mixed_seen[] = "(t5 PONG)[0/3 t1 message][1/3 t1 c][2/3 t1 a\r\nb](t3 17)(t6 ERR no)"
				 "[0/3 t1 unsubscribe][1/3 t4 ][2/3 t3 ](t1 abc)";

static void replies_are_the_same_however_they_are_cut(void **state)
{
	struct seen s;
	size_t len = sizeof(mixed) - 1;

	(void)state;
	for (size_t i = 0; i <= len; i++)
		for (size_t k = i; k <= len; k++) {
			seen_open(&s);
			assert_true(redis_reply_feed(s.r, mixed, i));
			assert_true(redis_reply_feed(s.r, mixed + i, k - i));
			assert_true(redis_reply_feed(s.r, mixed + k, len - k));
			assert_string_equal(s.log, mixed_seen);
			redis_reply_free(s.r);
		}
}

static void a_pause_keeps_what_follows(void **state)
{
	struct seen s;

	(void)state;
	for (int at = 1; at <= 6; at++) {
		seen_open(&s);
		s.pause_at = at;
		assert_true(redis_reply_feed(s.r, mixed, sizeof(mixed) - 1));
		assert_int_equal(s.items, at <= 3 ? 3 : 6); /* to the end of the reply */
		assert_true(redis_reply_feed(s.r, "+more\r\n", 7));
		assert_true(redis_reply_resume(s.r));
		assert_memory_equal(s.log, mixed_seen, sizeof(mixed_seen) - 1);
		assert_string_equal(s.log + sizeof(mixed_seen) - 1, "(t5 more)");
		redis_reply_free(s.r);
	}
}

static void a_conversation_ends_with_one_word(void **state)
{
	static const struct {
		const char *bytes, *why;
	} cases[] = {
		{"%1\r\n", "protocol"},
		{"\r\n", "protocol"},
		{"*0\r\n", "protocol"},
		{"*1\r\n*1\r\n$1\r\nx\r\n", "protocol"},
		{":x\r\n", "protocol"},
		{"*2147483648\r\n", "protocol"},
		{"$16777217", "oversized"},
		{"$999999999999999999999", "oversized"},
		{"$000000000000000000000", "oversized"},
		{"*1\r\n$16777217\r\n", "oversized"},
	};
	char line[1100];
	struct seen s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		seen_open(&s);
		assert_false(redis_reply_feed(s.r, cases[i].bytes, strlen(cases[i].bytes)));
		assert_string_equal(redis_reply_why(s.r), cases[i].why);
		assert_false(redis_reply_feed(s.r, "+OK\r\n", 5));
		assert_string_equal(s.log, "");
		redis_reply_free(s.r);
	}
	seen_open(&s);
	memset(line, 'x', sizeof(line));
	line[0] = '-';
	assert_true(redis_reply_feed(s.r, line, 1000));
	assert_false(redis_reply_feed(s.r, line + 1, 100));
	redis_reply_free(s.r);
	seen_open(&s); /* exactly the limit is fine */
	redis_reply_set_max_bulk(s.r, 10);
	assert_true(redis_reply_feed(s.r, "$10\r\n", 5));
	assert_true(redis_reply_feed(s.r, "0123456789\r\n", 12));
	assert_string_equal(s.log, "(t1 0123456789)");
	assert_false(redis_reply_feed(s.r, "$11", 3));
	redis_reply_free(s.r);
	seen_open(&s);
	s.refuse = true;
	assert_false(redis_reply_feed(s.r, mixed, sizeof(mixed) - 1));
	assert_string_equal(s.log, "(t5 PONG)[0/3 t1 message]");
	redis_reply_free(s.r);
}

static void heads_are_written_in_decimal(void **state)
{
	char head[RESP_HEAD_MAX + 1];

	(void)state;
	head[resp_head(head, '$', 0)] = '\0';
	assert_string_equal(head, "$0\r\n");
	head[resp_head(head, '*', UINT64_MAX)] = '\0';
	assert_string_equal(head, "*18446744073709551615\r\n");
}

/* ---- the greeting ---- */

static char *str(const char *s)
{
	return (char *)(uintptr_t)s;
}

#define INFOS "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n*2\r\n$4\r\nINFO\r\n$7\r\ncluster\r\n"

static void check_greeting(const struct cfg_redis *cfg, bool is_sentinel, const char *want)
{
	struct redis_hello h;
	struct buf out = {0};

	assert_int_equal(redis_hello_put(&h, cfg, is_sentinel, &out), 0);
	assert_int_equal(out.len, strlen(want));
	assert_memory_equal(out.p, want, out.len);
	redis_hello_wipe(&out);
	for (size_t i = 0; i < out.cap; i++)
		assert_int_equal(out.p[i], 0);
	buf_free(&out);
}

static void the_greeting_fits_what_is_configured(void **state)
{
	struct cfg_redis cfg = {0};

	(void)state;
	check_greeting(&cfg, false, INFOS "*1\r\n$4\r\nPING\r\n");
	check_greeting(&cfg, true, "*1\r\n$4\r\nPING\r\n");
	cfg.password = str("p w");
	cfg.db = 12;
	check_greeting(&cfg, false,
		       "*2\r\n$4\r\nAUTH\r\n$3\r\np w\r\n*2\r\n$6\r\nSELECT\r\n$2\r\n12\r\n" INFOS
		       "*1\r\n$4\r\nPING\r\n");
	check_greeting(&cfg, true, "*2\r\n$4\r\nAUTH\r\n$3\r\np w\r\n*1\r\n$4\r\nPING\r\n");
	cfg.user = str("u");
	cfg.db = 0;
	check_greeting(&cfg, false,
		       "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$3\r\np w\r\n" INFOS "*1\r\n$4\r\nPING\r\n");
}

static enum redis_hello_result answer(struct redis_hello *h, int type, const char *text)
{
	struct redis_word w;

	return redis_hello_answer(h, type, text, strlen(text), &w);
}

#define MASTER  "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
#define REPLICA "# Replication\r\nrole:slave\r\nmaster_host:role:master\r\n"

/* One conversation: the answers to INFO replication, INFO cluster, and PING. */
static enum redis_hello_result greet(struct redis_hello *h, int type, const char *role, const char *cluster)
{
	const struct cfg_redis cfg = {0};
	struct buf out = {0};

	assert_int_equal(redis_hello_put(h, &cfg, false, &out), 0);
	buf_free(&out);
	assert_int_equal(answer(h, type, role), HELLO_MORE);
	assert_int_equal(answer(h, REDIS_REPLY_STRING, cluster), HELLO_MORE);
	return answer(h, REDIS_REPLY_STATUS, "PONG");
}

static void a_replica_is_refused(void **state)
{
	static const char none[] = "# Cluster\r\ncluster_enabled:0\r\n",
			  some[] = "# Cluster\r\ncluster_enabled:1\r\n";
	struct redis_hello h;

	(void)state;
	log_set_level(LOG_ERROR);
	assert_int_equal(greet(&h, REDIS_REPLY_STRING, MASTER, none), HELLO_DONE);
	assert_int_equal(h.role, REDIS_ROLE_MASTER);
	assert_false(h.is_cluster);
	assert_int_equal(greet(&h, REDIS_REPLY_STRING, REPLICA, none), HELLO_REPLICA);
	assert_int_equal(h.role, REDIS_ROLE_REPLICA);
	/* Any node of a cluster tells all others. */
	assert_int_equal(greet(&h, REDIS_REPLY_STRING, REPLICA, some), HELLO_DONE);
	assert_true(h.is_cluster);
	/* Who may not see it takes it as it is. */
	assert_int_equal(greet(&h, REDIS_REPLY_ERROR, "NOPERM no", none), HELLO_DONE);
	assert_int_equal(h.role, REDIS_ROLE_UNKNOWN);
	assert_int_equal(greet(&h, REDIS_REPLY_STRING, "xrole:slave\r\n", none), HELLO_DONE);
	assert_int_equal(h.role, REDIS_ROLE_UNKNOWN);
	assert_int_equal(greet(&h, REDIS_REPLY_STRING, "", ""), HELLO_DONE);
}

static void a_sentinel_may_refuse_a_password(void **state)
{
	struct cfg_redis cfg = {.password = str("x"), .db = 3};
	struct redis_hello h;
	struct buf out = {0};

	(void)state;
	assert_int_equal(redis_hello_put(&h, &cfg, true, &out), 0);
	assert_int_equal(answer(&h, REDIS_REPLY_ERROR, "ERR AUTH without any password"), HELLO_MORE);
	assert_int_equal(answer(&h, REDIS_REPLY_STATUS, "PONG"), HELLO_DONE);
	assert_int_equal(redis_hello_put(&h, &cfg, true, &out), 0);
	assert_int_equal(answer(&h, REDIS_REPLY_ERROR, "WRONGPASS"), HELLO_MORE);
	assert_int_equal(answer(&h, REDIS_REPLY_ERROR, "NOAUTH"), HELLO_REFUSED);
	buf_free(&out);
}

static void only_select_and_info_may_fail(void **state)
{
	struct cfg_redis cfg = {.password = str("x"), .db = 1};
	struct redis_word w;
	struct redis_hello h;
	struct buf out = {0};

	(void)state;
	log_set_level(LOG_ERROR);
	assert_int_equal(redis_hello_put(&h, &cfg, false, &out), 0);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_STATUS, "OK", 2, &w), HELLO_MORE);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_ERROR, "NOPERM x", 8, &w), HELLO_MORE);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_ERROR, "NOPERM x", 8, &w), HELLO_MORE);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_ERROR, "NOPERM x", 8, &w), HELLO_MORE);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_STATUS, "PONG", 4, &w), HELLO_DONE);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_STATUS, "PONG", 4, &w), HELLO_NONSENSE);
	assert_int_equal(redis_hello_put(&h, &cfg, false, &out), 0);
	assert_int_equal(redis_hello_answer(&h, REDIS_REPLY_ERROR, "WRONGPASS no", 12, &w), HELLO_REFUSED);
	assert_string_equal(w.s, "WRONGPASS");
	assert_true(redis_word_denies_service(&w));
	redis_word_take(&w, "AVERYLONGWORDTHATDOESNOTFITINTOTHESPACE x", 41);
	assert_int_equal(strlen(w.s), sizeof(w.s) - 1);
	redis_word_take(&w, "ERR\n", 4);
	assert_string_equal(w.s, "ERR");
	assert_false(redis_word_denies_service(&w));
	redis_word_take(&w, "", 0);
	assert_string_equal(w.s, "");
	buf_free(&out);
}

/* ---- the pending list ---- */

static struct redis_entry *add(struct redis_pending *p, uint64_t id)
{
	struct redis_entry_spec spec = {.origin = 9,
					.id = id,
					.opcode = WS_TEXT,
					.channel = "c",
					.room = {"room", 4},
					.payload = {"hello", 5}};
	uint64_t before = p->bytes;
	struct redis_entry *e = redis_pending_add(p, &spec);

	assert_non_null(e);
	assert_true(p->bytes > before && p->bytes - before <= redis_entry_cost(&spec));
	e->flags = ENTRY_WANTED;
	return e;
}

static void an_entry_holds_the_finished_command(void **state)
{
	struct redis_pending p = {0};
	struct redis_entry *e = add(&p, 1);
	struct slice room = redis_entry_room(e), payload = redis_entry_payload(e);
	static const char want[] = "*3\r\n$7\r\nPUBLISH\r\n$12\r\nringcast:m:c\r\n$23\r\n\1\1"
				   "\0\0\0\0\0\0\0\11\0\0\0\0\0\0\0\1hello\r\n";

	(void)state;
	assert_int_equal(e->cmd_len, sizeof(want) - 1);
	assert_memory_equal(e->cmd, want, sizeof(want) - 1);
	assert_memory_equal(room.p, "room", room.len);
	assert_memory_equal(payload.p, "hello", payload.len);
	assert_int_equal(room.len + payload.len, 9);
	redis_pending_free(&p);
	assert_int_equal(p.bytes + p.count, 0);
}

static void answers_are_matched_by_order(void **state)
{
	struct redis_pending p = {0};
	struct redis_entry *e[4], *missed;

	(void)state;
	for (uint64_t i = 0; i < 4; i++)
		e[i] = add(&p, 10 + i);
	assert_null(redis_pending_replied(&p));
	redis_pending_sent(&p);
	redis_pending_sent(&p);
	assert_ptr_equal(p.next_send, e[2]);
	assert_ptr_equal(redis_pending_replied(&p), e[0]);
	assert_false(redis_entry_is_done(e[0])); /* wanted: its echo is to come */
	assert_ptr_equal(redis_pending_find(&p, 11, &missed), e[1]);
	assert_ptr_equal(missed, e[0]);
	e[1]->flags |= ENTRY_ECHOED;
	assert_false(redis_entry_is_done(e[1])); /* in flight */
	assert_ptr_equal(redis_pending_replied(&p), e[1]);
	assert_true(redis_entry_is_done(e[1]));
	redis_pending_remove(&p, e[1]);
	assert_null(redis_pending_replied(&p));
	assert_null(redis_pending_find(&p, 11, &missed));
	redis_pending_free(&p);
}

static void a_lost_link_means_sending_again(void **state)
{
	struct redis_pending p = {0};
	struct redis_entry *e[3];

	(void)state;
	for (uint64_t i = 0; i < 3; i++)
		e[i] = add(&p, 1 + i);
	redis_pending_sent(&p);
	redis_pending_sent(&p);
	assert_ptr_equal(redis_pending_replied(&p), e[0]);
	e[0]->flags &= (uint8_t)~ENTRY_WANTED;
	assert_true(redis_entry_is_done(e[0]));
	redis_pending_mark(&p);
	assert_false(redis_entry_is_done(e[0])); /* others may have missed it */
	redis_pending_unsend(&p);
	assert_int_equal(p.inflight, 0);
	assert_ptr_equal(p.next_send, e[0]);
	redis_pending_rewind(&p);
	for (int i = 0; i < 3; i++) {
		assert_ptr_equal(p.next_send, e[i]);
		redis_pending_sent(&p);
	}
	assert_null(p.next_send);
	assert_ptr_equal(redis_pending_replied(&p), e[0]);
	assert_true(redis_entry_is_done(e[0]));
	redis_pending_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_form_is_written_to_the_byte),
		cmocka_unit_test(what_is_no_form_is_refused),
		cmocka_unit_test(each_origin_has_its_own_last_id),
		cmocka_unit_test(the_origin_silent_for_longest_is_forgotten),
		cmocka_unit_test(replies_are_the_same_however_they_are_cut),
		cmocka_unit_test(a_pause_keeps_what_follows),
		cmocka_unit_test(a_conversation_ends_with_one_word),
		cmocka_unit_test(heads_are_written_in_decimal),
		cmocka_unit_test(the_greeting_fits_what_is_configured),
		cmocka_unit_test(only_select_and_info_may_fail),
		cmocka_unit_test(a_replica_is_refused),
		cmocka_unit_test(a_sentinel_may_refuse_a_password),
		cmocka_unit_test(an_entry_holds_the_finished_command),
		cmocka_unit_test(answers_are_matched_by_order),
		cmocka_unit_test(a_lost_link_means_sending_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
