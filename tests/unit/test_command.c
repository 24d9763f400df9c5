/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* What an operator orders: disconnect by user, session, connection and channel; groups. And what he asks:
 * channels. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/json.h"
#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"
#include "worker/user_int.h"

#define SLICE(s)  ((struct slice){(s), strlen(s)})
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct rig r;
static struct rig_client a, b, c, d;

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
	a.fd = b.fd = c.fd = d.fd = -1;
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_hang_up(&c);
	rig_hang_up(&d);
	rig_settle(&r);
	rig_pass(&r, 6000);
	assert_int_equal(r.w->conns.n, 0);
	rig_stop(&r);
}

static void order(const char *json)
{
	struct rec h = {.type = REC_CONTROL};

	rig_control_payload(&r, &h, (struct slice){0}, SLICE(json));
	rig_settle(&r);
	rig_check(&r);
}

static void a_user_in_all_namespaces(void **state)
{
	(void)state;
	begin();
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/skip/y", 0, "7", NULL);
	rig_connect_as(&r, &c, "/ws/x", 0, "8", NULL);
	rig_connect_as(&r, &d, "/ws/z", 0, "7", NULL);
	order("{\"method\":\"disconnect\",\"user\":7,\"namespace\":\"skip\",\"code\":4001,\"reason\":"
	      "\"bye\"}");
	rig_expect_close(&r, &b, 4001);
	rig_expect_nothing(&r, &a);
	order("{\"method\":\"disconnect\",\"user\":\"7\"}");
	rig_expect_close(&r, &a, 1008);
	rig_expect_close(&r, &d, 1008);
	rig_expect_nothing(&r, &c);
	assert_int_equal(RIG_COUNT(&r, evicted), 3);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1008]), 2);
	end();
}

static void only_codes_that_a_server_may_send(void **state)
{
	static const struct {
		const char *json;
		uint16_t code;
	} cases[] = {
		{"1000", 1008}, {"1001", 1001}, {"1005", 1008}, {"1006", 1008},  {"1012", 1012},
		{"1015", 1008}, {"2999", 1008}, {"3000", 3000}, {"4999", 4999},  {"5000", 1008},
		{"-1", 1008},   {"1e3", 1008},  {"null", 1008}, {"99999", 1008}, {"\"4000\"", 1008},
	};

	(void)state;
	begin();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char json[200];

		rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
		snprintf(json, sizeof(json), "{\"method\":\"disconnect\",\"user\":\"7\",\"code\":%s}",
			 cases[i].json);
		order(json);
		rig_expect_close(&r, &a, cases[i].code);
		rig_hang_up(&a);
	}
	end();
}

static void a_session(void **state)
{
	(void)state;
	begin();
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/ws/x", 0, "7", NULL);
	rig_tell(&r, &a, SLICE("s-1"), (struct slice){0});
	rig_tell(&r, &b, SLICE("s-2"), (struct slice){0});
	order("{\"method\":\"disconnect\",\"session\":\"s-2\",\"namespace\":\"skip\"}");
	order("{\"method\":\"disconnect\",\"session\":\"s-3\"}");
	rig_expect_nothing(&r, &b);
	order("{\"method\":\"disconnect\",\"session\":\"s-2\"}");
	rig_expect_close(&r, &b, 1008);
	rig_expect_nothing(&r, &a);
	end();
}

static void a_connection(void **state)
{
	char id[CONN_ID_SIZE], json[200];

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/x", 0);
	rig_connect(&r, &b, "/ws/x", 0);
	conn_id(r.w, rig_conn(&r, &b), id);
	id[0] ^= 1; /* of another host */
	snprintf(json, sizeof(json), "{\"method\":\"disconnect\",\"conn\":\"%s\"}", id);
	order(json);
	rig_expect_nothing(&r, &b);
	id[0] ^= 1;
	snprintf(json, sizeof(json), "{\"method\":\"disconnect\",\"conn\":\"%s\"}", id);
	order(json);
	rig_expect_close(&r, &b, 1008);
	rig_expect_nothing(&r, &a);
	order("{\"method\":\"disconnect\",\"conn\":\"fffff\"}");
	order("{\"method\":\"disconnect\",\"conn\":\"zz\"}");
	end();
}

static void a_channel(void **state)
{
	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/x", 0);
	rig_connect_as(&r, &b, "/ws/x", 0, "7", NULL);
	rig_connect(&r, &c, "/ws/y", 0);
	rig_connect_as(&r, &d, "/family", 0, "7", NULL);
	order("{\"method\":\"disconnect\",\"channel\":\"demo:x\"}");
	rig_expect_close(&r, &a, 1008);
	rig_expect_close(&r, &b, 1008);
	order("{\"method\":\"disconnect\",\"channel\":\"demo\"}"); /* nobody is in that one */
	order("{\"method\":\"disconnect\",\"channel\":\"nonsense:x\"}");
	rig_expect_nothing(&r, &c);
	rig_expect_nothing(&r, &d);
	order("{\"method\":\"disconnect\",\"channel\":\"family\"}");
	rig_expect_close(&r, &d, 1008);
	end();
}

static void many_at_once(void **state)
{
	enum { N = 500 };
	static struct rig_client many[N];
	uint64_t before;

	(void)state;
	begin();
	for (int i = 0; i < N; i++)
		rig_connect_as(&r, &many[i], i % 3 == 0 ? "/ws/x" : "/ws/y", 0, "7", LIST("red"));
	before = slot_heartbeat(&r.slot);
	order("{\"method\":\"disconnect\",\"user\":\"7\"}");
	assert_true(slot_heartbeat(&r.slot) >= before + N / 64);
	for (int i = 0; i < N; i++) {
		rig_expect_close(&r, &many[i], 1008);
		rig_hang_up(&many[i]);
	}
	end();
}

/* Who has been authorized, but waits for a channel, does not slip through. */
static void pending_ones_do_not_slip_through(void **state)
{
	(void)state;
	begin();
	r.hold_control = true;
	for (int i = 0; i < 2; i++) {
		struct rig_client *k = i == 0 ? &a : &b;

		rig_dial(&r, k, 0);
		rig_identify(&r, k, "7", NULL);
		rig_request(k, "/ws/x"); /* waits for the namespace's channel */
	}
	rig_dial(&r, &c, 0);
	rig_identify(&r, &c, "8", NULL);
	rig_request(&c, "/ws/x");
	rig_settle(&r);
	order("{\"method\":\"disconnect\",\"user\":\"7\"}");
	r.hold_control = false;
	rig_settle(&r);
	r.hold_control = true; /* now a room's is waited for */
	rig_dial(&r, &d, 0);
	rig_identify(&r, &d, "7", NULL);
	rig_request(&d, "/ws/z");
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &d)->state, CONN_JOINING);
	order("{\"method\":\"disconnect\",\"user\":\"7\"}");
	r.hold_control = false;
	rig_settle(&r);
	for (int i = 0; i < 3; i++) {
		struct rig_client *k = i == 0 ? &a : i == 1 ? &b : &d;

		rig_read(k, 0);
		assert_true(k->in.len > 12);
		assert_memory_equal(k->in.p, "HTTP/1.1 403", 12);
	}
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	assert_int_equal(RIG_COUNT(&r, evicted), 3);
	end();
}

/* accept-then-close: it gets its 101 and then the Close, whatever it waited for. */
static void pending_ones_are_refused_as_configured(void **state)
{
	(void)state;
	begin();
	r.namespaces[RIG_DEMO].refuse = CFG_REFUSE_CLOSE;
	rig_connect_as(&r, &c, "/ws/y", 0, "8", NULL);
	r.hold_control = true;
	rig_dial(&r, &a, 0);
	rig_identify(&r, &a, "7", NULL);
	rig_request(&a, "/ws/x");
	rig_settle(&r);
	order("{\"method\":\"disconnect\",\"user\":\"7\",\"code\":4003}");
	rig_read(&a, 0);
	assert_true(rig_take_101(&a));
	rig_expect_close(&r, &a, 4003);
	rig_dial(&r, &b, 0);
	rig_identify(&r, &b, "7", NULL);
	rig_request(&b, "/ws/z");
	rig_settle(&r);
	order("{\"method\":\"disconnect\",\"channel\":\"demo:z\",\"code\":4004}");
	rig_read(&b, 0);
	assert_true(rig_take_101(&b));
	rig_expect_close(&r, &b, 4004);
	r.hold_control = false;
	end();
}

static void groups_take_effect_on_the_next_message(void **state)
{
	(void)state;
	begin();
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/ws/x", 0, "8", LIST("team"));
	order("{\"method\":\"groups\",\"group\":\"team\",\"add\":[7,null,{}],\"remove\":[\"8\",\"99\"]}");
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, NULL, LIST("team"), "go", 2, 0);
	rig_expect(&r, &a, "go");
	rig_expect_nothing(&r, &b);
	order("{\"method\":\"groups\",\"group\":\"team\",\"remove\":[\"7\"]}");
	order("{\"method\":\"groups\",\"group\":7,\"add\":[\"8\"]}");
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, NULL, LIST("team"), "nobody", 6, 0);
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, NULL, LIST("7"), "seven", 5, 0);
	rig_expect_nothing(&r, &a);
	rig_expect(&r, &b, "seven");
	end();
}

static void malformed_ones_change_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{",
		"{}",
		"{\"method\":\"disconnect\"}",
		"{\"method\":\"disconnect\",\"user\":\"\"}",
		"{\"method\":\"disconnect\",\"user\":[7]}",
		"{\"method\":\"disconnect\",\"user\":7.0}",
		"{\"method\":\"disconnect\",\"user\":\"7\",\"session\":\"s\"}",
		"{\"method\":\"disconnect\",\"user\":\"7\",\"namespace\":7}",
		"{\"method\":\"disconnect\",\"user\":\"7\"} x",
		"{\"method\":\"disconnect\",\"conn\":7}",
		"{\"method\":\"Disconnect\",\"user\":\"7\"}",
		"{\"method\":7,\"user\":\"7\"}",
		"{\"method\":\"groups\",\"add\":[\"7\"]}",
		"{\"method\":\"groups\",\"group\":\"team\",\"add\":\"7\"}",
		"{\"method\":\"groups\",\"group\":\"team\",\"add\":[\"7\"],\"remove\":{}}",
	};

	(void)state;
	begin();
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		order(bad[i]);
	rig_expect_nothing(&r, &a);
	assert_int_equal(RIG_COUNT(&r, evicted), 0);
	assert_int_equal(r.w->users->groups.n, 0);
	end();
}

/* ---- surveys */

static unsigned chunks, told, members;
static bool is_over;

static void on_told(struct rig *rig, const struct up_view *v)
{
	struct json_iter it;
	struct json_member m;
	int more;

	(void)rig;
	if (v->h.type != UP_TOLD)
		return;
	assert_false(is_over);
	assert_int_equal(v->h.request, 77);
	assert_true(v->payload.len <= 8192);
	assert_int_equal(json_object_begin(&it, v->payload), 0);
	while ((more = json_object_next(&it, &m)) == 1) {
		assert_int_equal(m.type, JSON_TYPE_NUMBER);
		members += (unsigned)strtoul(m.value.p, NULL, 10);
		told++;
	}
	assert_int_equal(more, 0);
	chunks++;
	is_over = v->h.opcode == 0;
}

static void survey(void)
{
	struct rec h = {.type = REC_SURVEY, .id = 77, .arg = {SURVEY_CHANNELS}};

	chunks = told = members = 0;
	is_over = false;
	r.on_control = on_told;
	rig_control(&r, &h, (struct slice){0});
	rig_settle(&r);
	assert_true(is_over);
}

static void channels_with_members_are_told(void **state)
{
	enum { N = 900 };
	static struct rig_client many[N];

	(void)state;
	begin();
	survey();
	assert_int_equal(chunks, 1);
	assert_int_equal(told, 0);
	rig_connect_as(&r, &a, "/ws/%22x%22", 0, "7", NULL); /* holds "demo", which has no member */
	rig_connect(&r, &b, "/ws/%22x%22", 0);
	rig_connect(&r, &c, "/family", 0);
	survey();
	assert_int_equal(told, 2);
	assert_int_equal(members, 3);
	for (int i = 0; i < N; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/ws/a-room-with-quite-a-name-%d", i);
		rig_connect(&r, &many[i], path, 0);
	}
	survey();
	assert_int_equal(told, N + 2);
	assert_int_equal(members, N + 3);
	assert_true(chunks > 3);
	for (int i = 0; i < N; i++)
		rig_hang_up(&many[i]);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_user_in_all_namespaces),
		cmocka_unit_test(only_codes_that_a_server_may_send),
		cmocka_unit_test(a_session),
		cmocka_unit_test(a_connection),
		cmocka_unit_test(a_channel),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(pending_ones_do_not_slip_through),
		cmocka_unit_test(pending_ones_are_refused_as_configured),
		cmocka_unit_test(groups_take_effect_on_the_next_message),
		cmocka_unit_test(malformed_ones_change_nothing),
		cmocka_unit_test(channels_with_members_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
