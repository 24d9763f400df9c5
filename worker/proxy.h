/* proxy.h - the header that a proxy puts in front of a connection: HAProxy's PROXY protocol, version 1 (2.1
 * of its specification) and version 2 (2.2). Worker; pure.
 *
 *   v1   "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"           at most 107 bytes
 *   v2   12 bytes of signature, version and command, family, length (16 bytes), then at most 4096 bytes
 *
 * Strict: one blank between words, numbers without leading zeros, families that a stream can have, vectors
 * behind the addresses that fill the length exactly. Nothing is taken from a header that is not whole.
 * Checksums (CRC32c) are not verified: TCP has one.
 */
#ifndef RC_PROXY_H
#define RC_PROXY_H

#include "worker/address.h"

#define PROXY_V1_MAX   107u
#define PROXY_V2_FIXED 16u
#define PROXY_V2_MAX   (PROXY_V2_FIXED + 4096u)

enum proxy_result { PROXY_MORE, PROXY_DONE, PROXY_BAD };

struct proxy_header {
	size_t len;            /* bytes of the header: what the client sent follows */
	struct address source; /* unknown: the proxy speaks for itself (LOCAL), or of no address (UNKNOWN, a
				* unix socket): the socket's own counts */
};

/* Look at the first `len` bytes of a connection, all there are so far. PROXY_MORE: they may be the beginning
 * of a header; call again with more. What can't become one is PROXY_BAD at once. */
enum proxy_result proxy_parse(const void *bytes, size_t len, struct proxy_header *out) MUST_CHECK;

#endif
