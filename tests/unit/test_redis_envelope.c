/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_route.c master/redis_watch.c */
/* Json namespaces on Redis: one channel for everybody, on which own messages are known by their keys alone.
 */
#include "tests/unit/redis_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/wsframe.h"
#include "master/redis_form.h"

#define LONG_MS 20000

static void say_raw(struct rig *g, const char *text)
{
	rig_publish(g, "c:1", text, strlen(text));
}

static void open_pair(struct rig *g, struct rig_node *a, struct rig_node *b)
{
	rig_open(g);
	rig_redis_start(g, NULL);
	rig_node_init(a, g, 11);
	rig_node_init(b, g, 22);
	rig_node_open(a);
	rig_node_open(b);
}

/* What an original replica, which knows no keys of ours, finds on the channel. */
static void own_messages_travel_signed_on_the_bare_channel(void **state)
{
	static const char want[] = "{\"m\":\"x\",\"_rc_origin\":\"000000000000000b\",\"_rc_id\":1}";
	struct rig g;
	struct rig_node a, b;
	struct redis_sub *sub;

	(void)state;
	open_pair(&g, &a, &b);
	b.ns.envelope = CFG_ENVELOPE_PLAIN; /* it sees the bytes */
	sub = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1 && b.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "x", 1), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 1 && b.n_got == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_int_equal(b.got[0].origin, 0);
	assert_int_equal(b.got[0].len, sizeof(want) - 1);
	assert_memory_equal(b.got[0].head, want, 31);
	assert_string_equal(a.got[0].head, "x");
	assert_string_equal(a.got[0].room, "room");
	assert_int_equal(a.got[0].origin, 11);
	assert_int_equal(a.got[0].id, 1);
	assert_int_equal(a.got[0].request, 1);
	assert_int_equal(a.got[0].opcode, WS_TEXT);
	assert_true(a.got[0].is_read);
	assert_false(a.got[0].local);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* An application publishes to the same channel: no origin, and no key of ours that would make one. */
static void what_is_not_just_so_is_foreign(void **state)
{
	static const struct {
		const char *text;
		bool is_read;
	} v[] = {
		{"{\"m\":\"a\"}", true},
		{"{\"_target_users\":[1],\"a\":1}", true},
		{"{\"_rc_origin\":\"000000000000000b\",\"_rc_id\":99}",
		 true}, /* ours, an id never given out */
		{"{\"_rc_origin\":\"000000000000000B\",\"_rc_id\":\"1\"}", true},
		{"{\"_rc_origin\":11,\"_rc_id\":1}", true},
		{"{\"_rc_origin\":\"0000000000000063\"}", true},
		{"{\"_rc_id\":5}", true},
		{"{\"_rc_origin\":\"0000000000000063\",\"_rc_id\":0}", true},
		{"not JSON", false},
		{"[1]", false},
		{"", false},
		{"\xff\xfe", false},
	};
	struct rig g;
	struct rig_node a, b;

	(void)state;
	open_pair(&g, &a, &b);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		say_raw(&g, v[i].text);
		RIG_WAIT(&g, a.n_got == i + 1, LONG_MS);
		assert_int_equal(a.got[i].origin, 0);
		assert_int_equal(a.got[i].id, 0);
		assert_int_equal(a.got[i].opcode, 0);
		assert_int_equal(a.got[i].is_read, v[i].is_read);
	}
	assert_int_equal(rig_stats_of(&a).bad_form, 0);
	assert_int_equal(rig_stats_of(&a).duplicates, 0);
	assert_true(a.up);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

static void ids_of_a_replica_only_grow(void **state)
{
	static const unsigned ids[] = {5, 5, 4, 6, 5, 6, 7};
	struct rig g;
	struct rig_node a, b;
	char text[100];

	(void)state;
	open_pair(&g, &a, &b);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		assert_true(snprintf(text, sizeof(text),
				     "{\"m\":\"%u\",\"_rc_origin\":\"0000000000000063\",\"_rc_id\":%u}",
				     ids[i], ids[i]) > 0);
		say_raw(&g, text);
	}
	say_raw(&g, "{\"m\":\"end\"}");
	RIG_WAIT(&g, a.n_got == 4, LONG_MS);
	assert_string_equal(a.got[0].head, "5");
	assert_string_equal(a.got[1].head, "6");
	assert_string_equal(a.got[2].head, "7");
	assert_int_equal(a.got[2].origin, 0x63);
	assert_int_equal(a.got[2].opcode, WS_TEXT);
	assert_string_equal(a.got[3].head, "end");
	assert_int_equal(rig_stats_of(&a).duplicates, 4);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* Exactly the limit, with all that signing adds, is read; one byte more is the sequencer's to drop unread. */
static void what_is_too_large_is_not_read(void **state)
{
	struct rig g;
	struct rig_node a, b;
	size_t max, len;
	char *text;

	(void)state;
	open_pair(&g, &a, &b);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	max = a.ns.max_publication + ENVELOPE_SIGN_MAX;
	text = malloc(max + 1);
	assert_non_null(text);
	for (size_t i = 0; i < 2; i++) {
		len = max + i;
		memset(text, ' ', len);
		text[0] = '{';
		text[len - 1] = '}';
		rig_publish(&g, "c:1", text, len);
		RIG_WAIT(&g, a.n_got == i + 1, LONG_MS);
		assert_int_equal(a.got[i].is_read, i == 0);
	}
	free(text);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* A large text of our own: signed, there and back; as large as the pending list, so one at a time. */
static void a_large_own_text_comes_back_whole(void **state)
{
	struct rig g;
	struct rig_node a, b;
	struct redis_sub *sub;
	size_t len = 1 << 20;
	char *text = malloc(len + 1);

	(void)state;
	assert_non_null(text);
	open_pair(&g, &a, &b);
	sub = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1 && b.subscribed == 1, LONG_MS);
	memset(text, 'x', len);
	text[len] = '\0';
	for (unsigned i = 1; i <= 3; i++) {
		text[len - 1] = (char)('0' + i);
		assert_int_equal(rig_say(&a, "c:1", sub, text, i), REDIS_SENT);
		RIG_WAIT(&g, a.n_got == i && b.n_got == i, LONG_MS);
		assert_int_equal(a.got[i - 1].len, len);
		assert_int_equal(b.got[i - 1].len, len);
		assert_int_equal(a.got[i - 1].hash, b.got[i - 1].hash);
		assert_int_equal(b.got[i - 1].origin, 11);
		assert_int_equal(b.got[i - 1].id, i);
	}
	assert_int_not_equal(a.got[0].hash, a.got[1].hash);
	free(text);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* A replica whose namespace is still plain speaks in the own form; ours understands it and counts its ids. */
static void the_own_form_is_understood_as_well(void **state)
{
	uint8_t m[REDIS_FORM_HEADER + 9];
	struct rig g;
	struct rig_node a, b;

	(void)state;
	open_pair(&g, &a, &b);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	redis_form_put(m, WS_TEXT, 99, 3);
	memcpy(m + REDIS_FORM_HEADER, "{\"m\":\"y\"}", 9);
	rig_publish(&g, REDIS_META_PREFIX "c:1", m, sizeof(m));
	say_raw(&g, "{\"m\":\"old\",\"_rc_origin\":\"0000000000000063\",\"_rc_id\":3}");
	say_raw(&g, "{\"m\":\"new\",\"_rc_origin\":\"0000000000000063\",\"_rc_id\":4}");
	RIG_WAIT(&g, a.n_got == 2, LONG_MS);
	assert_string_equal(a.got[0].head, "y");
	assert_string_equal(a.got[1].head, "new");
	assert_int_equal(rig_stats_of(&a).duplicates, 1);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(own_messages_travel_signed_on_the_bare_channel),
		cmocka_unit_test(what_is_not_just_so_is_foreign),
		cmocka_unit_test(ids_of_a_replica_only_grow),
		cmocka_unit_test(what_is_too_large_is_not_read),
		cmocka_unit_test(a_large_own_text_comes_back_whole),
		cmocka_unit_test(the_own_form_is_understood_as_well),
	};

	rig_is_json = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
