/* LINK: */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/room.h"

static size_t segment(const char *s, char *dst)
{
	return room_from_segment((struct slice){s, strlen(s)}, dst);
}

static void decodes_a_segment_once(void **state)
{
	static const char *const v[][2] = {
		{"a", "a"},           {"room-42", "room-42"}, {"a%20b", "a b"},
		{"%41%4a%4A", "AJJ"}, {"%2541", "%41"},       {"%e2%82%ac", "\xe2\x82\xac"},
		{"a+b", "a+b"},       {"...", "..."},         {".a", ".a"},
		{"a:b", "a:b"},       {"%25", "%"},           {"%C2%A0", "\xc2\xa0"},
	};
	char room[CFG_ROOM_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(segment(v[i][0], room), strlen(v[i][1]));
		assert_string_equal(room, v[i][1]);
	}
}

static void refuses_what_is_no_room(void **state)
{
	static const char *const bad[] = {
		"",         "%",      "%4",        "%zz",    "%g0",          "%0g",
		".",        "..",     "%2e",       "%2E.",   "a%2Fb",        "a/b",
		"%00",      "a%0ab",  "%7f",       "a\tb",   "%c2%80",       "%c2%9f",
		"%ff",      "%c0%af", "%ed%a0%80", "%e2%82", "%f4%90%80%80", "a%",
		"\xe2\x82", "%c2",
	};
	char room[CFG_ROOM_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (segment(bad[i], room) != 0)
			fail_msg("accepted: \"%s\"", bad[i]);
	}
}

static void counts_the_bytes_after_decoding(void **state)
{
	static const char coded[] = "%41";
	char s[3 * (CFG_ROOM_MAX + 1) + 1], room[CFG_ROOM_MAX + 1];

	(void)state;
	memset(s, 'r', sizeof(s));
	assert_int_equal(room_from_segment((struct slice){s, CFG_ROOM_MAX}, room), CFG_ROOM_MAX);
	assert_int_equal(room_from_segment((struct slice){s, CFG_ROOM_MAX + 1}, room), 0);
	for (size_t i = 0; i <= CFG_ROOM_MAX; i++)
		memcpy(s + 3 * i, coded, sizeof(coded) - 1);
	assert_int_equal(room_from_segment((struct slice){s, 3 * CFG_ROOM_MAX}, room), CFG_ROOM_MAX);
	assert_int_equal(room_from_segment((struct slice){s, 3 * (CFG_ROOM_MAX + 1)}, room), 0);
	assert_true(room_is_valid((struct slice){room, CFG_ROOM_MAX}));
	assert_false(room_is_valid((struct slice){s, CFG_ROOM_MAX + 1}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_a_segment_once),
		cmocka_unit_test(refuses_what_is_no_room),
		cmocka_unit_test(counts_the_bytes_after_decoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
