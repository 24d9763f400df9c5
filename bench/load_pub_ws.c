/* load_pub_ws.c - publish as a WebSocket client: one connection for each channel, a member of it, too.
 *
 * What the server sends is read and dropped, pings are answered; writing and reading take turns, for a server
 * that slows us down by not reading may itself be waiting for us to read.
 */
#include "bench/load_pub.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load_text.h"
#include "bench/wsin.h"
#include "common/wsframe.h"

#define READ_SIZE (64u << 10)

struct ws_link {
	int fd;
	struct buf out;
	struct wsin in;
};

struct ws_state {
	struct ws_link *links; /* one for each channel; fds[1 + i] watches link i */
	uint8_t room[WSIN_STASH + READ_SIZE];
	bool closed;
};

static int frame_append(struct ws_link *l, uint8_t opcode, const uint8_t *p, uint64_t len)
{
	static const uint8_t mask[4] = {0x5b, 0x1c, 0x93, 0xe6};
	uint8_t head[WS_HEADER_MAX + 4];
	size_t n = ws_header_put(head, opcode, len);
	char *to;

	head[1] |= 0x80;
	memcpy(head + n, mask, 4);
	if (buf_put(&l->out, head, n + 4) == -1 || buf_reserve(&l->out, len) == -1)
		return -1;
	to = l->out.p + l->out.len;
	for (uint64_t i = 0; i < len; i++)
		to[i] = (char)(p[i] ^ mask[i & 3]);
	l->out.len += len;
	return 0;
}

static bool in_frame(void *arg, uint8_t fin_op, const uint8_t *p, uint64_t len, uint64_t have)
{
	(void)have;
	if ((fin_op & 0x0f) == WS_PING)
		return frame_append(arg, WS_PONG, p, len) == 0;
	return (fin_op & 0x0f) != WS_CLOSE;
}

static void in_more(void *arg, const uint8_t *p, uint64_t n)
{
	(void)arg;
	(void)p;
	(void)n;
}

static bool in_end(void *arg)
{
	(void)arg;
	return true;
}

static int send_first_frames(struct pub *p, struct ws_link *l, uint32_t channel)
{
	static uint8_t frames[64u << 10];
	ssize_t n = load_first_frames(frames, sizeof(frames), p->o, channel, pub_conn_number(p, channel));

	if (n == -1 || (n > 0 && send(l->fd, frames, (size_t)n, MSG_NOSIGNAL) != n))
		return pub_fail(p, "first frames not sent");
	return 0;
}

static int upgrade(struct pub *p, struct ws_link *l, uint32_t channel)
{
	char head[LOAD_REQUEST_MAX], *end;
	const char *path = p->o->publish_path ? p->o->publish_path : p->o->path, *fault;
	const size_t n = load_request(head, sizeof(head), p->o, path, channel, pub_conn_number(p, channel));
	size_t have = 0;

	if (n == 0)
		return pub_fail(p, "the request is longer than 8 KB");
	if (send(l->fd, head, n, MSG_NOSIGNAL) != (ssize_t)n)
		return pub_fail(p, "upgrade: request not sent");
	for (;;) { /* byte by byte behind a peek: frames may follow */
		ssize_t got = recv(l->fd, head + have, 1, 0);

		if (got <= 0 || ++have == sizeof(head))
			return pub_fail(p, "upgrade: no answer");
		head[have] = '\0';
		end = strstr(have > 4 ? head + have - 4 : head, "\r\n\r\n");
		if (end)
			break;
	}
	head[have - 2] = '\0';
	fault = load_answer_fault(p->o, head);
	return fault ? pub_fail(p, "upgrade: %s", fault) : send_first_frames(p, l, channel);
}

static int link_open(struct pub *p, struct ws_link *l, uint32_t channel)
{
	int flags;

	l->fd = pub_connect(p, p->o->target);
	if (l->fd == -1 || upgrade(p, l, channel) == -1)
		return -1;
	flags = fcntl(l->fd, F_GETFL);
	if (flags == -1 || fcntl(l->fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return pub_fail(p, "fcntl: %m");
	p->fds[1 + channel] = (struct pollfd){.fd = l->fd, .events = POLLIN};
	return 0;
}

static int ws_open(struct pub *p)
{
	struct ws_state *s = calloc(1, sizeof(*s));

	p->state = s;
	if (!s || p->o->channels >= PUB_FDS)
		return pub_fail(p, "a WebSocket publisher takes at most %d channels", PUB_FDS - 1);
	s->links = calloc(p->o->channels, sizeof(*s->links));
	if (!s->links)
		return pub_fail(p, "out of memory");
	for (uint32_t i = 0; i < p->o->channels; i++)
		s->links[i].fd = -1;
	for (uint32_t i = 0; i < p->o->channels; i++)
		if (link_open(p, &s->links[i], i) == -1)
			return -1;
	p->n_fds = 1 + p->o->channels;
	return 0;
}

static int link_read(struct pub *p, struct ws_link *l)
{
	static const struct wsin_ops ops = {WSIN_HEAD, in_frame, in_more, in_end};
	struct ws_state *s = p->state;
	ssize_t n = recv(l->fd, s->room + WSIN_STASH, READ_SIZE, 0);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0 || wsin_feed(&l->in, s->room + WSIN_STASH, (size_t)n, &ops, l) == -1) {
		s->closed = true;
		return pub_fail(p, "ws: the server closed a publisher");
	}
	return 0;
}

static int link_write(struct pub *p, struct ws_link *l)
{
	ssize_t n = send(l->fd, l->out.p, l->out.len, MSG_NOSIGNAL);

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == -1)
		return pub_fail(p, "ws: %m");
	buf_shift(&l->out, (size_t)n);
	return 0;
}

/* One turn over the links, waiting up to `ms`. Returns 1 when nothing is left to write, 0, or -1. */
static int turn(struct pub *p, int ms)
{
	struct ws_state *s = p->state;
	int idle = 1;

	for (uint32_t i = 0; i < p->o->channels; i++)
		p->fds[1 + i].events = s->links[i].out.len ? POLLIN | POLLOUT : POLLIN;
	if (poll(p->fds + 1, p->o->channels, ms) == -1 && errno != EINTR)
		return pub_fail(p, "poll: %m");
	for (uint32_t i = 0; i < p->o->channels; i++) {
		struct ws_link *l = &s->links[i];

		if (p->fds[1 + i].revents & ~POLLOUT && link_read(p, l) == -1)
			return -1;
		if (l->out.len && link_write(p, l) == -1)
			return -1;
		idle &= l->out.len == 0;
		p->fds[1 + i].events = POLLIN;
	}
	return idle;
}

static int ws_send(struct pub *p, uint32_t channel, const uint8_t *payload, size_t len)
{
	struct ws_state *s = p->state;

	if (frame_append(&s->links[channel], p->o->binary ? WS_BINARY : WS_TEXT, payload, len) == -1)
		return pub_fail(p, "out of memory");
	return 0;
}

static int ws_flush(struct pub *p)
{
	int rc = turn(p, 0);

	for (int waited = 0; rc == 0 && waited < PUB_IO_MS / 20; waited++) {
		if (atomic_load(&p->sh->phase) == PHASE_STOP)
			return 0;
		rc = turn(p, 20);
	}
	return rc == 0 ? pub_fail(p, "ws: the server does not read") : rc == 1 ? 0 : -1;
}

static int ws_readable(struct pub *p)
{
	return turn(p, 0) == -1 ? -1 : 0;
}

static void ws_close(struct pub *p)
{
	struct ws_state *s = p->state;

	for (uint32_t i = 0; s && s->links && i < p->o->channels; i++) {
		if (s->links[i].fd != -1)
			close(s->links[i].fd);
		buf_free(&s->links[i].out);
	}
	if (s)
		free(s->links);
	free(s);
}

const struct pub_way pub_ws = {ws_open, ws_send, ws_flush, ws_readable, ws_close};
