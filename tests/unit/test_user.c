/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Users: sockets, groups, the claim on the namespace's own channel, and what the master is told of them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/worker_rig.h"
#include "worker/user_int.h"

#define SLICE(s)  ((struct slice){(s), strlen(s)})
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct rig r;

/* The presence records, as text: "ns/room/user=n ". */
static char told[4096];

static void on_control(struct rig *rig, const struct up_view *v)
{
	size_t len = strlen(told);

	(void)rig;
	if (v->h.type == UP_PRESENCE)
		snprintf(told + len, sizeof(told) - len, "%u/%.*s/%.*s=%u ", v->h.ns - 3u, (int)v->room.len,
			 v->room.p, (int)v->payload.len, v->payload.p, v->h.total);
}

static void begin(void)
{
	rig_init(&r);
	r.on_control = on_control;
	told[0] = '\0';
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	rig_stop(&r);
}

static void expect_told(const char *text)
{
	rig_settle(&r);
	assert_string_equal(told, text);
	told[0] = '\0';
}

static const struct user *find(unsigned ns, const char *id)
{
	uint32_t index = user_find(r.w, (uint16_t)ns, SLICE(id));

	return index == USER_NONE ? NULL : user_at(r.w, index);
}

static bool is_in(unsigned ns, const char *id, const char *group)
{
	return user_in_group(find(ns, id), rec_group_hash(r.globals->hash_key, SLICE(group)), SLICE(group));
}

static void sockets_of_a_user_are_counted(void **state)
{
	struct rig_client a, b, c, d;

	(void)state;
	begin();
	rig_start(&r);
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/ws/y", 0, "7", NULL);
	rig_connect_as(&r, &c, "/ws/y", 0, "8", NULL);
	rig_connect(&r, &d, "/ws/y", 0);
	expect_told("0//7=1 0//7=2 0//8=1 ");
	assert_int_equal(find(RIG_DEMO, "7")->n, 2);
	assert_null(find(RIG_SKIP, "7"));
	rig_check(&r);
	rig_hang_up(&a);
	expect_told("0//7=1 ");
	rig_hang_up(&d);
	rig_hang_up(&b);
	rig_settle(&r);
	expect_told("0//7=0 ");
	assert_null(find(RIG_DEMO, "7"));
	rig_hang_up(&c);
	expect_told("0//8=0 ");
	end();
}

static void presence_is_by_room(void **state)
{
	struct rig_client a, b, c;

	(void)state;
	begin();
	r.namespaces[RIG_DEMO].presence = true;
	rig_start(&r);
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/ws/y", 0, "7", NULL);
	rig_connect_as(&r, &c, "/ws/x", 0, "7", NULL);
	expect_told("0/x/7=1 0/y/7=1 0/x/7=2 ");
	rig_hang_up(&a);
	expect_told("0/x/7=1 ");
	rig_hang_up(&b);
	expect_told("0/y/7=0 ");
	rig_hang_up(&c);
	expect_told("0/x/7=0 ");
	assert_int_equal(r.w->users->places.n, 0);
	end();
}

/* The 101 of an identified client waits for the namespace's own channel, too. */
static void claims_come_and_go(void **state)
{
	struct rig_client a, b, c;
	struct rig_channel *own;

	(void)state;
	begin();
	rig_start(&r);
	own = rig_channel(&r, RIG_DEMO, "");
	rig_connect(&r, &c, "/ws/x", 0);
	assert_int_equal(own->adds, 0); /* nobody that a target could name */
	r.hold_control = true;
	rig_dial(&r, &a, 0);
	rig_identify(&r, &a, "7", NULL);
	rig_request(&a, "/ws/x");
	rig_dial(&r, &b, 0);
	rig_identify(&r, &b, "8", NULL);
	rig_request(&b, "/ws/x");
	rig_settle(&r);
	rig_read(&a, 0);
	assert_false(rig_take_101(&a));
	rig_check(&r);
	rig_hang_up(&a); /* the last that came, then the first, and in the middle of the list */
	rig_settle(&r);
	rig_check(&r);
	rig_hang_up(&b);
	rig_settle(&r);
	rig_check(&r);
	assert_int_equal(user_channel(r.w, RIG_DEMO), CHANNEL_NONE);
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(own->adds, 1);
	assert_int_equal(own->drops, 1);
	rig_connect_as(&r, &a, "/ws/x", 0, "7", NULL);
	rig_connect_as(&r, &b, "/ws/z", 0, "8", NULL);
	assert_int_equal(own->adds, 2);
	rig_hang_up(&a);
	rig_settle(&r);
	assert_true(own->is_wanted);
	rig_hang_up(&b);
	rig_settle(&r);
	assert_false(own->is_wanted);
	rig_hang_up(&c);
	end();
}

/* A namespace without rooms: the channel that is held has members and waiters of its own, who may go first.
 */
static void a_held_channel_outlives_its_own_clients(void **state)
{
	struct rig_client a, b, c;

	(void)state;
	begin();
	rig_start(&r);
	r.hold_control = true;
	rig_dial(&r, &a, 0);
	rig_request(&a, "/family");
	rig_dial(&r, &b, 0);
	rig_identify(&r, &b, "7", NULL);
	rig_request(&b, "/family");
	rig_settle(&r);
	rig_hang_up(&a);
	rig_settle(&r);
	rig_check(&r);
	r.hold_control = false;
	rig_settle(&r);
	rig_read(&b, 0);
	assert_true(rig_take_101(&b));
	rig_connect(&r, &c, "/family", 0);
	rig_check(&r);
	rig_hang_up(&b);
	rig_settle(&r);
	rig_check(&r);
	rig_hang_up(&c);
	end();
}

static void many_wait_and_all_come_in(void **state)
{
	enum { N = 300 };
	static struct rig_client c[N];
	static char ids[N][16];

	(void)state;
	begin();
	rig_start(&r);
	r.hold_control = true;
	for (int i = 0; i < N; i++) {
		snprintf(ids[i], sizeof(ids[i]), "u%d", i);
		rig_dial(&r, &c[i], 0);
		if (i % 5 != 0)
			rig_identify(&r, &c[i], ids[i], NULL);
		rig_request(&c[i], i % 2 == 0 ? "/family" : "/ws/x");
	}
	rig_settle(&r);
	rig_check(&r);
	for (int i = 0; i < N; i += 7)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	rig_check(&r);
	r.hold_control = false;
	rig_settle(&r);
	rig_check(&r);
	for (int i = 0; i < N; i++) {
		if (i % 7 == 0)
			continue;
		rig_read(&c[i], 0);
		assert_true(rig_take_101(&c[i]));
		rig_hang_up(&c[i]);
	}
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	end();
}

static void the_newest_authorization_says_which_groups(void **state)
{
	struct rig_client a, b, c;

	(void)state;
	begin();
	rig_start(&r);
	rig_connect_as(&r, &a, "/ws/x", 0, "7", LIST("red", "green"));
	rig_connect_as(&r, &c, "/ws/x", 0, "8", LIST("green", "red", "red"));
	assert_int_equal(user_n_groups(find(RIG_DEMO, "8")), 2);
	assert_true(is_in(RIG_DEMO, "7", "red"));
	rig_check(&r);
	rig_connect_as(&r, &b, "/ws/y", 0, "7", LIST("blue", "green"));
	assert_false(is_in(RIG_DEMO, "7", "red"));
	assert_true(is_in(RIG_DEMO, "7", "blue"));
	assert_true(is_in(RIG_DEMO, "8", "red"));
	rig_check(&r);
	/* It does not go with the socket that brought it. */
	rig_hang_up(&b);
	rig_settle(&r);
	assert_true(is_in(RIG_DEMO, "7", "blue"));
	user_refresh(r.w, rig_conn(&r, &a),
		     &(struct identity){.groups = (struct slice[]){SLICE("red")}, .n_groups = 1});
	assert_true(is_in(RIG_DEMO, "7", "red"));
	assert_int_equal(user_n_groups(find(RIG_DEMO, "7")), 1);
	rig_check(&r);
	rig_hang_up(&a);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->users->groups.n, 0);
	end();
}

static void groups_change_at_runtime(void **state)
{
	const struct slice both[] = {SLICE("7"), SLICE("8")}, nobody[] = {SLICE("99")};
	struct rig_client a, b, c;

	(void)state;
	begin();
	rig_start(&r);
	rig_connect_as(&r, &a, "/ws/x", 0, "7", LIST("red"));
	rig_connect_as(&r, &b, "/ws/x", 0, "8", NULL);
	rig_connect_as(&r, &c, "/skip/x", 0, "7", NULL);
	user_change_group(r.w, SLICE("team"), both, 2, nobody, 1);
	assert_true(is_in(RIG_DEMO, "7", "team"));
	assert_true(is_in(RIG_DEMO, "8", "team"));
	assert_true(is_in(RIG_SKIP, "7", "team"));
	rig_check(&r);
	user_change_group(r.w, SLICE("team"), both, 2, both, 1);
	assert_false(is_in(RIG_DEMO, "7", "team"));
	assert_false(is_in(RIG_SKIP, "7", "team"));
	assert_true(is_in(RIG_DEMO, "8", "team"));
	assert_true(is_in(RIG_DEMO, "7", "red"));
	rig_check(&r);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_hang_up(&c);
	end();
}

/* Many users with many groups: tables grow and shrink, whatever the order. */
static void tables_hold_thousands(void **state)
{
	enum { N = 1200, GROUPS = 40 };
	static struct rig_client c[N];
	static char ids[N][16], names[GROUPS][16];

	(void)state;
	begin();
	rig_start(&r);
	for (int g = 0; g < GROUPS; g++)
		snprintf(names[g], sizeof(names[g]), "g%d", g);
	for (int i = 0; i < N; i++) {
		const char *groups[] = {names[i % GROUPS], names[i / GROUPS % GROUPS], names[i * 7 % GROUPS],
					NULL};

		snprintf(ids[i], sizeof(ids[i]), "u%d", i % (N * 2 / 3));
		rig_connect_as(&r, &c[i], "/ws/x", 0, ids[i], groups);
		told[0] = '\0';
	}
	rig_check(&r);
	assert_int_equal(r.w->users->users.n, N * 2 / 3);
	assert_int_equal(r.w->users->groups.n, GROUPS);
	for (int i = 0; i < N; i++) {
		rig_hang_up(&c[i * 7 % N]);
		if (i % 100 == 0) {
			rig_settle(&r);
			rig_check(&r);
		}
		told[0] = '\0';
	}
	rig_settle(&r);
	assert_int_equal(r.w->users->users.n, 0);
	assert_int_equal(r.w->users->groups.n, 0);
	end();
}

/* What every host of a cluster must count alike. */
static void cluster_hash_knows_no_key(void **state)
{
	(void)state;
	assert_int_not_equal(rec_cluster_hash(SLICE("a"), SLICE("7")),
			     rec_cluster_hash(SLICE("b"), SLICE("7")));
	assert_int_not_equal(rec_cluster_hash(SLICE("a"), SLICE("7")),
			     rec_cluster_hash(SLICE("a"), SLICE("8")));
	assert_int_equal(rec_cluster_hash(SLICE("a"), SLICE("7")), rec_cluster_hash(SLICE("a"), SLICE("7")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_of_a_user_are_counted),
		cmocka_unit_test(presence_is_by_room),
		cmocka_unit_test(claims_come_and_go),
		cmocka_unit_test(a_held_channel_outlives_its_own_clients),
		cmocka_unit_test(many_wait_and_all_come_in),
		cmocka_unit_test(the_newest_authorization_says_which_groups),
		cmocka_unit_test(groups_change_at_runtime),
		cmocka_unit_test(tables_hold_thousands),
		cmocka_unit_test(cluster_hash_knows_no_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
