/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* From the ring to live members: order, batches, the cursor, sleep, own publications, heartbeat. */
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

static void publish_number(struct rig_channel *ch, unsigned n)
{
	char text[20];
	int len = snprintf(text, sizeof(text), "%u", n);

	rig_publish(&r, ch, text, (size_t)len);
}

static void expect_numbers(struct rig_client *c, unsigned from, unsigned to)
{
	struct rig_frame f;
	char text[20];

	rig_read(c, 0);
	for (unsigned n = from; n < to; n++) {
		int len = snprintf(text, sizeof(text), "%u", n);

		assert_true(rig_frame(c, &f));
		assert_int_equal(f.len, len);
		assert_memory_equal(f.payload, text, (size_t)len);
	}
	assert_int_equal(rig_rest(c), 0);
}

/* Channels of one batch are sent one after the other, each in order, each member in one write. */
static void a_batch_is_one_write_for_each_member(void **state)
{
	struct rig_client a[3], b;
	struct rig_channel *ca, *cb;
	uint64_t sends;

	(void)state;
	begin();
	for (int i = 0; i < 3; i++)
		rig_connect(&r, &a[i], "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	ca = rig_channel(&r, RIG_DEMO, "a");
	cb = rig_channel(&r, RIG_DEMO, "b");
	sends = RIG_COUNT(&r, sends);
	for (unsigned i = 0; i < 200; i++)
		publish_number(i % 2 == 0 ? ca : cb, i / 2);
	rig_turn(&r);
	assert_int_equal(RIG_COUNT(&r, sends) - sends, 4);
	for (int i = 0; i < 3; i++)
		expect_numbers(&a[i], 0, 100);
	expect_numbers(&b, 0, 100);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries), 400);
	for (int i = 0; i < 3; i++)
		rig_hang_up(&a[i]);
	rig_hang_up(&b);
	end();
}

static void more_records_than_a_batch_holds(void **state)
{
	struct rig_client c;
	struct rig_channel *ch;
	uint64_t batches;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	ch = rig_channel(&r, RIG_DEMO, "a");
	batches = RIG_COUNT(&r, batches);
	for (unsigned i = 0; i < 3000; i++)
		publish_number(ch, i);
	rig_turn(&r);
	assert_int_equal(RIG_COUNT(&r, batches) - batches, 1);
	assert_true(r.w->fanout.done < r.ring.head);
	rig_settle(&r);
	expect_numbers(&c, 0, 3000);
	assert_int_equal(slot_cursor(&r.slot), r.ring.head);
	rig_hang_up(&c);
	end();
}

/* Frames around the size of the gather buffer, mixed: what is joined and what is not keeps its order. */
static void large_and_small_frames_mixed(void **state)
{
	static const size_t sizes[] = {1,      65000, 500,   65530, 65532, 65533, 2,
				       300000, 3,     40000, 40000, 40000, 1};
	struct rig_client c;
	struct rig_channel *ch;
	char *p = malloc(300000);
	size_t got = 0;

	(void)state;
	assert_non_null(p);
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	ch = rig_channel(&r, RIG_DEMO, "a");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		memset(p, 'a' + (int)i, sizes[i]);
		rig_publish(&r, ch, p, sizes[i]);
	}
	while (got < ARRAY_LEN(sizes)) {
		struct rig_frame f;

		rig_settle(&r);
		assert_true(rig_read(&c, 0) > 0);
		while (rig_frame(&c, &f)) {
			assert_int_equal(f.len, sizes[got]);
			memset(p, 'a' + (int)got, f.len);
			assert_memory_equal(f.payload, p, f.len);
			got++;
		}
	}
	free(p);
	rig_hang_up(&c);
	end();
}

/* A control record acts between what came before it and what came after, though all lie in one batch. */
static void a_membership_begins_at_its_record(void **state)
{
	struct rig_client old, joins;
	struct rig_channel *ch;

	(void)state;
	begin();
	rig_connect(&r, &old, "/ws/x", 0);
	ch = rig_channel(&r, RIG_DEMO, "a");
	r.hold_control = true;
	rig_dial(&r, &joins, 0);
	rig_request(&joins, "/ws/a");
	rig_settle(&r);
	publish_number(ch, 0);
	r.hold_control = false;
	rig_uplinks(&r); /* commits the SUBSCRIBED */
	publish_number(ch, 1);
	publish_number(ch, 2);
	rig_settle(&r);
	rig_read(&joins, 0);
	assert_true(rig_take_101(&joins));
	expect_numbers(&joins, 1, 3);
	rig_hang_up(&old);
	rig_hang_up(&joins);
	end();
}

/* Members whose sockets fail in the middle of a send to all: each of the others gets it once. */
static void some_fail_during_a_send(void **state)
{
	enum { N = 20 };
	struct rig_client c[N];
	struct rig_channel *ch;

	(void)state;
	for (unsigned mask = 0; mask < 3; mask++) {
		begin();
		for (int i = 0; i < N; i++)
			rig_connect(&r, &c[i], "/ws/a", 0);
		ch = rig_channel(&r, RIG_DEMO, "a");
		for (int i = 0; i < N; i++) {
			if (mask == 2 || i % 3 == (int)mask)
				assert_int_equal(shutdown(rig_conn(&r, &c[i])->fd, SHUT_WR), 0);
		}
		publish_number(ch, 0);
		publish_number(ch, 1);
		rig_turn(&r);
		rig_check(&r);
		for (int i = 0; i < N; i++) {
			if (mask == 2 || i % 3 == (int)mask)
				assert_null(rig_conn(&r, &c[i]));
			else
				expect_numbers(&c[i], 0, 2);
			rig_hang_up(&c[i]);
		}
		rig_settle(&r);
		assert_int_equal(r.w->channels.n, 0);
		end();
	}
}

/* Some of the members are behind, some have an unsent answer: all get everything, in order. */
static void live_blocked_and_behind_together(void **state)
{
	enum { N = 12 };
	struct rig_client c[N];
	struct rig_channel *ch;
	char big[6000];
	unsigned n = 0, next[N] = {0};
	bool any = true;

	(void)state;
	begin();
	for (int i = 0; i < N; i++)
		rig_connect(&r, &c[i], "/ws/a", i % 3 == 0 ? 4096 : 60000);
	ch = rig_channel(&r, RIG_DEMO, "a");
	for (; n < 30; n++) {
		memset(big, 0, sizeof(big));
		snprintf(big, sizeof(big), "%u", n);
		rig_publish(&r, ch, big, n % 2 == 0 ? sizeof(big) : 10);
		for (int i = 0; i < N; i++) {
			if (i % 4 == 1)
				rig_send(&c[i], WS_PING, "", 0);
		}
		rig_turn(&r);
		rig_check(&r);
	}
	for (int turns = 0; any; turns++) {
		any = false;
		rig_settle(&r);
		rig_check(&r);
		for (int i = 0; i < N; i++) {
			struct rig_frame f;

			any |= rig_read(&c[i], 3000) > 0;
			while (rig_frame(&c[i], &f)) {
				if (f.opcode == WS_PONG)
					continue;
				assert_int_equal(strtoul((const char *)f.payload, NULL, 10), next[i]);
				next[i]++;
			}
		}
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(next[i], 30);
		assert_null(rig_conn(&r, &c[i])->ext);
		rig_hang_up(&c[i]);
	}
	end();
}

/* ---- cursor and sleep */

static void sleep_is_announced_and_ended(void **state)
{
	struct rig_client c;
	uint64_t n;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	assert_int_equal(atomic_load(&r.slot.sh->sleeping), 1);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "x", 1); /* takes `sleeping`, writes the eventfd */
	assert_int_equal(atomic_load(&r.slot.sh->sleeping), 0);
	assert_int_equal(read(r.fds[2], &n, sizeof(n)), sizeof(n));
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "y", 1); /* awake already: no second wake-up */
	assert_int_equal(read(r.fds[2], &n, sizeof(n)), -1);
	rig_expect(&r, &c, "x");
	rig_expect(&r, &c, "y");
	assert_int_equal(atomic_load(&r.slot.sh->sleeping), 1);
	rig_hang_up(&c);
	end();
}

/* The master has moved skip_to past what concerns nobody here: those headers are not read. */
static void what_concerns_nobody_is_skipped(void **state)
{
	struct rig_client c;
	struct rig_channel *other;
	uint64_t records;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	other = rig_channel(&r, RIG_DEMO, "nobody");
	records = RIG_COUNT(&r, records);
	for (unsigned lap = 0; lap < 100; lap++) {
		for (unsigned i = 0; i < 500; i++) {
			publish_number(other, i);
			slot_set_skip_to(&r.slot, r.ring.head);
		}
	}
	assert_true(r.ring.head > 6 * r.ring.size); /* over and over, without the worker's doing */
	publish_number(rig_channel(&r, RIG_DEMO, "a"), 0);
	rig_settle(&r);
	expect_numbers(&c, 0, 1);
	assert_int_equal(RIG_COUNT(&r, records) - records, 1);
	rig_hang_up(&c);
	end();
}

/* Who is not interested must never hold the ring: a header that is reclaimed under its eyes is skipped. */
static void a_header_reclaimed_is_none_of_ours(void **state)
{
	struct rig_client c;
	struct rig_channel *other;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	other = rig_channel(&r, RIG_DEMO, "nobody");
	publish_number(other, 0);
	slot_set_skip_to(&r.slot, r.ring.head);
	r.w->fanout.done = slot_cursor(&r.slot); /* as if it had looked at skip_to just before */
	for (unsigned i = 0; i < 20000; i++) {
		publish_number(other, i);
		slot_set_skip_to(&r.slot, r.ring.head);
	}
	publish_number(rig_channel(&r, RIG_DEMO, "a"), 0);
	rig_settle(&r);
	expect_numbers(&c, 0, 1);
	rig_hang_up(&c);
	end();
}

/* Own publications are told from those of others by worker, incarnation and tag. */
static void own_publications_by_their_tag(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/a", 0);
	r.hold_data = true;
	rig_send(&a, WS_TEXT, "from a", 6);
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &a)->in_flight, 1);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "other", 5);
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &a)->in_flight, 1);
	r.hold_data = false;
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &a)->in_flight, 0);
	assert_int_equal(rig_conn(&r, &b)->in_flight, 0);
	rig_hang_up(&a);
	rig_hang_up(&b);
	end();
}

/* Its publications come back after it has gone, and another has its place. */
static void a_tag_of_the_dead(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	r.hold_data = true;
	rig_send(&a, WS_TEXT, "last words", 10);
	rig_settle(&r);
	rig_hang_up(&a);
	rig_settle(&r);
	rig_connect(&r, &b, "/ws/a", 0);
	assert_int_equal(b.index, a.index);
	rig_send(&b, WS_TEXT, "mine", 4);
	rig_send_close(&b, 1000);
	rig_settle(&r);
	r.data_records = 1;
	r.hold_data = false;
	rig_expect(&r, &b, "last words");
	rig_expect(&r, &b, "mine");
	rig_expect_close(&r, &b, 1000);
	rig_hang_up(&b);
	end();
}

static void the_heart_beats_during_long_sends(void **state)
{
	enum { N = 200 };
	static struct rig_client c[N];
	uint64_t before;
	char path[20];

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		begin();
		for (int i = 0; i < N; i++) {
			snprintf(path, sizeof(path), "/ws/%d", kind == 0 ? 0 : i);
			rig_connect(&r, &c[i], path, 0);
		}
		/* Many members of one channel, then many channels of one member. */
		for (int i = 0; i < (kind == 0 ? 1 : N); i++) {
			snprintf(path, sizeof(path), "%d", i);
			publish_number(rig_channel(&r, RIG_DEMO, path), 0);
		}
		before = slot_heartbeat(&r.slot);
		assert_int_equal(fanout_turn(r.w), false);
		assert_in_range(slot_heartbeat(&r.slot) - before, N / 64, N);
		for (int i = 0; i < N; i++) {
			expect_numbers(&c[i], 0, 1);
			rig_hang_up(&c[i]);
		}
		end();
	}
}

static void latency_is_counted_for_each_delivery(void **state)
{
	struct rig_client c[3];
	uint64_t n = 0;

	(void)state;
	begin();
	for (int i = 0; i < 3; i++)
		rig_connect(&r, &c[i], "/ws/a", 0);
	publish_number(rig_channel(&r, RIG_DEMO, "a"), 0);
	publish_number(rig_channel(&r, RIG_DEMO, "a"), 1);
	rig_settle(&r);
	for (int i = 0; i < COUNT_LATENCY_N; i++)
		n += RIG_COUNT(&r, latency[i]);
	assert_int_equal(n, 6);
	for (int i = 0; i < 3; i++)
		rig_hang_up(&c[i]);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_batch_is_one_write_for_each_member),
		cmocka_unit_test(more_records_than_a_batch_holds),
		cmocka_unit_test(large_and_small_frames_mixed),
		cmocka_unit_test(a_membership_begins_at_its_record),
		cmocka_unit_test(some_fail_during_a_send),
		cmocka_unit_test(live_blocked_and_behind_together),
		cmocka_unit_test(sleep_is_announced_and_ended),
		cmocka_unit_test(what_concerns_nobody_is_skipped),
		cmocka_unit_test(a_header_reclaimed_is_none_of_ours),
		cmocka_unit_test(own_publications_by_their_tag),
		cmocka_unit_test(a_tag_of_the_dead),
		cmocka_unit_test(the_heart_beats_during_long_sends),
		cmocka_unit_test(latency_is_counted_for_each_delivery),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
