#include "common/percent.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

ssize_t percent_decode(struct slice text, bool plus_is_blank, char *dst, size_t size)
{
	size_t n = 0, i = 0;
	int hi, lo;

	while (i < text.len) {
		if (n == size)
			return -1;
		if (text.p[i] != '%') {
			dst[n++] = plus_is_blank && text.p[i] == '+' ? ' ' : text.p[i];
			i++;
			continue;
		}
		if (text.len - i < 3)
			return -1;
		hi = hex_digit(text.p[i + 1]);
		lo = hex_digit(text.p[i + 2]);
		if (hi < 0 || lo < 0)
			return -1;
		dst[n++] = (char)(hi << 4 | lo);
		i += 3;
	}
	return (ssize_t)n;
}
