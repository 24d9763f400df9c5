/* LINK: */
/* LIBS: -ljansson */
/* envelope: the corners by hand; then texts made at random, whose payload the maker knows byte for byte and
 * whose targets jansson tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/envelope.h"
#include "common/json.h"

static struct slice str(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* From memory of exactly that size, so that a sanitizer sees a byte too many. */
static enum envelope_verdict read_text(struct envelope *e, struct slice text, const char *route_key,
				       char **copy)
{
	*copy = malloc(text.len > 0 ? text.len : 1);
	assert_non_null(*copy);
	memcpy(*copy, text.p, text.len);
	return envelope_read(e, (struct slice){*copy, text.len}, route_key);
}

static void check_ids(const struct envelope *e, const char *want)
{
	struct buf got = {0};
	size_t at = 0;

	while (at < e->ids.len) {
		struct slice id = envelope_id(e, &at);

		assert_int_equal(buf_put(&got, id.p, id.len), 0);
		assert_int_equal(buf_put(&got, " ", 1), 0);
	}
	assert_int_equal(buf_put(&got, "", 1), 0);
	assert_string_equal(got.p, want);
	buf_free(&got);
}

/* ---- by hand */

static void cuts_members_with_their_comma(void **state)
{
	static const char *const v[][2] = {
		{"{\"a\":1}", "{\"a\":1}"},
		{"{}", "{}"},
		{" { } ", " { } "},
		{"{\"_a\":1}", "{}"},
		{"{ \"_a\" : 1 }", "{  }"},
		{"{\"_a\":1,\"b\":2}", "{\"b\":2}"},
		{"{\"b\":2,\"_a\":1}", "{\"b\":2}"},
		{"{\"b\":2,\"_a\":1,\"c\":3}", "{\"b\":2,\"c\":3}"},
		{"{\"_a\":1,\"_b\":2,\"c\":3,\"_d\":4,\"_e\":5,\"f\":6,\"_g\":7}", "{\"c\":3,\"f\":6}"},
		{"{\"_a\":1,\"_b\":2}", "{}"},
		{"{ \"_a\" : 1 , \"b\" : 2 }", "{   \"b\" : 2 }"},
		{"{ \"b\" : 2 , \"_a\" : 1 }\n", "{ \"b\" : 2  }\n"},
		{"\t{ \"_a\":1 ,\n\"_b\":2 }", "\t{  \n }"},
		{"{\"\\u005fa\":1,\"b\":2}", "{\"b\":2}"},
		{"{\"a_\":1,\"\":2,\"b\":{\"_c\":3}}", "{\"a_\":1,\"\":2,\"b\":{\"_c\":3}}"},
		{"{\"_\":{\"x\":[1,2,\"},{\"]},\"b\":\"_a\"}", "{\"b\":\"_a\"}"},
		{"{\"n\":1.50,\"_x\":null,\"e\":\"\\u00e9\xc3\xa9\"}",
		 "{\"n\":1.50,\"e\":\"\\u00e9\xc3\xa9\"}"},
	};
	struct envelope e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		char *copy;

		assert_int_equal(read_text(&e, str(v[i][0]), NULL, &copy), ENVELOPE_OK);
		if (e.payload.len != strlen(v[i][1]) || memcmp(e.payload.p, v[i][1], e.payload.len) != 0)
			fail_msg("%s -> %.*s", v[i][0], (int)e.payload.len, e.payload.p);
		/* Nothing to cut: nothing is copied. */
		assert_int_equal(e.payload.p == copy, strcmp(v[i][0], v[i][1]) == 0);
		free(copy);
	}
	envelope_free(&e);
}

static void judges_texts(void **state)
{
	char deep[600];
	static const struct {
		const char *text;
		enum envelope_verdict v;
	} v[] = {
		{"", ENVELOPE_BAD_JSON},
		{" ", ENVELOPE_BAD_JSON},
		{"{", ENVELOPE_BAD_JSON},
		{"{\"a\":NaN}", ENVELOPE_BAD_JSON},
		{"{\"a\":Infinity}", ENVELOPE_BAD_JSON},
		{"{\"a\":-Infinity}", ENVELOPE_BAD_JSON},
		{"{\"a\":01}", ENVELOPE_BAD_JSON},
		{"{\"a\":1,}", ENVELOPE_BAD_JSON},
		{"{\"a\":1}x", ENVELOPE_BAD_JSON},
		{"{\"a\":1}{\"a\":1}", ENVELOPE_BAD_JSON},
		{"{\"_target_users\":[1,]}", ENVELOPE_BAD_JSON},
		{"{'a':1}", ENVELOPE_BAD_JSON},
		{"\xef\xbb\xbf{}", ENVELOPE_BAD_JSON},
		{"{\"a\":\"\xff\"}", ENVELOPE_BAD_UTF8},
		{"\xc0\x80", ENVELOPE_BAD_UTF8},
		{"{\"_x\":\"\xed\xa0\x80\"}", ENVELOPE_BAD_UTF8},
		{"[]", ENVELOPE_NOT_OBJECT},
		{"[{\"a\":1}]", ENVELOPE_NOT_OBJECT},
		{"7", ENVELOPE_NOT_OBJECT},
		{"\"{}\"", ENVELOPE_NOT_OBJECT},
		{"null", ENVELOPE_NOT_OBJECT},
		{"{}", ENVELOPE_OK},
	};
	struct envelope e = {0};
	char *copy;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		if (read_text(&e, str(v[i].text), "a", &copy) != v[i].v)
			fail_msg("%s", v[i].text);
		free(copy);
	}
	for (unsigned depth = 63; depth <= 64; depth++) { /* and the object around them */
		size_t n = (size_t)snprintf(deep, sizeof(deep), "{\"a\":");

		memset(deep + n, '[', depth);
		memset(deep + n + depth, ']', depth);
		memcpy(deep + n + 2 * depth, "}", 2);
		assert_int_equal(envelope_read(&e, str(deep), NULL),
				 depth == 63 ? ENVELOPE_OK : ENVELOPE_BAD_JSON);
	}
	envelope_free(&e);
}

static void finds_the_room(void **state)
{
	static const struct {
		const char *text, *room; /* NULL: none */
	} v[] = {
		{"{\"k\":\"t1\"}", "t1"},
		{"{\"k\":17}", "17"},
		{"{\"k\":-17}", "-17"},
		{"{\"k\":-0}", "0"},
		{"{\"k\":123456789012345678901234567890}", "123456789012345678901234567890"},
		{"{\"\\u006b\":\"t\\u0031\\n\"}", "t1\n"},
		{"{\"k\":\"\"}", ""},
		{"{\"k\":1.0}", NULL},
		{"{\"k\":1e2}", NULL},
		{"{\"k\":true}", NULL},
		{"{\"k\":null}", NULL},
		{"{\"k\":[\"t1\"]}", NULL},
		{"{\"k\":{\"k\":\"t1\"}}", NULL},
		{"{\"k\":\"\\ud800\"}", NULL},
		{"{\"K\":\"t1\"}", NULL},
		{"{\"kk\":\"t1\"}", NULL},
		{"{}", NULL},
		{"{\"k\":\"a\",\"k\":\"b\"}", "b"},
		{"{\"k\":\"a\",\"k\":null}", NULL},
		{"{\"k\":null,\"x\":1,\"k\":\"c\"}", "c"},
	};
	struct envelope e = {0};
	char text[300];
	char *copy;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(read_text(&e, str(v[i].text), "k", &copy), ENVELOPE_OK);
		if (e.has_room != (v[i].room != NULL))
			fail_msg("%s", v[i].text);
		if (e.has_room) {
			assert_int_equal(e.room_len, strlen(v[i].room));
			assert_memory_equal(e.room, v[i].room, e.room_len);
		}
		free(copy);
	}
	for (int len = 255; len <= 256; len++) {
		assert_true(snprintf(text, sizeof(text), "{\"k\":\"%0*d\"}", len, 1) > len);
		assert_int_equal(envelope_read(&e, str(text), "k"), ENVELOPE_OK);
		assert_int_equal(e.has_room, len == 255);
	}
	/* A room key that begins with '_' routes, and is cut like all the others. */
	assert_int_equal(envelope_read(&e, str("{\"_k\":\"r\",\"a\":1}"), "_k"), ENVELOPE_OK);
	assert_true(e.has_room && e.room_len == 1 && e.room[0] == 'r');
	assert_memory_equal(e.payload.p, "{\"a\":1}", 7);
	assert_int_equal(envelope_read(&e, str("{\"k\":\"r\"}"), NULL), ENVELOPE_OK);
	assert_false(e.has_room);
	envelope_free(&e);
}

static void finds_the_targets(void **state)
{
	static const struct {
		const char *text;
		bool is_targeted;
		unsigned users, groups, skipped;
		const char *ids;
	} v[] = {
		{"{}", false, 0, 0, 0, ""},
		{"{\"_target_users\":[]}", true, 0, 0, 0, ""},
		{"{\"_target_users\":null}", true, 0, 0, 1, ""},
		{"{\"_target_users\":\"7\"}", true, 0, 0, 1, ""},
		{"{\"_target_users\":7}", true, 0, 0, 1, ""},
		{"{\"_target_users\":{\"7\":1}}", true, 0, 0, 1, ""},
		{"{\"_target_users\":[\"7\",8]}", true, 2, 0, 0, "7 8 "},
		{"{\"_target_users\":[ 7 , \"7\" , 7.0 , \"\\u0037\" , 7e0 , -0 ]}", true, 2, 0, 2, "7 0 "},
		{"{\"_target_users\":[null,true,[1],{\"a\":2},\"\",\"\\ud800\"]}", true, 0, 0, 6, ""},
		{"{\"_target_groups\":[\"a\",\"b\",\"a\"]}", true, 0, 2, 0, "a b "},
		{"{\"_target_groups\":[5,\"5\"]}", true, 0, 1, 1, "5 "},
		{"{\"_target_groups\":[]}", true, 0, 0, 0, ""},
		{"{\"_target_groups\":[\"g\",\"7\"],\"_target_users\":[7]}", true, 1, 2, 0, "7 g 7 "},
		{"{\"_target_users\":null,\"_target_groups\":[\"g\"]}", true, 0, 1, 1, "g "},
		{"{\"_target_users\":[1],\"_target_users\":[2,3]}", true, 2, 0, 0, "2 3 "},
		{"{\"_target_users\":[1],\"_target_users\":null}", true, 0, 0, 1, ""},
		{"{\"_target\\u005fusers\":[1]}", true, 1, 0, 0, "1 "},
		{"{\"_target_user\":[1],\"_target_userss\":[2],\"target_users\":[3]}", false, 0, 0, 0, ""},
		{"{\"a\":{\"_target_users\":[1]}}", false, 0, 0, 0, ""},
	};
	struct envelope e = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		char *copy;

		assert_int_equal(read_text(&e, str(v[i].text), NULL, &copy), ENVELOPE_OK);
		if (e.is_targeted != v[i].is_targeted || e.n_users != v[i].users ||
		    e.n_groups != v[i].groups || e.skipped != v[i].skipped)
			fail_msg("%s: %u %u %u %u", v[i].text, e.is_targeted, e.n_users, e.n_groups,
				 e.skipped);
		check_ids(&e, v[i].ids);
		free(copy);
	}
	envelope_free(&e);
}

static void long_ids_are_skipped(void **state)
{
	struct envelope e = {0};
	char text[700];

	(void)state;
	assert_true(snprintf(text, sizeof(text), "{\"_target_users\":[\"%0255d\",\"%0256d\"]}", 1, 1) > 500);
	assert_int_equal(envelope_read(&e, str(text), NULL), ENVELOPE_OK);
	assert_int_equal(e.n_users, 1);
	assert_int_equal(e.skipped, 1);
	envelope_free(&e);
}

/* `n` distinct users, each `times`; group of them the same way. */
static void put_many(struct buf *b, const char *key, unsigned n, unsigned times, bool quoted)
{
	assert_int_equal(buf_printf(b, "\"%s\":[", key), 0);
	for (unsigned i = 0; i < n * times; i++)
		assert_int_equal(buf_printf(b, quoted ? "%s\"%u\"" : "%s%u", i > 0 ? "," : "", i % n), 0);
	assert_int_equal(buf_puts(b, "]"), 0);
}

static void thousands_of_targets_count_once(void **state)
{
	struct envelope e = {.seed = 12345};
	struct buf b = {0};
	size_t at = 0;

	(void)state;
	assert_int_equal(buf_puts(&b, "{"), 0);
	put_many(&b, "_target_users", 20000, 3, false);
	assert_int_equal(buf_puts(&b, ",\"x\":1,"), 0);
	put_many(&b, "_target_groups", 3000, 2, true);
	assert_int_equal(buf_puts(&b, "}"), 0);
	for (int round = 0; round < 2; round++) {
		const char *cut = e.cut.p, *ids = e.ids.p, *seen = e.seen.p;

		assert_int_equal(envelope_read(&e, (struct slice){b.p, b.len}, NULL), ENVELOPE_OK);
		assert_int_equal(e.n_users, 20000);
		assert_int_equal(e.n_groups, 3000);
		assert_int_equal(e.payload.len, 7);
		assert_memory_equal(e.payload.p, "{\"x\":1}", 7);
		/* Warm buffers are used again. */
		assert_true(round == 0 || (e.cut.p == cut && e.ids.p == ids && e.seen.p == seen));
	}
	for (unsigned i = 0; i < 23000; i++) { /* in the order of their first appearance */
		struct slice id = envelope_id(&e, &at);
		char want[16];

		assert_int_equal(id.len, snprintf(want, sizeof(want), "%u", i < 20000 ? i : i - 20000));
		assert_memory_equal(id.p, want, id.len);
	}
	assert_int_equal(at, e.ids.len);
	buf_free(&b);
	envelope_free(&e);
}

static void too_many_targets_are_too_large(void **state)
{
	struct envelope e = {0};
	struct buf b = {0};

	(void)state;
	for (unsigned more = 0; more < 2; more++) {
		b.len = 0;
		assert_int_equal(buf_puts(&b, "{"), 0);
		put_many(&b, "_target_users", ENVELOPE_TARGETS_MAX - 1 + more, 1, false);
		assert_int_equal(buf_puts(&b, ",\"_target_groups\":[\"g\",\"g\"]}"), 0);
		assert_int_equal(envelope_read(&e, (struct slice){b.p, b.len}, NULL),
				 more ? ENVELOPE_TOO_LARGE : ENVELOPE_OK);
	}
	buf_free(&b);
	envelope_free(&e);
}

/* ---- signatures */

static void signs_and_reads_it_back(void **state)
{
	static const char *const texts[] = {"{}",
					    " { }\n",
					    "{\"a\":1}",
					    "{ \"a\" : {} } ",
					    "{\"a\":\"{\"}",
					    "{\"_t\":1,\"b\":[{}]}",
					    "{\"_rc_id\":9,\"_rc_origin\":\"x\",\"c\":1}"};
	struct envelope e = {0}, plain = {0};
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		for (unsigned ask = 0; ask < 2; ask++) {
			b.len = 0;
			assert_int_equal(buf_puts(&b, "x"), 0); /* it appends */
			assert_int_equal(
				envelope_sign(&b, str(texts[i]), 0x123456789abcdef0u, UINT64_MAX, ask), 0);
			assert_true(b.len <= 1 + strlen(texts[i]) + ENVELOPE_SIGN_MAX);
			assert_int_equal(envelope_read(&e, (struct slice){b.p + 1, b.len - 1}, NULL),
					 ENVELOPE_OK);
			assert_true(e.has_origin && e.has_own_keys);
			assert_int_equal(e.is_asking, ask);
			assert_int_equal(e.origin, 0x123456789abcdef0u);
			assert_int_equal(e.id, UINT64_MAX);
			/* What clients get is what they would get without it, to the byte. */
			assert_int_equal(envelope_read(&plain, str(texts[i]), NULL), ENVELOPE_OK);
			assert_false(plain.has_origin);
			assert_int_equal(e.payload.len, plain.payload.len);
			assert_memory_equal(e.payload.p, plain.payload.p, e.payload.len);
		}
	}
	b.len = 0;
	assert_int_equal(envelope_sign(&b, str("{\"a\":1 }"), 1, 2, false), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(b.p, "{\"a\":1 ,\"_rc_origin\":\"0000000000000001\",\"_rc_id\":2}");
	buf_free(&b);
	envelope_free(&plain);
	envelope_free(&e);
}

static void unsigning_cuts_these_keys_alone(void **state)
{
	static const char *const v[][2] = {
		{"{\"_a\":1,\"b\":2}", "{\"_a\":1,\"b\":2}"},
		{"{\"_rc_id\":1}", "{}"},
		{"{\"_rc_x\":1,\"_t\":2,\"\\u005frc_origin\":\"a\",\"_rc_\":{}}", "{\"_t\":2}"},
		{"{\"_rc\":1,\"_rc_ask\":1,\"b\":2}", "{\"_rc\":1,\"b\":2}"},
	};
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		b.len = 0;
		assert_int_equal(envelope_unsign(&b, str(v[i][0])), 0);
		assert_int_equal(buf_put(&b, "", 1), 0);
		assert_string_equal(b.p, v[i][1]);
	}
	buf_free(&b);
}

static void forged_signatures_are_none(void **state)
{
	static const char *const bad[] = {
		"\"_rc_origin\":\"0123456789abcdef\"",
		"\"_rc_id\":1",
		"\"_rc_origin\":\"0123456789abcde\",\"_rc_id\":1",
		"\"_rc_origin\":\"0123456789abcdef0\",\"_rc_id\":1",
		"\"_rc_origin\":\"0123456789abcdeg\",\"_rc_id\":1",
		"\"_rc_origin\":\"0000000000000000\",\"_rc_id\":1",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":0",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":-1",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":1.0",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":\"1\"",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":18446744073709551616",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":99999999999999999999",
		"\"_rc_origin\":1234567890123456,\"_rc_id\":1",
		"\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":1,\"_rc_id\":null",
		"\"_rc_ask\":1",
		"\"a\":{\"_rc_origin\":\"0123456789abcdef\",\"_rc_id\":1}",
	};
	struct envelope e = {0};
	char text[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(snprintf(text, sizeof(text), "{%s}", bad[i]) < (int)sizeof(text));
		assert_int_equal(envelope_read(&e, str(text), NULL), ENVELOPE_OK);
		if (e.has_origin || e.is_asking)
			fail_msg("%s", text);
	}
	envelope_free(&e);
}

/* ---- at random */

static uint64_t seed = 7;

static uint32_t random_below(uint32_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % n;
}

static const char *pick(const char *const *list, size_t n)
{
	return list[random_below((uint32_t)n)];
}

static void put_value(struct buf *b, int depth);

static void put_blanks(struct buf *b)
{
	static const char *const blanks[] = {"", "", "", " ", "\n", "\t ", "\r\n"};

	assert_int_equal(buf_puts(b, pick(blanks, ARRAY_LEN(blanks))), 0);
}

static void put_array(struct buf *b, int depth)
{
	unsigned n = random_below(6);

	assert_int_equal(buf_puts(b, "["), 0);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(buf_puts(b, i > 0 ? "," : ""), 0);
		put_blanks(b);
		put_value(b, depth + 1);
		put_blanks(b);
	}
	assert_int_equal(buf_puts(b, "]"), 0);
}

static void put_value(struct buf *b, int depth)
{
	static const char *const scalars[] = {
		"1",    "-0",          "12",     "7",    "\"7\"",        "1.0",      "1e2",
		"null", "true",        "false",  "\"\"", "\"a\\\"]\"",   "\"_x\"",   "\"t1\"",
		"-5",   "\"\\u0037\"", "\"12\"", "{}",   "{\"_a\":[1]}", "\"\\\\\"", "\"\xc3\xa9\"",
		"[]"};

	if (depth < 3 && random_below(3) == 0)
		put_array(b, depth);
	else
		assert_int_equal(buf_puts(b, pick(scalars, ARRAY_LEN(scalars))), 0);
}

/* An object into `text`; what envelope.h says that clients get of it into `want`. */
static void make_object(struct buf *text, struct buf *want)
{
	static const char *const keys[] = {
		"\"a\"",     "\"room\"",     "\"_target_users\"", "\"_target_groups\"",      "\"_x\"",
		"\"\"",      "\"b_\"",       "\"ro\\u006fm\"",    "\"_targ\\u0065t_users\"", "\"_rc_id\"",
		"\"_\\\"\"", "\"\\u005fz\"", "\"target\"",        "\"_target_groups\""};
	unsigned n = random_below(7);
	bool has_kept = false, eats_comma = false;
	struct buf part = {0};

	text->len = want->len = 0;
	assert_int_equal(buf_puts(text, "{"), 0);
	assert_int_equal(buf_puts(want, "{"), 0);
	for (unsigned i = 0; i < n; i++) {
		const char *key = pick(keys, ARRAY_LEN(keys));
		bool is_cut = key[1] == '_' || strncmp(key, "\"\\u005f", 7) == 0;
		size_t before, member;

		part.len = 0;
		if (i > 0)
			assert_int_equal(buf_puts(&part, ","), 0);
		put_blanks(&part);
		before = part.len;
		assert_int_equal(buf_printf(&part, "%s", key), 0);
		put_blanks(&part);
		assert_int_equal(buf_puts(&part, ":"), 0);
		put_blanks(&part);
		put_value(&part, 0);
		member = part.len;
		put_blanks(&part);
		assert_int_equal(buf_put(text, part.p, part.len), 0);
		if (!is_cut) {
			assert_int_equal(buf_put(want, part.p + eats_comma, part.len - eats_comma), 0);
		} else if (has_kept) { /* with the comma before it */
			assert_int_equal(buf_put(want, part.p + member, part.len - member), 0);
		} else { /* with the comma behind it, if there is one */
			assert_int_equal(buf_put(want, part.p + eats_comma, before - eats_comma), 0);
			assert_int_equal(buf_put(want, part.p + member, part.len - member), 0);
		}
		has_kept = has_kept || !is_cut;
		eats_comma = !has_kept;
	}
	assert_int_equal(buf_puts(text, "}"), 0);
	assert_int_equal(buf_puts(want, "}"), 0);
	buf_free(&part);
}

/* The canonical text of an id as jansson has it; false: to be skipped. */
static bool oracle_id(const json_t *v, bool is_group, char *dst, size_t size)
{
	if (json_is_string(v))
		return snprintf(dst, size, "%s", json_string_value(v)) > 0;
	return json_is_integer(v) && !is_group &&
	       snprintf(dst, size, "%lld", (long long)json_integer_value(v)) > 0;
}

static void oracle_list(const json_t *list, bool is_group, struct buf *ids, unsigned *n, unsigned *skipped)
{
	char seen[16][32];
	unsigned n_seen = 0;

	*skipped += list != NULL && !json_is_array(list);
	for (size_t i = 0; i < json_array_size(list); i++) {
		char id[32];
		unsigned k = 0;

		if (!oracle_id(json_array_get(list, i), is_group, id, sizeof(id))) {
			(*skipped)++;
			continue;
		}
		while (k < n_seen && strcmp(seen[k], id) != 0)
			k++;
		if (k < n_seen)
			continue;
		memcpy(seen[n_seen++], id, sizeof(id));
		(*n)++;
		assert_int_equal(buf_printf(ids, "%s ", id), 0);
	}
}

static void compare(const struct envelope *e, const json_t *tree)
{
	const json_t *users = json_object_get(tree, "_target_users");
	const json_t *groups = json_object_get(tree, "_target_groups");
	unsigned n_users = 0, n_groups = 0, skipped = 0;
	struct buf ids = {0};
	char room[32];

	assert_int_equal(e->is_targeted, users != NULL || groups != NULL);
	oracle_list(users, false, &ids, &n_users, &skipped);
	oracle_list(groups, true, &ids, &n_groups, &skipped);
	assert_int_equal(e->n_users, n_users);
	assert_int_equal(e->n_groups, n_groups);
	assert_int_equal(e->skipped, skipped);
	assert_int_equal(buf_put(&ids, "", 1), 0);
	check_ids(e, ids.p);
	buf_free(&ids);
	if (json_is_string(json_object_get(tree, "room")) || json_is_integer(json_object_get(tree, "room"))) {
		assert_true(e->has_room);
		(void)oracle_id(json_object_get(tree, "room"), false, room, sizeof(room));
		if (e->room_len > 0)
			assert_memory_equal(e->room, room, e->room_len);
	} else {
		assert_false(e->has_room);
	}
}

static void random_objects_match_their_maker_and_jansson(void **state)
{
	unsigned n_cut = 0, n_targeted = 0, n_ids = 0, n_rooms = 0;
	struct buf text = {0}, want = {0};
	struct envelope e = {0};

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		enum envelope_verdict v;
		json_t *tree;
		char *copy;

		make_object(&text, &want);
		v = read_text(&e, (struct slice){text.p, text.len}, "room", &copy);
		if (v != ENVELOPE_OK)
			fail_msg("verdict %d: %.*s", v, (int)text.len, text.p);
		if (e.payload.len != want.len || memcmp(e.payload.p, want.p, want.len) != 0)
			fail_msg("%.*s\n-> %.*s\nnot %.*s", (int)text.len, text.p, (int)e.payload.len,
				 e.payload.p, (int)want.len, want.p);
		tree = json_loadb(text.p, text.len, 0, NULL);
		assert_non_null(tree);
		compare(&e, tree);
		json_decref(tree);
		n_cut += e.payload.p != copy;
		n_targeted += e.is_targeted;
		n_ids += e.n_users + e.n_groups;
		n_rooms += e.has_room;
		free(copy);
	}
	/* The maker has met what it was made for. */
	assert_true(n_cut > 10000 && n_targeted > 10000 && n_ids > 10000 && n_rooms > 10000);
	buf_free(&text);
	buf_free(&want);
	envelope_free(&e);
}

/* Bytes changed at random: the verdict is jansson's. */
static void mutants_are_judged_as_jansson_does(void **state)
{
	static const char bytes[] = "{}[]\",:_\\ \n0-.eEtfnu\x01\xff\xc3\xa9";
	unsigned n_ok = 0, n_bad = 0;
	struct buf text = {0}, want = {0};
	struct envelope e = {0};

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		json_error_t error;
		json_t *tree;
		char *copy;
		bool ok;

		make_object(&text, &want);
		for (unsigned k = random_below(3); k-- > 0;)
			text.p[random_below((uint32_t)text.len)] = bytes[random_below(sizeof(bytes) - 1)];
		ok = read_text(&e, (struct slice){text.p, text.len}, NULL, &copy) == ENVELOPE_OK;
		tree = json_loadb(text.p, text.len, 0, &error);
		/* jansson minds NUL in strings and lone surrogates; neither is made here. */
		if (ok != json_is_object(tree))
			fail_msg("%d, jansson: %s: %.*s", ok, error.text, (int)text.len, text.p);
		json_decref(tree);
		if (ok)
			n_ok++;
		else
			n_bad++;
		free(copy);
	}
	assert_true(n_ok > 10000 && n_bad > 10000);
	buf_free(&text);
	buf_free(&want);
	envelope_free(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cuts_members_with_their_comma),
		cmocka_unit_test(judges_texts),
		cmocka_unit_test(finds_the_room),
		cmocka_unit_test(finds_the_targets),
		cmocka_unit_test(long_ids_are_skipped),
		cmocka_unit_test(thousands_of_targets_count_once),
		cmocka_unit_test(too_many_targets_are_too_large),
		cmocka_unit_test(signs_and_reads_it_back),
		cmocka_unit_test(unsigning_cuts_these_keys_alone),
		cmocka_unit_test(forged_signatures_are_none),
		cmocka_unit_test(random_objects_match_their_maker_and_jansson),
		cmocka_unit_test(mutants_are_judged_as_jansson_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
