/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* What goes to one socket besides ring records: pongs, pings, replies, Closes; the end of a connection. */
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
#include "worker/output.h"

#define SMALL 4096

static struct rig r;

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	rig_stop(&r);
}

/* A live member whose socket is full to the last byte, with nothing waiting yet: replies went out until one
 * was refused. Returns how many whole replies of 902 bytes there are before the one that waits. */
static unsigned full_socket(struct rig_client *c)
{
	char reply[902] = "\x82\x7e\x03\x82";
	struct conn *conn;
	unsigned n = 0;

	rig_connect(&r, c, "/ws/a", SMALL);
	conn = rig_conn(&r, c);
	while ((conn->flags & CONN_BLOCKED) == 0) {
		assert_true(output_bytes(r.w, conn, reply, sizeof(reply)));
		n++;
	}
	rig_check(&r);
	return n;
}

/* The next frames, in order, by opcode; every payload is checked by the caller's test of lengths. */
static void expect_opcodes(struct rig_client *c, const char *opcodes)
{
	struct rig_frame f;
	char seen[100] = "";
	size_t n = 0;

	do {
		rig_settle(&r);
		while (rig_frame(c, &f)) {
			assert_true(n < sizeof(seen) - 1);
			seen[n++] = f.opcode == WS_TEXT     ? 't'
				    : f.opcode == WS_BINARY ? 'b'
				    : f.opcode == WS_CLOSE  ? 'c'
				    : f.opcode == WS_PING   ? 'i'
							    : 'o';
		}
	} while (rig_read(c, 0) > 0);
	seen[n] = '\0';
	assert_string_equal(seen, opcodes);
}

static void a_ping_is_answered_with_its_payload(void **state)
{
	static const size_t sizes[] = {0, 1, 124, 125};
	struct rig_client c;
	struct rig_frame f;
	char payload[125];

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	memset(payload, 'p', sizeof(payload));
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		rig_send(&c, WS_PING, payload, sizes[i]);
		rig_settle(&r);
		rig_read(&c, 0);
		assert_true(rig_frame(&c, &f));
		assert_int_equal(f.opcode, WS_PONG);
		assert_int_equal(f.len, sizes[i]);
		assert_memory_equal(f.payload, payload, f.len);
	}
	assert_null(rig_conn(&r, &c)->ext);
	rig_hang_up(&c);
	end();
}

/* A flood of pings without reading: one pong is kept, the latest. */
static void a_ping_flood_costs_nothing(void **state)
{
	struct rig_client c;
	struct rig_frame f = {0};
	char payload[20];
	unsigned n, pongs = 0;

	(void)state;
	begin();
	n = full_socket(&c);
	for (int i = 0; i < 5000; i++) {
		snprintf(payload, sizeof(payload), "%d", i);
		rig_send(&c, WS_PING, payload, strlen(payload));
		if (i % 100 == 0)
			rig_settle(&r);
	}
	rig_settle(&r);
	assert_true(rig_conn(&r, &c)->ext->out.len <= 902);
	do {
		rig_settle(&r);
		while (rig_frame(&c, &f))
			pongs += f.opcode == WS_PONG;
	} while (rig_read(&c, 0) > 0);
	assert_int_equal(pongs, 1);
	(void)n;
	rig_send(&c, WS_PING, "after", 5);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_memory_equal(f.payload, "after", 5);
	assert_null(rig_conn(&r, &c)->ext);
	rig_hang_up(&c);
	end();
}

/* Half a reply is out; then a record, a ping's answer, and another reply come up: rest, replies, pong,
 * record. */
static void order_behind_a_reply(void **state)
{
	struct rig_client c;
	char expected[40] = "";
	unsigned n;

	(void)state;
	begin();
	n = full_socket(&c);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "record", 6);
	rig_settle(&r);
	assert_true((rig_conn(&r, &c)->flags & CONN_BEHIND) != 0);
	rig_send(&c, WS_PING, "1", 1);
	rig_settle(&r);
	assert_true(output_bytes(r.w, rig_conn(&r, &c), "\x82\x01x", 3));
	memset(expected, 'b', n + 1);
	memcpy(expected + n + 1, "ot", 3);
	expect_opcodes(&c, expected);
	assert_int_equal(rig_conn(&r, &c)->flags, 0);
	assert_null(rig_conn(&r, &c)->ext);
	rig_hang_up(&c);
	end();
}

/* A Close stands behind what waits, and nothing behind it, be it a pong or a record. */
static void nothing_follows_a_close(void **state)
{
	struct rig_client c;
	char expected[40] = "";
	unsigned n;

	(void)state;
	begin();
	n = full_socket(&c);
	rig_send(&c, WS_PING, "1", 1);
	rig_settle(&r);
	conn_close(r.w, rig_conn(&r, &c), 1001, "bye");
	rig_send(&c, WS_PING, "2", 1);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "record", 6);
	memset(expected, 'b', n);
	expected[n] = 'c';
	expect_opcodes(&c, expected);
	assert_int_equal(c.close_code, 1001);
	rig_hang_up(&c);
	end();
}

static void reasons_travel_with_the_code(void **state)
{
	struct rig_client c;
	struct rig_frame f;
	char reason[200];

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	conn_close(r.w, rig_conn(&r, &c), 1013, "slow consumer");
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.len, 2 + 13);
	assert_memory_equal(f.payload + 2, "slow consumer", 13);
	rig_hang_up(&c);
	rig_settle(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	memset(reason, 'r', sizeof(reason) - 1);
	reason[sizeof(reason) - 1] = '\0';
	conn_close(r.w, rig_conn(&r, &c), 1001, reason); /* cut to what a control frame holds */
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.len, 125);
	rig_hang_up(&c);
	end();
}

/* With codes of failure we end our side at once; with others the peer's Close is waited for. */
static void who_ends_first(void **state)
{
	static const struct {
		uint16_t code;
		bool at_once;
	} cases[] = {{1002, true}, {1003, true},  {1007, true},  {1008, true}, {1009, true},
		     {1011, true}, {1001, false}, {1012, false}, {1013, false}};
	struct rig_client c;

	(void)state;
	begin();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		rig_connect(&r, &c, "/ws/a", 0);
		conn_close(r.w, rig_conn(&r, &c), cases[i].code, NULL);
		rig_expect_close(&r, &c, cases[i].code);
		rig_read(&c, 0);
		assert_int_equal(c.is_eof, cases[i].at_once);
		if (!cases[i].at_once) {
			rig_send_close(&c, cases[i].code);
			rig_settle(&r);
			rig_read(&c, 0);
			assert_true(c.is_eof);
		}
		assert_non_null(rig_conn(&r, &c)); /* for its FIN */
		rig_hang_up(&c);
		rig_settle(&r);
		assert_null(rig_conn(&r, &c));
	}
	end();
}

/* A second close changes nothing. */
static void close_twice(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	conn_close(r.w, rig_conn(&r, &c), 1001, NULL);
	conn_close(r.w, rig_conn(&r, &c), 1013, NULL);
	rig_expect_close(&r, &c, 1001);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1001]), 1);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1013]), 0);
	rig_hang_up(&c);
	end();
}

/* Replies that are taken and added all the time do not add up to the limit. */
static void taken_replies_do_not_count(void **state)
{
	struct rig_client c;
	struct conn *conn;
	char reply[902] = "\x82\x7e\x03\x82";
	struct rig_frame f;
	uint64_t total = 0;

	(void)state;
	begin();
	full_socket(&c);
	conn = rig_conn(&r, &c);
	for (int i = 0; i < 20; i++)
		assert_true(output_bytes(r.w, conn, reply, sizeof(reply)));
	for (int i = 0; i < 300; i++) {
		assert_non_null(rig_conn(&r, &c));
		assert_true(output_bytes(r.w, conn, reply, sizeof(reply)));
		rig_read(&c, 1000);
		while (rig_frame(&c, &f))
			total += f.len;
		rig_settle(&r);
	}
	assert_true(total > 3 * 65536);
	rig_hang_up(&c);
	end();
}

/* The peer is gone, and we learn it from a send. */
static void a_send_that_fails(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	assert_int_equal(shutdown(rig_conn(&r, &c)->fd, SHUT_WR), 0);
	/* A ping, then a message, then a Close in one read: the answer to the ping finds the socket dead. */
	rig_send(&c, WS_PING, "", 0);
	rig_send(&c, WS_TEXT, "x", 1);
	rig_send_close(&c, 1000);
	rig_settle(&r);
	assert_null(rig_conn(&r, &c));
	assert_int_equal(r.publications, 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1006]), 1);
	assert_int_equal(r.w->conns.n, 0);
	rig_hang_up(&c);
	/* Its place is used again, unburdened. */
	rig_connect(&r, &c, "/ws/a", 0);
	assert_int_equal(rig_conn(&r, &c)->flags, 0);
	rig_hang_up(&c);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ping_is_answered_with_its_payload),
		cmocka_unit_test(a_ping_flood_costs_nothing),
		cmocka_unit_test(order_behind_a_reply),
		cmocka_unit_test(nothing_follows_a_close),
		cmocka_unit_test(reasons_travel_with_the_code),
		cmocka_unit_test(who_ends_first),
		cmocka_unit_test(close_twice),
		cmocka_unit_test(taken_replies_do_not_count),
		cmocka_unit_test(a_send_that_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
