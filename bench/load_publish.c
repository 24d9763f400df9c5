/* load_publish.c - when a publisher sends: by the clock, or as fast as the slowest client takes it. */
#include "bench/load_pub.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/payload.h"
#include "common/clock.h"

#define NAP_NS 20000000u /* how soon a stop is seen */

int pub_fail(struct pub *p, const char *fmt, ...)
{
	va_list ap;
	int n;

	p->ps->errors++;
	if (p->ps->why[0] == '\0') {
		va_start(ap, fmt);
		n = vsnprintf(p->ps->why, sizeof(p->ps->why), fmt, ap);
		va_end(ap);
		(void)n; /* cut is fine */
	}
	return -1;
}

int pub_connect(struct pub *p, const char *addr)
{
	const struct timeval tv = {.tv_sec = PUB_IO_MS / 1000};
	struct load_addr a;
	int fd, on = 1;

	if (load_addr_parse(addr, &a) == -1)
		return pub_fail(p, "bad address %s", addr);
	fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return pub_fail(p, "socket: %m");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == -1 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == -1 ||
	    connect(fd, (struct sockaddr *)&a.ss, a.len) == -1) {
		pub_fail(p, "%s: %m", addr);
		close(fd);
		return -1;
	}
	if (a.ss.ss_family != AF_UNIX && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1)
		pub_fail(p, "TCP_NODELAY: %m");
	return fd;
}

/* Move `done` over all messages that every steady client has had. */
static void advance(struct pub *p)
{
	const uint32_t channels = p->o->channels;

	if (p->o->no_check)
		p->done = p->next;
	while (p->done < p->next && atomic_load(&p->sh->got[p->number][p->done % LOAD_WINDOW]) >=
					    load_members(p->o, p->done % channels))
		p->done++;
}

static bool stopped(const struct pub *p)
{
	return atomic_load(&p->sh->phase) == PHASE_STOP;
}

/* How many messages the schedule has due `ns` after the start; whole bursts. */
static uint64_t due_by(const struct load_opts *o, uint64_t ns)
{
	uint64_t bursts = (uint64_t)((double)ns * 1e-9 * o->rate / o->burst) + 1;

	return bursts * o->burst;
}

/* When message g is due, in ns after the start. */
static uint64_t due_at(const struct load_opts *o, uint64_t g)
{
	const uint64_t whole_bursts = g - g % o->burst;

	return (uint64_t)((double)whole_bursts / o->rate * 1e9);
}

static uint64_t last_message(const struct load_opts *o)
{
	if (o->messages)
		return o->messages;
	return o->rate > 0 ? (uint64_t)(o->rate * o->duration_s + 0.5) : UINT32_MAX;
}

static uint32_t window(const struct load_opts *o)
{
	return o->inflight ? o->inflight : LOAD_WINDOW - PUB_BATCH;
}

/* How many messages may go out now. */
static uint32_t allowance(struct pub *p, uint64_t elapsed_ns)
{
	const struct load_opts *o = p->o;
	uint64_t room, due = last_message(o);

	if (o->rate > 0)
		due = u64_min(due, due_by(o, elapsed_ns));
	if (due <= p->next)
		return 0;
	if (p->next - p->done >= window(o) / 2)
		advance(p); /* not each time: it reads lines that receivers write */
	room = window(o) - u64_min(window(o), p->next - p->done);
	if (room == 0 && !o->inflight)
		p->ps->throttled++;
	return (uint32_t)u64_min(u64_min(room, due - p->next), PUB_BATCH);
}

/* Sleep for `ns`, or until a completion when the window is full, or something comes to read. */
static int nap(struct pub *p, uint64_t ns)
{
	struct timespec ts = {0};
	uint64_t word;
	int n;

	if (p->next - p->done >= window(p->o)) {
		atomic_store(&p->ps->asleep, 1); /* then look again; pairs with completed() in load_check.c */
		advance(p);
		if (p->next - p->done < window(p->o))
			ns = 0;
	}
	ts.tv_nsec = (long)u64_min(ns, NAP_NS);
	n = ppoll(p->fds, p->n_fds, &ts, NULL);
	atomic_store(&p->ps->asleep, 0);
	if (n <= 0)
		return n == -1 && errno != EINTR ? pub_fail(p, "poll: %m") : 0;
	if (p->fds[0].revents && read(p->fds[0].fd, &word, sizeof(word)) == -1 && errno != EAGAIN)
		return pub_fail(p, "eventfd: %m");
	return p->way->readable ? p->way->readable(p) : 0;
}

/* Nothing may go out now: wait for what would change that. */
static int wait_more(struct pub *p, uint64_t start_ns)
{
	const uint64_t now = clock_mono_ns();
	uint64_t due = start_ns;

	if (p->next - p->done >= window(p->o))
		return nap(p, NAP_NS);
	if (p->o->rate > 0)
		due += due_at(p->o, p->next);
	return nap(p, due > now ? due - now : 0);
}

static uint32_t size_of(const struct load_opts *o, uint32_t g)
{
	uint32_t range = o->size_max - o->size_min + 1;

	return o->size_min + (range > 1 ? (g * 2654435761u >> 7) % range : 0);
}

/* Send message p->next. With a schedule its time is the one it was due at, so that a late publisher does
 * not make the server look fast (no coordinated omission). */
static int send_one(struct pub *p, uint64_t start_ns)
{
	const struct load_opts *o = p->o;
	const uint32_t g = p->next, channel = g % o->channels, size = size_of(o, g);
	const uint64_t now = clock_mono_ns();
	struct payload_id id = {(uint16_t)o->run, (uint16_t)p->number, channel, g / o->channels, now};

	if (o->rate > 0) {
		id.time_ns = start_ns + due_at(o, g);
		if (now > id.time_ns)
			p->ps->late_max_ns = u64_max(p->ps->late_max_ns, now - id.time_ns);
	}
	payload_put(p->message + o->wrap.head_len, size, &id, o->binary);
	if (o->wrap.tail_len)
		memcpy(p->message + o->wrap.head_len + size, o->wrap.tail, o->wrap.tail_len);
	atomic_store(&p->sh->got[p->number][g % LOAD_WINDOW], 0);
	atomic_store(&p->ps->next, ++p->next);
	return p->way->send(p, channel, p->message, o->wrap.head_len + size + o->wrap.tail_len);
}

static int publish(struct pub *p)
{
	const struct load_opts *o = p->o;
	const uint64_t start_ns = atomic_load(&p->sh->start_ns), last = last_message(o);
	const uint64_t end_ns = (uint64_t)(o->duration_s * 1e9);

	while (p->next < last && !stopped(p)) {
		uint64_t now = clock_mono_ns(), elapsed = now > start_ns ? now - start_ns : 0;
		uint32_t n = now < start_ns ? 0 : allowance(p, elapsed);

		if (!o->messages && o->rate <= 0 && elapsed >= end_ns)
			break;
		for (uint32_t i = 0; i < n; i++)
			if (send_one(p, start_ns) == -1)
				return -1;
		if (n > 0 ? p->way->flush(p) == -1 : wait_more(p, start_ns) == -1)
			return -1;
	}
	return 0;
}

static const struct pub_way *way_of(enum load_source s)
{
	return s == SOURCE_REDIS ? &pub_redis : s == SOURCE_HTTP ? &pub_http : &pub_ws;
}

/* A WebSocket publisher is a subscriber, too: it stays and reads until the run is over. */
static void linger(struct pub *p)
{
	while (p->way->readable && !stopped(p))
		if (nap(p, NAP_NS) == -1)
			return;
}

int load_publisher(const struct load_opts *o, struct load_shared *sh, uint32_t number)
{
	struct pub p = {.o = o, .sh = sh, .ps = &sh->pub[number], .number = number, .n_fds = 1};
	int rc;

	p.way = way_of(o->source);
	p.fds[0] = (struct pollfd){.fd = p.ps->wake_fd, .events = POLLIN};
	p.message = malloc((size_t)o->wrap.head_len + o->size_max + o->wrap.tail_len);
	if (!p.message || prctl(PR_SET_TIMERSLACK, 1ul) == -1) {
		pub_fail(&p, "start: %m");
		return 1;
	}
	if (o->wrap.head_len)
		memcpy(p.message, o->wrap.head, o->wrap.head_len);
	rc = p.way->open(&p);
	atomic_store(&p.ps->opened, 1);
	while (rc == 0 && atomic_load(&sh->phase) < PHASE_PUBLISH)
		rc = nap(&p, 1000000);
	if (rc == 0)
		rc = publish(&p);
	atomic_store(&p.ps->sent, 1);
	if (rc == 0)
		linger(&p);
	p.way->close(&p);
	free(p.message);
	return rc == 0 ? 0 : 1;
}
