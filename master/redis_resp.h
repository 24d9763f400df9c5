/* redis_resp.h - RESP commands written straight into a buffer.
 *
 * Master process only. redisFormatCommandArgv() would copy each payload into an allocation of its own, and
 * wants the names of a thousand channels as a thousand pointers; what a publication or a batch needs is these
 * few lines.
 */
#ifndef RC_REDIS_RESP_H
#define RC_REDIS_RESP_H

#include "common/buf.h"

#define RESP_HEAD_MAX 24 /* "$", 20 digits, CR, LF */

/* "<type><n>\r\n" to dst (RESP_HEAD_MAX bytes). Returns its length. */
static inline size_t resp_head(char *dst, char type, uint64_t n)
{
	char digits[20];
	size_t d = sizeof(digits), len = 0;

	do
		digits[--d] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	dst[len++] = type;
	while (d < sizeof(digits))
		dst[len++] = digits[d++];
	dst[len++] = '\r';
	dst[len++] = '\n';
	return len;
}

/* Append "*<n>\r\n". Returns 0, or -1 (ENOMEM). */
static inline int resp_put_array(struct buf *b, uint64_t n)
{
	char head[RESP_HEAD_MAX];

	return buf_put(b, head, resp_head(head, '*', n));
}

/* Append one bulk string made of two parts (the first may be empty). Returns 0, or -1 (ENOMEM). */
static inline int resp_put_bulk(struct buf *b, struct slice first, struct slice second)
{
	char head[RESP_HEAD_MAX];

	if (buf_put(b, head, resp_head(head, '$', first.len + second.len)) == -1 ||
	    buf_put(b, first.p, first.len) == -1 || buf_put(b, second.p, second.len) == -1)
		return -1;
	return buf_put(b, "\r\n", 2);
}

#endif
