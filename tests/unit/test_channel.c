/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* The channel table: interest told once, members in one packed array, live ones first. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

static struct rig r;

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	rig_stop(&r);
}

static void interest_is_told_once(void **state)
{
	struct rig_client c[5];
	struct rig_channel *a;

	(void)state;
	begin();
	for (int i = 0; i < 5; i++)
		rig_connect(&r, &c[i], "/ws/a", 0);
	a = rig_channel(&r, RIG_DEMO, "a");
	assert_int_equal(a->adds, 1);
	for (int i = 0; i < 4; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	assert_int_equal(a->drops, 0);
	rig_hang_up(&c[4]);
	rig_settle(&r);
	assert_int_equal(a->drops, 1);
	assert_int_equal(r.w->channels.n, 0);
	rig_connect(&r, &c[0], "/ws/a", 0);
	assert_int_equal(a->adds, 2);
	rig_hang_up(&c[0]);
	end();
}

/* The same room in two namespaces, and rooms that differ in little: no message goes astray. */
static void channels_are_kept_apart(void **state)
{
	static const char *const paths[] = {"/ws/a", "/skip/a", "/ws/A", "/ws/aa", "/ws/%C3%A4", "/family"};
	static const char *const rooms[] = {"a", "a", "A", "aa", "\xc3\xa4", ""};
	static const unsigned spaces[] = {RIG_DEMO, RIG_SKIP, RIG_DEMO, RIG_DEMO, RIG_DEMO, RIG_FAMILY};
	struct rig_client c[ARRAY_LEN(paths)];

	(void)state;
	begin();
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		rig_connect(&r, &c[i], paths[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		rig_publish(&r, rig_channel(&r, spaces[i], rooms[i]), paths[i], strlen(paths[i]));
		for (size_t k = 0; k < ARRAY_LEN(paths); k++) {
			if (k == i)
				rig_expect(&r, &c[k], paths[i]);
			else
				rig_expect_nothing(&r, &c[k]);
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		rig_hang_up(&c[i]);
	end();
}

/* Every connection of an echo namespace has a channel of its own. */
static void a_channel_for_each_connection(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	rig_connect(&r, &a, "/echo", 0);
	rig_connect(&r, &b, "/echo", 0);
	rig_send(&a, WS_TEXT, "to a", 4);
	rig_send(&b, WS_TEXT, "to b", 4);
	rig_expect(&r, &a, "to a");
	rig_expect(&r, &b, "to b");
	rig_expect_nothing(&r, &a);
	rig_expect_nothing(&r, &b);
	rig_hang_up(&a);
	rig_hang_up(&b);
	end();
}

/* A confirmation that came for a life of the channel that is over, or for one that nobody here knows. */
static void late_confirmations_do_no_harm(void **state)
{
	struct rec h = {.type = REC_SUBSCRIBED, .ns = RIG_DEMO + 3};
	struct rig_client c;

	(void)state;
	begin();
	h.hash = rec_channel_hash(r.globals->hash_key, h.ns, (struct slice){"a", 1});
	rig_control(&r, &h, (struct slice){"a", 1});
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_control(&r, &h, (struct slice){"a", 1}); /* again: taken no notice of */
	rig_settle(&r);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "once", 4);
	rig_expect(&r, &c, "once");
	rig_expect_nothing(&r, &c);
	h.arg[0] = 1;
	rig_control(&r, &h, (struct slice){"a", 1});
	rig_settle(&r);
	assert_int_equal(RIG_COUNT(&r, subscribe_timeouts), 1);
	rig_hang_up(&c);
	end();
}

/* Many wait for one confirmation; some have gone, some send at once, some even say goodbye. */
static void a_crowd_joins_at_once(void **state)
{
	enum { N = 60 };
	static struct rig_client c[N];

	(void)state;
	begin();
	r.hold_control = true;
	for (int i = 0; i < N; i++) {
		rig_dial(&r, &c[i], 0);
		rig_request(&c[i], "/ws/a");
		if (i % 5 == 1)
			rig_send(&c[i], WS_TEXT, "hi", 2);
		if (i % 5 == 2)
			rig_send_close(&c[i], 1000); /* before it has its 101 */
	}
	rig_settle(&r);
	for (int i = 3; i < N; i += 5)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	for (int i = 4; i < N; i += 5) /* whose socket fails at the 101 */
		assert_int_equal(shutdown(conn_at(&r.w->conns, c[i].index)->fd, SHUT_WR), 0);
	rig_check(&r);
	r.hold_control = false;
	rig_settle(&r);
	rig_check(&r);
	for (int i = 0; i < N; i++) {
		struct rig_frame f;

		if (i % 5 >= 3)
			continue;
		rig_read(&c[i], 0);
		assert_true(rig_take_101(&c[i]));
		if (i % 5 == 2) {
			assert_true(rig_frame(&c[i], &f));
			assert_int_equal(c[i].close_code, 1000);
			continue;
		}
		for (int k = 0; k < N / 5; k++) {
			assert_true(rig_frame(&c[i], &f));
			assert_int_equal(f.len, 2);
		}
	}
	assert_int_equal(r.w->conns.n_open, 2 * N / 5);
	for (int i = 0; i < N; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

/* All waiters of a channel fail at their 101: nobody is left in it, and the master is told. */
static void nobody_survives_the_101(void **state)
{
	struct rig_client c[4];

	(void)state;
	begin();
	r.hold_control = true;
	for (int i = 0; i < 4; i++) {
		rig_dial(&r, &c[i], 0);
		rig_request(&c[i], "/ws/a");
		rig_settle(&r);
		assert_int_equal(shutdown(conn_at(&r.w->conns, c[i].index)->fd, SHUT_WR), 0);
	}
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, channels), 0);
	assert_false(rig_channel(&r, RIG_DEMO, "a")->is_wanted);
	for (int i = 0; i < 4; i++)
		rig_hang_up(&c[i]);
	end();
}

/* More channels than the table began with; all are found, and all are forgotten. */
static void the_table_grows(void **state)
{
	enum { N = 1000 };
	static struct rig_client c[N];
	char path[40], room[20];

	(void)state;
	begin();
	for (int i = 0; i < N; i++) {
		snprintf(path, sizeof(path), "/ws/room%d", i);
		rig_connect(&r, &c[i], path, 0);
	}
	assert_int_equal(r.w->channels.n, N);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, channels), N);
	for (int i = 0; i < N; i += 7) {
		snprintf(room, sizeof(room), "room%d", i);
		rig_publish(&r, rig_channel(&r, RIG_DEMO, room), room, strlen(room));
	}
	rig_settle(&r);
	for (int i = 0; i < N; i++) {
		struct rig_frame f;

		rig_read(&c[i], 0);
		assert_int_equal(rig_frame(&c[i], &f), i % 7 == 0);
	}
	rig_check(&r);
	for (int i = 0; i < N; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	assert_int_equal(r.w->conns.n, 0);
	/* Places are used again, not new ones. */
	assert_int_equal(r.w->channels.n_segments, (N + CHANNEL_SEGMENT - 1) / CHANNEL_SEGMENT);
	for (int i = 0; i < N; i++) {
		snprintf(path, sizeof(path), "/ws/other%d", i);
		rig_connect(&r, &c[i], path, 0);
	}
	assert_int_equal(r.w->channels.n_segments, (N + CHANNEL_SEGMENT - 1) / CHANNEL_SEGMENT);
	for (int i = 0; i < N; i++)
		rig_hang_up(&c[i]);
	end();
}

/* A hash that two channels share (as if): names decide. */
static void names_decide_not_hashes(void **state)
{
	struct rig_client c;
	struct rec h = {
		.type = REC_PUBLICATION, .opcode = WS_TEXT, .ns = RIG_DEMO + 3, .seq = 1, .slot = REC_ALL};

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	h.hash = rec_channel_hash(r.globals->hash_key, h.ns, (struct slice){"a", 1});
	(void)rec_commit(&r.ring, slot_cursor(&r.slot), &h, (struct slice){"b", 1}, (struct slice){"x", 1},
			 0);
	h.ns = RIG_SKIP + 3;
	(void)rec_commit(&r.ring, slot_cursor(&r.slot), &h, (struct slice){"a", 1}, (struct slice){"x", 1},
			 0);
	rig_expect_nothing(&r, &c);
	rig_hang_up(&c);
	end();
}

/* Memory of an idle subscriber: its record, its place in the array, nothing else. */
static void an_idle_member_owns_nothing(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin();
	for (int i = 0; i < 3; i++) {
		rig_connect(&r, &c[i], "/ws/a", 0);
		rig_send(&c[i], WS_TEXT, "hello", 5);
		rig_send(&c[i], WS_PING, "", 0);
	}
	rig_settle(&r);
	for (int i = 0; i < 3; i++)
		assert_null(rig_conn(&r, &c[i])->ext);
	assert_int_equal(ws_pool_memory(r.w->ws_pool), 0);
	assert_int_equal(ws_pool_borrowed(r.w->ws_pool), 0);
	assert_null(r.w->control_overflow.p);
	for (int i = 0; i < 3; i++)
		rig_hang_up(&c[i]);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(interest_is_told_once),
		cmocka_unit_test(channels_are_kept_apart),
		cmocka_unit_test(a_channel_for_each_connection),
		cmocka_unit_test(late_confirmations_do_no_harm),
		cmocka_unit_test(a_crowd_joins_at_once),
		cmocka_unit_test(nobody_survives_the_101),
		cmocka_unit_test(the_table_grows),
		cmocka_unit_test(names_decide_not_hashes),
		cmocka_unit_test(an_idle_member_owns_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
