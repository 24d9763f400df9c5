/* load_report.c - what a run of the load client came to, and where that is written. */
#include "bench/load_report.h"

#include <errno.h>
#include <string.h>

#include "bench/hdr.h"

const char *const load_end_names[END_COUNT] = {"1000", "1001", "1002",  "1007", "1008",  "1009",    "1011",
					       "1012", "1013", "other", "eof",  "reset", "protocol"};

static void add_receiver(struct load_totals *t, struct load_result *from)
{
	struct load_result *to = &t->r;

	to->opened += from->opened;
	to->failed += from->failed;
	to->deliveries += from->deliveries;
	to->bytes += from->bytes;
	to->lost += from->lost;
	to->repeated += from->repeated;
	to->late += from->late;
	to->corrupt += from->corrupt;
	to->misrouted += from->misrouted;
	to->foreign += from->foreign;
	to->never_came += from->never_came;
	to->skipped += from->skipped;
	to->stalled_got += from->stalled_got;
	to->slow_got += from->slow_got;
	to->ignored += from->ignored;
	to->storm_refused += from->storm_refused;
	to->joins += from->joins;
	to->leaves += from->leaves;
	to->recvs += from->recvs;
	to->stalled_open += from->stalled_open;
	to->cpu_ns += from->cpu_ns;
	to->user_ns += from->user_ns;
	to->last_start_ns = u64_max(to->last_start_ns, from->last_start_ns);
	if (to->first_start_ns == 0 || (from->first_start_ns && from->first_start_ns < to->first_start_ns))
		to->first_start_ns = from->first_start_ns;
	for (int i = 0; i < END_COUNT; i++) {
		to->ends[i] += from->ends[i];
		to->stalled_ends[i] += from->stalled_ends[i];
		to->slow_ends[i] += from->slow_ends[i];
		t->closed += from->ends[i];
	}
	for (int i = 0; i < LOAD_HISTS; i++)
		hist_merge(&to->hists[i], &from->hists[i]);
	hist_merge(&to->behind, &from->behind);
	hist_merge(&to->storm, &from->storm);
	if (!t->why && from->why[0])
		t->why = from->why;
}

static void add_up(struct load_totals *t, const struct load_opts *o, struct load_shared *sh,
		   const struct load_measured *m)
{
	for (uint32_t i = 0; i < o->procs; i++)
		add_receiver(t, &sh->res[i]);
	for (uint32_t i = 0; i < o->publishers; i++) {
		t->pub_errors += sh->pub[i].errors;
		t->retries += sh->pub[i].retries;
		t->nobody += sh->pub[i].nobody;
		t->throttled += sh->pub[i].throttled;
		t->late_max_ns = u64_max(t->late_max_ns, sh->pub[i].late_max_ns);
		if (!t->why && sh->pub[i].why[0])
			t->why = sh->pub[i].why;
	}
	t->ok = !m->timed_out && t->r.failed == 0 && t->r.lost == 0 && t->r.repeated == 0 && t->r.late == 0 &&
		t->r.corrupt == 0 && t->r.misrouted == 0 && t->pub_errors == 0 &&
		(o->may_close || t->closed == 0);
}

/* Write one file. Returns whether it is there, and whole. */
static bool save(const char *path, int (*write)(FILE *, const struct load_run *), const struct load_run *run)
{
	FILE *f = fopen(path, "we");
	bool good = f && write(f, run) == 0 && !ferror(f);

	if (f && fclose(f) != 0)
		good = false;
	if (!good)
		fprintf(stderr, "ringcast-bench: %s: %s\n", path, strerror(errno));
	return good;
}

/* Before the run: it would be a pity to find out afterwards. */
bool load_report_ready(const struct load_opts *o)
{
	const char *const paths[] = {o->hdr, o->hgrm, o->report};
	bool ready = true;

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		FILE *f = paths[i] ? fopen(paths[i], "ae") : NULL;

		if (paths[i] && (!f || fclose(f) != 0)) {
			fprintf(stderr, "ringcast-bench: %s: %s\n", paths[i], strerror(errno));
			ready = false;
		}
	}
	return ready;
}

static int save_distribution(FILE *f, const struct load_run *run)
{
	hdr_distribution(f, &run->t->r.latency);
	return 0;
}

bool load_report(const struct load_opts *o, struct load_shared *sh, const struct load_measured *m,
		 const struct load_series *series)
{
	static struct load_totals t;
	static struct load_env env;
	const struct load_run run = {o, m, series, &env, &t};
	bool saved = true;

	add_up(&t, o, sh, m);
	load_env_read(&env);
	if (o->json)
		load_json(stdout, &run);
	else
		load_table(stdout, &run);
	if (o->hgrm)
		saved &= save(o->hgrm, save_distribution, &run);
	if (o->report)
		saved &= save(o->report, load_html, &run);
	if (fflush(stdout) != 0) {
		fprintf(stderr, "ringcast-bench: stdout: %s\n", strerror(errno));
		saved = false;
	}
	return t.ok && saved;
}
