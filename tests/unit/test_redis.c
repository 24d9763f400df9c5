/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c master/redis_subs.c
 *       master/redis_link.c master/redis_tls.c master/redis_resolve.c master/redis_form.c */
#include "tests/unit/redis_rig.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/wsframe.h"
#include "master/redis_form.h"

static void an_own_message_comes_back_once(void **state)
{
	struct rig g;
	struct rig_node a, b;
	struct redis_sub *sa;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	rig_node_open(&a);
	rig_node_open(&b);
	sa = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	assert_false(redis_sub_confirmed(sa));
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1 && b.subscribed == 1, 5000);
	assert_int_equal(rig_say(&a, "c:1", sa, "m0", 77), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 1 && b.n_got == 1 && rig_stats_of(&a).pending_messages == 0, 5000);
	assert_string_equal(a.got[0].head, "m0");
	assert_string_equal(a.got[0].room, "room");
	assert_int_equal(a.got[0].request, 77);
	assert_int_equal(a.got[0].opcode, WS_TEXT);
	assert_false(a.got[0].local);
	assert_int_equal(b.got[0].origin, 11);
	assert_int_equal(b.got[0].request, 0);
	rig_run(&g, 20);
	assert_int_equal(a.n_got + b.n_got, 2);
	assert_int_equal(a.acked, 0); /* the echo was the answer */
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_own_message_comes_back_once),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
