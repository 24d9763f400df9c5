/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Clients that do not take everything: what they get, what they cost, how they end. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"
#include "worker/output.h"

#define SMALL 4096 /* SO_SNDBUF of a client that is soon behind */

static struct rig r;
static struct rig_channel *chan; /* the channel "a" of the namespace under test */

static void begin(void)
{
	rig_init(&r);
	r.config.limits.slow_timeout = 10000;
	rig_start(&r);
	chan = rig_channel(&r, RIG_DEMO, "a");
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

/* Record number `seq` of the channel: its payload tells all about it. */
static void publish_n(struct rig_channel *to, size_t len)
{
	char *p = malloc(len);

	assert_non_null(p);
	assert_true(len >= 20);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)('A' + (i * 31 + to->seq) % 26);
	snprintf(p, 20, "%018llu", (unsigned long long)to->seq + 1);
	p[18] = '.';
	p[19] = '.';
	rig_publish(&r, to, p, len);
	free(p);
}

/* The next frame is record `seq`, every byte of it. */
static void check_n(const struct rig_frame *f, uint64_t seq)
{
	char head[20];

	assert_int_equal(f->opcode, WS_TEXT);
	snprintf(head, sizeof(head), "%018llu", (unsigned long long)seq);
	assert_memory_equal(f->payload, head, 18);
	for (size_t i = 20; i < f->len; i++)
		assert_int_equal(f->payload[i], 'A' + (i * 31 + seq - 1) % 26);
}

/* Other channels' traffic: `bytes` of ring at least, never more than the worker keeps up with. */
static void traffic(uint64_t bytes)
{
	static char payload[1000];
	struct rig_channel *other = rig_channel(&r, RIG_DEMO, "other");
	uint64_t end_pos = r.ring.head + bytes;

	while (r.ring.head < end_pos) {
		while (!rig_has_space(&r, other->room_len, sizeof(payload)))
			rig_turn(&r);
		rig_publish(&r, other, payload, sizeof(payload));
	}
	rig_settle(&r);
}

/* Read and turn until nothing comes any more; calls for each frame. Returns how many there were. */
static unsigned read_all(struct rig_client *c, uint64_t *next)
{
	struct rig_frame f;
	unsigned n = 0;

	do {
		rig_settle(&r);
		while (rig_frame(c, &f)) {
			if (f.opcode == WS_CLOSE)
				return n;
			check_n(&f, (*next)++);
			n++;
		}
	} while (rig_read(c, 0) > 0);
	return n;
}

/* A client that is inside the frame of record 1 (of `len` bytes), having taken nothing. */
static void stuck_client(struct rig_client *c, const char *path, size_t len)
{
	rig_connect(&r, c, path, SMALL);
	if (len > 0)
		publish_n(chan, len);
	rig_settle(&r);
}

/* ---- pauses */

static void who_pauses_and_resumes_gets_everything(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", SMALL);
	for (int i = 0; i < 300; i++) {
		publish_n(chan, 20 + (size_t)i * 7);
		if (i % 10 == 0)
			rig_settle(&r);
	}
	rig_settle(&r);
	assert_true((rig_conn(&r, &c)->flags & CONN_BEHIND) != 0);
	rig_check(&r);
	rig_pass(&r, 5000);
	assert_int_equal(read_all(&c, &next), 300);
	assert_int_equal(rig_conn(&r, &c)->flags, 0);
	assert_null(rig_conn(&r, &c)->ext);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries), 300);
	publish_n(chan, 100);
	assert_int_equal(read_all(&c, &next), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void catch_up_is_bounded_per_turn(void **state)
{
	struct rig_client c;
	uint64_t next = 1, sends;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 100000);
	publish_n(chan, 500000); /* more than the socket takes: behind, inside record 1 */
	rig_settle(&r);
	assert_true((rig_conn(&r, &c)->flags & CONN_BEHIND) != 0);
	for (int i = 0; i < 150; i++)
		publish_n(chan, 40);
	rig_settle(&r);
	while (RIG_NS(&r, RIG_DEMO, deliveries) == 0) {
		assert_true(rig_read(&c, 0) > 0);
		rig_turn(&r);
	}
	assert_in_range(RIG_NS(&r, RIG_DEMO, deliveries), 1, 65); /* the rest of record 1 and one window */
	rig_read(&c, 0);
	sends = RIG_NS(&r, RIG_DEMO, deliveries);
	rig_turn(&r);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries) - sends, 64);
	assert_int_equal(read_all(&c, &next), 151);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void far_behind_visits_only_its_channel(void **state)
{
	struct rig_client c;
	struct rig_channel *other;
	char payload[64] = "";
	uint64_t next = 1, reads;

	(void)state;
	rig_init(&r);
	r.config.ring.size = 256u << 20;
	rig_start(&r);
	chan = rig_channel(&r, RIG_DEMO, "a");
	other = rig_channel(&r, RIG_DEMO, "other");
	stuck_client(&c, "/ws/a", 20000);
	assert_true((rig_conn(&r, &c)->flags & CONN_BEHIND) != 0);
	for (int i = 0; i < 10; i++) {
		publish_n(chan, 50);
		for (int k = 0; k < 100; k++) {
			for (int j = 0; j < 1000; j++)
				rig_publish(&r, other, payload, sizeof(payload));
			while (rig_turn(&r))
				;
		}
	}
	assert_true(r.ring.head - r.ring.size > 160u << 20);
	reads = RIG_COUNT(&r, catchup_reads);
	assert_int_equal(read_all(&c, &next), 11);
	assert_in_range(RIG_COUNT(&r, catchup_reads) - reads, 10, 100);
	assert_int_equal(rig_conn(&r, &c)->flags, 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- half-sent frames */

/* How many records of 900 bytes fill such a socket, so that not one byte more fits? */
static unsigned records_until_full(void)
{
	struct rig_channel *probe = rig_channel(&r, RIG_SKIP, "probe");
	struct rig_client c;
	unsigned n;

	rig_connect(&r, &c, "/skip/probe", SMALL);
	do {
		publish_n(probe, 900);
		rig_settle(&r);
	} while ((rig_conn(&r, &c)->flags & CONN_BEHIND) == 0);
	n = (unsigned)probe->seq - 1;
	rig_hang_up(&c);
	rig_settle(&r);
	return n;
}

/* A catch-up that stops inside a record which the cursor has passed by a little: memory that may be
 * overwritten any moment. */
static void half_sent_just_behind_the_cursor(void **state)
{
	struct rig_client c;
	uint64_t next = 1;
	unsigned n;

	(void)state;
	begin();
	n = records_until_full();
	rig_connect(&r, &c, "/ws/a", SMALL);
	for (unsigned i = 0; i < n; i++) {
		publish_n(chan, 900);
		rig_settle(&r);
	}
	for (int i = 0; i < 11; i++)
		publish_n(chan, 900);
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &c)->ext->off, 0);
	assert_int_equal(slot_cursor(&r.slot), r.ring.head);
	rig_read(&c, 0);
	rig_settle(&r);
	rig_check(&r);
	assert_true(rig_conn(&r, &c)->ext->off > 0);
	assert_null(r.w->behind.held.first);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 1);
	traffic(2 * r.ring.size);
	for (; next <= n; next++) {
		struct rig_frame f;

		assert_true(rig_frame(&c, &f));
		check_n(&f, next);
	}
	read_all(&c, &next);
	assert_in_range(next, n + 8, n + 12); /* what was begun to its end, and then 1013 */
	assert_int_equal(c.close_code, 1013);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void a_half_sent_frame_is_held_then_copied(void **state)
{
	struct rig_client c;
	uint64_t next = 1, pos;
	struct rig_frame f;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 50000);
	pos = chan->last;
	assert_true(rig_conn(&r, &c)->ext->off > 0);
	assert_non_null(r.w->behind.held.first);
	assert_int_equal(slot_cursor(&r.slot), pos);
	traffic(r.ring.size / 8);
	assert_int_equal(slot_cursor(&r.slot), pos); /* still the ring's */
	assert_int_equal(RIG_COUNT(&r, slow_copies), 0);
	rig_check(&r);
	traffic(r.ring.size / 4);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 1);
	assert_int_equal(RIG_COUNT(&r, slow_bytes), 50000 + 4);
	assert_null(r.w->behind.held.first);
	assert_true(slot_cursor(&r.slot) > pos);
	rig_check(&r);
	traffic(2 * r.ring.size); /* long overwritten */
	assert_true(ring_reclaim(&r.w->ring) > pos);
	rig_pass(&r, 200); /* the sweep sees that the ring has passed it; but nothing is missing yet */
	read_all(&c, &next);
	assert_int_equal(next, 2);
	assert_int_equal(RIG_COUNT(&r, slow_bytes), 0);
	rig_read(&c, 0);
	(void)rig_frame(&c, &f);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void one_copy_for_all_inside_a_frame(void **state)
{
	struct rig_client c[5];
	uint64_t next;

	(void)state;
	begin();
	r.config.namespaces[RIG_DEMO].slow = CFG_SLOW_SKIP;
	for (int i = 0; i < 5; i++)
		rig_connect(&r, &c[i], "/ws/a", SMALL * (i + 1));
	publish_n(chan, 60000);
	rig_settle(&r);
	rig_check(&r);
	traffic(r.ring.size / 2);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 1);
	rig_check(&r);
	rig_hang_up(&c[2]); /* out of the middle */
	rig_settle(&r);
	rig_check(&r);
	traffic(2 * r.ring.size);
	for (int i = 0; i < 5; i++) {
		if (i == 2)
			continue;
		next = 1;
		assert_int_equal(read_all(&c[i], &next), 1);
		rig_hang_up(&c[i]);
	}
	rig_settle(&r);
	assert_int_equal(RIG_COUNT(&r, slow_bytes), 0);
	assert_null(r.w->behind.copied.first);
	end();
}

/* Two are inside the same frame, one because it never read, one because it caught up to there from the
 * history. */
static void a_copy_is_shared_with_who_comes_from_the_history(void **state)
{
	struct rig_client a, b;
	uint64_t next = 1;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", SMALL);
	rig_connect(&r, &b, "/ws/a", SMALL);
	publish_n(chan, 30000);
	publish_n(chan, 30000);
	publish_n(chan, 30000);
	rig_settle(&r);
	traffic(r.ring.size / 2);
	rig_check(&r);
	/* Both read into the middle of record 2. */
	while (rig_conn(&r, &a)->ext->seq < 2 || rig_conn(&r, &a)->ext->off == 0) {
		assert_true(rig_read(&a, 4000) > 0);
		rig_settle(&r);
	}
	while (rig_conn(&r, &b)->ext->seq < 2 || rig_conn(&r, &b)->ext->off == 0) {
		assert_true(rig_read(&b, 4000) > 0);
		rig_settle(&r);
	}
	rig_check(&r);
	assert_ptr_equal(rig_conn(&r, &a)->ext->partial, rig_conn(&r, &b)->ext->partial);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 2); /* of record 1, and of record 2 */
	assert_int_equal(read_all(&a, &next), 3);
	next = 1;
	assert_int_equal(read_all(&b, &next), 3);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

static void too_much_slow_memory_resets_the_oldest(void **state)
{
	struct rig_client c[4];
	struct rig_channel *ch[4];
	uint64_t next = 1;

	(void)state;
	rig_init(&r);
	r.config.limits.slow_memory = 100000;
	rig_start(&r);
	for (int i = 0; i < 4; i++) {
		char path[10], room[2] = {(char)('0' + i), 0};

		snprintf(path, sizeof(path), "/ws/%s", room);
		ch[i] = rig_channel(&r, RIG_DEMO, room);
		rig_connect(&r, &c[i], path, SMALL);
		publish_n(ch[i], 40000);
		rig_settle(&r);
	}
	traffic(r.ring.size / 2); /* 160,000 bytes of copies would be needed */
	rig_check(&r);
	assert_null(rig_conn(&r, &c[0]));
	assert_null(rig_conn(&r, &c[1]));
	assert_non_null(rig_conn(&r, &c[2]));
	assert_non_null(rig_conn(&r, &c[3]));
	assert_true(RIG_COUNT(&r, slow_bytes) <= 100000);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1013]), 2);
	assert_int_equal(read_all(&c[2], &next), 1);
	next = 1;
	assert_int_equal(read_all(&c[3], &next), 1);
	for (int i = 0; i < 4; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	end();
}

/* The newest copy stays whatever its size: its clients have just begun to need it. */
static void one_copy_may_be_larger_than_all_may_be(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	rig_init(&r);
	r.config.limits.slow_memory = 1000;
	rig_start(&r);
	chan = rig_channel(&r, RIG_DEMO, "a");
	stuck_client(&c, "/ws/a", 40000);
	traffic(r.ring.size / 2);
	assert_int_equal(RIG_COUNT(&r, slow_bytes), 40004);
	assert_int_equal(read_all(&c, &next), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- policy: disconnect */

static void lapped_finishes_its_frame_then_1013(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 50000);
	publish_n(chan, 100); /* one that it will miss */
	traffic(2 * r.ring.size);
	rig_pass(&r, 200);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_CLOSING);
	assert_int_equal(read_all(&c, &next), 1);
	assert_int_equal(c.close_code, 1013);
	assert_int_equal(rig_rest(&c), 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1013]), 1);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries), 1);
	rig_pass(&r, 5500);
	assert_null(rig_conn(&r, &c));
	rig_hang_up(&c);
	end();
}

static void who_never_reads_is_reset(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 50000);
	rig_pass(&r, 9900);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_pass(&r, 300);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_CLOSING);
	rig_pass(&r, 5200);
	assert_null(rig_conn(&r, &c));
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1013]), 1);
	rig_hang_up(&c);
	end();
}

/* It takes a little now and then: not stalled, however long it lasts. */
static void slow_but_moving_is_not_stalled(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 100000);
	for (int i = 0; i < 6; i++) {
		rig_pass(&r, 6000);
		assert_true(rig_read(&c, 12000) > 0);
		rig_settle(&r);
		assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	}
	assert_int_equal(read_all(&c, &next), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- policy: skip */

static void begin_skip(void)
{
	begin();
	chan = rig_channel(&r, RIG_SKIP, "a");
}

#define SKIPPED count_get(&r.w->count->ns[RIG_SKIP + 3].dropped[COUNT_DROPPED_slow_skip])

static void skip_counts_exactly_what_was_missed(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin_skip();
	stuck_client(&c, "/skip/a", 50000); /* half of record 1 */
	for (int i = 0; i < 37; i++)
		publish_n(chan, 100);
	traffic(2 * r.ring.size);
	for (int i = 0; i < 5; i++)
		publish_n(chan, 100);
	rig_pass(&r, 200);
	assert_int_equal(SKIPPED, 0);
	while (next == 1) {
		struct rig_frame f;

		rig_settle(&r);
		assert_true(rig_read(&c, 0) > 0);
		if (rig_frame(&c, &f))
			check_n(&f, next++); /* record 1 to its end */
	}
	assert_int_equal(SKIPPED, 41);
	publish_n(chan, 100);
	next = 43; /* the newest of then, and what came after it */
	assert_int_equal(read_all(&c, &next), 2);
	assert_int_equal(SKIPPED, 41);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void skip_at_a_clean_boundary(void **state)
{
	struct rig_client c;
	uint64_t sent, next = 1;

	(void)state;
	begin_skip();
	rig_connect(&r, &c, "/skip/a", SMALL);
	do
		publish_n(chan, 900);
	while (rig_settle(&r), (rig_conn(&r, &c)->flags & CONN_BEHIND) == 0);
	/* A unix socket takes a small write whole or not at all. */
	assert_int_equal(rig_conn(&r, &c)->ext->off, 0);
	sent = RIG_NS(&r, RIG_SKIP, deliveries);
	for (int i = 0; i < 10; i++)
		publish_n(chan, 900);
	rig_settle(&r);
	rig_pass(&r, 10500); /* took no byte for slow_timeout: goes on at the newest */
	assert_int_equal(SKIPPED, chan->seq - sent - 1);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_check(&r);
	publish_n(chan, 900);
	rig_settle(&r);
	rig_pass(&r, 10500); /* and again: the one that it stood at is missed now, too */
	assert_int_equal(SKIPPED, chan->seq - sent - 1);
	/* The newest is overwritten, and none has come since: nothing to stand at. */
	traffic(2 * r.ring.size);
	rig_pass(&r, 200);
	assert_int_equal(SKIPPED, chan->seq - sent);
	assert_int_equal(rig_conn(&r, &c)->flags & CONN_BEHIND, 0);
	rig_check(&r);
	rig_send(&c, WS_PONG, "", 0); /* what it says changes nothing of that */
	rig_settle(&r);
	rig_check(&r);
	publish_n(chan, 900); /* the socket is still full: behind again, from here */
	rig_settle(&r);
	rig_check(&r);
	rig_read(&c, 0);
	while (next <= sent) {
		struct rig_frame f;

		assert_true(rig_frame(&c, &f));
		check_n(&f, next++);
	}
	next = chan->seq;
	assert_int_equal(read_all(&c, &next), 1);
	assert_int_equal(SKIPPED, chan->seq - 1 - sent);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- frames larger than what is copied at a time */

static void large_frames_from_the_history(void **state)
{
	struct rig_client a, b;
	uint64_t next = 1;

	(void)state;
	rig_init(&r);
	r.config.ring.size = 8u << 20;
	rig_start(&r);
	chan = rig_channel(&r, RIG_DEMO, "a");
	rig_connect(&r, &a, "/ws/a", SMALL);
	stuck_client(&b, "/ws/a", 20000);
	publish_n(chan, 400000);
	publish_n(chan, 30);
	traffic(3u << 20);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 1); /* record 1 */
	while (rig_conn(&r, &a)->ext->seq < 2 || rig_conn(&r, &a)->ext->partial == NULL) {
		rig_read(&a, 0);
		rig_settle(&r);
	}
	while (rig_conn(&r, &b)->ext->seq < 2 || rig_conn(&r, &b)->ext->partial == NULL) {
		rig_read(&b, 0);
		rig_settle(&r);
	}
	rig_check(&r);
	assert_ptr_equal(rig_conn(&r, &a)->ext->partial, rig_conn(&r, &b)->ext->partial);
	assert_int_equal(RIG_COUNT(&r, slow_copies), 2);
	assert_int_equal(read_all(&a, &next), 3);
	next = 1;
	assert_int_equal(read_all(&b, &next), 3);
	assert_int_equal(RIG_COUNT(&r, slow_bytes), 0);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* The large frame has its copy, but the socket did not take its first byte before the client was given up on.
 */
static void a_large_frame_that_is_skipped_before_its_first_byte(void **state)
{
	struct rig_client c;
	struct conn *conn;
	uint64_t next = 1;
	unsigned n;

	(void)state;
	rig_init(&r);
	r.config.ring.size = 8u << 20;
	r.config.limits.slow_timeout = 10000;
	rig_start(&r);
	chan = rig_channel(&r, RIG_SKIP, "a");
	n = records_until_full();
	rig_connect(&r, &c, "/skip/a", SMALL);
	for (unsigned i = 0; i < n; i++) {
		publish_n(chan, 900);
		rig_settle(&r); /* each in a write of its own, as the probe's were */
	}
	publish_n(chan, 400000);
	rig_settle(&r);
	conn = rig_conn(&r, &c);
	assert_int_equal(conn->ext->seq, n + 1);
	assert_int_equal(conn->ext->off, 0);
	traffic(3u << 20);
	output_ready(r.w, conn); /* as after an EPOLLOUT that came too early */
	rig_check(&r);
	assert_non_null(conn->ext->partial);
	assert_int_equal(conn->ext->off, 0);
	publish_n(chan, 50);
	rig_settle(&r);
	rig_pass(&r, 11000);
	assert_int_equal(SKIPPED, 1);
	rig_check(&r);
	rig_read(&c, 0);
	for (; next <= n; next++) {
		struct rig_frame f;

		assert_true(rig_frame(&c, &f));
		check_n(&f, next);
	}
	next++; /* the large one */
	assert_int_equal(read_all(&c, &next), 1);
	assert_int_equal(SKIPPED, 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* The same under the other policy: the Close does not wait for a frame that was never begun. */
static void a_close_before_the_first_byte_of_a_large_frame(void **state)
{
	struct rig_client c;
	struct conn *conn;
	uint64_t next = 1;
	unsigned n;

	(void)state;
	rig_init(&r);
	r.config.ring.size = 8u << 20;
	r.config.limits.slow_timeout = 10000;
	rig_start(&r);
	n = records_until_full();
	chan = rig_channel(&r, RIG_DEMO, "a");
	rig_connect(&r, &c, "/ws/a", SMALL);
	for (unsigned i = 0; i < n; i++) {
		publish_n(chan, 900);
		rig_settle(&r); /* each in a write of its own, as the probe's were */
	}
	publish_n(chan, 400000);
	rig_settle(&r);
	traffic(3u << 20);
	conn = rig_conn(&r, &c);
	output_ready(r.w, conn);
	assert_non_null(conn->ext->partial);
	rig_pass(&r, 11000);
	assert_int_equal(conn->state, CONN_CLOSING);
	assert_int_equal(read_all(&c, &next), n);
	assert_int_equal(c.close_code, 1013);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- what else goes out */

static void a_pong_waits_for_the_frame_not_for_the_backlog(void **state)
{
	struct rig_client c;
	struct rig_frame f;
	unsigned n = 0, pong_at = 0;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 30000);
	for (int i = 0; i < 5; i++)
		publish_n(chan, 3000);
	rig_settle(&r);
	rig_send(&c, WS_PING, "first", 5);
	rig_send(&c, WS_PING, "last", 4);
	rig_settle(&r);
	assert_true(rig_conn(&r, &c)->ext->has_pong);
	do {
		rig_settle(&r);
		while (rig_frame(&c, &f)) {
			n++;
			if (f.opcode == WS_PONG) {
				assert_int_equal(pong_at, 0); /* the latest alone */
				pong_at = n;
				assert_int_equal(f.len, 4);
				assert_memory_equal(f.payload, "last", 4);
			} else {
				check_n(&f, n - (pong_at != 0));
			}
		}
	} while (rig_read(&c, 0) > 0);
	assert_int_equal(n, 7);
	assert_int_equal(pong_at, 2); /* behind record 1, which was begun, and before all others */
	assert_null(rig_conn(&r, &c)->ext);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void a_close_comes_after_the_frame_begun(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 30000);
	publish_n(chan, 100);
	rig_settle(&r);
	conn_close(r.w, rig_conn(&r, &c), 1001, "bye");
	rig_check(&r);
	/* The frame is finished from a copy if the ring moves on meanwhile. */
	traffic(2 * r.ring.size);
	assert_int_equal(read_all(&c, &next), 1);
	assert_int_equal(c.close_code, 1001);
	rig_send_close(&c, 1001);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(c.is_eof);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

/* A Close of the peer's: what it had published comes first, although it is behind. */
static void own_publications_before_the_close_even_when_behind(void **state)
{
	struct rig_client c;
	struct rig_frame f;
	char *big = calloc(1, 50000);
	unsigned n = 0;

	(void)state;
	assert_non_null(big);
	begin();
	rig_connect(&r, &c, "/echo", SMALL);
	for (int i = 0; i < 3; i++)
		rig_send(&c, WS_BINARY, big, 50000);
	rig_send_close(&c, 1000);
	do {
		rig_settle(&r);
		while (rig_frame(&c, &f)) {
			n += f.opcode == WS_BINARY;
			assert_true(f.opcode != WS_CLOSE || n == 3);
		}
	} while (rig_read(&c, 0) > 0);
	assert_int_equal(n, 3);
	assert_int_equal(c.close_code, 1000);
	rig_hang_up(&c);
	rig_settle(&r);
	free(big);
	end();
}

/* More answers than a client may leave unread. */
static void replies_are_bounded(void **state)
{
	struct rig_client c;
	struct conn *conn;
	char bytes[1000] = "\x82\x7e\x03\xe4"; /* a whole frame, as if a reply */
	int n = 0;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 30000);
	conn = rig_conn(&r, &c);
	while (output_bytes(r.w, conn, bytes, sizeof(bytes)))
		n++;
	assert_int_equal(n, 65);
	assert_null(rig_conn(&r, &c));
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- coming and going while behind */

static void leaves_while_behind(void **state)
{
	struct rig_client c[6];
	uint64_t next = 1;

	(void)state;
	begin();
	for (int i = 0; i < 6; i++)
		rig_connect(&r, &c[i], "/ws/a", i % 2 == 0 ? SMALL : 100000);
	publish_n(chan, 30000);
	rig_settle(&r);
	rig_check(&r);
	assert_int_equal(r.w->behind.n, 3);
	rig_hang_up(&c[2]);
	rig_hang_up(&c[1]);
	rig_settle(&r);
	rig_check(&r);
	publish_n(chan, 100);
	rig_settle(&r);
	assert_int_equal(read_all(&c[0], &next), 2);
	next = 1;
	assert_int_equal(read_all(&c[5], &next), 2);
	for (int i = 0; i < 6; i++) {
		rig_hang_up(&c[i]);
		rig_settle(&r);
		rig_check(&r);
	}
	assert_int_equal(r.w->channels.n, 0);
	end();
}

/* Should the chain ever be torn, the client is told instead of left without what lies behind the tear. */
static void a_torn_chain_counts_as_lapped(void **state)
{
	struct rig_client c;
	uint64_t next = 1;

	(void)state;
	begin();
	stuck_client(&c, "/ws/a", 30000);
	publish_n(chan, 100);
	chan->last = 0;
	publish_n(chan, 100);
	rig_settle(&r);
	assert_int_equal(read_all(&c, &next), 2);
	assert_int_equal(c.close_code, 1013);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_pauses_and_resumes_gets_everything),
		cmocka_unit_test(catch_up_is_bounded_per_turn),
		cmocka_unit_test(far_behind_visits_only_its_channel),
		cmocka_unit_test(a_half_sent_frame_is_held_then_copied),
		cmocka_unit_test(half_sent_just_behind_the_cursor),
		cmocka_unit_test(one_copy_for_all_inside_a_frame),
		cmocka_unit_test(a_copy_is_shared_with_who_comes_from_the_history),
		cmocka_unit_test(too_much_slow_memory_resets_the_oldest),
		cmocka_unit_test(one_copy_may_be_larger_than_all_may_be),
		cmocka_unit_test(lapped_finishes_its_frame_then_1013),
		cmocka_unit_test(who_never_reads_is_reset),
		cmocka_unit_test(slow_but_moving_is_not_stalled),
		cmocka_unit_test(skip_counts_exactly_what_was_missed),
		cmocka_unit_test(skip_at_a_clean_boundary),
		cmocka_unit_test(large_frames_from_the_history),
		cmocka_unit_test(a_large_frame_that_is_skipped_before_its_first_byte),
		cmocka_unit_test(a_close_before_the_first_byte_of_a_large_frame),
		cmocka_unit_test(a_pong_waits_for_the_frame_not_for_the_backlog),
		cmocka_unit_test(a_close_comes_after_the_frame_begun),
		cmocka_unit_test(own_publications_before_the_close_even_when_behind),
		cmocka_unit_test(replies_are_bounded),
		cmocka_unit_test(leaves_while_behind),
		cmocka_unit_test(a_torn_chain_counts_as_lapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
