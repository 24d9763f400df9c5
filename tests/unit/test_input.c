/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* From the first byte of a handshake to the last of a Close, through the real worker. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

static struct rig r;

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

/* ---- handshake and join */

static void the_101_waits_for_the_subscription(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	r.hold_control = true;
	rig_dial(&r, &c, 0);
	rig_request(&c, "/ws/a");
	rig_settle(&r);
	assert_int_equal(rig_read(&c, 0), 0);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_JOINING);
	assert_int_equal(RIG_COUNT(&r, handshaking), 1);
	r.hold_control = false;
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	assert_int_equal(RIG_COUNT(&r, handshaking), 0);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, opened), 1);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, channels), 1);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "one", 3);
	rig_expect(&r, &c, "one");
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, channels), 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1006]), 1);
	assert_false(rig_channel(&r, RIG_DEMO, "a")->is_wanted);
	end();
}

static void a_handshake_byte_by_byte(void **state)
{
	static const char head[] =
		"GET /ws/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
	struct rig_client c;

	(void)state;
	begin();
	rig_dial(&r, &c, 0);
	for (size_t i = 0; i < sizeof(head) - 1; i++) {
		assert_int_equal(send(c.fd, head + i, 1, 0), 1);
		rig_settle(&r);
	}
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	assert_null(rig_conn(&r, &c)->ext); /* an idle connection owns nothing */
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void a_message_before_the_101_is_published_after_it(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	r.hold_control = true;
	rig_dial(&r, &c, 0);
	rig_request(&c, "/ws/a");
	rig_send(&c, WS_TEXT, "early", 5);
	rig_settle(&r);
	rig_send(&c, WS_TEXT, "later", 5);
	rig_settle(&r);
	assert_int_equal(r.publications, 0);
	r.hold_control = false;
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	rig_expect(&r, &c, "early");
	rig_expect(&r, &c, "later");
	assert_null(rig_conn(&r, &c)->ext);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void gone_while_joining(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin();
	r.hold_control = true;
	for (size_t i = 0; i < 3; i++) {
		rig_dial(&r, &c[i], 0);
		rig_request(&c[i], "/ws/a");
		rig_settle(&r);
	}
	rig_hang_up(&c[1]);
	rig_settle(&r);
	rig_check(&r);
	rig_hang_up(&c[0]);
	rig_hang_up(&c[2]);
	rig_settle(&r);
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(rig_channel(&r, RIG_DEMO, "a")->adds, 1);
	assert_int_equal(rig_channel(&r, RIG_DEMO, "a")->drops, 1);
	assert_int_equal(count_get(&r.w->count->refused[COUNT_REFUSED_aborted]), 3);
	assert_int_equal(r.w->channels.n, 0);
	end();
}

static void handshake_deadline(void **state)
{
	struct rig_client c, j;

	(void)state;
	rig_init(&r);
	r.config.limits.handshake_timeout = 1000;
	rig_start(&r);
	r.hold_control = true;
	rig_dial(&r, &c, 0);
	rig_dial(&r, &j, 0);
	rig_request(&j, "/ws/a");
	rig_pass(&r, 800);
	assert_int_equal(send(c.fd, "GET", 3, 0), 3); /* no byte resets it */
	rig_pass(&r, 150);
	assert_non_null(rig_conn(&r, &c));
	rig_pass(&r, 200);
	rig_read(&c, 0);
	rig_read(&j, 0);
	assert_memory_equal(c.in.p, "HTTP/1.1 408", 12);
	assert_memory_equal(j.in.p, "HTTP/1.1 408", 12);
	assert_true(c.is_eof);
	assert_int_equal(count_get(&r.w->count->refused[COUNT_REFUSED_timeout]), 2);
	assert_int_equal(r.w->conns.n_handshaking, 0);
	rig_pass(&r, 1200); /* nor does it linger for ever */
	assert_int_equal(r.w->conns.n, 0);
	rig_hang_up(&c);
	rig_hang_up(&j);
	end();
}

/* A head that is too large, sent at once: the answer must not be lost to a RST for what was not read. */
static void the_refusal_arrives(void **state)
{
	struct rig_client c;
	char *big = malloc(1 << 20);

	(void)state;
	begin();
	memset(big, 'x', 1 << 20);
	memcpy(big, "GET /", 5);
	rig_dial(&r, &c, 0);
	assert_true(send(c.fd, big, 1 << 20, MSG_NOSIGNAL) > 200000);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_memory_equal(c.in.p, "HTTP/1.1 414", 12);
	assert_false(c.is_reset);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	free(big);
	end();
}

/* ---- Close */

static void close_is_echoed(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	rig_send_close(&c, 1000);
	rig_expect_close(&r, &c, 1000);
	rig_read(&c, 0);
	assert_true(c.is_eof);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1000]), 1);
	end();
}

static void an_empty_close_is_echoed_empty(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	rig_send(&c, WS_CLOSE, NULL, 0);
	rig_expect_close(&r, &c, 1005);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1005]), 1);
	end();
}

static void close_waits_for_own_publications(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/echo", 0);
	r.hold_data = true;
	rig_send(&c, WS_TEXT, "a", 1);
	rig_send(&c, WS_TEXT, "b", 1);
	rig_send_close(&c, 1000);
	rig_pass(&r, 300);
	rig_expect_nothing(&r, &c);
	r.hold_data = false;
	rig_expect(&r, &c, "a");
	rig_expect(&r, &c, "b");
	rig_expect_close(&r, &c, 1000);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void close_waits_half_a_second_at_most(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/echo", 0);
	r.hold_data = true;
	rig_send(&c, WS_TEXT, "a", 1);
	rig_send_close(&c, 1000);
	rig_pass(&r, 450);
	rig_expect_nothing(&r, &c);
	rig_pass(&r, 200);
	rig_expect_close(&r, &c, 1000);
	r.hold_data = false;
	rig_settle(&r);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

/* Who hangs up while its Close waits has closed in order. */
static void a_close_that_waits_counts_as_what_it_said(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/echo", 0);
	r.hold_data = true;
	rig_send(&c, WS_TEXT, "a", 1);
	rig_send_close(&c, 1001);
	rig_settle(&r);
	rig_hang_up(&c);
	rig_settle(&r);
	rig_pass(&r, 600);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1001]), 1);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1006]), 0);
	r.hold_data = false;
	rig_settle(&r);
	end();
}

static void protocol_error_ends_it(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	assert_int_equal(send(c.fd, "\x81\x01x", 3, 0), 3); /* not masked */
	rig_expect_close(&r, &c, 1002);
	rig_read(&c, 0);
	assert_true(c.is_eof);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

/* Our Close is out; nonsense instead of the peer's ends it as well. */
static void nonsense_after_our_close(void **state)
{
	struct rig_client c;
	uint8_t trash = 0xff;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	conn_close(r.w, rig_conn(&r, &c), 1001, "bye");
	rig_expect_close(&r, &c, 1001);
	assert_false(c.is_eof);
	assert_int_equal(send(c.fd, &trash, 1, 0), 1);
	assert_int_equal(send(c.fd, &trash, 1, 0), 1);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(c.is_eof);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

static void our_close_lingers_then_resets(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	conn_close(r.w, rig_conn(&r, &c), 1012, NULL);
	rig_expect_close(&r, &c, 1012);
	rig_pass(&r, 4900);
	assert_non_null(rig_conn(&r, &c));
	rig_pass(&r, 300);
	assert_null(rig_conn(&r, &c));
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1012]), 1);
	rig_hang_up(&c);
	end();
}

/* ---- publishing and its pauses */

/* Fill the data uplink so that the next message of a small client does not fit. */
static void fill_uplink(struct rig_client *c)
{
	static char big[60000];

	r.hold_data = true;
	while ((rig_conn(&r, c)->flags & CONN_PAUSED) == 0) {
		rig_send(c, WS_BINARY, big, sizeof(big));
		rig_settle(&r);
	}
}

static void a_paused_publisher_goes_on(void **state)
{
	struct rig_client a, b;
	struct rig_frame f = {0};
	unsigned big = 0;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	fill_uplink(&a);
	assert_true(RIG_COUNT(&r, uplink_full) > 0);
	rig_send(&a, WS_TEXT, "behind", 6);
	rig_send(&b, WS_TEXT, "other", 5); /* would fit, but waits behind `a` */
	rig_send(&b, WS_TEXT, "last", 4);
	rig_settle(&r);
	rig_check(&r);
	assert_true((rig_conn(&r, &b)->flags & CONN_PAUSED) != 0);
	r.hold_data = false;
	while (f.opcode != WS_TEXT) {
		rig_settle(&r);
		assert_true(rig_read(&a, 0) > 0);
		while (rig_frame(&a, &f) && f.opcode == WS_BINARY)
			big++;
	}
	assert_true(big > 2);
	assert_int_equal(f.len, 6);
	rig_expect(&r, &b, "other");
	rig_expect(&r, &b, "last");
	assert_null(rig_conn(&r, &a)->ext);
	assert_null(rig_conn(&r, &b)->ext);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* We close a client whose message waits: what it sends afterwards must neither crash us nor be forgotten: its
 * Close ends the connection. */
static void closed_while_paused(void **state)
{
	struct rig_client a;
	struct rig_frame f;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	fill_uplink(&a);
	rig_send(&a, WS_TEXT, "not read", 8);
	conn_close(r.w, rig_conn(&r, &a), 1012, NULL);
	rig_check(&r);
	rig_settle(&r);
	rig_read(&a, 0);
	assert_true(rig_frame(&a, &f));
	assert_int_equal(a.close_code, 1012);
	rig_send_close(&a, 1012);
	rig_settle(&r);
	rig_read(&a, 0);
	assert_true(a.is_eof);
	rig_hang_up(&a);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	r.hold_data = false;
	rig_settle(&r);
	end();
}

/* The same with the socket full, so that the Close itself has to wait. */
static void closed_while_paused_and_full(void **state)
{
	struct rig_client a;
	struct rig_frame f = {0};
	static char frame[3000];

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 4096);
	fill_uplink(&a);
	for (int i = 0; i < 40; i++)
		rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), frame, sizeof(frame));
	rig_settle(&r);
	assert_true((rig_conn(&r, &a)->flags & CONN_BEHIND) != 0);
	conn_close(r.w, rig_conn(&r, &a), 1012, NULL);
	rig_check(&r);
	rig_send(&a, WS_TEXT, "more", 4);
	rig_settle(&r);
	while (a.close_code == 0) {
		rig_read(&a, 2000);
		while (rig_frame(&a, &f))
			;
		rig_settle(&r);
	}
	assert_int_equal(a.close_code, 1012);
	rig_hang_up(&a);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	r.hold_data = false;
	rig_settle(&r);
	end();
}

static void a_paused_one_hangs_up(void **state)
{
	struct rig_client a, b, c;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	rig_connect(&r, &c, "/ws/c", 0);
	fill_uplink(&a);
	rig_send(&b, WS_TEXT, "b", 1);
	rig_settle(&r);
	rig_send(&c, WS_TEXT, "c", 1);
	rig_settle(&r);
	rig_hang_up(&b); /* from the middle of the list */
	rig_settle(&r);
	rig_check(&r);
	rig_hang_up(&a);
	rig_settle(&r);
	rig_check(&r);
	r.hold_data = false;
	rig_expect(&r, &c, "c");
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->starving_head, CONN_NONE);
	assert_int_equal(r.w->starving_tail, CONN_NONE);
	end();
}

static void readonly_takes_no_messages(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ro/a", 0);
	rig_send(&c, WS_TEXT, "x", 1);
	rig_expect_nothing(&r, &c);
	assert_int_equal(r.publications, 0);
	rig_send_close(&c, 1000);
	rig_expect_close(&r, &c, 1000);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Senders of a byte now and then hold parsers and memory; when that gets scarce they go, and nobody else
 * does. */
static void trickled_messages_when_memory_is_short(void **state)
{
	static const uint8_t part[8] = {0x82, 0x80 | 100}; /* mask 0, and two bytes of 100 */
	struct rig_client slow, fast, idle;

	(void)state;
	begin();
	rig_connect(&r, &slow, "/ws/a", 0);
	rig_connect(&r, &fast, "/ro/a", 0);
	rig_connect(&r, &idle, "/ws/a", 0);
	assert_int_equal(send(slow.fd, part, sizeof(part), 0), sizeof(part));
	for (int i = 0; i < 20; i++) {
		rig_pass(&r, 1000);
		assert_int_equal(send(slow.fd, "x", 1, 0), 1);
		rig_settle(&r);
	}
	assert_int_equal(rig_conn(&r, &slow)->state, CONN_OPEN); /* memory in plenty: let it */
	r.w->ws_memory = ws_pool_memory(r.w->ws_pool);
	/* In the middle of a message whenever one looks, but of another one each time. */
	assert_int_equal(send(fast.fd, part, sizeof(part), 0), sizeof(part));
	for (int i = 0; i < 3; i++) {
		static uint8_t rest[98 + sizeof(part)];

		memcpy(rest + 98, part, sizeof(part));
		rig_settle(&r);
		rig_pass(&r, 4000);
		assert_int_equal(send(fast.fd, rest, sizeof(rest), 0), sizeof(rest));
		rig_settle(&r);
	}
	rig_expect_close(&r, &slow, 1008);
	assert_int_equal(rig_conn(&r, &fast)->state, CONN_OPEN);
	assert_int_equal(rig_conn(&r, &idle)->state, CONN_OPEN);
	rig_hang_up(&slow);
	rig_hang_up(&fast);
	rig_hang_up(&idle);
	rig_settle(&r);
	end();
}

/* ---- timers */

static unsigned pings(struct rig_client *c)
{
	struct rig_frame f;
	unsigned n = 0;

	rig_read(c, 0);
	while (rig_frame(c, &f))
		n += f.opcode == WS_PING;
	return n;
}

static void a_ping_each_interval(void **state)
{
	struct rig_client c;
	unsigned n = 0;

	(void)state;
	rig_init(&r);
	r.config.limits.ping_interval = 10000;
	r.config.limits.pong_timeout = 2000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 1000; i++) {
		unsigned got;

		rig_pass(&r, 100);
		got = pings(&c);
		if (got > 0)
			rig_send(&c, WS_PONG, NULL, 0);
		n += got;
	}
	assert_in_range(n, 9, 11); /* 100 s at one each 10 s */
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1011]), 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void a_pong_that_takes_longer_than_the_interval(void **state)
{
	struct rig_client c;
	unsigned n = 0;

	(void)state;
	rig_init(&r);
	r.config.limits.ping_interval = 1000;
	r.config.limits.pong_timeout = 5000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 100; i++) {
		unsigned got;

		rig_pass(&r, 100);
		got = pings(&c);
		if (got > 0)
			rig_send(&c, WS_PONG, NULL, 0);
		n += got;
	}
	assert_in_range(n, 9, 11);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void no_pong_no_connection(void **state)
{
	struct rig_client c;
	uint64_t start;

	(void)state;
	rig_init(&r);
	r.config.limits.ping_interval = 1000;
	r.config.limits.pong_timeout = 2000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	start = r.now_ms;
	while (rig_conn(&r, &c)->state == CONN_OPEN) {
		rig_pass(&r, 50);
		assert_true(r.now_ms - start < 4000);
	}
	assert_in_range(r.now_ms - start, 2500, 3300);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1011]), 1);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Its bytes lie unread because we pause it: that is no fault of the client's. */
static void a_paused_client_is_not_timed_out(void **state)
{
	struct rig_client c;

	(void)state;
	rig_init(&r);
	r.config.limits.ping_interval = 1000;
	r.config.limits.pong_timeout = 1000;
	r.config.limits.idle_timeout = 3000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	fill_uplink(&c);
	rig_pass(&r, 20000);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	r.hold_data = false;
	rig_settle(&r);
	rig_pass(&r, 500);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_pass(&r, 5000); /* but then the clocks run again */
	assert_true(rig_conn(&r, &c) == NULL || rig_conn(&r, &c)->state == CONN_CLOSING);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void idle_means_no_byte_at_all(void **state)
{
	struct rig_client c;

	(void)state;
	rig_init(&r);
	r.config.limits.idle_timeout = 1000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 5; i++) {
		rig_pass(&r, 700);
		rig_send(&c, WS_PONG, NULL, 0);
		rig_settle(&r);
	}
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_pass(&r, 1200);
	rig_expect_close(&r, &c, 1008);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void an_idle_timeout_shorter_than_the_pings(void **state)
{
	struct rig_client c;

	(void)state;
	rig_init(&r);
	r.config.limits.idle_timeout = 1000;
	r.config.limits.ping_interval = 60000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_pass(&r, 1200);
	rig_expect_close(&r, &c, 1008);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* The low 32 bits of the clock pass zero in the middle of everything. */
static void clocks_that_wrap(void **state)
{
	struct rig_client c;
	unsigned n = 0;

	(void)state;
	rig_init(&r);
	r.now_ms = (r.now_ms | UINT64_C(0xffffffff)) - 15000;
	r.config.limits.ping_interval = 10000;
	r.config.limits.pong_timeout = 5000;
	r.config.limits.idle_timeout = 12000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 400; i++) {
		unsigned got;

		rig_pass(&r, 100);
		got = pings(&c);
		if (got > 0)
			rig_send(&c, WS_PONG, NULL, 0);
		n += got;
	}
	assert_in_range(n, 3, 5);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- names */

static void tags_are_never_zero(void **state)
{
	struct conn c = {.index = 0};

	(void)state;
	begin();
	for (uint32_t i = 0; i < 5000; i++) {
		c.gen = i;
		assert_int_not_equal(conn_tag(&c), 0);
		assert_int_equal(conn_tag(&c) & UP_REQUEST_ANSWER, 0);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_101_waits_for_the_subscription),
		cmocka_unit_test(a_handshake_byte_by_byte),
		cmocka_unit_test(a_message_before_the_101_is_published_after_it),
		cmocka_unit_test(gone_while_joining),
		cmocka_unit_test(handshake_deadline),
		cmocka_unit_test(the_refusal_arrives),
		cmocka_unit_test(close_is_echoed),
		cmocka_unit_test(an_empty_close_is_echoed_empty),
		cmocka_unit_test(close_waits_for_own_publications),
		cmocka_unit_test(close_waits_half_a_second_at_most),
		cmocka_unit_test(a_close_that_waits_counts_as_what_it_said),
		cmocka_unit_test(protocol_error_ends_it),
		cmocka_unit_test(nonsense_after_our_close),
		cmocka_unit_test(our_close_lingers_then_resets),
		cmocka_unit_test(a_paused_publisher_goes_on),
		cmocka_unit_test(closed_while_paused),
		cmocka_unit_test(closed_while_paused_and_full),
		cmocka_unit_test(a_paused_one_hangs_up),
		cmocka_unit_test(readonly_takes_no_messages),
		cmocka_unit_test(trickled_messages_when_memory_is_short),
		cmocka_unit_test(a_ping_each_interval),
		cmocka_unit_test(a_pong_that_takes_longer_than_the_interval),
		cmocka_unit_test(no_pong_no_connection),
		cmocka_unit_test(a_paused_client_is_not_timed_out),
		cmocka_unit_test(idle_means_no_byte_at_all),
		cmocka_unit_test(an_idle_timeout_shorter_than_the_pings),
		cmocka_unit_test(clocks_that_wrap),
		cmocka_unit_test(tags_are_never_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
