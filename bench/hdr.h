/* hdr.h - what HdrHistogram's tools read: its interval log and its percentile distribution.
 *
 * Source: the format descriptions of the HdrHistogram project: the interval log, version 1.3 (one line a
 * histogram: [Tag=NAME,]start,length,max,base64), in it the compressed V2 encoding (zlib around a 40-byte
 * head and the counts as ZigZag LEB128 of at most 9 bytes, a run of n empty slots as -n), and the text that
 * its plotting page takes (Value, Percentile, TotalCount, 1/(1-Percentile)). A bench/hist.h histogram has
 * HdrHistogram's slots, so nothing is converted.
 *
 * Caller: one process, not the one that records; these allocate. Errors of writing stay with the FILE: ask
 * ferror().
 */
#ifndef BENCH_HDR_H
#define BENCH_HDR_H

#include <stdio.h>

#include "bench/hist.h"
#include "common/buf.h"

#define HDR_MS                                                                                               \
	1e6 /* one unit of the log's Interval_Max and of a distribution's Value, in ns: a millisecond */

/* Append the V2 encoding of h, as it stands inside the compressed one. Returns 0, or -1 (ENOMEM). */
int hdr_encode(struct buf *out, const struct hist *h) MUST_CHECK;

/* Append the compressed V2 encoding. Returns 0, or -1 (ENOMEM). */
int hdr_encode_compressed(struct buf *out, const struct hist *h) MUST_CHECK;

/* The head of a log that begins at `start_s`, seconds since the epoch. `what` is a comment: one line. */
void hdr_log_head(FILE *f, double start_s, const char *what);

/* One interval of `length_s` seconds that began `at_s` seconds after the log. `tag` names what was measured
 * when a log holds several things; NULL for the one that tools show unasked. Returns 0, or -1 (ENOMEM). */
int hdr_log_interval(FILE *f, const char *tag, double at_s, double length_s, const struct hist *h) MUST_CHECK;

/* The percentile distribution of h in milliseconds, five rows for each halving of the distance to 100 %. */
void hdr_distribution(FILE *f, const struct hist *h);

/* The rows of a distribution, one by one: begin with {.h = h}. */
struct hdr_walk {
	const struct hist *h;
	uint64_t value, count; /* of the row: `count` of all values are at most `value` ns */
	double share;          /* ... which is at least this share, 0..1 */
	uint32_t slot;         /* where the walk stands; `count` includes it */
	double next;           /* the level to reach next, in per cent */
	bool begun, ended;
};
bool hdr_walk_next(struct hdr_walk *w);

#endif
