/* LINK: master/retained.c master/sequencer.c master/seq_json.c master/seq_drop.c master/interest.c shm/ring.c
 * shm/record.c shm/slot.c shm/seg.c shm/uplink.c shm/counters.c */
/* Commit, gates, skip_to, wake-ups, back-pressure: a real ring and real slots, with the workers played by the
 * test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/wsframe.h"
#include "master/sequencer.h"
#include "shm/seg.h"
#include "shm/uplink.h"

#define SIZE   (UINT64_C(1) << 20)
#define UPLINK (UINT64_C(256) << 10)
#define NS     3

struct rig {
	struct sequencer s;
	struct ring reader_view;
	struct cfg_namespace ns;
	struct slot slot[4];
	int fd[4], id[4];
	unsigned n;
	char *big;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	int fd = seg_create("test-ring", SEG_PAGE + SIZE);
	uint8_t *data = seg_map_twice(fd, SEG_PAGE, SIZE, SEG_PAGE, PROT_READ | PROT_WRITE);
	struct counters *count = calloc(1, sizeof(*count));
	struct ring ring;

	if (r == NULL || fd == -1 || data == NULL || count == NULL)
		return -1;
	close(fd);
	ring_init(&ring, (struct ring_hdr *)(data - SEG_PAGE), data, SIZE, SIZE);
	r->reader_view = ring;
	r->big = malloc(SIZE);
	if (r->big == NULL)
		return -1;
	memset(r->big, 'x', SIZE);
	r->ns = (struct cfg_namespace){.id = NS, .room = CFG_ROOM_PATH, .redis_has_room = true};
	*state = r;
	return seq_init(&r->s, &ring, 77, 88, count);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	for (unsigned i = 0; i < r->n; i++) {
		slot_close(&r->slot[i]);
		close(r->fd[i]);
	}
	seg_unmap_twice(r->reader_view.data, SIZE, SEG_PAGE);
	free(r->s.count);
	seq_free(&r->s);
	free(r->big);
	free(r);
	return 0;
}

/* A worker that begins now. */
static unsigned worker(struct rig *r)
{
	unsigned i = r->n++;

	r->fd[i] = eventfd(0, EFD_NONBLOCK);
	assert_int_not_equal(r->fd[i], -1);
	assert_int_equal(slot_create(&r->slot[i], (uint16_t)(10 + i), 100 + i, seq_head(&r->s), UPLINK), 0);
	r->id[i] = seq_reader_add(&r->s, &r->slot[i], (uint16_t)(10 + i), 100 + i, r->fd[i]);
	assert_int_not_equal(r->id[i], SEQ_NOBODY);
	return i;
}

static struct interest_entry *want(struct rig *r, unsigned w, const char *room)
{
	struct slice s = {room, strlen(room)};
	struct interest_entry *e = interest_get(&r->s.interest, seq_hash(&r->s, NS, s), NS, s);

	assert_non_null(e);
	assert_int_equal(interest_add(e, (uint8_t)r->id[w]), 0);
	return e;
}

static enum seq_result publish_bytes(struct rig *r, const char *room, const char *p, size_t len,
				     struct seq_outcome *out)
{
	struct seq_message m = {
		.ns = &r->ns,
		.room = {room, strlen(room)},
		.payload = {p, len},
		.max_size = UINT32_MAX,
		.time_ns = 5,
		.slot = REC_ALL,
	};

	return seq_publish(&r->s, &m, out);
}

static enum seq_result publish(struct rig *r, const char *room, const char *text)
{
	struct seq_outcome out;

	return publish_bytes(r, room, text, strlen(text), &out);
}

/* Fill up to the last record that fits. Returns how many. */
static unsigned fill(struct rig *r, const char *room, size_t len)
{
	struct seq_outcome out;
	enum seq_result res;
	unsigned n = 0;

	while ((res = publish_bytes(r, room, r->big, len, &out)) == SEQ_DONE)
		n++;
	assert_int_equal(res, SEQ_FULL);
	return n;
}

static bool was_woken(struct rig *r, unsigned w)
{
	uint64_t n;

	return read(r->fd[w], &n, sizeof(n)) == sizeof(n);
}

static struct rec peek(struct rig *r, uint64_t pos)
{
	struct rec h;

	assert_true(rec_peek(&r->reader_view, pos, &h));
	return h;
}

/* The worker has read everything. */
static void read_all(struct rig *r, unsigned w)
{
	slot_set_cursor(&r->slot[w], seq_head(&r->s));
}

/* ---- publications */

static void test_numbers_and_chain(void **state)
{
	struct rig *r = *state;
	uint64_t start = seq_head(&r->s);
	struct seq_outcome a, b, c;
	struct rec h;

	assert_int_equal(publish_bytes(r, "a", "one", 3, &a), SEQ_DONE);
	assert_int_equal(publish_bytes(r, "b", "other", 5, &c), SEQ_DONE);
	assert_int_equal(publish_bytes(r, "a", "two", 3, &b), SEQ_DONE);
	assert_int_equal(a.seq, 1);
	assert_int_equal(b.seq, 2);
	assert_int_equal(c.seq, 1);
	assert_true(a.epoch == b.epoch && a.epoch != c.epoch);
	h = peek(r, start);
	assert_int_equal(h.type, REC_PUBLICATION);
	assert_int_equal(h.ns, NS);
	assert_int_equal(h.seq, 1);
	assert_int_equal(h.time_ns, 5);
	assert_int_equal(h.slot, REC_ALL);
	assert_int_equal(h.next, start + h.len + peek(r, start + h.len).len); /* past the other channel's */
	assert_int_equal(peek(r, h.next).seq, 2);
	assert_int_equal(peek(r, h.next).next, 0);
	assert_int_equal(count_get(&r->s.count->ring_records), 3);
}

static void test_chain_does_not_reach_into_reclaimed_memory(void **state)
{
	struct rig *r = *state;
	struct seq_outcome out;

	assert_int_equal(publish(r, "a", "first"), SEQ_DONE);
	for (int i = 0; i < 40; i++)
		assert_int_equal(publish_bytes(r, "b", r->big, SIZE / 16, &out), SEQ_DONE);
	/* `a` is overwritten by now; nothing may be stored where it was. */
	assert_int_equal(publish_bytes(r, "a", "second", 6, &out), SEQ_DONE);
	assert_int_equal(out.seq, 2);
	for (uint64_t pos = r->s.ring.reclaim, n = 0; pos < seq_head(&r->s); n++) {
		struct rec h;

		assert_true(n < 100);
		if (!rec_peek(&r->reader_view, pos, &h) || h.len == 0)
			break; /* reclaim is not at a record's start */
		pos += h.len;
	}
}

static void test_with_redis_only_for_listeners(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r);
	uint64_t start = seq_head(&r->s);
	struct seq_outcome out;

	r->s.is_local = false;
	assert_int_equal(publish_bytes(r, "a", "x", 1, &out), SEQ_DONE);
	assert_int_equal(out.seq, 0);
	assert_int_equal(seq_head(&r->s), start);
	want(r, w, "a");
	assert_int_equal(publish_bytes(r, "a", "x", 1, &out), SEQ_DONE);
	assert_int_equal(out.seq, 1);
	assert_int_equal(r->s.interest.n, 1);
}

static uint8_t opcode_of_last(struct rig *r, enum cfg_opcode rule, uint8_t given, bool trusted, const char *p,
			      size_t len)
{
	uint64_t pos = seq_head(&r->s);
	struct seq_message m = {.ns = &r->ns,
				.room = {"a", 1},
				.payload = {p, len},
				.opcode = given,
				.is_trusted = trusted,
				.max_size = 100,
				.slot = REC_ALL};
	struct seq_outcome out;

	r->ns.opcode = rule;
	if (seq_publish(&r->s, &m, &out) == SEQ_DROPPED)
		return 0;
	return peek(r, pos).opcode;
}

static void test_opcodes(void **state)
{
	struct rig *r = *state;
	const counter *bad = &r->s.count->ns[NS].dropped[COUNT_DROPPED_bad_utf8];

	assert_int_equal(opcode_of_last(r, CFG_OPCODE_AUTO, 0, false, "text", 4), WS_TEXT);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_AUTO, 0, false, "", 0), WS_TEXT);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_AUTO, 0, false, "\xff", 1), WS_BINARY);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_BINARY, 0, false, "text", 4), WS_BINARY);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_TEXT, 0, false, "text", 4), WS_TEXT);
	assert_int_equal(count_get(bad), 0);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_TEXT, 0, false, "\xff", 1), 0);
	assert_int_equal(count_get(bad), 1);
	/* What a host says it is, it is; but invalid text of another host would break every client's parser.
	 */
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_TEXT, WS_BINARY, false, "\xff", 1), WS_BINARY);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_BINARY, WS_TEXT, false, "text", 4), WS_TEXT);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_AUTO, WS_TEXT, false, "\xff", 1), 0);
	assert_int_equal(count_get(bad), 2);
	assert_int_equal(opcode_of_last(r, CFG_OPCODE_AUTO, WS_TEXT, true, "\xff", 1), WS_TEXT);
}

static void test_sizes(void **state)
{
	struct rig *r = *state;
	struct seq_message m = {
		.ns = &r->ns, .room = {"a", 1}, .payload = {r->big, 100}, .max_size = 100, .slot = REC_ALL};
	struct seq_outcome out;

	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DONE);
	m.payload.len = 101;
	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DROPPED);
	assert_int_equal(out.why, REC_TOO_LARGE);
	m.max_size = UINT32_MAX;
	m.payload.len = SIZE / 4;
	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DONE);
	m.payload.len = SIZE / 4 + 1;
	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DROPPED);
	assert_int_equal(count_get(&r->s.count->ns[NS].dropped[COUNT_DROPPED_too_large]), 2);
}

static void test_routes(void **state)
{
	struct rig *r = *state;
	const counter *dropped = r->s.count->ns[NS].dropped;
	char key[] = "track";
	uint64_t pos = seq_head(&r->s);

	r->ns.route_key = key;
	assert_int_equal(publish(r, "", "{\"track\":12}"), SEQ_DONE);
	assert_memory_equal(rec_room(&(struct rec){.name_len = 2}, ring_at(&r->reader_view, pos)).p, "12", 2);
	assert_int_equal(peek(r, pos).name_len, 2);
	assert_int_equal(publish(r, "", "{\"other\":12}"), SEQ_DROPPED);
	assert_int_equal(publish(r, "", "{\"track\":\"a/b\"}"), SEQ_DROPPED); /* no room */
	assert_int_equal(count_get(&dropped[COUNT_DROPPED_no_route]), 2);
	assert_int_equal(publish(r, "", "{"), SEQ_DROPPED);
	assert_int_equal(count_get(&dropped[COUNT_DROPPED_bad_json]), 1);
	assert_int_equal(publish(r, "", "[]"), SEQ_DROPPED);
	assert_int_equal(count_get(&dropped[COUNT_DROPPED_not_object]), 1);
	r->ns.route_key = NULL;
	assert_int_equal(publish(r, "", "{\"track\":12}"), SEQ_DROPPED);
	assert_int_equal(count_get(&dropped[COUNT_DROPPED_no_route]), 3);
}

/* ---- waking */

static void test_only_sleepers_with_interest_are_woken(void **state)
{
	struct rig *r = *state;
	unsigned asleep = worker(r), busy = worker(r), deaf = worker(r);

	want(r, asleep, "a");
	want(r, busy, "a");
	slot_sleep(&r->slot[asleep]);
	slot_sleep(&r->slot[deaf]);
	for (int i = 0; i < 10; i++)
		assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	assert_false(was_woken(r, asleep)); /* the batch is not over */
	seq_flush(&r->s);
	assert_true(was_woken(r, asleep));
	assert_false(was_woken(r, busy));
	assert_false(was_woken(r, deaf));
	assert_int_equal(count_get(&r->s.count->wakeups), 1);
	seq_flush(&r->s);
	assert_false(was_woken(r, asleep));
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	seq_flush(&r->s); /* it has not said that it sleeps again */
	assert_false(was_woken(r, asleep));
}

static void test_a_long_batch_wakes_on_the_way(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r), n = 0;

	want(r, w, "a");
	slot_sleep(&r->slot[w]);
	while (!was_woken(r, w)) {
		assert_true(n++ < 300);
		assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	}
	assert_int_equal(n, SEQ_BATCH_RECORDS);
}

static void test_control_always_wakes(void **state)
{
	struct rig *r = *state;
	unsigned a = worker(r), b = worker(r);
	const struct rec h = {.type = REC_REOPEN};
	uint64_t pos = seq_head(&r->s);

	slot_sleep(&r->slot[a]);
	slot_sleep(&r->slot[b]);
	seq_control(&r->s, (uint8_t)r->id[b], &h, (struct slice){0});
	seq_flush(&r->s);
	assert_false(was_woken(r, a));
	assert_true(was_woken(r, b));
	assert_int_equal(peek(r, pos).slot, 11);
	assert_int_equal(peek(r, pos).incarnation, 101);
	slot_sleep(&r->slot[b]);
	pos = seq_head(&r->s);
	seq_control_all(&r->s, &h);
	seq_flush(&r->s);
	assert_true(was_woken(r, a));
	assert_true(was_woken(r, b));
	assert_int_equal(peek(r, pos).slot, REC_ALL);
}

/* ---- gates */

static void test_skip_to_follows_who_is_not_concerned(void **state)
{
	struct rig *r = *state;
	unsigned deaf = worker(r), listener = worker(r);
	uint64_t first;

	want(r, listener, "a");
	assert_int_equal(publish(r, "b", "x"), SEQ_DONE);
	seq_flush(&r->s);
	assert_int_equal(slot_skip_to(&r->slot[deaf]), seq_head(&r->s));
	assert_int_equal(slot_skip_to(&r->slot[listener]), seq_head(&r->s));
	first = seq_head(&r->s);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
		assert_int_equal(publish(r, "b", "x"), SEQ_DONE);
		seq_flush(&r->s);
	}
	assert_int_equal(slot_skip_to(&r->slot[deaf]), seq_head(&r->s));
	assert_int_equal(slot_skip_to(&r->slot[listener]),
			 first); /* no further than the first it has to read */
	assert_int_equal(seq_refresh(&r->s), first);
	slot_set_cursor(&r->slot[listener], first + peek(r, first).len);
	assert_int_equal(seq_refresh(&r->s), first + peek(r, first).len);
	assert_int_equal(slot_skip_to(&r->slot[listener]), first);
	/* Past the last one that concerns it: what follows does not. */
	slot_set_cursor(&r->slot[listener], r->s.reader[r->id[listener]].concern_end);
	assert_int_equal(seq_refresh(&r->s), seq_head(&r->s));
	assert_int_equal(slot_skip_to(&r->slot[listener]), seq_head(&r->s));
}

/* The gap between two records that concern a worker is skipped even if both times it was marked at once. */
static void test_skip_to_jumps_to_the_next_concern(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r);
	uint64_t pos;

	want(r, w, "a");
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	seq_flush(&r->s);
	read_all(r, w);
	for (int i = 0; i < 5; i++)
		assert_int_equal(publish(r, "b", "x"), SEQ_DONE);
	pos = seq_head(&r->s);
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	seq_flush(&r->s);
	assert_int_equal(slot_skip_to(&r->slot[w]), pos);
}

static void push_control(struct rig *r, unsigned w, enum up_type type)
{
	const struct up_rec h = {.type = (uint8_t)type, .ns = NS};

	assert_true(uplink_push(&r->slot[w].control, &h, (struct slice){"a", 1}, (struct slice){0}, false));
}

/* It may have dropped the channel and added it again, and act upon the older REC_SUBSCRIBED (sequencer.h). */
static void test_not_caught_up_while_its_control_uplink_holds_something(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r);
	const struct rec h = {.type = REC_SUBSCRIBED, .ns = NS};
	uint64_t pos = seq_head(&r->s);

	seq_control(&r->s, (uint8_t)r->id[w], &h, (struct slice){"a", 1});
	seq_flush(&r->s);
	push_control(r, w, UP_ADD);
	read_all(r, w);
	assert_int_equal(publish(r, "a", "not for it, as far as we know"), SEQ_DONE);
	seq_flush(&r->s);
	assert_int_equal(slot_skip_to(&r->slot[w]), pos);
	/* The ADD is taken and answered: what lies before the answer stays protected until the cursor has
	 * passed. */
	r->s.reader[r->id[w]].control_pos = ring_head(&r->slot[w].control);
	seq_control(&r->s, (uint8_t)r->id[w], &h, (struct slice){"a", 1});
	seq_flush(&r->s);
	assert_int_equal(slot_skip_to(&r->slot[w]), pos);
	read_all(r, w);
	(void)seq_refresh(&r->s);
	assert_int_equal(slot_skip_to(&r->slot[w]), seq_head(&r->s));
}

static void test_a_cursor_that_cannot_be(void **state)
{
	struct rig *r = *state;
	unsigned ahead = worker(r), back = worker(r);
	uint64_t gate = seq_head(&r->s);

	want(r, ahead, "a");
	want(r, back, "a");
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
	slot_set_cursor(&r->slot[ahead], seq_head(&r->s) + 16);
	slot_set_cursor(&r->slot[back], gate - 16);
	assert_int_equal(seq_refresh(&r->s), gate);
	assert_true(r->s.reader[r->id[ahead]].is_broken);
	assert_true(r->s.reader[r->id[back]].is_broken);
	/* Its gate counts until it is gone. */
	(void)fill(r, "a", 1000);
	seq_reader_remove(&r->s, (uint8_t)r->id[ahead]);
	seq_reader_remove(&r->s, (uint8_t)r->id[back]);
	assert_true(seq_poll(&r->s));
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE);
}

static void test_ids_of_the_dead_are_not_used_again_too_soon(void **state)
{
	struct rig *r = *state;
	const struct interest_sweep how = {.now_ms = 1};
	unsigned first = worker(r), second;
	int id = r->id[first];

	want(r, first, "a");
	seq_reader_remove(&r->s, (uint8_t)id);
	assert_int_equal(publish(r, "a", "x"), SEQ_DONE); /* the list still names it */
	second = worker(r);
	assert_int_not_equal(r->id[second], id);
	interest_sweep(&r->s.interest, 3 * r->s.interest.n_buckets, &how);
	assert_int_equal(r->id[worker(r)], id);
}

/* ---- back-pressure */

static void test_full_until_the_slowest_moves(void **state)
{
	struct rig *r = *state;
	unsigned slow = worker(r), fast = worker(r);
	uint64_t start = seq_head(&r->s), head;
	struct seq_outcome out;

	want(r, slow, "a");
	want(r, fast, "a");
	assert_true(fill(r, "a", 1000) > 100);
	head = seq_head(&r->s);
	assert_true(SIZE - (head - start) >= r->s.reserve);
	assert_true(r->s.is_full);
	assert_int_equal(count_get(&r->s.count->ring_full), 1);
	read_all(r, fast);
	assert_false(seq_poll(&r->s));
	assert_int_equal(publish_bytes(r, "a", r->big, 1000, &out), SEQ_FULL);
	assert_int_equal(seq_head(&r->s), head);
	assert_int_equal(count_get(&r->s.count->ring_full), 1); /* the same episode */
	read_all(r, slow);
	assert_true(seq_poll(&r->s));
	assert_false(r->s.is_full);
	assert_int_equal(publish_bytes(r, "a", r->big, 1000, &out), SEQ_DONE);
}

static void test_nobody_behind_means_never_full(void **state)
{
	struct rig *r = *state;
	unsigned deaf = worker(r);
	struct seq_outcome out;

	slot_sleep(&r->slot[deaf]);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(publish_bytes(r, "a", r->big, 4000, &out), SEQ_DONE);
	seq_flush(&r->s);
	assert_false(was_woken(r, deaf));
	assert_int_equal(slot_skip_to(&r->slot[deaf]), seq_head(&r->s));
}

static void test_control_uses_the_reserve_then_waits_in_order(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r);
	uint64_t head, id = 0, expect = 0, pos;
	struct seq_outcome out;

	want(r, w, "a");
	(void)fill(r, "a", 1000);
	pos = head = seq_head(&r->s);
	while (r->s.waiting.len == 0) {
		const struct rec h = {.type = REC_ANSWER, .id = id++};

		assert_true(id < 100000);
		seq_control(&r->s, (uint8_t)r->id[w], &h, (struct slice){0});
	}
	assert_true(id > 100); /* there was a reserve */
	for (int i = 0; i < 50; i++) {
		const struct rec h = {.type = REC_ANSWER, .id = id++};

		seq_control(&r->s, (uint8_t)r->id[w], &h, (struct slice){"room", 4});
	}
	assert_true(seq_head(&r->s) - SIZE <= seq_refresh(&r->s));
	assert_int_equal(publish_bytes(r, "a", "x", 1, &out), SEQ_FULL); /* not past those that wait */
	slot_set_cursor(&r->slot[w], head);
	(void)seq_poll(&r->s);
	assert_int_equal(r->s.waiting.len, 0);
	for (; pos < seq_head(&r->s); pos += peek(r, pos).len)
		assert_int_equal(peek(r, pos).id, expect++);
	assert_int_equal(expect, id);
}

/* Orders from Redis have no other bound: who gives them can see that enough waits. */
static void test_what_waits_has_a_bound(void **state)
{
	static char order[65536];
	struct rig *r = *state;
	unsigned w = worker(r), n = 0;
	const struct rec h = {.type = REC_CONTROL};

	want(r, w, "a");
	(void)fill(r, "a", 1000);
	while (!seq_is_backlogged(&r->s)) {
		seq_control_all_payload(&r->s, &h, (struct slice){0}, (struct slice){order, sizeof(order)});
		assert_true(++n <= SEQ_WAITING_MAX / sizeof(order) + 2);
	}
	assert_true(r->s.waiting.len < SEQ_WAITING_MAX + 2 * sizeof(order));
	for (unsigned i = 0; i < 1000 && r->s.waiting.len > 0; i++) {
		read_all(r, w);
		(void)seq_poll(&r->s);
	}
	assert_int_equal(r->s.waiting.len, 0);
	assert_false(seq_is_backlogged(&r->s));
}

static void test_waiting_control_of_the_dead_is_forgotten(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r), other = worker(r);
	const struct rec h = {.type = REC_ANSWER};
	uint64_t head;

	want(r, other, "a");
	(void)fill(r, "a", 1000);
	while (r->s.waiting.len == 0)
		seq_control(&r->s, (uint8_t)r->id[w], &h, (struct slice){0});
	head = seq_head(&r->s);
	seq_reader_remove(&r->s, (uint8_t)r->id[w]);
	read_all(r, other);
	assert_true(seq_poll(&r->s));
	assert_int_equal(r->s.waiting.len, 0);
	assert_int_equal(seq_head(&r->s), head);
}

/* A sleeper may hold half-sent frames in the ring. */
static void test_full_wakes_a_sleeper_far_behind(void **state)
{
	struct rig *r = *state;
	unsigned w = worker(r);

	want(r, w, "a");
	(void)fill(r, "a", 1000);
	(void)was_woken(r, w);
	slot_sleep(&r->slot[w]);
	assert_false(seq_poll(&r->s));
	assert_true(was_woken(r, w));
}

static void test_blame(void **state)
{
	struct rig *r = *state;
	unsigned slow = worker(r), fast = worker(r), deaf = worker(r);

	want(r, slow, "a");
	want(r, fast, "a");
	assert_int_equal(seq_blame(&r->s), SEQ_NOBODY);
	(void)fill(r, "a", 1000);
	(void)seq_poll(&r->s);
	assert_int_equal(seq_blame(&r->s), SEQ_NOBODY); /* both are behind */
	read_all(r, fast);
	(void)seq_poll(&r->s);
	assert_int_equal(seq_blame(&r->s), r->id[slow]);
	/* With nobody else who had anything to read it is merely the one that has the clients. */
	seq_reader_remove(&r->s, (uint8_t)r->id[fast]);
	assert_non_null(r->s.reader[r->id[deaf]].slot);
	assert_int_equal(seq_blame(&r->s), SEQ_NOBODY);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_numbers_and_chain),
		TEST(test_chain_does_not_reach_into_reclaimed_memory),
		TEST(test_with_redis_only_for_listeners),
		TEST(test_opcodes),
		TEST(test_sizes),
		TEST(test_routes),
		TEST(test_only_sleepers_with_interest_are_woken),
		TEST(test_a_long_batch_wakes_on_the_way),
		TEST(test_control_always_wakes),
		TEST(test_skip_to_follows_who_is_not_concerned),
		TEST(test_skip_to_jumps_to_the_next_concern),
		TEST(test_not_caught_up_while_its_control_uplink_holds_something),
		TEST(test_a_cursor_that_cannot_be),
		TEST(test_ids_of_the_dead_are_not_used_again_too_soon),
		TEST(test_full_until_the_slowest_moves),
		TEST(test_nobody_behind_means_never_full),
		TEST(test_control_uses_the_reserve_then_waits_in_order),
		TEST(test_what_waits_has_a_bound),
		TEST(test_waiting_control_of_the_dead_is_forgotten),
		TEST(test_full_wakes_a_sleeper_far_behind),
		TEST(test_blame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
