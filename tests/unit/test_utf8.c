/* LINK: */
/* utf8: every two-byte and three-byte sequence, the corners of four-byte ones, and every alignment of a fault
 * against the eight-byte steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/utf8.h"

/* The definition, spelled out: decode, then refuse what is too long or no character. */
static bool is_character(const uint8_t *p, size_t len)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t cp = n == 1 ? p[0] : n == 2 ? p[0] & 31 : n == 3 ? p[0] & 15 : p[0] & 7;

	if (n == 0 || n != len)
		return false;
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return false;
		cp = cp << 6 | (p[i] & 63);
	}
	return cp >= least[n] && cp <= 0x10ffff && (cp < 0xd800 || cp > 0xdfff);
}

static void expect(const uint8_t *p, size_t len, bool is_valid)
{
	if (utf8_is_valid(p, len) != is_valid)
		fail_msg("%02x %02x %02x %02x (%zu bytes): expected %s", p[0], p[1], p[2], p[3], len,
			 is_valid ? "valid" : "invalid");
}

static void judges_every_sequence_of_up_to_three_bytes(void **state)
{
	uint8_t p[4] = {0};

	(void)state;
	for (unsigned a = 0; a < 256; a++) {
		p[0] = (uint8_t)a;
		expect(p, 1, a < 0x80);
		for (unsigned b = 0; b < 256; b++) {
			p[1] = (uint8_t)b;
			expect(p, 2, is_character(p, 2) || (a < 0x80 && b < 0x80));
			if (a < 0xe0 || a > 0xef)
				continue;
			for (unsigned c = 0; c < 256; c++) {
				p[2] = (uint8_t)c;
				expect(p, 3, is_character(p, 3));
			}
		}
	}
}

static void judges_four_byte_sequences_by_their_corners(void **state)
{
	static const uint8_t tails[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
	uint8_t p[4];

	(void)state;
	for (unsigned a = 0xf0; a < 256; a++) {
		for (unsigned b = 0; b < 256; b++) {
			for (size_t c = 0; c < sizeof(tails); c++) {
				for (size_t d = 0; d < sizeof(tails); d++) {
					p[0] = (uint8_t)a;
					p[1] = (uint8_t)b;
					p[2] = tails[c];
					p[3] = tails[d];
					expect(p, 4, is_character(p, 4));
				}
			}
		}
	}
}

/* A fault or a character at every place of a run of ASCII, with every length: the eight-byte steps must not
 * jump over it. */
static void finds_a_fault_at_every_alignment(void **state)
{
	static const uint8_t euro[] = {0xe2, 0x82, 0xac};
	uint8_t p[64];

	(void)state;
	for (size_t len = 1; len <= 48; len++) {
		for (size_t at = 0; at < len; at++) {
			memset(p, 'a', sizeof(p));
			assert_true(utf8_is_valid(p, len));
			p[at] = 0xff;
			assert_false(utf8_is_valid(p, len));
			memcpy(p + at, euro, sizeof(euro));
			assert_int_equal(utf8_is_valid(p, len), at + 3 <= len);
		}
	}
	assert_true(utf8_is_valid("", 0));
	assert_true(utf8_is_valid("a\0b", 3));
}

static void writes_what_it_reads(void **state)
{
	char p[4];

	(void)state;
	for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
		size_t len;

		if (cp >= 0xd800 && cp <= 0xdfff)
			continue;
		len = utf8_put(p, cp);
		assert_int_equal(utf8_sequence(p, len), len);
		assert_true(is_character((uint8_t *)p, len));
		assert_int_equal(len < 2 ? 0 : utf8_sequence(p, len - 1), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_every_sequence_of_up_to_three_bytes),
		cmocka_unit_test(judges_four_byte_sequences_by_their_corners),
		cmocka_unit_test(finds_a_fault_at_every_alignment),
		cmocka_unit_test(writes_what_it_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
