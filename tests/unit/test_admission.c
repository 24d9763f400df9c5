/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* From a good handshake to membership: who is let in as whom, and how those who are not learn of it. */
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
static char user_id[] = "user_id", auth_name[] = "trust";
static struct cfg_auth trust = {.name = auth_name, .type = CFG_AUTH_QUERY};

/* demo: rooms are integers, the query names the user, an integer. */
static void begin(enum cfg_refuse how)
{
	struct cfg_namespace *ns = &r.namespaces[RIG_DEMO];

	rig_init(&r);
	ns->room_is_int = true;
	ns->user_query = user_id;
	ns->user_query_is_int = true;
	ns->auth = &trust;
	ns->refuse = how;
	rig_start(&r);
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
}

static struct session *session(struct rig_client *c)
{
	struct session *s = session_of(r.w, rig_conn(&r, c));

	assert_non_null(s);
	return s;
}

static void is_user(struct rig_client *c, const char *user)
{
	struct slice id = session_user(r.w, session(c));

	assert_int_equal(id.len, strlen(user));
	assert_memory_equal(id.p, user, id.len);
}

static void is_room(struct rig_client *c, const char *room)
{
	const struct channel *ch = channel_at(&r.w->channels, rig_conn(&r, c)->channel);

	assert_int_equal(ch->room_len, strlen(room));
	assert_memory_equal(channel_room(ch).p, room, ch->room_len);
}

/* The request is answered with this status, an empty body and the end. */
static void is_refused(const char *path, int status)
{
	struct rig_client c;
	char want[32];

	rig_dial(&r, &c, 0);
	rig_request(&c, path);
	rig_settle(&r);
	rig_read(&c, 0);
	snprintf(want, sizeof(want), "HTTP/1.1 %d ", status);
	assert_true(c.in.len > strlen(want));
	assert_memory_equal(c.in.p, want, strlen(want));
	assert_memory_equal(c.in.p + c.in.len - 4, "\r\n\r\n", 4);
	assert_non_null(memmem(c.in.p, c.in.len, "Connection: close", 17));
	assert_true(c.is_eof);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
}

/* A 101, then a Close with 1008 and this reason, and the end. */
static void is_closed(const char *path, const char *reason)
{
	struct rig_client c;
	struct rig_frame f;

	rig_dial(&r, &c, 0);
	rig_request(&c, path);
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	assert_true(rig_frame(&c, &f));
	assert_int_equal(c.close_code, 1008);
	assert_int_equal(f.len - 2, strlen(reason));
	assert_memory_equal(f.payload + 2, reason, f.len - 2);
	assert_true(c.is_eof);
	rig_send_close(&c, 1008);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
}

static void integers_are_canonical(void **state)
{
	static const struct {
		const char *path, *room, *user;
	} cases[] = {
		{"/ws/7?user_id=7", "7", "7"},
		{"/ws/+007?user_id=%2B007", "7", "7"},
		{"/ws/%20-12%09?user_id=+-012+", "-12", "-12"},
		{"/ws/-0?user_id=-000", "0", "0"},
		{"/ws/%37?user%5fid=%37", "7", "7"},
		{"/ws/7?user_id=1&x=2&user_id=3", "7", "3"},
		{"/ws/7?user_id=no&user_id=12345678901234567890123", "7", "12345678901234567890123"},
	};

	(void)state;
	begin(CFG_REFUSE_403);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rig_client c;

		rig_connect(&r, &c, cases[i].path, 0);
		is_room(&c, cases[i].room);
		is_user(&c, cases[i].user);
		rig_hang_up(&c);
		rig_settle(&r);
	}
	assert_int_equal(r.w->sessions.n, 0);
	end();
}

static void no_integer_is_refused_before_the_upgrade(void **state)
{
	static const char *const queries[] = {"",
					      "?",
					      "?user=7",
					      "?user_id",
					      "?user_id=",
					      "?user_id=7.0",
					      "?user_id=1e3",
					      "?user_id=0x7",
					      "?user_id=+",
					      "?user_id=--7",
					      "?user_id=7&user_id=",
					      "?user_id=1%202",
					      "?user_id=%zz",
					      "?user_id=7%00"};
	char path[300];

	(void)state;
	begin(CFG_REFUSE_403);
	for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
		snprintf(path, sizeof(path), "/ws/7%s", queries[i]);
		is_refused(path, 403);
	}
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_user]), ARRAY_LEN(queries));
	is_refused("/ws/abc?user_id=7", 403);
	is_refused("/ws/7.5?user_id=7", 403);
	is_refused("/ws/%2f?user_id=7", 403);
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_no_namespace]), 3);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, opened), 0);
	end();
}

static void digits_without_end(void **state)
{
	char path[400];
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_403);
	snprintf(path, sizeof(path), "/ws/7?user_id=%0256d", 0);
	memset(path + 14, '1', 255);
	path[14 + 255] = '\0';
	rig_connect(&r, &c, path, 0);
	is_user(&c, path + 14);
	rig_hang_up(&c);
	rig_settle(&r);
	memset(path + 14, '1', 256);
	path[14 + 256] = '\0';
	is_refused(path, 403);
	end();
}

static void refused_after_the_upgrade(void **state)
{
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	begin(CFG_REFUSE_CLOSE);
	rig_dial(&r, &c, 0);
	rig_request(&c, "/ws/7");
	rig_send(&c, WS_TEXT, "early", 5); /* neither published nor in the way */
	rig_settle(&r);
	rig_read(&c, 0);
	assert_true(rig_take_101(&c));
	assert_true(rig_frame(&c, &f));
	assert_int_equal(f.opcode, WS_CLOSE);
	assert_int_equal(c.close_code, 1008);
	assert_memory_equal(f.payload + 2, "no valid user named", f.len - 2);
	assert_int_equal(rig_rest(&c), 0);
	assert_true(c.is_eof); /* our side has ended; the descriptor stays until the peer ends too */
	assert_int_equal(r.w->conns.n, 1);
	assert_int_equal(r.publications, 0);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, opened), 0);
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_user]), 1);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1008]), 0); /* it was never open */
	rig_check(&r);
	rig_send_close(&c, 1008);
	rig_hang_up(&c);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(r.w->sessions.n, 0);
	/* Of a path that is no integer `refuse` decides, too; it is looked at before the user. */
	is_closed("/ws/x?user_id=7", "no valid room named");
	is_closed("/ws/%2f", "no valid room named");
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_no_namespace]), 2);
	assert_int_equal(r.publications, 0);
	end();
}

static void one_that_never_ends_is_dropped(void **state)
{
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_CLOSE);
	rig_dial(&r, &c, 0);
	rig_request(&c, "/ws/7");
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 1);
	rig_pass(&r, r.config.limits.close_linger + 200);
	assert_int_equal(r.w->conns.n, 0);
	rig_hang_up(&c);
	end();
}

static void text_users(void **state)
{
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_403);
	r.namespaces[RIG_DEMO].user_query_is_int = false;
	rig_connect(&r, &c, "/ws/7?user_id=j%C3%B6rg+007", 0);
	is_user(&c, "j\xc3\xb6rg 007");
	rig_hang_up(&c);
	rig_settle(&r);
	is_refused("/ws/7?user_id=", 403);
	is_refused("/ws/7?user_id=a%00b", 403);
	is_refused("/ws/7?user_id=%ff", 403);
	end();
}

static void without_auth_nothing_is_believed(void **state)
{
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_403);
	r.namespaces[RIG_DEMO].auth = NULL;
	rig_connect(&r, &c, "/ws/7?user_id=7", 0);
	assert_null(session(&c)->who);
	rig_hang_up(&c);
	rig_settle(&r);
	is_refused("/ws/7?user_id=x", 403);
	end();
}

static void auth_without_a_user_fails_closed(void **state)
{
	(void)state;
	begin(CFG_REFUSE_403);
	r.namespaces[RIG_DEMO].user_query = NULL;
	is_refused("/ws/7?user_id=7", 503);
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_hook]), 1);
	end();
}

/* Whoever is identified waits for the namespace's own channel, and then for the room's: in each state a
 * client goes, is too slow, or the worker stops. */
static void gone_in_every_state(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin(CFG_REFUSE_403);
	r.hold_control = true;
	for (size_t i = 0; i < 3; i++) {
		rig_dial(&r, &c[i], 0);
		rig_request(&c[i], "/ws/7?user_id=7");
		rig_send(&c[i], WS_TEXT, "early", 5);
		rig_settle(&r);
		assert_int_equal(rig_conn(&r, &c[i])->state, CONN_JOINING);
		assert_non_null(rig_conn(&r, &c[i])->ext->admission);
	}
	rig_check(&r);
	rig_hang_up(&c[1]); /* waits for the namespace's channel */
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 2);
	r.hold_control = false;
	rig_turn(&r); /* the one is there ... */
	r.hold_control = true;
	rig_settle(&r);
	for (size_t i = 0; i < 3; i += 2) {
		assert_int_equal(rig_conn(&r, &c[i])->state, CONN_JOINING);
		assert_null(rig_conn(&r, &c[i])->ext->admission); /* the room's is waited for */
	}
	rig_hang_up(&c[2]);
	rig_settle(&r);
	r.hold_control = false;
	rig_settle(&r);
	rig_read(&c[0], 0);
	assert_true(rig_take_101(&c[0]));
	rig_expect(&r, &c[0], "early");
	is_user(&c[0], "7");
	rig_hang_up(&c[0]);
	rig_settle(&r);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(r.w->sessions.n, 0);
	end();
}

static void too_slow_or_stopped_while_joining(void **state)
{
	for (int stop = 0; stop < 2; stop++) {
		struct rig_client c;

		(void)state;
		begin(CFG_REFUSE_CLOSE);
		r.config.limits.handshake_timeout = 1000;
		r.hold_control = true;
		rig_dial(&r, &c, 0);
		rig_request(&c, "/ws/7?user_id=7");
		rig_settle(&r);
		if (stop)
			rig_control(&r, &(struct rec){.type = REC_DRAIN, .arg = {1001, 0}},
				    (struct slice){0});
		rig_pass(&r, stop ? 100 : 1200);
		rig_read(&c, 0);
		assert_memory_equal(c.in.p, stop ? "HTTP/1.1 503 " : "HTTP/1.1 408 ", 13);
		assert_true(c.is_eof);
		rig_hang_up(&c);
		rig_settle(&r);
		assert_int_equal(r.w->conns.n, 0);
		r.hold_control = false;
		rig_settle(&r);
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_canonical),
		cmocka_unit_test(no_integer_is_refused_before_the_upgrade),
		cmocka_unit_test(digits_without_end),
		cmocka_unit_test(refused_after_the_upgrade),
		cmocka_unit_test(one_that_never_ends_is_dropped),
		cmocka_unit_test(text_users),
		cmocka_unit_test(without_auth_nothing_is_believed),
		cmocka_unit_test(gone_in_every_state),
		cmocka_unit_test(too_slow_or_stopped_while_joining),
		cmocka_unit_test(auth_without_a_user_fails_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
