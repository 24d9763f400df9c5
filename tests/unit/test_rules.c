/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* What clients' messages do, and what a client is told that says nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"
#include "worker/rules.h"
#include "worker/rules_read.h"

#define RULES_MAX 12

static struct rig r;
static struct cfg_rule rules[RULES_MAX];
static struct cfg_namespace *ns; /* demo: /ws/{room}, rules, nobody may publish but by them */
static char user_id[] = "user_id", auth_name[] = "trust";
static struct cfg_auth trust = {.name = auth_name, .type = CFG_AUTH_QUERY};

/* ---- a configuration by hand */

static struct template *compile(const char *text, const struct cfg_rule *rule)
{
	const char *fields[8], *wrong = NULL;
	struct template_scope scope = {.fields = fields, .has_info = true};
	struct template *t;

	for (size_t i = 0; rule != NULL && i < rule->n_coerce; i++)
		fields[scope.n_fields++] = rule->coerce[i].name;
	t = template_compile(text, &scope, &wrong);
	if (t == NULL)
		fail_msg("%s: %s", text, wrong);
	return t;
}

static struct cfg_rule *rule(enum cfg_match match, const char *name, enum cfg_action action)
{
	struct cfg_rule *rl = &rules[ns->n_rules++];

	assert_true(ns->n_rules <= RULES_MAX);
	*rl = (struct cfg_rule){.name = strdup(name), .match = match, .action = action};
	assert_non_null(rl->name);
	return rl;
}

static void field(struct cfg_rule *rl, const char *name, enum cfg_coerce as)
{
	rl->coerce = realloc(rl->coerce, (rl->n_coerce + 1) * sizeof(*rl->coerce));
	assert_non_null(rl->coerce);
	rl->coerce[rl->n_coerce++] = (struct cfg_field){strdup(name), as};
}

static void typing_rule(void)
{
	struct cfg_rule *rl = rule(CFG_MATCH_TYPE, "typing", CFG_ACTION_PUBLISH);

	rl->throttle = 1000;
	rl->is_low = true;
	field(rl, "is_typing", CFG_COERCE_BOOL);
	rl->frame = compile("{\"type\":\"user_typing\",\"room\":\"{room}\",\"user_id\":{user:int},"
			    "\"is_typing\":{msg.is_typing}}",
			    rl);
}

static void ping_rules(void)
{
	rule(CFG_MATCH_TEXT, "ping", CFG_ACTION_REPLY)->frame = compile("pong", NULL);
	rule(CFG_MATCH_TEXT, "pong", CFG_ACTION_IGNORE);
	rule(CFG_MATCH_TYPE, "ping", CFG_ACTION_REPLY)->frame = compile("{\"type\":\"pong\"}", NULL);
}

static void prepare(void)
{
	rig_init(&r);
	ns = &r.namespaces[RIG_DEMO];
	ns->publish = CFG_SRC_API;
	ns->envelope = CFG_ENVELOPE_JSON;
	ns->bad_frames = 5;
	ns->rules = rules;
	ns->max_message = 65536;
}

static void prepare_users(void)
{
	prepare();
	ns->user_query = user_id;
	ns->auth = &trust;
}

static void begin(void)
{
	prepare();
	ping_rules();
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
	for (size_t i = 0; i < ns->n_rules; i++) {
		free(rules[i].name);
		template_free(rules[i].frame);
		for (size_t k = 0; k < rules[i].n_coerce; k++)
			free(rules[i].coerce[k].name);
		free(rules[i].coerce);
	}
	template_free(ns->greeting);
	template_free(ns->idle.frame);
}

static void say(struct rig_client *c, const char *text)
{
	rig_send(c, WS_TEXT, text, strlen(text));
}

static void say_settled(struct rig_client *c, const char *text)
{
	say(c, text);
	rig_settle(&r);
}

/* ---- which rule, which action */

static void answers(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	say(&c, "ping");
	rig_expect(&r, &c, "pong");
	say(&c, " {\"x\":[1,{\"type\":\"no\"}], \"ty\\u0070e\" : \"p\\u0069ng\"} ");
	rig_expect(&r, &c, "{\"type\":\"pong\"}");
	say(&c, "{\"type\":\"x\",\"type\":\"ping\"}"); /* of repeated keys the last counts */
	rig_expect(&r, &c, "{\"type\":\"pong\"}");
	say(&c, "{\"type\":\"ping\",\"type\":7}");
	say(&c, "{\"type\":[\"ping\"]}");
	say(&c, "{\"kind\":\"ping\"}");
	say(&c, "{\"type\":\"unheard of\"}");
	say(&c, "{}");
	say(&c, "pong");
	rig_expect_nothing(&r, &c);
	assert_int_equal(r.publications, 0);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, client_messages), 9);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, bad_frames), 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void expect_filled_in(struct rig_client *c, const char *before_id)
{
	struct rig_frame f;
	char id[CONN_ID_SIZE];
	char want[300];
	const struct conn *conn = rig_conn(&r, c);

	conn_id(r.w, conn, id);
	snprintf(want, sizeof(want), "%s%s\",\"node\":\"000000000000abcd\",\"t\":", before_id, id);
	rig_settle(&r);
	rig_read(c, 0);
	assert_true(rig_frame(c, &f));
	assert_true(f.len > strlen(want));
	assert_memory_equal(f.payload, want, strlen(want));
}

static void greeting_and_values(void **state)
{
	static const char text[] = "{\"ns\":\"{ns}\",\"room\":\"{room}\",\"user\":\"{user}\",\"int\":{user:"
				   "int},\"tag\":\"{session}\","
				   "\"name\":\"{info.name}\",\"conn\":\"{conn}\",\"node\":\"{node}\",\"t\":{"
				   "monotonic},\"s\":{time}}";
	static const char info[] = "{\"name\":\"J\\u00f6e \\\"x\\\"\"}";
	struct rig_client c;

	(void)state;
	prepare_users();
	ping_rules();
	rule(CFG_MATCH_TYPE, "who", CFG_ACTION_REPLY)->frame = compile(text, NULL);
	ns->greeting = compile(text, NULL);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a?user_id=7", 0);
	expect_filled_in(&c, "{\"ns\":\"demo\",\"room\":\"a\",\"user\":\"7\",\"int\":7,\"tag\":\"\",\"name\":"
			     "\"\",\"conn\":\"");
	rig_tell(&r, &c, (struct slice){"tag", 3}, (struct slice){info, strlen(info)});
	say(&c, "{\"type\":\"who\"}");
	expect_filled_in(&c, "{\"ns\":\"demo\",\"room\":\"a\",\"user\":\"7\",\"int\":7,\"tag\":\"tag\","
			     "\"name\":\"J\xc3\xb6"
			     "e \\\"x\\\"\",\"conn\":\"");
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* A frame larger than RULES_FRAME_MAX is left out, whatever it is for. */
static void frames_that_are_too_large(void **state)
{
	static char info[RULES_FRAME_MAX + 20];
	struct rig_client c;
	struct rig_frame f;
	size_t len;

	(void)state;
	prepare_users();
	rule(CFG_MATCH_TYPE, "reply", CFG_ACTION_REPLY)->frame = compile("{info.x}", NULL);
	rule(CFG_MATCH_TYPE, "publish", CFG_ACTION_PUBLISH)->frame = compile("{info.x}", NULL);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a?user_id=7", 0);
	len = (size_t)snprintf(info, sizeof(info), "{\"x\":\"%0*d\"}", (int)RULES_FRAME_MAX, 0);
	rig_tell(&r, &c, (struct slice){0}, (struct slice){info, len});
	say(&c, "{\"type\":\"reply\"}");
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.len, RULES_FRAME_MAX);
	say(&c, "{\"type\":\"publish\"}");
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.len, RULES_FRAME_MAX);
	snprintf(info, sizeof(info), "{\"x\":\"%0*d\"}", (int)RULES_FRAME_MAX + 1, 0);
	rig_tell(&r, &c, (struct slice){0}, (struct slice){info, len + 1});
	say(&c, "{\"type\":\"reply\"}");
	say(&c, "{\"type\":\"publish\"}");
	rig_expect_nothing(&r, &c);
	assert_int_equal(count_get(&r.w->count->ns[ns->id].dropped[COUNT_DROPPED_too_large]), 2);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void typing(void **state)
{
	static const char is_typing[] = "{\"type\":\"typing\",\"is_typing\":true}";
	struct rig_client c[4];
	uint64_t key;
	uint32_t value;

	(void)state;
	prepare_users();
	typing_rule();
	rig_start(&r);
	rig_connect(&r, &c[0], "/ws/a?user_id=7", 0);
	rig_connect(&r, &c[1], "/ws/a?user_id=7", 0);
	rig_connect(&r, &c[2], "/ws/a?user_id=8", 0);
	rig_connect(&r, &c[3], "/ws/b?user_id=7", 0);
	say(&c[0], is_typing);
	for (int i = 0; i < 3; i++)
		rig_expect(&r, &c[i],
			   "{\"type\":\"user_typing\",\"room\":\"a\",\"user_id\":7,\"is_typing\":true}");
	assert_int_equal(r.publication.source, CFG_SRC_CLIENT);
	assert_int_equal(r.publication.flags, UP_RULE | UP_LOW);
	assert_int_equal(r.publication.request, 0); /* it may be left out: no Close waits for it */
	assert_int_equal(rig_conn(&r, &c[0])->in_flight, 0);
	assert_int_equal(r.publication.throttle_ms, 1000);
	key = r.publication.throttle_key;
	value = r.publication.throttle_value;
	assert_true(key != 0);
	say_settled(&c[1], is_typing); /* the same user in the same room */
	assert_true(r.publication.throttle_key == key && r.publication.throttle_value == value);
	say_settled(&c[0], "{\"type\":\"typing\",\"is_typing\":1,\"more\":\"\"}");
	assert_true(r.publication.throttle_key == key && r.publication.throttle_value == value);
	say_settled(&c[0], "{\"type\":\"typing\",\"is_typing\":\"\"}");
	assert_true(r.publication.throttle_key == key && r.publication.throttle_value != value);
	say_settled(&c[2], is_typing); /* another user */
	assert_true(r.publication.throttle_key != key && r.publication.throttle_value == value);
	say_settled(&c[3], is_typing); /* another room */
	assert_true(r.publication.throttle_key != key && r.publication.throttle_value == value);
	assert_int_equal(r.publications, 6);
	for (int i = 0; i < 4; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	end();
}

/* Without an identity each connection is somebody of its own. */
static void typing_of_nobody(void **state)
{
	struct rig_client c[2];
	uint64_t key;

	(void)state;
	prepare();
	typing_rule();
	rig_start(&r);
	rig_connect(&r, &c[0], "/ws/a", 0);
	rig_connect(&r, &c[1], "/ws/a", 0);
	say(&c[0], "{\"type\":\"typing\"}");
	rig_expect(&r, &c[1],
		   "{\"type\":\"user_typing\",\"room\":\"a\",\"user_id\":null,\"is_typing\":false}");
	key = r.publication.throttle_key;
	say_settled(&c[1], "{\"type\":\"typing\"}");
	assert_true(r.publication.throttle_key != key);
	rig_hang_up(&c[0]);
	rig_hang_up(&c[1]);
	rig_settle(&r);
	end();
}

static void two_rules_do_not_throttle_each_other(void **state)
{
	struct rig_client c;
	uint64_t key;

	(void)state;
	prepare_users();
	typing_rule();
	rule(CFG_MATCH_TYPE, "wave", CFG_ACTION_PUBLISH)->frame = compile("{\"type\":\"wave\"}", NULL);
	rules[1].throttle = 50;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a?user_id=7", 0);
	say_settled(&c, "{\"type\":\"typing\"}");
	key = r.publication.throttle_key;
	say_settled(&c, "{\"type\":\"wave\"}");
	assert_true(r.publication.throttle_key != 0 && r.publication.throttle_key != key);
	assert_int_equal(r.publication.throttle_ms, 50);
	assert_int_equal(r.publication.flags, UP_RULE);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void actions_that_are_not_there(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	rule(CFG_MATCH_TYPE, "ask", CFG_ACTION_FORWARD);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	say(&c, "{\"type\":\"ask\"}"); /* the namespace has no hook */
	rig_expect_nothing(&r, &c);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, rate_limited), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- what no rule takes */

static void bad_frames_to_the_bound(void **state)
{
	static const char *const bad[] = {"[1]", "7", "\"ping\"", "not JSON", "{\"type\":\"ping\"} x", ""};
	struct rig_client c;

	(void)state;
	begin();
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		rig_connect(&r, &c, "/ws/a", 0);
		for (int k = 0; k < 4; k++)
			say(&c, bad[(i + (size_t)k) % ARRAY_LEN(bad)]);
		rig_expect_nothing(&r, &c);
		say(&c, "ping"); /* still served */
		rig_expect(&r, &c, "pong");
		say(&c, bad[i]);
		rig_expect_close(&r, &c, 1008);
		rig_hang_up(&c);
		rig_settle(&r);
	}
	assert_int_equal(RIG_NS(&r, RIG_DEMO, bad_frames), 5 * ARRAY_LEN(bad));
	end();
}

static void bad_frames_for_ever(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	ns->bad_frames = 0;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 100; i++)
		say(&c, "{\"nan\":NaN}");
	rig_expect_nothing(&r, &c);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, bad_frames), 100);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void binary_is_bad_at_once(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	rig_send(&c, WS_BINARY, "ping", 4);
	rig_expect_close(&r, &c, 1003);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, bad_frames), 1);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1003]), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* What stands behind the last straw in the same bytes does nothing any more. */
static void closing_inside_a_burst(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	ping_rules();
	typing_rule();
	ns->bad_frames = 2;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	say(&c, "ping");
	say(&c, "bad");
	say(&c, "bad");
	say(&c, "ping");
	say(&c, "{\"type\":\"typing\"}");
	rig_send_close(&c, 1000);
	rig_expect(&r, &c, "pong");
	rig_expect_close(&r, &c, 1008);
	assert_int_equal(r.publications, 0);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1008]), 1);
	end();
}

/* A client that reads nothing and asks on: its answers are bounded, and it is dropped in the middle of its
 * burst. */
static void answers_that_nobody_reads(void **state)
{
	struct rig_client c;
	char frame[1024];

	(void)state;
	prepare();
	memset(frame, 'x', sizeof(frame) - 1);
	frame[sizeof(frame) - 1] = '\0';
	rule(CFG_MATCH_TEXT, "ping", CFG_ACTION_REPLY)->frame = compile(frame, NULL);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 4096);
	for (int i = 0; i < 2000; i++)
		say(&c, "ping");
	rig_settle(&r);
	assert_null(rig_conn(&r, &c));
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1013]), 1);
	rig_hang_up(&c);
	end();
}

static void clients_that_may_publish(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	ping_rules();
	ns->publish |= CFG_SRC_CLIENT;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	say(&c, "{\"type\":\"chat\",\"_x\":1}");
	rig_expect(&r, &c, "{\"type\":\"chat\",\"_x\":1}"); /* the master's to strip */
	assert_int_equal(r.publication.flags, 0);
	say(&c, "no JSON");
	rig_expect_nothing(&r, &c);
	say(&c, "ping");
	rig_expect(&r, &c, "pong");
	assert_int_equal(r.publications, 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Plain, and clients may publish: rules take what they name, everything else is a publication. */
static void rules_of_a_plain_namespace(void **state)
{
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	prepare();
	ping_rules();
	ns->publish |= CFG_SRC_CLIENT;
	ns->envelope = CFG_ENVELOPE_PLAIN;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	say(&c, "ping");
	rig_expect(&r, &c, "pong");
	say(&c, "no JSON");
	rig_expect(&r, &c, "no JSON");
	rig_send(&c, WS_BINARY, "\0\1", 2);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.opcode, WS_BINARY);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, bad_frames), 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- the uplink is full */

static void fill_uplink(struct rig_client *c)
{
	char text[9000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	r.hold_data = true;
	rig_connect(&r, c, "/echo", 0);
	while ((rig_conn(&r, c)->flags & CONN_PAUSED) == 0)
		say_settled(c, text);
}

static void a_full_uplink(void **state)
{
	struct rig_client c, filler;

	(void)state;
	prepare();
	ping_rules();
	typing_rule();
	rule(CFG_MATCH_TYPE, "wave", CFG_ACTION_PUBLISH)->frame = compile("wave", NULL);
	rule(CFG_MATCH_TYPE, "n", CFG_ACTION_PUBLISH);
	field(&rules[ns->n_rules - 1], "n", CFG_COERCE_INT);
	rules[ns->n_rules - 1].frame = compile("{msg.n}", &rules[ns->n_rules - 1]);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	fill_uplink(&filler);
	say(&c, "{\"type\":\"typing\"}"); /* shed */
	say(&c, "ping");                  /* no business of the uplink's */
	rig_expect(&r, &c, "pong");
	assert_int_equal(count_get(&r.w->count->ns[ns->id].dropped[COUNT_DROPPED_shed]), 1);
	say(&c, "{\"type\":\"n\",\"n\":1}"); /* waits, and what is behind it */
	say(&c, "ping");
	say(&c, "{\"type\":\"n\",\"n\":2}");
	say(&c, "{\"type\":\"typing\"}");
	say(&c, "{\"type\":\"wave\"}");
	rig_expect_nothing(&r, &c);
	assert_true((rig_conn(&r, &c)->flags & CONN_PAUSED) != 0);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, client_messages), 3);
	r.hold_data = false;
	rig_settle(&r);
	rig_expect(&r, &c, "pong");
	rig_expect(&r, &c, "1");
	rig_expect(&r, &c, "2");
	rig_expect(&r, &c, "{\"type\":\"user_typing\",\"room\":\"a\",\"user_id\":null,\"is_typing\":false}");
	rig_expect(&r, &c, "wave");
	assert_int_equal(RIG_NS(&r, RIG_DEMO, client_messages), 7);
	assert_int_equal(rig_conn(&r, &c)->in_flight, 0);
	rig_hang_up(&c);
	rig_hang_up(&filler);
	rig_settle(&r);
	end();
}

/* ---- fields */

static void read_field(struct rules_read *read, enum cfg_coerce as, const char *value, const char *want)
{
	static char name[] = "f", type[] = "t";
	struct cfg_field f = {name, as};
	struct cfg_rule rl = {.name = type, .coerce = &f, .n_coerce = 1};
	struct cfg_namespace n = {.rules = &rl, .n_rules = 1};
	char text[4000];
	int len = value == NULL ? snprintf(text, sizeof(text), "{\"type\":\"t\"}")
				: snprintf(text, sizeof(text), "{\"type\":\"t\",\"f\":%s}", value);

	assert_int_equal(rules_read(read, &n, (struct slice){text, (size_t)len}), RULES_RULE);
	if (read->msg[0].len != strlen(want) || memcmp(read->msg[0].p, want, read->msg[0].len) != 0)
		fail_msg("%s: %.*s, not %s", value, (int)read->msg[0].len, read->msg[0].p, want);
}

static void coercions(void **state)
{
	static const char *const as_bool[][2] = {
		{NULL, "false"},          {"true", "true"},      {"false", "false"}, {"null", "false"},
		{"0", "false"},           {"-0", "false"},       {"0.000", "false"}, {"0e7", "false"},
		{"0.0E+1", "false"},      {"1", "true"},         {"-0.01", "true"},  {"10", "true"},
		{"\"\"", "false"},        {"\"false\"", "true"}, {"\" \"", "true"},  {"[]", "false"},
		{"[ \n]", "false"},       {"[0]", "true"},       {"{}", "false"},    {"{ }", "false"},
		{"{\"a\":null}", "true"},
	};
	static const char *const as_int[][2] = {
		{NULL, "0"},
		{"true", "0"},
		{"null", "0"},
		{"7", "7"},
		{"-7", "-7"},
		{"-0", "0"},
		{"7.0", "0"},
		{"7e1", "0"},
		{"\"7\"", "7"},
		{"\" +007 \"", "7"},
		{"\"-0\"", "0"},
		{"\"\"", "0"},
		{"\"7x\"", "0"},
		{"\"0x7\"", "0"},
		{"[7]", "0"},
		{"\"\\u0037\"", "7"},
		{"12345678901234567890", "12345678901234567890"},
		{"123456789012345678901", "0"},
	};
	static const char *const as_string[][2] = {
		{NULL, "\"\""},
		{"true", "\"\""},
		{"7", "\"7\""},
		{"-12", "\"-12\""},
		{"-0", "\"0\""},
		{"12345678901234567890", "\"12345678901234567890\""},
		{"123456789012345678901", "\"\""},
		{"7.0", "\"\""},
		{"7e1", "\"\""},
		{"null", "\"\""},
		{"[\"x\"]", "\"\""},
		{"\"\"", "\"\""},
		{"\"a \\\"b\\\"\"", "\"a \\\"b\\\"\""},
		{"\"\\u0061\"", "\"a\""},
		{"\"\\ud800\"", "\"\""},
		{"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
		{"\"\\/\"", "\"/\""},
	};
	struct rules_read read = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(as_bool); i++)
		read_field(&read, CFG_COERCE_BOOL, as_bool[i][0], as_bool[i][1]);
	for (size_t i = 0; i < ARRAY_LEN(as_int); i++)
		read_field(&read, CFG_COERCE_INT, as_int[i][0], as_int[i][1]);
	for (size_t i = 0; i < ARRAY_LEN(as_string); i++)
		read_field(&read, CFG_COERCE_STRING, as_string[i][0], as_string[i][1]);
	rules_read_free(&read);
}

/* 256 bytes are allowed; a character that does not fit whole is left out. */
static void strings_are_cut(void **state)
{
	struct rules_read read = {0};
	char value[700], want[700];

	(void)state;
	snprintf(value, sizeof(value), "\"%0256d\"", 0);
	read_field(&read, CFG_COERCE_STRING, value, value);
	snprintf(want, sizeof(want), "\"%0256d\"", 0);
	snprintf(value, sizeof(value), "\"%0257d\"", 0);
	read_field(&read, CFG_COERCE_STRING, value, want);
	snprintf(want, sizeof(want), "\"%0255d\"", 0);
	snprintf(value, sizeof(value), "\"%0255d\xc3\xb6\"", 0);
	read_field(&read, CFG_COERCE_STRING, value, want);
	snprintf(value, sizeof(value), "\"%0254d\xc3\xb6\"", 0);
	read_field(&read, CFG_COERCE_STRING, value, value);
	snprintf(value, sizeof(value), "\"%0254d\xc3\xb6z\"", 0);
	snprintf(want, sizeof(want), "\"%0254d\xc3\xb6\"", 0);
	read_field(&read, CFG_COERCE_STRING, value, want);
	rules_read_free(&read);
}

/* Several, repeated, absent; and the text they are compared by cannot be confused. */
static void fields_together(void **state)
{
	static char a[] = "a", b[] = "b", type[] = "t";
	struct cfg_field f[] = {{a, CFG_COERCE_INT}, {b, CFG_COERCE_INT}};
	struct cfg_rule rl = {.name = type, .coerce = f, .n_coerce = 2};
	struct cfg_namespace n = {.rules = &rl, .n_rules = 1};
	struct rules_read read = {0};
	static const char *const text[][2] = {
		{"{\"type\":\"t\",\"a\":1,\"b\":23}", "1,23,"},
		{"{\"b\":3,\"a\":12,\"type\":\"t\"}", "12,3,"},
		{"{\"type\":\"t\",\"a\":1,\"b\":5,\"\\u0061\":2}", "2,5,"},
		{"{\"type\":\"t\",\"b\":4}", "0,4,"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(text); i++) {
		assert_int_equal(rules_read(&read, &n, (struct slice){text[i][0], strlen(text[i][0])}),
				 RULES_RULE);
		assert_int_equal(read.text.len, strlen(text[i][1]));
		assert_memory_equal(read.text.p, text[i][1], read.text.len);
		assert_ptr_equal(read.msg[1].p, read.text.p + read.msg[0].len + 1);
	}
	rules_read_free(&read);
}

/* ---- the client that says nothing */

static void prepare_idle(bool any_frame)
{
	prepare();
	ping_rules();
	ns->idle.after = 30000;
	ns->idle.any_frame = any_frame;
	ns->idle.frame = compile("idle", NULL);
}

static void silence(void **state)
{
	struct rig_client c;

	(void)state;
	prepare_idle(false);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_pass(&r, 29900);
	rig_expect_nothing(&r, &c);
	rig_pass(&r, 200);
	rig_expect(&r, &c, "idle");
	rig_pass(&r, 29800);
	rig_expect_nothing(&r, &c);
	rig_pass(&r, 300);
	rig_expect(&r, &c, "idle"); /* and again */
	rig_pass(&r, 20000);
	say_settled(&c, "pong"); /* a word from the client begins it anew */
	rig_pass(&r, 20000);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "news", 4); /* the server's traffic does not */
	rig_expect(&r, &c, "news");
	rig_send(&c, WS_PONG, "", 0);
	rig_pass(&r, 9900);
	rig_expect_nothing(&r, &c);
	rig_pass(&r, 200);
	rig_expect(&r, &c, "idle");
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void any_frame_is_life(void **state)
{
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	prepare_idle(true);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_pass(&r, 20000);
	rig_send(&c, WS_PONG, "", 0);
	rig_pass(&r, 20000);
	rig_expect_nothing(&r, &c);
	rig_send(&c, WS_PING, "", 0);
	rig_pass(&r, 20000);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.opcode, WS_PONG);
	assert_int_equal(rig_rest(&c), 0);
	rig_pass(&r, 10200);
	rig_expect(&r, &c, "idle");
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* With a full socket one idle frame waits, not one for each half minute; it comes out when there is space. */
static void silence_of_a_full_socket(void **state)
{
	struct rig_client c;
	struct rig_frame f;
	struct rig_channel *ch;
	char text[3000];
	int idle = 0, news = 0;

	(void)state;
	prepare_idle(false);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 4096);
	memset(text, 'x', sizeof(text));
	ch = rig_channel(&r, RIG_DEMO, "a");
	while ((rig_conn(&r, &c)->flags & CONN_BLOCKED) == 0) {
		rig_publish(&r, ch, text, sizeof(text));
		rig_settle(&r);
		news++;
	}
	for (int i = 0; i < 10; i++)
		rig_pass(&r, 30000);
	for (int i = 0; i < 100; i++) {
		rig_read(&c, 0);
		rig_settle(&r);
		while (rig_frame(&c, &f)) {
			if (f.len == 4)
				idle++;
			else
				news--;
		}
	}
	assert_int_equal(idle, 1);
	assert_int_equal(news, 0);
	rig_pass(&r, 30100);
	rig_expect(&r, &c, "idle");
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* A client that we do not read is not silent. */
static void silence_of_a_paused_client(void **state)
{
	struct rig_client c, filler;

	(void)state;
	prepare_idle(false);
	rule(CFG_MATCH_TYPE, "wave", CFG_ACTION_PUBLISH)->frame = compile("wave", NULL);
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	fill_uplink(&filler);
	say_settled(&c, "{\"type\":\"wave\"}");
	assert_true((rig_conn(&r, &c)->flags & CONN_PAUSED) != 0);
	rig_pass(&r, 100000);
	rig_expect_nothing(&r, &c);
	r.hold_data = false;
	rig_expect(&r, &c, "wave");
	rig_pass(&r, 29900);
	rig_expect_nothing(&r, &c);
	rig_pass(&r, 200);
	rig_expect(&r, &c, "idle");
	rig_hang_up(&c);
	rig_hang_up(&filler);
	rig_settle(&r);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),
		cmocka_unit_test(greeting_and_values),
		cmocka_unit_test(frames_that_are_too_large),
		cmocka_unit_test(typing),
		cmocka_unit_test(typing_of_nobody),
		cmocka_unit_test(two_rules_do_not_throttle_each_other),
		cmocka_unit_test(actions_that_are_not_there),
		cmocka_unit_test(bad_frames_to_the_bound),
		cmocka_unit_test(bad_frames_for_ever),
		cmocka_unit_test(binary_is_bad_at_once),
		cmocka_unit_test(closing_inside_a_burst),
		cmocka_unit_test(answers_that_nobody_reads),
		cmocka_unit_test(clients_that_may_publish),
		cmocka_unit_test(rules_of_a_plain_namespace),
		cmocka_unit_test(a_full_uplink),
		cmocka_unit_test(coercions),
		cmocka_unit_test(strings_are_cut),
		cmocka_unit_test(fields_together),
		cmocka_unit_test(silence),
		cmocka_unit_test(any_frame_is_life),
		cmocka_unit_test(silence_of_a_full_socket),
		cmocka_unit_test(silence_of_a_paused_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
