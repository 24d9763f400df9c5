/* load_units.h - numbers as people read them. Pure; `dst` is always terminated, what does not fit is cut. */
#ifndef BENCH_LOAD_UNITS_H
#define BENCH_LOAD_UNITS_H

#include "common/base.h"

/* Three digits and a prefix: "987", "12.3k", "4.56M". */
void units_short(char *dst, size_t size, double v);

/* Three digits without a prefix: "1234", "12.3", "0.123". */
void units_digits(char *dst, size_t size, double v);

/* All digits, in groups of three: "1,234,567". */
void units_whole(char *dst, size_t size, uint64_t v);

#endif
