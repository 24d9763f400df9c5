/* integer.h - integers as text, of any length: ids in paths, queries and templates. Any process; pure. */
#ifndef RC_INTEGER_H
#define RC_INTEGER_H

#include "common/base.h"

/* The canonical text of the integer that `text` is, into dst (no NUL is added): decimal digits without
 * leading zeros,
 * '-' before what is less than 0. Accepted as the application's own int() does: blanks around it, one sign,
 * leading zeros. Returns its length, or 0: no integer, or it does not fit. `dst` may be text.p. */
size_t integer_canonical(struct slice text, char *dst, size_t size) MUST_CHECK;

#endif
