/* LINK: master/retained.c */
/* The last message of each channel: kept, replaced, forgotten in the order of silence. */
#include "master/retained.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/wsframe.h"

/* Few hashes on purpose: rooms share them. */
static uint64_t hash_of(struct slice room)
{
	return room.len % 3;
}

static struct slice text(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static void keep(struct retained *r, uint16_t ns, const char *room, const char *payload)
{
	retained_keep(r, hash_of(text(room)), ns, text(room), WS_TEXT, text(payload));
}

/* NULL: none. */
static const char *find(struct retained *r, uint16_t ns, const char *room)
{
	static char out[4096];
	struct slice payload;
	uint8_t opcode;

	if (!retained_find(r, hash_of(text(room)), ns, text(room), &opcode, &payload))
		return NULL;
	assert_true(payload.len < sizeof(out));
	memcpy(out, payload.p, payload.len);
	out[payload.len] = '\0';
	return out;
}

static void the_last_one_counts(void **state)
{
	struct retained *r = retained_new(100000);
	struct slice payload;
	uint8_t opcode;

	(void)state;
	assert_null(find(r, 1, "a"));
	keep(r, 1, "a", "one");
	keep(r, 1, "b", "other room");
	keep(r, 2, "a", "other namespace");
	keep(r, 1, "", "no room");
	assert_string_equal(find(r, 1, "a"), "one");
	keep(r, 1, "a", "a longer one than before, which takes new memory");
	assert_string_equal(find(r, 1, "a"), "a longer one than before, which takes new memory");
	keep(r, 1, "a", "");
	assert_string_equal(find(r, 1, "a"), "");
	assert_string_equal(find(r, 1, "b"), "other room");
	assert_string_equal(find(r, 2, "a"), "other namespace");
	assert_string_equal(find(r, 1, ""), "no room");
	retained_keep(r, hash_of(text("a")), 1, text("a"), WS_BINARY, (struct slice){"\0x", 2});
	assert_true(retained_find(r, hash_of(text("a")), 1, text("a"), &opcode, &payload));
	assert_int_equal(opcode, WS_BINARY);
	assert_int_equal(payload.len, 2);
	retained_only(r, (bool[CFG_MAX_NAMESPACES]){[2] = true});
	assert_null(find(r, 1, "a"));
	assert_null(find(r, 1, ""));
	assert_string_equal(find(r, 2, "a"), "other namespace");
	retained_free(r);
}

static void the_longest_silent_is_forgotten(void **state)
{
	struct retained *r = retained_new(800);
	struct retained_stats s;
	char big[600];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	keep(r, 1, "a", "1");
	keep(r, 1, "b", "1");
	keep(r, 1, "c", "1");
	keep(r, 1, "a", "2"); /* b is the oldest now */
	keep(r, 1, "d", big);
	retained_get_stats(r, &s);
	assert_true(s.bytes <= 800 && s.evicted > 0);
	assert_string_equal(find(r, 1, "d"), big);
	assert_null(find(r, 1, "b"));
	for (unsigned i = 0; i < 1000; i++) {
		char room[16];

		snprintf(room, sizeof(room), "r%u", i);
		keep(r, 1, room, "x");
		assert_string_equal(find(r, 1, room), "x");
		retained_get_stats(r, &s);
		assert_true(s.bytes <= 800 && s.n > 0);
	}
	/* What is larger than all is not kept, nor is what it replaces. */
	keep(r, 1, "z", "old");
	{
		static char huge[2000];

		memset(huge, 'y', sizeof(huge) - 1);
		keep(r, 1, "z", huge);
	}
	assert_null(find(r, 1, "z"));
	retained_free(r);
}

/* Thousands, against a plain array. */
static void it_is_what_a_plain_table_would_be(void **state)
{
	static unsigned last[4][500];
	struct retained *r = retained_new(64 << 20);
	struct retained_stats s;
	uint64_t x = 88172645463325252u;
	char room[8], value[16];
	size_t n = 0;

	(void)state;
	for (unsigned i = 1; i <= 50000; i++) {
		unsigned ns, k;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		ns = x % 4;
		k = (x >> 8) % 500;
		snprintf(room, sizeof(room), "%u", k);
		snprintf(value, sizeof(value), "%u", i);
		retained_keep(r, (uint64_t)k * 7919, (uint16_t)ns, text(room), WS_TEXT, text(value));
		n += last[ns][k] == 0;
		last[ns][k] = i;
	}
	for (unsigned ns = 0; ns < 4; ns++)
		for (unsigned k = 0; k < 500; k++) {
			struct slice payload;
			uint8_t opcode;
			bool found;

			snprintf(room, sizeof(room), "%u", k);
			snprintf(value, sizeof(value), "%u", last[ns][k]);
			found = retained_find(r, (uint64_t)k * 7919, (uint16_t)ns, text(room), &opcode,
					      &payload);
			assert_int_equal(found, last[ns][k] != 0);
			if (found)
				assert_true(payload.len == strlen(value) &&
					    memcmp(payload.p, value, payload.len) == 0);
		}
	retained_get_stats(r, &s);
	assert_int_equal(s.n, n);
	assert_int_equal(s.evicted, 0);
	retained_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_one_counts),
		cmocka_unit_test(the_longest_silent_is_forgotten),
		cmocka_unit_test(it_is_what_a_plain_table_would_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
