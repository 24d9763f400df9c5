/* LINK: bench/hist.c bench/payload.c bench/track.c */
/* The judges of the load client: if these are wrong, a lossy server looks fine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "bench/hist.h"
#include "bench/payload.h"
#include "bench/track.h"

static void hist_slots_are_tight_and_ordered(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < HIST_TOP_LOG; bit++) {
		for (int d = -1; d <= 1; d++) {
			uint64_t v = ((uint64_t)1 << bit) + (uint64_t)(int64_t)d;
			uint32_t s = hist_slot(v);

			assert_true(s < HIST_SLOTS);
			assert_true(hist_slot_low(s) <= v && v <= hist_slot_high(s));
			assert_true(hist_slot_low(s) <= hist_slot_mid(s) &&
				    hist_slot_mid(s) <= hist_slot_high(s));
			assert_true(hist_slot_high(s) - hist_slot_low(s) <= v / HIST_HALF);
			assert_int_equal(hist_slot_low(s + 1), hist_slot_high(s) + 1);
		}
	}
	assert_int_equal(hist_slot(2047), 2047); /* as HdrHistogram numbers them */
	assert_int_equal(hist_slot(2049), 2048);
	assert_int_equal(hist_slot(4096), 3072);
	assert_int_equal(hist_slot(HIST_TOP), HIST_SLOTS - 1);
	assert_int_equal(hist_slot(UINT64_MAX), HIST_SLOTS - 1);
	assert_int_equal(hist_slot_high(HIST_SLOTS - 1), HIST_TOP);
}

static void hist_quantiles(void **state)
{
	static struct hist h, sum;

	(void)state;
	assert_int_equal(hist_quantile(&h, 0.5), 0);
	for (uint64_t v = 1; v <= 1000; v++)
		hist_add(&h, v * 1000);
	assert_in_range(hist_quantile(&h, 0.5), 500000, 500500);
	assert_in_range(hist_quantile(&h, 0.99), 990000, 991000);
	assert_int_equal(hist_quantile(&h, 1.0), 1000000);
	assert_int_equal(hist_quantile(&h, 0), 1000);
	assert_true(hist_mean(&h) == 500500.0);
	hist_merge(&sum, &h);
	hist_merge(&sum, &h);
	assert_int_equal(sum.count, 2000);
	assert_int_equal(sum.max, 1000000);
	assert_int_equal(hist_quantile(&sum, 0.5), hist_quantile(&h, 0.5));
	hist_clear(&sum);
	hist_clear(&h);
	assert_memory_equal(&sum, &h, sizeof(h));
	assert_int_equal(hist_quantile(&sum, 0.5), 0);
}

/* Whatever the moments of reading, every value is in exactly one interval. */
static void hist_intervals_add_up(void **state)
{
	static struct hist live, seen, interval, all;

	(void)state;
	for (uint64_t v = 0; v < 5000; v++) {
		hist_add(&live, v * v);
		if (v % 700 != 3)
			continue;
		hist_interval(&interval, &seen, &live);
		assert_int_equal(interval.count, v == 3 ? 4 : 700);
		assert_int_equal(hist_slot(interval.max), hist_slot(v * v));
		hist_merge(&all, &interval);
		hist_clear(&interval);
	}
	hist_interval(&all, &seen, &live);
	assert_int_equal(all.count, live.count);
	assert_memory_equal(all.slot, live.slot, sizeof(live.slot));
	assert_in_range(all.sum, live.sum - live.sum / 1000, live.sum + live.sum / 1000);
	hist_clear(&interval);
	hist_interval(&interval, &seen, &live);
	assert_int_equal(interval.count, 0);
}

static void payload_round_trip(void **state)
{
	static const uint64_t sizes[] = {PAYLOAD_MIN, PAYLOAD_MIN + 1, 128, 8191, 8192, 8193, 8240, 70000};
	const struct payload_id in = {0xbeef, 7, 123456, 0xfffffffe, 0x123456789abcdef0ull};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
		uint64_t len = sizes[i / 2];
		uint8_t *p = malloc(len);
		struct payload_id out;
		uint32_t seed;

		assert_non_null(p);
		payload_put(p, len, &in, i & 1);
		assert_true(payload_get(p, len, i & 1, &out, &seed));
		assert_int_equal(out.run, in.run);
		assert_int_equal(out.publisher, in.publisher);
		assert_int_equal(out.channel, in.channel);
		assert_int_equal(out.seq, in.seq);
		assert_true(out.time_ns == in.time_ns);
		assert_true(payload_fill_ok(seed, 0, p + PAYLOAD_MIN, len - PAYLOAD_MIN));
		assert_false(payload_get(p, len, !(i & 1), &out, &seed));
		assert_false(payload_get(p, len + 1, i & 1, &out, &seed));
		free(p);
	}
}

/* Any single changed bit is found, and so is a fill checked in odd pieces. */
static void payload_any_bit_matters(void **state)
{
	const struct payload_id in = {1, 2, 3, 4, 5};
	uint8_t p[300];
	struct payload_id out;
	uint32_t seed;

	(void)state;
	payload_put(p, sizeof(p), &in, false);
	for (size_t bit = 0; bit < sizeof(p) * 8; bit++) {
		bool ok;

		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ok = payload_get(p, sizeof(p), false, &out, &seed) &&
		     payload_fill_ok(seed, 0, p + PAYLOAD_MIN, sizeof(p) - PAYLOAD_MIN);
		assert_false(ok);
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_true(payload_get(p, sizeof(p), false, &out, &seed));
	for (size_t cut = 0; cut <= sizeof(p) - PAYLOAD_MIN; cut++) {
		assert_true(payload_fill_ok(seed, 0, p + PAYLOAD_MIN, cut));
		assert_true(payload_fill_ok(seed, cut, p + PAYLOAD_MIN + cut, sizeof(p) - PAYLOAD_MIN - cut));
	}
}

static void payload_is_safe_in_json(void **state)
{
	const struct payload_id in = {0xffff, 0xffff, 0xffffffff, 0x5c5c5c5c, 0x2222222222222222ull};
	uint8_t p[10000];

	(void)state;
	payload_put(p, sizeof(p), &in, false);
	for (size_t i = 0; i < sizeof(p); i++)
		assert_true(p[i] > 0x20 && p[i] < 0x7f && p[i] != '"' && p[i] != '\\');
}

static void track_tells_loss_late_and_repeat(void **state)
{
	struct track t;
	uint32_t lost = 0;

	(void)state;
	track_start(&t, 10);
	assert_int_equal(track_see(&t, 10, &lost), TRACK_OK);
	assert_int_equal(track_see(&t, 10, &lost), TRACK_REPEAT);
	assert_int_equal(track_see(&t, 9, &lost), TRACK_REPEAT);
	assert_int_equal(track_see(&t, 14, &lost), TRACK_GAP);
	assert_int_equal(lost, 3);
	assert_int_equal(track_see(&t, 12, &lost), TRACK_LATE);
	assert_int_equal(track_see(&t, 12, &lost), TRACK_REPEAT);
	assert_int_equal(track_see(&t, 14, &lost), TRACK_REPEAT);
	assert_int_equal(track_see(&t, 15, &lost), TRACK_OK);
	assert_int_equal(track_see(&t, 11, &lost), TRACK_LATE);
	assert_int_equal(track_see(&t, 13, &lost), TRACK_LATE);
	assert_int_equal(t.next, 16);
}

static void track_window_edges(void **state)
{
	struct track t;
	uint32_t lost = 0;

	(void)state;
	track_start(&t, 0);
	assert_int_equal(track_see(&t, 63, &lost), TRACK_GAP); /* a step of exactly 64 */
	assert_int_equal(lost, 63);
	assert_int_equal(track_see(&t, 0, &lost), TRACK_LATE);
	assert_int_equal(track_see(&t, 62, &lost), TRACK_LATE);
	track_start(&t, 0);
	assert_int_equal(track_see(&t, 64, &lost), TRACK_GAP);
	assert_int_equal(lost, 64);
	assert_int_equal(track_see(&t, 0, &lost), TRACK_REPEAT); /* out of the window: can't be told */
	assert_int_equal(track_see(&t, 1, &lost), TRACK_LATE);
	assert_int_equal(track_see(&t, 4000000000u, &lost), TRACK_GAP);
	assert_int_equal(lost, 4000000000u - 65);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hist_slots_are_tight_and_ordered),
		cmocka_unit_test(hist_quantiles),
		cmocka_unit_test(hist_intervals_add_up),
		cmocka_unit_test(payload_round_trip),
		cmocka_unit_test(payload_any_bit_matters),
		cmocka_unit_test(payload_is_safe_in_json),
		cmocka_unit_test(track_tells_loss_late_and_repeat),
		cmocka_unit_test(track_window_edges),
	};

	payload_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
