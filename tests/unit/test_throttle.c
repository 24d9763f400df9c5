/* LINK: master/throttle.c */
/* At most one in its time, unless it says something new. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "master/throttle.h"

/* As drain.c does. */
static bool passes(struct throttle *t, uint64_t key, uint32_t value, uint32_t ms, uint64_t now_ms)
{
	if (throttle_is_too_soon(t, key, value, now_ms))
		return false;
	throttle_note(t, key, value, ms, now_ms);
	return true;
}

static void one_in_its_time(void **state)
{
	struct throttle t = {0};

	(void)state;
	assert_true(passes(&t, 7, 1, 1000, 5000));
	assert_false(passes(&t, 7, 1, 1000, 5000));
	assert_false(passes(&t, 7, 1, 1000, 5999)); /* what was too soon does not begin it anew */
	assert_true(passes(&t, 7, 1, 1000, 6000));
	assert_false(passes(&t, 7, 1, 1000, 6999));
	assert_true(passes(&t, 8, 1, 1000, 6999)); /* somebody else */
	throttle_free(&t);
}

static void changes_pass(void **state)
{
	struct throttle t = {0};

	(void)state;
	assert_true(passes(&t, 7, 1, 1000, 5000));
	assert_true(passes(&t, 7, 0, 1000, 5001));
	assert_true(passes(&t, 7, 1, 1000, 5002));
	assert_false(passes(&t, 7, 1, 1000, 6001));
	assert_true(passes(&t, 7, 1, 1000, 6002));
	throttle_free(&t);
}

/* More keys of one set than it has places: what is over goes first, then what will be soonest. */
static void a_full_set(void **state)
{
	struct throttle t = {0};
	const uint64_t same_set = (uint64_t)THROTTLE_SETS << 32;

	(void)state;
	for (uint64_t i = 1; i <= THROTTLE_WAYS; i++)
		assert_true(passes(&t, i * same_set, 1, (uint32_t)(1000 * i), 0));
	for (uint64_t i = 1; i <= THROTTLE_WAYS; i++)
		assert_false(passes(&t, i * same_set, 1, 1000, 0));
	assert_true(passes(&t, 9 * same_set, 1, 9000, 0)); /* instead of the first */
	assert_true(throttle_is_too_soon(&t, 9 * same_set, 1, 0));
	assert_false(throttle_is_too_soon(&t, same_set, 1, 0));
	for (uint64_t i = 2; i <= THROTTLE_WAYS; i++)
		assert_true(throttle_is_too_soon(&t, i * same_set, 1, 0));
	throttle_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_in_its_time),
		cmocka_unit_test(changes_pass),
		cmocka_unit_test(a_full_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
