#include "worker/http.h"

#include <string.h>

#include "common/word.h"

#define METHOD_MAX  32                       /* longer than any that llhttp knows */
#define LINE_EXTRA  (METHOD_MAX + 1 + 9 + 1) /* of the request line besides its target: " HTTP/1.1", CR */
#define CHUNK_SLACK 4096

enum { AT_START, AT_REQUEST_LINE, AT_HEADERS, AT_END };

/* RFC 9110: tchar */
static bool is_token_char(char c)
{
	static const uint64_t low = 0x03ff6cfa00000000u, high = 0x57ffffffc7fffffeu;
	uint8_t u = (uint8_t)c;

	return u < 64 ? low >> u & 1 : u < 128 && (high >> (u - 64) & 1);
}

static bool is_token(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!is_token_char(p[i]))
			return false;
	}
	return len > 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char to_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool equals_lower(const char *p, const char *lower, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (to_lower(p[i]) != lower[i])
			return false;
	}
	return true;
}

bool http_equals(struct slice s, const char *lower)
{
	return s.len == strlen(lower) && equals_lower(s.p, lower, s.len);
}

/* The parser stops behind each head; bodies are asked for. */
static int on_headers_complete(llhttp_t *ll)
{
	(void)ll;
	return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t len)
{
	struct http_parser *p = ll->data;

	memmove(p->base + p->head_len + p->body_len, at, len);
	p->body_len += len;
	return 0;
}

static int on_message_complete(llhttp_t *ll)
{
	(void)ll;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_headers_complete = on_headers_complete,
	.on_body = on_body,
	.on_message_complete = on_message_complete,
};

void http_init(struct http_parser *p, const struct cfg_limits *limits)
{
	uint32_t head = limits->max_head, headers = limits->max_headers;

	memset(p, 0, offsetof(struct http_parser, headers));
	memset(&p->body_len, 0, sizeof(*p) - offsetof(struct http_parser, body_len));
	p->max_head = head == 0 || head > HTTP_HEAD_MAX ? HTTP_HEAD_MAX : head;
	p->max_headers = headers == 0 || headers > HTTP_HEADERS_MAX ? HTTP_HEADERS_MAX : headers;
	p->max_url = p->max_head / 2 < HTTP_URL_MAX ? p->max_head / 2 : HTTP_URL_MAX;
	llhttp_init(&p->ll, HTTP_REQUEST, &settings);
}

static enum http_result bad(struct http_parser *p, uint16_t status, const char *reason)
{
	p->status = status;
	p->reason = reason;
	return HTTP_BAD;
}

static bool is_control(char c)
{
	return ((uint8_t)c < 0x20 && c != '\t') || c == 0x7f;
}

/* Bytes before the first control byte (a tab is none). */
static size_t plain_run(const char *p, size_t len)
{
	size_t i = 0;
	uint64_t w, stops;

	while (len - i >= 8) {
		w = word_load(p + i);
		stops = word_below(w, 0x20) | word_equal(w, 0x7f);
		if (stops == 0) {
			i += 8;
			continue;
		}
		i += word_first(stops);
		if (p[i] != '\t')
			return i;
		i++;
	}
	while (i < len && !is_control(p[i]))
		i++;
	return i;
}

/* Look for the end of the line that begins at p->line. HTTP_DONE: *len is its length without CR LF. */
static enum http_result next_line(struct http_parser *p, const char *buf, size_t end, size_t *len)
{
	uint64_t cap =
		p->state == AT_HEADERS ? end : u64_min(end, (uint64_t)p->line + p->max_url + LINE_EXTRA + 1);

	p->scan += (uint32_t)plain_run(buf + p->scan, cap - p->scan);
	if (p->scan == cap && cap < end)
		return bad(p, 414, "url_too_long");
	if (p->scan == end)
		return HTTP_MORE;
	if (buf[p->scan] != '\r')
		return bad(p, 400, "malformed");
	if (p->scan + 1 == end)
		return HTTP_MORE;
	if (buf[p->scan + 1] != '\n')
		return bad(p, 400, "malformed");
	*len = p->scan - p->line;
	return HTTP_DONE;
}

/* The authority of an absolute-form target begins behind its "scheme://"; 0 if there is none such. */
static size_t scheme_len(const char *p, size_t len)
{
	static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		n = strlen(schemes[i]);
		if (len > n && equals_lower(p, schemes[i], n))
			return n;
	}
	return 0;
}

static enum http_result take_target(struct http_parser *p, const char *buf, uint32_t off, uint32_t len)
{
	const char *t = buf + off, *mark;
	uint32_t n = 0, authority;

	if (len == 0)
		return bad(p, 400, "malformed");
	if (len > p->max_url)
		return bad(p, 414, "url_too_long");
	for (uint32_t i = 0; i < len; i++) {
		if ((uint8_t)t[i] <= 0x20 || (uint8_t)t[i] >= 0x7f || t[i] == '#')
			return bad(p, 400, "malformed");
	}
	authority = (uint32_t)scheme_len(t, len);
	if (authority != 0) {
		for (n = authority; n < len && t[n] != '/' && t[n] != '?'; n++)
			;
		p->host = (struct http_span){off + authority, n - authority};
		if (p->host.len == 0)
			return bad(p, 400, "malformed");
	}
	mark = memchr(t + n, '?', len - n);
	p->path = (struct http_span){off + n, mark != NULL ? (uint32_t)(mark - t) - n : len - n};
	if (mark != NULL)
		p->query = (struct http_span){off + (uint32_t)(mark - t) + 1, len - (uint32_t)(mark - t) - 1};
	return HTTP_DONE;
}

/* method SP target SP HTTP/1.1 */
static enum http_result take_request_line(struct http_parser *p, const char *buf, uint32_t len)
{
	const char *line = buf + p->line, *sp, *sp2, *version;
	enum http_result r;

	sp = memchr(line, ' ', len);
	if (sp == NULL || sp - line > METHOD_MAX || !is_token(line, (size_t)(sp - line)))
		return bad(p, 400, "malformed");
	sp2 = memchr(sp + 1, ' ', (size_t)(line + len - sp - 1));
	if (sp2 == NULL)
		return bad(p, 400, "malformed");
	r = take_target(p, buf, (uint32_t)(sp + 1 - buf), (uint32_t)(sp2 - sp - 1));
	if (r != HTTP_DONE)
		return r;
	version = sp2 + 1;
	if (line + len - version != 8 || memcmp(version, "HTTP/", 5) != 0 || !is_digit(version[5]) ||
	    version[6] != '.' || !is_digit(version[7]))
		return bad(p, 400, "malformed");
	if (version[5] != '1' || version[7] > '1')
		return bad(p, 400, "version");
	p->minor = (uint8_t)(version[7] - '0');
	return HTTP_DONE;
}

static enum http_result take_header(struct http_parser *p, const char *buf, uint32_t len)
{
	const char *line = buf + p->line, *colon = memchr(line, ':', len), *value, *end = line + len;
	struct http_line *h = &p->headers[p->n_headers];

	/* A token before the colon: no blank before it, no folded line, no empty name. */
	if (colon == NULL || !is_token(line, (size_t)(colon - line)))
		return bad(p, 400, "malformed");
	for (value = colon + 1; value < end && is_blank(*value); value++)
		;
	while (end > value && is_blank(end[-1]))
		end--;
	if (p->n_headers == p->max_headers || colon - line > UINT16_MAX || value - colon - 1 > UINT16_MAX)
		return bad(p, 431, "head_too_large");
	h->name = p->line;
	h->name_len = (uint16_t)(colon - line);
	h->value_gap = (uint16_t)(value - colon - 1);
	h->value_len = (uint32_t)(end - value);
	p->n_headers++;
	return HTTP_DONE;
}

static enum http_result take_line(struct http_parser *p, const char *buf, uint32_t len)
{
	enum http_result r;

	if (p->state == AT_HEADERS) {
		if (len > 0)
			return take_header(p, buf, len);
		p->state = AT_END;
		return HTTP_DONE;
	}
	if (len == 0 &&
	    p->state == AT_START) { /* one empty line may stand before a request (RFC 9112, 2.2) */
		p->state = AT_REQUEST_LINE;
		return HTTP_DONE;
	}
	r = take_request_line(p, buf, len);
	if (r == HTTP_DONE)
		p->state = AT_HEADERS;
	return r;
}

/* Show llhttp the lines that passed. At the end of the head it pauses. */
static enum http_result feed(struct http_parser *p, const char *buf)
{
	llhttp_errno_t err;

	if (p->fed == p->line)
		return HTTP_DONE;
	err = llhttp_execute(&p->ll, buf + p->fed, p->line - p->fed);
	p->fed = p->line;
	if (err == HPE_INVALID_METHOD)
		return bad(p, 405, "method");
	return err == (p->state == AT_END ? HPE_PAUSED : HPE_OK) ? HTTP_DONE : bad(p, 400, "malformed");
}

static bool is_host_char(char c)
{
	return is_token_char(c) ? c != '^' && c != '`' && c != '|' && c != '#'
				: c == '(' || c == ')' || c == ',' || c == ';' || c == '=';
}

/* host [":" port], as RFC 3986 has it without user info; IPv6 in brackets. */
static bool is_host(struct slice s)
{
	size_t i = 0;
	uint32_t port = 0;

	if (s.len > 0 && s.p[0] == '[') {
		for (i = 1; i < s.len && s.p[i] != ']'; i++) {
			if (!is_digit(s.p[i]) && s.p[i] != ':' && s.p[i] != '.' &&
			    (to_lower(s.p[i]) < 'a' || to_lower(s.p[i]) > 'f'))
				return false;
		}
		if (i < 3 || i == s.len)
			return false;
		i++;
	} else {
		while (i < s.len && is_host_char(s.p[i]))
			i++;
		if (i == 0)
			return false;
	}
	if (i == s.len)
		return true;
	if (s.p[i++] != ':')
		return false;
	for (; i < s.len; i++) {
		if (!is_digit(s.p[i]))
			return false;
		port = port * 10 + (uint32_t)(s.p[i] - '0');
		if (port > UINT16_MAX)
			return false;
	}
	return true;
}

static enum http_result check_host(struct http_parser *p, const char *buf)
{
	struct slice value = {buf, 0};
	unsigned n = http_header(p, buf, "host", &value);

	if (n > 1 || (n == 0 && p->minor == 1))
		return bad(p, 400, "host");
	if (n == 1 && !is_host(value))
		return bad(p, 400, "host");
	if (p->host.len == 0)
		p->host = (struct http_span){(uint32_t)(value.p - buf), (uint32_t)value.len};
	else if (!is_host(http_slice(buf, p->host)))
		return bad(p, 400, "host");
	return HTTP_DONE;
}

/* 1*DIGIT that fits. */
static bool parse_length(struct slice s, uint64_t *out)
{
	uint64_t v = 0;

	for (size_t i = 0; i < s.len; i++) {
		if (!is_digit(s.p[i]) || __builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
			return false;
	}
	*out = v;
	return s.len > 0;
}

/* How the body is framed. Anything about which two parsers might differ is refused. */
static enum http_result check_framing(struct http_parser *p, const char *buf)
{
	struct slice length, coding;
	unsigned lengths = http_header(p, buf, "content-length", &length);
	unsigned codings = http_header(p, buf, "transfer-encoding", &coding);

	if (lengths > 1 || codings > 1 || (lengths == 1 && codings == 1) || (codings == 1 && p->minor == 0))
		return bad(p, 400, "length");
	if (codings == 1 && !http_equals(coding, "chunked"))
		return bad(p, 400, "coding");
	if (lengths == 1 && !parse_length(length, &p->content_length))
		return bad(p, 400, "length");
	p->has_length = lengths == 1;
	p->is_chunked = codings == 1;
	if (p->is_chunked != !!(p->ll.flags & F_CHUNKED) || p->content_length != p->ll.content_length)
		return bad(p, 400, "length");
	return HTTP_DONE;
}

static enum http_result finish_head(struct http_parser *p, const char *buf)
{
	bool is_odd;

	p->method = p->ll.method;
	is_odd = p->method == HTTP_CONNECT ||
		 (p->method == HTTP_OPTIONS && p->path.len == 1 && buf[p->path.off] == '*');
	if (p->path.len == 0 && p->host.len != 0) { /* http://host means http://host/ */
		p->path = (struct http_span){p->host.off - 1, 1};
		if (buf[p->path.off] != '/')
			return bad(p, 400, "malformed");
	}
	if (!is_odd && (p->path.len == 0 || buf[p->path.off] != '/'))
		return bad(p, 400, "malformed");
	if (check_host(p, buf) != HTTP_DONE || check_framing(p, buf) != HTTP_DONE)
		return HTTP_BAD;
	p->head_len = p->line;
	return HTTP_DONE;
}

enum http_result http_parse(struct http_parser *p, const char *buf, size_t len)
{
	size_t end = u64_min(len, p->max_head), line_len;
	enum http_result r = HTTP_DONE;

	if (p->status != 0)
		return HTTP_BAD;
	if (p->head_len != 0)
		return HTTP_DONE;
	while (r == HTTP_DONE && p->state != AT_END) {
		r = next_line(p, buf, end, &line_len);
		if (r != HTTP_DONE || (r = take_line(p, buf, (uint32_t)line_len)) != HTTP_DONE)
			break;
		p->scan += 2;
		p->line = p->scan;
	}
	/* Whatever came of the last line, the verdict on those before it goes first: so it does not depend on
	 * how the input was cut. */
	if (feed(p, buf) == HTTP_BAD || r == HTTP_BAD)
		return HTTP_BAD;
	if (r == HTTP_MORE)
		return end == p->max_head ? bad(p, 431, "head_too_large") : HTTP_MORE;
	return finish_head(p, buf);
}

bool http_has_body(const struct http_parser *p)
{
	return p->is_chunked || p->content_length > 0;
}

static enum http_result chunked_body(struct http_parser *p, char *buf, size_t len, uint64_t max_body)
{
	llhttp_errno_t err;

	if (!p->body_begun) {
		llhttp_resume(&p->ll);
		p->body_begun = true;
		p->body_fed = p->head_len;
	}
	p->base = buf;
	p->ll.data = p;
	err = llhttp_execute(&p->ll, buf + p->body_fed, len - p->body_fed);
	p->base = NULL;
	if (err == HPE_OK)
		p->body_fed = len;
	else if (err == HPE_PAUSED)
		p->end = p->body_fed = (uint64_t)(llhttp_get_error_pos(&p->ll) - buf);
	else
		return bad(p, 400, "body");
	/* llhttp's content_length is what the current chunk still lacks. */
	if (max_body != 0 && (p->body_len > max_body || p->ll.content_length > max_body - p->body_len ||
			      p->body_fed - p->head_len > 2 * max_body + CHUNK_SLACK))
		return bad(p, 413, "body_too_large");
	return err == HPE_PAUSED ? HTTP_DONE : HTTP_MORE;
}

enum http_result http_body(struct http_parser *p, char *buf, size_t len, uint64_t max_body)
{
	if (p->status != 0)
		return HTTP_BAD;
	if (p->end != 0)
		return HTTP_DONE;
	if (p->is_chunked)
		return chunked_body(p, buf, len, max_body);
	if ((max_body != 0 && p->content_length > max_body) || p->content_length > SIZE_MAX / 2)
		return bad(p, 413, "body_too_large");
	if (len - p->head_len < p->content_length)
		return HTTP_MORE;
	p->body_len = p->content_length;
	p->end = p->head_len + p->content_length;
	return HTTP_DONE;
}

static struct slice line_value(const struct http_line *h, const char *buf)
{
	return (struct slice){buf + h->name + h->name_len + 1 + h->value_gap, h->value_len};
}

unsigned http_header(const struct http_parser *p, const char *buf, const char *name, struct slice *value)
{
	size_t len = strlen(name);
	unsigned n = 0;

	for (const struct http_line *h = p->headers; h < p->headers + p->n_headers; h++) {
		if (h->name_len != len || !equals_lower(buf + h->name, name, len))
			continue;
		if (n++ == 0 && value != NULL)
			*value = line_value(h, buf);
	}
	return n;
}

static bool list_has(struct slice list, const char *token)
{
	const char *p = list.p, *end = p + list.len, *comma, *last;

	for (; p < end; p = comma + 1) {
		comma = memchr(p, ',', (size_t)(end - p));
		if (comma == NULL)
			comma = end;
		while (p < comma && is_blank(*p))
			p++;
		for (last = comma; last > p && is_blank(last[-1]); last--)
			;
		if (http_equals((struct slice){p, (size_t)(last - p)}, token))
			return true;
	}
	return false;
}

bool http_has_token(const struct http_parser *p, const char *buf, const char *name, const char *token)
{
	size_t len = strlen(name);

	for (const struct http_line *h = p->headers; h < p->headers + p->n_headers; h++) {
		if (h->name_len == len && equals_lower(buf + h->name, name, len) &&
		    list_has(line_value(h, buf), token))
			return true;
	}
	return false;
}

bool http_keep_alive(const struct http_parser *p, const char *buf)
{
	if (http_has_token(p, buf, "connection", "close"))
		return false;
	return p->minor == 1 || http_has_token(p, buf, "connection", "keep-alive");
}

bool http_expects_continue(const struct http_parser *p, const char *buf)
{
	return p->minor == 1 && http_has_token(p, buf, "expect", "100-continue");
}
