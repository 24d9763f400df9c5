/* http.h - one HTTP/1.x request out of one contiguous, growing buffer.
 *
 * Worker process only; pure (no socket, no clock, no allocation). Used for WebSocket handshakes and by the
 * admin server.
 *
 *            http_parse()                       http_body()
 *   HEAD ----------------> HTTP_DONE: fields ----------------> HTTP_DONE: body, end
 *     |  HTTP_MORE: read on, call again           | HTTP_MORE: likewise
 *     +--> HTTP_BAD: answer `status`, close <-----+
 *
 * The caller appends what it reads to its buffer and calls again with the whole of it; it may move the buffer
 * between calls, because everything is kept as offsets. Each byte is looked at a fixed number of times,
 * however the input is cut; nor does the cut change the outcome. For a head that came in one piece a parser
 * on the stack will do.
 *
 * Two judges: rules of ours, line by line over the raw bytes, and llhttp over the lines that passed. Both
 * must agree. Ours refuse what the tolerance of parsers lets through and what request smuggling is made of:
 * bare LF or CR, control bytes, a blank before the colon, folded lines, more than one blank in the request
 * line, a missing, repeated or malformed Host, repeated Content-Length or Transfer-Encoding, both of them,
 * any coding but "chunked".
 */
#ifndef RC_HTTP_H
#define RC_HTTP_H

#include <llhttp.h>

#include "common/base.h"
#include "common/config.h"

#define HTTP_HEADERS_MAX 256        /* whatever limits.max_headers says */
#define HTTP_HEAD_MAX    (1u << 20) /* the same for limits.max_head */
#define HTTP_URL_MAX     8192       /* or half of max_head, if that is less */

enum http_result { HTTP_MORE, HTTP_DONE, HTTP_BAD };

struct http_span {
	uint32_t off, len;
};

struct http_line {
	uint32_t name; /* offset */
	uint16_t name_len;
	uint16_t value_gap; /* blanks between colon and value */
	uint32_t value_len; /* without blanks around it */
};

struct http_parser {
	/* Results. After HTTP_BAD of http_parse() or http_body(): */
	uint16_t status;    /* 400, 405 (unknown method), 413, 414, 431 */
	const char *reason; /* for counters and logs: "malformed", "method", "version", "url_too_long",
			     * "head_too_large", "host", "length", "coding", "body_too_large", "body" */

	/* After HTTP_DONE of http_parse(). Offsets from the start of the buffer. */
	uint32_t head_len; /* bytes up to and with the empty line */
	uint8_t method;    /* llhttp's HTTP_GET, HTTP_POST ... */
	uint8_t minor;     /* HTTP/1.<minor>: 0 or 1 */
	bool is_chunked;
	bool has_length;         /* a Content-Length was given */
	uint64_t content_length; /* 0 if none */
	struct http_span path;   /* raw; begins with '/' unless the request is OPTIONS * or CONNECT */
	struct http_span query;  /* raw, without '?' */
	struct http_span host;   /* Host, or the authority of an absolute request target, which wins; may be
				    empty in HTTP/1.0 */
	uint16_t n_headers;
	struct http_line headers[HTTP_HEADERS_MAX];

	/* After HTTP_DONE of http_body(): where the decoded body is (behind the head), and where the next
	 * request begins. */
	uint64_t body_len;
	uint64_t end;

	/* Progress, http.c's own. */
	uint32_t max_head, max_url, max_headers;
	uint32_t scan, line, fed;
	uint8_t state;
	bool body_begun;
	uint64_t body_fed;
	char *base; /* the buffer, during a call only */
	llhttp_t ll;
};

/* Begin a request; of `limits`, max_head and max_headers count. Also for the next one on a kept connection.
 */
void http_init(struct http_parser *p, const struct cfg_limits *limits);

/* Look at the first `len` bytes of the connection's input, which begins with what earlier calls saw. Bytes
 * behind the head are not touched. HTTP_BAD stays HTTP_BAD. */
enum http_result http_parse(struct http_parser *p, const char *buf, size_t len) MUST_CHECK;

/* After HTTP_DONE: is there a body, or could there be one? */
bool http_has_body(const struct http_parser *p);

/* Find the body, of at most max_body bytes (0 = no limit): decoded in place if it is chunked, so that it is
 * contiguous from buf + head_len. Trailers are dropped. HTTP_BAD: 413 at once when Content-Length tells, or
 * once the chunks have passed max_body, their framing counted up to twice that plus 4 KiB. */
enum http_result http_body(struct http_parser *p, char *buf, size_t len, uint64_t max_body) MUST_CHECK;

/* The first value of header `name` (lower case, compared without case). Returns how many there are; *value
 * (which may be NULL) is set if that is not 0. */
unsigned http_header(const struct http_parser *p, const char *buf, const char *name, struct slice *value);

/* Is `token` in the comma-separated lists of all headers `name`? Both lower case; compared without case. */
bool http_has_token(const struct http_parser *p, const char *buf, const char *name,
		    const char *token) MUST_CHECK;

/* May the connection be kept after the answer? (HTTP/1.1 unless "close", HTTP/1.0 with "keep-alive" alone) */
bool http_keep_alive(const struct http_parser *p, const char *buf) MUST_CHECK;

/* Does the client wait for "100 Continue" before it sends its body? */
bool http_expects_continue(const struct http_parser *p, const char *buf) MUST_CHECK;

static inline struct slice http_slice(const char *buf, struct http_span s)
{
	return (struct slice){buf + s.off, s.len};
}

/* Case-insensitive comparison with a lower-case ASCII literal. */
bool http_equals(struct slice s, const char *lower) MUST_CHECK;

#endif
