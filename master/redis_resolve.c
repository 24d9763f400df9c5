#include "master/redis_resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Enough for getaddrinfo() with any NSS module seen; the default of 8 MiB would be charged to memory limits.
 */
#define STACK_BYTES (256 * 1024)

struct redis_resolve {
	_Atomic int holders; /* loop and thread */
	int fd;              /* eventfd: written by the thread when addrs is complete */
	uint16_t port;
	struct redis_addrs addrs;
	struct ev_loop *loop; /* below: the loop's side only */
	ev_io io;
	redis_resolve_fn *done;
	void *arg;
	char host[];
};

static void collect(const struct addrinfo *ai, struct redis_addrs *out)
{
	out->n = 0;
	for (; ai != NULL && out->n < REDIS_ADDRS_MAX; ai = ai->ai_next) {
		struct redis_addr *a = &out->addr[out->n];

		if (ai->ai_addrlen > sizeof(a->in6))
			continue;
		memcpy(&a->in6, ai->ai_addr, ai->ai_addrlen);
		a->len = ai->ai_addrlen;
		out->n++;
	}
}

static int look_up(const char *host, uint16_t port, int flags, struct redis_addrs *out)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
	struct addrinfo *ai = NULL;
	char service[8];
	int rc;

	out->n = 0;
	snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(host, service, &hints, &ai);
	if (rc != 0)
		return rc;
	collect(ai, out);
	freeaddrinfo(ai);
	return 0;
}

bool redis_resolve_numeric(const char *host, uint16_t port, struct redis_addrs *out)
{
	return look_up(host, port, AI_NUMERICHOST | AI_NUMERICSERV, out) == 0 && out->n > 0;
}

static void release(struct redis_resolve *q)
{
	/* acq_rel, pairs with itself: the last holder must see all that the other one did before it frees. */
	if (atomic_fetch_sub_explicit(&q->holders, 1, memory_order_acq_rel) != 1)
		return;
	close(q->fd);
	free(q);
}

static void *thread_main(void *arg)
{
	struct redis_resolve *q = arg;
	uint64_t one = 1;
	ssize_t n;

	(void)look_up(q->host, q->port, AI_NUMERICSERV | AI_ADDRCONFIG, &q->addrs);
	/* The write publishes q->addrs to the loop, which reads it only after its read of the eventfd. */
	do
		n = write(q->fd, &one, sizeof(one));
	while (n == -1 && errno == EINTR);
	release(q);
	return NULL;
}

static int start_thread(struct redis_resolve *q)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	rc = pthread_attr_init(&attr);
	if (rc != 0)
		return rc;
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* inherited: signals are the loop's business */
	rc = pthread_create(&thread, &attr, thread_main, q);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}

static void on_answer(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_resolve *q = w->data;
	uint64_t count;

	(void)revents;
	if (read(q->fd, &count, sizeof(count)) != sizeof(count))
		return;
	ev_io_stop(loop, &q->io);
	q->done(q->arg, &q->addrs);
	release(q);
}

struct redis_resolve *redis_resolve_start(struct ev_loop *loop, const char *host, uint16_t port,
					  redis_resolve_fn *done, void *arg)
{
	size_t len = strlen(host);
	struct redis_resolve *q = calloc(1, sizeof(*q) + len + 1);
	int rc;

	if (q == NULL)
		return NULL;
	memcpy(q->host, host, len + 1);
	q->port = port;
	q->loop = loop;
	q->done = done;
	q->arg = arg;
	q->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (q->fd == -1) {
		free(q);
		return NULL;
	}
	atomic_store_explicit(&q->holders, 2, memory_order_relaxed); /* pthread_create() orders it */
	rc = start_thread(q);
	if (rc != 0) {
		close(q->fd);
		free(q);
		errno = rc;
		return NULL;
	}
	ev_io_init(&q->io, on_answer, q->fd, EV_READ);
	q->io.data = q;
	ev_io_start(loop, &q->io);
	return q;
}

void redis_resolve_cancel(struct redis_resolve *q)
{
	if (q == NULL)
		return;
	ev_io_stop(q->loop, &q->io);
	release(q);
}
