/* load_report.c - what a run of the load client came to: a table for people, or one line of JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/load.h"

static const char *const end_names[END_COUNT] = {"1000", "1001", "1002",  "1007", "1008",  "1009",    "1011",
						 "1012", "1013", "other", "eof",  "reset", "protocol"};

struct totals {
	struct load_result r; /* all receivers added up */
	uint64_t closed;
	uint64_t pub_errors, retries, nobody, throttled, late_max_ns;
	const char *why;
	bool ok;
};

static void add_receiver(struct totals *t, struct load_result *from)
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
	to->joins += from->joins;
	to->leaves += from->leaves;
	to->recvs += from->recvs;
	to->stalled_open += from->stalled_open;
	to->cpu_ns += from->cpu_ns;
	for (int i = 0; i < END_COUNT; i++) {
		to->ends[i] += from->ends[i];
		to->stalled_ends[i] += from->stalled_ends[i];
		t->closed += from->ends[i];
	}
	hist_merge(&to->handshake, &from->handshake);
	hist_merge(&to->latency, &from->latency);
	hist_merge(&to->last, &from->last);
	if (!t->why && from->why[0])
		t->why = from->why;
}

static void add_up(struct totals *t, const struct load_opts *o, struct load_shared *sh,
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

static double per(double sum, double n)
{
	return n > 0 ? sum / n : 0;
}

static double us(uint64_t ns)
{
	return (double)ns * 1e-3;
}

/* A string as JSON: the reasons hold bytes from the server. */
static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
			printf("\\u%04x", (unsigned char)*s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void json_ends(const char *key, const uint64_t *ends)
{
	const char *comma = "";

	printf("\"%s\":{", key);
	for (int i = 0; i < END_COUNT; i++) {
		if (ends[i] == 0)
			continue;
		printf("%s\"%s\":%" PRIu64, comma, end_names[i], ends[i]);
		comma = ",";
	}
	printf("},");
}

static void json_hist(const char *key, const struct hist *h)
{
	printf("\"%s_us\":{\"n\":%" PRIu64 ",\"mean\":%.1f,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},", key,
	       h->count, hist_mean(h) * 1e-3, us(hist_quantile(h, 0.5)), us(hist_quantile(h, 0.99)),
	       us(h->max));
}

static void json_server(const struct load_opts *o, const struct load_measured *m, const struct load_result *r)
{
	const double conns = (double)o->conns + o->stall + o->pause;

	if (!m->has_server)
		return;
	printf("\"server\":{\"processes\":%u,\"cpu_us_per_delivery\":%.4f,\"user_us_per_delivery\":%.4f,"
	       "\"sys_us_per_delivery\":%.4f,\"softirq_us_per_delivery\":%.4f,\"cpu_s\":%.4f,"
	       "\"cpu_us_per_message\":%.3f,\"cpu_us_per_handshake\":%.3f,"
	       "\"pss_before\":%" PRIu64 ",\"pss_after\":%" PRIu64 ",\"pss_bytes_per_conn\":%.1f},",
	       m->server_processes, per(us(m->cpu_ns), (double)r->deliveries),
	       per(us(m->user_ns), (double)r->deliveries), per(us(m->sys_ns), (double)r->deliveries),
	       per(us(m->softirq_ns), (double)r->deliveries), (double)m->cpu_ns * 1e-9,
	       per(us(m->cpu_ns), (double)m->published), per(us(m->connect_cpu_ns), conns), m->pss_before,
	       m->pss_after, per((double)m->pss_after - (double)m->pss_before, conns));
}

static void report_json(const struct load_opts *o, const struct load_measured *m, const struct totals *t)
{
	const struct load_result *r = &t->r;

	printf("{\"ok\":%s,\"timed_out\":%s,", t->ok ? "true" : "false", m->timed_out ? "true" : "false");
	printf("\"opened\":%u,\"failed\":%u,\"connect_s\":%.4f,", r->opened, r->failed, m->connect_s);
	printf("\"published\":%" PRIu64 ",\"publish_s\":%.4f,\"deliveries\":%" PRIu64
	       ",\"deliveries_per_s\":%.0f,"
	       "\"bytes\":%" PRIu64 ",\"recvs\":%" PRIu64 ",",
	       m->published, m->publish_s, r->deliveries, per((double)r->deliveries, m->publish_s), r->bytes,
	       r->recvs);
	printf("\"lost\":%" PRIu64 ",\"never_came\":%" PRIu64 ",\"repeated\":%" PRIu64 ",\"late\":%" PRIu64
	       ",\"corrupt\":%" PRIu64 ",\"misrouted\":%" PRIu64 ",\"foreign\":%" PRIu64 ",",
	       r->lost, r->never_came, r->repeated, r->late, r->corrupt, r->misrouted, r->foreign);
	printf("\"closed\":%" PRIu64 ",", t->closed);
	json_ends("closed_by", r->ends);
	printf("\"joins\":%" PRIu64 ",\"leaves\":%" PRIu64 ",\"stalled\":{\"got\":%" PRIu64
	       ",\"skipped\":%" PRIu64 ",\"open\":%u,",
	       r->joins, r->leaves, r->stalled_got, r->skipped, r->stalled_open);
	json_ends("closed_by", r->stalled_ends);
	printf("\"n\":%u},", o->stall);
	printf("\"publish_errors\":%" PRIu64 ",\"retries\":%" PRIu64 ",\"nobody\":%" PRIu64
	       ",\"throttled\":%" PRIu64 ",\"schedule_late_max_us\":%.1f,",
	       t->pub_errors, t->retries, t->nobody, t->throttled, us(t->late_max_ns));
	if (o->redis_pid)
		printf("\"redis_us_per_message\":%.3f,", per(us(m->redis_cpu_ns), (double)m->published));
	json_hist("handshake", &r->handshake);
	json_hist("latency", &r->latency);
	json_hist("last", &r->last);
	json_server(o, m, r);
	printf("\"client_us_per_delivery\":%.4f,\"why\":", per(us(r->cpu_ns), (double)r->deliveries));
	json_string(t->why ? t->why : "");
	printf("}\n");
}

static void text_hist(const char *name, const struct hist *h)
{
	if (h->count)
		printf("%-22s p50 %.3f ms, p99 %.3f ms, max %.3f ms\n", name,
		       us(hist_quantile(h, 0.5)) * 1e-3, us(hist_quantile(h, 0.99)) * 1e-3,
		       us(h->max) * 1e-3);
}

static void text_ends(const char *name, const uint64_t *ends)
{
	for (int i = 0; i < END_COUNT; i++)
		if (ends[i])
			printf("%-22s %s: %" PRIu64 "\n", name, end_names[i], ends[i]);
}

static void text_server(const struct load_opts *o, const struct load_measured *m, const struct load_result *r)
{
	const double conns = (double)o->conns + o->stall + o->pause, n = (double)r->deliveries;

	if (!m->has_server)
		return;
	printf("%-22s %.3f us (user %.2f, system %.2f; ksoftirqd %.3f besides), %u processes\n",
	       "server CPU/delivery", per(us(m->cpu_ns), n), per(us(m->user_ns), n), per(us(m->sys_ns), n),
	       per(us(m->softirq_ns), n), m->server_processes);
	printf("%-22s %.1f us\n", "server CPU/handshake", per(us(m->connect_cpu_ns), conns));
	printf("%-22s %.0f bytes (PSS %.1f MB before, %.1f MB after)\n", "memory/connection",
	       per((double)m->pss_after - (double)m->pss_before, conns), (double)m->pss_before / 1e6,
	       (double)m->pss_after / 1e6);
}

static void text_stalled(const struct load_opts *o, const struct load_result *r)
{
	if (o->churn || o->reconnect)
		printf("%-22s %" PRIu64 " joins, %" PRIu64 " leaves\n", "churn", r->joins, r->leaves);
	if (o->stall == 0)
		return;
	printf("%-22s %" PRIu64 " messages got, %" PRIu64 " skipped, %u still open\n", "stalled",
	       r->stalled_got, r->skipped, r->stalled_open);
	text_ends("stalled, closed", r->stalled_ends);
}

static void report_text(const struct load_opts *o, const struct load_measured *m, const struct totals *t)
{
	const struct load_result *r = &t->r;

	printf("%-22s %u opened, %u failed, %.0f a second\n", "connections", r->opened, r->failed,
	       per(r->opened, m->connect_s));
	text_hist("handshake", &r->handshake);
	printf("%-22s %" PRIu64 " in %.2f s\n", "published", m->published, m->publish_s);
	printf("%-22s %" PRIu64 ", %.0f a second, %.2f messages a read\n", "deliveries", r->deliveries,
	       per((double)r->deliveries, m->publish_s), per((double)r->deliveries, (double)r->recvs));
	text_hist("latency", &r->latency);
	text_hist("to the last client", &r->last);
	text_server(o, m, r);
	printf("%-22s %.3f us\n", "client CPU/delivery", per(us(r->cpu_ns), (double)r->deliveries));
	text_stalled(o, r);
	text_ends("closed by the server", r->ends);
	if (t->nobody || t->retries || t->throttled)
		printf("%-22s %" PRIu64 " reached nobody, %" PRIu64 " tried again, %" PRIu64
		       " waits for the window\n",
		       "publisher", t->nobody, t->retries, t->throttled);
	printf("%-22s lost %" PRIu64 " (%" PRIu64 " at the end), repeated %" PRIu64 ", late %" PRIu64
	       ", corrupt %" PRIu64 ", misrouted %" PRIu64 ", foreign %" PRIu64 "\n",
	       "checks", r->lost, r->never_came, r->repeated, r->late, r->corrupt, r->misrouted, r->foreign);
	if (t->why)
		printf("%-22s %s\n", "first trouble", t->why);
	if (m->timed_out)
		printf("%-22s a phase did not end as it should\n", "stopped");
	printf("%s\n", t->ok ? "ok" : "FAILED");
}

bool load_report(const struct load_opts *o, struct load_shared *sh, const struct load_measured *m)
{
	static struct totals t;

	add_up(&t, o, sh, m);
	if (o->json)
		report_json(o, m, &t);
	else
		report_text(o, m, &t);
	return t.ok;
}
