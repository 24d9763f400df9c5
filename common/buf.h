/* buf.h - a growing byte buffer. Any process; allocates, never blocks. All zero is a valid empty one. */
#ifndef RC_BUF_H
#define RC_BUF_H

#include "common/base.h"

struct buf {
	char *p;
	size_t len; /* bytes in use */
	size_t cap; /* bytes allocated */
};

/* Make room for `more` further bytes. Returns 0, or -1 (ENOMEM) with the buffer unchanged. */
int buf_reserve(struct buf *b, size_t more) MUST_CHECK;

/* Append a copy. Returns 0, or -1 (ENOMEM) with the buffer unchanged. */
int buf_put(struct buf *b, const void *p, size_t len) MUST_CHECK;
int buf_puts(struct buf *b, const char *s) MUST_CHECK;
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;

/* Drop the first `n` bytes. */
void buf_shift(struct buf *b, size_t n);

/* Free the memory; the buffer is empty and usable again. */
void buf_free(struct buf *b);

#endif
