/* LINK: master/reached.c master/kmv.c master/sequencer.c master/seq_json.c master/seq_drop.c master/retained.c
 * master/interest.c shm/ring.c shm/record.c shm/slot.c shm/seg.c shm/uplink.c shm/counters.c */
/* Who has told, who is missing, and when that is the answer: a real sequencer; workers, replicas and Redis
 * are played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "master/nodes.h"
#include "master/reached.h"
#include "master/redis_cmd.h"
#include "master/relay.h"
#include "shm/seg.h"
#include "shm/uplink.h"

#define SIZE    (UINT64_C(1) << 20)
#define UPLINK  (UINT64_C(64) << 10)
#define WORKERS 3
#define ORIGIN  0xab

struct rig {
	struct master m;
	struct counters count;
	uint8_t *data;
	struct interest_entry *e;
	uint64_t pos; /* where the next record to look at begins */
};

static struct rig *rig;
static const struct seq_outcome outcome = {.seq = 5, .epoch = 6};

/* ---- the other parts */

static uint64_t others[8] = {0x11, 0x22, 0x33};
static unsigned n_others;
static bool is_up;
static relay_internal_fn *report;
static void *report_arg;
static struct redis_cmd_events watch;
static redis_cmd_fn *info;
static void *info_arg;
static struct buf told; /* "channel payload" */

const uint64_t *nodes_others(const struct master *m, unsigned *n, bool *is_known)
{
	(void)m;
	*n = n_others;
	*is_known = true;
	return others;
}

bool redis_is_up(const struct redis *r)
{
	(void)r;
	return is_up;
}

int relay_listen(struct master *m, const char *channel, relay_internal_fn *fn, void *arg)
{
	(void)m;
	assert_string_equal(channel, "ringcast:r:00000000000000ab");
	report = fn;
	report_arg = arg;
	return 0;
}

int relay_watch(struct master *m, const struct redis_cmd_events *ev)
{
	(void)m;
	watch = *ev;
	return 0;
}

void redis_tell(struct redis_cmd *c, const char *channel, struct slice payload)
{
	(void)c;
	told.len = 0;
	assert_int_equal(buf_printf(&told, "%s %.*s", channel, (int)payload.len, payload.p), 0);
	assert_int_equal(buf_put(&told, "", 1), 0);
}

int redis_cmd_call(struct redis_cmd *c, size_t argc, const struct slice *argv, redis_cmd_fn *fn, void *arg)
{
	(void)c;
	assert_int_equal(argc, 2);
	assert_memory_equal(argv[0].p, "INFO", 4);
	info = fn;
	info_arg = arg;
	return 0;
}

/* ---- the rig */

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	int fd = seg_create("test-ring", SEG_PAGE + SIZE);
	struct ring ring;

	if (r == NULL || fd == -1)
		return -1;
	r->data = seg_map_twice(fd, SEG_PAGE, SIZE, SEG_PAGE, PROT_READ | PROT_WRITE);
	close(fd);
	if (r->data == NULL)
		return -1;
	ring_init(&ring, (struct ring_hdr *)(r->data - SEG_PAGE), r->data, SIZE, SIZE);
	if (seq_init(&r->m.seq, &ring, ORIGIN, 88, &r->count) == -1)
		return -1;
	r->m.count = &r->count;
	r->m.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	r->m.cmd = (struct redis_cmd *)(void *)r; /* somebody to tell */
	r->e = interest_get(&r->m.seq.interest, 4, 1, (struct slice){"a", 1});
	for (unsigned i = 0; i < WORKERS; i++) {
		struct child *c = &r->m.child[10 + i];
		int id;

		c->slot = (uint16_t)(10 + i);
		c->incarnation = 100 + i;
		c->pid = 1;
		if (slot_create(&c->seg, c->slot, c->incarnation, seq_head(&r->m.seq), UPLINK) == -1)
			return -1;
		id = seq_reader_add(&r->m.seq, &c->seg, c->slot, c->incarnation, -1);
		if (id == SEQ_NOBODY || interest_add(r->e, (uint8_t)id) == -1)
			return -1;
		c->reader = (uint8_t)id;
	}
	r->pos = seq_head(&r->m.seq);
	n_others = 0;
	is_up = false;
	*state = rig = r;
	return reached_start(&r->m);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	reached_stop(&r->m);
	for (unsigned i = 0; i < WORKERS; i++)
		slot_close(&r->m.child[10 + i].seg);
	ev_loop_destroy(r->m.loop);
	seq_free(&r->m.seq);
	seg_unmap_twice(r->data, SIZE, SEG_PAGE);
	buf_free(&told);
	free(r);
	return 0;
}

static uint32_t ask(void)
{
	uint32_t number = reached_new(&rig->m, 10, 100, 77);

	assert_int_not_equal(number, 0);
	return number;
}

static bool tell(unsigned worker, uint32_t number, uint64_t sockets, uint64_t n, const uint64_t *hashes)
{
	struct up_matched u = {.sockets = sockets, .n = n};
	size_t len = offsetof(struct up_matched, user_hash) + n * sizeof(uint64_t);

	if (n > 0)
		memcpy(u.user_hash, hashes, n * sizeof(uint64_t));
	return reached_told(&rig->m, &rig->m.child[10 + worker], number,
			    (struct slice){(const char *)&u, len});
}

static void hear(const char *text)
{
	report(report_arg, (struct slice){"", 0}, (struct slice){text, strlen(text)});
}

/* The next answer on the ring, or false. */
static bool next_answer(struct rec *h, struct rec_counts *counts)
{
	const uint8_t *at = ring_at(&rig->m.seq.ring, rig->pos);

	if (rig->pos == seq_head(&rig->m.seq))
		return false;
	assert_true(rec_peek(&rig->m.seq.ring, rig->pos, h));
	assert_int_equal(h->type, REC_ANSWER);
	assert_int_equal(h->slot, 10);
	assert_int_equal(h->incarnation, 100);
	assert_int_equal(h->id, 77);
	assert_int_equal(rec_payload(h, at).len, sizeof(*counts));
	memcpy(counts, rec_payload(h, at).p, sizeof(*counts));
	rig->pos += h->len;
	return true;
}

static void expect(enum rec_answer what, uint64_t sockets, uint64_t users, bool is_partial)
{
	struct rec_counts counts;
	struct rec h;

	assert_true(next_answer(&h, &counts));
	assert_int_equal(h.arg[0], what);
	assert_int_equal(h.seq, what == REC_OFF || what == REC_SENT ? 5 : 0);
	assert_int_equal(counts.sockets, sockets);
	assert_int_equal(counts.users, users);
	assert_int_equal(counts.is_partial, is_partial);
}

static void expect_none(void)
{
	struct rec_counts counts;
	struct rec h;

	assert_false(next_answer(&h, &counts));
}

/* Turn the loop until something was said, or fail. */
static void wait_for_deadline(void)
{
	uint64_t start = clock_mono_ms();

	while (rig->pos == seq_head(&rig->m.seq) && told.len == 0 && clock_mono_ms() - start < 10000)
		ev_run(rig->m.loop, EVRUN_ONCE);
	assert_true(clock_mono_ms() - start >= REACHED_OTHERS_MS - 1);
}

/* ---- this host */

static void all_have_told(void **state)
{
	static const uint64_t a[] = {1, 5, 9}, b[] = {2, 5}, c[] = {9};
	uint32_t number = ask();

	(void)state;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_OFF, &outcome));
	assert_true(tell(0, number, 4, 3, a));
	assert_true(tell(0, number, 4, 3, a)); /* once more: not counted */
	assert_true(tell(1, number, 2, 2, b));
	expect_none();
	assert_true(tell(2, number, 1, 1, c));
	expect(REC_OFF, 7, 4, false);
	assert_true(tell(2, number, 1, 1, c)); /* too late: no fault of the worker's */
	expect_none();
	assert_int_equal(count_get(&rig->count.counts_partial), 0);
}

static void nobody_wants_it(void **state)
{
	(void)state;
	assert_true(reached_begin(&rig->m, ask(), NULL, REC_SENT, &outcome));
	expect(REC_SENT, 0, 0, false);
}

static void who_is_missing_in_time_makes_it_partial(void **state)
{
	static const uint64_t a[] = {1};
	uint32_t number = ask();

	(void)state;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_OFF, &outcome));
	assert_true(tell(1, number, 2, 1, a));
	wait_for_deadline();
	expect(REC_OFF, 2, 1, true);
	assert_int_equal(count_get(&rig->count.counts_partial), 1);
}

static void the_dead_tell_nothing(void **state)
{
	uint32_t number = ask();

	(void)state;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_OFF, &outcome));
	assert_true(tell(0, number, 1, 0, NULL));
	assert_true(tell(1, number, 1, 0, NULL));
	reached_worker_died(&rig->m, &rig->m.child[12]);
	expect(REC_OFF, 2, 0, true);
	/* And hear nothing: it was the publisher's. */
	number = ask();
	assert_true(reached_begin(&rig->m, number, rig->e, REC_OFF, &outcome));
	reached_worker_died(&rig->m, &rig->m.child[10]);
	assert_true(tell(1, number, 1, 0, NULL));
	assert_false(reached_begin(&rig->m, number, rig->e, REC_OFF, &outcome));
	expect_none();
}

static void nonsense_is_told_as_such(void **state)
{
	struct up_matched u = {.n = UP_MATCHED_MAX + 1};
	const struct child *c = &rig->m.child[10];
	const char *p = (const char *)&u;

	(void)state;
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 0}));
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 15}));
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 16}));
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, sizeof(u)}));
	u.n = 1;
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 16}));
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 23}));
	assert_true(reached_told(&rig->m, c, 1, (struct slice){p, 24}));
	u.n = UINT64_MAX / 8 + 1; /* times eight it would be 0 */
	assert_false(reached_told(&rig->m, c, 1, (struct slice){p, 16}));
}

static void numbers_are_bounded_and_not_used_again_soon(void **state)
{
	uint32_t numbers[REACHED_MAX], again;

	(void)state;
	for (unsigned i = 0; i < REACHED_MAX; i++) {
		numbers[i] = ask();
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(numbers[i], numbers[k]);
	}
	assert_int_equal(reached_new(&rig->m, 10, 100, 77), 0);
	assert_false(reached_begin(&rig->m, 0, NULL, REC_OFF, &outcome));
	reached_drop(&rig->m, numbers[7]);
	reached_drop(&rig->m, numbers[7]);
	reached_drop(&rig->m, 0);
	again = ask();
	assert_int_not_equal(again, numbers[7]);
	assert_false(reached_begin(&rig->m, numbers[7], NULL, REC_OFF, &outcome));
	assert_int_equal(reached_new(&rig->m, 10, 100, 77), 0);
}

static void an_answer_is_given_once(void **state)
{
	uint32_t number = ask();

	(void)state;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_QUEUED, &(struct seq_outcome){0}));
	assert_true(
		reached_begin(&rig->m, number, NULL, REC_OVERLOADED, &outcome)); /* begun: nothing happens */
	expect_none();
	for (unsigned i = 0; i < WORKERS; i++)
		assert_true(tell(i, number, 1, 0, NULL));
	expect(REC_QUEUED, 3, 0, false);
}

/* ---- other replicas */

/* Asked by a publication of ours with the id 9; nobody here wants it. */
static uint32_t ask_others(unsigned n, bool is_family)
{
	uint32_t number = ask();

	n_others = n;
	is_up = true;
	assert_true(reached_asks_others(&rig->m));
	reached_sent(&rig->m, number, 9, is_family);
	return number;
}

static void counts_of_all_replicas_are_united(void **state)
{
	static const uint64_t a[] = {1, 0x10};
	uint32_t number = ask_others(2, true);

	(void)state;
	hear("{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":3,\"partial\":false,\"users\":["
	     "\"0000000000000001\","
	     "\"0000000000000002\"]}");
	assert_true(reached_begin(&rig->m, number, rig->e, REC_SENT, &outcome));
	for (unsigned i = 0; i < WORKERS; i++)
		assert_true(tell(i, number, 1, i == 0 ? 2 : 0, a));
	expect_none();
	hear("{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":3,\"users\":[]}"); /* twice */
	hear("{\"node\":\"0000000000000099\",\"id\":9,\"sockets\":3,\"users\":[]}"); /* unknown */
	hear("{\"node\":\"0000000000000022\",\"id\":8,\"sockets\":3,\"users\":[]}"); /* of another one */
	expect_none();
	hear("{\"node\":\"0000000000000022\",\"id\":9,\"sockets\":5,\"users\":[\"0000000000000010\",7,\"x\"]"
	     "}");
	expect(REC_SENT, 11, 3, false);
}

static void a_replica_s_own_gaps_are_ours(void **state)
{
	uint32_t number = ask_others(1, true);

	(void)state;
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	hear("{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1,\"partial\":true,\"users\":[]}");
	expect(REC_SENT, 1, 0, true);
}

static void a_silent_replica_makes_it_partial(void **state)
{
	uint32_t number = ask_others(2, true);

	(void)state;
	told.len = 0;
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	reached_receivers(&rig->m, number, 1,
			  true); /* all subscribe a family's channel, whatever Redis says */
	hear("{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1,\"users\":[]}");
	wait_for_deadline();
	expect(REC_SENT, 1, 0, true);
}

/* Most replicas do not subscribe a room that nobody of theirs is in. */
static void only_receivers_are_waited_for(void **state)
{
	static const char server[] = "# Server\r\nredis_version:7\r\nredis_mode:standalone\r\n";
	redisReply reply = {
		.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)server, .len = sizeof(server) - 1};
	uint32_t number;

	(void)state;
	watch.open(watch.arg);
	info(info_arg, &reply);
	number = ask_others(3, false);
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	expect_none();
	reached_receivers(&rig->m, number, 2, true); /* we and another one */
	expect_none();
	hear("{\"node\":\"0000000000000022\",\"id\":9,\"sockets\":4,\"users\":[]}");
	expect(REC_SENT, 4, 0, false);

	/* The other one was quicker than Redis' answer. */
	number = ask_others(3, false);
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	hear("{\"node\":\"0000000000000022\",\"id\":9,\"sockets\":4,\"users\":[]}");
	expect_none();
	reached_receivers(&rig->m, number, 1, false);
	expect(REC_SENT, 4, 0, false);

	/* Nobody. */
	number = ask_others(3, false);
	reached_receivers(&rig->m, number, 0, false);
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	expect(REC_SENT, 0, 0, false);
}

/* A node of a cluster knows its own subscribers alone. */
static void in_a_cluster_the_time_runs_out(void **state)
{
	static const char server[] = "redis_mode:cluster\r\n";
	redisReply reply = {
		.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)server, .len = sizeof(server) - 1};
	uint32_t number;

	(void)state;
	told.len = 0;
	watch.open(watch.arg);
	info(info_arg, &reply);
	number = ask_others(1, false);
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	reached_receivers(&rig->m, number, 0, false);
	expect_none();
	wait_for_deadline();
	expect(REC_SENT, 0, 0, true);
}

static void nobody_is_asked_while_redis_is_away(void **state)
{
	(void)state;
	n_others = 2;
	is_up = false;
	assert_false(reached_asks_others(&rig->m));
	is_up = true;
	n_others = 0;
	assert_false(reached_asks_others(&rig->m));
}

static void nonsense_of_replicas_is_passed_over(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{",
		"{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1}",
		"{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1,\"users\":7}",
		"{\"node\":\"11\",\"id\":9,\"sockets\":1,\"users\":[]}",
		"{\"node\":11,\"id\":9,\"sockets\":1,\"users\":[]}",
		"{\"node\":\"-000000000000011\",\"id\":9,\"sockets\":1,\"users\":[]}",
		"{\"node\":\"0000000000000011\",\"id\":-9,\"sockets\":1,\"users\":[]}",
		"{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1.5,\"users\":[]}",
		"{\"node\":\"0000000000000011\",\"id\":0,\"sockets\":1,\"users\":[]}",
	};
	uint32_t number = ask_others(1, true);

	(void)state;
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		hear(bad[i]);
		expect_none();
	}
	hear("{\"node\":\"0000000000000011\",\"id\":9,\"sockets\":1,\"users\":[]}");
	expect(REC_SENT, 1, 0, false);
}

/* ---- for another replica */

static void what_another_one_asks_is_told_to_it(void **state)
{
	static const uint64_t a[] = {1, 0xdeadbeef};
	uint32_t number = reached_new_other(&rig->m, 0x11, 42);

	(void)state;
	told.len = 0;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_SENT, &outcome));
	for (unsigned i = 0; i < WORKERS; i++)
		assert_true(tell(i, number, 2, i == 1 ? 2 : 0, a));
	assert_string_equal(told.p,
			    "ringcast:r:0000000000000011 "
			    "{\"node\":\"00000000000000ab\",\"id\":42,\"sockets\":6,\"partial\":false,"
			    "\"users\":[\"0000000000000001\",\"00000000deadbeef\"]}");
	/* Nobody here: that is an answer, too. */
	number = reached_new_other(&rig->m, 0x11, 43);
	assert_true(reached_begin(&rig->m, number, NULL, REC_SENT, &outcome));
	assert_non_null(strstr(told.p, "\"id\":43,\"sockets\":0,\"partial\":false,\"users\":[]}"));
	/* Before the other one gives up. */
	number = reached_new_other(&rig->m, 0x11, 44);
	told.len = 0;
	assert_true(reached_begin(&rig->m, number, rig->e, REC_SENT, &outcome));
	wait_for_deadline();
	assert_non_null(strstr(told.p, "\"id\":44,\"sockets\":0,\"partial\":true"));
	expect_none();
	assert_int_equal(count_get(&rig->count.counts_partial), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(all_have_told),
		TEST(nobody_wants_it),
		TEST(who_is_missing_in_time_makes_it_partial),
		TEST(the_dead_tell_nothing),
		TEST(nonsense_is_told_as_such),
		TEST(numbers_are_bounded_and_not_used_again_soon),
		TEST(an_answer_is_given_once),
		TEST(counts_of_all_replicas_are_united),
		TEST(a_replica_s_own_gaps_are_ours),
		TEST(a_silent_replica_makes_it_partial),
		TEST(only_receivers_are_waited_for),
		TEST(in_a_cluster_the_time_runs_out),
		TEST(nobody_is_asked_while_redis_is_away),
		TEST(nonsense_of_replicas_is_passed_over),
		TEST(what_another_one_asks_is_told_to_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
