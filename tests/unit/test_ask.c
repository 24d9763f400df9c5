/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Questions to the master: one answer each, in time or not; a full uplink; askers that go. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

static struct rig r;

/* What came back, by question. */
static struct {
	unsigned n;
	enum rec_reply reply;
	char text[64];
} got[ASK_MAX + 8];

static void on_answer(struct worker *w, void *arg, enum rec_reply reply, struct slice payload)
{
	size_t i = (size_t)(uintptr_t)arg;

	(void)w;
	got[i].n++;
	got[i].reply = reply;
	memcpy(got[i].text, payload.p == NULL ? "" : payload.p,
	       u64_min(payload.len, sizeof(got[i].text) - 1));
}

static uint32_t ask(size_t i, size_t payload)
{
	static char bytes[ASK_PAYLOAD_MAX + 1];
	const struct ask q = {
		.what = UP_ASK_INFO, .ns = 3, .room = {"lobby", 5}, .payload = {bytes, payload}};

	memset(bytes, (int)('a' + i % 26), sizeof(bytes));
	return ask_master(r.w, &q, on_answer, (void *)(uintptr_t)i);
}

/* Of the last question that the master saw. */
static uint32_t seen_request;
static char seen_first;
static unsigned seen_order; /* first letters came in the order of the alphabet */

static void note(struct rig *rig, const struct up_view *v)
{
	(void)rig;
	assert_int_equal(v->h.opcode, UP_ASK_INFO);
	assert_int_equal(v->h.ns, 3);
	assert_memory_equal(v->room.p, "lobby", 5);
	seen_request = v->h.request;
	if (v->payload.len > 0)
		seen_first = v->payload.p[0];
	seen_order += v->payload.len > 0 && v->payload.p[0] == (char)('a' + seen_order % 26);
}

static void echo(struct rig *rig, const struct up_view *v)
{
	note(rig, v);
	rig_reply(rig, v->h.request, REC_REPLY_OK, "yes");
}

static void begin(void (*on_request)(struct rig *, const struct up_view *))
{
	rig_init(&r);
	r.on_request = on_request;
	memset(got, 0, sizeof(got));
	seen_order = 0;
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

static void test_an_answer(void **state)
{
	(void)state;
	begin(echo);
	assert_int_not_equal(ask(1, 10), 0);
	assert_int_equal(got[1].n, 0); /* never from within */
	rig_settle(&r);
	assert_int_equal(got[1].n, 1);
	assert_int_equal(got[1].reply, REC_REPLY_OK);
	assert_string_equal(got[1].text, "yes");
	rig_pass(&r, 2 * ASK_DEADLINE_MS);
	assert_int_equal(got[1].n, 1);
	end();
}

static void test_nobody_answers(void **state)
{
	(void)state;
	begin(note);
	assert_int_not_equal(ask(1, 0), 0);
	rig_pass(&r, ASK_DEADLINE_MS - 200);
	assert_int_not_equal(ask(2, 0), 0);
	assert_int_equal(got[1].n, 0);
	rig_pass(&r, 400);
	assert_int_equal(got[1].n, 1);
	assert_int_equal(got[1].reply, REC_REPLY_UNAVAILABLE);
	assert_int_equal(got[2].n, 0);
	rig_pass(&r, ASK_DEADLINE_MS);
	assert_int_equal(got[2].n, 1);
	end();
}

/* The number of a question that was answered, or given up, may come back for another one: not its late
 * answers. */
static void test_a_late_answer_is_nobody_s(void **state)
{
	uint32_t first;

	(void)state;
	begin(note);
	first = ask(1, 0);
	rig_pass(&r, ASK_DEADLINE_MS + 200);
	assert_int_equal(got[1].n, 1);
	assert_int_not_equal(ask(2, 0), first);
	rig_settle(&r);
	rig_reply(&r, first, REC_REPLY_OK, "late");
	rig_settle(&r);
	assert_int_equal(got[1].n, 1);
	assert_int_equal(got[2].n, 0);
	rig_reply(&r, seen_request, REC_REPLY_NONE, "");
	rig_settle(&r);
	assert_int_equal(got[2].n, 1);
	assert_int_equal(got[2].reply, REC_REPLY_NONE);
	rig_reply(&r, 0, REC_REPLY_OK, "");
	rig_reply(&r, UINT32_MAX, REC_REPLY_OK, "");
	rig_settle(&r);
	end();
}

static void test_the_forgotten(void **state)
{
	uint32_t number;

	(void)state;
	begin(echo);
	number = ask(1, 0);
	ask_forget(r.w, number);
	ask_forget(r.w, number);
	rig_settle(&r);
	assert_int_equal(r.requests, 1);
	assert_int_equal(got[1].n, 0);
	/* Not yet pushed: the master never hears of it. */
	r.hold_data = true;
	while (!ask_is_waiting(r.w))
		number = ask(2, 30000);
	ask_forget(r.w, number);
	assert_false(ask_is_waiting(r.w));
	r.hold_data = false;
	rig_settle(&r);
	ask_forget(r.w, number);
	end();
}

static void test_a_full_uplink(void **state)
{
	unsigned n = 0;

	(void)state;
	begin(echo);
	r.hold_data = true;
	while (r.w->asks.n_waiting < 10)
		assert_int_not_equal(ask(n++, 20000), 0);
	r.data_records = 1; /* space comes slowly */
	r.hold_data = false;
	rig_settle(&r);
	assert_int_equal(r.requests, n);
	assert_int_equal(seen_order, n);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(got[i].n, 1);
	assert_int_equal(r.w->asks.waiting_bytes, 0);
	end();
}

static void test_a_full_uplink_is_bounded(void **state)
{
	unsigned n = 0;

	(void)state;
	begin(echo);
	r.hold_data = true;
	while (ask(n, ASK_PAYLOAD_MAX) != 0)
		n++;
	assert_true(r.w->asks.waiting_bytes <= ASK_WAIT_BYTES);
	assert_true(r.w->asks.waiting_bytes > ASK_WAIT_BYTES - ASK_PAYLOAD_MAX - 5);
	assert_int_equal(ask(n, ASK_PAYLOAD_MAX + 1), 0);
	/* Those that wait have a deadline, too; what is pushed is answered late, for nobody. */
	rig_pass(&r, ASK_DEADLINE_MS + 200);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(got[i].reply, REC_REPLY_UNAVAILABLE);
	assert_int_equal(r.w->asks.waiting_bytes, 0);
	r.hold_data = false;
	rig_settle(&r);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(got[i].n, 1);
	assert_int_equal(got[n].n, 0);
	end();
}

static void test_only_so_many(void **state)
{
	(void)state;
	begin(NULL);
	for (size_t i = 0; i < ASK_MAX; i++)
		assert_int_not_equal(ask(i, 0), 0);
	assert_int_equal(ask(ASK_MAX, 0), 0);
	rig_pass(&r, ASK_DEADLINE_MS + 200);
	for (size_t i = 0; i < ASK_MAX; i++)
		assert_int_equal(got[i].n, 1);
	assert_int_equal(got[ASK_MAX].n, 0);
	assert_int_not_equal(ask(1, 0), 0);
	end();
}

/* In the middle of a large publication that waits for space. */
static void test_between_chunks(void **state)
{
	static char big[400000];
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	begin(echo);
	rig_connect(&r, &c, "/ws/a", 0);
	r.hold_data = true;
	rig_send(&c, WS_BINARY, big, 100000);
	rig_settle(&r);
	rig_send(&c, WS_BINARY, big, 200000);
	rig_settle(&r);
	assert_true(r.w->chunking.is_active);
	assert_int_not_equal(ask(1, 100), 0);
	r.hold_data = false;
	for (unsigned n = 0; n < 2; n += rig_frame(&c, &f)) {
		rig_settle(&r);
		rig_read(&c, 0);
	}
	assert_int_equal(f.len, 200000);
	assert_int_equal(got[1].n, 1);
	assert_int_equal(r.abandoned, 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_answer),
		cmocka_unit_test(test_nobody_answers),
		cmocka_unit_test(test_a_late_answer_is_nobody_s),
		cmocka_unit_test(test_the_forgotten),
		cmocka_unit_test(test_a_full_uplink),
		cmocka_unit_test(test_a_full_uplink_is_bounded),
		cmocka_unit_test(test_only_so_many),
		cmocka_unit_test(test_between_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
