/* prog_ring.c - the master and two workers on a ring of two records.
 *
 * The master's driver is the rule of slot.h: per worker concern_end and `first`, skip_to = first, or head
 * once the cursor has come to concern_end. The workers' driver is their walk: max(cursor, skip_to), rec_peek,
 * on failure jump to skip_to. Checked: each worker gets every message that concerns it, whole, exact, once
 * and in order; protected memory is never overwritten under a plain read; a lost header has a skip_to beyond
 * it; head >= skip_to; the master is never held for ever; with sleeping workers: at the end nobody sleeps
 * over a message.
 */
#include <string.h>

#include "shm/record.h"
#include "shm/slot.h"
#include "tests/model/message.h"
#include "tests/model/programs.h"

#define WORKERS 2

struct plan {
	unsigned n_messages, n_workers;
	uint8_t concerns[6]; /* of each message: bit w for worker w */
	bool sleeps;         /* workers sleep with an eventfd, else they spin */
	bool cursor_each;    /* cursor after each record, else after each batch */
	bool flush_late; /* the master flushes when the ring is full and at the end, else after each record */
};

static struct plan plan;

/* what the processes share */
static struct slot_shared shared[WORKERS];
static struct model_event wake[WORKERS];

/* one process' own */
static struct ring master_ring, worker_ring[WORKERS];
static struct slot slot[WORKERS];
static unsigned got[WORKERS]; /* messages that concerned it and were delivered */

static struct reader {
	uint64_t cursor, skip_to, concern_end, first;
	bool is_marked; /* since the last flush */
} reader[WORKERS];

static unsigned count_concerning(unsigned w, unsigned n)
{
	unsigned c = 0;

	for (unsigned i = 0; i < n; i++)
		c += plan.concerns[i] >> w & 1;
	return c;
}

static void setup(void)
{
	static const char *const names[WORKERS][4] = {{"cursor0", "sleeping0", "skip_to0", "eventfd0"},
						      {"cursor1", "sleeping1", "skip_to1", "eventfd1"}};

	message_ring_init(&master_ring);
	memset(shared, 0, sizeof(shared));
	memset(wake, 0, sizeof(wake));
	for (unsigned w = 0; w < plan.n_workers; w++) {
		worker_ring[w] = message_ring_view();
		slot[w] = (struct slot){.sh = &shared[w], .fd = -1};
		slot_set_cursor(&slot[w], RING_START);
		slot_set_skip_to(&slot[w], RING_START);
		reader[w] = (struct reader){RING_START, RING_START, RING_START, 0, false};
		got[w] = 0;
		model_name(&shared[w].cursor, names[w][0]);
		model_name(&shared[w].sleeping, names[w][1]);
		model_name(&shared[w].skip_to, names[w][2]);
		model_name(&wake[w].count, names[w][3]);
	}
}

/* ---- the master */

static bool is_caught_up(unsigned w)
{
	uint64_t cursor = slot_cursor(&slot[w]); /* G2 */

	model_check(cursor >= reader[w].cursor && cursor <= master_ring.head, "a cursor out of [old, head]");
	reader[w].cursor = cursor;
	return cursor >= reader[w].concern_end || model_is_broken("skip_early");
}

static void store_skip(unsigned w, uint64_t to)
{
	if (to > reader[w].skip_to) {
		reader[w].skip_to = to;
		slot_set_skip_to(&slot[w], to); /* K1 */
	}
}

static void move_skip(unsigned w)
{
	if (reader[w].first != 0 && is_caught_up(w))
		reader[w].first = 0;
	store_skip(w, reader[w].first == 0 ? master_ring.head : reader[w].first);
}

/* The smallest gate; *slowest: whose. */
static uint64_t gates(unsigned *slowest)
{
	uint64_t gate = master_ring.head;

	*slowest = 0;
	for (unsigned w = 0; w < plan.n_workers; w++) {
		uint64_t g;

		move_skip(w);
		g = u64_max(reader[w].cursor, reader[w].skip_to);
		if (g < gate) {
			gate = g;
			*slowest = w;
		}
	}
	return gate;
}

static void wake_sleeper(unsigned w)
{
	if (plan.sleeps && slot_take_sleeping(&slot[w])) /* S2 */
		model_event_write(&wake[w]);
}

static void flush(void)
{
	slot_fence(); /* S2 */
	for (unsigned w = 0; w < plan.n_workers; w++) {
		if (reader[w].is_marked) {
			store_skip(w, reader[w].first);
			wake_sleeper(w);
		} else {
			move_skip(w);
		}
		reader[w].is_marked = false;
	}
}

static uint64_t wait_for_space(uint64_t gate)
{
	unsigned slowest;

	while (ring_space(&master_ring, gate) < MESSAGE_BYTES) {
		gate = gates(&slowest);
		if (ring_space(&master_ring, gate) >= MESSAGE_BYTES)
			break;
		flush();
		model_await(&shared[slowest].cursor);
	}
	return gate;
}

static void mark(unsigned w, uint64_t pos)
{
	if (reader[w].first == 0 || (!reader[w].is_marked && is_caught_up(w)))
		reader[w].first = pos;
	reader[w].is_marked = true;
	reader[w].concern_end = pos + MESSAGE_BYTES;
}

static void master(void)
{
	uint64_t gate = RING_START, last = 0;

	for (unsigned i = 0; i < plan.n_messages; i++) {
		gate = wait_for_space(gate);
		last = message_commit(&master_ring, model_is_broken("no_gate") ? master_ring.head : gate, i,
				      last);
		for (unsigned w = 0; w < plan.n_workers; w++) {
			if (plan.concerns[i] >> w & 1)
				mark(w, last);
		}
		if (!plan.flush_late)
			flush();
	}
	if (plan.flush_late)
		flush();
}

/* ---- a worker */

static void take(unsigned w, uint64_t pos, const struct rec *h)
{
	unsigned i = (unsigned)((pos - RING_START) / MESSAGE_BYTES), before;

	message_check_header(pos, h);
	if ((plan.concerns[i] >> w & 1) == 0)
		return;
	before = count_concerning(w, i);
	model_check(got[w] <= before, "message %u came twice, or out of order", i);
	model_check(got[w] >= before, "a message before %u that concerned the worker was skipped", i);
	message_check_protected(&worker_ring[w], pos);
	got[w]++;
}

/* Walk from done to head. Returns the new `done`. */
static uint64_t walk(unsigned w, uint64_t done)
{
	struct ring *r = &worker_ring[w];
	uint64_t head, skip;

	if (model_is_broken("head_first")) {
		head = ring_head(r);
		skip = slot_skip_to(&slot[w]);
	} else {
		skip = slot_skip_to(&slot[w]); /* K2 */
		head = ring_head(r);           /* C1 */
	}
	done = u64_max(done, skip);
	model_check(done <= head, "skip_to beyond head");
	if (model_is_broken("cursor_first"))
		slot_set_cursor(&slot[w], head);
	while (done < head) {
		struct rec h;

		if (!rec_peek(r, done, &h)) {
			skip = slot_skip_to(&slot[w]);
			model_check(skip > done, "a header was lost and skip_to is not beyond it");
			done = skip;
			head = ring_head(r);
			model_check(done <= head, "skip_to beyond head");
			continue;
		}
		take(w, done, &h);
		done += h.len;
		if (plan.cursor_each)
			slot_set_cursor(&slot[w], done); /* G1 */
	}
	if (!plan.cursor_each)
		slot_set_cursor(&slot[w], done); /* G1 */
	return done;
}

static bool is_idle(unsigned w, uint64_t done)
{
	uint64_t skip = slot_skip_to(&slot[w]);

	return u64_max(done, skip) == ring_head(&worker_ring[w]);
}

static void checkpoint(unsigned w, unsigned tag, uint64_t done, uint64_t more)
{
	uint64_t values[] = {done, more, got[w]};

	model_checkpoint(tag, 3, values);
}

static void spinning_worker(unsigned w)
{
	uint64_t done = RING_START;

	for (;;) {
		checkpoint(w, 1, done, 0);
		done = walk(w, done);
		if (got[w] == count_concerning(w, plan.n_messages))
			return;
		model_await(&message_ring_hdr.head);
	}
}

/* The worker's on_prepare and on_wake (worker/worker.c). */
static void sleeping_worker(unsigned w)
{
	uint64_t done = RING_START;

	for (;;) {
		checkpoint(w, 2, done, 0);
		slot_awake(&slot[w]);
		done = walk(w, done);
		checkpoint(w, 3, done, 0);
		slot_sleep(&slot[w]); /* S1 */
		if (!is_idle(w, done)) {
			/* The loop goes round without blocking, and may meet a wake-up meanwhile. */
			slot_awake(&slot[w]);
			checkpoint(w, 4, done, 0);
			(void)model_event_poll(&wake[w]);
			continue;
		}
		done = u64_max(done, slot_skip_to(&slot[w]));
		if (got[w] == count_concerning(w, plan.n_messages))
			return;
		checkpoint(w, 5, done, 0);
		model_event_wait(&wake[w]);
	}
}

static void worker(unsigned w)
{
	if (plan.sleeps)
		sleeping_worker(w);
	else
		spinning_worker(w);
}

static void worker0(void)
{
	worker(0);
}

static void worker1(void)
{
	worker(1);
}

static void end(void)
{
	for (unsigned w = 0; w < plan.n_workers; w++)
		model_check(got[w] == count_concerning(w, plan.n_messages), "worker %u sleeps over a message",
			    w);
}

#define PLAN(name, ...)                                                                                      \
	static void setup_##name(void)                                                                       \
	{                                                                                                    \
		plan = (struct plan){__VA_ARGS__};                                                           \
		setup();                                                                                     \
	}

PLAN(protected, .n_messages = 3, .n_workers = 2, .concerns = {3, 3, 3}, .cursor_each = true)
PLAN(batch, .n_messages = 5, .n_workers = 1, .concerns = {1, 1, 1, 1, 1})
PLAN(skip, .n_messages = 5, .n_workers = 1, .concerns = {1, 0, 0, 0, 1}, .cursor_each = true,
     .flush_late = true)
PLAN(mixed, .n_messages = 3, .n_workers = 2, .concerns = {1, 2, 1}, .cursor_each = true)
PLAN(sleep, .n_messages = 2, .n_workers = 1, .concerns = {1, 1}, .sleeps = true)
PLAN(sleep_skip, .n_messages = 3, .n_workers = 1, .concerns = {1, 0, 1}, .sleeps = true)
PLAN(sleep_two, .n_messages = 1, .n_workers = 2, .concerns = {3}, .sleeps = true)
PLAN(protected_large, .n_messages = 4, .n_workers = 2, .concerns = {3, 3, 3, 3}, .cursor_each = true)
PLAN(sleep_large, .n_messages = 3, .n_workers = 1, .concerns = {1, 1, 1}, .sleeps = true)
PLAN(sleep_two_large, .n_messages = 2, .n_workers = 2, .concerns = {1, 2}, .sleeps = true)

const struct model_program programs_ring[] = {
	{"ring/protected",
	 "two workers, three messages for both",
	 3,
	 setup_protected,
	 {master, worker0, worker1},
	 end},
	{"ring/batch",
	 "one worker, five messages, a cursor per batch",
	 2,
	 setup_batch,
	 {master, worker0},
	 end},
	{"ring/skip",
	 "the same, three of five do not concern it, flushed late",
	 2,
	 setup_skip,
	 {master, worker0},
	 end},
	{"ring/mixed",
	 "two workers, three messages, each for one of them",
	 3,
	 setup_mixed,
	 {master, worker0, worker1},
	 end},
	{"ring/sleep", "a sleeping worker, two messages", 2, setup_sleep, {master, worker0}, end},
	{"ring/sleep-skip",
	 "a sleeping worker, one of three does not concern it",
	 2,
	 setup_sleep_skip,
	 {master, worker0},
	 end},
	{"ring/sleep-two",
	 "two sleeping workers, a message for both",
	 3,
	 setup_sleep_two,
	 {master, worker0, worker1},
	 end},
	{"large/protected",
	 "two workers, four messages for both",
	 3,
	 setup_protected_large,
	 {master, worker0, worker1},
	 end},
	{"large/sleep", "a sleeping worker, three messages", 2, setup_sleep_large, {master, worker0}, end},
	{"large/sleep-two",
	 "two sleeping workers, a message for each",
	 3,
	 setup_sleep_two_large,
	 {master, worker0, worker1},
	 end},
};
const unsigned n_programs_ring = ARRAY_LEN(programs_ring);
