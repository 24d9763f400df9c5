/* LINK: */
/* LIBS: -ljansson */
/* json: the grammar's corners by hand, then jansson as the second opinion on mutated texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"

static struct slice str(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* From memory of exactly that size, so that a sanitizer sees a byte too many. */
static bool is_valid(struct slice text)
{
	char *copy = malloc(text.len > 0 ? text.len : 1);
	bool ok;

	assert_non_null(copy);
	memcpy(copy, text.p, text.len);
	ok = json_validate((struct slice){copy, text.len}, NULL);
	free(copy);
	return ok;
}

static void accepts_the_grammar(void **state)
{
	static const char *const good[] = {
		"0",
		"-0",
		"7",
		"-12",
		"0.5",
		"-1.25e+10",
		"1E5",
		"1e-0",
		"\"\"",
		"\"a\"",
		"true",
		"false",
		"null",
		"[]",
		"{}",
		" \t\r\n[ ] \n",
		"[1,2]",
		"[ 1 , [ ] , { } ]",
		"{\"a\":1}",
		"{ \"a\" : [ { \"b\" : null } ] , \"a\" : 2 }",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"",
		"\"\\ud83d\\ude00\"",
		"\"\\ud800\"",
		"\"\xe2\x82\xac\x7f\"",
		"123456789012345678901234567890",
		"\"12345678\\\"12345678\"",
		"{\"\":{\"\":{}}}",
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		if (!is_valid(str(good[i])))
			fail_msg("refused: %s", good[i]);
	}
}

static void refuses_the_rest(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"NaN",
		"Infinity",
		"-Infinity",
		"+1",
		"-",
		"01",
		"-01",
		"1.",
		".5",
		"1.e5",
		"1e",
		"1e+",
		"0x10",
		"1 2",
		"tru",
		"truE",
		"nul",
		"True",
		"'a'",
		"\"",
		"\"a",
		"\"\\\"",
		"\"\\x41\"",
		"\"\\u12\"",
		"\"\\u12g4\"",
		"\"\\\"",
		"\"a\nb\"",
		"\"1234567\t\"",
		"\"\x01\"",
		"[",
		"]",
		"[1",
		"[1,",
		"[1,]",
		"[,1]",
		"[1 2]",
		"{",
		"}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{,}",
		"{a:1}",
		"{1:1}",
		"{\"a\" 1}",
		"{\"a\":1 \"b\":2}",
		"{\"a\":1]",
		"[1}",
		"[[]",
		"{\"a\":{}",
		"[]]",
		"{}}",
		"\xef\xbb\xbf{}",
		"\"\xff\"",
		"\"\xc0\xaf\"",
		"\"\xed\xa0\x80\"",
		"\"\xe2\x82\"",
		"[1]/**/",
		"// x\n1",
		"\"a\"\"b\"",
		"[1,2,3}",
		"\v1",
		"1\xc2\xa0",
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (is_valid(str(bad[i])))
			fail_msg("accepted: %s", bad[i]);
	}
	assert_false(is_valid((struct slice){"1\0", 2}));
	assert_false(is_valid((struct slice){"\"\0\"", 3}));
}

/* Every control byte, in every place of the eight-byte steps. */
static void refuses_control_bytes_in_strings(void **state)
{
	char s[40];

	(void)state;
	for (size_t at = 1; at < 30; at++) {
		for (int c = 0; c < 0x80; c++) {
			memset(s, 'x', sizeof(s));
			s[0] = s[31] = '"';
			s[at] = (char)c;
			assert_int_equal(is_valid((struct slice){s, 32}), c >= 0x20 && c != '"' && c != '\\');
		}
	}
}

static void limits_the_depth(void **state)
{
	static const char object[] = "{\"k\":";
	char s[4 * JSON_DEPTH_MAX + 16];
	struct json_iter it;
	struct json_member m;

	(void)state;
	for (int depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
		memset(s, '[', (size_t)depth);
		memset(s + depth, ']', (size_t)depth);
		assert_int_equal(is_valid((struct slice){s, 2 * (size_t)depth}), depth <= JSON_DEPTH_MAX);
		/* the same, one level of it an object: validation and walk must draw the line at the same
		 * place */
		memcpy(s, object, sizeof(object) - 1);
		memset(s + 5, '[', (size_t)depth - 1);
		memset(s + 5 + depth - 1, ']', (size_t)depth - 1);
		s[5 + 2 * (depth - 1)] = '}';
		struct slice text = {s, 6 + 2 * ((size_t)depth - 1)};

		assert_int_equal(is_valid(text), depth <= JSON_DEPTH_MAX);
		assert_int_equal(json_object_begin(&it, text), 0);
		assert_int_equal(json_object_next(&it, &m), depth <= JSON_DEPTH_MAX ? 1 : -1);
	}
}

static void tells_the_type(void **state)
{
	static const struct {
		const char *text;
		enum json_type type;
	} v[] = {{" {} ", JSON_TYPE_OBJECT}, {"[1]", JSON_TYPE_ARRAY}, {"\"x\"", JSON_TYPE_STRING},
		 {"-1", JSON_TYPE_NUMBER},   {"true", JSON_TYPE_TRUE}, {"false", JSON_TYPE_FALSE},
		 {"null", JSON_TYPE_NULL}};
	enum json_type type;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_true(json_validate(str(v[i].text), &type));
		assert_int_equal(type, v[i].type);
	}
}

static void gives_members_as_they_were_written(void **state)
{
	static const char text[] =
		" { \"a\" : 1.50 ,\"b\\u0062\":\"x\\n\" , \"c\":{ \"d\" : [1, 2] },\"a\":null, \"\":[ ] } ";
	static const struct {
		const char *key, *value;
		enum json_type type;
	} want[] = {{"\"a\"", "1.50", JSON_TYPE_NUMBER},
		    {"\"b\\u0062\"", "\"x\\n\"", JSON_TYPE_STRING},
		    {"\"c\"", "{ \"d\" : [1, 2] }", JSON_TYPE_OBJECT},
		    {"\"a\"", "null", JSON_TYPE_NULL},
		    {"\"\"", "[ ]", JSON_TYPE_ARRAY}};
	struct json_iter it;
	struct json_member m;

	(void)state;
	assert_int_equal(json_object_begin(&it, str(text)), 0);
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		assert_int_equal(json_object_next(&it, &m), 1);
		assert_int_equal(m.key.len, strlen(want[i].key));
		assert_memory_equal(m.key.p, want[i].key, m.key.len);
		assert_int_equal(m.value.len, strlen(want[i].value));
		assert_memory_equal(m.value.p, want[i].value, m.value.len);
		assert_int_equal(m.type, want[i].type);
	}
	assert_int_equal(json_object_next(&it, &m), 0);
}

static void walks_only_objects(void **state)
{
	static const char *const bad[] = {"", " ", "[]", "1", "\"{}\"", "null", "\xff{}", "x{}"};
	struct json_iter it;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(json_object_begin(&it, str(bad[i])), -1);
}

static void compares_decoded_keys(void **state)
{
	(void)state;
	assert_true(json_is(str("\"data\""), "data"));
	assert_true(json_is(str("\"d\\u0061t\\u0061\""), "data"));
	assert_true(json_is(str("\"\\ud83d\\ude00\""), "\xf0\x9f\x98\x80"));
	assert_true(json_is(str("\"a\\/b\""), "a/b"));
	assert_true(json_is(str("\"\""), ""));
	assert_false(json_is(str("\"dat\""), "data"));
	assert_false(json_is(str("\"dat\\u0061x\""), "data"));
	assert_false(json_is(str("\"dat\\u0062\""), "data"));
	assert_false(json_is(str("\"da\\u0000a\""), "data"));
	assert_false(json_is(str("\"data\\u0000\""), "data"));
	assert_false(json_is(str("\"\\ud800\""), "\xed\xa0\x80"));
	assert_false(json_is(str("\"a\\\\b\""), "a\\\\b"));
	assert_true(json_is(str("\"a\\\\b\""), "a\\b"));
	assert_false(json_is(str("data"), "data"));
	assert_false(json_is(str("1"), "1"));
}

static void decodes_strings(void **state)
{
	struct buf b = {0};
	char small[4];

	(void)state;
	assert_int_equal(json_string_decode(str("\"a\\n\\u00e9\\u20ac\\uD83D\\uDE00\\u0000z\""), &b), 0);
	assert_int_equal(b.len, 13);
	assert_memory_equal(b.p, "a\n\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0z", 13);
	static const char *const bad[] = {"\"\\ud800\"",
					  "\"\\udc00\"",
					  "\"\\ud800x\"",
					  "\"\\ud800\\n\"",
					  "\"\\ud800\\ud800\"",
					  "\"\\ud83d\\udbff\"",
					  "\"\\ud83d\\ue000\"",
					  "\"\\ud83d\\u0041\"",
					  "\"",
					  "",
					  "x",
					  "\"\\q\"",
					  "\"\\u00\"",
					  "\"\\\""};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		errno = 0;
		assert_int_equal(json_string_decode(str(bad[i]), &b), -1);
		assert_int_equal(errno, EILSEQ);
		assert_int_equal(b.len, 13);
	}
	buf_free(&b);
	assert_int_equal(json_string_copy(str("\"abcd\""), small, 4), 4);
	assert_int_equal(json_string_copy(str("\"abcde\""), small, 4), -1);
	assert_int_equal(json_string_copy(str("\"\\u0041\\u0042\\u0043\\u0044\""), small, 4), 4);
	assert_memory_equal(small, "ABCD", 4);
	assert_int_equal(json_string_copy(str("\"ab\\u20ac\""), small, 4), -1);
	char place[] = "\"\\uD83D\\uDE00\\t!\"";

	assert_int_equal(json_string_copy(str(place), place, sizeof(place)), 6);
	assert_memory_equal(place, "\xf0\x9f\x98\x80\t!", 6);
}

static void escapes_so_that_it_decodes_again(void **state)
{
	struct buf b = {0};

	(void)state;
	assert_int_equal(
		json_put_string(&b, (struct slice){"a\"\\/\b\f\n\r\t\x01\0\x1f\x7f\xe2\x82\xac", 16}), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(b.p, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u0000\\u001f\x7f\xe2\x82\xac\"");
	b.len = 0;
	assert_int_equal(json_escape(&b, str("\xff|\xe2\x82|\xed\xa0\x80")), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(b.p,
			    "\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	buf_free(&b);
	/* anything at all */
	srandom(11);
	for (int round = 0; round < 5000; round++) {
		char raw[48];
		struct buf again = {0};
		size_t len = (size_t)random() % sizeof(raw);

		for (size_t i = 0; i < len; i++)
			raw[i] = (char)(random() % (round % 2 ? 256 : 128));
		assert_int_equal(json_put_string(&b, (struct slice){raw, len}), 0);
		assert_true(is_valid((struct slice){b.p, b.len}));
		assert_int_equal(json_string_decode((struct slice){b.p, b.len}, &again), 0);
		if (utf8_is_valid(raw, len)) {
			assert_int_equal(again.len, len);
			assert_int_equal(memcmp(again.p, raw, len), 0);
		}
		buf_free(&again);
		buf_free(&b);
	}
}

static void routes_by_canonical_text(void **state)
{
	static const struct {
		const char *text;
		enum json_route want;
		const char *value;
	} v[] = {
		{"{\"k\":\"abc\"}", JSON_ROUTE_OK, "abc"},
		{"{\"k\":17}", JSON_ROUTE_OK, "17"},
		{"{\"k\":-17}", JSON_ROUTE_OK, "-17"},
		{"{\"k\":-0}", JSON_ROUTE_OK, "0"},
		{"{\"k\":0}", JSON_ROUTE_OK, "0"},
		{"{\"k\":\"\"}", JSON_ROUTE_OK, ""},
		{"{\"k\":\"0017\"}", JSON_ROUTE_OK, "0017"},
		{"{\"k\":1,\"x\":{\"k\":2},\"k\":3}", JSON_ROUTE_OK, "3"},
		{"{\"\\u006b\":\"\\u0061\\u0062\\u0063\\u0064\\u0065\\u0066\\u0067\\u0068\"}", JSON_ROUTE_OK,
		 "abcdefgh"},
		{"{\"k\":1,\"k\":null}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":1.0}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":1e2}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":[1]}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":true}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":\"\\ud800\"}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":\"123456789\"}", JSON_ROUTE_NONE, NULL},
		{"{\"k\":123456789}", JSON_ROUTE_NONE, NULL},
		{"{\"x\":{\"k\":1}}", JSON_ROUTE_NONE, NULL},
		{"{}", JSON_ROUTE_NONE, NULL},
		{"[{\"k\":1}]", JSON_ROUTE_NOT_OBJECT, NULL},
		{"17", JSON_ROUTE_NOT_OBJECT, NULL},
		{"{\"k\":1", JSON_ROUTE_BAD_JSON, NULL},
		{"{\"k\":1}x", JSON_ROUTE_BAD_JSON, NULL},
		{"[1", JSON_ROUTE_BAD_JSON, NULL},
		{"", JSON_ROUTE_BAD_JSON, NULL},
		{"{\"k\":\"\xff\"}", JSON_ROUTE_BAD_UTF8, NULL},
	};
	char out[8];
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		enum json_route r = json_route_value(str(v[i].text), "k", out, sizeof(out), &len);

		if (r != v[i].want)
			fail_msg("%s: %d, expected %d", v[i].text, (int)r, (int)v[i].want);
		if (r == JSON_ROUTE_OK) {
			assert_int_equal(len, strlen(v[i].value));
			assert_memory_equal(out, v[i].value, len);
		}
	}
}

/* What jansson refuses and the grammar does not. */
static bool only_jansson_minds(const json_error_t *error, struct slice text)
{
	enum json_error_code code = json_error_code(error);

	return code == json_error_numeric_overflow ||
	       (code == json_error_invalid_syntax &&
		(memmem(text.p, text.len, "\\uD", 3) || memmem(text.p, text.len, "\\ud", 3)) &&
		strstr(error->text, "invalid Unicode"));
}

/* Members as jansson has them (the last of a repeated key) against the walk. */
static void compare_members(const json_t *tree, struct slice text)
{
	struct json_iter it;
	struct json_member m;
	struct buf key = {0}, value = {0};
	json_t *seen = json_object();

	assert_int_equal(json_object_begin(&it, text), 0);
	while (json_object_next(&it, &m) == 1) {
		json_t *mine;

		key.len = value.len = 0;
		assert_int_equal(json_string_decode(m.key, &key), 0);
		mine = json_loadb(m.value.p, m.value.len,
				  JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
		assert_non_null(mine);
		if (m.type == JSON_TYPE_STRING) {
			assert_true(json_is_string(mine));
			assert_int_equal(json_string_decode(m.value, &value), 0);
			assert_int_equal(value.len, json_string_length(mine));
			assert_int_equal(memcmp(value.p, json_string_value(mine), value.len), 0);
		}
		assert_int_equal(json_object_setn_new(seen, key.p, key.len, mine), 0);
	}
	assert_true(json_equal(seen, tree));
	json_decref(seen);
	buf_free(&key);
	buf_free(&value);
}

static void compare_with_jansson(struct slice text)
{
	json_error_t error;
	json_t *tree = json_loadb(text.p, text.len,
				  JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
	bool ok = is_valid(text);

	if (tree != NULL && !ok)
		fail_msg("only jansson accepts: %.*s", (int)text.len, text.p);
	if (tree == NULL && ok && !only_jansson_minds(&error, text))
		fail_msg("only jansson refuses (%s): %.*s", error.text, (int)text.len, text.p);
	if (tree != NULL && json_is_object(tree))
		compare_members(tree, text);
	json_decref(tree);
}

static size_t mutate(char *s, size_t len, size_t size)
{
	static const char chars[] =
		"{}[]\",:\\u0123456789.eE+-tfn \t\n/bdDaA\x01\x7f\xc3\xa9\xe2\x82\xac\xff";
	size_t at = (size_t)random() % (len + 1), n;

	switch (random() % 5) {
	case 0:
		if (at < len)
			s[at] = chars[(size_t)random() % (sizeof(chars) - 1)];
		return len;
	case 1:
		if (len == size)
			return len;
		memmove(s + at + 1, s + at, len - at);
		s[at] = chars[(size_t)random() % (sizeof(chars) - 1)];
		return len + 1;
	case 2:
		if (at == len)
			return len;
		memmove(s + at, s + at + 1, len - at - 1);
		return len - 1;
	case 3: /* a piece of it once more, elsewhere */
		n = (size_t)random() % 12;
		if (at + n > len || len + n > size)
			return len;
		memmove(s + at + n, s + at, len - at);
		return len + n;
	default:
		return random() % 8 == 0 ? at : len;
	}
}

static void agrees_with_jansson_on_mutated_texts(void **state)
{
	static const char *const seeds[] = {
		"{\"channel\":\"demo:a\",\"data\":{\"x\":[1,-2.5e3,true,false,null,\"\\u00e9\\n\"]}}",
		"[[],{},[{}],\"\\ud83d\\ude00\",1E5,0,-0,\"\xe2\x82\xac\"]",
		"{\"a\":{\"b\":{\"c\":[{\"d\":1}]}},\"a\":\"x\",\"\":\"\"}",
		" {\"k\" : \"long enough for the eight-byte steps \\\\ \\\" and on\" , \"n\" : 12345678 } ",
		"\"\\ud800\\udc00\\uDBFF\\uDFFF\"",
	};
	const char *env = getenv("TEST_SEED");
	unsigned seed = env != NULL ? (unsigned)strtoul(env, NULL, 10) : 20231;
	char s[256];

	(void)state;
	print_message("TEST_SEED=%u\n", seed);
	srandom(seed);
	for (int round = 0; round < 60000; round++) {
		const char *from = seeds[(size_t)round % ARRAY_LEN(seeds)];
		size_t len = strlen(from);
		long times = random() % 4;

		memcpy(s, from, len);
		for (long i = 0; i <= times; i++)
			len = mutate(s, len, sizeof(s));
		compare_with_jansson((struct slice){s, len});
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_the_grammar),
		cmocka_unit_test(refuses_the_rest),
		cmocka_unit_test(refuses_control_bytes_in_strings),
		cmocka_unit_test(limits_the_depth),
		cmocka_unit_test(tells_the_type),
		cmocka_unit_test(gives_members_as_they_were_written),
		cmocka_unit_test(walks_only_objects),
		cmocka_unit_test(compares_decoded_keys),
		cmocka_unit_test(decodes_strings),
		cmocka_unit_test(escapes_so_that_it_decodes_again),
		cmocka_unit_test(routes_by_canonical_text),
		cmocka_unit_test(agrees_with_jansson_on_mutated_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
