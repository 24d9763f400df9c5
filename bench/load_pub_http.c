/* load_pub_http.c - publish by POST /api/publish over one kept-alive connection: one request at a time, or
 * with --pipeline up to that many before the answers to all of them are waited for. */
#include "bench/load_pub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bench/load_text.h"
#include "common/base64.h"

#define ANSWER_MAX 8192
#define TRIES_MAX  200

struct http_state {
	int fd;
	struct buf head, body;
	uint32_t unanswered; /* requests in `head`, with --pipeline */
	size_t have;         /* bytes in `answer` */
	char answer[ANSWER_MAX + 1];
};

static int http_open(struct pub *p)
{
	struct http_state *s = calloc(1, sizeof(*s));

	p->state = s;
	if (!s)
		return pub_fail(p, "out of memory");
	s->fd = pub_connect(p, p->o->http);
	return s->fd == -1 ? -1 : 0;
}

/* As a JSON string's inside. Payload letters need no escaping (payload.h), a wrap may. */
static int put_escaped(struct buf *b, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const char c = (char)p[i];
		int rc;

		if ((unsigned char)c < 0x20)
			rc = buf_printf(b, "\\u%04x", (unsigned)c);
		else if (c == '"' || c == '\\')
			rc = buf_put(b, (char[2]){'\\', c}, 2);
		else
			rc = buf_put(b, &c, 1);
		if (rc == -1)
			return -1;
	}
	return 0;
}

static int put_base64(struct buf *b, const uint8_t *p, size_t len)
{
	if (buf_reserve(b, BASE64_ENCODED(len)) == -1)
		return -1;
	b->len += base64_encode((struct slice){(const char *)p, len}, b->p + b->len);
	return 0;
}

/* The request's body. */
static int body_make(struct pub *p, uint32_t channel, const uint8_t *message, size_t len)
{
	struct http_state *s = p->state;
	char name[512];
	int rc;

	s->body.len = 0;
	if (p->o->raw)
		return buf_put(&s->body, message, len);
	if (load_expand(name, sizeof(name), p->o->channel, channel, pub_conn_number(p, channel)) == 0)
		return -1;
	if (buf_printf(&s->body, "{\"channel\":\"%s\",\"%s\":\"", name, p->o->binary ? "b64data" : "text") ==
	    -1)
		return -1;
	if (p->o->binary)
		rc = put_base64(&s->body, message, len);
	else if (p->o->wrap_text)
		rc = put_escaped(&s->body, message, len);
	else
		rc = buf_put(&s->body, message, len);
	return rc == 0 ? buf_puts(&s->body, "\"}") : -1;
}

static int head_make(struct pub *p, uint32_t channel)
{
	struct http_state *s = p->state;
	const char *tmpl = p->o->publish_path ? p->o->publish_path : "/api/publish";
	const char *type = !p->o->raw     ? "application/json"
			   : p->o->binary ? "application/octet-stream"
					  : "text/plain";
	char path[1024];

	if (load_expand(path, sizeof(path), tmpl, channel, pub_conn_number(p, channel)) == 0)
		return -1;
	if (buf_printf(&s->head,
		       "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n", path,
		       strncmp(p->o->http, "unix:", 5) == 0 ? "localhost" : p->o->http, type,
		       s->body.len) == -1)
		return -1;
	if (p->o->api_key && buf_printf(&s->head, "X-API-Key: %s\r\n", p->o->api_key) == -1)
		return -1;
	return buf_puts(&s->head, "\r\n");
}

static int send_all(int fd, struct iovec *iov, size_t n)
{
	while (n > 0) {
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
		ssize_t done = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (done == -1 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		for (; n > 0 && (size_t)done >= iov->iov_len; iov++, n--)
			done -= (ssize_t)iov->iov_len;
		if (n > 0) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

/* Bytes that an answer takes in all, 0 while that is not known. Chunked ones end with an empty chunk, which a
 * short answer of this kind holds nowhere else. */
static size_t answer_size(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n"), *length, *chunked, *last;

	if (!end)
		return 0;
	length = strcasestr(answer, "\r\nContent-Length:");
	chunked = strcasestr(answer, "\r\nTransfer-Encoding: chunked\r\n");
	if (chunked && chunked < end) {
		last = strstr(end + 2, "\r\n0\r\n\r\n");
		return last ? (size_t)(last + 7 - answer) : 0;
	}
	if (!length || length > end)
		return (size_t)(end + 4 - answer);
	return (size_t)(end + 4 - answer) + strtoul(length + 17, NULL, 10);
}

static bool says_close(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n"), *close_at = strcasestr(answer, "\r\nConnection: close");

	return close_at && close_at < end;
}

/* Read one whole answer. Returns its status, or -1. */
static int answer_read(struct pub *p)
{
	struct http_state *s = p->state;
	size_t want = answer_size(s->answer);
	long status;

	while (want == 0 || s->have < want) {
		ssize_t n = recv(s->fd, s->answer + s->have, ANSWER_MAX - s->have, 0);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return pub_fail(p, "http: %s",
					n == 0 ? "closed instead of an answer" : strerror(errno));
		s->have += (size_t)n;
		s->answer[s->have] = '\0';
		want = answer_size(s->answer);
		if (want > ANSWER_MAX || (want == 0 && s->have == ANSWER_MAX))
			return pub_fail(p, "http: answer too long");
	}
	status = want > 12 ? strtol(s->answer + 9, NULL, 10) : 0;
	if (says_close(s->answer)) {
		close(s->fd);
		s->fd = pub_connect(p, p->o->http);
		want = s->have;
	}
	s->have -= want;
	memmove(s->answer, s->answer + want, s->have + 1);
	return (int)status;
}

/* All that is queued goes out in one piece; then as many answers come in. An error can't be tried again, for
 * the requests behind it have been served already. */
static int http_flush(struct pub *p)
{
	struct http_state *s = p->state;
	struct iovec iov = {s->head.p, s->head.len};

	if (s->unanswered == 0)
		return 0;
	if (send_all(s->fd, &iov, 1) == -1)
		return pub_fail(p, "http: %m");
	for (; s->unanswered > 0; s->unanswered--) {
		int status = answer_read(p);

		if (status < 200 || status >= 300)
			return status == -1 ? -1 : pub_fail(p, "http: status %d", status);
	}
	s->head.len = 0;
	return 0;
}

static int http_queue(struct pub *p, uint32_t channel, const uint8_t *message, size_t len)
{
	struct http_state *s = p->state;

	if (body_make(p, channel, message, len) == -1 || head_make(p, channel) == -1 ||
	    buf_put(&s->head, s->body.p, s->body.len) == -1)
		return pub_fail(p, "out of memory");
	return ++s->unanswered >= p->o->pipeline ? http_flush(p) : 0;
}

static int http_send(struct pub *p, uint32_t channel, const uint8_t *message, size_t len)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	struct http_state *s = p->state;
	int status = 0;

	if (p->o->pipeline > 1)
		return http_queue(p, channel, message, len);
	s->head.len = 0;
	if (body_make(p, channel, message, len) == -1 || head_make(p, channel) == -1)
		return pub_fail(p, "out of memory");
	for (int i = 0; i < TRIES_MAX; i++) {
		struct iovec iov[2] = {{s->head.p, s->head.len}, {s->body.p, s->body.len}};

		if (send_all(s->fd, iov, 2) == -1)
			return pub_fail(p, "http: %m");
		status = answer_read(p);
		if (status == -1 || s->fd == -1)
			return -1;
		if (status >= 200 && status < 300)
			return 0;
		if (status != 429 && status != 503)
			break;
		p->ps->retries++;
		nanosleep(&pause, NULL);
	}
	return pub_fail(p, "http: status %d", status);
}

static void http_close(struct pub *p)
{
	struct http_state *s = p->state;

	if (!s)
		return;
	if (s->fd != -1)
		close(s->fd);
	buf_free(&s->head);
	buf_free(&s->body);
	free(s);
}

const struct pub_way pub_http = {http_open, http_send, http_flush, NULL, http_close};
