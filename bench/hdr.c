/* hdr.c - HdrHistogram's interval log and percentile distribution, from our histogram. */
#include "bench/hdr.h"

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "common/base64.h"

#define V2_COOKIE            0x1c849313u
#define V2_COOKIE_COMPRESSED 0x1c849314u
#define ROWS_A_HALVING       5

/* Big-endian, as all of the encoding. */
struct v2_head {
	uint32_t cookie, payload_bytes, index_offset, digits;
	uint64_t lowest, highest, ratio; /* what is counted; ratio: a double's bits */
};
_Static_assert(sizeof(struct v2_head) == 40, "the head of a V2 encoding");

static uint64_t double_bits(double d)
{
	uint64_t bits;

	memcpy(&bits, &d, sizeof(bits));
	return bits;
}

/* ZigZag, then seven bits a byte, the lowest first; the ninth byte holds eight. */
static int put_signed(struct buf *out, int64_t n)
{
	uint64_t left = (uint64_t)n << 1 ^ (n < 0 ? UINT64_MAX : 0);
	uint8_t bytes[9];
	size_t len = 0;

	while (len < 8 && left >= 0x80) {
		bytes[len++] = (uint8_t)(left | 0x80);
		left >>= 7;
	}
	bytes[len++] = (uint8_t)left;
	return buf_put(out, bytes, len);
}

/* All counts up to the last that is not 0. */
static int put_counts(struct buf *out, const struct hist *h)
{
	const uint32_t n = h->count ? hist_slot(h->max) + 1 : 1;
	uint32_t zeros = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (h->slot[i] == 0 && i + 1 < n) {
			zeros++;
			continue;
		}
		if (zeros && put_signed(out, zeros == 1 ? 0 : -(int64_t)zeros) == -1)
			return -1;
		zeros = 0;
		if (put_signed(out, (int64_t)h->slot[i]) == -1)
			return -1;
	}
	return 0;
}

int hdr_encode(struct buf *out, const struct hist *h)
{
	const size_t at = out->len;
	struct v2_head head = {
		.cookie = htobe32(V2_COOKIE),
		.digits = htobe32(HIST_DIGITS),
		.lowest = htobe64(1),
		.highest = htobe64(HIST_TOP),
		.ratio = htobe64(double_bits(1.0)),
	};

	if (buf_put(out, &head, sizeof(head)) == -1 || put_counts(out, h) == -1)
		return -1;
	head.payload_bytes = htobe32((uint32_t)(out->len - at - sizeof(head)));
	memcpy(out->p + at, &head, sizeof(head));
	return 0;
}

int hdr_encode_compressed(struct buf *out, const struct hist *h)
{
	uint32_t head[2] = {htobe32(V2_COOKIE_COMPRESSED)};
	struct buf plain = {0};
	uLongf len = 0;
	int rc = -1;

	if (hdr_encode(&plain, h) == -1)
		goto out;
	len = compressBound(plain.len);
	if (buf_reserve(out, sizeof(head) + len) == -1)
		goto out;
	if (compress((Bytef *)out->p + out->len + sizeof(head), &len, (const Bytef *)plain.p, plain.len) !=
	    Z_OK)
		goto out;
	head[1] = htobe32((uint32_t)len);
	memcpy(out->p + out->len, head, sizeof(head));
	out->len += sizeof(head) + len;
	rc = 0;
out:
	buf_free(&plain);
	return rc;
}

void hdr_log_head(FILE *f, double start_s, const char *what)
{
	const time_t t = (time_t)start_s;
	struct tm tm;
	char date[64] = "";

	if (localtime_r(&t, &tm) && strftime(date, sizeof(date), "%a %b %d %H:%M:%S %Z %Y", &tm) == 0)
		date[0] = '\0';
	fprintf(f, "#[%s]\n", what);
	fprintf(f, "#[Histogram log format version 1.3]\n");
	fprintf(f, "#[BaseTime: %.3f (seconds since epoch)]\n", start_s);
	fprintf(f, "#[StartTime: %.3f (seconds since epoch), %s]\n", start_s, date);
	fprintf(f, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_"
		   "Histogram\"\n");
}

/* HdrHistogram knows the largest value by its slot only. */
static uint64_t largest(const struct hist *h)
{
	return h->count ? hist_slot_high(hist_slot(h->max)) : 0;
}

int hdr_log_interval(FILE *f, const char *tag, double at_s, double length_s, const struct hist *h)
{
	struct buf bin = {0};
	char *text = NULL;
	int rc = -1;

	if (hdr_encode_compressed(&bin, h) == -1)
		goto out;
	text = malloc(BASE64_ENCODED(bin.len));
	if (!text)
		goto out;
	if (tag)
		fprintf(f, "Tag=%s,", tag);
	fprintf(f, "%.3f,%.3f,%.3f,", at_s, length_s, (double)largest(h) / HDR_MS);
	fprintf(f, "%.*s\n", (int)base64_encode((struct slice){bin.p, bin.len}, text), text);
	rc = 0;
out:
	free(text);
	buf_free(&bin);
	return rc;
}

/* In per cent, so that the levels are the very numbers of HdrHistogram's own walk. The step grows finer with
 * each halving of what is left to 100. */
static double next_level(double level)
{
	const double halvings = floor(log2(100.0 / (100.0 - level)));

	return level + 100.0 / (ROWS_A_HALVING * exp2(halvings + 1));
}

bool hdr_walk_next(struct hdr_walk *w)
{
	const struct hist *h = w->h;

	if (w->ended || h->count == 0)
		return false;
	if (!w->begun)
		w->count = h->slot[0];
	else if (w->count >= h->count)
		w->ended = true;
	w->begun = true;
	if (w->ended) {
		w->share = 1;
		return true;
	}
	while (h->slot[w->slot] == 0 || 100.0 * (double)w->count / (double)h->count < w->next)
		w->count += h->slot[++w->slot];
	w->value = hist_slot_high(w->slot);
	w->share = w->next / 100;
	w->next = next_level(w->next);
	return true;
}

static double deviation(const struct hist *h, double mean)
{
	double sum = 0;

	for (uint32_t i = 0; i <= hist_slot(h->max); i++) {
		const double off = (double)hist_slot_mid(i) - mean;

		sum += off * off * (double)h->slot[i];
	}
	return h->count ? sqrt(sum / (double)h->count) : 0;
}

void hdr_distribution(FILE *f, const struct hist *h)
{
	struct hdr_walk w = {.h = h};
	const double mean = hist_mean(h);

	fprintf(f, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
	while (hdr_walk_next(&w)) {
		fprintf(f, "%12.3f %2.12f %10llu", (double)w.value / HDR_MS, w.share,
			(unsigned long long)w.count);
		if (w.share < 1)
			fprintf(f, " %14.2f", 1 / (1 - w.share));
		fputc('\n', f);
	}
	fprintf(f, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", mean / HDR_MS,
		deviation(h, mean) / HDR_MS);
	fprintf(f, "#[Max     = %12.3f, Total count    = %12llu]\n", (double)largest(h) / HDR_MS,
		(unsigned long long)h->count);
	fprintf(f, "#[Buckets = %12u, SubBuckets     = %12u]\n", HIST_BUCKETS, 2 * HIST_HALF);
}
