/* load_report.h - what a run came to, and who writes it down. Private to the load client's parent.
 *
 *     load_report.c   adds the receivers up, judges, opens the files
 *     load_table.c    the table on stdout, whose rows the page shows as well
 *     load_json.c     everything, for programs
 *     load_html.c     the page: report.html around that JSON
 *     load_env.c      on what machine it was measured
 *
 * The writers write to a FILE and leave its errors to whoever closes it.
 */
#ifndef BENCH_LOAD_REPORT_H
#define BENCH_LOAD_REPORT_H

#include <stdio.h>

#include "bench/load_env.h"
#include "bench/load_series.h"

struct load_totals {
	struct load_result r; /* all receivers added up */
	uint64_t closed;
	uint64_t pub_errors, retries, nobody, throttled, late_max_ns;
	const char *why;
	bool ok;
};

struct load_run {
	const struct load_opts *o;
	const struct load_measured *m;
	const struct load_series *series;
	const struct load_env *env;
	const struct load_totals *t;
};

/* One figure of the table. A section's name is given with its first row only. */
struct load_row {
	const char *section, *name, *unit;
	char value[32], note[128];
};
#define LOAD_ROWS 48

/* All figures that this run has, in the order of the table. Returns how many. */
size_t load_rows(const struct load_run *run, struct load_row rows[LOAD_ROWS]);

/* The names of the ways a connection can end, as in the table and in the JSON. */
extern const char *const load_end_names[END_COUNT];

/* What each of the histograms holds, for people. */
extern const char *const load_hist_names[LOAD_HISTS];

void load_table(FILE *f, const struct load_run *run);
void load_json(FILE *f, const struct load_run *run);
/* Returns 0, or -1 (ENOMEM). */
int load_html(FILE *f, const struct load_run *run) MUST_CHECK;

/* A ratio that is 0 where there is nothing to divide by. */
static inline double load_per(double sum, double n)
{
	return n > 0 ? sum / n : 0;
}

static inline double load_us(uint64_t ns)
{
	return (double)ns * 1e-3;
}

/* First handshakes begun a second, from the first to the last. */
static inline double load_offered(const struct load_run *run)
{
	const struct load_result *r = &run->t->r;
	const double n = (double)r->opened + r->failed;

	return load_per(n - 1, (double)(r->last_start_ns - r->first_start_ns) * 1e-9);
}

#endif
