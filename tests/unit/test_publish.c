/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Up the uplinks: messages in parts, a full uplink, publishers that vanish, interest that does not fit. */
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
static uint8_t *big; /* 2 MiB of a pattern */

#define BIG (2u << 20)

static int make_big(void **state)
{
	(void)state;
	big = malloc(BIG);
	if (big == NULL)
		return -1;
	for (size_t i = 0; i < BIG; i++)
		big[i] = (uint8_t)(i * 7 + i / 251);
	return 0;
}

static int free_big(void **state)
{
	(void)state;
	free(big);
	return 0;
}

static void begin(void)
{
	rig_init(&r);
	r.config.ring.size = 8u << 20;
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

/* The next binary frame has the first `len` bytes of the pattern. */
static void expect_big(struct rig_client *c, size_t len)
{
	struct rig_frame f;

	while (!rig_frame(c, &f)) {
		rig_settle(&r);
		assert_true(rig_read(c, 0) > 0);
	}
	assert_int_equal(f.opcode, WS_BINARY);
	assert_int_equal(f.len, len);
	assert_memory_equal(f.payload, big, len);
}

static void sizes_around_one_chunk(void **state)
{
	static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 65537, 131072, 131073, 1000000};
	struct rig_client a, b;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/a", 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		rig_send(&a, WS_BINARY, big, sizes[i]);
		expect_big(&a, sizes[i]);
		expect_big(&b, sizes[i]);
	}
	assert_null(rig_conn(&r, &a)->ext);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* Larger than the whole uplink: it goes up as the master makes room, and nobody's message gets between its
 * parts. */
static void others_wait_for_the_last_part(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	r.data_records = 1;
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	r.hold_data = true;
	rig_send(&a, WS_BINARY, big, 1500000);
	rig_settle(&r);
	assert_true(r.w->chunking.is_active);
	rig_send(&b, WS_TEXT, "after", 5);
	rig_settle(&r);
	rig_check(&r);
	r.hold_data = false;
	expect_big(&a, 1500000);
	rig_expect(&r, &b, "after");
	assert_false(r.w->chunking.is_active);
	assert_int_equal(r.abandoned, 0);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

static void an_owner_that_vanishes(void **state)
{
	struct rig_client a, b, c;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/a", 0);
	rig_connect(&r, &c, "/ws/c", 0);
	r.hold_data = true;
	rig_send(&a, WS_BINARY, big, 1500000);
	rig_settle(&r);
	rig_send(&b, WS_BINARY, big, 1000000);
	rig_settle(&r);
	rig_send(&c, WS_TEXT, "c", 1);
	rig_settle(&r);
	conn_drop(r.w, rig_conn(&r, &a), true,
		  1006); /* it is not read, so its hanging up would be seen later */
	assert_false(r.w->chunking.is_active);
	rig_check(&r);
	r.hold_data = false;
	expect_big(&b, 1000000);
	rig_expect(&r, &c, "c");
	assert_int_equal(r.abandoned, 1);
	assert_int_equal(r.publications, 2);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void an_owner_that_is_closed(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	r.hold_data = true;
	rig_send(&a, WS_BINARY, big, 1500000);
	rig_settle(&r);
	rig_send(&b, WS_TEXT, "b", 1);
	rig_settle(&r);
	conn_close(r.w, rig_conn(&r, &a), 1001, NULL);
	assert_false(r.w->chunking.is_active);
	r.hold_data = false;
	rig_expect(&r, &b, "b");
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* ---- with the HTTP API as a publisher */

static int post(size_t len)
{
	char head[300];
	char *body = malloc(len + 100);
	int fd = rig_admin(&r), n;
	size_t at;

	assert_non_null(body);
	at = (size_t)snprintf(body, 100, "{\"channel\":\"demo:a\",\"text\":\"");
	memset(body + at, 'x', len);
	memcpy(body + at + len, "\"}", 2);
	n = snprintf(head, sizeof(head),
		     "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", at + len + 2);
	rig_admin_send(&r, fd, head, (size_t)n);
	rig_admin_send(&r, fd, body, at + len + 2);
	free(body);
	return fd;
}

static void an_api_message_half_way_up_goes_first(void **state)
{
	struct rig_client a, b;
	struct rig_frame f;
	char answer[1000];
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	r.hold_data = true;
	fd = post(1000000);
	for (int i = 0; i < RIG_TURNS && !r.w->chunking.is_active; i++)
		rig_admin_turn(&r);
	assert_true(r.w->chunking.is_active);
	rig_send(&b, WS_TEXT, "waits", 5);
	rig_settle(&r);
	assert_true((rig_conn(&r, &b)->flags & CONN_PAUSED) != 0);
	r.hold_data = false;
	while (!rig_frame(&a, &f)) {
		rig_settle(&r);
		assert_true(rig_read(&a, 0) > 0);
	}
	assert_int_equal(f.len, 1000000);
	rig_expect(&r, &b, "waits");
	rig_admin_answer(&r, fd, answer, sizeof(answer));
	assert_memory_equal(answer, "HTTP/1.1 200", 12);
	assert_non_null(strstr(answer, "\"seq\":1,"));
	close(fd);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

static void an_api_client_that_vanishes_half_way(void **state)
{
	struct rig_client b;
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &b, "/ws/b", 0);
	r.hold_data = true;
	fd = post(1000000);
	for (int i = 0; i < RIG_TURNS && !r.w->chunking.is_active; i++)
		rig_admin_turn(&r);
	assert_true(r.w->chunking.is_active);
	rig_send(&b, WS_TEXT, "waits", 5);
	rig_settle(&r);
	close(fd);
	r.hold_data = false;
	rig_expect(&r, &b, "waits");
	for (int i = 0; i < 100; i++)
		rig_admin_turn(&r);
	assert_int_equal(r.w->starving_head, CONN_NONE);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* ---- broadcast */

/* {"channels":[...],"text":"xx..."} into dst. Returns its length. */
static int put_broadcast(char *dst, const char *channels, size_t text_len)
{
	int at = snprintf(dst, strlen(channels) + 50, "{\"channels\":[%s],\"text\":\"", channels);

	memset(dst + at, 'x', text_len);
	memcpy(dst + at + text_len, "\"}", 2);
	return at + (int)text_len + 2;
}

static int post_broadcast(const char *channels, size_t text_len)
{
	char *body = malloc(text_len + strlen(channels) + 100), head[200];
	int fd = rig_admin(&r), n, len;

	assert_non_null(body);
	len = put_broadcast(body, channels, text_len);
	n = snprintf(head, sizeof(head),
		     "POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len);
	rig_admin_send(&r, fd, head, (size_t)n);
	rig_admin_send(&r, fd, body, (size_t)len);
	free(body);
	return fd;
}

static void a_broadcast_has_an_answer_for_each_channel(void **state)
{
	static const char nonsense[] = "POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n"
				       "{\"channels\":[\"x\"],\"text\":\"\"}";
	struct rig_client a, b;
	char answer[2000];
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	rig_connect(&r, &b, "/ws/b", 0);
	fd = post_broadcast("\"demo:a\",\"nope:a\",7,\"demo:b\",\"echo:a\",\"demo:a\"", 3);
	rig_admin_answer(&r, fd, answer, sizeof(answer));
	assert_memory_equal(answer, "HTTP/1.1 200", 12);
	assert_non_null(strstr(answer, "{\"result\":{\"responses\":[{\"result\":{\"channel\":\"demo:a\","
				       "\"seq\":1,\"epoch\":\"0000000000000063\","
				       "\"redis\":\"off\",\"sockets\":3,\"users\":2,\"partial\":false}},"
				       "{\"error\":{\"code\":\"unknown_namespace\""));
	assert_non_null(strstr(
		answer,
		"}},{\"error\":{\"code\":\"bad_request\",\"message\":\"channel: a string is required\"}},"
		"{\"result\":{\"channel\":\"demo:b\""));
	assert_non_null(strstr(answer, "\"seq\":2,")); /* demo:a again */
	rig_expect(&r, &a, "xxx");
	rig_expect(&r, &a, "xxx");
	rig_expect(&r, &b, "xxx");
	rig_expect_nothing(&r, &b);
	/* Nothing but nonsense: answered at once. */
	rig_admin_send(&r, fd, nonsense, sizeof(nonsense) - 1);
	rig_admin_answer(&r, fd, answer, sizeof(answer));
	assert_non_null(strstr(answer, "[{\"error\":{\"code\":\"unknown_namespace\""));
	close(fd);
	rig_hang_up(&a);
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* Large ones through an uplink that is full in the middle of the second. */
static void a_broadcast_waits_for_the_uplink(void **state)
{
	struct rig_client a;
	struct rig_frame f;
	char answer[2000];
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &a, "/ws/a", 0);
	r.hold_data = true;
	fd = post_broadcast("\"demo:a\",\"demo:a\",\"demo:a\"", 150000);
	for (int i = 0; i < RIG_TURNS && !r.w->chunking.is_active; i++)
		rig_admin_turn(&r);
	assert_true(r.w->chunking.is_active);
	r.hold_data = false;
	for (unsigned n = 0; n < 3; n += rig_frame(&a, &f)) {
		rig_settle(&r);
		rig_read(&a, 0);
	}
	assert_int_equal(f.len, 150000);
	rig_admin_answer(&r, fd, answer, sizeof(answer));
	assert_memory_equal(answer, "HTTP/1.1 200", 12);
	assert_non_null(strstr(answer, "\"seq\":3,"));
	assert_null(strstr(answer, "error"));
	assert_int_equal(r.abandoned, 0);
	close(fd);
	rig_hang_up(&a);
	rig_settle(&r);
	end();
}

static void a_broadcaster_that_vanishes_half_way(void **state)
{
	struct rig_client b;
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &b, "/ws/b", 0);
	r.hold_data = true;
	fd = post_broadcast("\"demo:a\",\"demo:a\",\"demo:a\"", 150000);
	for (int i = 0; i < RIG_TURNS && !r.w->chunking.is_active; i++)
		rig_admin_turn(&r);
	assert_true(r.w->chunking.is_active);
	close(fd);
	for (int i = 0; i < 20; i++)
		rig_admin_turn(&r);
	rig_send(&b, WS_TEXT, "next", 4);
	r.hold_data = false;
	rig_expect(&r, &b, "next");
	rig_hang_up(&b);
	rig_settle(&r);
	end();
}

/* ---- interest */

static void interest_that_does_not_fit_waits_in_order(void **state)
{
	enum { N = 1500 };
	static struct rig_client c[N];
	char path[100];

	(void)state;
	begin();
	r.hold_control = true;
	for (int i = 0; i < N; i++) {
		rig_dial(&r, &c[i], 0);
		snprintf(path, sizeof(path),
			 "/ws/a-room-whose-name-takes-some-space-of-the-control-uplink-%d", i);
		rig_request(&c[i], path);
		rig_turn(&r);
	}
	rig_settle(&r);
	assert_true(r.w->control_overflow.len > 0);
	for (int i = 0; i < N; i += 3)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(r.w->control_overflow.len, 0);
	assert_null(r.w->control_overflow.p);
	for (int i = 0; i < N; i++) {
		if (i % 3 == 0) {
			assert_false(r.channels[i].is_wanted);
			continue;
		}
		assert_true(r.channels[i].is_wanted);
		rig_read(&c[i], 0);
		assert_true(rig_take_101(&c[i]));
		rig_hang_up(&c[i]);
	}
	rig_settle(&r);
	assert_int_equal(r.w->channels.n, 0);
	end();
}

/* Records with a payload wait with it, whole and in order. */
static unsigned told;

static void on_told(struct rig *rig, const struct up_view *v)
{
	char text[64];

	(void)rig;
	assert_int_equal(v->h.type, UP_PRESENCE);
	assert_int_equal(v->h.total, told);
	assert_int_equal(v->room.len, 4);
	assert_memory_equal(v->room.p, "room", 4);
	snprintf(text, sizeof(text), "user-%u", told);
	assert_int_equal(v->payload.len, strlen(text));
	assert_memory_equal(v->payload.p, text, strlen(text));
	told++;
}

static void payloads_that_do_not_fit_wait_in_order(void **state)
{
	enum { N = 3000 };

	(void)state;
	begin();
	r.hold_control = true;
	for (uint32_t i = 0; i < N; i++) {
		struct up_rec h = {.type = UP_PRESENCE, .total = i};
		char text[64];
		int len = snprintf(text, sizeof(text), "user-%u", i);

		publish_control_payload(r.w, &h, (struct slice){"room", 4},
					(struct slice){text, (size_t)len});
	}
	assert_true(r.w->control_overflow.len > 0);
	r.hold_control = false;
	told = 0;
	r.on_control = on_told;
	rig_settle(&r);
	assert_int_equal(told, N);
	assert_null(r.w->control_overflow.p);
	r.on_control = NULL;
	end();
}

/* There is room again, but what waits has not been told yet: what comes now stands behind it. */
static void what_waits_goes_before_what_comes(void **state)
{
	enum { N = 1300 };
	static struct rig_client c[N];
	char path[100];

	(void)state;
	begin();
	r.hold_control = true;
	for (int i = 0; i < N; i++) {
		rig_dial(&r, &c[i], 0);
		snprintf(path, sizeof(path),
			 "/ws/a-room-whose-name-takes-some-space-of-the-control-uplink-%d", i);
		rig_request(&c[i], path);
		rig_turn(&r);
	}
	rig_settle(&r);
	assert_true(r.w->control_overflow.len > 0);
	r.hold_control = false;
	rig_uplinks(&r);
	conn_drop(r.w, rig_conn(&r, &c[N - 1]), true, 1006); /* its ADD waits: the DROP may not overtake it */
	rig_settle(&r);                                      /* the rig checks the order */
	assert_int_equal(r.channels[N - 1].drops, 1);
	for (int i = 0; i < N; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_around_one_chunk),
		cmocka_unit_test(others_wait_for_the_last_part),
		cmocka_unit_test(an_owner_that_vanishes),
		cmocka_unit_test(an_owner_that_is_closed),
		cmocka_unit_test(an_api_message_half_way_up_goes_first),
		cmocka_unit_test(an_api_client_that_vanishes_half_way),
		cmocka_unit_test(a_broadcast_has_an_answer_for_each_channel),
		cmocka_unit_test(a_broadcast_waits_for_the_uplink),
		cmocka_unit_test(a_broadcaster_that_vanishes_half_way),
		cmocka_unit_test(interest_that_does_not_fit_waits_in_order),
		cmocka_unit_test(payloads_that_do_not_fit_wait_in_order),
		cmocka_unit_test(what_waits_goes_before_what_comes),
	};

	return cmocka_run_group_tests(tests, make_big, free_big);
}
