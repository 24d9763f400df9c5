/* LINK: worker/http.c */
/* http: every head is parsed whole, byte by byte and in random pieces, each time from memory of exactly its
 * size that moves between the calls; the outcome must be the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/http.h"

static const struct cfg_limits usual = {.max_head = 16384, .max_headers = 100};

enum { WHOLE, BYTES, PIECES, N_CUTS };

/* Hand over the text as the cut says; *base is the last buffer, to be freed by the caller. */
static enum http_result run(struct http_parser *p, const struct cfg_limits *limits, struct slice text,
			    int cut, char **base)
{
	enum http_result r = HTTP_MORE;
	size_t given = 0;
	char *moved;

	*base = NULL;
	http_init(p, limits);
	while (r == HTTP_MORE && given < text.len) {
		given = cut == WHOLE   ? text.len
			: cut == BYTES ? given + 1
				       : u64_min(text.len, given + 1 + (size_t)random() % 40);
		moved = malloc(given);
		assert_non_null(moved);
		memcpy(moved, text.p, given);
		free(*base);
		*base = moved;
		r = http_parse(p, *base, given);
	}
	return r;
}

static struct slice str(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* 0: complete; 1: more is needed; else the status. */
static void expect_within(const struct cfg_limits *limits, struct slice text, int want)
{
	struct http_parser p;
	char *base;

	for (int cut = 0; cut < N_CUTS; cut++) {
		enum http_result r = run(&p, limits, text, cut, &base);
		int got = r == HTTP_DONE ? 0 : r == HTTP_MORE ? 1 : p.status;

		if (got != want || (r == HTTP_BAD && p.reason == NULL))
			fail_msg("cut %d: %d instead of %d (%s): %.*s", cut, got, want,
				 p.reason != NULL ? p.reason : "-", (int)u64_min(text.len, 300), text.p);
		if (r == HTTP_BAD)
			assert_int_equal(http_parse(&p, base, 1), HTTP_BAD);
		free(base);
	}
}

static void expect(const char *text, int want)
{
	expect_within(&usual, str(text), want);
}

#define H "Host: a\r\n"

static void judges_request_lines(void **state)
{
	(void)state;
	expect("GET / HTTP/1.1\r\n" H "\r\n", 0);
	expect("\r\nGET / HTTP/1.1\r\n" H "\r\n", 0);
	expect("POST /x?y HTTP/1.0\r\n\r\n", 0);
	expect("OPTIONS * HTTP/1.1\r\n" H "\r\n", 0);
	expect("GET /a%20b{|}^`\\\"? HTTP/1.1\r\n" H "\r\n", 0);
	expect("GET / HTTP/1.1\r\n" H, 1);
	expect("GE", 1);
	expect("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET  / HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET /  HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET / HTTP/1.1 \r\n" H "\r\n", 400);
	expect(" GET / HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET\t/ HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET / HTTP/1.1\n" H "\r\n", 400);
	expect("GET / HTTP/1.1\r" H "\r\n", 400);
	expect("GET / HTTP/1.1\r\r\n" H "\r\n", 400);
	expect("GET /\r\n\r\n", 400);
	expect("GET\r\n", 400);
	expect("GET HTTP/1.1\r\n", 400);
	expect("GET x HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET * HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET /a#b HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET /\x7f HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET /\x01 HTTP/1.1\r\n" H "\r\n", 400);
	expect("G(T / HTTP/1.1\r\n" H "\r\n", 400);
	expect("\x16\x03\x01\x02", 400);
	expect("HTTP/1.1 200 OK\r\n", 400);
	expect_within(&usual, (struct slice){"GET /\0 HTTP/1.1\r\n", 17}, 400);
	expect("BREW / HTTP/1.1\r\n" H "\r\n", 405);
	expect("get / HTTP/1.1\r\n" H "\r\n", 405);
}

static void judges_versions(void **state)
{
	(void)state;
	expect("GET / HTTP/1.0\r\n" H "\r\n", 0);
	expect("GET / HTTP/0.9\r\n" H "\r\n", 400);
	expect("GET / HTTP/1.2\r\n" H "\r\n", 400);
	expect("GET / HTTP/2.0\r\n" H "\r\n", 400);
	expect("GET / HTTP/9.9\r\n" H "\r\n", 400);
	expect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400);
	expect("GET / HTTP/1.10\r\n" H "\r\n", 400);
	expect("GET / HTTP/11\r\n" H "\r\n", 400);
	expect("GET / http/1.1\r\n" H "\r\n", 400);
	expect("GET / HTTP/1,1\r\n" H "\r\n", 400);
	expect("GET / HTTPS/1.1\r\n" H "\r\n", 400);
	expect("GET / HTTP/x.1\r\n" H "\r\n", 400);
}

static void judges_header_lines(void **state)
{
	(void)state;
#define G "GET / HTTP/1.1\r\n" H
	expect(G "A:b\r\nC:\r\nD: \t x y\t\r\n\r\n", 0);
	expect(G "A: caf\xc3\xa9\ttab\r\n\r\n", 0);
	expect(G "!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", 0);
	expect(G "A : b\r\n\r\n", 400);
	expect(G "A\t: b\r\n\r\n", 400);
	expect(G " A: b\r\n\r\n", 400);
	expect(G "A: b\r\n c\r\n\r\n", 400);
	expect(G "A: b\r\n\tc\r\n\r\n", 400);
	expect(G "A: b\r\n \r\n\r\n", 400);
	expect(G ": b\r\n\r\n", 400);
	expect(G "Ab\r\n\r\n", 400);
	expect(G "A b: c\r\n\r\n", 400);
	expect(G "A(b): c\r\n\r\n", 400);
	expect(G "\xc3\xa9: c\r\n\r\n", 400);
	expect(G "A: b\nC: d\r\n\r\n", 400);
	expect(G "A: b\rC: d\r\n\r\n", 400);
	expect(G "A: b\x0b\r\n\r\n", 400);
	expect(G "A: b\x7f\r\n\r\n", 400);
	expect(G "A: 12345678\x01\r\n\r\n", 400);
	expect(G "A: b\r\n\n", 400);
	expect(G "A: b\r\n\rX", 400);
	expect_within(&usual, (struct slice){G "A: b\0c\r\n\r\n", sizeof(G) - 1 + 10}, 400);
}

static void judges_host(void **state)
{
	static const char *const good[] = {
		"a",       "A.b-c_d~1",        "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:9",
		"a:65535", "[::ffff:1.2.3.4]", "%41b", "a,b"};
	static const char *const bad[] = {"",        " ",        "a b",           "a/b", "a@b",  "a:b",
					  "a:80:80", "a:65536",  "a:99999999999", ":80", "[::1", "[]",
					  "[::1]x",  "[g::]",    "a\\b",          "a\"", "a<b>", "a#b",
					  "a?b",     "\xc3\xa9", "[::1]:x",       "a|b"};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_true(snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost:%s\r\n\r\n", good[i]) > 0);
		expect(text, 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nhOST: %s\r\n\r\n", bad[i]) > 0);
		expect(text, 400);
		assert_true(snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", bad[i]) > 0);
		expect(text, 400);
	}
	expect("GET / HTTP/1.1\r\n\r\n", 400);
	expect("GET / HTTP/1.1\r\n" H H "\r\n", 400);
	expect("GET / HTTP/1.0\r\n" H H "\r\n", 400);
}

static void judges_framing(void **state)
{
#define P "POST / HTTP/1.1\r\n" H
	(void)state;
	expect(P "Content-Length: 5\r\n\r\n", 0);
	expect(P "Content-Length:\t 005 \r\n\r\n", 0);
	expect(P "Content-Length: 18446744073709551615\r\n\r\n", 0);
	expect(P "Transfer-Encoding: chunked\r\n\r\n", 0);
	expect(P "transfer-encoding: Chunked\r\n\r\n", 0);
	expect(P "Content-Length: 18446744073709551616\r\n\r\n", 400);
	expect(P "Content-Length: 99999999999999999999999\r\n\r\n", 400);
	expect(P "Content-Length:\r\n\r\n", 400);
	expect(P "Content-Length: -1\r\n\r\n", 400);
	expect(P "Content-Length: +1\r\n\r\n", 400);
	expect(P "Content-Length: 0x5\r\n\r\n", 400);
	expect(P "Content-Length: 5 5\r\n\r\n", 400);
	expect(P "Content-Length: 5, 5\r\n\r\n", 400);
	expect(P "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400);
	expect(P "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
	expect(P "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400);
	expect(P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
	expect("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 400);
	expect(P "Transfer-Encoding: gzip\r\n\r\n", 400);
	expect(P "Transfer-Encoding: gzip, chunked\r\n\r\n", 400);
	expect(P "Transfer-Encoding: chunked, chunked\r\n\r\n", 400);
	expect(P "Transfer-Encoding: xchunked\r\n\r\n", 400);
	expect(P "Transfer-Encoding:\r\n\r\n", 400);
}

/* "GET /xxx HTTP/1.1" with a target of n bytes, headers of n bytes: exactly the limit is allowed. */
static void keeps_to_the_limits(void **state)
{
	struct cfg_limits limits = {.max_head = 2000, .max_headers = 5};
	struct buf b = {0};

	(void)state;
	for (int over = -1; over <= 1; over++) {
		b.len = 0;
		assert_int_equal(buf_printf(&b, "GET /%0*d HTTP/1.1\r\n" H "\r\n", 999 + over, 0), 0);
		expect_within(&limits, (struct slice){b.p, b.len}, over > 0 ? 414 : 0);
		b.len = 0; /* no end of line yet */
		assert_int_equal(buf_printf(&b, "GET /%0*d", 1100, 0), 0);
		expect_within(&limits, (struct slice){b.p, b.len}, 414);
		b.len = 0;
		assert_int_equal(buf_printf(&b, "GET / HTTP/1.1\r\n" H "A: "), 0);
		assert_int_equal(buf_printf(&b, "%0*d\r\n\r\n", (int)(2000 - b.len) - 4 + over, 0), 0);
		assert_int_equal(b.len, 2000 + over);
		expect_within(&limits, (struct slice){b.p, b.len}, over > 0 ? 431 : 0);
		expect_within(&limits, (struct slice){b.p, b.len - 4}, 1);
		assert_int_equal(buf_printf(&b, "0123456789012345678901234567890"),
				 0); /* the next request's bytes do not count */
		expect_within(&limits, (struct slice){b.p, b.len}, over > 0 ? 431 : 0);
		b.len = 0;
		assert_int_equal(buf_printf(&b, "GET / HTTP/1.1\r\n" H), 0);
		for (int i = 0; i < 4 + over; i++)
			assert_int_equal(buf_puts(&b, "X: y\r\n"), 0);
		assert_int_equal(buf_puts(&b, "\r\n"), 0);
		expect_within(&limits, (struct slice){b.p, b.len}, over > 0 ? 431 : 0);
	}
	/* with no limits configured, ours hold */
	limits.max_head = limits.max_headers = 0;
	for (int n = HTTP_HEADERS_MAX; n <= HTTP_HEADERS_MAX + 1; n++) {
		b.len = 0;
		assert_int_equal(buf_printf(&b, "GET / HTTP/1.1\r\n" H), 0);
		for (int i = 1; i < n; i++)
			assert_int_equal(buf_puts(&b, "X: y\r\n"), 0);
		assert_int_equal(buf_puts(&b, "\r\n"), 0);
		expect_within(&limits, (struct slice){b.p, b.len}, n > HTTP_HEADERS_MAX ? 431 : 0);
	}
	buf_free(&b);
}

/* A megabyte byte by byte: with quadratic work this would take hours. */
static void works_in_linear_time(void **state)
{
	struct cfg_limits limits = {.max_head = 0, .max_headers = 0};
	struct http_parser p;
	struct buf b = {0};

	(void)state;
	assert_int_equal(buf_printf(&b, "GET / HTTP/1.1\r\n" H "A: %0*d", (int)HTTP_HEAD_MAX, 0), 0);
	http_init(&p, &limits);
	for (size_t i = 1; i < HTTP_HEAD_MAX; i++)
		assert_int_equal(http_parse(&p, b.p, i), HTTP_MORE);
	assert_int_equal(http_parse(&p, b.p, HTTP_HEAD_MAX), HTTP_BAD);
	assert_int_equal(p.status, 431);
	buf_free(&b);
}

static void assert_slice(struct slice s, const char *want)
{
	assert_int_equal(s.len, strlen(want));
	assert_memory_equal(s.p, want, s.len);
}

static void gives_the_parts_of_a_request(void **state)
{
	static const char text[] =
		"GET /ws/a%20b?x=1&y=? HTTP/1.1\r\nHost: h:1\r\nX-A:  one \r\nx-a: two\r\nEmpty:\r\n"
		"Connection: keep-alive , UPGRADE\r\nconnection:,,x,\r\nConnections: longer\r\n\r\n\x81\x80 "
		"and more";
	struct http_parser p;
	struct slice v;
	char *base;

	(void)state;
	for (int cut = 0; cut < N_CUTS; cut++) {
		assert_int_equal(run(&p, &usual, str(text), cut, &base), HTTP_DONE);
		assert_int_equal(p.head_len, strstr(text, "\r\n\r\n") + 4 - text);
		assert_int_equal(p.method, HTTP_GET);
		assert_int_equal(p.minor, 1);
		assert_int_equal(p.n_headers, 7);
		assert_slice(http_slice(base, p.path), "/ws/a%20b");
		assert_slice(http_slice(base, p.query), "x=1&y=?");
		assert_slice(http_slice(base, p.host), "h:1");
		assert_int_equal(http_header(&p, base, "x-a", &v), 2);
		assert_slice(v, "one");
		assert_int_equal(http_header(&p, base, "empty", &v), 1);
		assert_slice(v, "");
		assert_int_equal(http_header(&p, base, "x-", &v), 0);
		assert_int_equal(http_header(&p, base, "x-a", NULL), 2);
		assert_true(http_has_token(&p, base, "connection", "upgrade"));
		assert_true(http_has_token(&p, base, "connection", "keep-alive"));
		assert_true(http_has_token(&p, base, "connection", "x"));
		assert_false(http_has_token(&p, base, "connection", "keep"));
		assert_false(http_has_token(&p, base, "connection", "upgrade2"));
		assert_false(http_has_token(&p, base, "x-a", "tw"));
		assert_false(http_has_token(&p, base, "connection", "longer"));
		assert_false(http_has_body(&p));
		assert_true(http_keep_alive(&p, base));
		free(base);
	}
}

static void takes_the_path_of_absolute_targets(void **state)
{
	static const struct {
		const char *target, *path, *query, *host;
	} v[] = {
		{"http://b:81/x?y", "/x", "y", "b:81"}, {"HTTP://b", "/", "", "b"},
		{"ws://b/ws/1", "/ws/1", "", "b"},      {"https://b?q=/", "/", "q=/", "b"},
		{"wss://[::1]:4/", "/", "", "[::1]:4"},
	};
	struct http_parser p;
	char text[128], *base;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_true(snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" H "\r\n", v[i].target) > 0);
		assert_int_equal(run(&p, &usual, str(text), (int)i % N_CUTS, &base), HTTP_DONE);
		assert_slice(http_slice(base, p.path), v[i].path);
		assert_slice(http_slice(base, p.query), v[i].query);
		assert_slice(http_slice(base, p.host), v[i].host);
		free(base);
	}
	expect("GET http:///x HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET http://u@b/x HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET http:// HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET ftp://b/x HTTP/1.1\r\n" H "\r\n", 400);
	expect("GET http://b/x HTTP/1.1\r\n\r\n", 400);
	expect("GET http://b:99999/x HTTP/1.1\r\n" H "\r\n", 400);
}

static void tells_whether_to_keep_the_connection(void **state)
{
	static const struct {
		const char *head;
		bool keeps, waits;
	} v[] = {
		{"GET / HTTP/1.1\r\n" H "\r\n", true, false},
		{"GET / HTTP/1.1\r\n" H "Connection: x, Close\r\n\r\n", false, false},
		{"GET / HTTP/1.0\r\n\r\n", false, false},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: 100-continue\r\n\r\n", true, false},
		{"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false, false},
		{"GET / HTTP/1.1\r\n" H "Expect: 100-Continue\r\n\r\n", true, true},
	};
	struct http_parser p;
	char *base;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		assert_int_equal(run(&p, &usual, str(v[i].head), WHOLE, &base), HTTP_DONE);
		assert_int_equal(http_keep_alive(&p, base), v[i].keeps);
		assert_int_equal(http_expects_continue(&p, base), v[i].waits);
		free(base);
	}
}

/* Give head and body in one go or byte by byte. Returns 0 or the status; 1: more is needed. */
static int body(const char *head, struct slice text, uint64_t max, bool by_bytes, struct http_parser *p,
		struct buf *b)
{
	enum http_result r = HTTP_MORE;
	size_t step;

	b->len = 0;
	assert_int_equal(buf_puts(b, head), 0);
	http_init(p, &usual);
	assert_int_equal(http_parse(p, b->p, b->len), HTTP_DONE);
	assert_int_equal(p->head_len, strlen(head));
	assert_true(http_has_body(p));
	for (size_t i = 0; r == HTTP_MORE && i < text.len; i += step) {
		char *moved;

		step = by_bytes ? 1 : text.len;
		moved = malloc(b->len + step);
		assert_non_null(moved);
		memcpy(moved, b->p, b->len);
		memcpy(moved + b->len, text.p + i, step);
		free(b->p);
		b->p = moved;
		b->len = b->cap = b->len + step;
		r = http_body(p, b->p, b->len, max);
	}
	return r == HTTP_DONE ? 0 : r == HTTP_MORE ? 1 : p->status;
}

#define CHUNKED P "Transfer-Encoding: chunked\r\n\r\n"

static void finds_bodies(void **state)
{
	static const struct {
		const char *head, *text, *want;
		size_t rest;
	} v[] = {
		{P "Content-Length: 5\r\n\r\n", "hello", "hello", 0},
		{P "Content-Length: 5\r\n\r\n", "helloGET /", "hello", 5},
		{CHUNKED, "5\r\nhello\r\n0\r\n\r\n", "hello", 0},
		{CHUNKED, "5\r\nhello\r\n0\r\n\r\nGET /", "hello", 5},
		{CHUNKED, "1\r\nh\r\n003;ext=1\r\nell\r\n1\r\no\r\n0\r\nTrailer: x\r\n\r\n", "hello", 0},
		{CHUNKED, "A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n", "0123456789abcdefghij", 0},
		{CHUNKED, "0\r\n\r\n", "", 0},
		{"POST / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n",
		 "ok", "ok", 0},
		{"POST / HTTP/1.1\r\n" H
		 "Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n",
		 "2\r\nok\r\n0\r\n\r\nX", "ok", 1},
		{"GET / HTTP/1.1\r\n" H "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
		 "2\r\nok\r\n0\r\n\r\n", "ok", 0},
	};
	struct http_parser p;
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(v); i++) {
		size_t k = i / 2;

		if (body(v[k].head, str(v[k].text), 64, i % 2, &p, &b) != 0)
			fail_msg("case %zu: %d %s", i, p.status, p.reason);
		assert_int_equal(p.body_len, strlen(v[k].want));
		assert_int_equal(memcmp(b.p + p.head_len, v[k].want, p.body_len), 0);
		assert_int_equal(p.end, strlen(v[k].head) + strlen(v[k].text) - v[k].rest);
		assert_int_equal(http_body(&p, b.p, b.len, 64), HTTP_DONE);
	}
	buf_free(&b);
}

static void refuses_bad_bodies(void **state)
{
	static const struct {
		const char *head, *text;
		int want;
	} v[] = {
		{P "Content-Length: 5\r\n\r\n", "hell", 1},
		{P "Content-Length: 65\r\n\r\n", "x", 413},
		{P "Content-Length: 18446744073709551615\r\n\r\n", "x", 413},
		{CHUNKED, "5\r\nhello\r\n0\r\n", 1},
		{CHUNKED, "41\r\nx", 413},
		{CHUNKED, "FFFFFFFFFFFFFFFF\r\nx", 413},
		{CHUNKED, "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n1\r\nx",
		 413},
		{CHUNKED, "x\r\n", 400},
		{CHUNKED, "-1\r\n", 400},
		{CHUNKED, "0x5\r\nhello", 400},
		{CHUNKED, " 5\r\nhello", 400},
		{CHUNKED, "\r\n5\r\nhello", 400},
		{CHUNKED, "5\nhello\r\n", 400},
		{CHUNKED, "5\r\nhello!\r\n", 400},
		{CHUNKED, "5\r\nhello\n0\r\n\r\n", 400},
		{CHUNKED, "5\rXhello", 400},
		{CHUNKED, ";a\r\nhello", 400},
	};
	struct http_parser p;
	struct buf b = {0};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(v); i++) {
		size_t k = i / 2;
		int got = body(v[k].head, str(v[k].text), 64, i % 2, &p, &b);

		if (got != v[k].want)
			fail_msg("case %zu (%s): %d instead of %d", i, v[k].text, got, v[k].want);
		if (got > 1)
			assert_int_equal(http_body(&p, b.p, b.len, 64), HTTP_BAD);
	}
	assert_int_equal(body(CHUNKED, str("FFFFFFFFFFFFFFFF\r\nx"), 0, false, &p, &b), 1);
	assert_int_equal(body(CHUNKED, str("FFFFFFFFFFFFFFFFF\r\nx"), 0, false, &p, &b), 400);
	buf_free(&b);
}

/* Chunk extensions and trailers without end are no way round the limit. */
static void bounds_what_surrounds_the_chunks(void **state)
{
	struct http_parser p;
	struct buf b = {0}, text = {0};

	(void)state;
	assert_int_equal(buf_printf(&text, "1;x=%0*d", 8000, 0), 0);
	assert_int_equal(body(CHUNKED, (struct slice){text.p, text.len}, 64, false, &p, &b), 413);
	text.len = 0;
	assert_int_equal(buf_printf(&text, "0\r\nX: %0*d", 8000, 0), 0);
	assert_int_equal(body(CHUNKED, (struct slice){text.p, text.len}, 64, true, &p, &b), 413);
	text.len = 0;
	for (int i = 0; i < 64; i++)
		assert_int_equal(buf_puts(&text, "1\r\nx\r\n"), 0);
	assert_int_equal(buf_puts(&text, "0\r\n\r\n"), 0);
	assert_int_equal(body(CHUNKED, (struct slice){text.p, text.len}, 64, true, &p, &b), 0);
	assert_int_equal(p.body_len, 64);
	buf_free(&text);
	buf_free(&b);
}

/* Splits of random mutations: whichever way it is cut, the outcome is one. */
static void outcome_does_not_depend_on_the_cut(void **state)
{
	static const char seed_text[] =
		"GET http://h:1/ws/a?b HTTP/1.1\r\nHost: h:1\r\nConnection: Upgrade\r\nContent-Length: 3\r\n"
		"X: \tyz\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nabc";
	static const char chars[] = "\r\n\t :/?.,AZaz019\x01\x7f\x80#%[]";
	const struct cfg_limits limits = {.max_head = 160, .max_headers = 5};
	const char *env = getenv("TEST_SEED");
	unsigned seed = env != NULL ? (unsigned)strtoul(env, NULL, 10) : 77;
	char text[sizeof(seed_text)], *base;
	struct http_parser p[N_CUTS];
	enum http_result r[N_CUTS];

	(void)state;
	print_message("TEST_SEED=%u\n", seed);
	srandom(seed);
	for (int round = 0; round < 3000; round++) {
		memcpy(text, seed_text, sizeof(text));
		for (int i = 0; i < round % 4; i++)
			text[(size_t)random() % (sizeof(text) - 1)] =
				chars[(size_t)random() % (sizeof(chars) - 1)];
		for (int cut = 0; cut < N_CUTS; cut++) {
			r[cut] = run(&p[cut], round % 3 ? &usual : &limits, str(text), cut, &base);
			free(base);
			if (r[cut] != r[0] || p[cut].status != p[0].status ||
			    p[cut].head_len != p[0].head_len ||
			    (r[0] == HTTP_DONE && p[cut].n_headers != p[0].n_headers))
				fail_msg("cut %d: %d %d, whole: %d %d: %s", cut, r[cut], p[cut].status, r[0],
					 p[0].status, text);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_request_lines),
		cmocka_unit_test(judges_versions),
		cmocka_unit_test(judges_header_lines),
		cmocka_unit_test(judges_host),
		cmocka_unit_test(judges_framing),
		cmocka_unit_test(keeps_to_the_limits),
		cmocka_unit_test(works_in_linear_time),
		cmocka_unit_test(gives_the_parts_of_a_request),
		cmocka_unit_test(takes_the_path_of_absolute_targets),
		cmocka_unit_test(tells_whether_to_keep_the_connection),
		cmocka_unit_test(finds_bodies),
		cmocka_unit_test(refuses_bad_bodies),
		cmocka_unit_test(bounds_what_surrounds_the_chunks),
		cmocka_unit_test(outcome_does_not_depend_on_the_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
