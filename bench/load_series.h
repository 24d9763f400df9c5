/* load_series.h - what the run was like, second by second. The parent only; allocates at the start and once a
 * second.
 *
 * The receivers do nothing for it but to show their counters as they go (struct load_result): an interval's
 * histogram is the difference of two readings of theirs (hist_interval). An interval ends when a second is
 * over or a phase begins, is kept, goes to the log for HdrHistogram's tools (--hdr) and to the line that
 * shows progress.
 */
#ifndef BENCH_LOAD_SERIES_H
#define BENCH_LOAD_SERIES_H

#include <stdio.h>

#include "bench/load.h"

/* One interval; whatever is not a state is counted within it. */
struct load_second {
	double at_s, length_s; /* since the run began */
	enum load_phase phase;
	uint32_t open; /* connections at its end */
	uint64_t handshakes, published, deliveries, bytes, errors;
	uint64_t n, p50_ns, p90_ns, p99_ns, p999_ns, max_ns; /* steady clients' latencies: n of them */
};

struct load_series {
	const struct load_opts *o;
	struct load_shared *sh;
	struct load_second *second; /* `n` kept of `cap` */
	uint32_t n, cap;
	uint64_t began_ns, at_ns;  /* of the run, of the interval; CLOCK_MONOTONIC */
	struct load_second before; /* the counters when the interval began */
	enum load_phase phase;
	struct hist *seen;     /* LOAD_HISTS for each receiver */
	struct hist *interval; /* LOAD_HISTS */
	FILE *hdr;             /* NULL without --hdr */
	bool show;             /* draw the line */
	bool failed;           /* out of memory, or the log could not be written: said once */
};

/* Begin. Returns 0, or -1 with errno. */
int load_series_open(struct load_series *s, const struct load_opts *o, struct load_shared *sh) MUST_CHECK;

/* Call often: ends the interval when it is a second old. */
void load_series_tick(struct load_series *s);

/* A new phase begins: ends the interval, whatever its age. */
void load_series_phase(struct load_series *s, enum load_phase phase);

/* The run is over and nobody records any more. Returns 0, or -1: something was not kept or written. */
int load_series_close(struct load_series *s) MUST_CHECK;

/* load_progress.c: one line on stderr, drawn anew with each interval; on anything but a terminal, a line
 * each. */
void load_progress(const struct load_series *s, const struct load_second *now);
void load_progress_end(const struct load_series *s);

/* What a phase is called in the line and in the JSON. */
const char *load_phase_name(enum load_phase phase);

#endif
