/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Clients that send faster than they may. */
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
#include "worker/rate.h"

static struct rig r;
static struct cfg_namespace *ns; /* demo: /ws/{room}, everybody publishes, plain */

static void begin(uint32_t rate, uint32_t burst)
{
	rig_init(&r);
	ns = &r.namespaces[RIG_DEMO];
	ns->msg_rate = rate;
	ns->msg_burst = burst;
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

static void say_number(struct rig_client *c, int n)
{
	char text[16];

	rig_send(c, WS_TEXT, text, (size_t)snprintf(text, sizeof(text), "%d", n));
}

static void expect_number(struct rig_client *c, int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", n);
	rig_expect(&r, c, text);
}

static bool is_held(const struct rig_client *c)
{
	return (rig_conn(&r, c)->flags & CONN_HELD) != 0;
}

/* A burst at once, then by the rate, in order and without a loss: from one read, and from many. */
static void more_than_the_burst(void **state)
{
	struct rig_client c;

	(void)state;
	begin(10, 5);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 25; i++)
		say_number(&c, i);
	rig_settle(&r);
	assert_int_equal(r.publications, 5);
	assert_true(is_held(&c));
	for (unsigned ms = 50; ms <= 2000; ms += 50) {
		rig_pass(&r, 50);
		assert_true(r.publications <= 5 + ms / 100);
	}
	assert_in_range(r.publications, 22, 25);
	rig_pass(&r, 500);
	assert_int_equal(r.publications, 25);
	assert_false(is_held(&c));
	for (int i = 0; i < 25; i++)
		expect_number(&c, i);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, client_messages), 25);
	assert_in_range(RIG_NS(&r, RIG_DEMO, rate_limited), 5, 20); /* each time it was held */
	rig_pass(&r, 1000);                                         /* a full burst again */
	for (int i = 0; i < 5; i++)
		say_number(&c, i);
	rig_settle(&r);
	assert_false(is_held(&c));
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void without_a_rate(void **state)
{
	struct rig_client c;

	(void)state;
	begin(0, 0);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 2000; i++)
		say_number(&c, i);
	rig_settle(&r);
	assert_int_equal(r.publications, 2000);
	assert_int_equal(rig_conn(&r, &c)->session, SESSION_NONE);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Twice the rate without a break: closed after RATE_PATIENCE_MS. */
static void a_flood_is_closed(void **state)
{
	struct rig_client c;
	uint64_t start;
	int n = 0;

	(void)state;
	begin(20, 10);
	rig_connect(&r, &c, "/ws/a", 0);
	start = r.now_ms;
	while (rig_conn(&r, &c)->state == CONN_OPEN && r.now_ms - start < 60000) {
		for (int i = 0; i < 2; i++)
			say_number(&c, n++);
		rig_pass(&r, 50);
	}
	assert_in_range(r.now_ms - start, RATE_PATIENCE_MS, RATE_PATIENCE_MS + 1500);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1008]), 1);
	assert_in_range(r.publications, 190, 230);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* The same number of messages, with pauses in which all of it is read: never closed. */
static void bursts_with_breaks(void **state)
{
	struct rig_client c;
	int n = 0;

	(void)state;
	begin(20, 10);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 30; i++)
			say_number(&c, n++);
		rig_settle(&r);
		assert_true(is_held(&c));
		rig_pass(&r, 2000);
		say_number(&c, n++);
		rig_settle(&r);
		assert_false(is_held(&c));
		rig_pass(&r, 500);
		rig_read(&c, 0);
		buf_free(&c.in);
		c.used = 0;
	}
	assert_int_equal(r.publications, (unsigned)n);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* What was once too much is forgotten when all of it is read, also if the client says nothing more then. */
static void a_break_that_nobody_sees(void **state)
{
	struct rig_client c;
	int n = 0;

	(void)state;
	begin(20, 10);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 100; i++)
		say_number(&c, n++);
	rig_pass(&r, 6000);
	assert_false(is_held(&c));
	rig_pass(&r, 6000);
	for (int i = 0; i < 100; i++)
		say_number(&c, n++);
	rig_pass(&r, 6000);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	assert_int_equal(r.publications, (unsigned)n);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Within its rate a client is never closed, however long it goes on. */
static void just_the_rate(void **state)
{
	struct rig_client c;

	(void)state;
	begin(20, 4);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 600; i++) {
		say_number(&c, i);
		rig_pass(&r, 50);
		expect_number(&c, i);
	}
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Pings are answered, and cost what messages cost. */
static void a_flood_of_pings(void **state)
{
	struct rig_client c;
	struct rig_frame f;
	int pongs = 0;

	(void)state;
	begin(10, 10);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 30; i++)
		rig_send(&c, WS_PING, "", 0);
	rig_settle(&r);
	assert_true(is_held(&c));
	say_number(&c, 1);
	rig_settle(&r);
	assert_int_equal(r.publications, 0); /* not read */
	rig_pass(&r, 200);
	assert_false(is_held(&c));
	assert_int_equal(r.publications, 1);
	rig_read(&c, 0);
	while (rig_frame(&c, &f))
		pongs += f.opcode == WS_PONG;
	assert_int_equal(pongs, 30);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* The peer ends while it is held: its messages first, then its Close; a hang-up is seen, too. */
static void the_peer_ends_meanwhile(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin(10, 1);
	for (int i = 0; i < 3; i++)
		rig_connect(&r, &c[i], "/ws/a", 0);
	for (int i = 0; i < 3; i++)
		say_number(&c[0], i);
	rig_send_close(&c[0], 1000); /* read together with them */
	for (int i = 10; i < 12; i++)
		say_number(&c[1], i);
	rig_settle(&r);
	assert_true(is_held(&c[0]) && is_held(&c[1]));
	rig_send_close(&c[1], 1000); /* still in the socket */
	rig_pass(&r, 500);
	assert_int_equal(r.publications, 5);
	for (int i = 0; i < 2; i++) {
		struct rig_frame f;
		int n = 0;

		rig_read(&c[i], 0);
		while (rig_frame(&c[i], &f) && f.opcode == WS_TEXT)
			n++;
		assert_in_range(n, 3, 5);
		assert_int_equal(c[i].close_code, 1000);
	}
	say_number(&c[2], 20);
	say_number(&c[2], 21);
	rig_settle(&r);
	assert_true(is_held(&c[2]));
	for (int i = 0; i < 3; i++)
		rig_hang_up(&c[i]);
	rig_pass(&r, 500);
	for (int i = 0; i < 3; i++)
		assert_null(rig_conn(&r, &c[i]));
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1000]), 2);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1006]), 1);
	end();
}

/* Its token is there, but the uplink is full: it goes on waiting there, and is closed for neither. */
static void held_then_paused(void **state)
{
	struct rig_client c, filler;
	char text[9000];

	(void)state;
	begin(10, 1);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_connect(&r, &filler, "/echo", 0);
	for (int i = 0; i < 3; i++)
		say_number(&c, i);
	rig_settle(&r);
	assert_true(is_held(&c));
	memset(text, 'x', sizeof(text));
	r.hold_data = true;
	while ((rig_conn(&r, &filler)->flags & CONN_PAUSED) == 0) {
		rig_send(&filler, WS_TEXT, text, sizeof(text));
		rig_settle(&r);
	}
	rig_pass(&r, 200);
	assert_int_equal(rig_conn(&r, &c)->flags & (CONN_HELD | CONN_PAUSED), CONN_PAUSED);
	rig_pass(&r, 2 * RATE_PATIENCE_MS);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	r.hold_data = false;
	rig_settle(&r);
	rig_pass(&r, 500);
	for (int i = 0; i < 3; i++)
		expect_number(&c, i);
	rig_hang_up(&c);
	rig_hang_up(&filler);
	rig_settle(&r);
	end();
}

/* The message that is kept for its token is the one that closes the connection. */
static void closed_by_what_was_kept(void **state)
{
	struct rig_client c;

	(void)state;
	rig_init(&r);
	ns = &r.namespaces[RIG_DEMO];
	ns->envelope = CFG_ENVELOPE_JSON;
	ns->bad_frames = 2;
	ns->msg_rate = 10;
	ns->msg_burst = 1;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	rig_send(&c, WS_TEXT, "bad", 3);
	rig_send(&c, WS_TEXT, "bad", 3);
	rig_send(&c, WS_TEXT, "{}", 2);
	rig_settle(&r);
	assert_true(is_held(&c));
	rig_pass(&r, 200);
	rig_expect_close(&r, &c, 1008);
	assert_int_equal(r.publications, 0);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* Being held is no silence, and no reason to think that the peer is dead. */
static void pings_of_the_server_meanwhile(void **state)
{
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	rig_init(&r);
	ns = &r.namespaces[RIG_DEMO];
	ns->msg_rate = 1;
	ns->msg_burst = 1;
	r.config.limits.ping_interval = 1000;
	r.config.limits.pong_timeout = 1000;
	r.config.limits.idle_timeout = 3000;
	rig_start(&r);
	rig_connect(&r, &c, "/ws/a", 0);
	for (int i = 0; i < 8; i++)
		say_number(&c, i);
	rig_pass(&r, 7900); /* with a burst of 1 what the timer is late is lost */
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	assert_int_equal(r.publications, 8);
	rig_pass(&r, 2900); /* not held any more, and silent */
	rig_read(&c, 0);
	while (rig_frame(&c, &f))
		;
	assert_int_equal(c.close_code, 1011);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

/* ---- all sockets of a user */

static char user_id[] = "user_id", auth_name[] = "trust";
static struct cfg_auth trust = {.name = auth_name, .type = CFG_AUTH_QUERY};

static void begin_users(uint32_t rate, uint32_t user_rate)
{
	rig_init(&r);
	ns = &r.namespaces[RIG_DEMO];
	ns->auth = &trust;
	ns->user_query = user_id;
	ns->msg_rate = rate;
	ns->msg_burst = 10;
	ns->user_rate = user_rate;
	rig_start(&r);
}

/* His sockets share; another user has his own. Whom the user's bucket holds back keeps his own tokens. */
static void sockets_of_one_user(void **state)
{
	struct rig_client c[3], reader;

	(void)state;
	begin_users(100, 6);
	rig_connect(&r, &c[0], "/ws/a?user_id=7", 0);
	rig_connect(&r, &c[1], "/ws/a?user_id=7", 0);
	rig_connect(&r, &c[2], "/ws/a?user_id=8", 0);
	for (int k = 0; k < 4; k++) {
		for (int i = 0; i < 3; i++)
			say_number(&c[i], 10 * i + k);
		rig_settle(&r);
	}
	assert_int_equal(r.publications, 6 + 4);
	assert_true(is_held(&c[0]) && is_held(&c[1]));
	assert_false(is_held(&c[2]));
	assert_int_equal(session_of(r.w, rig_conn(&r, &c[0]))->more->rate.milli, 7000); /* of 10 */
	rig_pass(&r, 1000);
	assert_int_equal(r.publications, 12);
	assert_false(is_held(&c[0]) || is_held(&c[1]));
	rig_hang_up(&c[0]);
	rig_hang_up(&c[1]);
	rig_hang_up(&c[2]);
	rig_settle(&r);
	rig_connect(&r, &reader, "/ws/a?user_id=7",
		    0); /* a new one of his begins anew, with all of them gone */
	say_number(&reader, 1);
	expect_number(&reader, 1);
	rig_hang_up(&reader);
	rig_settle(&r);
	end();
}

/* One socket floods: the others of its user are slowed down with it, and go on when it has been closed. */
static void a_flood_of_one_of_them(void **state)
{
	struct rig_client c[2];
	int n = 0;

	(void)state;
	begin_users(0, 20);
	rig_connect(&r, &c[0], "/ws/a?user_id=7", 0);
	rig_connect(&r, &c[1], "/ws/b?user_id=7", 0);
	for (int i = 0; i < 800 && rig_conn(&r, &c[0])->state == CONN_OPEN; i++) {
		for (int k = 0; k < 5; k++)
			say_number(&c[0], n++);
		rig_pass(&r, 50);
	}
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1008]), 1);
	rig_pass(&r, 200);
	say_number(&c[1], 1);
	rig_pass(&r, 100);
	expect_number(&c[1], 1);
	rig_hang_up(&c[0]);
	rig_hang_up(&c[1]);
	rig_settle(&r);
	end();
}

/* ---- the bucket itself */

static void buckets(void **state)
{
	struct bucket b = {0};

	(void)state;
	assert_true(bucket_take(&b, 0, 0, 1000)); /* no limit */
	for (int i = 0; i < 3; i++)
		assert_true(bucket_take(&b, 10, 3, 1000));
	assert_false(bucket_take(&b, 10, 3, 1000));
	assert_int_equal(bucket_wait(&b, 10), 100);
	assert_false(bucket_take(&b, 10, 3, 1099));
	assert_int_equal(bucket_wait(&b, 10), 1);
	assert_true(bucket_take(&b, 10, 3, 1100));
	assert_false(bucket_take(&b, 10, 3, 1199));
	for (int i = 0; i < 3; i++)
		assert_true(bucket_take(&b, 10, 3, 100000)); /* never more than the burst */
	assert_false(bucket_take(&b, 10, 3, 100000));
	b = (struct bucket){0};
	for (int i = 0; i < 10; i++)
		assert_true(bucket_take(&b, 10, 0, UINT32_MAX - 5)); /* no burst: a second's worth */
	assert_false(bucket_take(&b, 10, 0, UINT32_MAX - 5));
	assert_true(
		bucket_take(&b, 10, 0, (uint64_t)UINT32_MAX + 95)); /* the clock's low half has turned over */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(more_than_the_burst),
		cmocka_unit_test(without_a_rate),
		cmocka_unit_test(a_flood_is_closed),
		cmocka_unit_test(bursts_with_breaks),
		cmocka_unit_test(a_break_that_nobody_sees),
		cmocka_unit_test(just_the_rate),
		cmocka_unit_test(a_flood_of_pings),
		cmocka_unit_test(the_peer_ends_meanwhile),
		cmocka_unit_test(held_then_paused),
		cmocka_unit_test(closed_by_what_was_kept),
		cmocka_unit_test(pings_of_the_server_meanwhile),
		cmocka_unit_test(sockets_of_one_user),
		cmocka_unit_test(a_flood_of_one_of_them),
		cmocka_unit_test(buckets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
