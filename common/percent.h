/* percent.h - percent-decoding (RFC 3986, 2.1). Any process; pure. */
#ifndef RC_PERCENT_H
#define RC_PERCENT_H

#include "common/base.h"

/* Decode `text` once into dst; dst may be text.p. plus_is_blank: as in queries (HTML forms). No NUL is added.
 * Returns the bytes written, or -1: a '%' without two hexadecimal digits, or more than `size` bytes. */
ssize_t percent_decode(struct slice text, bool plus_is_blank, char *dst, size_t size) MUST_CHECK;

#endif
