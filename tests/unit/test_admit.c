/* LINK: master/admit.c master/admit_table.c master/table.c shm/record.c shm/ring.c */
/* Limits by user and address: counts over several workers, deaths, and random words against a model that is
 * too simple to be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/admit.h"
#include "master/admit_table.h"

#define USER    1
#define ADDRESS 2

static struct admit_table t;

static int setup(void **state)
{
	(void)state;
	return admit_table_init(&t, 42);
}

static int teardown(void **state)
{
	(void)state;
	admit_table_free(&t);
	return 0;
}

static struct slice str(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static struct admit_reader *reader(void)
{
	struct admit_reader *r = admit_reader_new(&t);

	assert_non_null(r);
	return r;
}

static void limits_hold_over_workers(void **state)
{
	struct admit_reader *a = reader(), *b = reader();

	(void)state;
	assert_int_equal(admit_take(&t, a, USER, str("7"), 2), 1);
	assert_int_equal(admit_take(&t, b, USER, str("7"), 2), 1);
	assert_int_equal(admit_take(&t, a, USER, str("7"), 2), 0);
	assert_int_equal(admit_take(&t, b, USER, str("7"), 2), 0);
	assert_int_equal(admit_take(&t, b, USER, str("7"), 3), 1); /* the limit has been raised */
	assert_int_equal(admit_count(&t, USER, str("7")), 3);
	/* others, and what merely looks alike */
	assert_int_equal(admit_take(&t, a, USER, str("77"), 1), 1);
	assert_int_equal(admit_take(&t, a, ADDRESS, str("7"), 1), 1);
	assert_int_equal(admit_count(&t, USER, str("7")), 3);
	assert_int_equal(admit_take(&t, a, USER, str("8"), 0), 0);
}

static void what_is_given_back_is_free(void **state)
{
	struct admit_reader *a = reader(), *b = reader();

	(void)state;
	assert_int_equal(admit_take(&t, a, USER, str("7"), 1), 1);
	assert_false(admit_give(&t, b, USER, str("7"))); /* not its own */
	assert_false(admit_give(&t, a, USER, str("8")));
	assert_false(admit_give(&t, a, ADDRESS, str("7")));
	assert_true(admit_give(&t, a, USER, str("7")));
	assert_false(admit_give(&t, a, USER, str("7")));
	assert_int_equal(admit_count(&t, USER, str("7")), 0);
	assert_int_equal(t.table.n, 0); /* nothing is kept of nobody */
	assert_int_equal(admit_take(&t, b, USER, str("7"), 1), 1);
}

static void the_dead_hold_nothing(void **state)
{
	struct admit_reader *a = reader(), *b = reader();
	char key[16];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(admit_take(&t, a, USER, str(key), 5), 1);
		if (i % 2 == 0)
			assert_int_equal(admit_take(&t, b, USER, str(key), 5), 1);
	}
	admit_reader_died(&t, a);
	assert_int_equal(admit_count(&t, USER, str("0")), 1); /* at once, not when its memory goes */
	assert_int_equal(admit_count(&t, USER, str("1")), 0);
	assert_int_equal(admit_take(&t, b, USER, str("1"), 1), 1);
	assert_true(admit_forget(&t, 30));
	assert_int_equal(t.table.n, 85); /* the newest 30: half of them b has, too */
	assert_true(admit_forget(&t, 69));
	assert_true(admit_forget(&t, 0));
	assert_false(admit_forget(&t, 1));
	assert_false(admit_forget(&t, 1));
	assert_int_equal(t.table.n, 51);
	assert_ptr_equal(t.readers, b);
	assert_null(b->next);
	admit_reader_died(&t, b);
	assert_false(admit_forget(&t, UINT32_MAX));
	assert_int_equal(t.table.n, 0);
	assert_null(t.readers);
}

/* ---- what workers say, and what they hear */

static struct rec heard[8];
static unsigned n_heard;

void seq_control(struct sequencer *s, uint8_t to, const struct rec *h, struct slice room)
{
	(void)s;
	assert_int_equal(room.len, 0);
	assert_true(n_heard < ARRAY_LEN(heard));
	heard[n_heard] = *h;
	heard[n_heard++].slot = to;
}

static bool told(struct master *m, struct child *c, enum up_type type, uint8_t what, const char *key,
		 size_t len, uint32_t limit)
{
	const struct up_view v = {
		.h = {.type = (uint8_t)type, .opcode = what, .total = limit, .request = 1000 + n_heard},
		.payload = {key, len},
	};

	return admit_told(m, c, &v);
}

static void the_master_answers(void **state)
{
	static struct master m;
	struct child *a = &m.child[0], *b = &m.child[1];
	static const char address[17] = "0123456789abcdef";
	char long_key[ADMIT_KEY_MAX + 1] = "";

	(void)state;
	n_heard = 0;
	a->reader = 3;
	b->reader = 4;
	assert_int_equal(admit_start(&m), 0);
	assert_true(told(&m, a, UP_ADMIT, UP_LIMIT_USER, "7", 1, 1));
	assert_true(told(&m, b, UP_ADMIT, UP_LIMIT_USER, "7", 1, 1));
	assert_true(told(&m, b, UP_ADMIT, UP_LIMIT_ADDRESS, address, 16, 1));
	assert_int_equal(n_heard, 3);
	assert_int_equal(heard[0].type, REC_ADMIT);
	assert_true(heard[0].id == 1000 && heard[0].arg[0] == 1 && heard[0].slot == 3);
	assert_true(heard[1].id == 1001 && heard[1].arg[0] == 0 && heard[1].slot == 4);
	assert_true(heard[2].id == 1002 && heard[2].arg[0] == 1 && heard[2].slot == 4);
	/* given back by who has it; and by who has not */
	assert_true(told(&m, a, UP_RELEASE, UP_LIMIT_USER, "7", 1, 0));
	assert_false(told(&m, a, UP_RELEASE, UP_LIMIT_USER, "7", 1, 0));
	assert_int_equal(n_heard, 3);
	assert_true(told(&m, b, UP_ADMIT, UP_LIMIT_USER, "7", 1, 1));
	assert_int_equal(heard[3].arg[0], 1);
	/* nonsense */
	assert_false(told(&m, a, UP_ADMIT, 0, "7", 1, 1));
	assert_false(told(&m, a, UP_ADMIT, 3, "7", 1, 1));
	assert_false(told(&m, a, UP_ADMIT, UP_LIMIT_USER, "", 0, 1));
	assert_false(told(&m, a, UP_ADMIT, UP_LIMIT_USER, long_key, sizeof(long_key), 1));
	assert_false(told(&m, a, UP_ADMIT, UP_LIMIT_ADDRESS, address, 15, 1));
	assert_int_equal(n_heard, 4);
	/* death */
	admit_worker_died(&m, b);
	assert_null(b->admit);
	assert_true(told(&m, a, UP_ADMIT, UP_LIMIT_USER, "7", 1, 1));
	assert_int_equal(heard[4].arg[0], 1);
	assert_false(admit_turn(&m));
	assert_int_equal(m.admit->table.n, 1);
	admit_worker_died(&m, b); /* nothing is counted for it */
	admit_stop(&m);
	assert_null(m.admit);
}

/* ---- against a model */

#define READERS 4
#define KEYS    9

static uint32_t model[READERS][KEYS];

static uint64_t model_count(unsigned key)
{
	uint64_t n = 0;

	for (unsigned r = 0; r < READERS; r++)
		n += model[r][key];
	return n;
}

static void random_words_agree_with_a_model(void **state)
{
	static const char *const keys[KEYS] = {"", "a", "b", "ab", "abc", "7", "07", "\xff", "x"};
	struct admit_reader *r[READERS];
	unsigned seed = 20;

	(void)state;
	memset(model, 0, sizeof(model));
	for (unsigned i = 0; i < READERS; i++)
		r[i] = reader();
	for (int i = 0; i < 200000; i++) {
		unsigned what = (unsigned)rand_r(&seed) % 100, who = (unsigned)rand_r(&seed) % READERS,
			 key = (unsigned)rand_r(&seed) % KEYS, limit = (unsigned)rand_r(&seed) % 12;

		if (what < 55) {
			int wanted = model_count(key) < limit;

			assert_int_equal(admit_take(&t, r[who], USER, str(keys[key]), limit), wanted);
			model[who][key] += (unsigned)wanted;
		} else if (what < 97) {
			assert_int_equal(admit_give(&t, r[who], USER, str(keys[key])), model[who][key] > 0);
			model[who][key] -= model[who][key] > 0;
		} else if (what < 98) {
			admit_reader_died(&t, r[who]);
			memset(model[who], 0, sizeof(model[who]));
			r[who] = reader();
		} else {
			(void)admit_forget(&t, (uint32_t)rand_r(&seed) % 5);
		}
		assert_int_equal(admit_count(&t, USER, str(keys[key])), model_count(key));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(limits_hold_over_workers, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_given_back_is_free, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dead_hold_nothing, setup, teardown),
		cmocka_unit_test(the_master_answers),
		cmocka_unit_test_setup_teardown(random_words_agree_with_a_model, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
