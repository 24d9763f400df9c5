/* load_html.c - the page of a run: report.html, which is compiled in, with this run's figures at its marks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bench/hdr.h"
#include "bench/load_report.h"
#include "bench/load_units.h"

#define OPEN  "{{"
#define CLOSE "}}"

/* The page, NUL-terminated, as the assembler finds it; the Makefile knows that this file depends on it. */
extern const char load_html_page[];
__asm__(".pushsection .rodata\n"
	".global load_html_page\n"
	"load_html_page:\n"
	".incbin \"bench/report.html\"\n"
	".byte 0\n"
	".popsection\n");

static void text(FILE *f, const char *s)
{
	for (; *s; s++) {
		switch (*s) {
		case '&':
			fputs("&amp;", f);
			break;
		case '<':
			fputs("&lt;", f);
			break;
		case '>':
			fputs("&gt;", f);
			break;
		case '"':
			fputs("&quot;", f);
			break;
		default:
			fputc(*s, f);
		}
	}
}

static const char *title_of(const struct load_run *run)
{
	return run->o->title ? run->o->title : "WebSocket load test";
}

static int put_title(FILE *f, const struct load_run *run)
{
	text(f, title_of(run));
	return 0;
}

static int put_summary(FILE *f, const struct load_run *run)
{
	char clients[32];

	units_whole(clients, sizeof(clients), run->t->r.opened);
	fprintf(f, "%s connections to ", clients);
	text(f, run->o->target);
	fprintf(f, ", %s", run->env->date);
	return 0;
}

static int put_verdict(FILE *f, const struct load_run *run)
{
	const struct load_totals *t = run->t;

	if (t->ok)
		fputs("<p class=\"verdict ok\">ok</p>", f);
	else
		fputs("<p class=\"verdict failed\">FAILED</p>", f);
	if (t->why) {
		fputs("<p>First trouble: ", f);
		text(f, t->why);
		fputs("</p>", f);
	}
	if (run->m->timed_out)
		fputs("<p>Stopped: a phase did not end as it should.</p>", f);
	return 0;
}

static void card(FILE *f, const char *value, const char *unit, const char *name)
{
	fprintf(f, "<li><b>%s%s%s</b><span>%s</span></li>\n", value, *unit ? "\u00a0" : "", unit, name);
}

static int put_cards(FILE *f, const struct load_run *run)
{
	const struct load_totals *t = run->t;
	const struct hist *h = &t->r.latency;
	char value[32];

	units_whole(value, sizeof(value), t->r.opened);
	card(f, value, "", "connections");
	if (run->m->publish_s > 0) {
		units_short(value, sizeof(value), load_per((double)t->r.deliveries, run->m->publish_s));
		card(f, value, "", "deliveries a second");
		units_short(value, sizeof(value), load_per((double)run->m->published, run->m->publish_s));
		card(f, value, "", "messages a second");
	}
	if (h->count) {
		static const struct {
			double share;
			const char *name;
		} at[] = {{0.5, "median latency"}, {0.99, "99\u00a0% latency"}, {1, "largest latency"}};

		for (size_t i = 0; i < ARRAY_LEN(at); i++) {
			units_digits(value, sizeof(value), (double)hist_quantile(h, at[i].share) * 1e-6);
			card(f, value, "ms", at[i].name);
		}
	}
	if (run->m->has_server) {
		units_digits(value, sizeof(value),
			     load_per(load_us(run->m->cpu_ns), (double)t->r.deliveries));
		card(f, value, "\u00b5s", "server CPU a delivery");
	}
	units_whole(value, sizeof(value), t->r.lost);
	card(f, value, "", "messages lost");
	return 0;
}

static int put_latencies(FILE *f, const struct load_run *run)
{
	static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999};

	fputs("<table><caption>Latency, milliseconds</caption><thead><tr><th scope=\"col\">of</th>"
	      "<th scope=\"col\" class=\"n\">count</th><th scope=\"col\" class=\"n\">mean</th>"
	      "<th scope=\"col\" class=\"n\">50 %</th><th scope=\"col\" class=\"n\">90 %</th>"
	      "<th scope=\"col\" class=\"n\">99 %</th><th scope=\"col\" class=\"n\">99.9 %</th>"
	      "<th scope=\"col\" class=\"n\">99.99 %</th><th scope=\"col\" "
	      "class=\"n\">largest</th></tr></thead><tbody>\n",
	      f);
	for (int k = 0; k < LOAD_HISTS; k++) {
		const struct hist *h = &run->t->r.hists[k];
		char count[32];

		if (h->count == 0)
			continue;
		units_whole(count, sizeof(count), h->count);
		fprintf(f, "<tr><th scope=\"row\">%s</th><td class=\"n\">%s</td><td class=\"n\">%.3f</td>",
			load_hist_names[k], count, hist_mean(h) * 1e-6);
		for (size_t i = 0; i < ARRAY_LEN(shares); i++)
			fprintf(f, "<td class=\"n\">%.3f</td>", (double)hist_quantile(h, shares[i]) * 1e-6);
		fprintf(f, "<td class=\"n\">%.3f</td></tr>\n", (double)h->max * 1e-6);
	}
	fputs("</tbody></table>", f);
	return 0;
}

static int put_figures(FILE *f, const struct load_run *run)
{
	static struct load_row rows[LOAD_ROWS];
	const size_t n = load_rows(run, rows);

	fputs("<table><tbody>\n", f);
	for (size_t i = 0; i < n; i++) {
		const struct load_row *r = &rows[i];

		if (r->section)
			fprintf(f, "<tr class=\"head\"><th colspan=\"3\" scope=\"colgroup\">%s</th></tr>\n",
				r->section);
		fprintf(f, "<tr><th scope=\"row\">%s</th><td class=\"n\">%s %s</td><td class=\"note\">",
			r->name, r->value, r->unit);
		text(f, r->note);
		fputs("</td></tr>\n", f);
	}
	fputs("</tbody></table>", f);
	return 0;
}

static int put_distribution(FILE *f, const struct load_run *run)
{
	struct hdr_walk w = {.h = &run->t->r.latency};

	fputs("<table><caption>Deliveries</caption><thead><tr><th scope=\"col\" class=\"n\">percentile</th>"
	      "<th scope=\"col\" class=\"n\">ms at most</th><th scope=\"col\" "
	      "class=\"n\">deliveries</th></tr></thead>"
	      "<tbody>\n",
	      f);
	while (hdr_walk_next(&w)) {
		char count[32];

		units_whole(count, sizeof(count), w.count);
		fprintf(f,
			"<tr><td class=\"n\">%.7g</td><td class=\"n\">%.3f</td><td "
			"class=\"n\">%s</td></tr>\n",
			w.share * 100, (double)w.value * 1e-6, count);
	}
	fputs("</tbody></table>", f);
	return 0;
}

static void second(FILE *f, const struct load_second *s)
{
	const double per_s = s->length_s > 0 ? 1 / s->length_s : 0;

	fprintf(f,
		"<tr><td class=\"n\">%.2f</td><td class=\"n\">%.2f</td><td>%s</td><td class=\"n\">%u</td>"
		"<td class=\"n\">%.0f</td><td class=\"n\">%.0f</td><td class=\"n\">%.2f</td>",
		s->at_s, s->length_s, load_phase_name(s->phase), s->open, (double)s->published * per_s,
		(double)s->deliveries * per_s, (double)s->bytes * per_s * 1e-6);
	if (s->n)
		fprintf(f,
			"<td class=\"n\">%.3f</td><td class=\"n\">%.3f</td><td class=\"n\">%.3f</td>"
			"<td class=\"n\">%.3f</td>",
			(double)s->p50_ns * 1e-6, (double)s->p99_ns * 1e-6, (double)s->p999_ns * 1e-6,
			(double)s->max_ns * 1e-6);
	else
		fputs("<td></td><td></td><td></td><td></td>", f);
	fprintf(f, "<td class=\"n\">%" PRIu64 "</td></tr>\n", s->errors);
}

static int put_seconds(FILE *f, const struct load_run *run)
{
	static const char *const heads[] = {"from, s",    "length, s",    "phase",       "connections",
					    "messages/s", "deliveries/s", "MB/s",        "50 %, ms",
					    "99 %, ms",   "99.9 %, ms",   "largest, ms", "errors"};

	fputs("<table><thead><tr>", f);
	for (size_t i = 0; i < ARRAY_LEN(heads); i++)
		fprintf(f, "<th scope=\"col\"%s>%s</th>", i == 2 ? "" : " class=\"n\"", heads[i]);
	fputs("</tr></thead><tbody>\n", f);
	for (uint32_t i = 0; i < run->series->n; i++)
		second(f, &run->series->second[i]);
	fputs("</tbody></table>", f);
	return 0;
}

static int put_command(FILE *f, const struct load_run *run)
{
	text(f, run->o->command);
	return 0;
}

static void term(FILE *f, const char *name, const char *value)
{
	if (!*value)
		return;
	fprintf(f, "<dt>%s</dt><dd>", name);
	text(f, value);
	fputs("</dd>\n", f);
}

static int put_environment(FILE *f, const struct load_run *run)
{
	const struct load_env *e = run->env;
	char machine[400];

	snprintf(machine, sizeof(machine), "%s: %u CPUs, %s, %.1f GiB", e->machine, e->cpus, e->cpu,
		 (double)e->memory_bytes / (1u << 30));
	fputs("<dl>\n", f);
	term(f, "Date", e->date);
	term(f, "Host", e->host);
	term(f, "Machine", machine);
	term(f, "Kernel", e->kernel);
	term(f, "System", e->system);
	term(f, "Load client", e->build);
	fputs("</dl>", f);
	return 0;
}

/* The JSON inside a script element: no "<", so nothing in it can end that or begin a comment. */
static int put_data(FILE *f, const struct load_run *run)
{
	char *json = NULL;
	size_t size = 0;
	FILE *mem = open_memstream(&json, &size);

	if (!mem)
		return -1;
	load_json(mem, run);
	if (fclose(mem) != 0) {
		free(json);
		return -1;
	}
	for (size_t i = 0; i < size; i++) {
		if (json[i] == '<')
			fputs("\\u003c", f);
		else
			fputc(json[i], f);
	}
	free(json);
	return 0;
}

static const struct {
	const char *name;
	int (*put)(FILE *f, const struct load_run *run);
} marks[] = {
	{"title", put_title},         {"summary", put_summary},
	{"verdict", put_verdict},     {"cards", put_cards},
	{"latencies", put_latencies}, {"figures", put_figures},
	{"seconds", put_seconds},     {"distribution", put_distribution},
	{"command", put_command},     {"environment", put_environment},
	{"data", put_data},
};

static int put_mark(FILE *f, const char *name, size_t len, const struct load_run *run)
{
	for (size_t i = 0; i < ARRAY_LEN(marks); i++)
		if (strlen(marks[i].name) == len && memcmp(marks[i].name, name, len) == 0)
			return marks[i].put(f, run);
	errno = EINVAL; /* report.html names what is not here: the self-test finds it */
	return -1;
}

int load_html(FILE *f, const struct load_run *run)
{
	const char *at = load_html_page, *open, *close;

	while ((open = strstr(at, OPEN)) != NULL && (close = strstr(open, CLOSE)) != NULL) {
		const char *name = open + strlen(OPEN);

		fwrite(at, 1, (size_t)(open - at), f);
		if (put_mark(f, name, (size_t)(close - name), run) == -1)
			return -1;
		at = close + strlen(CLOSE);
	}
	fputs(at, f);
	return 0;
}
