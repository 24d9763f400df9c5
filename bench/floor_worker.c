/* floor_worker.c - a worker of the floor: accept, canned 101, and a bare loop of send(). */
#include "bench/floor.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/sha.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#include "common/base64.h"
#include "common/clock.h"

#define FDS_MAX    20000
#define EVENTS_MAX 256
#define GUID       "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define KEY_SIZE   24

struct worker {
	const struct floor_opts *o;
	struct floor_shared *sh;
	uint32_t slot;
	int epfd, listener;
	struct floor_uring *uring;
	uint32_t n;               /* sockets that get messages */
	int fds[FDS_MAX];         /* ... themselves */
	uint16_t at[FDS_MAX];     /* by descriptor: place in fds + 1, 0 = no 101 yet */
	int *member;              /* with channels: the channel's socket, 0 = none here */
	uint32_t number[FDS_MAX]; /* ... and by descriptor, its channel */
	const uint8_t *bytes;     /* of the batch under way, for sockets that were full */
	size_t len;
};

static void drop(struct worker *w, int fd)
{
	if (w->at[fd]) {
		int last = w->fds[--w->n];

		w->fds[w->at[fd] - 1] = last;
		w->at[last] = w->at[fd];
		w->at[fd] = 0;
		if (w->member && w->member[w->number[fd]] == fd)
			w->member[w->number[fd]] = 0;
	}
	close(fd);
}

/* A counter of this worker alone; the parent reads it at the end. */
static void add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

/* The socket was full: the floor has no memory for it, so everybody waits. */
static void finish(void *arg, int fd, size_t done)
{
	struct worker *w = arg;
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	while (done < w->len) {
		ssize_t n = send(fd, w->bytes + done, w->len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else if (errno != EAGAIN || poll(&p, 1, SEND_WAIT_MS) != 1) {
			if (shutdown(fd, SHUT_RDWR) == -1) /* leaves fds[] when epoll says so */
				return;
			return;
		}
	}
}

/* Send the bytes of k messages to each of n sockets. */
static void broadcast(struct worker *w, const int *fds, uint32_t n, const uint8_t *p, size_t len, uint32_t k)
{
	add(&w->sh->slot[w->slot].sends, n);
	add(&w->sh->slot[w->slot].deliveries, (uint64_t)n * k);
	w->bytes = p;
	w->len = len;
	if (w->uring) {
		if (floor_uring_send(w->uring, fds, n, p, len, finish, w) == -1)
			_exit(1);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		ssize_t done = send(fds[i], p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (unlikely(done != (ssize_t)len))
			finish(w, fds[i], done > 0 ? (size_t)done : 0);
	}
}

/* With channels: message m's only receiver, if it is with this worker. */
static void deliver(struct worker *w, uint64_t m)
{
	const struct floor_shared *sh = w->sh;
	const uint32_t i = m % FLOOR_INDEX;
	const int *fd = &w->member[sh->channel[i] < w->o->channels ? sh->channel[i] : 0];

	if (*fd)
		broadcast(w, fd, 1, sh->bytes + sh->begin[i], sh->end[i] - sh->begin[i], 1);
}

/* All that is there, up to `batch` messages in one send. */
static void pump(struct worker *w)
{
	struct floor_shared *sh = w->sh;
	uint64_t cursor = atomic_load_explicit(&sh->slot[w->slot].cursor, memory_order_relaxed);
	const uint64_t head = atomic_load(&sh->head);

	for (; w->member && cursor < head; cursor++) {
		deliver(w, cursor);
		if (cursor % 16 == 15 || cursor + 1 == head)
			atomic_store(&sh->slot[w->slot].cursor, cursor + 1);
	}
	while (cursor < head) {
		const uint32_t from = sh->begin[cursor % FLOOR_INDEX];
		uint32_t to = sh->end[cursor % FLOOR_INDEX], k = 1;

		for (; k < w->o->batch && cursor + k < head && sh->begin[(cursor + k) % FLOOR_INDEX] == to;
		     k++)
			to = sh->end[(cursor + k) % FLOOR_INDEX];
		broadcast(w, w->fds, w->n, sh->bytes + from, to - from, k);
		cursor += k;
		atomic_store(&sh->slot[w->slot].cursor, cursor);
	}
}

static void accept_some(struct worker *w)
{
	for (int i = 0; i < 64; i++) {
		struct epoll_event ev = {.events = EPOLLIN};
		int fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;

		if (fd == -1 && (errno == EMFILE || errno == ENFILE)) {
			close(w->listener); /* leaves the reuseport group */
			w->listener = -1;
			return;
		}
		if (fd == -1)
			return;
		ev.data.fd = fd;
		if (fd >= FDS_MAX || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1 ||
		    epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) == -1)
			close(fd);
	}
}

/* In the order of arrival; with channels also under the number that the path ends in. */
static void join(struct worker *w, int fd, const char *head, size_t n)
{
	const char *path = memchr(head, ' ', n),
		   *end = path ? memchr(path + 1, ' ', (size_t)(head + n - path - 1)) : NULL;

	w->fds[w->n++] = fd;
	w->at[fd] = (uint16_t)w->n;
	if (!w->member || !end)
		return;
	w->number[fd] = floor_number(path, (size_t)(end - path));
	if (w->number[fd] >= w->o->channels)
		w->number[fd] = 0;
	w->member[w->number[fd]] = fd;
}

static void answer(struct worker *w, int fd, const char *head, size_t n)
{
	static const char name[] = "\r\nSec-WebSocket-Key: ";
	const char *key = memmem(head, n, name, sizeof(name) - 1);
	unsigned char sum[SHA_DIGEST_LENGTH];
	char text[KEY_SIZE + sizeof(GUID)], reply[256];
	int len;

	if (!key || (size_t)(head + n - key) < sizeof(name) - 1 + KEY_SIZE) {
		drop(w, fd);
		return;
	}
	memcpy(text, key + sizeof(name) - 1, KEY_SIZE);
	memcpy(text + KEY_SIZE, GUID, sizeof(GUID) - 1);
	SHA1((const unsigned char *)text, KEY_SIZE + sizeof(GUID) - 1, sum);
	text[base64_encode((struct slice){(const char *)sum, sizeof(sum)}, text)] = '\0';
	len = snprintf(reply, sizeof(reply),
		       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		       "Sec-WebSocket-Accept: %s\r\n\r\n",
		       text);
	if (send(fd, reply, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) != len) {
		drop(w, fd);
		return;
	}
	join(w, fd, head, n);
}

/* A request to upgrade, an end, or something from a client that only a real server would care for. */
static void readable(struct worker *w, int fd)
{
	char buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n == -1 && errno == EAGAIN)
		return;
	if (n <= 0 || (w->at[fd] && (buf[0] & 0x0f) == 8))
		drop(w, fd);
	else if (!w->at[fd])
		answer(w, fd, buf, (size_t)n);
}

/* Say that we sleep, look once more, and only then sleep: pairs with floor_put() and floor_wake(). */
static int worker_sleep(struct worker *w, struct epoll_event *ev)
{
	struct floor_shared *sh = w->sh;
	int n, timeout = -1;

	atomic_store(&sh->slot[w->slot].asleep, 1);
	if (atomic_load(&sh->head) != atomic_load_explicit(&sh->slot[w->slot].cursor, memory_order_relaxed))
		timeout = 0;
	n = epoll_wait(w->epfd, ev, EVENTS_MAX, timeout);
	atomic_store(&sh->slot[w->slot].asleep, 0);
	return n;
}

static int worker_open(struct worker *w)
{
	struct epoll_event ev = {.events = EPOLLIN};

	w->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epfd == -1)
		return -1;
	ev.data.fd = w->listener;
	if (epoll_ctl(w->epfd, EPOLL_CTL_ADD, w->listener, &ev) == -1)
		return -1;
	ev.data.fd = w->sh->slot[w->slot].wake_fd;
	if (epoll_ctl(w->epfd, EPOLL_CTL_ADD, ev.data.fd, &ev) == -1)
		return -1;
	if (w->o->channels && !(w->member = calloc(w->o->channels, sizeof(int))))
		return -1;
	if (w->o->uring && !(w->uring = floor_uring_open()))
		return -1;
	return 0;
}

int floor_worker(const struct floor_opts *o, struct floor_shared *sh, uint32_t slot, int listener)
{
	static struct worker w;
	static struct epoll_event ev[EVENTS_MAX];
	uint64_t word;

	w.o = o;
	w.sh = sh;
	w.slot = slot;
	w.listener = listener;
	if (worker_open(&w) == -1) {
		fprintf(stderr, "bench-floor: worker %u: %s\n", slot, strerror(errno));
		return 1;
	}
	for (;;) {
		int n = worker_sleep(&w, ev);

		pump(&w);
		for (int i = 0; i < n; i++) {
			if (ev[i].data.fd == w.listener)
				accept_some(&w);
			else if (ev[i].data.fd != sh->slot[slot].wake_fd)
				readable(&w, ev[i].data.fd);
			else if (read(ev[i].data.fd, &word, sizeof(word)) == -1 && errno != EAGAIN)
				return 1;
		}
	}
}
