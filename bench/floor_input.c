/* floor_input.c - where the floor's messages come from: a clock, an HTTP publish port, or Redis. */
#include "bench/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench/payload.h"
#include "common/clock.h"

#define PUBLISHERS  64
#define REQUEST_MAX (17u << 20)
#define TURN_MS     100
#define PIPELINE    64 /* no client sends more before the answers */

int floor_listen(const char *addr, bool reuse_port, struct sockaddr_in *bound)
{
	const char *colon = strrchr(addr, ':');
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof(*bound);
	char host[64];
	int fd, on = 1;

	if (!colon || (size_t)(colon - addr) >= sizeof(host))
		return -1;
	memcpy(host, addr, (size_t)(colon - addr));
	host[colon - addr] = '\0';
	in.sin_port = bound->sin_port ? bound->sin_port : htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
		return -1;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
	    (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1) ||
	    bind(fd, (struct sockaddr *)&in, sizeof(in)) == -1 || listen(fd, 4096) == -1 ||
	    getsockname(fd, (struct sockaddr *)bound, &len) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

uint32_t floor_number(const char *name, size_t n)
{
	uint32_t number = 0;
	size_t i = n;

	while (i > 0 && name[i - 1] >= '0' && name[i - 1] <= '9')
		i--;
	for (; i < n; i++)
		number = number * 10 + (uint32_t)(name[i] - '0');
	return number;
}

/* ---- a clock */

int floor_feed_rate(const struct floor_opts *o, struct floor_shared *sh)
{
	const uint64_t start = clock_mono_ns();
	uint8_t *payload = malloc(o->size);

	if (!payload)
		return 1;
	for (uint64_t g = 0; !floor_stop && (!o->messages || g < o->messages); g++) {
		struct payload_id id = {o->run, 0, 0, (uint32_t)g,
					start + (uint64_t)((double)g / o->rate * 1e9)};
		struct timespec due = {(time_t)(id.time_ns / 1000000000u), (long)(id.time_ns % 1000000000u)};

		if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0)
			break;
		payload_put(payload, o->size, &id, o->binary);
		if (floor_put(o, sh, 0, payload, o->size) == -1 || floor_wake(sh, o->workers) == -1)
			break;
	}
	while (!floor_stop)
		poll(NULL, 0, TURN_MS);
	free(payload);
	return 0;
}

/* ---- POST /api/publish: the body's "text" is taken as it stands, unescaped (bench payloads need no escapes)
 */

struct request {
	char *p;
	size_t len, cap;
};

static int request_room(struct request *r)
{
	size_t cap = r->cap ? r->cap * 2 : 65536;
	char *p;

	if (r->cap - r->len > 1)
		return 0;
	if (cap > 2 * REQUEST_MAX || !(p = realloc(r->p, cap)))
		return -1;
	r->p = p;
	r->cap = cap;
	return 0;
}

/* The number of the channel that a body names, 0 without one. */
static uint32_t request_channel(const char *body, size_t size)
{
	static const char mark[] = "\"channel\":\"";
	const char *name = memmem(body, size, mark, sizeof(mark) - 1), *quote;

	if (!name)
		return 0;
	name += sizeof(mark) - 1;
	quote = memchr(name, '"', (size_t)(body + size - name));
	return quote ? floor_number(name, (size_t)(quote - name)) : 0;
}

/* Handle one complete request `at` bytes into the buffer. Returns its bytes, 0 if it is not complete, -1 if
 * bad. */
static ssize_t request_take(const struct floor_opts *o, struct floor_shared *sh, const struct request *r,
			    size_t at)
{
	static const char mark[] = "\"text\":\"";
	const char *begin = r->p + at, *end = memmem(begin, r->len - at, "\r\n\r\n", 4), *length, *text,
		   *quote;
	size_t body, size;

	if (!end)
		return 0;
	length = strcasestr(begin, "\r\nContent-Length:");
	if (!length || length > end)
		return -1;
	size = strtoul(length + 17, NULL, 10);
	body = (size_t)(end + 4 - begin);
	if (size > REQUEST_MAX)
		return -1;
	if (r->len - at - body < size)
		return 0;
	text = memmem(end + 4, size, mark, sizeof(mark) - 1);
	quote = text ? memrchr(end + 4, '"', size) : NULL;
	if (!text || quote < text + sizeof(mark) - 1)
		return -1;
	text += sizeof(mark) - 1;
	if (floor_put(o, sh, request_channel(end + 4, size), text, (size_t)(quote - text)) == -1)
		return -1;
	return (ssize_t)(body + size);
}

static int request_answer(int fd, size_t n)
{
	static const char reply[] =
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
		"{\"result\":{}}";
	static char all[PIPELINE * (sizeof(reply) - 1)];
	const size_t size = sizeof(reply) - 1;

	for (size_t i = 0; i < n; i++)
		memcpy(all + i * size, reply, size);
	return send(fd, all, n * size, MSG_NOSIGNAL) == (ssize_t)(n * size) ? 0 : -1;
}

/* What has come on a connection: at most PIPELINE requests before their answers, in one piece. */
static int request_serve(const struct floor_opts *o, struct floor_shared *sh, struct request *r, int fd)
{
	ssize_t n, used, done = 0, count = 0;

	if (request_room(r) == -1)
		return -1;
	n = recv(fd, r->p + r->len, r->cap - r->len - 1, MSG_DONTWAIT);
	if (n == -1 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		return -1;
	r->len += (size_t)n;
	r->p[r->len] = '\0';
	for (; count < PIPELINE && (used = request_take(o, sh, r, (size_t)done)) != 0; count++) {
		if (used == -1)
			return -1;
		done += used;
	}
	r->len -= (size_t)done;
	memmove(r->p, r->p + done, r->len + 1);
	return floor_wake(sh, o->workers) == -1 ? -1 : request_answer(fd, (size_t)count);
}

int floor_feed_http(const struct floor_opts *o, struct floor_shared *sh)
{
	static struct request req[PUBLISHERS + 1];
	static struct pollfd fds[PUBLISHERS + 1];
	struct sockaddr_in bound = {0};
	nfds_t n = 1;
	int on = 1;

	fds[0] = (struct pollfd){.fd = floor_listen(o->publish, false, &bound), .events = POLLIN};
	if (fds[0].fd == -1)
		return 1;
	printf("publish %d\n", ntohs(bound.sin_port));
	fflush(stdout);
	while (!floor_stop) {
		if (poll(fds, n, TURN_MS) == -1)
			continue;
		for (nfds_t i = n - 1; i > 0; i--) {
			if (!fds[i].revents || request_serve(o, sh, &req[i], fds[i].fd) == 0)
				continue;
			close(fds[i].fd);
			free(req[i].p);
			fds[i] = fds[n - 1];
			req[i] = req[--n];
			memset(&req[n], 0, sizeof(req[n]));
		}
		if (fds[0].revents && n <= PUBLISHERS) {
			int fd = accept4(fds[0].fd, NULL, NULL, SOCK_CLOEXEC);

			if (fd != -1 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0)
				fds[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
		}
	}
	return 0;
}

/* ---- Redis: one plain subscriber, to a pattern when there are many channels */

static redisContext *subscribe(const struct floor_opts *o)
{
	const struct timeval tv = {.tv_sec = 5};
	const char *colon = strrchr(o->redis, ':');
	redisContext *c = NULL;
	redisReply *reply;
	char host[64];

	if (strncmp(o->redis, "unix:", 5) == 0) {
		c = redisConnectUnixWithTimeout(o->redis + 5, tv);
	} else if (colon && (size_t)(colon - o->redis) < sizeof(host)) {
		memcpy(host, o->redis, (size_t)(colon - o->redis));
		host[colon - o->redis] = '\0';
		c = redisConnectWithTimeout(host, (int)strtol(colon + 1, NULL, 10), tv);
	}
	if (!c || c->err)
		return NULL;
	reply = redisCommand(c, "%s %s", o->channels ? "PSUBSCRIBE" : "SUBSCRIBE", o->channel);
	if (!reply || reply->type != REDIS_REPLY_ARRAY)
		return NULL;
	freeReplyObject(reply);
	return c;
}

/* "message", channel, payload; or "pmessage", pattern, channel, payload. */
static int take_message(const struct floor_opts *o, struct floor_shared *sh, const redisReply *r)
{
	const size_t n = o->channels ? 4 : 3;
	const redisReply *name, *payload;

	if (r->type != REDIS_REPLY_ARRAY || r->elements != n || r->element[n - 1]->type != REDIS_REPLY_STRING)
		return 0;
	name = r->element[n - 2];
	payload = r->element[n - 1];
	return floor_put(o, sh, floor_number(name->str, (size_t)name->len), payload->str,
			 (size_t)payload->len);
}

static int take_messages(const struct floor_opts *o, struct floor_shared *sh, redisContext *c)
{
	redisReply *r;

	for (;;) {
		if (redisGetReplyFromReader(c, (void **)&r) != REDIS_OK)
			return -1;
		if (!r)
			return floor_wake(sh, o->workers);
		if (take_message(o, sh, r) == -1)
			return -1;
		freeReplyObject(r);
	}
}

int floor_feed_redis(const struct floor_opts *o, struct floor_shared *sh)
{
	redisContext *c = subscribe(o);
	struct pollfd p = {.fd = c ? c->fd : -1, .events = POLLIN};

	if (!c) {
		fprintf(stderr, "bench-floor: redis: no subscription\n");
		return 1;
	}
	while (!floor_stop) {
		if (poll(&p, 1, TURN_MS) <= 0)
			continue;
		if (redisBufferRead(c) != REDIS_OK || take_messages(o, sh, c) == -1) {
			fprintf(stderr, "bench-floor: redis: %s\n", c->err ? c->errstr : "a worker is stuck");
			return 1;
		}
	}
	redisFree(c);
	return 0;
}
