/* load_units.c - numbers as people read them. */
#include "bench/load_units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void units_short(char *dst, size_t size, double v)
{
	static const char *const prefix[] = {"", "k", "M", "G", "T"};
	size_t i = 0;

	while (v >= 999.5 && i + 1 < ARRAY_LEN(prefix)) {
		v /= 1000;
		i++;
	}
	snprintf(dst, size, "%.*f%s", i == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2, v, prefix[i]);
}

void units_digits(char *dst, size_t size, double v)
{
	snprintf(dst, size, "%.*f", v >= 99.95 ? 0 : v >= 9.995 ? 1 : v >= 0.9995 ? 2 : 3, v);
}

void units_whole(char *dst, size_t size, uint64_t v)
{
	char digits[24];
	size_t at = 0;
	const int n = snprintf(digits, sizeof(digits), "%" PRIu64, v);

	for (int i = 0; i < n && at + 2 < size; i++) {
		if (i > 0 && (n - i) % 3 == 0)
			dst[at++] = ',';
		dst[at++] = digits[i];
	}
	dst[at] = '\0';
}
