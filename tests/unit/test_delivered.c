/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* How many have taken a tracked record, as the worker tells it: live, behind, gone, targeted. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

#define NUMBER  77u
#define LARGE   30000u
#define SMALL   4096 /* SO_SNDBUF of a client that is soon behind */
#define USER(s) rec_cluster_hash((struct slice){"demo", 4}, (struct slice){(s), strlen(s)})

static struct rig r;
static char large[LARGE];

/* What was told by number; the hashes of all users, each once. */
static struct {
	uint64_t of, sockets, user[64];
	unsigned n_users, tellings;
} told[DELIVERED_RECORDS + 100];

static void on_control(struct rig *rig, const struct up_view *v)
{
	static struct up_matched m;
	unsigned i = v->h.total - NUMBER;

	(void)rig;
	if (v->h.type != UP_DELIVERED && v->h.type != UP_MATCHED)
		return;
	assert_true(i < ARRAY_LEN(told));
	assert_true(uplink_matched(v->payload, &m));
	if (v->h.type == UP_MATCHED) {
		told[i].of += m.sockets;
		return;
	}
	assert_true(m.sockets > 0);
	told[i].tellings++;
	told[i].sockets += m.sockets;
	for (uint64_t k = 0; k < m.n; k++) {
		unsigned at = 0;

		while (at < told[i].n_users && told[i].user[at] != m.user_hash[k])
			at++;
		assert_true(at < ARRAY_LEN(told[i].user));
		told[i].user[at] = m.user_hash[k];
		told[i].n_users += at == told[i].n_users;
	}
}

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
	r.on_control = on_control;
	r.rec_flags = REC_TRACKED;
	memset(told, 0, sizeof(told));
	memset(large, '.', sizeof(large));
}

static void end(struct rig_client *c, size_t n)
{
	rig_settle(&r);
	rig_check(&r);
	for (size_t i = 0; i < n; i++)
		if (rig_conn(&r, &c[i]) != NULL)
			rig_hang_up(&c[i]);
	rig_settle(&r);
	rig_stop(&r);
}

static void publish(const char *room, const void *p, size_t len, unsigned number)
{
	rig_publish_counted(&r, rig_channel(&r, RIG_DEMO, room), p, len, number);
}

static void publish_untracked(const char *room, const void *p, size_t len)
{
	r.rec_flags = 0;
	rig_publish(&r, rig_channel(&r, RIG_DEMO, room), p, len);
	r.rec_flags = REC_TRACKED;
}

static void expect_told(unsigned number, uint64_t sockets, uint64_t of, unsigned users)
{
	rig_settle(&r);
	rig_pass(&r, 100); /* the tick tells of single ones */
	assert_int_equal(told[number - NUMBER].sockets, sockets);
	assert_int_equal(told[number - NUMBER].of, of);
	assert_int_equal(told[number - NUMBER].n_users, users);
}

/* Read all there is; returns the text frames. */
static unsigned drain(struct rig_client *c)
{
	struct rig_frame f;
	unsigned n = 0;

	do {
		rig_settle(&r);
		while (rig_frame(c, &f))
			n += f.opcode == WS_TEXT;
	} while (rig_read(c, 0) > 0);
	return n;
}

static void live_members_count_at_once(void **state)
{
	struct rig_client c[4];

	(void)state;
	begin();
	rig_connect_as(&r, &c[0], "/ws/a", 0, "7", NULL);
	rig_connect_as(&r, &c[1], "/ws/a", 0, "7", NULL);
	rig_connect(&r, &c[2], "/ws/a", 0);
	rig_connect_as(&r, &c[3], "/ws/b", 0, "8", NULL);
	publish("a", "?", 1, NUMBER);
	rig_settle(&r);
	assert_int_equal(told[0].sockets, 3);
	assert_int_equal(told[0].tellings, 1);
	expect_told(NUMBER, 3, 3, 1);
	assert_int_equal(told[0].user[0], USER("7"));
	publish("nobody", "?", 1, NUMBER + 1);
	expect_told(NUMBER + 1, 0, 0, 0);
	/* Of several in one batch those count that are tracked. */
	publish_untracked("a", "!", 1);
	publish("a", "?", 1, NUMBER + 2);
	publish_untracked("a", "!", 1);
	publish("a", "?", 1, NUMBER + 3);
	expect_told(NUMBER + 2, 3, 3, 1);
	expect_told(NUMBER + 3, 3, 3, 1);
	expect_told(NUMBER, 3, 3, 1);
	end(c, ARRAY_LEN(c));
}

static void who_is_behind_counts_when_he_has_it_all(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin();
	rig_connect_as(&r, &c[0], "/ws/a", 0, "7", NULL);
	rig_connect_as(&r, &c[1], "/ws/a", SMALL, "8", NULL);
	rig_connect_as(&r, &c[2], "/ws/a", SMALL, "9", NULL);
	publish("a", large, LARGE, NUMBER); /* half-sent to two of them */
	publish_untracked("a", large, 100);
	publish("a", "?", 1, NUMBER + 1); /* behind it */
	expect_told(NUMBER, 1, 3, 1);
	expect_told(NUMBER + 1, 1, 3, 1);
	assert_int_equal(drain(&c[1]), 3);
	expect_told(NUMBER, 2, 3, 2);
	expect_told(NUMBER + 1, 2, 3, 2);
	/* The third goes without having had it. */
	rig_hang_up(&c[2]);
	expect_told(NUMBER, 2, 3, 2);
	publish("a", "?", 1, NUMBER + 2);
	expect_told(NUMBER + 2, 2, 2, 2);
	end(c, 2);
}

/* Two small ones in one send, the second of which stops: the first is delivered. */
static void a_send_that_stops_counts_what_is_whole(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", SMALL);
	publish("a", "?", 1, NUMBER);
	publish("a", large, LARGE, NUMBER + 1);
	expect_told(NUMBER, 1, 1, 0);
	expect_told(NUMBER + 1, 0, 1, 0);
	assert_int_equal(drain(&c), 2);
	expect_told(NUMBER, 1, 1, 0);
	expect_told(NUMBER + 1, 1, 1, 0);
	end(&c, 1);
}

static void targeted_ones_count_for_their_users(void **state)
{
	static const char *const users[] = {"7", "8", "12", NULL};
	struct rig_client c[5];

	(void)state;
	begin();
	rig_connect_as(&r, &c[0], "/ws/a", 0, "7", NULL);
	rig_connect_as(&r, &c[1], "/ws/b", 0, "7", NULL);
	rig_connect_as(&r, &c[2], "/ws/b", SMALL, "8", NULL);
	rig_connect_as(&r, &c[3], "/ws/a", 0, "9", NULL);
	rig_connect(&r, &c[4], "/ws/a", 0);
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, users, NULL, large, LARGE, NUMBER);
	/* In the same batch one for all of a room, which a marked one gets with his own. */
	publish("a", "?", 1, NUMBER + 1);
	expect_told(NUMBER, 2, 3, 1);
	expect_told(NUMBER + 1, 3, 3, 2);
	/* Being behind, it gets another one, through the chain. */
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, users, NULL, "?", 1, NUMBER + 2);
	expect_told(NUMBER + 2, 2, 3, 1);
	assert_int_equal(drain(&c[2]), 2);
	expect_told(NUMBER, 3, 3, 2);
	expect_told(NUMBER + 2, 3, 3, 2);
	end(c, ARRAY_LEN(c));
}

/* More tracked ones than are known: what is completed of the oldest is not told; all others are. */
static void the_last_ones_are_known(void **state)
{
	enum { N = DELIVERED_RECORDS + 20 };
	struct rig_client c[2];

	(void)state;
	begin();
	rig_connect_as(&r, &c[0], "/ws/a", 0, "7", NULL);
	rig_connect_as(&r, &c[1], "/ws/a", SMALL, "8", NULL);
	publish_untracked("a", large, LARGE);
	for (unsigned i = 0; i < N; i++)
		publish("a", "?", 1, NUMBER + i); /* in one turn's reach: no batch may outgrow the table */
	rig_settle(&r);
	assert_int_equal(drain(&c[0]), N + 1);
	assert_int_equal(drain(&c[1]), N + 1);
	expect_told(NUMBER, 1, 2, 1);
	expect_told(NUMBER + N - DELIVERED_RECORDS - 1, 1, 2, 1);
	expect_told(NUMBER + N - DELIVERED_RECORDS, 2, 2, 2);
	expect_told(NUMBER + N / 2, 2, 2, 2);
	expect_told(NUMBER + N - 1, 2, 2, 2);
	end(c, 2);
}

/* Single tellings gather: forty users behind cost five. */
static void many_that_were_behind_are_told_together(void **state)
{
	enum { N = 40 };
	static struct rig_client c[N];
	char id[16];

	(void)state;
	begin();
	for (int i = 0; i < N; i++) {
		snprintf(id, sizeof(id), "u%d", i);
		rig_connect_as(&r, &c[i], "/ws/a", SMALL, id, NULL);
	}
	publish("a", large, LARGE, NUMBER);
	expect_told(NUMBER, 0, N, 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(drain(&c[i]), 1);
	expect_told(NUMBER, N, N, N);
	assert_in_range(told[0].tellings, 5, 6);
	end(c, N);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(live_members_count_at_once),
		cmocka_unit_test(who_is_behind_counts_when_he_has_it_all),
		cmocka_unit_test(a_send_that_stops_counts_what_is_whole),
		cmocka_unit_test(targeted_ones_count_for_their_users),
		cmocka_unit_test(the_last_ones_are_known),
		cmocka_unit_test(many_that_were_behind_are_told_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
