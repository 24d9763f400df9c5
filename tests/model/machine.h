/* machine.h - an operational model of C11's relaxed, release, acquire and sequentially consistent accesses.
 *
 * A location is a history of messages in modification order (time stamps, `ts`). A thread has a view: for
 * each location the oldest message that it may still read. So a load may return anything at or after its
 * view: that covers store buffers, stale caches and reordered loads. What synchronizes is passed on by views:
 *
 *   release store   the message carries the thread's view         acquire load   takes the message's view
 * over release fence   later relaxed stores carry the view of now    acquire fence  takes over those of
 * earlier loads seq_cst fence   both, and exchanges views with all other seq_cst fences through one global
 * view
 *
 * This is the view machine of "promising semantics" without promises, i.e. all of C11 but for executions in
 * which a load reads what a later store of its own thread depends on nothing for (load buffering). What load
 * buffering could break here, a plain read of protected memory that moves behind the store of a cursor, is
 * found by the race check of model_plain(). Weaker than C11, on purpose: a later relaxed store of the same
 * thread does not continue a release sequence, and copying words (label C2) does not raise the view of the
 * words copied.
 *
 * Choices. Threads run one at a time, lowest number first, and switch only where that can make a difference:
 *
 *   load       which message; or postpone: not before somebody else has stored something newer there, which
 * it reads then. (A load that reads an old message does so equally well before or after any step of another.)
 *   store      where in the modification order, among messages that the thread does not know
 *   sc fence   now, or not before another thread's sc fence
 *   copy       the words of one copy (label C2, ascending addresses) come from one lap, but for at most one
 * word that comes from any other: the check behind a copy sees the newest lap met, and a copy is torn as soon
 * as two words differ in their lap, so more mixtures show nothing new
 */
#ifndef MODEL_MACHINE_H
#define MODEL_MACHINE_H

#include "tests/model/memory.h"

enum status { RUNS, POSTPONED, AWAITS, SLEEPS, DONE };

struct thread {
	enum status status;
	struct view cur;     /* what it knows */
	struct view acquire; /* what an acquire fence would add */
	struct view release; /* what relaxed stores carry */
	uint64_t release_hash;
	uint64_t history;   /* hash of all it has seen since its last checkpoint */
	unsigned wants;     /* POSTPONED, AWAITS, SLEEPS: a location, or SC_FENCES */
	unsigned mark;      /* messages of it that are refused: they were there when it postponed */
	struct view loaded; /* the message last loaded */
	int await;          /* location whose next load must be newer than that, or -1 */
	unsigned lap;       /* stores of head so far */
	/* the copy under way */
	const volatile void *copy_next;
	unsigned copy_laps[2], copy_n_laps, copy_words;
	/* a store held back by the mutant `move` */
	bool has_held;
	volatile void *held_p;
	unsigned held_size;
	uint64_t held_v;
	int held_order;
};

#define SC_FENCES LOCS

extern struct thread threads[MODEL_THREADS];
extern int running; /* the thread that runs; -1: setup and end */

/* ---- for the explorer */

void machine_reset(const struct model_program *p);
uint64_t machine_hash(void);
bool machine_can_run(unsigned thread);
void machine_finish_thread(unsigned thread);
bool machine_learnt(
	void); /* did this search meet a writer that was not known when it began? The next one knows it. */
void machine_forget(void); /* a new program */

/* Hold back each store of label `from` until its thread has executed a load or store of label `to`. */
void machine_move(const char *from, const char *to);

/* ---- offered by the explorer */

/* One of n ways to go on: 0 .. n-1. Does not return if the state was met before. */
unsigned explore_choose(unsigned n);
/* Let other threads run; returns when machine_can_run() this one. */
void explore_yield(void);
/* A line of the trace. */
void explore_trace(const char *what, const char *label, unsigned loc, uint64_t value, unsigned index,
		   unsigned of);

#endif
