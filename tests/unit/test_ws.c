/* LINK: worker/ws.c worker/ws_gate.c worker/ws_pool.c
 *
 * The receive path of RFC 6455: what is reported, when a bad client is refused, and what it costs us. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/wsframe.h"
#include "worker/ws.h"
#include "worker/ws_gate.h"
#include "worker/ws_pool.h"

#ifndef __has_feature
#define __has_feature(x) 0 /* clang's way to ask */
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||     \
	__has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define IS_SANITIZED 1 /* cuts are thinned, and malloc is the sanitizer's */
#else
#define IS_SANITIZED 0
#endif

#define FIN 0x80

/* The state of a connection in the middle of a message, without the message. */
#define MID_MESSAGE_BYTES (WS_PARSER_BYTES + 256)

static const struct ws_limits wide = {.max_message = 32 << 20, .max_fragments = 0};

/* --- a connection that writes down what it is told --- */

struct conn {
	struct ws_in *in;
	struct buf log;      /* M<opcode><len><bytes>, P<len><bytes>, O, C<code>, E<code> */
	unsigned messages;   /* told so far, pings included */
	unsigned hold_after; /* refuse every message once so many were taken; 0 = never */
	bool is_over;        /* a Close or an error */
};

static void note(struct conn *c, char what, uint64_t a, const void *p, size_t len)
{
	assert_false(c->is_over); /* nothing may follow a Close */
	assert_return_code(buf_put(&c->log, &what, 1), errno);
	assert_return_code(buf_put(&c->log, &a, sizeof(a)), errno);
	assert_return_code(buf_put(&c->log, &len, sizeof(len)), errno);
	assert_return_code(buf_put(&c->log, p, len), errno);
}

static enum ws_take on_message(void *arg, uint8_t opcode, const uint8_t *p, size_t len)
{
	struct conn *c = arg;

	assert_non_null(p);
	if (c->hold_after != 0 && c->messages >= c->hold_after)
		return WS_HOLD;
	c->messages++;
	note(c, 'M', opcode, p, len);
	return WS_TAKEN;
}

static void on_ping(void *arg, const uint8_t *p, size_t len)
{
	assert_true(len <= 125);
	note(arg, 'P', 0, p, len);
}

static void on_pong(void *arg)
{
	note(arg, 'O', 0, "", 0);
}

static void on_close(void *arg, uint16_t code)
{
	struct conn *c = arg;

	note(c, 'C', code, "", 0);
	c->is_over = true;
}

static const struct ws_handler handler = {on_message, on_ping, on_pong, on_close};

/* Feed and write down an error. Returns the bytes consumed. */
static size_t feed(struct ws_pool *pool, struct conn *c, const struct ws_limits *limits, const void *p,
		   size_t len)
{
	size_t consumed = SIZE_MAX;
	int code;

	if (c->is_over)
		return len;
	code = ws_feed(pool, &c->in, limits, &handler, c, p, len, &consumed);
	assert_true(consumed <= len);
	if (code != 0) {
		note(c, 'E', (uint64_t)code, "", 0);
		c->is_over = true;
	}
	if (c->is_over)
		assert_null(c->in);
	else if (c->hold_after == 0)
		assert_int_equal(consumed, len);
	return consumed;
}

static void conn_end(struct ws_pool *pool, struct conn *c)
{
	ws_reset(pool, &c->in);
	buf_free(&c->log);
	*c = (struct conn){0};
}

static void pool_end(struct ws_pool *pool)
{
	assert_int_equal(ws_pool_borrowed(pool), 0);
	assert_int_equal(ws_pool_memory(pool), 0);
	ws_pool_free(pool);
}

static struct ws_pool *pool_begin(unsigned max_idle, uint64_t memory_max)
{
	struct ws_pool *pool = ws_pool_new(max_idle, memory_max);

	assert_non_null(pool);
	return pool;
}

/* --- frames --- */

static void put(struct buf *b, const void *p, size_t len)
{
	assert_return_code(buf_put(b, p, len), errno);
}

/* A masked header that announces `len` bytes. */
static void put_header(struct buf *b, uint8_t first, uint64_t len)
{
	uint8_t h[WS_HEADER_MAX];
	size_t n = ws_header_put(h, 0, len);

	h[0] = first;
	h[1] |= 0x80;
	put(b, h, n);
	put(b, "\xa5\x00\xff\x3c", 4);
}

static void put_frame(struct buf *b, uint8_t first, const void *payload, size_t len)
{
	static const uint8_t mask[4] = {0xa5, 0x00, 0xff, 0x3c};
	const uint8_t *p = payload;

	put_header(b, first, len);
	for (size_t i = 0; i < len; i++) {
		uint8_t x = p[i] ^ mask[i % 4];

		put(b, &x, 1);
	}
}

static void put_str(struct buf *b, uint8_t first, const char *s)
{
	put_frame(b, first, s, strlen(s));
}

static uint8_t *pattern(size_t len)
{
	uint8_t *p = malloc(len + 1);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)('!' + (i * 7 + i / 93) % 93);
	return p;
}

/* The only entry of the log, as expected. */
static void assert_one(const struct conn *c, char what, uint64_t a)
{
	assert_true(c->log.len >= 17);
	assert_int_equal(c->log.p[0], what);
	assert_memory_equal(c->log.p + 1, &a, sizeof(a));
}

static void assert_same_log(const struct conn *a, const struct conn *b)
{
	assert_int_equal(a->log.len, b->log.len);
	if (a->log.len > 0)
		assert_memory_equal(a->log.p, b->log.p, a->log.len);
}

/* Feed in one go to a fresh connection and expect exactly this error (or Close, 'C') and no message. */
static void assert_refused(const struct ws_limits *limits, const void *p, size_t len, char what,
			   uint64_t code)
{
	struct ws_pool *pool = pool_begin(4, 0);
	struct conn c = {0};

	feed(pool, &c, limits, p, len);
	assert_true(c.is_over);
	assert_one(&c, what, code);
	conn_end(pool, &c);
	pool_end(pool);
}

/* --- messages --- */

static void whole_messages_of_every_size_arrive_as_sent(void **state)
{
	static const size_t sizes[] = {0,    1,    2,    125,   126,   127,   128,   4084,
				       4095, 4096, 4097, 65535, 65536, 65537, 300000};
	struct ws_pool *pool = pool_begin(4, 0);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
		uint8_t opcode = i % 2 ? WS_TEXT : WS_BINARY, *p = pattern(sizes[i / 2]);
		struct conn c = {0};
		struct buf b = {0};

		put_frame(&b, FIN | opcode, p, sizes[i / 2]);
		feed(pool, &c, &wide, b.p, b.len);
		assert_null(c.in); /* an idle connection owns nothing */
		assert_one(&c, 'M', opcode);
		assert_int_equal(c.log.len, 17 + sizes[i / 2]);
		assert_memory_equal(c.log.p + 17, p, sizes[i / 2]);
		assert_int_equal(ws_pool_memory(pool), 0);
		buf_free(&b);
		conn_end(pool, &c);
		free(p);
	}
	pool_end(pool);
}

/* Everything that may happen at a frame boundary, with 16-bit lengths, characters cut by fragments, empty
 * fragments, control frames between and after, and a Close (with a reason) at the end if `how` says so. */
static void put_scenario(struct buf *b, int how)
{
	char filler[130];

	memset(filler, 'a' + how, sizeof(filler));
	put_str(b, WS_TEXT, "gr\xc3");
	put_str(b, FIN | WS_PING, "in between");
	put_str(b, 0, "\xbc\xc3\x9f \xf0\x9f");
	put_str(b, 0, "");
	put_str(b, FIN | WS_PONG, "unasked");
	put_str(b, FIN, "\x98\x80");
	put_frame(b, FIN | (how % 2 ? WS_TEXT : WS_BINARY), filler, how % 2 ? 126 : 130);
	put_str(b, FIN | WS_PING, "");
	put_str(b, WS_BINARY, "");
	put_str(b, FIN | WS_PING, "p2");
	put_str(b, FIN, how % 2 ? "tail" : "");
	put_str(b, FIN | WS_TEXT, "");
	if (how & 2)
		put_frame(b, FIN | WS_CLOSE, "\x03\xf4gr\xc3\xbc\xc3\x9f", 8);
	if (how == 4)
		put_str(b, FIN | 3, "reserved opcode");
	if (how == 5)
		put_str(b, FIN | WS_TEXT, "bad \xed\xa0\x80 surrogate");
	put_str(b, FIN | WS_TEXT, how & 2 ? "after the Close" : "last");
}

#define N_SCENARIOS 6

static void reference(struct ws_pool *pool, struct conn *c, const struct buf *b)
{
	feed(pool, c, &wide, b->p, b->len);
	assert_null(c->in);
	assert_true(c->log.len > 100);
}

/* Both streams cut once, at every pair of places, taking turns over one pool. */
static void cut_in_pairs(struct ws_pool *pool, const struct buf *a, const struct buf *b, size_t step)
{
	struct conn want[2] = {{0}, {0}};

	reference(pool, &want[0], a);
	reference(pool, &want[1], b);
	for (size_t i = 0; i <= a->len; i++) {
		for (size_t j = i % step; j <= b->len; j += step) {
			struct conn got[2] = {{0}, {0}};

			feed(pool, &got[0], &wide, a->p, i);
			feed(pool, &got[1], &wide, b->p, j);
			assert_true(ws_pool_borrowed(pool) <= 2);
			feed(pool, &got[0], &wide, a->p + i, a->len - i);
			feed(pool, &got[1], &wide, b->p + j, b->len - j);
			for (int k = 0; k < 2; k++) {
				assert_same_log(&got[k], &want[k]);
				assert_null(got[k].in);
				conn_end(pool, &got[k]);
			}
			assert_int_equal(ws_pool_borrowed(pool), 0);
			assert_int_equal(ws_pool_memory(pool), 0);
			assert_true(pool->n_idle <= 2);
		}
	}
	conn_end(pool, &want[0]);
	conn_end(pool, &want[1]);
}

static void every_pair_of_cuts_of_two_connections_changes_nothing(void **state)
{
	struct ws_pool *pool = pool_begin(4, 0);

	(void)state;
	for (int x = 0; x < N_SCENARIOS; x++) {
		struct buf a = {0}, b = {0};

		put_scenario(&a, x);
		put_scenario(&b, (x + 1) % N_SCENARIOS);
		cut_in_pairs(pool, &a, &b, IS_SANITIZED ? 11 : 1); /* thinned: each j within 11 i */
		buf_free(&a);
		buf_free(&b);
	}
	pool_end(pool);
}

static void every_piece_size_changes_nothing(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (int x = 0; x < N_SCENARIOS; x++) {
		struct conn want = {0};
		struct buf a = {0};

		put_scenario(&a, x);
		reference(pool, &want, &a);
		for (size_t piece = 1; piece <= a.len; piece++) {
			struct conn got = {0};

			for (size_t at = 0; at < a.len; at += piece) {
				feed(pool, &got, &wide, a.p + at, u64_min(piece, a.len - at));
				feed(pool, &got, &wide, a.p, 0); /* an empty read is harmless anywhere */
			}
			assert_same_log(&got, &want);
			conn_end(pool, &got);
		}
		conn_end(pool, &want);
		buf_free(&a);
	}
	pool_end(pool);
}

static void a_large_message_survives_any_read_size(void **state)
{
	static const size_t reads[] = {1000, 4096, 8191, 65536, 131072};
	struct ws_pool *pool = pool_begin(1, 0);
	size_t len = 200001;
	uint8_t *p = pattern(len);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
		struct conn c = {0};
		struct buf b = {0};

		put_frame(&b, WS_TEXT, p, 70000);
		put_frame(&b, 0, p + 70000, 70000);
		put_frame(&b, FIN, p + 140000, len - 140000);
		for (size_t at = 0; at < b.len; at += reads[i])
			feed(pool, &c, &wide, b.p + at, u64_min(reads[i], b.len - at));
		assert_int_equal(c.log.len, 17 + len);
		assert_memory_equal(c.log.p + 17, p, len);
		assert_null(c.in);
		buf_free(&b);
		conn_end(pool, &c);
	}
	free(p);
	pool_end(pool);
}

/* --- what the gate refuses --- */

static void every_first_pair_of_bytes_is_judged_at_once(void **state)
{
	(void)state;
	for (int in_message = 0; in_message < 2; in_message++) {
		for (unsigned v = 0; v < 65536; v++) {
			uint8_t p[2] = {(uint8_t)(v >> 8), (uint8_t)v}, opcode = p[0] & 0xf;
			struct ws_header hd;
			int code = ws_gate(p, 2, in_message, &hd);
			bool is_data = opcode <= 2, is_ctl = opcode >= 8 && opcode <= 10;
			bool fine = !(p[0] & 0x70) && (p[1] & 0x80) && (is_data || is_ctl);

			if (is_data)
				fine = fine && (opcode == 0) == in_message;
			if (is_ctl)
				fine = fine && (p[0] & FIN) && (p[1] & 0x7f) <= 125;
			assert_int_equal(code, fine ? WS_GATE_MORE : 1002);
			if (fine)
				assert_in_range(hd.need, 6, WS_GATE_NEED_MAX);
		}
	}
}

static void a_bad_frame_is_refused_on_two_bytes(void **state)
{
	static const char *const bad[] = {
		"\xc1\x80", "\xa1\x80", "\x91\x80", "\x83\x80", "\x87\x80",
		"\x8b\x80", "\x8f\x80", "\x81\x05", "\x89\xfe", "\x88\xff",
		"\x09\x80", "\x08\x80", "\x80\x80", "\x00\x80", "\xc9\x80",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_refused(&wide, bad[i], 2, 'E', 1002);
}

static void order_of_fragments_is_enforced(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (uint8_t second = 0; second < 3; second++) {
		struct buf b = {0};
		struct conn c = {0};

		put_str(&b, second == 0 ? FIN | WS_TEXT : WS_TEXT, "one");
		feed(pool, &c, &wide, b.p, b.len);
		assert_int_equal(c.is_over, false);
		feed(pool, &c, &wide, (uint8_t[]){FIN | second, 0x80}, 2);
		assert_true(c.is_over);
		assert_int_equal(ws_pool_borrowed(pool), 0);
		assert_int_equal(pool->n_idle,
				 second == 0); /* a parser in the middle of a message is not re-used */
		buf_free(&b);
		conn_end(pool, &c);
	}
	pool_end(pool);
}

static void lengths_must_be_minimal_and_below_2_63(void **state)
{
	static const struct {
		const char *p;
		size_t len;
		bool is_fine;
	} cases[] = {
		{"\x82\xfe\x00\x7d....", 8, false},
		{"\x82\xfe\x00\x7e....", 8, true},
		{"\x82\xff\0\0\0\0\0\0\xff\xff....", 14, false},
		{"\x82\xff\0\0\0\0\0\1\0\0....", 14, true},
		{"\x82\xff\x80\0\0\0\0\0\0\0....", 14, false},
		{"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff....", 14, true},
	};
	static const struct ws_limits none = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (size_t cut = 0; cut <= cases[i].len; cut++) {
			struct ws_pool *pool = pool_begin(1, 0);
			struct conn c = {0};

			feed(pool, &c, &none, cases[i].p, cut);
			feed(pool, &c, &none, cases[i].p + cut, cases[i].len - cut);
			assert_int_equal(c.is_over, !cases[i].is_fine);
			assert_true(ws_pool_memory(pool) <= MID_MESSAGE_BYTES);
			if (c.is_over)
				assert_one(&c, 'E', 1002);
			conn_end(pool, &c);
			pool_end(pool);
		}
	}
}

/* --- limits --- */

static void exactly_the_limit_passes_and_one_more_is_1009_on_its_header(void **state)
{
	struct ws_limits limits = {.max_message = 100, .max_fragments = 0};
	struct ws_pool *pool = pool_begin(1, 0);
	uint8_t *p = pattern(101);

	(void)state;
	for (size_t first = 0; first <= 101; first++) { /* 101: all in one frame */
		for (size_t total = 100; total <= 101; total++) {
			struct buf b = {0};
			struct conn c = {0};
			bool is_split = first <= 100;

			if (is_split) {
				put_frame(&b, WS_BINARY, p, first);
				feed(pool, &c, &limits, b.p, b.len);
				assert_false(c.is_over);
				b.len = 0;
			}
			put_header(&b, FIN | (is_split ? 0 : WS_BINARY), is_split ? total - first : total);
			feed(pool, &c, &limits, b.p, b.len);
			assert_int_equal(c.is_over, total > 100);
			if (c.is_over)
				assert_one(&c, 'E', 1009);
			conn_end(pool, &c);
			buf_free(&b);
		}
	}
	free(p);
	pool_end(pool);
}

static void the_limit_is_judged_in_64_bits(void **state)
{
	struct ws_limits limits = {.max_message = 100};
	struct buf b = {0};

	(void)state;
	put_str(&b, WS_BINARY, "x");
	put_header(&b, FIN, (1ull << 32) + 5);
	assert_refused(&limits, b.p, b.len, 'E', 1009);
	limits.max_message = UINT32_MAX;
	assert_refused(&limits, b.p, b.len, 'E', 1009);
	buf_free(&b);
}

static void fragments_are_counted_without_control_frames(void **state)
{
	struct ws_limits limits = {.max_message = 0, .max_fragments = 3};
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (int frames = 1; frames <= 4; frames++) {
		struct conn c = {0};
		struct buf b = {0};

		for (int i = 1; i <= frames; i++) {
			put_str(&b, (i == 1 ? WS_TEXT : 0) | (i == frames ? FIN : 0), "x");
			for (int k = 0; i < frames && k < 5; k++)
				put_str(&b, FIN | WS_PONG, "");
		}
		feed(pool, &c, &limits, b.p, b.len);
		assert_int_equal(c.is_over, frames > 3);
		assert_int_equal(c.messages, frames <= 3);
		conn_end(pool, &c);
		buf_free(&b);
	}
	pool_end(pool);
}

static void each_message_has_its_own_limits(void **state)
{
	struct ws_limits limits = {.max_message = 4, .max_fragments = 2};
	struct ws_pool *pool = pool_begin(1, 0);
	struct conn c = {0};
	struct buf b = {0};

	(void)state;
	for (int i = 0; i < 10; i++) {
		put_str(&b, WS_TEXT, "ab");
		put_str(&b, FIN, "cd");
		put_str(&b, FIN | WS_BINARY, "efgh");
	}
	feed(pool, &c, &limits, b.p, b.len);
	assert_int_equal(c.messages, 20);
	assert_false(c.is_over);
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

/* --- Close --- */

static void close_codes_are_those_that_may_travel(void **state)
{
	(void)state;
	for (unsigned code = 0; code < 65536; code++) {
		uint8_t p[2] = {(uint8_t)(code >> 8), (uint8_t)code};
		bool fine = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
			    (code >= 3000 && code <= 4999);
		uint16_t got;

		assert_int_equal(ws_gate_close(p, 2, &got), fine ? 0 : 1002);
		if (fine)
			assert_int_equal(got, code);
	}
}

static void close_is_checked_whole_however_it_is_cut(void **state)
{
	static const struct {
		const char *p;
		size_t len;
		char what;
		uint64_t code;
	} cases[] = {
		{"", 0, 'C', 1005},
		{"\x03", 1, 'E', 1002},
		{"\x03\xe8", 2, 'C', 1000},
		{"\x03\xf5", 2, 'C', 1013},
		{"\x03\xed", 2, 'E', 1002},
		{"\x03\xe8"
		 "gr\xc3\xbc\xc3\x9f",
		 8, 'C', 1000},
		{"\x03\xe8\xce\xba\xe1\xbd\xb9", 7, 'C', 1000},
		{"\x03\xe8\xed\xa0\x80", 5, 'E', 1007},
		{"\x03\xe8ok\xff", 5, 'E', 1007},
		{"\x03\xe8ok\xc3", 5, 'E', 1007},
		{"\x03\xe8\x80", 3, 'E', 1007},
	};
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
		struct buf b = {0};

		if (i % 2)
			put_str(&b, WS_TEXT, "unfinished"); /* a Close is legal between fragments */
		put_frame(&b, FIN | WS_CLOSE, cases[i / 2].p, cases[i / 2].len);
		for (size_t x = 0; x <= b.len; x++) {
			for (size_t y = x; y <= b.len; y++) {
				struct conn c = {0};

				feed(pool, &c, &wide, b.p, x);
				feed(pool, &c, &wide, b.p + x, y - x);
				feed(pool, &c, &wide, b.p + y, b.len - y);
				assert_true(c.is_over);
				assert_one(&c, cases[i / 2].what, cases[i / 2].code);
				conn_end(pool, &c);
			}
		}
		buf_free(&b);
	}
	pool_end(pool);
}

static void nothing_behind_a_close_is_taken(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);
	struct conn c = {0};
	struct buf b = {0};
	size_t end;

	(void)state;
	put_frame(&b, FIN | WS_CLOSE, "\x03\xe8", 2);
	end = b.len;
	put_str(&b, FIN | WS_TEXT, "late");
	assert_int_equal(feed(pool, &c, &wide, b.p, b.len), end);
	assert_one(&c, 'C', 1000);
	assert_int_equal(c.log.len, 17);
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

/* --- UTF-8 --- */

static const char *const bad_utf8[] = {
	"\x80",
	"\xbf",
	"\xc0\xaf",
	"\xc1\xbf",
	"\xe0\x80\xaf",
	"\xe0\x9f\xbf",
	"\xf0\x80\x80\xaf",
	"\xf0\x8f\xbf\xbf",
	"\xed\xa0\x80",
	"\xed\xbf\xbf",
	"\xf4\x90\x80\x80",
	"\xf5\x80\x80\x80",
	"\xf8\x88\x80\x80\x80",
	"\xfe",
	"\xff",
	"\xc3(",
	"\xe2\x82(",
	"\xf0\x9f\x98(",
	"\xc3\xc3",
};

/* The offset of the byte that makes it hopeless. */
static size_t bad_at(const char *s)
{
	size_t n = strlen(s);
	bool is_late = s[n - 1] == '(' || strcmp(s, "\xc3\xc3") == 0;
	bool is_second = strchr("\xe0\xed\xf0\xf4", s[0]) != NULL;

	return is_late ? n - 1 : is_second ? 1 : 0;
}

static void invalid_text_fails_at_the_very_byte(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad_utf8); i++) {
		for (int how = 0; how < 2; how++) {
			size_t at, bad = 3 + bad_at(bad_utf8[i]);
			struct conn c = {0};
			struct buf b = {0};
			char text[64] = "ok ";

			memcpy(text + 3, bad_utf8[i], strlen(bad_utf8[i]) + 1);
			/* In one frame of which much is still to come; and in frames of one byte. */
			if (how == 0) {
				put_frame(&b, FIN | WS_TEXT, text, sizeof(text));
				at = 6;
			} else {
				for (size_t k = 0; k < sizeof(text); k++)
					put_frame(&b, k == 0 ? WS_TEXT : 0, text + k, 1);
				at = 6;
			}
			at += how == 0 ? bad : bad * 7;
			for (size_t k = 0; k < at; k++) {
				feed(pool, &c, &wide, b.p + k, 1);
				assert_false(c.is_over);
			}
			feed(pool, &c, &wide, b.p + at, 1);
			assert_true(c.is_over);
			assert_one(&c, 'E', 1007);
			conn_end(pool, &c);
			buf_free(&b);
		}
	}
	pool_end(pool);
}

static void text_may_not_end_inside_a_character_and_binary_may(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);

	(void)state;
	for (int how = 0; how < 4; how++) {
		struct conn c = {0};
		struct buf b = {0};
		uint8_t opcode = how & 1 ? WS_BINARY : WS_TEXT;

		if (how & 2) {
			put_str(&b, opcode, "caf\xc3");
			put_str(&b, FIN, "");
		} else {
			put_str(&b, FIN | opcode, "\xf0\x9f\x98");
		}
		feed(pool, &c, &wide, b.p, b.len);
		assert_one(&c, how & 1 ? 'M' : 'E', how & 1 ? WS_BINARY : 1007);
		conn_end(pool, &c);
		buf_free(&b);
	}
	pool_end(pool);
}

static void a_parser_that_saw_an_error_serves_nobody_else(void **state)
{
	struct ws_pool *pool = pool_begin(4, 0);
	struct conn a = {0}, b = {0};
	struct buf bad = {0}, good = {0};

	(void)state;
	put_str(&bad, FIN | WS_TEXT, "\xff");
	put_str(&good, FIN | WS_TEXT, "fine");
	feed(pool, &a, &wide, bad.p, bad.len);
	assert_one(&a, 'E', 1007);
	assert_int_equal(pool->n_idle, 0);
	feed(pool, &b, &wide, good.p, good.len);
	assert_one(&b, 'M', WS_TEXT);
	assert_int_equal(pool->n_idle, 1);
	conn_end(pool, &a);
	conn_end(pool, &b);
	buf_free(&bad);
	buf_free(&good);
	pool_end(pool);
}

/* --- memory --- */

static void an_announced_length_allocates_nothing(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);
	struct conn c = {0};
	struct buf b = {0};

	(void)state;
	put_header(&b, FIN | WS_BINARY, 16 << 20);
	feed(pool, &c, &wide, b.p, b.len);
	assert_true(ws_pool_memory(pool) <= MID_MESSAGE_BYTES);
	feed(pool, &c, &wide, "0123456789", 10);
	assert_true(ws_pool_memory(pool) <= MID_MESSAGE_BYTES + 256);
	assert_true(ws_is_mid_message(c.in));
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

static void memory_follows_what_was_received(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);
	size_t total = 1000000;
	uint8_t *p = pattern(total);
	struct conn c = {0};
	struct buf b = {0};

	(void)state;
	put_frame(&b, FIN | WS_BINARY, p, total);
	for (size_t at = 0, n; at < b.len; at += n) {
		n = u64_min(1500, b.len - at);
		feed(pool, &c, &wide, b.p + at, n);
		assert_true(ws_pool_memory(pool) <= MID_MESSAGE_BYTES + u64_min(2 * (at + n) + 256, total));
	}
	assert_int_equal(c.messages, 1);
	assert_int_equal(ws_pool_memory(pool), 0);
	conn_end(pool, &c);
	buf_free(&b);
	free(p);
	pool_end(pool);
}

static void fragments_of_one_byte_cost_what_their_bytes_cost(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);
	struct conn c = {0};
	struct buf b = {0};

	(void)state;
	for (int i = 0; i < 100000; i++) {
		b.len = 0;
		put_str(&b, i == 0 ? WS_BINARY : 0, "x");
		feed(pool, &c, &wide, b.p, b.len);
	}
	assert_true(ws_pool_memory(pool) <= MID_MESSAGE_BYTES + 2 * 100000);
	b.len = 0;
	put_str(&b, FIN, "");
	feed(pool, &c, &wide, b.p, b.len);
	assert_int_equal(c.log.len, 17 + 100000);
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

static void a_flood_of_control_frames_inside_a_message_costs_nothing(void **state)
{
	struct ws_pool *pool = pool_begin(1, 0);
	struct conn c = {0};
	struct buf b = {0};
	uint64_t before;

	(void)state;
	put_str(&b, WS_TEXT, "begin ");
	feed(pool, &c, &wide, b.p, b.len);
	before = ws_pool_memory(pool);
	b.len = 0;
	put_str(&b, FIN | WS_PING, "flood");
	for (int i = 0; i < 10000; i++) {
		feed(pool, &c, &wide, b.p, b.len);
		assert_int_equal(ws_pool_memory(pool), before);
	}
	assert_int_equal(ws_pool_borrowed(pool), 1);
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

static void memory_max_is_over_all_connections_and_counts_parsers(void **state)
{
	enum { MAX = 100 };
	struct ws_pool *pool = pool_begin(4, 10 * (WS_PARSER_BYTES + 512));
	struct conn c[MAX] = {{0}};
	struct buf b = {0};
	unsigned refused = 0;

	(void)state;
	put_str(&b, WS_TEXT, "x");
	for (int i = 0; i < MAX; i++) {
		feed(pool, &c[i], &wide, b.p, b.len);
		if (c[i].is_over) {
			assert_one(&c[i], 'E', 1013);
			refused++;
		}
		assert_true(ws_pool_memory(pool) <= 10 * (WS_PARSER_BYTES + 512));
	}
	assert_in_range(MAX - refused, 9, 11);
	assert_int_equal(ws_pool_borrowed(pool), MAX - refused);
	b.len = 0;
	put_str(&b, FIN | WS_TEXT, "small and whole: never refused");
	c[MAX - 1].is_over = false;
	feed(pool, &c[MAX - 1], &wide, b.p, b.len);
	assert_false(c[MAX - 1].is_over);
	for (int i = 0; i < MAX; i++)
		conn_end(pool, &c[i]);
	assert_true(pool->n_idle <= 4);
	buf_free(&b);
	pool_end(pool);
}

static void memory_max_is_exact_for_an_assembled_message(void **state)
{
	uint8_t *p = pattern(20000);

	(void)state;
	for (int less = 0; less < 2; less++) {
		struct ws_pool *pool = pool_begin(1, 20000 - (uint64_t)less);
		struct conn c = {0};
		struct buf b = {0};

		put_frame(&b, FIN | WS_BINARY, p, 20000);
		feed(pool, &c, &wide, b.p, b.len);
		assert_one(&c, less ? 'E' : 'M', less ? 1013 : WS_BINARY);
		conn_end(pool, &c);
		buf_free(&b);
		pool_end(pool);
	}
	free(p);
}

static void the_pool_keeps_no_more_than_max_idle(void **state)
{
	enum { MAX = 50 };
	struct ws_pool *pool = pool_begin(3, 0);
	struct conn c[MAX] = {{0}};
	struct buf b = {0}, rest = {0};

	(void)state;
	put_str(&b, WS_TEXT, "x");
	put_str(&rest, FIN, "y");
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < MAX; i++)
			feed(pool, &c[i], &wide, b.p, b.len);
		assert_int_equal(ws_pool_borrowed(pool), MAX);
		for (int i = 0; i < MAX; i++)
			feed(pool, &c[i], &wide, rest.p, rest.len);
		assert_int_equal(ws_pool_borrowed(pool), 0);
		assert_int_equal(pool->n_idle, 3);
	}
	for (int i = 0; i < MAX; i++) {
		assert_int_equal(c[i].messages, 20);
		conn_end(pool, &c[i]);
	}
	buf_free(&b);
	buf_free(&rest);
	pool_end(pool);
}

/* --- hold --- */

/* Three messages and a ping; the second and later ones are refused at first, in every way they may arrive. */
static void a_held_message_is_kept_and_the_rest_waits(void **state)
{
	struct ws_pool *pool = pool_begin(2, 0);

	(void)state;
	for (int how = 0; how < 4; how++) {
		struct conn want = {0}, got = {.hold_after = 1};
		struct buf b = {0};
		uint8_t *big = pattern(10000);
		size_t at = 0, helds = 0;

		put_str(&b, FIN | WS_TEXT, "first");
		if (how == 0)
			put_str(&b, FIN | WS_TEXT, "second, in the parser's own buffer");
		else if (how == 1)
			put_str(&b, FIN | WS_BINARY, "");
		else if (how == 2)
			put_frame(&b, FIN | WS_BINARY, big, 10000);
		else
			put_str(&b, WS_TEXT, "in "), put_str(&b, FIN, "two");
		put_str(&b, FIN | WS_PING, "between");
		put_str(&b, FIN | WS_TEXT, "third");
		feed(pool, &want, &wide, b.p, b.len);
		while (at < b.len) {
			struct slice held;
			uint8_t opcode = 0;

			at += feed(pool, &got, &wide, b.p + at, b.len - at);
			held = ws_held(got.in, &opcode);
			if (held.p == NULL)
				continue;
			helds++;
			assert_false(ws_is_mid_message(got.in));
			assert_int_equal(ws_pool_borrowed(pool), 0);
			note(&got, 'M', opcode, held.p, held.len);
			ws_held_done(pool, &got.in);
			assert_null(got.in);
			assert_int_equal(ws_pool_memory(pool), 0);
		}
		assert_int_equal(helds, 2);
		assert_same_log(&got, &want);
		conn_end(pool, &got);
		conn_end(pool, &want);
		buf_free(&b);
		free(big);
	}
	pool_end(pool);
}

static void a_held_message_over_memory_max_is_1013(void **state)
{
	struct ws_pool *pool = pool_begin(2, 8);
	struct conn c = {.hold_after = 1, .messages = 1};
	struct buf b = {0};

	(void)state;
	put_str(&b, FIN | WS_TEXT, "nine byte");
	feed(pool, &c, &wide, b.p, b.len);
	assert_one(&c, 'E', 1013);
	conn_end(pool, &c);
	buf_free(&b);
	pool_end(pool);
}

static void held_is_nothing_without_a_held_message(void **state)
{
	struct ws_pool *pool = pool_begin(2, 0);
	struct conn c = {0};
	uint8_t opcode;

	(void)state;
	assert_null(ws_held(NULL, &opcode).p);
	feed(pool, &c, &wide, "\x81", 1);
	assert_null(ws_held(c.in, &opcode).p);
	assert_true(ws_is_mid_message(c.in));
	assert_false(ws_is_mid_message(NULL));
	conn_end(pool, &c);
	pool_end(pool);
}

static void a_reset_at_any_byte_leaves_nothing(void **state)
{
	struct ws_pool *pool = pool_begin(2, 0);
	struct conn want = {0};
	struct buf b = {0};

	(void)state;
	put_scenario(&b, 0);
	reference(pool, &want, &b);
	for (size_t i = 0; i <= b.len; i++) {
		struct conn c = {0}, next = {0};

		feed(pool, &c, &wide, b.p, i);
		ws_reset(pool, &c.in);
		assert_null(c.in);
		assert_int_equal(ws_pool_memory(pool), 0);
		assert_int_equal(ws_pool_borrowed(pool), 0);
		feed(pool, &next, &wide, b.p, b.len); /* perhaps with the same parser */
		assert_same_log(&next, &want);
		conn_end(pool, &c);
		conn_end(pool, &next);
	}
	conn_end(pool, &want);
	buf_free(&b);
	pool_end(pool);
}

/* --- every allocation fails once: the connection gets 1011, and nothing leaks or is counted wrong --- */

#if !IS_SANITIZED
static long fail_at; /* this allocation from now on fails; 0 = none */

static bool is_failing(void)
{
	return fail_at > 0 && --fail_at == 0;
}

void *malloc(size_t n)
{
	static void *(*real)(size_t);

	if (real == NULL)
		real = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	return is_failing() ? NULL : real(n);
}

void *calloc(size_t n, size_t m)
{
	static void *(*real)(size_t, size_t);

	if (real == NULL)
		real = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	return is_failing() ? NULL : real(n, m);
}

void *realloc(void *p, size_t n)
{
	static void *(*real)(void *, size_t);

	if (real == NULL)
		real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	return is_failing() ? NULL : real(p, n);
}

/* Quiet handlers: they must not allocate. */
static enum ws_take quiet_message(void *arg, uint8_t opcode, const uint8_t *p, size_t len)
{
	(void)opcode, (void)p, (void)len;
	++*(unsigned *)arg;
	return WS_HOLD;
}

static void each_allocation_that_fails_is_1011_and_leaks_nothing(void **state)
{
	static const struct ws_handler quiet = {quiet_message, on_ping, on_pong, on_close};
	struct buf b = {0};
	long n;

	(void)state;
	put_str(&b, WS_TEXT, "one ");
	put_str(&b, FIN, "two");
	put_str(&b, FIN | WS_TEXT, "in the parser");
	for (n = 1; n < 100; n++) {
		struct ws_pool *pool = pool_begin(1, 0);
		struct ws_in *in = NULL;
		unsigned told = 0;
		int code = 0;

		fail_at = n;
		for (size_t at = 0, used; code == 0 && at < b.len; at += used) {
			uint8_t opcode;

			code = ws_feed(pool, &in, &wide, &quiet, &told, (uint8_t *)b.p + at,
				       u64_min(9, b.len - at), &used);
			if (ws_held(in, &opcode).p != NULL)
				ws_held_done(pool, &in);
		}
		if (code == 0) {
			assert_int_equal(told, 2);
			fail_at = 0;
			pool_end(pool);
			break;
		}
		assert_int_equal(fail_at, 0);
		assert_int_equal(code, 1011);
		assert_null(in);
		pool_end(pool);
	}
	assert_in_range(n, 5, 40); /* many failed, and then a run was clean */
	buf_free(&b);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_messages_of_every_size_arrive_as_sent),
		cmocka_unit_test(every_pair_of_cuts_of_two_connections_changes_nothing),
		cmocka_unit_test(every_piece_size_changes_nothing),
		cmocka_unit_test(a_large_message_survives_any_read_size),
		cmocka_unit_test(every_first_pair_of_bytes_is_judged_at_once),
		cmocka_unit_test(a_bad_frame_is_refused_on_two_bytes),
		cmocka_unit_test(order_of_fragments_is_enforced),
		cmocka_unit_test(lengths_must_be_minimal_and_below_2_63),
		cmocka_unit_test(exactly_the_limit_passes_and_one_more_is_1009_on_its_header),
		cmocka_unit_test(the_limit_is_judged_in_64_bits),
		cmocka_unit_test(fragments_are_counted_without_control_frames),
		cmocka_unit_test(each_message_has_its_own_limits),
		cmocka_unit_test(close_codes_are_those_that_may_travel),
		cmocka_unit_test(close_is_checked_whole_however_it_is_cut),
		cmocka_unit_test(nothing_behind_a_close_is_taken),
		cmocka_unit_test(invalid_text_fails_at_the_very_byte),
		cmocka_unit_test(text_may_not_end_inside_a_character_and_binary_may),
		cmocka_unit_test(a_parser_that_saw_an_error_serves_nobody_else),
		cmocka_unit_test(an_announced_length_allocates_nothing),
		cmocka_unit_test(memory_follows_what_was_received),
		cmocka_unit_test(fragments_of_one_byte_cost_what_their_bytes_cost),
		cmocka_unit_test(a_flood_of_control_frames_inside_a_message_costs_nothing),
		cmocka_unit_test(memory_max_is_over_all_connections_and_counts_parsers),
		cmocka_unit_test(memory_max_is_exact_for_an_assembled_message),
		cmocka_unit_test(the_pool_keeps_no_more_than_max_idle),
		cmocka_unit_test(a_held_message_is_kept_and_the_rest_waits),
		cmocka_unit_test(a_held_message_over_memory_max_is_1013),
		cmocka_unit_test(held_is_nothing_without_a_held_message),
		cmocka_unit_test(a_reset_at_any_byte_leaves_nothing),
#if !IS_SANITIZED
		cmocka_unit_test(each_allocation_that_fails_is_1011_and_leaks_nothing),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
