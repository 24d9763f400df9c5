/* LINK: worker/wheel.c */
/* Deadlines: never early, never lost, over turns of the wheel and however they are moved. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "worker/wheel.h"

#define N 5000u

static struct wheel_link links[N];
static uint64_t due[N]; /* 0: not armed */

static struct wheel_link *link_at(void *arg, uint32_t index)
{
	(void)arg;
	return &links[index];
}

static void begin(struct wheel *w, uint64_t now)
{
	wheel_init(w, now, link_at, NULL);
	for (uint32_t i = 0; i < N; i++) {
		wheel_link_init(&links[i], i);
		due[i] = 0;
	}
}

static void test_fires_once_and_not_early(void **state)
{
	struct wheel w;

	(void)state;
	begin(&w, 1000);
	wheel_set(&w, 7, 1500);
	assert_int_equal(wheel_expire(&w, 1499), WHEEL_NONE);
	assert_int_equal(wheel_expire(&w, 1500 + 2 * WHEEL_TICK_MS), 7);
	assert_int_equal(wheel_expire(&w, 900000), WHEEL_NONE);
	assert_int_equal(w.n, 0);
}

static void test_beyond_a_turn(void **state)
{
	const uint64_t far = 1000 + (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS * 3 + 120;
	struct wheel w;

	(void)state;
	begin(&w, 1000);
	wheel_set(&w, 3, far);
	wheel_set(&w, 4, 1200);
	assert_int_equal(wheel_expire(&w, far - 1), 4);
	assert_int_equal(wheel_expire(&w, far - 1), WHEEL_NONE);
	assert_int_equal(wheel_expire(&w, far + 2 * WHEEL_TICK_MS), 3);
}

static void test_cleared_and_moved(void **state)
{
	struct wheel w;

	(void)state;
	begin(&w, 0);
	for (uint32_t i = 0; i < 5; i++)
		wheel_set(&w, i, 300);
	wheel_clear(&w, 2);
	wheel_clear(&w, 2);
	wheel_set(&w, 1, 5000);
	for (int n = 0; n < 3; n++) {
		uint32_t i = wheel_expire(&w, 600);

		assert_true(i == 0 || i == 3 || i == 4);
	}
	assert_int_equal(wheel_expire(&w, 600), WHEEL_NONE);
	assert_int_equal(wheel_expire(&w, 5200), 1);
}

/* Random sets, moves, clears and steps against a plain array. */
static void test_against_an_array(void **state)
{
	uint64_t now = 12345;
	struct wheel w;
	uint32_t i;

	(void)state;
	srand(4);
	begin(&w, now);
	for (int step = 0; step < 200000; step++) {
		uint32_t k = (uint32_t)rand() % N;

		if (rand() % 3 != 0) {
			due[k] = now + (uint64_t)rand() % 130000;
			wheel_set(&w, k, due[k]);
		} else {
			due[k] = 0;
			wheel_clear(&w, k);
		}
		if (step % 50 != 0)
			continue;
		now += (uint64_t)rand() % 500;
		while ((i = wheel_expire(&w, now)) != WHEEL_NONE) {
			assert_true(due[i] != 0 && due[i] <= now);
			due[i] = 0;
		}
		for (k = 0; k < N; k++)
			assert_true(due[k] == 0 || due[k] + 3 * WHEEL_TICK_MS > now);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fires_once_and_not_early), cmocka_unit_test(test_beyond_a_turn),
		cmocka_unit_test(test_cleared_and_moved),
		cmocka_unit_test(test_against_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
