/* LINK: worker/api_body.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wsframe.h"
#include "worker/api_body.h"

static struct cfg_namespace spaces[] = {
	{.name = "demo",
	 .room = CFG_ROOM_PATH,
	 .publish = CFG_SRC_API | CFG_SRC_CLIENT,
	 .max_publication = 16},
	{.name = "forum", .room = CFG_ROOM_NONE, .publish = CFG_SRC_API},
	{.name = "echo", .room = CFG_ROOM_CONN, .publish = CFG_SRC_CLIENT},
};

static const struct config config = {.namespaces = spaces, .n_namespaces = ARRAY_LEN(spaces)};
static struct buf scratch;

/* The body lies in memory of exactly its size, kept until the next call, for results point into it. */
static int parse(const char *text, size_t len, struct api_publish *out)
{
	static char *body;

	free(body);
	body = malloc(len > 0 ? len : 1);
	assert_non_null(body);
	memcpy(body, text, len);
	return api_publish_parse(&config, (struct slice){body, len}, out, &scratch);
}

static void takes(const char *text, const char *channel, uint8_t opcode, const char *payload, size_t len)
{
	struct api_publish p;
	int got = parse(text, strlen(text), &p);
	const char *colon = strchr(channel, ':');

	if (got != 0)
		fail_msg("%d %s (%s): %s", got, p.code, p.message, text);
	assert_null(p.code);
	assert_string_equal(p.channel, channel);
	assert_int_equal(p.channel_len, strlen(channel));
	assert_int_equal(p.opcode, opcode);
	assert_int_equal(p.room.len, colon != NULL ? strlen(colon + 1) : 0);
	if (colon != NULL)
		assert_memory_equal(p.room.p, colon + 1, p.room.len);
	assert_int_equal(p.payload.len, len);
	if (len > 0)
		assert_memory_equal(p.payload.p, payload, len);
}

static void refuses(const char *text, int status, const char *code)
{
	struct api_publish p;
	int got = parse(text, strlen(text), &p);

	if (got != status || p.code == NULL || strcmp(p.code, code) != 0 || p.message == NULL)
		fail_msg("%d %s instead of %d %s: %s", got, p.code != NULL ? p.code : "-", status, code,
			 text);
}

#define TAKES(text, channel, opcode, payload) takes(text, channel, opcode, payload, sizeof(payload) - 1)

static void takes_data_as_it_was_written(void **state)
{
	(void)state;
	TAKES("{\"channel\":\"demo:a\",\"data\":{\"x\" : 1.50}}", "demo:a", WS_TEXT, "{\"x\" : 1.50}");
	TAKES(" {\"data\" : \"a\\u0062\" , \"channel\":\"demo:a\" } ", "demo:a", WS_TEXT, "\"a\\u0062\"");
	TAKES("{\"channel\":\"demo:a\",\"data\":null}", "demo:a", WS_TEXT, "null");
	TAKES("{\"channel\":\"demo:a\",\"data\":-0}", "demo:a", WS_TEXT, "-0");
	TAKES("{\"channel\":\"forum\",\"data\":[ ]}", "forum", WS_TEXT, "[ ]");
	TAKES("{\"channel\":\"demo:a:b\",\"data\":1}", "demo:a:b", WS_TEXT, "1");
	TAKES("{\"ch\\u0061nnel\":\"d\\u0065mo:\\u20ac\",\"data\":1}", "demo:\xe2\x82\xac", WS_TEXT, "1");
	TAKES("{\"channel\":\"demo:a\",\"x\":{\"data\":2},\"data\":1,\"text2\":3}", "demo:a", WS_TEXT, "1");
	TAKES("{\"channel\":7,\"channel\":\"demo:a\",\"data\":1,\"data\":2}", "demo:a", WS_TEXT, "2");
	TAKES("{\"channel\":\"demo:a\",\"data\":\"56789012345678\"}", "demo:a", WS_TEXT,
	      "\"56789012345678\""); /* 16 */
}

static void takes_text_decoded(void **state)
{
	(void)state;
	TAKES("{\"channel\":\"demo:a\",\"text\":\"hello\"}", "demo:a", WS_TEXT, "hello");
	TAKES("{\"channel\":\"demo:a\",\"text\":\"\"}", "demo:a", WS_TEXT, "");
	TAKES("{\"channel\":\"demo:a\",\"text\":\"a\\n\\u0000\\uD83D\\uDE00\"}", "demo:a", WS_TEXT,
	      "a\n\0\xf0\x9f\x98\x80");
	TAKES("{\"channel\":\"forum\",\"text\":\"\xe2\x82\xac\"}", "forum", WS_TEXT, "\xe2\x82\xac");
	TAKES("{\"channel\":\"demo:a\",\"text\":\"\\u0031\\u0031\\u0031\\u0031\\u0031\\u0031\"}", "demo:a",
	      WS_TEXT, "111111");
}

static void takes_base64_as_binary(void **state)
{
	(void)state;
	TAKES("{\"channel\":\"demo:a\",\"b64data\":\"AP/+\"}", "demo:a", WS_BINARY, "\0\xff\xfe");
	TAKES("{\"channel\":\"demo:a\",\"b64data\":\"AP\\/+\"}", "demo:a", WS_BINARY, "\0\xff\xfe");
	TAKES("{\"channel\":\"demo:a\",\"b64data\":\"\"}", "demo:a", WS_BINARY, "");
	TAKES("{\"channel\":\"demo:a\",\"b64data\":\"Zg==\"}", "demo:a", WS_BINARY, "f");
}

static void refuses_bad_json(void **state)
{
	(void)state;
	refuses("", 400, "bad_json");
	refuses("{", 400, "bad_json");
	refuses("channel=demo:a", 400, "bad_json");
	refuses("{\"channel\":\"demo:a\",\"data\":1", 400, "bad_json");
	refuses("{\"channel\":\"demo:a\",\"data\":NaN}", 400, "bad_json");
	refuses("{\"channel\":\"demo:a\",\"data\":1}x", 400, "bad_json");
	refuses("{\"channel\":\"demo:a\",\"data\":\"\xff\"}", 400, "bad_json");
	refuses("{'channel':'demo:a','data':1}", 400, "bad_json");
}

static void refuses_bad_requests(void **state)
{
	char text[1024];

	(void)state;
	refuses("[]", 400, "bad_request");
	refuses("1", 400, "bad_request");
	refuses("{}", 400, "bad_request");
	refuses("{\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":7,\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"\\ud800\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\"}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"data\":1,\"text\":\"x\"}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"text\":\"x\",\"b64data\":\"\"}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"data\":1,\"b64data\":\"\"}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"text\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"text\":\"\\udc00\"}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"b64data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\",\"b64data\":null}", 400, "bad_request");
	/* rooms */
	refuses("{\"channel\":\"demo\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:..\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a/b\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\\u0000\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"demo:a\\n\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"forum:a\",\"data\":1}", 400, "bad_request");
	refuses("{\"channel\":\"forum:\",\"data\":1}", 400, "bad_request");
	for (int over = 0; over <= 1; over++) {
		assert_true(snprintf(text, sizeof(text), "{\"channel\":\"demo:%0*d\",\"data\":1}",
				     CFG_ROOM_MAX + over, 0) > 0);
		if (over)
			refuses(text, 400, "bad_request");
		else
			assert_int_equal(parse(text, strlen(text), &(struct api_publish){0}), 0);
	}
	/* longer than any namespace with any room */
	for (int len = CFG_NAME_MAX + CFG_ROOM_MAX; len < CFG_NAME_MAX + CFG_ROOM_MAX + 20; len++) {
		bool fits = len <= CFG_NAME_MAX + 1 + CFG_ROOM_MAX;

		assert_true(snprintf(text, sizeof(text), "{\"channel\":\"%0*d\",\"data\":1}", len, 0) > 0);
		refuses(text, fits ? 404 : 400, fits ? "unknown_namespace" : "bad_request");
	}
}

static void refuses_what_the_namespace_does_not_take(void **state)
{
	(void)state;
	refuses("{\"channel\":\"nobody:a\",\"data\":1}", 404, "unknown_namespace");
	refuses("{\"channel\":\"nobody\",\"data\":1}", 404, "unknown_namespace");
	refuses("{\"channel\":\":a\",\"data\":1}", 404, "unknown_namespace");
	refuses("{\"channel\":\"Demo:a\",\"data\":1}", 404, "unknown_namespace");
	refuses("{\"channel\":\"demo\\u0000:a\",\"data\":1}", 404, "unknown_namespace");
	refuses("{\"channel\":\"echo:a\",\"data\":1}", 403, "publish_denied");
	refuses("{\"channel\":\"demo:a\",\"data\":\"567890123456789\"}", 413,
		"too_large"); /* 17 with the quotes */
	refuses("{\"channel\":\"demo:a\",\"text\":\"12345678901234567\"}", 413, "too_large");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"AAAAAAAAAAAAAAAAAAAAAAA=\"}", 413, "too_large");
}

static void refuses_bad_base64(void **state)
{
	(void)state;
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"Zg=\"}", 400, "bad_base64");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"Zg\"}", 400, "bad_base64");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"Z m8\"}", 400, "bad_base64");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"Zm9v\\n\"}", 400, "bad_base64");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"Zm-_\"}", 400, "bad_base64");
	refuses("{\"channel\":\"demo:a\",\"b64data\":\"\\ud800\"}", 400, "bad_base64");
}

static int free_scratch(void **state)
{
	struct api_publish p;

	assert_int_equal(parse("", 0, &p), 400);
	(void)state;
	buf_free(&scratch);
	return 0;
}

static void takes_an_id_where_receipts_are_kept(void **state)
{
	struct api_publish p;
	char body[400];

	(void)state;
	spaces[1].receipts = true;
#define PARSE(text) parse(text, strlen(text), &p)
	assert_int_equal(PARSE("{\"channel\":\"forum\",\"data\":1,\"id\":\"m\\u00e4\"}"), 0);
	assert_int_equal(p.id_len, 3);
	assert_memory_equal(p.id, "m\xc3\xa4", 3);
	assert_int_equal(PARSE("{\"channel\":\"forum\",\"data\":1,\"id\":17}"), 0);
	assert_int_equal(p.id_len, 2);
	assert_memory_equal(p.id, "17", 2);
	assert_int_equal(PARSE("{\"channel\":\"forum\",\"data\":1}"), 0);
	assert_int_equal(p.id_len, 0);
	refuses("{\"channel\":\"forum\",\"data\":1,\"id\":\"\"}", 400, "bad_request");
	refuses("{\"channel\":\"forum\",\"data\":1,\"id\":null}", 400, "bad_request");
	refuses("{\"channel\":\"forum\",\"data\":1,\"id\":[1]}", 400, "bad_request");
	for (int len = 255; len <= 256; len++) {
		snprintf(body, sizeof(body), "{\"channel\":\"forum\",\"data\":1,\"id\":\"%0*d\"}", len, 0);
		assert_int_equal(PARSE(body), len == 255 ? 0 : 400);
	}
	/* Elsewhere it means nothing. */
	assert_int_equal(PARSE("{\"channel\":\"demo:a\",\"data\":1,\"id\":[1]}"), 0);
	assert_int_equal(p.id_len, 0);
	spaces[1].receipts = false;
#undef PARSE
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_data_as_it_was_written),
		cmocka_unit_test(takes_text_decoded),
		cmocka_unit_test(takes_base64_as_binary),
		cmocka_unit_test(refuses_bad_json),
		cmocka_unit_test(refuses_bad_requests),
		cmocka_unit_test(refuses_what_the_namespace_does_not_take),
		cmocka_unit_test(refuses_bad_base64),
		cmocka_unit_test(takes_an_id_where_receipts_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, free_scratch);
}
