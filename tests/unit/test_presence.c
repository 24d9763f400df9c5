/* LINK: master/presence_table.c master/crowd.c master/table.c master/kmv.c master/sketch.c shm/record.c
 * shm/ring.c */
/* Who is online: users of rooms on several workers, their deaths, what Redis still has to be told; and the
 * same under random words against a model that is too simple to be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "master/presence.h"
#include "master/sketch.h"

#define NS_LISTED 3
#define NS_PLAIN  5

static struct presence_table t;

static int setup(void **state)
{
	(void)state;
	return presence_table_init(&t, 99);
}

static int teardown(void **state)
{
	(void)state;
	presence_table_free(&t);
	return 0;
}

static void say(uint8_t reader, uint16_t ns, const char *room, const char *user, uint32_t sockets)
{
	const struct presence_word w = {
		.ns = ns,
		.room = {room, strlen(room)},
		.user = {user, strlen(user)},
		.public_hash = presence_hash(ns == NS_LISTED ? "listed" : "plain",
					     (struct slice){user, strlen(user)}),
		.sockets = sockets,
		.reader = reader,
		.is_listed = ns == NS_LISTED,
	};

	assert_int_equal(presence_table_set(&t, &w), 0);
}

static uint64_t users(uint16_t ns)
{
	return t.crowd.users[ns];
}

static uint32_t sockets_of(const char *room, const char *user)
{
	const struct presence_member *m = presence_table_member(
		&t, NS_LISTED, (struct slice){room, strlen(room)}, (struct slice){user, strlen(user)});

	return m == NULL ? 0 : m->sockets;
}

static const struct presence_place *place(const char *room)
{
	return presence_table_place(&t, NS_LISTED, (struct slice){room, strlen(room)});
}

static void test_one_user_on_two_workers_counts_once(void **state)
{
	(void)state;
	say(0, NS_PLAIN, "", "7", 1);
	say(1, NS_PLAIN, "", "7", 4);
	say(1, NS_PLAIN, "", "8", 1);
	assert_int_equal(users(NS_PLAIN), 2);
	assert_int_equal(users(NS_LISTED), 0);
	say(0, NS_PLAIN, "", "7", 0);
	assert_int_equal(users(NS_PLAIN), 2);
	say(1, NS_PLAIN, "", "7", 0);
	assert_int_equal(users(NS_PLAIN), 1);
	say(1, NS_PLAIN, "", "7", 0); /* twice: nothing */
	assert_int_equal(users(NS_PLAIN), 1);
	assert_null(presence_table_place(&t, NS_PLAIN, (struct slice){"", 0})); /* only counted */
}

static void test_rooms_list_who_is_there(void **state)
{
	(void)state;
	say(0, NS_LISTED, "a", "7", 2);
	say(1, NS_LISTED, "a", "7", 1);
	say(1, NS_LISTED, "b", "7", 1);
	say(1, NS_LISTED, "a", "8", 1);
	assert_int_equal(users(NS_LISTED), 2); /* in two rooms, and once */
	assert_int_equal(sockets_of("a", "7"), 3);
	assert_int_equal(place("a")->users, 2);
	assert_int_equal(place("a")->sockets, 4);
	assert_int_equal(place("b")->users, 1);
	assert_int_equal(t.ns[NS_LISTED].sockets, 5);
	say(1, NS_LISTED, "a", "7", 0);
	assert_int_equal(sockets_of("a", "7"), 2);
	say(0, NS_LISTED, "a", "7", 0);
	assert_int_equal(sockets_of("a", "7"), 0);
	assert_int_equal(users(NS_LISTED), 2); /* still in b */
	say(1, NS_LISTED, "b", "7", 0);
	assert_int_equal(users(NS_LISTED), 1);
	assert_null(place("b"));
}

static void test_names_are_told_apart(void **state)
{
	(void)state;
	say(0, NS_LISTED, "", "7", 1);
	say(0, NS_LISTED, "7", "", 1);
	say(0, NS_LISTED, "7", "7", 1);
	say(0, NS_LISTED, "77", "7", 1);
	assert_int_equal(place("")->users, 1);
	assert_int_equal(place("7")->users, 2);
	assert_int_equal(place("77")->users, 1);
	assert_null(place("777"));
}

static void test_a_worker_s_death_takes_its_share(void **state)
{
	char user[16];

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(user, sizeof(user), "%u", i);
		say(0, NS_LISTED, i % 2 == 0 ? "even" : "odd", user, 1);
		say(0, NS_PLAIN, "", user, 1);
		if (i < 100) {
			say(1, NS_LISTED, i % 2 == 0 ? "even" : "odd", user, 2);
			say(1, NS_PLAIN, "", user, 1);
		}
	}
	assert_int_equal(users(NS_LISTED), 1000);
	assert_int_equal(users(NS_PLAIN), 1000);
	/* In pieces, and counted as they go. */
	assert_int_equal(presence_table_forget(&t, 0, 300), 300);
	assert_in_range(users(NS_LISTED) + users(NS_PLAIN), 1700, 2000);
	for (unsigned n = 0; presence_table_forget(&t, 0, 64) > 0; n++)
		assert_true(n < 100);
	assert_int_equal(users(NS_LISTED), 100);
	assert_int_equal(users(NS_PLAIN), 100);
	assert_int_equal(place("even")->sockets, 100);
	assert_int_equal(t.ns[NS_LISTED].sockets, 200);
	assert_int_equal(presence_table_forget(&t, 1, UINT32_MAX), 300 - 100);
	assert_int_equal(users(NS_LISTED) + users(NS_PLAIN), 0);
	assert_int_equal(t.places.n + t.members.n + t.crowd.n, 0);
}

/* 65,535 rooms of one user with one worker: more are not counted up, and not counted down to nobody. */
static void test_places_do_not_overflow(void **state)
{
	uint64_t hash = presence_hash("plain", (struct slice){"7", 1});

	(void)state;
	for (unsigned i = 0; i < 70000; i++)
		assert_int_equal(crowd_add(&t.crowd, NS_PLAIN, hash, 4), 0);
	for (unsigned i = 0; i < 70000; i++)
		crowd_drop(&t.crowd, NS_PLAIN, hash, 4);
	assert_int_equal(users(NS_PLAIN), 1);
	assert_int_equal(crowd_forget(&t.crowd, 4, 10), 1);
	assert_int_equal(users(NS_PLAIN), 0);
}

static void test_the_public_hash_is_the_same_everywhere(void **state)
{
	(void)state;
	assert_true(presence_hash("a", (struct slice){"7", 1}) == presence_hash("a", (struct slice){"7", 1}));
	assert_true(presence_hash("a", (struct slice){"7", 1}) != presence_hash("b", (struct slice){"7", 1}));
	assert_true(presence_hash("a", (struct slice){"7", 1}) != presence_hash("a", (struct slice){"8", 1}));
}

/* ---- what Redis is to be told */

/* Write all changes, as presence_redis.c does. Returns how many there were. */
static unsigned write_changes(void)
{
	unsigned n = 0;

	for (; t.first_change != NULL; n++)
		presence_table_written(&t, t.first_change);
	return n;
}

static void test_changes_are_kept_until_they_are_written(void **state)
{
	(void)state;
	say(0, NS_LISTED, "a", "early", 1);
	assert_null(t.first_change);
	presence_table_keep_changes(&t, true);
	presence_table_restart(&t, NS_LISTED);
	assert_ptr_equal(t.ns[NS_LISTED].cursor, presence_table_member(&t, NS_LISTED, (struct slice){"a", 1},
								       (struct slice){"early", 5}));
	say(0, NS_LISTED, "a", "7", 1);
	say(0, NS_LISTED, "a", "7", 2);
	say(0, NS_LISTED, "a", "8", 1);
	say(0, NS_LISTED, "a", "8", 0); /* came and went: nothing to say */
	assert_int_equal(write_changes(), 1);
	assert_int_equal(presence_written(&t, presence_table_member(&t, NS_LISTED, (struct slice){"a", 1},
								    (struct slice){"7", 1})),
			 2);
	say(0, NS_LISTED, "a", "7", 2);
	assert_null(t.first_change); /* as before */
	/* Gone, but Redis has it still. */
	say(0, NS_LISTED, "a", "7", 0);
	assert_non_null(t.first_change);
	assert_int_equal(place("a")->users, 1);
	assert_int_equal(users(NS_LISTED), 1);
	assert_int_equal(t.members.n, 2);
	assert_int_equal(write_changes(), 1);
	assert_int_equal(t.members.n, 1);
}

static void test_what_redis_has_lost_is_written_anew(void **state)
{
	(void)state;
	presence_table_keep_changes(&t, true);
	presence_table_restart(&t, NS_LISTED);
	say(0, NS_LISTED, "a", "7", 1);
	say(0, NS_LISTED, "a", "8", 1);
	(void)write_changes();
	say(0, NS_LISTED, "a", "7", 0);
	say(0, NS_LISTED, "a", "9", 1);
	presence_table_restart(&t, NS_LISTED);
	assert_int_equal(t.members.n, 2); /* 7 needs no word any more */
	assert_int_equal(presence_written(&t, t.ns[NS_LISTED].first), 0);
	/* One under the cursor goes: the cursor goes on. */
	assert_ptr_equal(t.ns[NS_LISTED].cursor, t.ns[NS_LISTED].first);
	say(0, NS_LISTED, "a", "9", 0);
	assert_non_null(t.ns[NS_LISTED].cursor);
	assert_memory_equal(t.ns[NS_LISTED].cursor->user, "8", 1);
	say(0, NS_LISTED, "a", "8", 0);
	assert_null(t.ns[NS_LISTED].cursor);
	assert_null(t.first_change);
	assert_int_equal(t.members.n + t.places.n, 0);
}

static void test_without_redis_nothing_is_kept(void **state)
{
	(void)state;
	presence_table_keep_changes(&t, true);
	presence_table_restart(&t, NS_LISTED);
	say(0, NS_LISTED, "a", "7", 1);
	say(0, NS_LISTED, "a", "8", 1);
	(void)write_changes();
	say(0, NS_LISTED, "a", "7", 0);
	presence_table_keep_changes(&t, false);
	assert_int_equal(t.members.n, 1);
	say(0, NS_LISTED, "a", "8", 0);
	assert_int_equal(t.members.n, 0);
}

/* ---- random */

#define R_READERS 4
#define R_ROOMS   5
#define R_USERS   40

static uint32_t model[R_READERS][R_ROOMS][R_USERS];
static uint32_t redis[R_ROOMS][R_USERS];

static uint32_t model_sockets(unsigned room, unsigned user)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < R_READERS; i++)
		n += model[i][room][user];
	return n;
}

static void check_model(void)
{
	uint64_t distinct = 0, total = 0;
	char room[8], user[8];

	for (unsigned u = 0; u < R_USERS; u++) {
		bool is_there = false;

		for (unsigned i = 0; i < R_ROOMS; i++) {
			snprintf(room, sizeof(room), "r%u", i);
			snprintf(user, sizeof(user), "u%u", u);
			assert_int_equal(sockets_of(room, user), model_sockets(i, u));
			is_there = is_there || model_sockets(i, u) > 0;
			total += model_sockets(i, u);
		}
		distinct += is_there;
	}
	assert_int_equal(users(NS_LISTED), distinct);
	assert_int_equal(t.ns[NS_LISTED].sockets, total);
}

static void random_word(unsigned reader)
{
	unsigned room = (unsigned)random() % R_ROOMS, user = (unsigned)random() % R_USERS;
	uint32_t n = random() % 3 == 0 ? 0 : (uint32_t)(random() % 5);
	char room_name[8], user_name[8];

	snprintf(room_name, sizeof(room_name), "r%u", room);
	snprintf(user_name, sizeof(user_name), "u%u", user);
	say((uint8_t)reader, NS_LISTED, room_name, user_name, n);
	model[reader][room][user] = n;
}

/* Write some changes, or some of those behind the cursor; check what is taken out of Redis. */
static void random_write(void)
{
	struct presence_ns *n = &t.ns[NS_LISTED];
	struct presence_member *m = random() % 2 == 0 && n->cursor != NULL ? n->cursor : t.first_change;
	unsigned room, user;

	if (m == NULL)
		return;
	assert_int_equal(sscanf(m->place->room, "r%u", &room), 1);
	user = (unsigned)strtoul(m->user + 1, NULL, 10);
	assert_int_equal(presence_written(&t, m), redis[room][user]);
	redis[room][user] = m->sockets;
	if (m == n->cursor)
		n->cursor = m->next_ns;
	presence_table_written(&t, m);
}

static void test_random(void **state)
{
	(void)state;
	srandom(4711);
	memset(model, 0, sizeof(model));
	for (unsigned round = 0; round < 20000; round++) {
		unsigned reader = (unsigned)random() % R_READERS;

		switch (random() % 200) {
		case 0: /* a death, in pieces; nobody else speaks meanwhile, so the model can be sure */
			while (presence_table_forget(&t, (uint8_t)reader, 7) > 0)
				;
			memset(model[reader], 0, sizeof(model[reader]));
			break;
		case 1:
			presence_table_keep_changes(&t, true);
			presence_table_restart(&t, NS_LISTED);
			memset(redis, 0, sizeof(redis));
			break;
		case 2:
			if (random() % 4 == 0)
				presence_table_keep_changes(&t, false);
			break;
		default:
			random_word(reader);
			if (t.keeps_changes)
				random_write();
		}
		if (round % 50 == 0)
			check_model();
	}
	/* In the end Redis has just what is there. */
	presence_table_keep_changes(&t, true);
	presence_table_restart(&t, NS_LISTED);
	memset(redis, 0, sizeof(redis));
	while (t.first_change != NULL || t.ns[NS_LISTED].cursor != NULL)
		random_write();
	for (unsigned i = 0; i < R_ROOMS; i++) {
		for (unsigned u = 0; u < R_USERS; u++)
			assert_int_equal(redis[i][u], model_sockets(i, u));
	}
}

static void test_many(void **state)
{
	char user[16];

	(void)state;
	for (unsigned i = 0; i < 50000; i++) {
		snprintf(user, sizeof(user), "%u", i);
		say((uint8_t)(i % 3), NS_PLAIN, "", user, 1);
	}
	assert_int_equal(users(NS_PLAIN), 50000);
	for (unsigned i = 0; i < 50000; i += 2) {
		snprintf(user, sizeof(user), "%u", i);
		say((uint8_t)(i % 3), NS_PLAIN, "", user, 0);
	}
	assert_int_equal(users(NS_PLAIN), 25000);
	/* The budget: entries and buckets. */
	assert_true((double)t.crowd.n_segments * CROWD_SEGMENT * sizeof(struct crowd_entry) +
			    4.0 * t.crowd.n_buckets <
		    50000 * 32.0);
	for (unsigned i = 0; i < 3; i++)
		(void)presence_table_forget(&t, (uint8_t)i, UINT32_MAX);
	assert_int_equal(users(NS_PLAIN), 0);
}

/* ---- distinct users of several replicas */

static uint64_t mix(uint64_t x)
{
	return presence_hash("kmv", (struct slice){(const char *)&x, sizeof(x)});
}

static void test_kmv_is_exact_below_its_size(void **state)
{
	static struct kmv a, b;

	(void)state;
	assert_int_equal(kmv_count(&a), 0);
	for (unsigned i = 0; i < 300; i++) {
		kmv_add(&a, mix(i));
		kmv_add(&a, mix(i / 2));
		kmv_add(&b, mix(i + 200));
	}
	assert_int_equal(kmv_count(&a), 300);
	kmv_merge(&a, &b);
	assert_int_equal(kmv_count(&a), 500);
	for (unsigned i = 1; i < a.n; i++)
		assert_true(a.hash[i - 1] < a.hash[i]);
	kmv_add(&a, 0);
	kmv_add(&a, UINT64_MAX);
	assert_int_equal(kmv_count(&a), 502);
}

static void test_kmv_estimates_above(void **state)
{
	static struct kmv a, b;

	(void)state;
	for (uint64_t i = 0; i < 100000; i++) {
		kmv_add(&a, mix(i));
		kmv_add(&b, mix(i + 50000));
	}
	assert_in_range(kmv_count(&a), 85000, 115000); /* three standard errors */
	kmv_merge(&a, &b);
	assert_in_range(kmv_count(&a), 130000, 170000);
}

/* What one replica writes another one can read, and a user of both counts once. */
static void test_sketches_are_united(void **state)
{
	static struct globals globals;
	static struct master master;
	struct presence p = {0};
	struct sketch s = {0};
	struct kmv *united[CFG_MAX_NAMESPACES] = {0};
	struct buf text = {0};
	char user[16];

	(void)state;
	snprintf(globals.namespaces[NS_LISTED], sizeof(globals.namespaces[0]), "listed");
	snprintf(globals.namespaces[NS_PLAIN], sizeof(globals.namespaces[0]), "plain");
	atomic_store(&globals.n_namespaces, 6u);
	master.globals = &globals;
	master.presence = &p;
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(user, sizeof(user), "%u", i);
		say(0, NS_PLAIN, "", user, 1);
		if (i < 100)
			say(1, NS_LISTED, "a", user, 1);
		if (i >= 1000)
			say(0, NS_PLAIN, "", user, 0);
	}
	p.table = t;
	for (unsigned i = 0; s.ready[NS_PLAIN] == NULL; i++) {
		assert_true(i < 3);
		sketch_walk(&s, &master, 2);
	}
	assert_int_equal(kmv_count(s.ready[NS_LISTED]), 100);
	assert_int_equal(sketch_put(&s, &master, &text), 0);
	sketch_read(united, &master, (struct slice){text.p, text.len});
	assert_int_equal(kmv_count(united[NS_LISTED]), 100);
	assert_int_equal(kmv_count(united[NS_PLAIN]), kmv_count(s.ready[NS_PLAIN]));
	assert_in_range(kmv_count(united[NS_PLAIN]), 850, 1150);
	sketch_read(united, &master, (struct slice){text.p, text.len});
	assert_int_equal(kmv_count(united[NS_LISTED]), 100);
	/* Nonsense of somebody else's. */
	for (const char *const *bad = (const char *const[]){"", "[]", "{\"listed\":\"00zz00zz00zz00zz\"}",
							    "{\"listed\":\"00\"}", "{\"listed\":7}",
							    "{\"nobody\":\"0000000000000001\"}", NULL};
	     *bad != NULL; bad++)
		sketch_read(united, &master, (struct slice){*bad, strlen(*bad)});
	assert_int_equal(kmv_count(united[NS_LISTED]), 100);
	sketch_clear(united);
	sketch_free(&s);
	buf_free(&text);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_one_user_on_two_workers_counts_once),
		TEST(test_rooms_list_who_is_there),
		TEST(test_names_are_told_apart),
		TEST(test_a_worker_s_death_takes_its_share),
		TEST(test_places_do_not_overflow),
		TEST(test_the_public_hash_is_the_same_everywhere),
		TEST(test_changes_are_kept_until_they_are_written),
		TEST(test_what_redis_has_lost_is_written_anew),
		TEST(test_without_redis_nothing_is_kept),
		TEST(test_random),
		TEST(test_many),
		TEST(test_kmv_is_exact_below_its_size),
		TEST(test_kmv_estimates_above),
		TEST(test_sketches_are_united),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
