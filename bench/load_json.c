/* load_json.c - a run as one line of JSON. Keys are never renamed: programs read them. */
#include <inttypes.h>
#include <string.h>

#include "bench/hdr.h"
#include "bench/load_report.h"
#include "common/utf8.h"

/* The keys of the histograms; `_us` is added. */
static const char *const hist_keys[LOAD_HISTS] = {"handshake", "latency", "last"};

static const char *json_bool(bool b)
{
	return b ? "true" : "false";
}

/* A string as JSON: some hold bytes from the server, which may be anything. */
static void json_string(FILE *f, const char *s)
{
	const bool is_text = utf8_is_valid(s, strlen(s));

	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < 0x20 || (!is_text && (unsigned char)*s >= 0x7f))
			fprintf(f, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static void json_text(FILE *f, const char *key, const char *s)
{
	fprintf(f, "\"%s\":", key);
	json_string(f, s ? s : "");
	fputc(',', f);
}

static void json_ends(FILE *f, const char *key, const uint64_t *ends)
{
	const char *comma = "";

	fprintf(f, "\"%s\":{", key);
	for (int i = 0; i < END_COUNT; i++) {
		if (ends[i] == 0)
			continue;
		fprintf(f, "%s\"%s\":%" PRIu64, comma, load_end_names[i], ends[i]);
		comma = ",";
	}
	fprintf(f, "},");
}

static void json_hist(FILE *f, const char *key, const struct hist *h)
{
	fprintf(f,
		"\"%s_us\":{\"n\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
		"\"p999\":%.1f,\"p9999\":%.1f,\"max\":%.1f},",
		key, h->count, hist_mean(h) * 1e-3, load_us(hist_quantile(h, 0.5)),
		load_us(hist_quantile(h, 0.9)), load_us(hist_quantile(h, 0.99)),
		load_us(hist_quantile(h, 0.999)), load_us(hist_quantile(h, 0.9999)), load_us(h->max));
}

static void json_server(FILE *f, const struct load_run *run)
{
	const struct load_measured *m = run->m;
	const double conns = load_lasting(run->o), n = (double)run->t->r.deliveries;

	if (!m->has_server)
		return;
	fprintf(f,
		"\"server\":{\"processes\":%u,\"cpu_us_per_delivery\":%.4f,\"user_us_per_delivery\":%.4f,"
		"\"sys_us_per_delivery\":%.4f,\"softirq_us_per_delivery\":%.4f,\"cpu_s\":%.4f,"
		"\"cpu_us_per_message\":%.3f,\"cpu_us_per_handshake\":%.3f,"
		"\"pss_before\":%" PRIu64 ",\"pss_after\":%" PRIu64 ",\"pss_bytes_per_conn\":%.1f},",
		m->server_processes, load_per(load_us(m->cpu_ns), n), load_per(load_us(m->user_ns), n),
		load_per(load_us(m->sys_ns), n), load_per(load_us(m->softirq_ns), n),
		(double)m->cpu_ns * 1e-9, load_per(load_us(m->cpu_ns), (double)m->published),
		load_per(load_us(m->connect_cpu_ns), conns), m->pss_before, m->pss_after,
		load_per((double)m->pss_after - (double)m->pss_before, conns));
}

static void json_counts(FILE *f, const struct load_run *run)
{
	const struct load_measured *m = run->m;
	const struct load_totals *t = run->t;
	const struct load_result *r = &t->r;

	fprintf(f, "\"ok\":%s,\"timed_out\":%s,", json_bool(t->ok), json_bool(m->timed_out));
	fprintf(f, "\"opened\":%u,\"failed\":%u,\"connect_s\":%.4f,", r->opened, r->failed, m->connect_s);
	fprintf(f,
		"\"published\":%" PRIu64 ",\"publish_s\":%.4f,\"deliveries\":%" PRIu64
		",\"deliveries_per_s\":%.0f,\"bytes\":%" PRIu64 ",\"recvs\":%" PRIu64 ",",
		m->published, m->publish_s, r->deliveries, load_per((double)r->deliveries, m->publish_s),
		r->bytes, r->recvs);
	fprintf(f,
		"\"lost\":%" PRIu64 ",\"never_came\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"late\":%" PRIu64
		",\"corrupt\":%" PRIu64 ",\"misrouted\":%" PRIu64 ",\"foreign\":%" PRIu64 ",",
		r->lost, r->never_came, r->repeated, r->late, r->corrupt, r->misrouted, r->foreign);
	fprintf(f, "\"closed\":%" PRIu64 ",", t->closed);
	json_ends(f, "closed_by", r->ends);
	fprintf(f,
		"\"joins\":%" PRIu64 ",\"leaves\":%" PRIu64 ",\"stalled\":{\"got\":%" PRIu64
		",\"skipped\":%" PRIu64 ",\"open\":%u,",
		r->joins, r->leaves, r->stalled_got, r->skipped, r->stalled_open);
	json_ends(f, "closed_by", r->stalled_ends);
	fprintf(f, "\"n\":%u},\"slow\":{\"got\":%" PRIu64 ",", run->o->stall, r->slow_got);
	json_ends(f, "closed_by", r->slow_ends);
	fprintf(f, "\"n\":%u},\"storm_refused\":%" PRIu64 ",\"ignored\":%" PRIu64 ",\"offered_per_s\":%.0f,",
		run->o->slow, r->storm_refused, r->ignored, load_offered(run));
	fprintf(f,
		"\"publish_errors\":%" PRIu64 ",\"retries\":%" PRIu64 ",\"nobody\":%" PRIu64
		",\"throttled\":%" PRIu64 ",\"schedule_late_max_us\":%.1f,",
		t->pub_errors, t->retries, t->nobody, t->throttled, load_us(t->late_max_ns));
	if (run->o->redis_pid)
		fprintf(f, "\"redis_us_per_message\":%.3f,",
			load_per(load_us(m->redis_cpu_ns), (double)m->published));
}

static void json_second(FILE *f, const struct load_second *s)
{
	fprintf(f,
		"{\"at_s\":%.3f,\"length_s\":%.3f,\"phase\":\"%s\",\"connections\":%u,\"handshakes\":%" PRIu64
		",\"messages\":%" PRIu64 ",\"deliveries\":%" PRIu64 ",\"bytes\":%" PRIu64
		",\"errors\":%" PRIu64 ",\"latency_us\":{\"n\":%" PRIu64
		",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}}",
		s->at_s, s->length_s, load_phase_name(s->phase), s->open, s->handshakes, s->published,
		s->deliveries, s->bytes, s->errors, s->n, load_us(s->p50_ns), load_us(s->p90_ns),
		load_us(s->p99_ns), load_us(s->p999_ns), load_us(s->max_ns));
}

static void json_series(FILE *f, const struct load_series *series)
{
	fprintf(f, "\"series\":[");
	for (uint32_t i = 0; i < series->n; i++) {
		if (i > 0)
			fputc(',', f);
		json_second(f, &series->second[i]);
	}
	fprintf(f, "],");
}

/* Rows of [share, us, count]: `count` of all values are at most that, which is at least that share. */
static void json_distribution(FILE *f, const struct load_result *r)
{
	fprintf(f, "\"distribution\":{");
	for (int k = 0; k < LOAD_HISTS; k++) {
		struct hdr_walk w = {.h = &r->hists[k]};
		const char *comma = "";

		fprintf(f, "%s\"%s\":[", k ? "," : "", hist_keys[k]);
		while (hdr_walk_next(&w)) {
			fprintf(f, "%s[%.9g,%.3f,%" PRIu64 "]", comma, w.share, load_us(w.value), w.count);
			comma = ",";
		}
		fputc(']', f);
	}
	fprintf(f, "},");
}

static void json_environment(FILE *f, const struct load_env *e)
{
	fprintf(f, "\"environment\":{");
	json_text(f, "date", e->date);
	json_text(f, "host", e->host);
	json_text(f, "system", e->system);
	json_text(f, "kernel", e->kernel);
	json_text(f, "machine", e->machine);
	json_text(f, "cpu", e->cpu);
	json_text(f, "build", e->build);
	fprintf(f, "\"cpus\":%u,\"memory_bytes\":%" PRIu64 "},", e->cpus, e->memory_bytes);
}

void load_json(FILE *f, const struct load_run *run)
{
	const struct load_result *r = &run->t->r;

	fputc('{', f);
	json_counts(f, run);
	for (int k = 0; k < LOAD_HISTS; k++)
		json_hist(f, hist_keys[k], &r->hists[k]);
	json_hist(f, "behind", &r->behind);
	json_hist(f, "storm", &r->storm);
	json_server(f, run);
	fprintf(f, "\"client_us_per_delivery\":%.4f,\"client_user_us_per_delivery\":%.4f,",
		load_per(load_us(r->cpu_ns), (double)r->deliveries),
		load_per(load_us(r->user_ns), (double)r->deliveries));
	json_series(f, run->series);
	json_distribution(f, r);
	json_environment(f, run->env);
	json_text(f, "title", run->o->title);
	json_text(f, "command", run->o->command);
	fprintf(f, "\"why\":");
	json_string(f, run->t->why ? run->t->why : "");
	fprintf(f, "}\n");
}
