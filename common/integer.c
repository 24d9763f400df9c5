#include "common/integer.h"

#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t integer_canonical(struct slice text, char *dst, size_t size)
{
	const char *p = text.p, *end = text.p + text.len;
	bool is_negative = false;
	size_t len;

	while (p < end && is_blank(*p))
		p++;
	while (p < end && is_blank(end[-1]))
		end--;
	if (p < end && (*p == '+' || *p == '-'))
		is_negative = *p++ == '-';
	if (p == end)
		return 0;
	for (const char *q = p; q < end; q++)
		if (*q < '0' || *q > '9')
			return 0;
	while (p + 1 < end && *p == '0')
		p++;
	is_negative = is_negative && *p != '0';
	len = (size_t)(end - p) + is_negative;
	if (len > size)
		return 0;
	memmove(dst + is_negative, p, (size_t)(end - p));
	if (is_negative)
		dst[0] = '-';
	return len;
}
