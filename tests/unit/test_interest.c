/* LINK: master/interest.c */
/* The channel table: names, readers, growth, the sweep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/interest.h"

#define MANY 20000u /* several growths from the smallest table */

static struct slice name_of(char *buf, size_t size, unsigned i)
{
	return (struct slice){buf, (size_t)snprintf(buf, size, "room-%u", i)};
}

/* Bad on purpose: neighbours share buckets, and some share the whole hash. */
static uint64_t hash_of(unsigned i)
{
	return i / 3;
}

static int setup(void **state)
{
	struct interest *t = malloc(sizeof(*t));

	*state = t;
	return t == NULL ? -1 : interest_init(t);
}

static int teardown(void **state)
{
	interest_free(*state);
	free(*state);
	return 0;
}

static void sweep_all(struct interest *t, uint64_t reclaim)
{
	const struct interest_sweep how = {.now_ms = 7, .reclaim = reclaim};

	for (int i = 0; i < 3; i++)
		interest_sweep(t, t->n_buckets + (t->old == NULL ? 0 : t->n_old), &how);
}

static void test_names_are_told_apart(void **state)
{
	struct interest *t = *state;
	struct slice a = {"a", 1}, b = {"b", 1}, ab = {"ab", 2}, none = {0};
	struct interest_entry *e = interest_get(t, 5, 1, a);

	assert_non_null(e);
	assert_ptr_equal(interest_get(t, 5, 1, a), e);
	assert_ptr_equal(interest_find(t, 5, 1, a), e);
	assert_null(interest_find(t, 5, 2, a));
	assert_null(interest_find(t, 5, 1, b));
	assert_null(interest_find(t, 5, 1, ab));
	assert_null(interest_find(t, 5, 1, none));
	assert_null(interest_find(t, 6, 1, a));
	assert_ptr_not_equal(interest_get(t, 5, 1, none), e);
	assert_int_equal(interest_room(e).len, 1);
	assert_memory_equal(interest_room(e).p, "a", 1);
}

static void test_growth_loses_nobody(void **state)
{
	struct interest *t = *state;
	char buf[32];

	for (unsigned i = 0; i < MANY; i++) {
		struct interest_entry *e = interest_get(t, hash_of(i), 3, name_of(buf, sizeof(buf), i));

		assert_non_null(e);
		e->last = i + 1;
		/* An early one and the newest, at every stage of moving. */
		e = interest_find(t, hash_of(i / 2), 3, name_of(buf, sizeof(buf), i / 2));
		assert_non_null(e);
		assert_int_equal(e->last, i / 2 + 1);
	}
	assert_int_equal(t->n, MANY);
	assert_true(t->n_buckets >= MANY);
	for (unsigned i = 0; i < MANY; i++) {
		struct interest_entry *e = interest_find(t, hash_of(i), 3, name_of(buf, sizeof(buf), i));

		assert_non_null(e);
		assert_int_equal(e->last, i + 1);
		assert_int_equal(e->created, i);
	}
}

static void test_readers_from_none_to_all_and_back(void **state)
{
	struct interest_entry *e = interest_get(*state, 1, 0, (struct slice){"r", 1});

	for (unsigned i = 0; i < INTEREST_READERS; i++) {
		assert_false(interest_has(e, (uint8_t)i));
		assert_int_equal(interest_add(e, (uint8_t)i), 0);
		assert_int_equal(interest_add(e, (uint8_t)i), 0); /* twice is once */
		assert_int_equal(e->n_readers, i + 1);
		for (unsigned k = 0; k <= i; k++)
			assert_true(interest_has(e, (uint8_t)k));
	}
	for (unsigned i = 0; i < INTEREST_READERS; i++) {
		uint8_t reader = (uint8_t)(i * 7); /* in another order */

		assert_int_equal(interest_drop(e, reader, 99), i == INTEREST_READERS - 1);
		assert_false(interest_has(e, reader));
		assert_int_equal(e->n_readers, INTEREST_READERS - 1 - i);
	}
	assert_int_equal(e->idle_ms, 99);
	assert_false(interest_drop(e, 3, 100));
	assert_int_equal(e->idle_ms, 99);
}

/* Up and down over the border between the entry's own list and the heap's. */
static void test_readers_at_the_border(void **state)
{
	struct interest_entry *e = interest_get(*state, 1, 0, (struct slice){"r", 1});

	for (uint8_t i = 0; i < INTEREST_FEW; i++)
		assert_int_equal(interest_add(e, i), 0);
	for (int round = 0; round < 100; round++) {
		assert_int_equal(interest_add(e, 200), 0);
		assert_false(interest_drop(e, (uint8_t)(round % 2 == 0 ? 0 : 200), 1));
		assert_int_equal(interest_add(e, 0), 0);
		interest_drop(e, 200, 1);
		assert_int_equal(e->n_readers, INTEREST_FEW);
		for (uint8_t i = 0; i < INTEREST_FEW; i++)
			assert_true(interest_has(e, i));
	}
}

static void test_sweep_keeps_what_is_needed(void **state)
{
	struct interest *t = *state;
	struct interest_entry *wanted = interest_get(t, 1, 0, (struct slice){"wanted", 6});
	struct interest_entry *subscribed = interest_get(t, 2, 0, (struct slice){"sub", 3});
	struct interest_entry *lingering = interest_get(t, 3, 0, (struct slice){"linger", 6});
	struct interest_entry *waiting = interest_get(t, 4, 0, (struct slice){"wait", 4});
	struct interest_entry *written = interest_get(t, 5, 0, (struct slice){"written", 7});

	assert_int_equal(interest_add(wanted, 1), 0);
	subscribed->sub = (struct redis_sub *)t; /* never looked into */
	lingering->has_linger = true;
	waiting->has_wait = true;
	written->last = 1000;
	assert_non_null(interest_get(t, 6, 0, (struct slice){"never", 5}));
	sweep_all(t, 1000);
	assert_int_equal(t->n, 5);
	assert_null(interest_find(t, 6, 0, (struct slice){"never", 5}));
	sweep_all(t, 1001);
	assert_int_equal(t->n, 4);
	assert_null(interest_find(t, 5, 0, (struct slice){"written", 7}));
	subscribed->sub = NULL;
	lingering->has_linger = waiting->has_wait = false;
	interest_drop(wanted, 1, 5);
	sweep_all(t, 1001);
	assert_int_equal(t->n, 0);
}

static void test_a_second_life_is_another_one(void **state)
{
	struct interest *t = *state;
	uint32_t first = interest_get(t, 1, 0, (struct slice){"r", 1})->created;

	sweep_all(t, 1);
	assert_int_equal(t->n, 0);
	assert_int_not_equal(interest_get(t, 1, 0, (struct slice){"r", 1})->created, first);
}

static unsigned idle_seen;

static void on_idle(void *arg, struct interest_entry *e)
{
	assert_int_equal(e->n_readers, 0);
	assert_int_equal(e->idle_ms, 42);
	assert_non_null(arg);
	idle_seen++;
}

static void test_dead_readers_leave_by_and_by(void **state)
{
	struct interest *t = *state;
	const struct interest_sweep how = {.now_ms = 42, .reclaim = 0, .on_idle = on_idle, .arg = t};
	char buf[32];

	idle_seen = 0;
	for (unsigned i = 0; i < MANY; i++) {
		struct interest_entry *e = interest_get(t, hash_of(i), 0, name_of(buf, sizeof(buf), i));

		e->last = 1; /* none is forgotten */
		assert_int_equal(interest_add(e, 9), 0);
		if (i % 2 == 0)
			assert_int_equal(interest_add(e, 10), 0);
	}
	interest_sweep(t, t->n_buckets / 2, &how); /* it dies in the middle of a pass */
	interest_reader_died(t, 9);
	interest_reader_died(t, 9);
	assert_int_equal(t->n_dead, 1);
	for (unsigned i = 0; interest_is_dead(t, 9); i++) {
		assert_true(i < 1000);
		interest_sweep(t, t->n_buckets / 100 + 1, &how);
	}
	assert_int_equal(t->n_dead, 0);
	assert_int_equal(idle_seen, MANY / 2);
	for (unsigned i = 0; i < MANY; i++) {
		const struct interest_entry *e =
			interest_find(t, hash_of(i), 0, name_of(buf, sizeof(buf), i));

		assert_non_null(e);
		assert_false(interest_has(e, 9));
		assert_int_equal(e->n_readers, i % 2 == 0);
	}
}

/* A table that grows under the sweep: the dead one must not be declared gone before all entries were seen. */
static void test_growth_does_not_hide_from_the_sweep(void **state)
{
	struct interest *t = *state;
	const struct interest_sweep how = {.now_ms = 1};
	char buf[32];
	unsigned made = 0;

	for (; made < 1000; made++) {
		struct interest_entry *e = interest_get(t, hash_of(made), 0, name_of(buf, sizeof(buf), made));

		e->last = 1;
		assert_int_equal(interest_add(e, 9), 0);
	}
	interest_reader_died(t, 9);
	while (interest_is_dead(t, 9)) {
		for (unsigned k = 0; k < 40 && made < MANY; k++, made++)
			interest_get(t, hash_of(made), 0, name_of(buf, sizeof(buf), made))->last = 1;
		interest_sweep(t, 64, &how);
	}
	for (unsigned i = 0; i < made; i++)
		assert_false(interest_has(interest_find(t, hash_of(i), 0, name_of(buf, sizeof(buf), i)), 9));
}

static void count_entry(void *arg, struct interest_entry *e)
{
	assert_int_equal(e->ns, 2);
	(*(unsigned *)arg)++;
}

static void test_walk_finds_a_namespace(void **state)
{
	struct interest *t = *state;
	unsigned n = 0;
	char buf[32];

	for (unsigned i = 0; i < 3000; i++)
		assert_non_null(interest_get(t, hash_of(i), (uint16_t)(i % 3), name_of(buf, sizeof(buf), i)));
	interest_walk(t, 2, count_entry, &n);
	assert_int_equal(n, 1000);
}

static void test_memory_of_an_entry(void **state)
{
	(void)state;
	assert_true(sizeof(struct interest_entry) <= 64);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_names_are_told_apart),
		TEST(test_growth_loses_nobody),
		TEST(test_readers_from_none_to_all_and_back),
		TEST(test_readers_at_the_border),
		TEST(test_sweep_keeps_what_is_needed),
		TEST(test_a_second_life_is_another_one),
		TEST(test_dead_readers_leave_by_and_by),
		TEST(test_growth_does_not_hide_from_the_sweep),
		TEST(test_walk_finds_a_namespace),
		TEST(test_memory_of_an_entry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
