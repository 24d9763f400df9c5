/* base64.h - base64 with the standard alphabet and padding (RFC 4648, section 4). Any process; pure.
 * OpenSSL's EVP_DecodeBlock skips blanks and does not tell padding from data, hence own code. */
#ifndef RC_BASE64_H
#define RC_BASE64_H

#include "common/base.h"

#define BASE64_ENCODED(n)     (((size_t)(n) + 2) / 3 * 4)
#define BASE64_DECODED_MAX(n) ((size_t)(n) / 4 * 3)

/* Decode all of `text` to dst, which holds BASE64_DECODED_MAX(text.len) bytes (and may be text.p itself).
 * Returns the number of bytes, or -1: a byte outside the alphabet, blanks included, a length that is no
 * multiple of 4, missing or misplaced padding, unused bits that are not zero. */
ssize_t base64_decode(struct slice text, char *dst) MUST_CHECK;

/* The same for base64url without padding (section 5; RFC 7515, section 2), of what tokens and keys are made.
 * dst holds BASE64URL_DECODED_MAX(text.len) bytes. */
#define BASE64URL_DECODED_MAX(n) ((size_t)(n) / 4 * 3 + 3)
ssize_t base64url_decode(struct slice text, char *dst) MUST_CHECK;

/* Encode to dst, which holds BASE64_ENCODED(data.len) bytes; no NUL is added. Returns the length. */
size_t base64_encode(struct slice data, char *dst);

/* Is this a character of the alphabet (without '=')? */
bool base64_is_digit(char c);

#endif
