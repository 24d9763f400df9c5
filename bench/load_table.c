/* load_table.c - the figures of a run as rows, and the table for people that they make. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "bench/load_report.h"
#include "bench/load_units.h"

const char *const load_hist_names[LOAD_HISTS] = {"handshake", "delivery", "to the last client"};

struct rows {
	struct load_row *row;
	size_t n;
	const char *section; /* begun, but without a row so far */
};

static struct load_row *row_add(struct rows *rs, const char *name, const char *unit)
{
	struct load_row *r = &rs->row[rs->n < LOAD_ROWS ? rs->n++ : LOAD_ROWS - 1];

	*r = (struct load_row){.section = rs->section, .name = name, .unit = unit};
	rs->section = NULL;
	return r;
}

static struct load_row *row_count(struct rows *rs, const char *name, uint64_t v)
{
	struct load_row *r = row_add(rs, name, "");

	units_whole(r->value, sizeof(r->value), v);
	return r;
}

static struct load_row *row_number(struct rows *rs, const char *name, double v, int digits, const char *unit)
{
	struct load_row *r = row_add(rs, name, unit);

	snprintf(r->value, sizeof(r->value), "%.*f", digits, v);
	return r;
}

static void PRINTF_LIKE(2, 3) note(struct load_row *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vsnprintf(r->note, sizeof(r->note), fmt, ap) < 0)
		r->note[0] = '\0';
	va_end(ap);
}

/* "1013: 5, reset: 2" */
static void note_ends(struct load_row *r, const uint64_t *ends)
{
	size_t at = 0;

	for (int i = 0; i < END_COUNT; i++) {
		int n;

		if (ends[i] == 0)
			continue;
		n = snprintf(r->note + at, sizeof(r->note) - at, "%s%s: %" PRIu64, at ? ", " : "",
			     load_end_names[i], ends[i]);
		if (n < 0 || (size_t)n >= sizeof(r->note) - at)
			return;
		at += (size_t)n;
	}
}

static void rows_connections(struct rows *rs, const struct load_run *run)
{
	const struct load_result *r = &run->t->r;
	char rate[24];

	rs->section = "Connections";
	units_whole(rate, sizeof(rate), (uint64_t)load_per(r->opened, run->m->connect_s));
	note(row_count(rs, "opened", r->opened), "in %.2f s: %s a second", run->m->connect_s, rate);
	if (r->behind.count)
		note(row_number(rs, "attempts a second", load_offered(run), 0, ""),
		     "of %u asked; behind: p50 %.3f ms, p99 %.3f ms, at most %.3f ms", run->o->conn_rate,
		     (double)hist_quantile(&r->behind, 0.5) * 1e-6,
		     (double)hist_quantile(&r->behind, 0.99) * 1e-6, (double)r->behind.max * 1e-6);
	row_count(rs, "failed", r->failed);
	note_ends(row_count(rs, "closed by the server", run->t->closed), r->ends);
	if (run->o->churn || run->o->reconnect || run->o->storm)
		note(row_count(rs, "joined again", r->joins), "%" PRIu64 " left", r->leaves);
	if (run->o->storm)
		note(row_count(rs, "storms", r->storm.count),
		     "%u cut at once; all back: p50 %.3f ms, at most %.3f ms; %" PRIu64 " refused",
		     run->o->storm, (double)hist_quantile(&r->storm, 0.5) * 1e-6, (double)r->storm.max * 1e-6,
		     r->storm_refused);
	if (run->o->slow)
		note_ends(row_count(rs, "slow, messages read", r->slow_got), r->slow_ends);
	if (run->o->stall == 0)
		return;
	row_count(rs, "stalled, open at the end", r->stalled_open);
	note_ends(row_count(rs, "stalled, messages read", r->stalled_got), r->stalled_ends);
	row_count(rs, "stalled, messages not had", r->skipped);
}

static void rows_messages(struct rows *rs, const struct load_run *run)
{
	const struct load_totals *t = run->t;
	const double s = run->m->publish_s;
	char rate[24];

	rs->section = "Messages";
	note(row_count(rs, "published", run->m->published), "in %.2f s: %.1f a second", s,
	     load_per((double)run->m->published, s));
	units_whole(rate, sizeof(rate), (uint64_t)load_per((double)t->r.deliveries, s));
	note(row_count(rs, "delivered", t->r.deliveries), "%s a second, %.2f MB/s", rate,
	     load_per((double)t->r.bytes, s) * 1e-6);
	row_number(rs, "messages in a read", load_per((double)t->r.deliveries, (double)t->r.recvs), 2, "");
	if (t->pub_errors)
		row_count(rs, "publish errors", t->pub_errors);
	if (t->late_max_ns)
		row_number(rs, "behind the schedule", (double)t->late_max_ns * 1e-6, 3, "ms at most");
	if (t->nobody)
		row_count(rs, "reached nobody", t->nobody);
	if (t->retries)
		row_count(rs, "tried again", t->retries);
	if (t->throttled)
		row_count(rs, "waits for the window", t->throttled);
}

static void rows_server(struct rows *rs, const struct load_run *run)
{
	const struct load_measured *m = run->m;
	const double n = (double)run->t->r.deliveries, conns = load_lasting(run->o);

	rs->section = "Server";
	if (m->has_server) {
		row_count(rs, "processes", m->server_processes);
		note(row_number(rs, "CPU a delivery", load_per(load_us(m->cpu_ns), n), 3, "us"),
		     "user %.2f, system %.2f; ksoftirqd %.3f besides", load_per(load_us(m->user_ns), n),
		     load_per(load_us(m->sys_ns), n), load_per(load_us(m->softirq_ns), n));
		note(row_number(rs, "CPU while publishing", (double)m->cpu_ns * 1e-9, 3, "s"), "%.2f cores",
		     load_per((double)m->cpu_ns * 1e-9, m->publish_s));
		row_number(rs, "CPU a handshake", load_per(load_us(m->connect_cpu_ns), conns), 1, "us");
		note(row_number(rs, "memory a connection",
				load_per((double)m->pss_after - (double)m->pss_before, conns), 0, "bytes"),
		     "PSS %.2f MB before, %.2f MB after", (double)m->pss_before / 1e6,
		     (double)m->pss_after / 1e6);
	}
	if (run->o->redis_pid)
		row_number(rs, "Redis CPU a message",
			   load_per(load_us(m->redis_cpu_ns), (double)m->published), 3, "us");
	rs->section = "Load client";
	note(row_number(rs, "CPU a delivery", load_per(load_us(run->t->r.cpu_ns), n), 3, "us"), "user %.3f",
	     load_per(load_us(run->t->r.user_ns), n));
}

static void rows_checks(struct rows *rs, const struct load_run *run)
{
	const struct load_result *r = &run->t->r;
	struct load_row *lost;

	rs->section = "Checks";
	if (run->o->no_check) {
		note(row_count(rs, "not made", 0), "--no-check: messages were counted only");
		return;
	}
	lost = row_count(rs, "lost", r->lost);
	if (r->never_came)
		note(lost, "%" PRIu64 " at the end", r->never_came);
	row_count(rs, "repeated", r->repeated);
	row_count(rs, "late", r->late);
	row_count(rs, "corrupt", r->corrupt);
	row_count(rs, "misrouted", r->misrouted);
	if (r->foreign)
		row_count(rs, "of other runs", r->foreign);
	if (r->ignored)
		row_count(rs, "ignored", r->ignored);
}

size_t load_rows(const struct load_run *run, struct load_row rows[LOAD_ROWS])
{
	struct rows rs = {.row = rows};

	rows_connections(&rs, run);
	rows_messages(&rs, run);
	rows_server(&rs, run);
	rows_checks(&rs, run);
	return rs.n;
}

static void table_latency(FILE *f, const struct load_result *r)
{
	static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999};

	fprintf(f, "\n%-26s %12s %9s %9s %9s %9s %9s %9s %9s\n", "Latency, ms", "count", "mean", "p50", "p90",
		"p99", "p99.9", "p99.99", "max");
	for (int k = 0; k < LOAD_HISTS; k++) {
		const struct hist *h = &r->hists[k];
		char count[32];

		if (h->count == 0)
			continue;
		units_whole(count, sizeof(count), h->count);
		fprintf(f, "  %-24s %12s %9.3f", load_hist_names[k], count, hist_mean(h) * 1e-6);
		for (size_t i = 0; i < ARRAY_LEN(shares); i++)
			fprintf(f, " %9.3f", (double)hist_quantile(h, shares[i]) * 1e-6);
		fprintf(f, " %9.3f\n", (double)h->max * 1e-6);
	}
}

void load_table(FILE *f, const struct load_run *run)
{
	static struct load_row rows[LOAD_ROWS];
	const size_t n = load_rows(run, rows);

	if (run->o->title)
		fprintf(f, "%s\n\n", run->o->title);
	for (size_t i = 0; i < n; i++) {
		const struct load_row *r = &rows[i];
		if (r->section)
			fprintf(f, "%s%s\n", i ? "\n" : "", r->section);
		fprintf(f, "  %-24s %12s", r->name, r->value);
		if (r->note[0])
			fprintf(f, " %-9s  %s\n", r->unit, r->note);
		else
			fprintf(f, "%s%s\n", r->unit[0] ? " " : "", r->unit);
	}
	table_latency(f, &run->t->r);
	fputc('\n', f);
	if (run->t->why)
		fprintf(f, "first trouble: %s\n", run->t->why);
	if (run->m->timed_out)
		fprintf(f, "stopped: a phase did not end as it should\n");
	fprintf(f, "%s\n", run->t->ok ? "ok" : "FAILED");
}
