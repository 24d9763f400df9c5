/* LINK: bench/hdr.c bench/hist.c
 * LIBS: -lz */
/* What is written for HdrHistogram's tools, byte for byte. bench/selftest_report.py decodes whole logs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bench/hdr.h"

static const uint8_t head_but_length[36] = {
	0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xf0,
};

static void check_encoding(const struct hist *h, const uint8_t *counts, size_t len)
{
	struct buf b = {0};

	assert_int_equal(buf_puts(&b, "before"), 0);
	assert_int_equal(hdr_encode(&b, h), 0);
	assert_int_equal(b.len, 6 + 40 + len);
	assert_memory_equal(b.p + 6, "\x1c\x84\x93\x13\0\0\0", 7);
	assert_int_equal(b.p[6 + 7], len);
	assert_memory_equal(b.p + 6 + 8, head_but_length, 32);
	assert_memory_equal(b.p + 6 + 40, counts, len);
	buf_free(&b);
}

static void counts_are_zigzag_leb128_with_runs_of_zeros(void **state)
{
	static struct hist h;

	(void)state;
	check_encoding(&h, (const uint8_t[]){0}, 1); /* empty: one slot that holds nothing */
	hist_add(&h, 0);
	check_encoding(&h, (const uint8_t[]){2}, 1);
	hist_add(&h, 2);
	check_encoding(&h, (const uint8_t[]){2, 0, 2}, 3); /* a single empty slot is a 0 */
	hist_add(&h, 5);
	check_encoding(&h, (const uint8_t[]){2, 0, 2, 3, 2}, 5); /* two are a -2 */
	h.slot[5] = 64;
	check_encoding(&h, (const uint8_t[]){2, 0, 2, 3, 0x80, 1}, 6);
	h.slot[5] = INT64_MAX; /* all that nine bytes hold */
	check_encoding(&h, (const uint8_t[]){2, 0, 2, 3, 0xfe, 255, 255, 255, 255, 255, 255, 255, 255}, 13);
	h.slot[5] = (uint64_t)1 << 55; /* the ninth byte takes the bit that eight leave */
	check_encoding(&h, (const uint8_t[]){2, 0, 2, 3, 128, 128, 128, 128, 128, 128, 128, 128, 1}, 13);
}

static void compressed_form_inflates_to_the_plain_one(void **state)
{
	static struct hist h;
	static uint8_t back[1 << 17];
	struct buf plain = {0}, packed = {0};
	uLongf len = sizeof(back);

	(void)state;
	for (uint64_t v = 1; v < HIST_TOP; v += v / 7 + 1)
		hist_add(&h, v);
	hist_add(&h, UINT64_MAX); /* counts as HIST_TOP */
	assert_int_equal(hdr_encode(&plain, &h), 0);
	assert_int_equal(hdr_encode_compressed(&packed, &h), 0);
	assert_memory_equal(packed.p, "\x1c\x84\x93\x14\0", 5);
	assert_int_equal((uint8_t)packed.p[6] << 8 | (uint8_t)packed.p[7], packed.len - 8);
	assert_int_equal(uncompress(back, &len, (const Bytef *)packed.p + 8, packed.len - 8), Z_OK);
	assert_int_equal(len, plain.len);
	assert_memory_equal(back, plain.p, len);
	buf_free(&plain);
	buf_free(&packed);
}

/* A hundred values, one of each: the rows stop at the first value that reaches each share. */
static void distribution_has_five_rows_a_halving(void **state)
{
	static struct hist h;
	static const struct {
		double share;
		uint64_t value;
	} want[] = {{0, 1},       {0.1, 10},   {0.2, 20},    {0.3, 30},    {0.4, 40},    {0.5, 50},
		    {0.55, 55},   {0.6, 60},   {0.65, 65},   {0.7, 70},    {0.75, 75},   {0.775, 78},
		    {0.8, 80},    {0.825, 83}, {0.85, 85},   {0.875, 88},  {0.8875, 89}, {0.9, 90},
		    {0.9125, 92}, {0.925, 93}, {0.9375, 94}, {0.94375, 95}};
	struct hdr_walk w = {.h = &h};
	uint64_t before = 0;

	(void)state;
	assert_false(hdr_walk_next(&w));
	for (uint64_t v = 1; v <= 100; v++)
		hist_add(&h, v);
	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		assert_true(hdr_walk_next(&w));
		assert_float_equal(w.share, want[i].share, 1e-9);
		assert_int_equal(w.value, want[i].value);
		assert_int_equal(w.count, want[i].value);
	}
	while (hdr_walk_next(&w)) {
		assert_true(w.value >= before);
		before = w.value;
	}
	assert_true(w.share == 1.0);
	assert_int_equal(w.value, 100);
	assert_int_equal(w.count, 100);
}

static void log_lines_name_tag_times_and_largest(void **state)
{
	static struct hist h;
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	assert_non_null(f);
	hist_add(&h, 1500000);
	hdr_log_head(f, 1700000000.25, "who wrote it");
	assert_int_equal(hdr_log_interval(f, NULL, 0.5, 1.0021, &h), 0);
	assert_int_equal(hdr_log_interval(f, "last", 1.5, 1, &h), 0);
	assert_int_equal(fclose(f), 0);
	assert_ptr_equal(strstr(text, "#[who wrote it]\n#[Histogram log format version 1.3]\n"
				      "#[BaseTime: 1700000000.250 (seconds since epoch)]\n"
				      "#[StartTime: 1700000000.250 (seconds since epoch), "),
			 text);
	assert_non_null(strstr(text, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\","
				     "\"Interval_Compressed_Histogram\"\n0.500,1.002,1.500,HISTFAAAA"));
	assert_non_null(strstr(text, "\nTag=last,1.500,1.000,1.500,HISTFAAAA"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_are_zigzag_leb128_with_runs_of_zeros),
		cmocka_unit_test(compressed_form_inflates_to_the_plain_one),
		cmocka_unit_test(distribution_has_five_rows_a_halving),
		cmocka_unit_test(log_lines_name_tag_times_and_largest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
