/* listen.h - listening sockets: made by the master, accepted from by the workers.
 *
 * Master process only. A TCP address for clients has one SO_REUSEPORT socket per worker position, so that a
 * worker's queue outlives it: its successor in that position takes it over. Unix sockets and admin listeners
 * are one socket each, shared by all workers. Sockets live over deaths and generations; a reload opens what
 * is new and closes, when the old generation is gone, what the new one does not use.
 *
 * Blocks as bind() and the look at an old unix socket do; with `retry_ms` also that long while an address is
 * in use (a server that was killed a moment ago may still have a worker on its way out).
 */
#ifndef RC_LISTEN_H
#define RC_LISTEN_H

#include "common/buf.h"
#include "common/config.h"

enum listen_kind { LISTEN_CLIENT, LISTEN_ADMIN };

struct listen_socket {
	char *addr; /* as the configuration writes it */
	enum listen_kind kind;
	unsigned ordinal;  /* the same address several times ("127.0.0.1:0"): which of them */
	unsigned position; /* of a worker; 0 if shared */
	bool is_unix;
	bool is_wanted; /* scratch of listen_keep() */
	int fd;
	uint16_t port; /* tcp: the real one */
	char *path;    /* unix; unlinked when closed, if it is still ours */
	dev_t dev;
	ino_t ino;
};

/* All zero is empty. */
struct listen_set {
	struct listen_socket *v;
	size_t n, cap;
};

/* Open what `c` wants with c->workers positions and is not open yet. Returns 0, or -1 with one line appended
 * to `error`
 * ("cannot bind 127.0.0.1:8080: Address already in use") and nothing opened. */
int listen_open(struct listen_set *set, const struct config *c, unsigned retry_ms,
		struct buf *error) MUST_CHECK;

/* The descriptor for the i-th listener of that kind in the configuration; -1: there is none. */
int listen_fd(const struct listen_set *set, const struct config *c, enum listen_kind kind, size_t i,
	      unsigned position);

/* The addresses of that kind with real ports, joined by commas, appended to `out`. 0, or -1 with ENOMEM. */
int listen_addresses(const struct listen_set *set, const struct config *c, enum listen_kind kind,
		     struct buf *out) MUST_CHECK;

/* Close what `c` does not want. */
void listen_keep(struct listen_set *set, const struct config *c);

/* Close all of that kind, remove unix sockets. */
void listen_close(struct listen_set *set, enum listen_kind kind);

#endif
