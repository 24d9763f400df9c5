/* utf8.h - is this valid UTF-8 (RFC 3629)? Any process; pure. */
#ifndef RC_UTF8_H
#define RC_UTF8_H

#include "common/base.h"

/* True if the `len` bytes at `p` are whole UTF-8 sequences: no overlong form, no surrogate, nothing above
 * U+10FFFF. Empty is valid; NUL is a character like any other. Linear, about one cycle for 8 bytes of ASCII.
 */
bool utf8_is_valid(const void *p, size_t len) MUST_CHECK;

/* The length (1..4) of the valid sequence at the start of `len` >= 1 bytes, or 0 if there is none. */
size_t utf8_sequence(const void *p, size_t len) MUST_CHECK;

/* Write code point `cp` (0..0x10FFFF and no surrogate: the caller's duty) to dst, 4 bytes at most. Returns
 * its length. */
size_t utf8_put(char *dst, uint32_t cp);

#endif
