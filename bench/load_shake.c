/* load_shake.c - from a socket to the 101 and the first frames (load_conn.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/load_conn.h"
#include "bench/load_text.h"

static void refused(struct receiver *r, struct conn *c, const char *what)
{
	receiver_why(r, "connection %u: upgrade: %s", c->index, what);
	conn_gone(r, c, END_PROTOCOL);
}

int shake_send(struct receiver *r, struct conn *c)
{
	char head[LOAD_REQUEST_MAX];
	const size_t n = load_request(head, sizeof(head), r->o, r->o->path, c->channel, c->index);
	ssize_t sent;

	if (n == 0) {
		refused(r, c, "the request is longer than 8 KB");
		return -1;
	}
	sent = send(c->fd, head, n, MSG_NOSIGNAL);
	if (sent == -1 && errno == EAGAIN)
		return 0;
	if (sent != (ssize_t)n) {
		refused(r, c, sent == -1 ? strerror(errno) : "request not sent");
		return -1;
	}
	c->state = CONN_UPGRADE;
	return 1;
}

static int send_first_frames(struct receiver *r, struct conn *c)
{
	static uint8_t frames[64u << 10]; /* more than a socket takes at once is no first frame */
	ssize_t n;

	if (r->o->first_frames.n == 0)
		return 0;
	n = load_first_frames(frames, sizeof(frames), r->o, c->channel, c->index);
	if (n > 0 && send(c->fd, frames, (size_t)n, MSG_NOSIGNAL) == n)
		return 0;
	refused(r, c, n > 0 ? "first frames not sent" : "first frames too long");
	return -1;
}

/* Keep what has come so far; rare: a head comes in one piece nearly always. */
static int keep(struct receiver *r, struct conn *c, const char *text, size_t n)
{
	if (n >= HEAD_MAX) {
		refused(r, c, "answer too long");
		return -1;
	}
	if (!c->part)
		c->part = malloc(sizeof(*c->part));
	if (!c->part) {
		refused(r, c, "out of memory");
		return -1;
	}
	memcpy(c->part->text, text, n);
	c->part->len = (uint32_t)n;
	return 0;
}

/* The head stands at `head`, n bytes with what follows it. */
static ssize_t answered(struct receiver *r, struct conn *c, char *head, size_t n, char *end)
{
	const char *fault;
	const size_t size = (size_t)(end + 4 - head);

	end[2] = '\0';
	fault = load_answer_fault(r->o, head);
	if (fault) {
		refused(r, c, fault);
		return -1;
	}
	if (send_first_frames(r, c) == -1)
		return -1;
	conn_opened(r, c);
	return (ssize_t)(n - size);
}

/* The earlier part goes in front of the new bytes; the room has HEAD_MAX more than a read takes. */
static char *join(struct receiver *r, struct conn *c, size_t *n)
{
	char *text = (char *)r->room + WSIN_STASH;

	if (c->part) {
		memmove(text + c->part->len, text, *n);
		memcpy(text, c->part->text, c->part->len);
		*n += c->part->len;
		free(c->part);
		c->part = NULL;
	}
	return text;
}

ssize_t shake_read(struct receiver *r, struct conn *c, size_t n, uint8_t **rest)
{
	char *head = join(r, c, &n);
	char *end = memmem(head, n, "\r\n\r\n", 4);
	ssize_t left;

	if (!end)
		return keep(r, c, head, n);
	left = answered(r, c, head, n, end);
	*rest = (uint8_t *)end + 4;
	return left;
}
