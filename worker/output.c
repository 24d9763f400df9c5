#include "worker/output.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/wsframe.h"
#include "worker/input.h"
#include "worker/worker.h"

#define OUT_MAX 65536u /* bytes of control frames and replies that may wait */

/* Send now what the socket takes. Returns bytes taken (0 if it is full), or -1 if the connection is gone. */
static ssize_t send_now(struct worker *w, struct conn *c, const void *p, size_t len)
{
	ssize_t n = send(c->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
		return 0;
	conn_drop(w, c, false, 1006);
	return -1;
}

static bool is_clear(const struct conn *c)
{
	return (c->flags & CONN_BLOCKED) == 0 && (c->ext == NULL || c->ext->out.len == 0);
}

bool output_bytes(struct worker *w, struct conn *c, const void *p, size_t len)
{
	struct conn_ext *x;
	size_t done = 0;

	if (is_clear(c)) {
		ssize_t n = send_now(w, c, p, len);

		if (n == -1)
			return false;
		done = (size_t)n;
		if (done == len)
			return true;
	}
	x = conn_ext(c);
	if (x != NULL && x->out_off > 0) {
		buf_shift(&x->out, x->out_off);
		x->out_off = 0;
	}
	if (x == NULL || x->out.len + (len - done) > OUT_MAX ||
	    buf_put(&x->out, (const uint8_t *)p + done, len - done) == -1) {
		/* More answers wait than a client may leave unread. */
		conn_drop(w, c, true, 1013);
		return false;
	}
	c->flags |= CONN_BLOCKED;
	conn_arm(w, c);
	return true;
}

bool output_first(struct worker *w, struct conn *c, struct buf *first)
{
	ssize_t n = send_now(w, c, first->p, first->len);
	struct conn_ext *x;

	if (n == -1)
		return false;
	if ((size_t)n == first->len)
		return true;
	x = conn_ext(c);
	if (x == NULL) {
		conn_drop(w, c, true, 1011);
		return false;
	}
	buf_shift(first, (size_t)n);
	x->out = *first;
	*first = (struct buf){0};
	c->flags |= CONN_BLOCKED;
	conn_arm(w, c);
	return true;
}

static size_t pong_frame(uint8_t *dst, const uint8_t *p, size_t len)
{
	size_t n = ws_header_put(dst, WS_PONG, len);

	if (len > 0)
		memcpy(dst + n, p, len);
	return n + len;
}

void output_pong(struct worker *w, struct conn *c, const uint8_t *p, size_t len)
{
	uint8_t frame[2 + 125];
	struct conn_ext *x;

	if (c->state != CONN_OPEN)
		return;
	if (is_clear(c)) {
		size_t n = pong_frame(frame, p, len);

		(void)output_bytes(w, c, frame, n);
		return;
	}
	x = conn_ext(c);
	if (x == NULL) {
		conn_drop(w, c, true, 1011);
		return;
	}
	/* One pong at most waits, the latest: a ping flood without reading costs nothing (RFC 6455, 5.5.3).
	 */
	if (len > 0)
		memcpy(x->pong, p, len);
	x->pong_len = (uint8_t)len;
	x->has_pong = true;
}

/* After our Close is on the wire: end our side once the peer's Close is here too, or will not be waited for.
 */
static void shut_if_done(struct worker *w, struct conn *c)
{
	bool is_failure = c->close_code == 1002 || c->close_code == 1003 || c->close_code == 1007 ||
			  c->close_code == 1009 || c->close_code == 1008 || c->close_code == 1011;

	if (c->state != CONN_CLOSING || (c->flags & (CONN_BLOCKED | CONN_SHUT)) != 0)
		return;
	if ((c->flags & CONN_CLOSE_SEEN) == 0 && !is_failure)
		return;
	/* Not close(): unread input would turn it into a RST, and the peer might lose our Close. */
	c->flags |= CONN_SHUT;
	if (shutdown(c->fd, SHUT_WR) == -1)
		conn_drop(w, c, false, 1006);
}

void output_close(struct worker *w, struct conn *c, uint16_t code, const char *reason)
{
	uint8_t frame[2 + 125];
	size_t len = 0;
	uint32_t gen = c->gen;

	if (code != 1005) {
		size_t reason_len = reason == NULL ? 0 : u64_min(strlen(reason), 123);

		len = 2 + reason_len;
		frame[2] = (uint8_t)(code >> 8);
		frame[3] = (uint8_t)code;
		if (reason_len > 0)
			memcpy(frame + 4, reason, reason_len);
	}
	ws_header_put(frame, WS_CLOSE, len);
	if (output_bytes(w, c, frame, 2 + len) && c->gen == gen)
		shut_if_done(w, c);
}

void output_peer_closed(struct worker *w, struct conn *c)
{
	shut_if_done(w, c);
}

/* Flush ext->out. True: empty now. */
static bool flush_out(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	while (x->out.len > x->out_off) {
		ssize_t n = send_now(w, c, x->out.p + x->out_off, x->out.len - x->out_off);

		if (n <= 0)
			return false;
		x->out_off += (size_t)n;
		x->took = (uint32_t)w->now_ms;
	}
	x->out.len = 0;
	x->out_off = 0;
	x->has_idle = false;
	return true;
}

/* The pong that waited. True: nothing of it is left. */
static bool flush_pong(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	uint8_t frame[2 + 125];
	size_t n;

	if (!x->has_pong)
		return true;
	x->has_pong = false;
	if (c->state != CONN_OPEN)
		return true;
	n = pong_frame(frame, x->pong, x->pong_len);
	if (buf_put(&x->out, frame, n) == -1) {
		conn_drop(w, c, true, 1011);
		return false;
	}
	return flush_out(w, c);
}

void output_ready(struct worker *w, struct conn *c)
{
	uint32_t gen = c->gen;

	if (c->ext != NULL) {
		if (behind_finish_frame(w, c) != BEHIND_CAUGHT_UP)
			return;
		if (!flush_out(w, c) || !flush_pong(w, c))
			return;
		if (c->flags & CONN_BEHIND) {
			enum behind_result r = behind_run(w, c);

			if (r == BEHIND_GONE || c->gen != gen || (c->flags & CONN_BEHIND) != 0)
				return;
		}
	}
	c->flags &= (uint16_t)~CONN_BLOCKED;
	conn_arm(w, c);
	conn_ext_trim(c);
	shut_if_done(w, c);
	if (c->gen == gen)
		input_close_if_done(w, c);
}
