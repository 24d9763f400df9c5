/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_route.c master/redis_watch.c */
/* The Redis side with Redis away, silent, cut off or talking nonsense. */
#include "tests/unit/redis_rig.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/wsframe.h"

#define LONG_MS 20000

/* ---- talking through an outage ---- */

struct talk {
	struct rig *g;
	struct rig_node n[3];
	struct redis_sub *sub[3];
	int said[3];
};

static void talk_open(struct talk *t, struct rig *g)
{
	memset(t, 0, sizeof(*t));
	t->g = g;
	for (int i = 0; i < 3; i++)
		rig_node_init(&t->n[i], g, 100 + (uint64_t)i);
}

static void talk_start(struct talk *t)
{
	for (int i = 0; i < 3; i++) {
		rig_node_open(&t->n[i]);
		t->sub[i] = rig_subscribe(&t->n[i], "c:1");
	}
}

static bool talk_up(const struct talk *t)
{
	return t->n[0].up && t->n[1].up && t->n[2].up;
}

/* Every node says one thing and a bit of time passes. */
static void talk_once(struct talk *t)
{
	char text[16];

	for (int i = 0; i < 3; i++) {
		snprintf(text, sizeof(text), "m%d", t->said[i]);
		if (rig_say(&t->n[i], "c:1", t->sub[i], text, 0) != REDIS_FULL)
			t->said[i]++;
	}
	ev_run(t->g->loop, EVRUN_ONCE);
}

static void talk_for(struct talk *t, unsigned ms)
{
	uint64_t until = clock_mono_ms() + ms;

	while (clock_mono_ms() < until)
		talk_once(t);
}

static bool talk_settled(struct talk *t)
{
	for (int i = 0; i < 3; i++) {
		if (rig_stats_of(&t->n[i]).pending_messages > 0)
			return false;
		for (int k = 0; k < 3; k++)
			if (rig_count(&t->n[i], 100 + (uint64_t)k) < (size_t)t->said[k])
				return false;
	}
	return true;
}

/* Everybody heard everything, once, in the order of its origin. */
static void talk_check(struct talk *t)
{
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 3; k++)
			rig_check_run(&t->n[i], 100 + (uint64_t)k, "m", (size_t)t->said[k]);
}

static void talk_close(struct talk *t)
{
	for (int i = 0; i < 3; i++)
		rig_node_close(&t->n[i]);
}

/* Has it got one without Redis, from its number `from` on? Echoes that were on their way may come between. */
static bool got_local(const struct rig_node *n, size_t from)
{
	for (size_t i = from; i < n->n_got; i++) {
		if (n->got[i].local)
			return true;
	}
	return false;
}

static void redis_killed_and_restarted(void **state)
{
	static const unsigned away_ms[] = {0, 30, 400, 1200};
	struct rig g;
	struct talk t;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	talk_open(&t, &g);
	talk_start(&t);
	RIG_WAIT(&g, talk_up(&t), LONG_MS);
	for (size_t i = 0; i < ARRAY_LEN(away_ms); i++) {
		size_t before;

		talk_for(&t, 60);
		/* A Redis that dies while it hands a message out has given it to some and not to others,
		 * which nobody can mend (docs/design.md 9). So it dies with all handed out, and with more in
		 * its sockets. */
		RIG_WAIT(&g, talk_settled(&t), LONG_MS);
		assert_int_equal(kill(g.pid, SIGSTOP), 0);
		talk_for(&t, 20);
		rig_redis_kill(&g);
		talk_for(&t, away_ms[i]);
		before = t.n[0].n_got;
		RIG_WAIT(&g, !t.n[0].up, LONG_MS);
		talk_once(&t);
		assert_true(got_local(&t.n[0], before));
		rig_redis_start(&g, NULL);
		talk_for(&t, 700); /* through the reconnect and the time of holding back */
		RIG_WAIT(&g, talk_up(&t), LONG_MS);
	}
	RIG_WAIT(&g, talk_settled(&t), LONG_MS);
	rig_run(&g, 30);
	talk_check(&t);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(t.n[i].gaps, ARRAY_LEN(away_ms));
		assert_int_equal(rig_stats_of(&t.n[i]).given_up, 0);
	}
	talk_close(&t);
	rig_close(&g);
}

/* Redis is absent at start: all is local at once, and goes out in order when it comes. */
static void redis_absent_at_start(void **state)
{
	struct rig g;
	struct talk t;

	(void)state;
	rig_open(&g);
	talk_open(&t, &g);
	talk_start(&t);
	talk_for(&t, 200);
	for (int i = 0; i < 3; i++)
		assert_int_equal(t.n[i].n_got, t.said[i]);
	rig_redis_start(&g, NULL);
	talk_for(&t, 200);
	RIG_WAIT(&g, talk_up(&t) && talk_settled(&t), LONG_MS);
	talk_check(&t);
	assert_int_equal(t.n[0].gaps, 0); /* nothing was lost that had been up */
	talk_close(&t);
	rig_close(&g);
}

/* The publisher links live on. Even what Redis acknowledged while nobody was subscribed reaches the others.
 */
static void all_subscribers_killed(void **state)
{
	struct rig g;
	struct talk t;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	talk_open(&t, &g);
	talk_start(&t);
	RIG_WAIT(&g, talk_up(&t), LONG_MS);
	for (int round = 0; round < 5; round++) {
		talk_for(&t, 30);
		(void)rig_command(&g, "CLIENT KILL TYPE pubsub");
		talk_for(&t, round == 2 ? 600 : 100); /* sometimes again while holding back */
	}
	RIG_WAIT(&g, talk_up(&t) && talk_settled(&t), LONG_MS);
	talk_check(&t);
	assert_true(t.n[0].gaps >= 3);
	talk_close(&t);
	rig_close(&g);
}

static void all_publishers_killed(void **state)
{
	struct rig g;
	struct talk t;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	talk_open(&t, &g);
	talk_start(&t);
	RIG_WAIT(&g, talk_up(&t), LONG_MS);
	for (int round = 0; round < 4; round++) {
		talk_for(&t, 30);
		(void)rig_command(&g, "CLIENT KILL TYPE normal SKIPME yes");
		talk_for(&t, round == 2 ? 600 : 100);
	}
	RIG_WAIT(&g, talk_up(&t) && talk_settled(&t), LONG_MS);
	talk_check(&t);
	assert_int_equal(t.n[0].gaps, 0);
	talk_close(&t);
	rig_close(&g);
}

/* Redis cuts a subscriber that reads too slowly (here: its ring is full). */
static void cut_by_the_output_limit(void **state)
{
	struct rig g;
	struct rig_node a;
	char big[4096];
	unsigned sent = 0;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	(void)rig_command(&g, "CONFIG SET client-output-buffer-limit %s", "pubsub 65536 0 0");
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	memset(big, 'x', sizeof(big));
	a.room = 0;
	while (rig_command(&g, "PUBLISH c:1 %b", big, sizeof(big)) > 0)
		assert_true(++sent < 5000);
	rig_run(&g, 20);
	assert_int_equal(a.gaps, 0); /* not read, so not noticed */
	a.room = -1;
	redis_resume(a.r);
	RIG_WAIT(&g, a.gaps == 1 && a.up && a.subscribed == 2, LONG_MS);
	assert_true(a.n_got > 0 && a.n_got <= sent); /* what was in the socket came through */
	rig_publish(&g, "c:1", "end", 3);
	RIG_WAIT(&g, strcmp(a.got[a.n_got - 1].head, "end") == 0, LONG_MS);
	rig_node_close(&a);
	rig_close(&g);
}

/* ---- silence ---- */

static void fake_node(struct rig_node *n, struct rig_fake *f, uint64_t origin)
{
	rig_node_init(n, f->g, origin);
	n->cfg.path = f->path;
}

static void quick_liveness(struct rig_node *n)
{
	n->cfg.ping_interval = 150;
	n->cfg.timeout = 250;
}

/* TCP stays open and nothing answers. Slack: the time of a loaded machine. */
static void a_black_hole_is_declared_dead(void **state)
{
	struct rig g;
	struct rig_proxy x;
	struct rig_node a, b;
	struct redis_sub *sub;
	uint64_t t0;
	char text[16];
	int said = 0;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	rig_node_tcp(&a, "127.0.0.1", x.port);
	quick_liveness(&a);
	rig_node_open(&a);
	rig_node_open(&b);
	sub = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1, LONG_MS);
	rig_run(&g, 500); /* several PINGs, none of them missed */
	assert_int_equal(a.downs, 0);
	assert_true(rig_stats_of(&a).rtt_us > 0);
	t0 = clock_mono_ms();
	rig_proxy_silence(&x, true);
	while (a.up) {
		snprintf(text, sizeof(text), "m%d", said++);
		assert_int_equal(rig_say(&a, "c:1", sub, text, 0), REDIS_SENT);
		ev_run(g.loop, EVRUN_ONCE);
		assert_true(clock_mono_ms() - t0 < 150 + 250 + 1000);
	}
	RIG_WAIT(&g, a.n_got == (size_t)said, 100); /* local clients have them now */
	rig_run(&g, 600);                           /* attempts into the silence */
	assert_false(a.up);
	snprintf(text, sizeof(text), "m%d", said++);
	assert_int_equal(rig_say(&a, "c:1", sub, text, 0), REDIS_LOCAL);
	assert_int_equal(a.n_got, said);
	rig_proxy_silence(&x, false);
	RIG_WAIT(&g, a.up && b.n_got == (size_t)said && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_check_run(&a, 11, "m", (size_t)said);
	rig_check_run(&b, 11, "m", (size_t)said);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_proxy_close(&x);
	rig_close(&g);
}

static void a_stopped_redis_is_declared_dead(void **state)
{
	struct rig g;
	struct talk t;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	talk_open(&t, &g);
	for (int i = 0; i < 3; i++)
		quick_liveness(&t.n[i]);
	talk_start(&t);
	RIG_WAIT(&g, talk_up(&t), LONG_MS);
	talk_for(&t, 50);
	assert_int_equal(kill(g.pid, SIGSTOP), 0);
	RIG_WAIT(&g, !t.n[0].up && !t.n[1].up && !t.n[2].up, 400 + 1000);
	talk_for(&t, 100);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_count(&t.n[i], 100 + (uint64_t)i), t.said[i]);
	assert_int_equal(kill(g.pid, SIGCONT),
			 0); /* it now reads what the dead links had sent, and then ours again */
	RIG_WAIT(&g, talk_up(&t) && talk_settled(&t), LONG_MS);
	rig_run(&g, 50);
	talk_check(&t);
	talk_close(&t);
	rig_close(&g);
}

/* Answer, and hold up the loop before anybody can read the answer. */
static bool answer_and_sleep(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	struct timespec nap = {0, 500000000};

	(void)argc;
	if (!rig_is(argv[0], "PING") || c->f->step == 0 || c->f->step > 4)
		return false;
	c->f->step++;
	rig_fake_says(c, c->subscriber ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
	nanosleep(&nap, NULL);
	return true;
}

/* A loop that was held up for long blames nobody: what waits in the sockets is read first. */
static void a_loop_held_up_keeps_its_links(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = answer_and_sleep;
	fake_node(&a, &f, 11);
	quick_liveness(&a);
	rig_node_open(&a);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up, LONG_MS);
	f.step = 1;
	RIG_WAIT(&g, f.step > 4, LONG_MS);
	rig_run(&g, 20);
	assert_int_equal(a.downs, 0);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

/* ---- the limit of what is kept ---- */

static bool no_publish_reply(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	return rig_is(argv[0], "PUBLISH") && c->f->step == 0;
}

static void a_full_list_slows_publishers_while_redis_is_up(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;
	unsigned sent = 0;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = no_publish_reply;
	fake_node(&a, &f, 11);
	a.cfg.pending_size = 20000;
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	while (rig_say(&a, "c:1", NULL, "hello", 1 + sent) == REDIS_SENT)
		assert_true(++sent < 200);
	assert_true(sent > 50);
	rig_run(&g, 50);
	assert_int_equal(a.rooms + a.acked, 0);
	assert_true(rig_stats_of(&a).pending_bytes <= 20000);
	f.step = 1;
	for (unsigned i = 0; i < sent; i++)
		rig_fake_says(f.conns->subscriber ? f.conns->next : f.conns, ":1\r\n");
	RIG_WAIT(&g, a.rooms == 1 && a.acked == sent, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", NULL, "hello", 999), REDIS_SENT);
	RIG_WAIT(&g, a.last_acked == 999, LONG_MS);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static void a_full_list_drops_the_new_while_redis_is_away(void **state)
{
	struct rig g;
	struct rig_node a, b;
	struct redis_sub *sub;
	char text[16];
	int said = 0;
	size_t kept;

	(void)state;
	rig_open(&g);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	a.cfg.pending_size = 20000;
	rig_node_open(&a);
	rig_node_open(&b);
	sub = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	rig_run(&g, 20); /* at least one attempt fails: only then are messages held back for the others */
	for (; said < 300; said++) {
		snprintf(text, sizeof(text), "m%d", said);
		assert_int_equal(rig_say(&a, "c:1", sub, text, 1), REDIS_LOCAL);
	}
	rig_check_run(&a, 11, "m", 300);
	kept = rig_stats_of(&a).pending_messages;
	assert_true(kept > 50 && kept < 300);
	assert_int_equal(rig_stats_of(&a).given_up, 300 - kept);
	assert_int_equal(a.acked_bad, 300 - kept);
	rig_redis_start(&g, NULL);
	RIG_WAIT(&g, a.up && b.up && b.n_got == kept && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_check_run(&b, 11, "m", kept);
	RIG_WAIT(&g, rig_say(&a, "c:1", sub, "m300", 1) == REDIS_SENT || (a.n_got--, false), LONG_MS);
	RIG_WAIT(&g, a.n_got == 301 && b.n_got == kept + 1, LONG_MS);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* Nothing can be delivered and nothing kept: only then publishers wait although Redis is away. */
static void a_full_list_and_a_full_ring(void **state)
{
	struct rig g;
	struct rig_node a;
	int said = 0;

	(void)state;
	rig_open(&g);
	rig_node_init(&a, &g, 11);
	a.cfg.pending_size = 5000;
	rig_node_open(&a);
	a.room = 0;
	while (rig_say(&a, "c:1", NULL, "m", 1) == REDIS_LOCAL)
		said++;
	assert_true(said > 5);
	rig_run(&g, 20);
	assert_int_equal(a.rooms, 0);
	a.room = -1;
	redis_resume(a.r);
	RIG_WAIT(&g, a.rooms == 1, LONG_MS);
	assert_int_equal(a.n_got, said);
	assert_int_equal(rig_say(&a, "c:1", NULL, "m", 1), REDIS_LOCAL);
	assert_int_equal(a.n_got, said + 1);
	rig_node_close(&a);
	rig_close(&g);
}

/* ---- nonsense ---- */

static void with_fake(void (*body)(struct rig *, struct rig_fake *, struct rig_node *))
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;

	rig_open(&g);
	rig_fake_open(&f, &g);
	fake_node(&a, &f, 11);
	rig_node_open(&a);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	body(&g, &f, &a);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static void bad_bytes(struct rig *g, struct rig_fake *f, struct rig_node *a)
{
	static const char *const nonsense[] = {
		"%2\r\n", /* RESP3 */
		"HTTP/1.1 400 Bad Request\r\n\r\n",
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$2147483648\r\n", /* bulk bombs */
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$99999999999999999999",
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$000000000000000000000000000",
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$-7\r\n",
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n:5\r\n",
		"*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n*1\r\n$1\r\nx\r\n", /* nested */
		"*4\r\n$8\r\npmessage\r\n",
		"*2\r\n$7\r\nmessage\r\n",
		"*0\r\n",
		"*-1\r\n",
		"*2147483647\r\n:1\r\n",
		"*3\r\n$7\r\nunknown\r\n",
		":5\r\n",
		"+OK\r\n",
		"$2\r\nhi\r\n",
		"$-1\r\n",
		"-NOPERM this user has no permissions\r\n",
		"-LOADING Redis is loading\r\n",
	};
	char line[1500];

	for (size_t i = 0; i <= ARRAY_LEN(nonsense); i++) {
		struct rig_fake_conn *c = rig_fake_subscriber(f);

		assert_non_null(c);
		if (i < ARRAY_LEN(nonsense)) {
			rig_fake_says(c, nonsense[i]);
		} else { /* a line without an end */
			memset(line, 'x', sizeof(line));
			line[0] = '+';
			rig_fake_send(c, line, sizeof(line));
		}
		RIG_WAIT(g, a->gaps == i + 1, LONG_MS);
		RIG_WAIT(g, a->up && a->subscribed == i + 2, LONG_MS);
	}
	assert_int_equal(rig_stats_of(a).bad_form, ARRAY_LEN(nonsense) + 1 - 2);
	assert_int_equal(a->n_got, 0);
}

static void nonsense_costs_the_link_alone(void **state)
{
	(void)state;
	with_fake(bad_bytes);
}

static void one_byte_at_a_time(struct rig *g, struct rig_fake *f, struct rig_node *a)
{
	static const char text[] = "*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$5\r\nab\r\nc\r\n"
				   "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
				   "*3\r\n$7\r\nmessage\r\n$3\r\nc:2\r\n$1\r\nx\r\n" /* not ours */
				   "*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$0\r\n\r\n";
	struct rig_fake_conn *c = rig_fake_subscriber(f);

	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		rig_fake_send(c, text + i, 1);
		ev_run(g->loop, EVRUN_NOWAIT);
	}
	RIG_WAIT(g, a->n_got == 2, LONG_MS);
	assert_int_equal(a->got[0].len, 5);
	assert_memory_equal(a->got[0].head, "ab\r\nc", 5);
	assert_int_equal(a->got[1].len, 0);
	assert_int_equal(a->gaps, 0);
}

/* Between a channel's name and its payload the table is used for other names. */
static void in_two_halves(struct rig *g, struct rig_fake *f, struct rig_node *a)
{
	struct rig_fake_conn *c = rig_fake_subscriber(f);
	struct redis_sub *one, *two, *three;

	one = rig_subscribe(a, "c:2");
	RIG_WAIT(g, a->subscribed == 2, LONG_MS);
	rig_fake_says(c, "*3\r\n$7\r\nmessage\r\n$3\r\nc:2\r\n$4\r\nha");
	ev_io_stop(g->loop, &c->io); /* no answer may cut into the message */
	rig_run(g, 10);
	two = rig_subscribe(a, "c:3");
	rig_run(g, 10);
	rig_fake_says(c, "lf\r\n");
	ev_io_start(g->loop, &c->io);
	RIG_WAIT(g, a->n_got == 1, LONG_MS);
	assert_ptr_equal(a->got[0].sub, one);
	assert_string_equal(a->got[0].head, "half");
	RIG_WAIT(g, a->subscribed == 3, LONG_MS);
	rig_fake_says(c, "*3\r\n$7\r\nmessage\r\n$3\r\nc:3\r\n$4\r\nha");
	ev_io_stop(g->loop, &c->io);
	rig_run(g, 10);
	redis_unsubscribe(a->r, two);
	rig_run(g, 10);
	rig_fake_says(c, "lf\r\n");
	ev_io_start(g->loop, &c->io);
	rig_run(g, 10);
	three = rig_subscribe(a, "c:4");
	RIG_WAIT(g, a->subscribed == 4, LONG_MS);
	assert_true(redis_sub_confirmed(three));
	assert_int_equal(a->n_got, 1);
	assert_int_equal(a->gaps, 0);
}

static void a_payload_belongs_to_its_own_channel(void **state)
{
	(void)state;
	with_fake(in_two_halves);
}

static struct redis_sub *sub_to_drop;

static void drop_it(struct rig_node *n)
{
	if (sub_to_drop != NULL)
		redis_unsubscribe(n->r, sub_to_drop);
	sub_to_drop = NULL;
	assert_int_equal(rig_say(n, "x", NULL, "from within", 0), n->up ? REDIS_SENT : REDIS_LOCAL);
	n->on_message = NULL;
}

/* The sequencer unsubscribes from inside on_publication(), and publishes: by the link, by the local pass, and
 * when the ring refuses the message. */
static void a_channel_may_go_from_within(void **state)
{
	struct rig g;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	rig_run(&g, 20);
	sub_to_drop = rig_subscribe(&a, "c:1");
	a.on_message = drop_it;
	assert_int_equal(rig_say(&a, "c:1", sub_to_drop, "m0", 1), REDIS_LOCAL);
	RIG_WAIT(&g, a.n_got == 2, LONG_MS);
	assert_string_equal(a.got[1].head, "from within");
	rig_redis_start(&g, NULL);
	sub_to_drop = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	a.on_message = drop_it;
	rig_publish(&g, "c:1", "x", 1);
	RIG_WAIT(&g, a.n_got == 3 && rig_stats_of(&a).channels == 0, LONG_MS);
	sub_to_drop = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.subscribed == 2, LONG_MS);
	a.room = 0;
	a.on_refused = drop_it;
	rig_publish(&g, "c:1", "y", 1);
	RIG_WAIT(&g, a.refused == 1 && rig_stats_of(&a).channels == 0, LONG_MS);
	a.on_refused = NULL;
	rig_run(&g, 20);
	a.room = -1;
	redis_resume(a.r);
	rig_run(&g, 20);
	assert_int_equal(a.n_got, 3);
	rig_node_close(&a);
	rig_close(&g);
}

static void replies_may_come_in_pieces(void **state)
{
	(void)state;
	with_fake(one_byte_at_a_time);
}

/* A large payload that trickles in is life: its PONG can only come behind it. */
static void slowly(struct rig *g, struct rig_fake *f, struct rig_node *a)
{
	struct rig_fake_conn *c;
	char kib[1024];

	rig_node_close(a);
	fake_node(a, f, 12);
	quick_liveness(a);
	rig_node_open(a);
	(void)rig_subscribe(a, "c:1");
	RIG_WAIT(g, a->up && rig_fake_subscriber(f) != NULL, LONG_MS);
	c = rig_fake_subscriber(f);
	f->script = no_publish_reply; /* and no PONG, see below */
	memset(kib, 'k', sizeof(kib));
	ev_io_stop(g->loop, &c->io); /* deaf: it is busy sending */
	rig_fake_says(c, "*3\r\n$7\r\nmessage\r\n$3\r\nc:1\r\n$32768\r\n");
	for (int i = 0; i < 32; i++) {
		rig_fake_send(c, kib, sizeof(kib));
		rig_run(g, 40);
	}
	rig_fake_says(c, "\r\n");
	ev_io_start(g->loop, &c->io);
	RIG_WAIT(g, a->n_got == 1, LONG_MS);
	rig_run(g, 300);
	assert_int_equal(a->gaps, 0);
	ev_io_stop(g->loop, &c->io); /* now it is silent indeed */
	RIG_WAIT(g, a->gaps == 1, 400 + 1000);
}

static void a_trickling_payload_is_life(void **state)
{
	(void)state;
	with_fake(slowly);
}

static bool loading(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	static const char *const errors[] = {"-LOADING Redis is loading the dataset in memory\r\n",
					     "-MASTERDOWN Link with MASTER is down\r\n",
					     "-NOAUTH Authentication required.\r\n", "-READONLY no\r\n"};

	(void)argc;
	if (!rig_is(argv[0], "PING") || c->f->step >= 8)
		return false;
	rig_fake_says(c, errors[c->f->step++ / 2]);
	return true;
}

static void errors_at_the_door_are_retried(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = loading;
	fake_node(&a, &f, 11);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	assert_int_equal(f.accepted, 8 + 2);
	assert_int_equal(a.downs, 0);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static bool publish_says_noauth(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	if (!rig_is(argv[0], "PUBLISH") || c->f->step++ > 0)
		return false;
	rig_fake_says(c, "-NOAUTH Authentication required.\r\n");
	return true;
}

/* The service ends in the middle: the message goes out again on the next link. */
static void losing_service_is_losing_the_link(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = publish_says_noauth;
	fake_node(&a, &f, 11);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", NULL, "m", 1), REDIS_SENT);
	RIG_WAIT(&g, a.downs == 1 && a.n_got == 1, LONG_MS);
	assert_true(a.got[0].local);
	RIG_WAIT(&g, a.up && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_int_equal(f.step, 2);
	assert_int_equal(a.acked, 0); /* local delivery was the answer */
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

/* Acknowledged, the subscriber's PONG is there, and no echo: it will not come any more. */
static void a_missing_echo_is_made_up_for(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	fake_node(&a, &f, 11);
	a.cfg.ping_interval = 50;
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 1), REDIS_SENT);
	assert_int_equal(rig_say(&a, "c:1", sub, "m1", 2), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 2 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_check_run(&a, 11, "m", 2);
	assert_true(a.got[0].local && a.up);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static bool count_publish(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	c->f->step += rig_is(argv[0], "PUBLISH");
	return false;
}

static struct rig_fake_conn *fake_publisher(struct rig_fake *f)
{
	struct rig_fake_conn *c = f->conns;

	while (c != NULL && c->subscriber)
		c = c->next;
	return c;
}

/* Redis acknowledged it and died before it told anybody: it is sent again, whichever link went first. */
static void acknowledged_and_not_echoed_is_sent_again(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = count_publish;
	fake_node(&a, &f, 11);
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	for (unsigned round = 1; round <= 2; round++) {
		assert_int_equal(rig_say(&a, "c:1", sub, "m", 1), REDIS_SENT);
		RIG_WAIT(&g, f.step == 2 * round - 1, LONG_MS);
		rig_run(&g, 50); /* the answer arrives */
		assert_int_equal(a.n_got, round - 1);
		shutdown((round == 1 ? fake_publisher(&f) : rig_fake_subscriber(&f))->fd, SHUT_RDWR);
		RIG_WAIT(&g, a.n_got == round, LONG_MS);
		RIG_WAIT(&g, a.up && f.step == 2 * round && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	}
	assert_int_equal(a.n_got, 2);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static bool hold_first_reply(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	return rig_is(argv[0], "PUBLISH") && c->f->step++ == 0;
}

/* The subscriber link alone is lost, and the publisher's answer takes longer than the time of holding back:
 * answers are matched by order, so it is not sent again before. */
static void what_is_in_flight_is_waited_for(void **state)
{
	struct rig g;
	struct rig_fake f;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = hold_first_reply;
	fake_node(&a, &f, 11);
	a.cfg.resend_delay = 50;
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 1), REDIS_SENT);
	RIG_WAIT(&g, f.step == 1, LONG_MS);
	shutdown(rig_fake_subscriber(&f)->fd, SHUT_RDWR);
	RIG_WAIT(&g, a.gaps == 1 && a.up, LONG_MS);
	rig_run(&g, 200);
	assert_int_equal(rig_say(&a, "c:1", sub, "m1", 2), REDIS_LOCAL);
	rig_run(&g, 20);
	assert_int_equal(f.step, 1);
	rig_fake_says(fake_publisher(&f), ":1\r\n");
	RIG_WAIT(&g, f.step == 3 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_check_run(&a, 11, "m", 2);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

static bool hold_confirmations(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	c->f->step += rig_is(argv[0], "SUBSCRIBE") || rig_is(argv[0], "UNSUBSCRIBE");
	return c->f->step > 1 && !rig_is(argv[0], "PING");
}

/* Subscribed, unsubscribed, subscribed: six answers are due, and only the last one says that it is so. */
static void confirmations_are_counted(void **state)
{
	static const char *const verbs[] = {"subscribe", "unsubscribe", "subscribe"};
	struct rig g;
	struct rig_fake f;
	struct rig_node a;
	struct redis_sub *sub;
	char text[96];

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = hold_confirmations;
	fake_node(&a, &f, 11);
	rig_node_open(&a);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	sub = rig_subscribe(&a, "c:2");
	RIG_WAIT(&g, f.step == 2, LONG_MS);
	redis_unsubscribe(a.r, sub);
	RIG_WAIT(&g, f.step == 3, LONG_MS);
	sub = rig_subscribe(&a, "c:2");
	RIG_WAIT(&g, f.step == 4, LONG_MS);
	for (int i = 0; i < 6; i++) {
		rig_run(&g, 10);
		assert_false(redis_sub_confirmed(sub));
		snprintf(text, sizeof(text), "*3\r\n$%zu\r\n%s\r\n$%d\r\n%sc:2\r\n:1\r\n",
			 strlen(verbs[i / 2]), verbs[i / 2], i % 2 ? 14 : 3, i % 2 ? "ringcast:m:" : "");
		rig_fake_says(rig_fake_subscriber(&f), text);
	}
	RIG_WAIT(&g, redis_sub_confirmed(sub) && a.subscribed == 2, LONG_MS);
	rig_node_close(&a);
	rig_fake_close(&f);
	rig_close(&g);
}

/* ---- names ---- */

static void names_are_resolved_and_bad_ones_retried(void **state)
{
	struct rig g;
	struct rig_proxy x;
	struct rig_node a, b, c;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	rig_node_init(&c, &g, 33);
	rig_node_tcp(&a, "localhost", x.port);
	rig_node_tcp(&b, "no-such-host.invalid", x.port);
	rig_node_tcp(&c, "127.0.0.1", rig_free_port()); /* refused */
	rig_node_open(&a);
	rig_node_open(&b);
	rig_node_open(&c);
	RIG_WAIT(&g, a.up, LONG_MS);
	assert_false(b.up || c.up);
	assert_non_null(strstr(rig_stats_of(&a).address, "localhost:"));
	rig_node_close(&a);
	rig_node_close(&b); /* perhaps with its question still open */
	rig_node_close(&c);
	rig_proxy_close(&x);
	rig_close(&g);
}

#ifndef RIG_JSON
#define RIG_JSON false /* test_redis_outage_json.c runs the same in a json namespace */
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(redis_killed_and_restarted),
		cmocka_unit_test(redis_absent_at_start),
		cmocka_unit_test(all_subscribers_killed),
		cmocka_unit_test(all_publishers_killed),
		cmocka_unit_test(cut_by_the_output_limit),
		cmocka_unit_test(a_black_hole_is_declared_dead),
		cmocka_unit_test(a_stopped_redis_is_declared_dead),
		cmocka_unit_test(a_loop_held_up_keeps_its_links),
		cmocka_unit_test(a_full_list_slows_publishers_while_redis_is_up),
		cmocka_unit_test(a_full_list_drops_the_new_while_redis_is_away),
		cmocka_unit_test(a_full_list_and_a_full_ring),
		cmocka_unit_test(nonsense_costs_the_link_alone),
		cmocka_unit_test(replies_may_come_in_pieces),
		cmocka_unit_test(a_payload_belongs_to_its_own_channel),
		cmocka_unit_test(a_channel_may_go_from_within),
		cmocka_unit_test(a_trickling_payload_is_life),
		cmocka_unit_test(errors_at_the_door_are_retried),
		cmocka_unit_test(losing_service_is_losing_the_link),
		cmocka_unit_test(a_missing_echo_is_made_up_for),
		cmocka_unit_test(acknowledged_and_not_echoed_is_sent_again),
		cmocka_unit_test(what_is_in_flight_is_waited_for),
		cmocka_unit_test(confirmations_are_counted),
		cmocka_unit_test(names_are_resolved_and_bad_ones_retried),
	};

	rig_is_json = RIG_JSON;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
