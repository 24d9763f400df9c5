/* accept.c - listeners of this worker: accept in batches, leave the reuseport group when full, come back. */
#include <errno.h>
#include <stdlib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/handshake.h"
#include "worker/memory.h"
#include "worker/worker.h"

#define ACCEPT_BATCH 64 /* of one listener and loop turn: the others' clients wait for it */
#define LEAVE_MAX                                                                                            \
	8192 /* queued connections that are answered before a listener is left, however many still come */
#define COME_BACK_GAP 16  /* free places before a full worker listens again: no flapping at the limit */
#define PACE_MS       20  /* accept_rate: for how long credit is saved, and how long to wait without */
#define REST_MS       500 /* pause when the system has no descriptor or memory for another connection */

/* The kernel's own sizing lets one client that never reads take 4 MB. It doubles what it is told. */
static void set_send_buffer(const struct worker *w, int fd)
{
	int size = (int)w->config->limits.send_buffer;

	if (size > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == -1)
		log_event(LOG_WARN, "listen", "errno=%d msg=\"cannot set SO_SNDBUF\"", errno);
}

/* Options that accepted sockets inherit from the listener: one syscall a listener, not two a connection. */
static void set_inherited(const struct worker *w, const struct acceptor *a)
{
	int on = 1;

	if (!a->is_unix && setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1)
		log_event(LOG_WARN, "listen", "errno=%d msg=\"cannot set TCP_NODELAY\"", errno);
	set_send_buffer(w, a->fd);
}

/* Connections of all workers, for limits.max_connections. */
static uint64_t host_connections(const struct worker *w)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		const struct counters *c = counters_block(w->all_counters, i);

		if (atomic_load_explicit(&w->globals->worker[i].state, memory_order_relaxed) != WORKER_EMPTY)
			n += count_get(&c->connections) + count_get(&c->handshaking);
	}
	return n;
}

/* Over a limit that is answered with 503 (the worker itself has room for the descriptor). */
static bool is_over_limit(const struct worker *w)
{
	const struct cfg_limits *l = &w->config->limits;

	if (l->max_handshakes != 0 && w->conns.n_handshaking >= l->max_handshakes)
		return true;
	return l->max_connections != 0 && host_connections(w) >= l->max_connections;
}

static void refuse(struct worker *w, int fd, enum count_refused reason)
{
	char answer[HANDSHAKE_REFUSAL_SIZE];
	size_t len = handshake_refusal(answer, sizeof(answer), 503);

	count_add(&w->count->refused[reason], 1);
	if (send(fd, answer, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len)
		(void)shutdown(fd, SHUT_WR);
	(void)recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
	close(fd);
}

static bool is_full(const struct worker *w)
{
	return w->conns.n >= w->conns.max;
}

/* The system gives no more: look at the listeners again in a while. What is queued stays queued. */
static void rest(struct worker *w, int error)
{
	log_event(LOG_WARN, "full", "total=%u errno=%d msg=\"no more descriptors or memory\"", w->conns.n,
		  error);
	w->accept_rest_ms = w->now_ms + REST_MS;
	for (size_t i = 0; i < w->n_acceptors; i++)
		ev_io_stop(w->loop, &w->acceptors[i].io);
}

static void start_watching(struct worker *w)
{
	for (size_t i = 0; i < w->n_acceptors; i++) {
		if (!w->acceptors[i].is_left)
			ev_io_start(w->loop, &w->acceptors[i].io);
	}
}

/* stop.accept_rate: this worker's share of it, as a bucket of PACE_MS (at least one connection). What is
 * beyond stays queued, and the listeners are looked at again a little later. */
static bool has_credit(struct worker *w)
{
	uint64_t rate = w->config->stop.accept_rate, share, most;

	if (rate == 0)
		return true;
	share = u64_max(rate / w->config->workers, 1);
	most = u64_max(share * PACE_MS, 1000);
	w->accept_credit = u64_min(w->accept_credit + (w->now_ms - w->accept_credit_ms) * share, most);
	w->accept_credit_ms = w->now_ms;
	if (w->accept_credit >= 1000)
		return true;
	for (size_t i = 0; i < w->n_acceptors; i++)
		ev_io_stop(w->loop, &w->acceptors[i].io);
	ev_timer_stop(w->loop, &w->accept_timer); /* a listener that came back meanwhile found it running */
	ev_timer_set(&w->accept_timer, (double)u64_max(1000 / share, PACE_MS / 2) / 1e3, 0.);
	ev_timer_start(w->loop, &w->accept_timer);
	return false;
}

static void on_paced(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct worker *w = timer->data;

	(void)loop;
	(void)events;
	if (w->accept_rest_ms == 0)
		start_watching(w);
}

void accept_tick(struct worker *w)
{
	if (w->accept_rest_ms == 0 || w->now_ms < w->accept_rest_ms)
		return;
	w->accept_rest_ms = 0;
	start_watching(w);
}

static void open_conn(struct worker *w, const struct acceptor *a, int fd)
{
	struct conn *c = conn_open(w, fd);

	if (c != NULL && a->is_proxied)
		c->flags |= CONN_PROXY;
}

/* Returns false when the queue is empty (or nothing more can be taken now). */
static bool accept_one(struct worker *w, struct acceptor *a)
{
	int fd = accept4(a->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd == -1) {
		if (errno == EAGAIN || errno == EINVAL) /* EINVAL: left the group meanwhile */
			return false;
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			rest(w, errno);
			return false;
		}
		return errno == EINTR || errno == ECONNABORTED || errno == EPROTO;
	}
	count_add(&w->count->accepted, 1);
	if (a->is_unix)
		set_send_buffer(w, fd); /* unix sockets inherit nothing */
	if (is_full(w) || is_over_limit(w))
		refuse(w, fd, COUNT_REFUSED_full);
	else if (memory_is_short(w))
		refuse(w, fd, COUNT_REFUSED_memory);
	else
		open_conn(w, a, fd);
	return true;
}

static void on_acceptable(struct ev_loop *loop, ev_io *io, int events)
{
	struct acceptor *a = (struct acceptor *)io->data;
	struct worker *w = a->worker;

	(void)loop;
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH && !is_full(w) && has_credit(w); i++) {
		if (!accept_one(w, a))
			break;
		if (w->accept_credit >= 1000)
			w->accept_credit -= 1000;
	}
	accept_update(w);
}

/* Out of the group: what is queued is accepted (or told 503) first, since the shutdown would reset it; then
 * new connections go to the other workers. A unix listener is shared: not watching it is enough. */
static void leave(struct worker *w, struct acceptor *a)
{
	for (int i = 0; i < LEAVE_MAX && !a->is_unix && accept_one(w, a); i++) {
		if (i % 64 == 63)
			slot_beat(&w->slot);
	}
	ev_io_stop(w->loop, &a->io);
	if (!a->is_unix && shutdown(a->fd, SHUT_RD) == -1)
		log_event(LOG_WARN, "listen", "errno=%d msg=\"cannot leave the group\"", errno);
	a->is_left = true;
}

static void come_back(struct worker *w, struct acceptor *a, int backlog)
{
	if (!a->is_unix && listen(a->fd, backlog) == -1) {
		log_event(LOG_WARN, "listen", "errno=%d msg=\"cannot listen again\"", errno);
		return;
	}
	a->is_left = false;
	if (w->accept_rest_ms == 0)
		ev_io_start(w->loop, &a->io);
}

void accept_update(struct worker *w)
{
	bool want_out = w->accept_paused || is_full(w);
	uint64_t gap = u64_min(COME_BACK_GAP, w->conns.max / 8 + 1);
	bool may_back = !w->accept_paused && w->conns.n + gap <= w->conns.max;

	for (size_t i = 0; i < w->n_acceptors; i++) {
		struct acceptor *a = &w->acceptors[i];

		if (!a->is_left && want_out)
			leave(w, a);
		else if (a->is_left && may_back)
			come_back(w, a, w->config->listens[i].backlog);
	}
}

void accept_abandon(struct worker *w)
{
	for (size_t i = 0; i < w->n_acceptors; i++) {
		ev_io_stop(w->loop, &w->acceptors[i].io);
		w->acceptors[i].is_left = true;
	}
	w->accept_paused = true;
}

int accept_start(struct worker *w)
{
	w->acceptors = calloc(w->config->n_listens, sizeof(*w->acceptors));
	if (w->acceptors == NULL)
		return -1;
	w->n_acceptors = w->config->n_listens;
	w->accept_credit_ms = w->now_ms;
	ev_timer_init(&w->accept_timer, on_paced, 0., 0.);
	w->accept_timer.data = w;
	for (size_t i = 0; i < w->n_acceptors; i++) {
		struct acceptor *a = &w->acceptors[i];

		a->worker = w;
		a->fd = w->boot->listen_fds[i];
		a->is_unix = w->config->listens[i].is_unix;
		a->is_proxied = w->config->listens[i].proxy_protocol;
		set_inherited(w, a);
		ev_io_init(&a->io, on_acceptable, a->fd, EV_READ);
		a->io.data = a;
		/* A predecessor in this place may have left the group and died there. */
		come_back(w, a, w->config->listens[i].backlog);
	}
	return 0;
}

void accept_stop(struct worker *w)
{
	for (size_t i = 0; i < w->n_acceptors; i++)
		ev_io_stop(w->loop, &w->acceptors[i].io);
	ev_timer_stop(w->loop, &w->accept_timer);
	free(w->acceptors);
	w->acceptors = NULL;
	w->n_acceptors = 0;
}
