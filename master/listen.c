#include "master/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRY_STEP_MS 20
#define DEFER_S       1 /* TCP_DEFER_ACCEPT: wake nobody for a connection that says nothing, for that long */

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
	struct sockaddr_storage any;
};

static void close_keep_errno(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
}

static int fail(struct buf *error, const char *addr, const char *what)
{
	if (buf_printf(error, "cannot bind %s: %s\n", addr, what) == -1)
		errno = ENOMEM; /* nothing more can be said */
	return -1;
}

/* ---- tcp */

static socklen_t tcp_address(const struct cfg_listener *l, uint16_t port, union address *a)
{
	const char *host = l->host == NULL || strcmp(l->host, "*") == 0 ? "" : l->host;

	memset(a, 0, sizeof(*a));
	if (*host == '\0' || inet_pton(AF_INET, host, &a->in.sin_addr) == 1) {
		a->in.sin_family = AF_INET;
		a->in.sin_port = htons(port);
		return sizeof(a->in);
	}
	if (inet_pton(AF_INET6, host, &a->in6.sin6_addr) != 1)
		return 0;
	a->in6.sin6_family = AF_INET6;
	a->in6.sin6_port = htons(port);
	return sizeof(a->in6);
}

static int set_on(int fd, int level, int option)
{
	int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on));
}

static int tcp_bound(const union address *a, socklen_t len, bool is_shared)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	if (set_on(fd, SOL_SOCKET, SO_REUSEADDR) == -1 ||
	    (is_shared && set_on(fd, SOL_SOCKET, SO_REUSEPORT) == -1) ||
	    (a->sa.sa_family == AF_INET6 && set_on(fd, IPPROTO_IPV6, IPV6_V6ONLY) == -1) ||
	    bind(fd, &a->sa, len) == -1) {
		close_keep_errno(fd);
		return -1;
	}
	return fd;
}

/* SO_REUSEPORT lets a second server of the same user bind the same port, and half of the clients vanish into
 * the wrong one. So see first whether the address is free without it. */
static int tcp_probe(const union address *a, socklen_t len, unsigned retry_ms)
{
	const struct timespec step = {.tv_nsec = RETRY_STEP_MS * 1000000L};
	int fd;

	for (;;) {
		fd = tcp_bound(a, len, false);
		if (fd != -1 && listen(fd, 1) == 0)
			break;
		if (fd != -1)
			close_keep_errno(fd);
		if (errno != EADDRINUSE || retry_ms < RETRY_STEP_MS)
			return -1;
		retry_ms -= RETRY_STEP_MS;
		(void)nanosleep(&step, NULL);
	}
	close(fd);
	return 0;
}

static int tcp_port(int fd, uint16_t *port)
{
	union address a = {0};
	socklen_t len = sizeof(a);

	if (getsockname(fd, &a.sa, &len) == -1)
		return -1;
	*port = ntohs(a.sa.sa_family == AF_INET6 ? a.in6.sin6_port : a.in.sin_port);
	return 0;
}

/* Let the kernel choose a port, then bind that one by its number: a socket bound to port 0 loses its port
 * when a worker takes it out of the group by shutdown(), and listen() would then choose another. */
static int tcp_bound_any(union address *a, socklen_t len, bool is_shared)
{
	int first = tcp_bound(a, len, true), fd = -1;
	uint16_t port;

	if (first == -1)
		return -1;
	if (tcp_port(first, &port) == 0) {
		*(a->sa.sa_family == AF_INET6 ? &a->in6.sin6_port : &a->in.sin_port) = htons(port);
		if (is_shared)
			fd = tcp_bound(a, len, true);
	}
	close_keep_errno(first);
	return is_shared ? fd : tcp_bound(a, len, false);
}

/* port: of the sockets for the same address that exist already; 0 = this is the first. */
static int tcp_open(struct listen_socket *s, const struct cfg_listener *l, uint16_t port, unsigned retry_ms)
{
	uint16_t wanted = port != 0 ? port : l->port;
	int seconds = DEFER_S;
	union address a;
	socklen_t len = tcp_address(l, wanted, &a);

	if (len == 0) {
		errno = EINVAL;
		return -1;
	}
	if (port == 0 && wanted != 0 && tcp_probe(&a, len, retry_ms) == -1)
		return -1;
	s->fd = wanted == 0 ? tcp_bound_any(&a, len, s->kind == LISTEN_CLIENT)
			    : tcp_bound(&a, len, s->kind == LISTEN_CLIENT);
	if (s->fd == -1)
		return -1;
	/* Behind an error of this one nobody stands: it only saves a wake-up. */
	if (s->kind == LISTEN_CLIENT)
		(void)setsockopt(s->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
	if (tcp_port(s->fd, &s->port) == -1 || listen(s->fd, l->backlog) == -1) {
		close_keep_errno(s->fd);
		s->fd = -1;
		return -1;
	}
	return 0;
}

/* ---- unix */

/* Remove what a dead server left behind. -1: it is something else (ENOTSOCK), or somebody listens
 * (EADDRINUSE). */
static int unix_clear(const char *path, const union address *a, socklen_t len)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISSOCK(st.st_mode)) {
		errno = ENOTSOCK;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	rc = connect(fd, &a->sa, len);
	close_keep_errno(fd);
	if (rc == 0 || errno != ECONNREFUSED) {
		errno = rc == 0 || errno == EAGAIN ? EADDRINUSE : errno;
		return -1;
	}
	return unlink(path);
}

static int unix_bind(int fd, const struct cfg_listener *l, const union address *a, socklen_t len)
{
	mode_t mask = umask(0177); /* nobody connects before the mode is set */
	int rc = bind(fd, &a->sa, len);

	umask(mask);
	if (rc == -1)
		return -1;
	if (chmod(l->path, l->mode) == -1 || listen(fd, l->backlog) == -1) {
		rc = errno;
		unlink(l->path);
		errno = rc;
		return -1;
	}
	return 0;
}

static int unix_open(struct listen_socket *s, const struct cfg_listener *l)
{
	union address a = {.un = {.sun_family = AF_UNIX}};
	size_t n = strlen(l->path);
	struct stat st;

	if (n >= sizeof(a.un.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(a.un.sun_path, l->path, n + 1);
	if (unix_clear(l->path, &a, sizeof(a.un)) == -1)
		return -1;
	s->path = strdup(l->path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->path == NULL || s->fd == -1 || unix_bind(s->fd, l, &a, sizeof(a.un)) == -1 ||
	    lstat(l->path, &st) == -1) {
		if (s->fd != -1)
			close_keep_errno(s->fd);
		s->fd = -1;
		return -1;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

/* ---- the set */

static const struct cfg_listener *listeners_of(const struct config *c, enum listen_kind kind, size_t *n)
{
	*n = kind == LISTEN_CLIENT ? c->n_listens : c->n_admins;
	return kind == LISTEN_CLIENT ? c->listens : c->admins;
}

/* How many listeners before the i-th have the same address. */
static unsigned ordinal_of(const struct cfg_listener *l, size_t i)
{
	unsigned n = 0;

	for (size_t k = 0; k < i; k++)
		n += strcmp(l[k].addr, l[i].addr) == 0;
	return n;
}

static struct listen_socket *find(const struct listen_set *set, enum listen_kind kind,
				  const struct cfg_listener *l, size_t i, unsigned position)
{
	unsigned ordinal = ordinal_of(l, i);

	if (kind == LISTEN_ADMIN || l[i].is_unix)
		position = 0;
	for (struct listen_socket *s = set->v; s < set->v + set->n; s++) {
		if (s->kind == kind && s->ordinal == ordinal && s->position == position &&
		    strcmp(s->addr, l[i].addr) == 0)
			return s;
	}
	return NULL;
}

static struct listen_socket *append(struct listen_set *set)
{
	if (set->n == set->cap) {
		size_t cap = set->cap == 0 ? 16 : set->cap * 2;
		struct listen_socket *v = realloc(set->v, cap * sizeof(*v));

		if (v == NULL)
			return NULL;
		set->v = v;
		set->cap = cap;
	}
	return &set->v[set->n];
}

static void socket_close(struct listen_socket *s)
{
	struct stat st;

	if (s->path != NULL && s->fd != -1 && lstat(s->path, &st) == 0 && st.st_dev == s->dev &&
	    st.st_ino == s->ino)
		unlink(s->path);
	if (s->fd != -1)
		close(s->fd);
	free(s->addr);
	free(s->path);
}

/* Open one socket. The port of its siblings, if there are some, is its own. */
static int open_one(struct listen_set *set, enum listen_kind kind, const struct cfg_listener *l, size_t i,
		    unsigned position, unsigned retry_ms)
{
	const struct listen_socket *sibling = NULL;
	uint16_t port;
	struct listen_socket *s;

	for (unsigned p = 0; sibling == NULL && p < CFG_MAX_WORKERS; p++)
		sibling = find(set, kind, l, i, p);
	port = sibling == NULL ? 0 : sibling->port;
	s = append(set);
	if (s == NULL)
		return -1;
	*s = (struct listen_socket){.addr = strdup(l[i].addr),
				    .kind = kind,
				    .ordinal = ordinal_of(l, i),
				    .position = position,
				    .is_unix = l[i].is_unix,
				    .fd = -1};
	if (s->addr == NULL ||
	    (l[i].is_unix ? unix_open(s, &l[i]) : tcp_open(s, &l[i], port, retry_ms)) == -1) {
		int saved = errno;

		socket_close(s);
		errno = saved;
		return -1;
	}
	set->n++;
	return 0;
}

/* What a reload may have changed about a socket that stays. Client TCP sockets get their backlog from their
 * workers: listen() here would put one back that has left the group. */
static int adjust(const struct listen_socket *s, const struct cfg_listener *l)
{
	if (s->is_unix && chmod(s->path, l->mode) == -1)
		return -1;
	return s->is_unix || s->kind == LISTEN_ADMIN ? listen(s->fd, l->backlog) : 0;
}

static int open_kind(struct listen_set *set, const struct config *c, enum listen_kind kind, unsigned retry_ms,
		     struct buf *error)
{
	size_t n;
	const struct cfg_listener *l = listeners_of(c, kind, &n);

	for (size_t i = 0; i < n; i++) {
		unsigned positions = kind == LISTEN_CLIENT && !l[i].is_unix ? c->workers : 1;

		for (unsigned p = 0; p < positions; p++) {
			const struct listen_socket *s = find(set, kind, l, i, p);

			if ((s != NULL ? adjust(s, &l[i]) : open_one(set, kind, l, i, p, retry_ms)) == -1)
				return fail(error, l[i].addr,
					    errno == ENOTSOCK ? "the file exists and is no socket"
							      : strerror(errno));
		}
	}
	return 0;
}

int listen_open(struct listen_set *set, const struct config *c, unsigned retry_ms, struct buf *error)
{
	size_t before = set->n;

	if (open_kind(set, c, LISTEN_CLIENT, retry_ms, error) == 0 &&
	    open_kind(set, c, LISTEN_ADMIN, retry_ms, error) == 0)
		return 0;
	while (set->n > before)
		socket_close(&set->v[--set->n]);
	return -1;
}

int listen_fd(const struct listen_set *set, const struct config *c, enum listen_kind kind, size_t i,
	      unsigned position)
{
	size_t n;
	const struct cfg_listener *l = listeners_of(c, kind, &n);
	const struct listen_socket *s = find(set, kind, l, i, position);

	return s == NULL ? -1 : s->fd;
}

int listen_addresses(const struct listen_set *set, const struct config *c, enum listen_kind kind,
		     struct buf *out)
{
	size_t n;
	const struct cfg_listener *l = listeners_of(c, kind, &n);

	for (size_t i = 0; i < n; i++) {
		const struct listen_socket *s = find(set, kind, l, i, 0);
		const char *comma = i == 0 ? "" : ",", *host = l[i].host;
		int rc;

		if (s == NULL || l[i].is_unix)
			rc = buf_printf(out, "%s%s", comma, l[i].addr);
		else
			rc = buf_printf(out,
					host != NULL && strchr(host, ':') != NULL ? "%s[%s]:%u" : "%s%s:%u",
					comma, host == NULL || *host == '\0' ? "*" : host, s->port);
		if (rc == -1)
			return -1;
	}
	return 0;
}

static void want_kind(struct listen_set *set, const struct config *c, enum listen_kind kind)
{
	size_t n;
	const struct cfg_listener *l = listeners_of(c, kind, &n);

	for (size_t i = 0; i < n; i++) {
		for (unsigned p = 0; p < c->workers; p++) {
			struct listen_socket *s = find(set, kind, l, i, p);

			if (s != NULL)
				s->is_wanted = true;
		}
	}
}

static void remove_unwanted(struct listen_set *set)
{
	size_t kept = 0;

	for (size_t i = 0; i < set->n; i++) {
		if (set->v[i].is_wanted)
			set->v[kept++] = set->v[i];
		else
			socket_close(&set->v[i]);
	}
	set->n = kept;
}

void listen_keep(struct listen_set *set, const struct config *c)
{
	for (size_t i = 0; i < set->n; i++)
		set->v[i].is_wanted = false;
	want_kind(set, c, LISTEN_CLIENT);
	want_kind(set, c, LISTEN_ADMIN);
	remove_unwanted(set);
}

void listen_close(struct listen_set *set, enum listen_kind kind)
{
	for (size_t i = 0; i < set->n; i++)
		set->v[i].is_wanted = set->v[i].kind != kind;
	remove_unwanted(set);
	if (set->n == 0) {
		free(set->v);
		*set = (struct listen_set){0};
	}
}
