#include "tests/model/explore.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "tests/model/machine.h"

#define DEPTH_MAX 4096
#define STACK     65536
#define TRACE_MAX 4096

struct choice {
	uint16_t n, taken;
};

enum outcome { COMPLETE, REDUNDANT, KNOWN, FAILED };

struct step {
	int thread;
	const char *what, *label;
	unsigned loc, index, of;
	uint64_t value;
};

static struct choice path[DEPTH_MAX];
static unsigned depth, replay; /* choices made in this run; those of the path to be followed */

static uint64_t *seen;
static uint64_t seen_size, seen_n;

static ucontext_t home, context[MODEL_THREADS];
static char stack[MODEL_THREADS][STACK] __attribute__((aligned(64)));
static const struct model_program *program;
static enum outcome outcome;
static struct explore_result *result;
static struct step trace[TRACE_MAX];
static unsigned n_trace;
static const char *broken;

/* ---- states met */

static void seen_grow(void)
{
	uint64_t *old = seen, n = seen_size;

	seen_size = n == 0 ? 1 << 16 : 2 * n;
	seen = calloc(seen_size, sizeof(*seen));
	if (seen == NULL)
		abort();
	for (uint64_t i = 0; i < n; i++) {
		if (old[i] == 0)
			continue;
		uint64_t at = old[i] & (seen_size - 1);

		while (seen[at] != 0)
			at = (at + 1) & (seen_size - 1);
		seen[at] = old[i];
	}
	free(old);
}

/* False: it was there already. */
static bool seen_add(uint64_t h)
{
	uint64_t at;

	if (2 * seen_n >= seen_size)
		seen_grow();
	h += h == 0;
	for (at = h & (seen_size - 1); seen[at] != 0; at = (at + 1) & (seen_size - 1)) {
		if (seen[at] == h)
			return false;
	}
	seen[at] = h;
	seen_n++;
	return true;
}

/* ---- offered to the machine */

static void leave(enum outcome o)
{
	outcome = o;
	running = -1;
	setcontext(&home);
	abort();
}

unsigned explore_choose(unsigned n)
{
	if (n == 1)
		return 0;
	if (depth == DEPTH_MAX) {
		fprintf(stderr, "model: too deep\n");
		abort();
	}
	if (depth < replay) {
		if (path[depth].n != n) {
			fprintf(stderr, "model: %s is not deterministic\n", program->name);
			abort();
		}
		return path[depth++].taken;
	}
	if (!seen_add(machine_hash()))
		leave(KNOWN);
	path[depth++] = (struct choice){.n = (uint16_t)n};
	return 0;
}

void explore_yield(void)
{
	int self = running;

	swapcontext(&context[self], &home);
}

void explore_trace(const char *what, const char *label, unsigned loc, uint64_t value, unsigned index,
		   unsigned of)
{
	if (n_trace < TRACE_MAX)
		trace[n_trace++] = (struct step){running, what, label, loc, index, of, value};
}

void model_check(bool ok, const char *format, ...)
{
	va_list ap;
	int n;

	if (ok)
		return;
	n = running < 0 ? 0 : snprintf(result->failure, sizeof(result->failure), "thread %d: ", running);
	va_start(ap, format);
	vsnprintf(result->failure + n, sizeof(result->failure) - (size_t)n, format, ap);
	va_end(ap);
	if (running >= 0)
		leave(FAILED);
	outcome = FAILED;
}

void explore_break(const char *name)
{
	broken = name;
}

bool model_is_broken(const char *name)
{
	return broken != NULL && strcmp(broken, name) == 0;
}

/* ---- one run */

static void thread_main(void)
{
	int self = running;

	program->thread[self]();
	machine_finish_thread((unsigned)self);
	swapcontext(&context[self], &home);
}

static void make_threads(void)
{
	for (unsigned i = 0; i < program->n_threads; i++) {
		if (getcontext(&context[i]) == -1)
			abort();
		context[i].uc_stack.ss_sp = stack[i];
		context[i].uc_stack.ss_size = STACK;
		context[i].uc_link = NULL;
		makecontext(&context[i], thread_main, 0);
	}
}

/* No thread can go on. */
static enum outcome judge(void)
{
	bool awaits = false;

	for (unsigned i = 0; i < program->n_threads; i++) {
		if (threads[i].status == POSTPONED)
			return REDUNDANT;
		awaits = awaits || threads[i].status == AWAITS;
	}
	outcome = COMPLETE;
	model_check(!awaits, "a thread waits for ever for what nobody stores");
	if (!awaits && program->end != NULL)
		program->end();
	return outcome;
}

static enum outcome run_once(void)
{
	machine_reset(program);
	depth = n_trace = 0;
	program->setup();
	make_threads();
	for (;;) {
		unsigned i = 0;

		while (i < program->n_threads && !machine_can_run(i))
			i++;
		if (i == program->n_threads)
			return judge();
		running = (int)i;
		outcome = COMPLETE;
		if (swapcontext(&home, &context[i]) == -1)
			abort();
		running = -1;
		if (outcome != COMPLETE)
			return outcome;
	}
}

/* ---- all runs */

static void print_trace(void)
{
	char buf[64];

	for (unsigned i = 0; i < n_trace; i++) {
		const struct step *s = &trace[i];

		buf[0] = '\0';
		printf("#   t%d  %-9s %-5s %-14s", s->thread, s->what, s->label,
		       loc_name(s->loc, buf, sizeof(buf)));
		if (s->of > 0)
			printf(" %#llx  (message %u of %u)\n", (unsigned long long)s->value, s->index, s->of);
		else
			printf(" %#llx\n", (unsigned long long)s->value);
	}
}

/* The next path in depth-first order. False: there is none. */
static bool next_path(void)
{
	while (depth > 0 && path[depth - 1].taken + 1 == path[depth - 1].n)
		depth--;
	if (depth == 0)
		return false;
	path[depth - 1].taken++;
	replay = depth;
	return true;
}

static void count(enum outcome o)
{
	result->runs++;
	result->complete += o == COMPLETE;
	result->redundant += o == REDUNDANT;
	result->known += o == KNOWN;
	if (depth > result->depth)
		result->depth = depth;
}

/* One search with what is known of who stores where. True: all was seen. */
static bool search(uint64_t max_runs)
{
	enum outcome o;

	free(seen);
	seen = NULL;
	seen_size = seen_n = 0;
	replay = 0;
	do {
		o = run_once();
		count(o);
		if (o == FAILED)
			return false;
		if (result->runs >= max_runs) {
			result->is_bounded = true;
			return false;
		}
	} while (next_path());
	return true;
}

void explore(const struct model_program *p, uint64_t max_runs, bool with_trace, struct explore_result *r)
{
	bool is_complete;

	*r = (struct explore_result){0};
	result = r;
	program = p;
	machine_forget();
	/* Until a whole search has met no thread that stores where it was not known to: a load is postponed
	 * only for known ones. */
	do {
		is_complete = search(max_runs);
	} while (is_complete && machine_learnt());
	r->is_ok = is_complete;
	r->states = seen_n;
	if (!is_complete && r->is_bounded)
		snprintf(r->failure, sizeof(r->failure), "not all seen after %llu runs",
			 (unsigned long long)r->runs);
	else if (!is_complete && with_trace)
		print_trace();
}
