#include "common/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define X 0xff
/* value of each digit; X for everything else */
static const uint8_t digits[256] = {
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* 00 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* 10 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  62, X,  X,  X,  63, /* 20 */
	52, 53, 54, 55, 56, 57, 58, 59, 60, 61, X,  X,  X,  X,  X,  X,  /* 30 */
	X,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, /* 40 */
	15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, X,  X,  X,  X,  X,  /* 50 */
	X,  26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, /* 60 */
	41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, X,  X,  X,  X,  X,  /* 70 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* 80 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* 90 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* a0 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* b0 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* c0 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* d0 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* e0 */
	X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  X,  /* f0 */
};
#undef X

bool base64_is_digit(char c)
{
	return digits[(uint8_t)c] != 0xff;
}

/* Four digits to three bytes. Returns false if one is no digit. */
static bool decode_group(const uint8_t *s, uint8_t *d)
{
	uint8_t a = digits[s[0]], b = digits[s[1]], c = digits[s[2]], e = digits[s[3]];

	if ((a | b | c | e) & 0xc0)
		return false;
	d[0] = (uint8_t)(a << 2 | b >> 4);
	d[1] = (uint8_t)(b << 4 | c >> 2);
	d[2] = (uint8_t)(c << 6 | e);
	return true;
}

/* The group that ends in '=' or "==". Returns its bytes (1 or 2), or -1. */
static int decode_padded(const uint8_t *s, uint8_t *d)
{
	uint8_t group[4] = {s[0], s[1], s[2], 'A'}, out[3];
	int n = 2;

	if (s[2] == '=') {
		group[2] = 'A';
		n = 1;
	}
	if (s[3] != '=' || !decode_group(group, out) || out[n] != 0)
		return -1;
	d[0] = out[0];
	if (n == 2)
		d[1] = out[1];
	return n;
}

ssize_t base64_decode(struct slice text, char *dst)
{
	const uint8_t *s = (const uint8_t *)text.p, *end;
	uint8_t *d = (uint8_t *)dst;
	int tail = 0;

	if (text.len % 4 != 0)
		return -1;
	if (text.len == 0)
		return 0;
	end = s + text.len - (s[text.len - 1] == '=' ? 4 : 0);
	for (; s < end; s += 4, d += 3) {
		if (!decode_group(s, d))
			return -1;
	}
	if (s < (const uint8_t *)text.p + text.len)
		tail = decode_padded(s, d);
	return tail < 0 ? -1 : (char *)d - dst + tail;
}

/* The digit of the standard alphabet; one that is none of either if it is none of base64url. */
static uint8_t from_url(char c)
{
	if (c == '-')
		return '+';
	if (c == '_')
		return '/';
	return c == '+' || c == '/' || c == '=' ? '!' : (uint8_t)c;
}

ssize_t base64url_decode(struct slice text, char *dst)
{
	uint8_t group[4], *d = (uint8_t *)dst;
	int tail;

	for (; text.len >= 4; text = (struct slice){text.p + 4, text.len - 4}, d += 3) {
		for (size_t i = 0; i < 4; i++)
			group[i] = from_url(text.p[i]);
		if (!decode_group(group, d))
			return -1;
	}
	if (text.len == 0)
		return (char *)d - dst;
	if (text.len == 1)
		return -1;
	for (size_t i = 0; i < 4; i++)
		group[i] = i < text.len ? from_url(text.p[i]) : '=';
	tail = decode_padded(group, d);
	return tail < 0 ? -1 : (char *)d - dst + tail;
}

size_t base64_encode(struct slice data, char *dst)
{
	const uint8_t *s = (const uint8_t *)data.p;
	char *d = dst;
	size_t left = data.len;

	for (; left >= 3; left -= 3, s += 3, d += 4) {
		d[0] = alphabet[s[0] >> 2];
		d[1] = alphabet[(s[0] & 3) << 4 | s[1] >> 4];
		d[2] = alphabet[(s[1] & 15) << 2 | s[2] >> 6];
		d[3] = alphabet[s[2] & 63];
	}
	if (left == 0)
		return (size_t)(d - dst);
	d[0] = alphabet[s[0] >> 2];
	d[1] = alphabet[(s[0] & 3) << 4 | (left == 2 ? s[1] >> 4 : 0)];
	d[2] = left == 2 ? alphabet[(s[1] & 15) << 2] : '=';
	d[3] = '=';
	return (size_t)(d + 4 - dst);
}
