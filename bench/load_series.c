/* load_series.c - the run second by second, out of the counters that receivers and publishers show. */
#include "bench/load_series.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/hdr.h"
#include "common/clock.h"

#define SECOND_NS 1000000000ull
#define LEAST_NS  1000000ull /* a shorter interval says nothing: it goes into the next */

/* In the order of struct load_result's `hists`; what tools show unasked has no tag. */
static const char *const tags[LOAD_HISTS] = {"handshake", NULL, "last"};

const char *load_phase_name(enum load_phase phase)
{
	static const char *const names[] = {"connect", "hold", "publish", "drain", "stalled", "stop"};

	return names[phase];
}

/* Counters as they are now. */
static void read_counters(const struct load_series *s, struct load_second *c)
{
	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; i < s->o->procs; i++) {
		struct load_result *r = &s->sh->res[i];

		c->open += atomic_load(&r->open);
		c->deliveries += atomic_load(&r->deliveries);
		c->bytes += atomic_load(&r->seen_bytes);
		c->errors += atomic_load(&r->seen_errors);
	}
	for (uint32_t i = 0; i < s->o->publishers; i++) {
		c->published += atomic_load(&s->sh->pub[i].next);
		c->errors += atomic_load(&s->sh->pub[i].errors);
	}
}

/* A late message takes a loss back, so errors may fall. */
static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static void difference(struct load_second *sec, const struct load_second *now,
		       const struct load_second *before)
{
	sec->open = now->open;
	sec->published = since(now->published, before->published);
	sec->deliveries = since(now->deliveries, before->deliveries);
	sec->bytes = since(now->bytes, before->bytes);
	sec->errors = since(now->errors, before->errors);
}

static void fail(struct load_series *s, const char *what)
{
	if (!s->failed)
		fprintf(stderr, "ringcast-bench: %s: %s\n", what, strerror(errno));
	s->failed = true;
}

/* The interval's histograms, out of those of all receivers. */
static void take_hists(struct load_series *s, struct load_second *sec)
{
	struct hist *latency = &s->interval[LOAD_LATENCY];

	for (uint32_t k = 0; k < LOAD_HISTS; k++) {
		hist_clear(&s->interval[k]);
		for (uint32_t i = 0; i < s->o->procs; i++)
			hist_interval(&s->interval[k], &s->seen[i * LOAD_HISTS + k], &s->sh->res[i].hists[k]);
	}
	sec->handshakes = s->interval[LOAD_HANDSHAKE].count;
	sec->n = latency->count;
	sec->p50_ns = hist_quantile(latency, 0.5);
	sec->p90_ns = hist_quantile(latency, 0.9);
	sec->p99_ns = hist_quantile(latency, 0.99);
	sec->p999_ns = hist_quantile(latency, 0.999);
	sec->max_ns = latency->max;
}

/* While messages are due, a second without any is news too. */
static void log_hists(struct load_series *s, const struct load_second *sec)
{
	for (uint32_t k = 0; s->hdr && k < LOAD_HISTS; k++) {
		if (s->interval[k].count == 0 && (tags[k] || sec->phase != PHASE_PUBLISH))
			continue;
		if (hdr_log_interval(s->hdr, tags[k], sec->at_s, sec->length_s, &s->interval[k]) == -1)
			fail(s, "the log is not whole");
	}
}

static void keep(struct load_series *s, const struct load_second *sec)
{
	if (s->n == s->cap) {
		const uint32_t cap = s->cap ? s->cap * 2 : 128;
		struct load_second *more = reallocarray(s->second, cap, sizeof(*more));

		if (!more) {
			fail(s, "no memory for the series");
			return;
		}
		s->second = more;
		s->cap = cap;
	}
	s->second[s->n++] = *sec;
}

static void interval_end(struct load_series *s, uint64_t now_ns)
{
	struct load_second now, sec = {
					.at_s = (double)(s->at_ns - s->began_ns) * 1e-9,
					.length_s = (double)(now_ns - s->at_ns) * 1e-9,
					.phase = s->phase,
				};

	read_counters(s, &now);
	difference(&sec, &now, &s->before);
	take_hists(s, &sec);
	log_hists(s, &sec);
	keep(s, &sec);
	s->before = now;
	s->at_ns = now_ns;
	if (s->show)
		load_progress(s, &sec);
}

int load_series_open(struct load_series *s, const struct load_opts *o, struct load_shared *sh)
{
	s->o = o;
	s->sh = sh;
	s->began_ns = s->at_ns = clock_mono_ns();
	s->phase = PHASE_CONNECT;
	s->show = o->progress || (!o->quiet && isatty(STDERR_FILENO));
	s->seen = calloc((size_t)o->procs * LOAD_HISTS, sizeof(*s->seen));
	s->interval = calloc(LOAD_HISTS, sizeof(*s->interval));
	if (!s->seen || !s->interval)
		return -1;
	if (!o->hdr)
		return 0;
	s->hdr = fopen(o->hdr, "we");
	if (!s->hdr)
		return -1;
	hdr_log_head(s->hdr, (double)clock_wall_ms() * 1e-3,
		     "ringcast-bench " RC_VERSION
		     ": nanoseconds from due to read; Tag=last: to the last client, "
		     "Tag=handshake: connect to 101");
	return 0;
}

void load_series_tick(struct load_series *s)
{
	const uint64_t now_ns = clock_mono_ns();

	if (now_ns - s->at_ns >= SECOND_NS)
		interval_end(s, now_ns);
}

void load_series_phase(struct load_series *s, enum load_phase phase)
{
	const uint64_t now_ns = clock_mono_ns();

	if (now_ns - s->at_ns >= LEAST_NS)
		interval_end(s, now_ns);
	s->phase = phase;
}

int load_series_close(struct load_series *s)
{
	interval_end(s, clock_mono_ns());
	if (s->show)
		load_progress_end(s);
	if (s->hdr && (ferror(s->hdr) || fclose(s->hdr) != 0))
		fail(s, s->o->hdr);
	s->hdr = NULL;
	free(s->seen);
	free(s->interval);
	s->seen = s->interval = NULL;
	return s->failed ? -1 : 0;
}
