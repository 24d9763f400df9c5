/* LINK: worker/api_parse.c */
/* What the API's requests ask for, publishing aside; the orders that are made of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/api_parse.h"

static struct cfg_namespace spaces[] = {
	{.name = "demo", .room = CFG_ROOM_PATH, .presence = true},
	{.name = "news", .room = CFG_ROOM_NONE, .presence = true},
	{.name = "dark", .room = CFG_ROOM_PATH},
};
static const struct config config = {.namespaces = spaces, .n_namespaces = ARRAY_LEN(spaces)};
static struct buf out;
static struct api_fault fault;

enum what { DISCONNECT, GROUPS, CHANNELS, NOTHING, PRESENCE };
static struct api_channel channel;

/* The body lies in memory of exactly its size. */
static int parse(enum what what, const char *text)
{
	size_t len = strlen(text);
	char *body = malloc(len > 0 ? len : 1);
	struct slice s = {body, len};
	int status = -1;

	assert_non_null(body);
	memcpy(body, text, len);
	out.len = 0;
	fault = (struct api_fault){0};
	switch (what) {
	case DISCONNECT:
		status = api_disconnect_parse(&config, s, &out, &fault);
		break;
	case GROUPS:
		status = api_groups_parse(s, &out, &fault);
		break;
	case CHANNELS:
		status = api_channels_parse(s, &out, &fault);
		break;
	case NOTHING:
		status = api_nothing_parse(s, &fault);
		break;
	case PRESENCE:
		status = api_presence_parse(&config, s, &channel, &fault);
		break;
	}
	free(body);
	return status;
}

static void gives(enum what what, const char *text, const char *expected)
{
	int status = parse(what, text);

	if (status != 0)
		fail_msg("%d %s (%s): %s", status, fault.code, fault.message, text);
	assert_int_equal(out.len, strlen(expected));
	if (out.len > 0)
		assert_memory_equal(out.p, expected, out.len);
	if (what == DISCONNECT || what == GROUPS)
		assert_true(json_validate((struct slice){out.p, out.len}, NULL));
}

static void refuses(enum what what, const char *text, int status, const char *code)
{
	int got = parse(what, text);

	if (got != status || fault.code == NULL || strcmp(fault.code, code) != 0 || fault.message == NULL)
		fail_msg("%d %s instead of %d %s: %s", got, fault.code != NULL ? fault.code : "-", status,
			 code, text);
}

static void test_disconnect(void **state)
{
	char text[600], long_reason[200];

	(void)state;
	gives(DISCONNECT, "{\"user\":\"7\"}", "{\"method\":\"disconnect\",\"user\":\"7\"}");
	gives(DISCONNECT, "{\"user\":7}", "{\"method\":\"disconnect\",\"user\":\"7\"}");
	gives(DISCONNECT, "{\"user\":-0,\"x\":1}", "{\"method\":\"disconnect\",\"user\":\"0\"}");
	gives(DISCONNECT, "{\"session\":\"s\\\"1\",\"code\":4001,\"reason\":\"bye\"}",
	      "{\"method\":\"disconnect\",\"session\":\"s\\\"1\",\"code\":4001,\"reason\":\"bye\"}");
	gives(DISCONNECT, "{\"conn\":\"00ff\",\"reason\":\"\"}",
	      "{\"method\":\"disconnect\",\"conn\":\"00ff\",\"reason\":\"\"}");
	gives(DISCONNECT, "{\"channel\":\"demo:a\",\"code\":1001}",
	      "{\"method\":\"disconnect\",\"channel\":\"demo:a\",\"code\":1001}");
	gives(DISCONNECT, "{\"channel\":\"news\"}", "{\"method\":\"disconnect\",\"channel\":\"news\"}");
	gives(DISCONNECT, "{\"user\":7,\"namespace\":\"demo\"}",
	      "{\"method\":\"disconnect\",\"user\":\"7\",\"namespace\":\"demo\"}");
	refuses(DISCONNECT, "{\"channel\":\"demo\"}", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":7,\"namespace\":\"nope\"}", 404, "unknown_namespace");
	refuses(DISCONNECT, "{\"user\":7,\"namespace\":\"demo:a\"}", 400, "bad_request");
	gives(DISCONNECT, "{\"user\":\"1\",\"us\\u0065r\":\"2\"}",
	      "{\"method\":\"disconnect\",\"user\":\"2\"}");
	refuses(DISCONNECT, "{}", 400, "bad_request");
	refuses(DISCONNECT, "[]", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":\"7\"", 400, "bad_json");
	refuses(DISCONNECT, "{\"user\":\"7\",\"session\":\"s\"}", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":null}", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":1.5}", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":\"\"}", 400, "bad_request");
	refuses(DISCONNECT, "{\"user\":[\"7\"]}", 400, "bad_request");
	refuses(DISCONNECT, "{\"session\":7}", 400, "bad_request");
	refuses(DISCONNECT, "{\"channel\":\"nope:a\"}", 404, "unknown_namespace");
	refuses(DISCONNECT, "{\"channel\":\"demo:a/b\"}", 400, "bad_request");
	refuses(DISCONNECT, "{\"channel\":\"news:a\"}", 400, "bad_request");
	for (const char *const *code =
		     (const char *const[]){"1000", "1005", "1006", "1015", "999", "0", "5000", "1e3",
					   "\"1001\"", "-100", "1000.0", "null", NULL};
	     *code != NULL; code++) {
		snprintf(text, sizeof(text), "{\"user\":\"7\",\"code\":%s}", *code);
		refuses(DISCONNECT, text, 400, "bad_request");
	}
	memset(long_reason, 'r', sizeof(long_reason));
	snprintf(text, sizeof(text), "{\"user\":\"7\",\"reason\":\"%.123s\"}", long_reason);
	assert_int_equal(parse(DISCONNECT, text), 0);
	snprintf(text, sizeof(text), "{\"user\":\"7\",\"reason\":\"%.124s\"}", long_reason);
	refuses(DISCONNECT, text, 400, "bad_request");
	memset(long_reason, 'u', sizeof(long_reason));
	snprintf(text, sizeof(text), "{\"user\":\"%.190s%.66s\"}", long_reason, long_reason);
	refuses(DISCONNECT, text, 400, "bad_request"); /* 256 bytes */
}

static void test_groups(void **state)
{
	(void)state;
	gives(GROUPS, "{\"group\":\"g\",\"add\":[\"7\",8]}",
	      "{\"method\":\"groups\",\"group\":\"g\",\"add\":[\"7\",\"8\"],\"remove\":[]}");
	gives(GROUPS, "{\"group\":\"g\",\"remove\":[ 8 ],\"add\":[]}",
	      "{\"method\":\"groups\",\"group\":\"g\",\"add\":[],\"remove\":[\"8\"]}");
	refuses(GROUPS, "{\"group\":\"g\"}", 400, "bad_request");
	refuses(GROUPS, "{\"add\":[\"7\"]}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":\"\",\"add\":[\"7\"]}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":7,\"add\":[\"7\"]}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":\"g\",\"add\":\"7\"}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":\"g\",\"add\":[null]}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":\"g\",\"add\":[\"7\",{}]}", 400, "bad_request");
	refuses(GROUPS, "{\"group\":\"g\",\"add\":[\"7\",]}", 400, "bad_json");
}

static void test_questions(void **state)
{
	(void)state;
	gives(CHANNELS, "", "");
	gives(CHANNELS, "{}", "");
	gives(CHANNELS, "{\"pattern\":\"demo:\"}", "demo:");
	gives(CHANNELS, "{\"pattern\":\"\"}", "");
	refuses(CHANNELS, "{\"pattern\":1}", 400, "bad_request");
	refuses(CHANNELS, "nonsense", 400, "bad_json");
	gives(NOTHING, "", "");
	gives(NOTHING, "{\"a\":1}", "");
	refuses(NOTHING, "[]", 400, "bad_request");
	refuses(NOTHING, "{", 400, "bad_json");
}

static void test_presence(void **state)
{
	(void)state;
	gives(PRESENCE, "{\"channel\":\"demo:a\"}", "");
	assert_ptr_equal(channel.ns, &spaces[0]);
	assert_int_equal(channel.room.len, 1);
	gives(PRESENCE, "{\"channel\":\"demo\"}", ""); /* all rooms */
	assert_int_equal(channel.room.len, 0);
	gives(PRESENCE, "{\"channel\":\"news\"}", "");
	refuses(PRESENCE, "{\"channel\":\"dark:a\"}", 400, "not_available");
	refuses(PRESENCE, "{\"channel\":\"nope:a\"}", 404, "unknown_namespace");
	refuses(PRESENCE, "{\"channel\":\"demo:\"}", 400, "bad_request");
	refuses(PRESENCE, "{\"channel\":7}", 400, "bad_request");
	refuses(PRESENCE, "{\"channel\":\"\"}", 400, "bad_request");
	refuses(PRESENCE, "{}", 400, "bad_request");
	refuses(PRESENCE, "", 400, "bad_json");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disconnect),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_questions),
		cmocka_unit_test(test_presence),
	};
	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	buf_free(&out);
	return rc;
}
