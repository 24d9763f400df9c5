/* load_conn.c - the sockets of a receiver: connect, read, leave. */
#include "bench/load_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/wsframe.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define ROUNDS_MAX 8 /* full reads of one connection in a row */

/* connect() chooses the port, not bind(): a port may then serve several pairs of addresses. */
static int bind_source(const struct receiver *r, const struct conn *c)
{
	struct load_addr from;
	int on = 1;

	if (r->o->from.total == 0 || r->target.ss.ss_family == AF_UNIX)
		return 0;
	from = load_source(&r->o->from, c->index);
	if (setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) == -1)
		return -1;
	return bind(c->fd, (struct sockaddr *)&from.ss, from.len);
}

int conn_watch(const struct receiver *r, struct conn *c, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};

	return epoll_ctl(r->epfd, op, c->fd, &ev);
}

static bool is_reluctant(const struct conn *c)
{
	return c->role == ROLE_PAUSE || c->role == ROLE_STALL || c->role == ROLE_SLOW;
}

/* The window of a client that will not read is kept small, so that the server soon feels it. */
static int open_socket(struct receiver *r, struct conn *c)
{
	const int size = (int)r->o->rcvbuf;

	c->fd = socket(r->target.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd == -1)
		return -1;
	if (size && is_reluctant(c) && setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == -1)
		return -1;
	if (bind_source(r, c) == -1)
		return -1;
	return connect(c->fd, (struct sockaddr *)&r->target.ss, r->target.len) == -1 && errno != EINPROGRESS
		       ? -1
		       : 0;
}

static void start_failed(struct receiver *r, struct conn *c)
{
	receiver_why(r, "connection %u: connect: %m", c->index);
	conn_gone(r, c, END_RESET);
}

void conn_start(struct receiver *r, struct conn *c, uint64_t due_ns)
{
	int sent;

	c->state = CONN_CONNECT;
	c->since_ns = due_ns;
	c->closing = c->paused = c->aimed = false;
	c->in.rem = 0;
	c->in.stash_len = 0;
	r->underway++;
	if (open_socket(r, c) == -1) {
		start_failed(r, c);
		return;
	}
	sent = shake_send(r, c);
	if (sent >= 0 && conn_watch(r, c, EPOLL_CTL_ADD, sent ? CONN_READS : EPOLLOUT) == -1)
		start_failed(r, c);
}

/* When the next try, or the next visit of churn, is due. */
static uint64_t again_ns(struct receiver *r, const struct conn *c)
{
	const bool soon = c->role == ROLE_CHURN || c->role == ROLE_STORM;

	return r->now_ns + (soon ? receiver_random(r, 20) : 50 + receiver_random(r, 100)) * 1000000ull;
}

static void gone_add(struct receiver *r, struct conn *c)
{
	c->credited = true;
	r->gone[r->n_gone++] = c->place;
}

static void gone_remove(struct receiver *r, struct conn *c)
{
	c->credited = false;
	for (uint32_t i = 0; i < r->n_gone; i++) {
		if (r->gone[i] == c->place) {
			r->gone[i] = r->gone[--r->n_gone];
			return;
		}
	}
}

/* Count an end that we did not want. */
static void count_end(struct receiver *r, struct conn *c, enum load_end end, bool shaking)
{
	struct load_result *res = r->res;

	if (c->storming && shaking)
		res->storm_refused++;
	else if (shaking && !c->began && c->role != ROLE_CHURN)
		atomic_fetch_add(&res->failed, 1);
	else if (shaking && !r->o->may_close)
		res->ends[end]++;
	else if (shaking || end == END_COUNT)
		return;
	else if (c->role == ROLE_STALL)
		res->stalled_ends[end]++;
	else if (c->role == ROLE_SLOW)
		res->slow_ends[end]++;
	else
		res->ends[end]++;
}

void conn_gone(struct receiver *r, struct conn *c, enum load_end end)
{
	const bool shaking = c->state == CONN_CONNECT || c->state == CONN_UPGRADE;

	if (c->fd != -1)
		close(c->fd); /* leaves the epoll set with it: nobody else holds the socket */
	c->fd = -1;
	free(c->part);
	c->part = NULL;
	r->underway -= shaking;
	if (!shaking)
		atomic_fetch_sub(&r->res->open, 1);
	count_end(r, c, end, shaking);
	if (c->role == ROLE_STEADY && !c->credited)
		gone_add(r, c);
	c->state = CONN_GONE;
	c->since_ns = again_ns(r, c);
}

void conn_opened(struct receiver *r, struct conn *c)
{
	hist_add(&r->res->handshake, r->now_ns - c->since_ns);
	r->underway--;
	atomic_fetch_add(&r->res->open, 1);
	c->state = CONN_OPEN;
	c->since_ns = r->now_ns;
	if (c->credited)
		gone_remove(r, c);
	check_open(r, c);
	if (c->began || c->role == ROLE_CHURN)
		r->res->joins++;
	else
		atomic_fetch_add(&r->res->opened, 1);
	c->began = true;
	roles_opened(r, c);
}

/* Whose end is it, and did we want it? */
static void ended(struct receiver *r, struct conn *c, enum load_end end, const char *how)
{
	if (c->state == CONN_LEAVING) {
		r->res->leaves++;
		end = END_COUNT;
	} else if (c->role != ROLE_STALL && c->role != ROLE_SLOW) {
		receiver_why(r, "connection %u: ended by the server (%s)", c->index, how);
	}
	conn_gone(r, c, end);
}

static bool check_bytes(struct receiver *r, struct conn *c, uint8_t *p, size_t n)
{
	struct check_arg arg = {r, c, END_PROTOCOL};

	if (wsin_feed(&c->in, p, n, &r->ops, &arg) == 0)
		return true;
	ended(r, c, arg.end, c->closing ? "Close" : "protocol");
	return false;
}

enum conn_read conn_read(struct receiver *r, struct conn *c, size_t max)
{
	uint8_t *at = r->room + WSIN_STASH;
	ssize_t n = recv(c->fd, at, max, 0);
	ssize_t left = n;

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return READ_NOTHING;
	if (n <= 0 && c->state == CONN_UPGRADE) {
		receiver_why(r, "connection %u: upgrade: %s", c->index, n == 0 ? "closed" : strerror(errno));
		conn_gone(r, c, END_PROTOCOL);
		return READ_OVER;
	}
	r->now_ns = clock_mono_ns();
	r->res->recvs += c->state != CONN_UPGRADE;
	if (n <= 0) {
		ended(r, c, n == 0 ? END_EOF : END_RESET, "no Close");
		return READ_OVER;
	}
	if (c->state == CONN_UPGRADE && (left = shake_read(r, c, (size_t)n, &at)) < 0)
		return READ_OVER;
	if (left > 0 && !check_bytes(r, c, at, (size_t)left))
		return READ_OVER;
	return (size_t)n == max ? READ_FULL : READ_SHORT;
}

/* Until a read comes short; where the server has ended it (`ends`) until that is read, for no other event
 * comes. */
static void read_on(struct receiver *r, struct conn *c, bool ends)
{
	enum conn_read was;
	int rounds = 0;

	do {
		if (++rounds > ROUNDS_MAX &&
		    !ends) { /* others wait, too: let epoll say once more that it is readable */
			if (conn_watch(r, c, EPOLL_CTL_MOD, CONN_READS) == -1)
				start_failed(r, c);
			return;
		}
		was = conn_read(r, c, READ_SIZE);
	} while (!c->paused && (was == READ_FULL || (ends && was == READ_SHORT)));
}

static void connected(struct receiver *r, struct conn *c)
{
	int sent, err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 || err != 0) {
		errno = err;
		start_failed(r, c);
		return;
	}
	sent = shake_send(r, c);
	if (sent >= 0 && conn_watch(r, c, EPOLL_CTL_MOD, sent ? CONN_READS : EPOLLOUT) == -1)
		start_failed(r, c);
}

void conn_event(struct receiver *r, struct conn *c, uint32_t events)
{
	if (c->state == CONN_CONNECT)
		connected(r, c);
	else if (c->state == CONN_UPGRADE || c->state == CONN_OPEN || c->state == CONN_LEAVING)
		read_on(r, c, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

/* Out of the set altogether: with no event asked for, epoll would still report a reset, over and over. */
void conn_pause(struct receiver *r, struct conn *c)
{
	if (!c->paused && conn_watch(r, c, EPOLL_CTL_DEL, 0) == 0)
		c->paused = true;
}

void conn_resume(struct receiver *r, struct conn *c)
{
	if (c->paused && conn_watch(r, c, EPOLL_CTL_ADD, CONN_READS) == 0)
		c->paused = false;
}

bool conn_control(struct conn *c, uint8_t opcode, const uint8_t *payload, uint64_t len)
{
	static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
	uint8_t frame[6 + 125];

	frame[0] = 0x80 | opcode;
	frame[1] = (uint8_t)(0x80 | len);
	memcpy(frame + 2, mask, 4);
	for (uint64_t i = 0; i < len; i++)
		frame[6 + i] = payload[i] ^ mask[i & 3];
	return send(c->fd, frame, 6 + len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(6 + len);
}

void conn_leave(struct receiver *r, struct conn *c, bool abrupt)
{
	static const uint8_t code[2] = {1000 >> 8, 1000 & 0xff};

	if (abrupt || !conn_control(c, WS_CLOSE, code, 2)) {
		r->res->leaves++;
		conn_gone(r, c, END_COUNT);
		return;
	}
	c->state = CONN_LEAVING;
	c->since_ns = r->now_ns + LEAVE_NS;
}
