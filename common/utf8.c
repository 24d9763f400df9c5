#include "common/utf8.h"

#include "common/word.h"

static bool is_tail(uint8_t c)
{
	return (c & 0xc0) == 0x80;
}

/* The second byte's range depends on the first: E0 and F0 would be overlong below A0 and 90, ED is a
 * surrogate from A0 on, F4 leaves Unicode from 90 on. */
static bool is_second(uint8_t lead, uint8_t c)
{
	switch (lead) {
	case 0xe0:
		return c >= 0xa0 && c <= 0xbf;
	case 0xed:
		return c >= 0x80 && c <= 0x9f;
	case 0xf0:
		return c >= 0x90 && c <= 0xbf;
	case 0xf4:
		return c >= 0x80 && c <= 0x8f;
	default:
		return is_tail(c);
	}
}

size_t utf8_sequence(const void *at, size_t len)
{
	const uint8_t *p = at;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4 || len < 2 || !is_second(p[0], p[1]))
		return 0;
	if (p[0] < 0xe0)
		return 2;
	if (len < 3 || !is_tail(p[2]))
		return 0;
	if (p[0] < 0xf0)
		return 3;
	return len >= 4 && is_tail(p[3]) ? 4 : 0;
}

/* Bytes of ASCII at the start, in whole words only: the caller takes what is left one by one. */
static size_t ascii_words(const uint8_t *p, size_t len)
{
	size_t i = 0;

	while (len - i >= 16 && ((word_load(p + i) | word_load(p + i + 8)) & WORD_HIGHS) == 0)
		i += 16;
	if (len - i >= 8 && (word_load(p + i) & WORD_HIGHS) == 0)
		i += 8;
	return i;
}

bool utf8_is_valid(const void *at, size_t len)
{
	const uint8_t *p = at, *end = p + len;
	size_t n;

	while (p < end) {
		if (*p < 0x80) {
			n = ascii_words(p, (size_t)(end - p));
			p += n != 0 ? n : 1;
			continue;
		}
		n = utf8_sequence(p, (size_t)(end - p));
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

size_t utf8_put(char *dst, uint32_t cp)
{
	uint8_t *d = (uint8_t *)dst;

	if (cp < 0x80) {
		d[0] = (uint8_t)cp;
		return 1;
	}
	if (cp < 0x800) {
		d[0] = (uint8_t)(0xc0 | cp >> 6);
		d[1] = (uint8_t)(0x80 | (cp & 0x3f));
		return 2;
	}
	if (cp < 0x10000) {
		d[0] = (uint8_t)(0xe0 | cp >> 12);
		d[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
		d[2] = (uint8_t)(0x80 | (cp & 0x3f));
		return 3;
	}
	d[0] = (uint8_t)(0xf0 | cp >> 18);
	d[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3f));
	d[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
	d[3] = (uint8_t)(0x80 | (cp & 0x3f));
	return 4;
}
