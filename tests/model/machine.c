#include "tests/model/machine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "tests/model/hooks.h"

struct thread threads[MODEL_THREADS];
int running = -1;

static unsigned n_threads;
static struct view sc_view;
static unsigned sc_count;
static uint32_t sc_writers[2]; /* known, met: see struct loc */
static bool learnt;
static const char *move_from, *move_to;

static void flush_held(struct thread *t);

/* ---- small things */

static bool is_label(const char *a, const char *b)
{
	return a != NULL && strcmp(a, b) == 0;
}

static bool is_acquire(int order)
{
	return order == memory_order_acquire || order == memory_order_acq_rel ||
	       order == memory_order_seq_cst;
}

static bool is_release(int order)
{
	return order == memory_order_release || order == memory_order_acq_rel ||
	       order == memory_order_seq_cst;
}

static void memory_put(volatile void *p, unsigned size, uint64_t v)
{
	if (size == 8)
		*(volatile uint64_t *)p = v;
	else
		*(volatile uint32_t *)p = (uint32_t)v;
}

/* ---- for the explorer */

void machine_reset(const struct model_program *p)
{
	memory_reset();
	for (unsigned i = 0; i < MODEL_THREADS; i++)
		threads[i] = (struct thread){.status = i < p->n_threads ? RUNS : DONE, .await = -1};
	n_threads = p->n_threads;
	memset(&sc_view, 0, sizeof(sc_view));
	sc_count = 0;
	running = -1;
}

void machine_forget(void)
{
	memory_forget();
	memset(sc_writers, 0, sizeof(sc_writers));
	learnt = false;
}

bool machine_learnt(void)
{
	bool l = learnt;

	learnt = false;
	for (unsigned i = 0; i < n_locs; i++)
		locs[i].known = locs[i].met;
	sc_writers[0] = sc_writers[1];
	return l;
}

void machine_move(const char *from, const char *to)
{
	move_from = from;
	move_to = to;
}

uint64_t machine_hash(void)
{
	uint64_t h = hash_mix(memory_hash, (uint64_t)(running + 1));

	for (unsigned i = 0; i < n_threads; i++) {
		const struct thread *t = &threads[i];

		h = hash_mix(h, t->history);
		h = hash_mix(h, (uint64_t)t->status << 32 | t->wants << 16 | t->mark);
		h = hash_mix(h, (uint64_t)(t->await + 1) << 32 | t->lap);
		h = hash_mix(h, (uint64_t)(uintptr_t)t->copy_next);
		h = hash_mix(h, (uint64_t)t->copy_laps[0] << 48 | (uint64_t)t->copy_laps[1] << 32 |
					t->copy_n_laps << 16 | t->copy_words);
		h = hash_mix(h, t->has_held ? hash_mix((uint64_t)(uintptr_t)t->held_p, t->held_v) : 0);
		h = hash_view(h, &t->cur);
		h = hash_view(h, &t->acquire);
		h = hash_view(h, &t->release);
		for (unsigned l = 0; l < n_locs; l++) {
			if (locs[l].is_awaited)
				h = hash_mix(h, t->loaded.t[l]);
		}
	}
	return hash_mix(hash_view(h, &sc_view), sc_count);
}

static bool is_candidate(const struct thread *t, unsigned l, unsigned i)
{
	uint16_t ts = locs[l].m[i].ts, from = t->cur.t[l];

	return ts >= from && (t->await != (int)l || ts > t->loaded.t[l]);
}

bool machine_can_run(unsigned n)
{
	const struct thread *t = &threads[n];

	if (t->status == RUNS || t->status == DONE)
		return t->status == RUNS;
	if (t->wants == SC_FENCES)
		return sc_count > t->mark;
	for (unsigned i = t->mark; i < locs[t->wants].n; i++) {
		if (is_candidate(t, t->wants, i))
			return true;
	}
	return false;
}

void machine_finish_thread(unsigned n)
{
	if (threads[n].has_held)
		flush_held(&threads[n]);
	threads[n].status = DONE;
}

/* Could a thread of `mask`, if this one waited, ever store again? One that can run could; one that waits, if
 * somebody else for whom it waits could. */
static bool others_live(uint32_t mask)
{
	uint32_t live = 0, before;

	for (unsigned i = 0; i < n_threads; i++) {
		if ((int)i != running && machine_can_run(i))
			live |= 1u << i;
	}
	do {
		before = live;
		for (unsigned i = 0; i < n_threads; i++) {
			const struct thread *t = &threads[i];
			uint32_t from = t->wants == SC_FENCES ? sc_writers[0] : locs[t->wants].known;

			if ((int)i != running && t->status != DONE && (from & live & ~(1u << i)) != 0)
				live |= 1u << i;
		}
	} while (live != before);
	return (mask & live & ~(1u << running)) != 0;
}

static void learn(uint32_t *mask)
{
	if ((*mask >> running & 1) == 0) {
		*mask |= 1u << running;
		learnt = true;
	}
}

static void wait_for(struct thread *t, enum status status, unsigned wants, unsigned mark)
{
	t->status = status;
	t->wants = wants;
	t->mark = mark;
	explore_trace(status == POSTPONED ? "postpones"
		      : status == SLEEPS  ? "sleeps"
					  : "awaits",
		      "", wants, 0, 0, 0);
	explore_yield();
	t->status = RUNS;
	t->wants = 0;
	t->mark = 0;
}

/* ---- loads */

/* The message that this load returns; may_be_none: or -1 (a poll). */
static int pick(struct thread *t, unsigned l, enum status if_none, bool may_be_none)
{
	unsigned mark = 0;

	for (;;) {
		unsigned candidate[MESSAGES], n = 0, ways, way;

		for (unsigned i = locs[l].n; i-- > mark;) {
			if (is_candidate(t, l, i))
				candidate[n++] = i;
		}
		if (n == 0 && !may_be_none) {
			wait_for(t, mark > 0 ? POSTPONED : if_none, l, mark);
			continue;
		}
		/* A poll sees at least what its thread knows to have been written. */
		may_be_none = may_be_none && t->cur.t[l] <= t->loaded.t[l];
		ways = n + may_be_none + others_live(locs[l].known);
		way = explore_choose(ways);
		if (way < n + may_be_none) {
			if (t->await == (int)l)
				t->await = -1;
			return way < n ? (int)candidate[way] : -1;
		}
		mark = locs[l].n;
		wait_for(t, POSTPONED, l, mark);
	}
}

/* The newest word that was there in `lap`, of those that may be read. */
static unsigned word_of_lap(const struct thread *t, unsigned l, unsigned lap)
{
	int best = -1, oldest = -1;

	for (unsigned i = 0; i < locs[l].n; i++) {
		const struct message *m = &locs[l].m[i];

		if (!is_candidate(t, l, i))
			continue;
		if (oldest == -1 || m->ts < locs[l].m[oldest].ts)
			oldest = (int)i;
		if (m->lap <= lap && (best == -1 || m->ts > locs[l].m[best].ts))
			best = (int)i;
	}
	return (unsigned)(best != -1 ? best : oldest);
}

/* A word of a copy: see machine.h. Only the first one postpones, since the others may read old words as well
 * later. */
static unsigned pick_copy(struct thread *t, unsigned l)
{
	unsigned option[MESSAGES + 1], n = 0, base, way;

	if (t->copy_words == 0) {
		for (unsigned i = locs[l].n; i-- > 0;) {
			if (is_candidate(t, l, i))
				option[n++] = i;
		}
		way = explore_choose(n + others_live(locs[l].known));
		if (way == n) {
			wait_for(t, POSTPONED, l, locs[l].n);
			return pick_copy(t, l);
		}
		t->copy_laps[0] = locs[l].m[option[way]].lap;
		t->copy_n_laps = 1;
		return option[way];
	}
	base = word_of_lap(t, l, t->copy_laps[0]);
	option[n++] = base;
	if (t->copy_n_laps == 2 && t->copy_words == 2) {
		/* Of the first two words, which one is the odd one? */
		if (word_of_lap(t, l, t->copy_laps[1]) != base)
			option[n++] = word_of_lap(t, l, t->copy_laps[1]);
		way = explore_choose(n);
		if (way == 1)
			t->copy_laps[0] = t->copy_laps[1];
		t->copy_n_laps = 3;
		return option[way];
	}
	for (unsigned i = 0; t->copy_n_laps == 1 && i < locs[l].n; i++) {
		if (i != base && is_candidate(t, l, i))
			option[n++] = i;
	}
	way = explore_choose(n);
	if (way > 0) {
		t->copy_laps[1] = locs[l].m[option[way]].lap;
		t->copy_n_laps = t->copy_words >= 2 ? 3 : 2;
	}
	return option[way];
}

static void end_copy(struct thread *t)
{
	t->copy_next = NULL;
	t->copy_words = t->copy_n_laps = t->copy_laps[0] = t->copy_laps[1] = 0;
}

static void executed(struct thread *t, const char *label)
{
	if (t->has_held && is_label(move_to, label))
		flush_held(t);
}

static const struct message *load_copy(struct thread *t, unsigned l)
{
	if (t->copy_next != locs[l].p)
		end_copy(t);
	const struct message *m = &locs[l].m[pick_copy(t, l)];

	t->copy_next = (const volatile char *)locs[l].p + 8;
	t->copy_words++;
	return m;
}

uint64_t model_load(const volatile void *p, unsigned size, int order, const char *label)
{
	struct thread *t = &threads[running];
	const struct message *m;
	unsigned l;

	if (running < 0)
		return memory_get(p, size);
	if (t->has_held && t->held_p == p)
		flush_held(t);
	l = loc_of(p, size);
	if (is_label("C2", label)) {
		m = load_copy(t, l);
	} else {
		end_copy(t);
		m = &locs[l].m[pick(t, l, AWAITS, false)];
		if (m->ts > t->cur.t[l])
			t->cur.t[l] = m->ts;
		t->loaded.t[l] = m->ts;
	}
	view_join(is_acquire(order) ? &t->cur : &t->acquire, &m->view);
	t->history = hash_mix(hash_mix(t->history, l + 1), m->value);
	explore_trace("load", label, l, m->value, (unsigned)(m - locs[l].m), locs[l].n);
	executed(t, label);
	return m->value;
}

uint64_t model_plain(const volatile void *p)
{
	struct thread *t = &threads[running];
	unsigned l = loc_of(p, 8), newest = 0;
	struct loc *c = &locs[l];

	end_copy(t);
	for (unsigned i = 0; i < c->n; i++)
		newest = c->m[i].ts > c->m[newest].ts ? i : newest;
	explore_trace("plain", "", l, c->m[newest].value, newest, c->n);
	model_check(c->m[newest].ts <= t->cur.t[l], "a plain read races with a store that came before it");
	memory_hash -= hash_mix(hash_mix(77, l), (unsigned)running << 8 | c->plain[running]);
	c->plain[running] = ++t->cur.t[CLOCKS + running];
	memory_hash += hash_mix(hash_mix(77, l), (unsigned)running << 8 | c->plain[running]);
	t->history = hash_mix(hash_mix(t->history, l + 1000), c->m[newest].value);
	return c->m[newest].value;
}

/* ---- stores */

/* Where in the modification order? Anywhere behind what the thread knows. */
static uint16_t pick_place(const struct thread *t, unsigned l)
{
	uint16_t ts[MESSAGES + 1];
	unsigned n = 0, way;

	ts[n++] = t->cur.t[l];
	for (unsigned i = 0; i < locs[l].n; i++) {
		unsigned at = n;

		if (locs[l].m[i].ts <= t->cur.t[l])
			continue;
		for (; at > 1 && ts[at - 1] > locs[l].m[i].ts; at--)
			ts[at] = ts[at - 1];
		ts[at] = locs[l].m[i].ts;
		n++;
	}
	way = explore_choose(n);
	if (way == 0)
		return (uint16_t)(ts[n - 1] + TS_STEP);
	if (ts[way] - ts[way - 1] < 2)
		give_up("no room between two stores", l);
	return (uint16_t)((ts[way] + ts[way - 1]) / 2);
}

static void check_race(unsigned l)
{
	for (unsigned i = 0; i < n_threads; i++)
		model_check((int)i == running || locs[l].plain[i] <= threads[running].cur.t[CLOCKS + i],
			    "a store races with a plain read of it: overwritten while protected");
}

static void store(struct thread *t, unsigned l, uint64_t v, int order, const char *label)
{
	uint16_t ts;

	learn(&locs[l].met);
	ts = pick_place(t, l);
	explore_trace("store", label, l, v, 0, 0);
	check_race(l);
	t->cur.t[l] = ts;
	if (is_release(order))
		memory_add(l, v, &t->cur, hash_view(0, &t->cur), ts, t->lap + 1, running);
	else
		memory_add(l, v, &t->release, t->release_hash, ts, t->lap + 1, running);
	if (is_label("R4", label))
		t->lap++;
}

static void flush_held(struct thread *t)
{
	t->has_held = false;
	store(t, loc_of(t->held_p, t->held_size), t->held_v, t->held_order, "held");
}

void model_store(volatile void *p, unsigned size, uint64_t v, int order, const char *label)
{
	struct thread *t = &threads[running];

	if (size == 4)
		v = (uint32_t)v;
	if (running < 0) {
		memory_put(p, size, v);
		return;
	}
	end_copy(t);
	t->history = hash_mix(t->history, 3);
	if (is_label(move_from, label)) {
		if (t->has_held)
			flush_held(t);
		t->has_held = true;
		t->held_p = p;
		t->held_size = size;
		t->held_v = v;
		t->held_order = order;
		return;
	}
	store(t, loc_of(p, size), v, order, label);
	executed(t, label);
}

void model_fence(int order, const char *label)
{
	struct thread *t = &threads[running];

	if (running < 0 || order == memory_order_relaxed)
		return;
	end_copy(t);
	t->history = hash_mix(t->history, 5);
	if (is_acquire(order))
		view_join(&t->cur, &t->acquire);
	if (order == memory_order_seq_cst) {
		learn(&sc_writers[1]);
		while (explore_choose(1 + others_live(sc_writers[0])) == 1)
			wait_for(t, POSTPONED, SC_FENCES, sc_count);
		view_join(&t->cur, &sc_view);
		sc_view = t->cur;
		sc_count++;
	}
	if (is_release(order)) {
		t->release = t->cur;
		t->release_hash = hash_view(0, &t->release);
	}
	explore_trace("fence", label, LOCS, 0, 0, 0);
}

/* ---- words of the drivers */

uint64_t model_final(const volatile void *p)
{
	const struct loc *c = &locs[loc_of(p, 8)];
	unsigned newest = 0;

	for (unsigned i = 0; i < c->n; i++)
		newest = c->m[i].ts > c->m[newest].ts ? i : newest;
	return c->m[newest].value;
}

void model_await(const volatile void *p)
{
	unsigned l = loc_of(p, 0);

	threads[running].await = (int)l;
	if (!locs[l].is_awaited) {
		/* The hashes so far left out what each thread has loaded of it: the search is to be done
		 * again. */
		locs[l].is_awaited = true;
		learnt = true;
	}
}

void model_checkpoint(unsigned tag, unsigned n, const uint64_t *values)
{
	struct thread *t = &threads[running];
	uint64_t h = hash_mix(11, tag);

	end_copy(t);
	for (unsigned i = 0; i < n; i++)
		h = hash_mix(h, values[i]);
	t->history = h;
}

void model_event_write(struct model_event *e)
{
	struct thread *t = &threads[running];
	unsigned l = loc_of(&e->count, 8);
	const struct message *last = &locs[l].m[locs[l].n - 1];
	struct view v = t->cur;

	end_copy(t);
	t->history = hash_mix(t->history, 7);
	learn(&locs[l].met);
	if (locs[l].met != 1u << running)
		give_up("an event with two writers", l);
	view_join(&v, &last->view);
	t->cur.t[l] = (uint16_t)(last->ts + TS_STEP);
	memory_add(l, last->value + 1, &v, hash_view(0, &v), t->cur.t[l], t->lap, running);
	explore_trace("write", "event", l, last->value + 1, 0, 0);
}

static bool event_take(struct model_event *e, bool is_poll)
{
	struct thread *t = &threads[running];
	unsigned l = loc_of(&e->count, 8);
	int i;

	end_copy(t);
	model_await(&e->count);
	i = pick(t, l, SLEEPS, is_poll);
	t->history = hash_mix(hash_mix(t->history, 9), (uint64_t)(i + 1));
	if (i < 0)
		return false;
	view_join(&t->cur, &locs[l].m[i].view);
	t->loaded.t[l] = locs[l].m[i].ts;
	explore_trace("read", "event", l, locs[l].m[i].value, (unsigned)i, locs[l].n);
	return true;
}

void model_event_wait(struct model_event *e)
{
	(void)event_take(e, false);
}

bool model_event_poll(struct model_event *e)
{
	return event_take(e, true);
}
