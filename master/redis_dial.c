#include "master/redis_dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void on_io(struct ev_loop *loop, ev_io *w, int revents);

const char *redis_dial_address(const struct redis_dial *d, char *dst, size_t size)
{
	if (d->cfg->is_unix)
		snprintf(dst, size, "unix:%s", d->cfg->path == NULL ? "" : d->cfg->path);
	else
		snprintf(dst, size, strchr(d->host, ':') != NULL ? "[%s]:%u" : "%s:%u", d->host, d->port);
	return dst;
}

const char *redis_dial_word(const struct redis_dial *d, int err)
{
	switch (err) {
	case EPROTO:
		return d->tls == NULL ? "io" : redis_tls_reason(d->tls);
	case ECONNRESET:
		return "reset";
	case ECONNREFUSED:
		return "refused";
	case ETIMEDOUT:
		return "timeout";
	case ENOENT:
		return "no_socket";
	case EHOSTUNREACH:
	case ENETUNREACH:
		return "unreachable";
	case EACCES:
	case EPERM:
		return "permission";
	default:
		return "io";
	}
}

static void close_fd(struct redis_dial *d)
{
	if (d->fd == -1)
		return;
	ev_io_stop(d->loop, &d->io);
	redis_tls_stop(d->tls);
	close(d->fd);
	d->fd = -1;
}

static void fail(struct redis_dial *d, const char *why)
{
	redis_dial_stop(d);
	d->done(d->arg, -1, why);
}

static void succeed(struct redis_dial *d)
{
	int fd = d->fd;

	ev_io_stop(d->loop, &d->io);
	d->fd = -1;
	d->step = DIAL_IDLE;
	d->done(d->arg, fd, NULL);
}

static void watch(struct redis_dial *d, int mask)
{
	ev_io_stop(d->loop, &d->io);
	ev_io_set(&d->io, d->fd, mask);
	ev_io_start(d->loop, &d->io);
}

static int set_options(struct redis_dial *d, int family)
{
	unsigned user_timeout = d->cfg->ping_interval + 2 * d->cfg->timeout;
	int one = 1;

	if (family == AF_UNIX)
		return 0;
	/* TCP_USER_TIMEOUT: a path that is dead in our direction only, while a busy channel keeps coming in.
	 */
	if (setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == -1 ||
	    setsockopt(d->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) == -1 ||
	    setsockopt(d->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout)) == -1)
		return -1;
	return 0;
}

/* 0 = connected or under way; a connected one is announced by the loop all the same. */
static int connect_to(struct redis_dial *d, const struct sockaddr *sa, socklen_t len)
{
	d->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd == -1 || set_options(d, sa->sa_family) == -1)
		return -1;
	if (connect(d->fd, sa, len) == -1 && errno != EINPROGRESS)
		return -1; /* EAGAIN of a unix socket with a full backlog is a failure too */
	d->step = DIAL_CONNECT;
	watch(d, EV_WRITE);
	return 0;
}

static void connect_unix(struct redis_dial *d)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t len = d->cfg->path == NULL ? 0 : strlen(d->cfg->path);

	if (len == 0 || len >= sizeof(un.sun_path)) {
		fail(d, "bad_path");
		return;
	}
	memcpy(un.sun_path, d->cfg->path, len + 1);
	d->addr_left = 0;
	if (connect_to(d, (struct sockaddr *)&un, sizeof(un)) == -1)
		fail(d, redis_dial_word(d, errno));
}

/* err: why the one before failed. */
static void try_next_address(struct redis_dial *d, int err)
{
	while (d->addr_left > 0) {
		struct redis_addr *a = &d->addrs.addr[d->addr_next++ % d->addrs.n];

		d->addr_left--;
		close_fd(d);
		if (connect_to(d, &a->sa, a->len) == 0)
			return;
		err = errno;
	}
	fail(d, redis_dial_word(d, err));
}

static void connect_addrs(struct redis_dial *d)
{
	if (d->addrs.n == 0) {
		fail(d, "no_address");
		return;
	}
	d->addr_left = d->addrs.n;
	try_next_address(d, 0);
}

static bool is_asked_for(const struct redis_dial *d)
{
	return d->query_port == d->port && strcmp(d->query_host, d->host) == 0;
}

static void on_resolved(void *arg, const struct redis_addrs *addrs)
{
	struct redis_dial *d = arg;

	d->query = NULL;
	if (d->step != DIAL_RESOLVE && d->step != DIAL_IDLE)
		return; /* it is busy with another's addresses */
	d->addrs = *addrs;
	d->addrs_fresh = d->step != DIAL_RESOLVE; /* else used now */
	if (d->step == DIAL_RESOLVE)
		connect_addrs(d);
}

static void resolve(struct redis_dial *d)
{
	bool is_fresh = d->addrs_fresh && is_asked_for(d);

	d->addrs_fresh = false;
	if (is_fresh || redis_resolve_numeric(d->host, d->port, &d->addrs)) {
		connect_addrs(d);
		return;
	}
	if (d->query != NULL && !is_asked_for(d)) {
		fail(d, "resolver_busy");
		return;
	}
	d->step = DIAL_RESOLVE;
	if (d->query == NULL) {
		memcpy(d->query_host, d->host, sizeof(d->query_host));
		d->query_port = d->port;
		d->query = redis_resolve_start(d->loop, d->host, d->port, on_resolved, d);
	}
	if (d->query == NULL)
		fail(d, "resolver");
}

void redis_dial_start(struct redis_dial *d)
{
	if (d->cfg->tls && d->tls == NULL && (d->tls = redis_tls_new(d->cfg)) == NULL)
		fail(d, "tls_setup");
	else if (d->cfg->is_unix)
		connect_unix(d);
	else if (d->host[0] == '\0')
		fail(d, "no_address");
	else
		resolve(d);
}

static void tls_step(struct redis_dial *d)
{
	int rc = redis_tls_handshake(d->tls);

	if (rc == 1)
		succeed(d);
	else if (rc == -1 && errno == EAGAIN)
		watch(d, redis_tls_wants_write(d->tls) ? EV_WRITE : EV_READ);
	else
		fail(d, rc == 0 ? "eof" : redis_dial_word(d, errno));
}

static void on_connected(struct redis_dial *d)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		err = errno;
	if (err != 0) {
		try_next_address(d, err);
	} else if (d->tls == NULL) {
		succeed(d);
	} else if (redis_tls_start(d->tls, d->fd, d->cfg) == -1) {
		fail(d, "memory");
	} else {
		d->step = DIAL_TLS;
		tls_step(d);
	}
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_dial *d = w->data;

	(void)loop;
	(void)revents;
	if (d->step == DIAL_CONNECT)
		on_connected(d);
	else
		tls_step(d);
}

void redis_dial_to(struct redis_dial *d, const char *host, uint16_t port)
{
	size_t len = strnlen(host, REDIS_HOST_MAX);

	memcpy(d->host, host, len);
	d->host[len] = '\0';
	d->port = port;
}

void redis_dial_init(struct redis_dial *d, struct ev_loop *loop, const struct cfg_redis *cfg,
		     void (*done)(void *arg, int fd, const char *why), void *arg)
{
	*d = (struct redis_dial){.loop = loop, .cfg = cfg, .done = done, .arg = arg, .fd = -1};
	redis_dial_to(d, cfg->host == NULL ? "" : cfg->host, cfg->port);
	ev_init(&d->io, on_io);
	d->io.data = d;
}

void redis_dial_stop(struct redis_dial *d)
{
	close_fd(d);
	d->step = DIAL_IDLE;
}

void redis_dial_free(struct redis_dial *d)
{
	redis_dial_stop(d);
	redis_resolve_cancel(d->query);
	redis_tls_free(d->tls);
}
