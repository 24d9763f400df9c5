/* model.h - what a model program may use: threads that run shipped code, and a few words to the explorer.
 *
 * A program is a handful of threads. The explorer runs it again and again until every behaviour that C11
 * allows its accesses (see machine.h) has been seen, or a check fails. A program must be deterministic but
 * for what it loads: no clock, no random number, no address in a decision.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_THREADS 3 /* at most */

struct model_program {
	const char *name, *what; /* "large/...": takes minutes, run with --all or by name */
	unsigned n_threads;
	void (*setup)(void);                 /* before each execution, alone; hooks act on plain memory */
	void (*thread[MODEL_THREADS])(void); /* the lower its number the earlier it runs: producers first */
	void (*end)(void);                   /* after each complete execution; may check */
};

/* A property. False: the execution is a counterexample; does not return then. */
void model_check(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Name a location in the traces. In setup. */
void model_name(const volatile void *p, const char *name);

/* In a loop that spins: the next load of *p by this thread returns something newer than what it knows,
 * however long that takes (in C: a finite number of loads see the old value; they change nothing). */
void model_await(const volatile void *p);

/* Read protected memory plainly: like *p, and a check that no other thread's store races with it, neither
 * before nor after. */
uint64_t model_plain(const volatile void *p);

/* In end(): the last store to *p in its modification order. */
uint64_t model_final(const volatile void *p);

/* All that decides how this thread goes on is the place named by `tag` and the n values (its locals and its
 * part of the globals). States that agree in that, for all threads, are explored once. */
void model_checkpoint(unsigned tag, unsigned n, const uint64_t *values);

/* An eventfd: write adds, wait blocks until something was added since the last wait or poll. The kernel's
 * lock orders them: a reader knows what the writers knew. One process writes it. */
struct model_event {
	uint64_t count;
};
void model_event_write(struct model_event *e);
void model_event_wait(struct model_event *e); /* for good, if nothing comes: then end() is to judge */
bool model_event_poll(struct model_event *e);

/* Is this driver told to break the rule `name`? (Mutants of the drivers: is a rule of the tables needed?) */
bool model_is_broken(const char *name);

#endif
