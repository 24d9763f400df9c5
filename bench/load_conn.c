/* load_conn.c - the sockets of a receiver: connect, upgrade, read, leave. */
#include "bench/load_conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/wsframe.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define HEAD_MAX 4096 /* of an answer to the upgrade */

/* One source address has 28,000 ports towards one target, and the kernel's search for a free one gets slow
 * when most are taken: spread over 127.0.1.x, and let connect() choose the port. */
static int bind_source(const struct receiver *r, const struct conn *c, int fd)
{
	const struct sockaddr_in *to = (const void *)&r->target.ss;
	struct sockaddr_in from = {.sin_family = AF_INET};
	int on = 1;

	if (r->target.ss.ss_family != AF_INET || ntohl(to->sin_addr.s_addr) >> 24 != 127)
		return 0;
	from.sin_addr.s_addr = htonl(0x7f000101u + c->index % r->o->sources);
	if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) == -1)
		return -1;
	return bind(fd, (struct sockaddr *)&from, sizeof(from));
}

static int epoll_set(const struct receiver *r, struct conn *c, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};

	return epoll_ctl(r->epfd, op, c->fd, &ev);
}

/* The window of a client that will not read is kept small, so that the server soon feels it. */
static int open_socket(struct receiver *r, struct conn *c)
{
	const bool small = r->o->rcvbuf && (c->role == ROLE_PAUSE || c->role == ROLE_STALL);
	const int size = (int)r->o->rcvbuf;

	c->fd = socket(r->target.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd == -1)
		return -1;
	if (small && setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == -1)
		return -1;
	if (bind_source(r, c, c->fd) == -1)
		return -1;
	if (connect(c->fd, (struct sockaddr *)&r->target.ss, r->target.len) == -1 && errno != EINPROGRESS)
		return -1;
	return epoll_set(r, c, EPOLL_CTL_ADD, EPOLLOUT);
}

void conn_start(struct receiver *r, struct conn *c)
{
	c->state = CONN_CONNECT;
	c->since_ns = r->now_ns;
	c->closing = c->paused = c->aimed = false;
	memset(&c->in, 0, sizeof(c->in));
	r->underway++;
	if (open_socket(r, c) == -1) {
		receiver_why(r, "connection %u: connect: %m", c->index);
		conn_gone(r, c, END_RESET);
	}
}

/* When the next try, or the next visit of churn, is due. */
static uint64_t again_ns(struct receiver *r, const struct conn *c)
{
	return r->now_ns +
	       (c->role == ROLE_CHURN ? receiver_random(r, 20) : 50 + receiver_random(r, 100)) * 1000000ull;
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

void conn_gone(struct receiver *r, struct conn *c, enum load_end end)
{
	const bool shaking = c->state == CONN_CONNECT || c->state == CONN_UPGRADE;

	if (c->fd != -1)
		close(c->fd); /* leaves the epoll set with it: nobody else holds the socket */
	c->fd = -1;
	r->underway -= shaking;
	if (!shaking)
		atomic_fetch_sub(&r->res->open, 1);
	if (shaking && !c->began && c->role != ROLE_CHURN)
		atomic_fetch_add(&r->res->failed, 1);
	else if (shaking && !r->o->may_close)
		r->res->ends[end]++;
	else if (!shaking && end != END_COUNT) {
		if (c->role == ROLE_STALL)
			r->res->stalled_ends[end]++;
		else
			r->res->ends[end]++;
	}
	if (c->role == ROLE_STEADY && !c->credited)
		gone_add(r, c);
	c->state = CONN_GONE;
	c->since_ns = again_ns(r, c);
}

static void refused(struct receiver *r, struct conn *c, const char *what)
{
	receiver_why(r, "connection %u: upgrade: %s", c->index, what);
	conn_gone(r, c, END_PROTOCOL);
}

static void send_upgrade(struct receiver *r, struct conn *c)
{
	char path[1024], head[2048];
	int n, err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 || err != 0) {
		errno = err;
		receiver_why(r, "connection %u: connect: %m", c->index);
		conn_gone(r, c, END_RESET);
		return;
	}
	if (load_expand(path, sizeof(path), r->o->path, c->channel) == 0) {
		refused(r, c, "path too long");
		return;
	}
	n = snprintf(head, sizeof(head),
		     "GET %s HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		     "Sec-WebSocket-Key: " LOAD_KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s\r\n",
		     path, r->o->header ? r->o->header : "", r->o->header ? "\r\n" : "");
	if (n < 0 || (size_t)n >= sizeof(head) || send(c->fd, head, (size_t)n, MSG_NOSIGNAL) != n ||
	    epoll_set(r, c, EPOLL_CTL_MOD, EPOLLIN) == -1) {
		refused(r, c, "request not sent");
		return;
	}
	c->state = CONN_UPGRADE;
}

static void opened(struct receiver *r, struct conn *c)
{
	hist_add(&r->res->handshake, r->now_ns - c->since_ns);
	r->underway--;
	atomic_fetch_add(&r->res->open, 1);
	c->state = CONN_OPEN;
	if (c->credited)
		gone_remove(r, c);
	check_open(r, c);
	if (c->role == ROLE_STALL)
		conn_pause(r, c);
	if (c->role == ROLE_CHURN)
		c->since_ns = r->now_ns + (1 + receiver_random(r, 2 * r->o->churn_ms)) * 1000000ull;
	if (c->began || c->role == ROLE_CHURN)
		r->res->joins++;
	else
		atomic_fetch_add(&r->res->opened, 1);
	c->began = true;
}

/* Look at the answer without taking it, so that frames behind the head stay in the socket and no connection
 * needs a buffer for a head in pieces. */
static void read_upgrade(struct receiver *r, struct conn *c)
{
	char *head = (char *)r->room, *end, *accept;
	ssize_t n = recv(c->fd, head, HEAD_MAX, MSG_PEEK);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		refused(r, c, n == 0 ? "closed" : strerror(errno));
		return;
	}
	head[n] = '\0';
	end = strstr(head, "\r\n\r\n");
	if (!end) {
		if (n == HEAD_MAX)
			refused(r, c, "answer too long");
		return;
	}
	end[2] = '\0';
	accept = strcasestr(head, "\r\nSec-WebSocket-Accept: " LOAD_ACCEPT "\r\n");
	if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || !accept) {
		head[strcspn(head, "\r\n")] = '\0';
		refused(r, c, head);
		return;
	}
	if (recv(c->fd, head, (size_t)(end + 4 - head), 0) != end + 4 - head) {
		refused(r, c, "answer vanished");
		return;
	}
	opened(r, c);
}

static void read_frames(struct receiver *r, struct conn *c)
{
	struct check_arg arg = {r, c, END_PROTOCOL};
	ssize_t n = recv(c->fd, r->room + WSIN_STASH, READ_SIZE, 0);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	r->now_ns = clock_mono_ns();
	r->res->recvs++;
	if (n <= 0)
		arg.end = n == 0 ? END_EOF : END_RESET;
	else if (wsin_feed(&c->in, r->room + WSIN_STASH, (size_t)n, &check_ops, &arg) == 0)
		return;
	if (c->state == CONN_LEAVING) {
		r->res->leaves++;
		arg.end = END_COUNT;
	} else if (c->role != ROLE_STALL) {
		receiver_why(r, "connection %u: ended by the server (%s)", c->index,
			     c->closing ? "Close"
			     : n <= 0   ? "no Close"
					: "protocol");
	}
	conn_gone(r, c, arg.end);
}

void conn_event(struct receiver *r, struct conn *c, uint32_t events)
{
	(void)events; /* an error shows in the next call on the socket as well */
	switch (c->state) {
	case CONN_CONNECT:
		send_upgrade(r, c);
		break;
	case CONN_UPGRADE:
		read_upgrade(r, c);
		break;
	case CONN_OPEN:
	case CONN_LEAVING:
		read_frames(r, c);
		break;
	default:
		break;
	}
}

/* Out of the set altogether: with no event asked for, epoll would still report a reset, over and over. */
void conn_pause(struct receiver *r, struct conn *c)
{
	if (!c->paused && epoll_set(r, c, EPOLL_CTL_DEL, 0) == 0)
		c->paused = true;
}

void conn_resume(struct receiver *r, struct conn *c)
{
	if (c->paused && epoll_set(r, c, EPOLL_CTL_ADD, EPOLLIN) == 0)
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
