/* explore.h - depth-first search over all choices of a program (machine.h), by running it again for each.
 *
 * A run follows the choices of the one before up to the deepest that has a way left, takes that, and goes on
 * with the first way everywhere. States met before (by a 64-bit hash of all that decides the future) are not
 * gone into again. What a run ends in:
 *
 *   complete      all threads have ended, or sleep: the program's end() judges
 *   redundant     a thread waits for a store that it only insisted on (postponed): another run covers it
 *   known         the state was met before
 *   failed        a check, or a thread that spins for something that nobody will store
 */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include "tests/model/model.h"

struct explore_result {
	bool is_ok, is_bounded; /* bounded: max_runs passed, so nothing is proved */
	char failure[256];
	uint64_t runs, complete, redundant, known, states, depth;
};

/* Explore `p`. Stops at the first failure; trace: prints the failing run. */
void explore(const struct model_program *p, uint64_t max_runs, bool trace, struct explore_result *result);

/* For model_is_broken(). */
void explore_break(const char *name);

#endif
