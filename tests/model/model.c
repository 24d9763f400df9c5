/* model.c - explores all model programs, or some.
 *
 *     model [--all] [--trace] [--break RULE] [--move FROM:TO] [--max RUNS] [--first] [PROGRAM...]
 *
 * Prints one TAP line a program. --all runs those that take minutes, too. --trace shows the run that failed.
 * --break makes the drivers break a rule, --first stops at the first program that fails. --move holds each
 * store labelled FROM back until behind the next access labelled TO: mutants (tests/model/mutants). Exit
 * status 1 if anything failed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/clock.h"
#include "tests/model/explore.h"
#include "tests/model/machine.h"
#include "tests/model/programs.h"

#define RUNS_MAX 50000000u

static struct options {
	bool all, trace, first;
	uint64_t max_runs;
	char **names;
	int n_names;
} options = {.max_runs = RUNS_MAX};

static unsigned n_run, n_failed;

static bool is_wanted(const char *name)
{
	for (int i = 0; i < options.n_names; i++) {
		if (strncmp(name, options.names[i], strlen(options.names[i])) == 0)
			return true;
	}
	return options.n_names == 0 && (strncmp(name, "large/", 6) != 0 || options.all);
}

/* outcomes: of a litmus test, else 0. */
static void run(const struct model_program *p, uint64_t outcomes)
{
	struct explore_result r;
	uint64_t began = clock_mono_ms();

	if (!is_wanted(p->name) || (options.first && n_failed > 0))
		return;
	litmus_seen = 0;
	explore(p, options.max_runs, options.trace, &r);
	if (r.is_ok && litmus_seen != outcomes) {
		r.is_ok = false;
		snprintf(r.failure, sizeof(r.failure), "outcomes %#llx seen, %#llx expected",
			 (unsigned long long)litmus_seen, (unsigned long long)outcomes);
	}
	n_run++;
	n_failed += !r.is_ok;
	printf("%sok %u - %s: %s\n", r.is_ok ? "" : "not ", n_run, p->name, r.is_ok ? p->what : r.failure);
	printf("#   %llu runs, %llu complete, %llu redundant, %llu known, %llu states, depth %llu, %llu ms\n",
	       (unsigned long long)r.runs, (unsigned long long)r.complete, (unsigned long long)r.redundant,
	       (unsigned long long)r.known, (unsigned long long)r.states, (unsigned long long)r.depth,
	       (unsigned long long)(clock_mono_ms() - began));
	fflush(stdout);
}

static void run_all(const struct model_program *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		run(&p[i], 0);
}

static int usage(void)
{
	fprintf(stderr, "usage: model [--all] [--trace] [--break RULE] [--move FROM:TO] [--max RUNS] "
			"[--first] [PROGRAM...]\n");
	return 2;
}

static bool parse(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
		char *colon;

		if (strcmp(argv[i], "--trace") == 0) {
			options.trace = true;
			continue;
		}
		if (strcmp(argv[i], "--all") == 0) {
			options.all = true;
			continue;
		}
		if (strcmp(argv[i], "--first") == 0) {
			options.first = true;
			continue;
		}
		if (i + 1 == argc)
			return false;
		if (strcmp(argv[i], "--break") == 0) {
			explore_break(argv[++i]);
		} else if (strcmp(argv[i], "--max") == 0) {
			options.max_runs = strtoull(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--move") == 0 && (colon = strchr(argv[i + 1], ':')) != NULL) {
			*colon = '\0';
			machine_move(argv[++i], colon + 1);
		} else {
			return false;
		}
	}
	options.names = argv + i;
	options.n_names = argc - i;
	return true;
}

int main(int argc, char **argv)
{
	if (!parse(argc, argv))
		return usage();
	for (unsigned i = 0; i < n_litmus; i++)
		run(&litmus[i].program, litmus[i].outcomes);
	run_all(programs_ring, n_programs_ring);
	run_all(programs_history, n_programs_history);
	run_all(programs_uplink, n_programs_uplink);
	printf("1..%u\n", n_run);
	return n_failed > 0 || n_run == 0;
}
