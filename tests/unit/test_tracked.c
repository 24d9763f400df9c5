/* LINK: master/delivered.c master/kmv.c shm/uplink.c shm/ring.c */
/* The master's table of messages that publishers named: which is found, and with what numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/delivered.h"
#include "master/nodes.h"
#include "shm/uplink.h"

#define NS       3
#define SLICE(s) ((struct slice){(s), strlen(s)})

static struct master m;
static struct cfg_namespace ns = {.id = NS, .receipts = true};
static const struct child one = {.slot = 1, .incarnation = 10}, two = {.slot = 2, .incarnation = 20};
static unsigned n_others;

const uint64_t *nodes_others(const struct master *master, unsigned *n, bool *is_known)
{
	(void)master;
	*n = n_others;
	*is_known = true;
	return NULL;
}

static int begin(void **state)
{
	(void)state;
	memset(&m, 0, sizeof(m));
	m.seq.ns[NS] = &ns;
	ns.receipts = true;
	n_others = 0;
	return 0;
}

static int end(void **state)
{
	(void)state;
	delivered_stop(&m);
	return 0;
}

static void publish(const struct child *c, uint32_t request, const char *room, const char *id,
		    uint32_t number)
{
	assert_true(delivered_track(&m, c, NS, request, SLICE(id)));
	delivered_bind(&m, c, request, SLICE(room), number);
}

static uint32_t find(const char *room, const char *id)
{
	return delivered_find(&m, NS, SLICE(room), SLICE(id));
}

/* Users are numbers from..to-1. */
static struct slice telling(uint64_t sockets, uint64_t from, uint64_t to)
{
	static struct up_matched u;

	u.sockets = sockets;
	u.n = to - from;
	for (uint64_t i = 0; i < u.n; i++)
		u.user_hash[i] = (from + i) * UINT64_C(0x9e3779b97f4a7c15);
	return (struct slice){(const char *)&u, offsetof(struct up_matched, user_hash) + u.n * 8};
}

static void expect(uint32_t number, const char *text)
{
	struct buf b = {0};

	assert_int_equal(delivered_put(&m, number, &b), 0);
	assert_int_equal(b.len, strlen(text));
	if (b.len > 0)
		assert_memory_equal(b.p, text, b.len);
	buf_free(&b);
}

static void numbers_add_up(void **state)
{
	(void)state;
	publish(&one, 5, "a", "m1", 100);
	assert_int_equal(find("a", "m1"), 100);
	assert_true(delivered_is_tracked(&m, 100));
	assert_false(delivered_is_tracked(&m, 101));
	assert_false(delivered_is_tracked(&m, 0));
	delivered_matched(&m, 100, telling(4, 0, 2));
	delivered_matched(&m, 100, telling(3, 1, 3)); /* another worker, with one of the same users */
	assert_true(delivered_told(&m, 100, telling(2, 0, 1)));
	expect(100, ",\"delivered\":{\"sockets\":2,\"of\":7,\"users\":1,\"of_users\":3,\"partial\":false}");
	assert_true(delivered_told(&m, 100, telling(2, 0, 2)));
	assert_true(delivered_told(&m, 999, telling(2, 0, 2))); /* forgotten long ago */
	expect(100, ",\"delivered\":{\"sockets\":4,\"of\":7,\"users\":2,\"of_users\":3,\"partial\":false}");
	m.redis = (struct redis *)(void *)&m;
	expect(100, ",\"delivered\":{\"sockets\":4,\"of\":7,\"users\":2,\"of_users\":3,\"partial\":false}");
	n_others = 1;
	expect(100, ",\"delivered\":{\"sockets\":4,\"of\":7,\"users\":2,\"of_users\":3,\"partial\":true}");
	expect(0, "");
	expect(999, "");
}

static void messages_are_told_apart(void **state)
{
	(void)state;
	assert_int_equal(find("a", "m"), 0); /* nothing was ever tracked */
	publish(&one, 5, "a", "m", 100);
	publish(&two, 5, "b", "m", 101); /* another worker's request of that number */
	publish(&one, 6, "", "t", 102);  /* for users, wherever they are */
	assert_int_equal(find("a", "m"), 100);
	assert_int_equal(find("b", "m"), 101);
	assert_int_equal(find("c", "m"), 0);
	assert_int_equal(find("a", "mm"), 0);
	assert_int_equal(find("a", "t"), 102);
	assert_int_equal(find("", "t"), 102);
	assert_int_equal(delivered_find(&m, NS + 1, SLICE("a"), SLICE("m")), 0);
	publish(&one, 7, "a", "m", 103); /* again: the newest */
	assert_int_equal(find("a", "m"), 103);
}

static void what_is_not_published_is_not_found(void **state)
{
	(void)state;
	assert_true(delivered_track(&m, &one, NS, 5, SLICE("m")));
	assert_int_equal(find("a", "m"), 0);
	delivered_bind(&m, &one, 5, SLICE("a"), 100);
	delivered_drop(&m, 100); /* no space */
	assert_int_equal(find("a", "m"), 0);
	delivered_bind(&m, &one, 5, SLICE("a"), 101); /* and once more */
	assert_int_equal(find("a", "m"), 101);
	assert_true(delivered_told(&m, 100, telling(1, 0, 0)));
	expect(101, ",\"delivered\":{\"sockets\":0,\"of\":0,\"users\":0,\"of_users\":0,\"partial\":false}");
	delivered_bind(&m, &two, 5, SLICE("a"), 102); /* never named */
	assert_false(delivered_is_tracked(&m, 102));
	ns.receipts = false;
	assert_true(delivered_track(&m, &one, NS, 6, SLICE("n")));
	delivered_bind(&m, &one, 6, SLICE("a"), 103);
	assert_false(delivered_is_tracked(&m, 103));
}

static void the_oldest_are_forgotten(void **state)
{
	char id[16];

	(void)state;
	for (unsigned i = 1; i <= DELIVERED_MESSAGES + 1; i++) {
		snprintf(id, sizeof(id), "m%u", i);
		publish(&one, i, "a", id, 1000 + i);
	}
	assert_int_equal(find("a", "m1"), 0);
	assert_int_equal(find("a", "m2"), 1002);
	assert_false(delivered_is_tracked(&m, 1001));
	assert_int_equal(find("a", id), 1000 + DELIVERED_MESSAGES + 1);
}

static void nonsense_is_seen(void **state)
{
	char id[UP_TRACK_ID_MAX + 1] = {0};

	(void)state;
	assert_false(delivered_track(&m, &one, NS, 5, (struct slice){id, 0}));
	assert_false(delivered_track(&m, &one, NS, 5, (struct slice){id, sizeof(id)}));
	assert_false(delivered_track(&m, &one, NS, 0, (struct slice){id, 1}));
	assert_true(delivered_track(&m, &one, UINT16_MAX, 5, (struct slice){id, 1}));
	assert_true(delivered_track(&m, &one, NS, 5, (struct slice){id, UP_TRACK_ID_MAX}));
	assert_false(delivered_told(&m, 1, (struct slice){id, 15}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(numbers_add_up, begin, end),
		cmocka_unit_test_setup_teardown(messages_are_told_apart, begin, end),
		cmocka_unit_test_setup_teardown(what_is_not_published_is_not_found, begin, end),
		cmocka_unit_test_setup_teardown(the_oldest_are_forgotten, begin, end),
		cmocka_unit_test_setup_teardown(nonsense_is_seen, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
