/* LINK: worker/handshake.c worker/http.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "worker/handshake.h"

static char *any[] = {"*"};
static char *list[] = {"https://app.example", "http://other.example:8080"};

static struct cfg_namespace spaces[] = {
	{.name = "lobby", .path_prefix = "/ws/lobby", .path_suffix = "", .room = CFG_ROOM_NONE},
	{.name = "demo",
	 .path_prefix = "/ws/",
	 .path_suffix = "",
	 .room = CFG_ROOM_PATH,
	 .origins = any,
	 .n_origins = 1},
	{.name = "echo",
	 .path_prefix = "/echo",
	 .path_suffix = "",
	 .room = CFG_ROOM_CONN,
	 .origins = any,
	 .n_origins = 1},
	{.name = "live", .path_prefix = "/ws/", .path_suffix = "/live", .room = CFG_ROOM_PATH},
	{.name = "deep", .path_prefix = "/ws/x/", .path_suffix = "", .room = CFG_ROOM_PATH},
	{.name = "first", .path_prefix = "/", .path_suffix = "/live", .room = CFG_ROOM_PATH},
	{.name = "own", .path_prefix = "/own", .path_suffix = "", .room = CFG_ROOM_NONE},
	{.name = "listed",
	 .path_prefix = "/listed",
	 .path_suffix = "",
	 .room = CFG_ROOM_NONE,
	 .origins = list,
	 .n_origins = 2},
};

static struct config config = {
	.namespaces = spaces,
	.n_namespaces = ARRAY_LEN(spaces),
	.limits = {.max_head = 16384, .max_headers = 100},
};

#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\n"
#define ALL     UPGRADE VERSION KEY
#define HOST    "Host: server.example\r\n"
#define LINE(p) "GET " p " HTTP/1.1\r\n"

static int check(const char *head, struct handshake *h)
{
	struct http_parser p;
	char text[2048];

	assert_true(snprintf(text, sizeof(text), "%s\r\n", head) < (int)sizeof(text));
	http_init(&p, &config.limits);
	if (http_parse(&p, text, strlen(text)) != HTTP_DONE)
		fail_msg("no head (%d %s): %s", p.status, p.reason, head);
	memset(h, 0x55, sizeof(*h));
	return handshake_check(&config, &p, text, h);
}

static void expect(const char *head, int status, const char *reason)
{
	struct handshake h;
	int got = check(head, &h);

	if (got != status || (reason == NULL) != (h.reason == NULL) ||
	    (reason != NULL && strcmp(reason, h.reason) != 0))
		fail_msg("%d %s instead of %d %s: %s", got, h.reason != NULL ? h.reason : "-", status,
			 reason != NULL ? reason : "-", head);
}

/* RFC 6455, section 1.3 */
static void answers_the_example_of_the_rfc(void **state)
{
	static const char want[] =
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
	struct handshake h;
	char out[HANDSHAKE_RESPONSE_SIZE];

	(void)state;
	for (int i = 0; i < 3; i++) { /* the hash context is kept */
		assert_int_equal(check(LINE("/ws/chat") HOST ALL, &h), 0);
		assert_int_equal(handshake_response(out, sizeof(out), &h), sizeof(want) - 1);
		assert_memory_equal(out, want, sizeof(want) - 1);
	}
	assert_int_equal(handshake_response(out, sizeof(want) - 1, &h), sizeof(want) - 1);
	assert_int_equal(handshake_response(out, sizeof(want) - 2, &h), 0);
	assert_int_equal(check(LINE("/ws/chat") HOST UPGRADE VERSION
			       "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
			       &h),
			 0);
	assert_memory_equal(h.accept, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=", HANDSHAKE_ACCEPT_LEN);
}

static void finds_namespace_and_room(void **state)
{
	static const struct {
		const char *path, *ns, *room;
	} v[] = {
		{"/ws/a", "demo", "a"},
		{"/ws/a?x=/y", "demo", "a"},
		{"/ws/%61%20b", "demo", "a b"},
		{"/ws/lobby", "lobby", ""},
		{"/ws/lobby2", "demo", "lobby2"},
		{"/ws/lobb", "demo", "lobb"},
		{"/ws/lobb%79", "demo", "lobby"},
		{"/echo", "echo", ""},
		{"/echo?room=x", "echo", ""},
		{"/ws/a/live", "live", "a"},
		{"/ws/x/live", "deep", "live"},
		{"/x/live", "first", "x"},
		{"/ws/x", "demo", "x"},
		{"http://h/ws/a", "demo", "a"},
		{"/ws/a%3Ab", "demo", "a:b"},
		{"/ws/%e2%82%ac", "demo", "\xe2\x82\xac"},
		{"/ws/", NULL, NULL},
		{"/ws", NULL, NULL},
		{"/ws/a/", NULL, NULL},
		{"/ws/a/b", NULL, NULL},
		{"/ws//live", NULL, NULL},
		{"/WS/a", NULL, NULL},
		{"/echo/", NULL, NULL},
		{"/", NULL, NULL},
		{"/ws/lobby/", NULL, NULL},
		{"/ws/a/liv", NULL, NULL},
		{"/ws/a/live2", NULL, NULL},
		{"//ws/a", NULL, NULL},
		{"/ws/../echo", NULL, NULL},
		{"/ws/a/b/live", NULL, NULL},
	};
	struct handshake h;
	char head[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		int got;

		assert_true(snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\n" HOST ALL, v[i].path) > 0);
		got = check(head, &h);
		if (v[i].ns == NULL
			    ? got != 404 || h.ns != NULL
			    : got != 0 || strcmp(h.ns->name, v[i].ns) != 0 ||
				      strcmp(h.room, v[i].room) != 0 || h.room_len != strlen(v[i].room))
			fail_msg("%s: %d %s %s", v[i].path, got, h.ns != NULL ? h.ns->name : "-", h.room);
	}
	expect(LINE("/ws/%2e%2e") HOST ALL, 400, "bad_room");
	expect(LINE("/ws/.") HOST ALL, 400, "bad_room");
	expect(LINE("/ws/a%2Fb") HOST ALL, 400, "bad_room");
	expect(LINE("/ws/a%00") HOST ALL, 400, "bad_room");
	expect(LINE("/ws/%ff") HOST ALL, 400, "bad_room");
	expect(LINE("/ws/%4") HOST ALL, 400, "bad_room");
	config.limits.unknown_path_status = 403;
	expect(LINE("/nowhere") HOST ALL, 403, "no_namespace");
	config.limits.unknown_path_status = 404;
	expect(LINE("/nowhere") HOST ALL, 404, "no_namespace");
	config.limits.unknown_path_status = 0;
}

static void wants_a_get_of_http_1_1_without_body(void **state)
{
	(void)state;
	expect("POST /ws/a HTTP/1.1\r\n" HOST ALL, 405, "not_get");
	expect("HEAD /ws/a HTTP/1.1\r\n" HOST ALL, 405, "not_get");
	expect("OPTIONS * HTTP/1.1\r\n" HOST ALL, 405, "not_get");
	expect("CONNECT a:80 HTTP/1.1\r\n" HOST, 405, "not_get");
	expect("GET /ws/a HTTP/1.0\r\n" HOST ALL, 400, "http_version");
	expect(LINE("/ws/a") HOST ALL "Content-Length: 1\r\n", 400, "body");
	expect(LINE("/ws/a") HOST ALL "Transfer-Encoding: chunked\r\n", 400, "body");
	expect(LINE("/ws/a") HOST ALL "Content-Length: 0\r\n", 0, NULL);
}

static void wants_the_websocket_headers(void **state)
{
#define W LINE("/ws/a") HOST
	(void)state;
	expect(W ALL, 0, NULL);
	expect(W "connection: keep-alive, uPGRADE\r\nupgrade: WebSocket\r\n" VERSION KEY, 0, NULL);
	expect(W "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n" VERSION KEY,
	       0, NULL);
	expect(W ALL
	       "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
	       0, NULL);
	expect(W, 426, "no_upgrade");
	expect(W VERSION KEY, 426, "no_upgrade");
	expect(W "Upgrade: websocket\r\n" VERSION KEY, 426, "no_upgrade");
	expect(W "Connection: Upgrade\r\n" VERSION KEY, 426, "no_upgrade");
	expect(W "Connection: close\r\nUpgrade: websocket\r\n" VERSION KEY, 426, "no_upgrade");
	expect(W "Connection: Upgrade\r\nUpgrade: h2c\r\n" VERSION KEY, 426, "no_upgrade");
	expect(W "Connection: Upgraded\r\nUpgrade: websocket\r\n" VERSION KEY, 426, "no_upgrade");
	expect(W UPGRADE KEY, 426, "bad_version");
	expect(W UPGRADE "Sec-WebSocket-Version: 8\r\n" KEY, 426, "bad_version");
	expect(W UPGRADE "Sec-WebSocket-Version: 13, 8\r\n" KEY, 426, "bad_version");
	expect(W UPGRADE "Sec-WebSocket-Version: 013\r\n" KEY, 426, "bad_version");
	expect(W UPGRADE VERSION VERSION KEY, 400, "bad_version");
	expect(W UPGRADE VERSION, 400, "bad_key");
	expect(W UPGRADE VERSION KEY KEY, 400, "bad_key");
#define K(k) W UPGRADE VERSION "Sec-WebSocket-Key: " k "\r\n"
	expect(K("dGhlIHNhbXBsZSBub25jZX=="), 0, NULL); /* stray bits: taken, see the code */
	expect(K(""), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZ!=="), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZQ="), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZQ==="), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZQAA"), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZQA="), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25j===="), 400, "bad_key");
	expect(K("dGhlIHNhbXBs-SBub25jZQ=="), 400, "bad_key");
	expect(K("dGhlIHNhbXBs SBub25jZQ=="), 400, "bad_key");
	expect(K("dGhlIHNhbXBsZSBub25jZWFiY2Q="), 400, "bad_key");
	expect(K("\xff\xff\xff\xffIHNhbXBsZSBub25jZQ=="), 400, "bad_key");
}

static void compares_origins(void **state)
{
#define O(path, host, o) LINE(path) "Host: " host "\r\n" ALL "Origin: " o "\r\n"
	(void)state;
	/* any */
	expect(O("/ws/a", "h", "https://evil.example"), 0, NULL);
	expect(O("/ws/a", "h", "null"), 0, NULL);
	expect(O("/ws/a", "h", "https://a.example\r\nOrigin: https://a.example"), 403, "origin");
	/* by default the host that was asked */
	expect(LINE("/own") HOST ALL, 0, NULL);
	expect(O("/own", "h.example", "http://h.example"), 0, NULL);
	expect(O("/own", "H.Example", "https://h.EXAMPLE"), 0, NULL);
	expect(O("/own", "h.example:80", "http://h.example"), 0, NULL);
	expect(O("/own", "h.example", "HTTPS://h.example"), 0, NULL);
	expect(O("/own", "h.example", "Http://h.example:80"), 0, NULL);
	expect(O("/own", "h.example", "http://h.example:80"), 0, NULL);
	expect(O("/own", "h.example:443", "https://h.example"), 0, NULL);
	expect(O("/own", "h.example:8080", "http://h.example:8080"), 0, NULL);
	expect(O("/own", "127.0.0.1:8080", "http://127.0.0.1:8080"), 0, NULL);
	expect(O("/own", "[::1]:8080", "http://[::1]:8080"), 0, NULL);
	expect(O("/own", "h.example:443", "http://h.example"), 403, "origin");
	expect(O("/own", "h.example:80", "https://h.example"), 403, "origin");
	expect(O("/own", "h.example:8080", "http://h.example"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example:8080"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example.evil"), 403, "origin");
	expect(O("/own", "h.example", "http://evil-h.example"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example/"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example@evil"), 403, "origin");
	expect(O("/own", "h.example", "h.example"), 403, "origin");
	expect(O("/own", "h.example", "null"), 403, "origin");
	expect(O("/own", "h.example", ""), 403, "origin");
	expect(O("/own", "h.example", "ftp://h.example"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example http://h.example"), 403, "origin");
	expect(O("/own", "h.example", "http://h.example\r\nOrigin: http://h.example"), 403, "origin");
	expect(O("http://b.example/own", "h.example", "http://b.example"), 0, NULL);
	expect(O("http://b.example/own", "h.example", "http://h.example"), 403, "origin");
	/* a list: it alone, whatever the host */
	expect(LINE("/listed") HOST ALL, 0, NULL);
	expect(O("/listed", "h", "https://app.example"), 0, NULL);
	expect(O("/listed", "h", "HTTPS://APP.example:443"), 0, NULL);
	expect(O("/listed", "h", "http://other.example:8080"), 0, NULL);
	expect(O("/listed", "h", "http://app.example"), 403, "origin");
	expect(O("/listed", "h", "https://app.example:8443"), 403, "origin");
	expect(O("/listed", "h", "https://sub.app.example"), 403, "origin");
	expect(O("/listed", "h", "https://app.example.evil"), 403, "origin");
	expect(O("/listed", "h.example", "http://h.example"), 403, "origin");
	expect(O("/listed", "h", "null"), 403, "origin");
}

static void refusals_close_and_carry_what_the_status_asks_for(void **state)
{
	static const int all[] = {400, 403, 404, 405, 408, 413, 414, 426, 429, 431, 503};
	char out[HANDSHAKE_REFUSAL_SIZE + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		size_t n = handshake_refusal(out, HANDSHAKE_REFUSAL_SIZE, all[i]);
		char line[32];

		assert_in_range(n, 40, HANDSHAKE_REFUSAL_SIZE - 1);
		assert_int_equal(strlen(out), n);
		assert_true(snprintf(line, sizeof(line), "HTTP/1.1 %d %c", all[i],
				     handshake_phrase(all[i])[0]) > 0);
		assert_int_equal(strncmp(out, line, strlen(line)), 0);
		assert_non_null(strstr(out, "\r\nContent-Length: 0\r\n"));
		assert_non_null(strstr(out, "close\r\n\r\n"));
		assert_string_equal(out + n - 4, "\r\n\r\n");
		assert_int_equal(strstr(out, "Sec-WebSocket-Version: 13\r\n") != NULL, all[i] == 426);
		assert_int_equal(strstr(out, "Upgrade: websocket\r\n") != NULL, all[i] == 426);
		assert_int_equal(strstr(out, "Allow: GET\r\n") != NULL, all[i] == 405);
		assert_int_equal(strstr(out, "Retry-After: 1\r\n") != NULL, all[i] == 503);
		assert_int_equal(handshake_refusal(out, n + 1, all[i]), n);
		assert_int_equal(handshake_refusal(out, n, all[i]), 0);
	}
	assert_string_equal(handshake_phrase(299), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_the_example_of_the_rfc),
		cmocka_unit_test(finds_namespace_and_room),
		cmocka_unit_test(wants_a_get_of_http_1_1_without_body),
		cmocka_unit_test(wants_the_websocket_headers),
		cmocka_unit_test(compares_origins),
		cmocka_unit_test(refusals_close_and_carry_what_the_status_asks_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
