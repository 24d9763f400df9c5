/* redis_tls.h - the TLS of one rediss:// link, over OpenSSL.
 *
 * Master process only. Never blocks: the caller's descriptor is non-blocking and is waited for in the loop.
 * TLS 1.2 at least; by default the peer must show a certificate for the very host (name or address) that was
 * asked for, signed by `ca_file` or by the system's authorities. SIGPIPE is never raised.
 */
#ifndef RC_REDIS_TLS_H
#define RC_REDIS_TLS_H

#include "common/base.h"
#include "common/config.h"

struct redis_tls;

/* Read the authorities. Returns NULL (and logs why) if that fails; cfg is not kept. */
struct redis_tls *redis_tls_new(const struct cfg_redis *cfg) MUST_CHECK;
void redis_tls_free(struct redis_tls *t); /* NULL is fine */

/* Begin a session over the connected `fd`, which stays the caller's. Returns 0, or -1 with ENOMEM. */
int redis_tls_start(struct redis_tls *t, int fd, const struct cfg_redis *cfg) MUST_CHECK;
void redis_tls_stop(struct redis_tls *t);

/* As recv() and send(): bytes, 0 at the end of the stream, or -1 with errno: EAGAIN (see
 * redis_tls_wants_write), EPROTO (redis_tls_reason says more) or what the socket gave. The handshake returns
 * 1 when it is done. */
int redis_tls_handshake(struct redis_tls *t) MUST_CHECK;
ssize_t redis_tls_read(struct redis_tls *t, void *p, size_t len) MUST_CHECK;
ssize_t redis_tls_write(struct redis_tls *t, const void *p, size_t len) MUST_CHECK;

/* The last EAGAIN waits for the socket to be writable, not readable. */
bool redis_tls_wants_write(const struct redis_tls *t);

/* Bytes are decrypted already: the socket will not announce them. */
bool redis_tls_has_input(const struct redis_tls *t);

/* One word for the last EPROTO: "certificate", "tls". */
const char *redis_tls_reason(const struct redis_tls *t);

#endif
