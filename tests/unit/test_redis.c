/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_route.c master/redis_watch.c */
/* The Redis side with Redis in good health: messages, subscriptions, a full ring, authentication, TLS. */
#include "tests/unit/redis_rig.h"

#include <errno.h>
#include <malloc.h>
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
#include "master/redis_subs.h"

#define LONG_MS 20000 /* far beyond what a loaded machine needs */

/* ---- messages ---- */

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
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1 && b.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sa, "m0", 77), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 1 && b.n_got == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_string_equal(a.got[0].head, "m0");
	assert_string_equal(a.got[0].room, "room");
	assert_int_equal(a.got[0].request, 77);
	assert_int_equal(a.got[0].opcode, WS_TEXT);
	assert_false(a.got[0].local);
	assert_int_equal(b.got[0].origin, 11);
	assert_int_equal(b.got[0].id, a.got[0].id);
	assert_int_equal(b.got[0].request, 0);
	rig_run(&g, 20);
	assert_int_equal(a.n_got + b.n_got, 2);
	assert_int_equal(a.acked, 0); /* the echo was the answer */
	assert_int_equal(rig_stats_of(&a).channels, 2);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* Nobody here subscribes the channel: Redis' acknowledgement is the answer, another host gets the message. */
static void without_subscription_the_reply_is_the_answer(void **state)
{
	struct rig g;
	struct rig_node a, b;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	rig_node_open(&a);
	rig_node_open(&b);
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up && b.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", NULL, "m0", 5), REDIS_SENT);
	RIG_WAIT(&g, b.n_got == 1 && a.acked == 1, LONG_MS);
	assert_int_equal(a.last_acked, 5);
	assert_int_equal(a.n_got, 0);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

/* The subscription is not confirmed when the message is published, yet its echo may come. */
static void an_echo_nobody_waited_for_is_delivered_once(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	for (int i = 0; i < 50; i++) {
		char name[16], text[16];

		snprintf(name, sizeof(name), "c:%d", i);
		snprintf(text, sizeof(text), "m%d", i);
		sub = rig_subscribe(&a, name);
		assert_int_equal(rig_say(&a, name, sub, text, 1 + (uint32_t)i), REDIS_SENT);
	}
	RIG_WAIT(&g, rig_stats_of(&a).pending_messages == 0 && a.subscribed == 50, LONG_MS);
	rig_run(&g, 50);
	for (size_t i = 1; i < a.n_got; i++)
		assert_true(a.got[i].id > a.got[i - 1].id);
	assert_true(a.n_got + a.acked >= 50);
	assert_int_equal(rig_stats_of(&a).duplicates, 0);
	rig_node_close(&a);
	rig_close(&g);
}

static void check_last(const struct rig_node *n, const char *p, size_t len, const struct rig_message *like)
{
	const struct rig_message *m = &n->got[n->n_got - 1];

	assert_int_equal(m->len, len);
	assert_memory_equal(m->head, p, len < 31 ? len : 31);
	assert_int_equal(m->opcode, 0);
	assert_int_equal(m->origin + m->id, 0);
	if (like != NULL)
		assert_int_equal(m->hash, like->hash);
}

static void foreign_payloads_arrive_byte_for_byte(void **state)
{
	static const size_t sizes[] = {0, 1, 125, 4095, 4096, 16383, 16384, 16385, 70000, 1 << 20, 16 << 20};
	struct rig g;
	struct rig_node a, b;
	char *big = malloc(16 << 20);

	(void)state;
	assert_non_null(big);
	for (size_t i = 0; i < 16 << 20; i++)
		big[i] = (char)(i * 2654435761u >> 13);
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	rig_node_open(&a);
	rig_node_open(&b);
	(void)rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up && a.subscribed == 1 && b.subscribed == 1, LONG_MS);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		rig_publish(&g, "c:1", big, sizes[i]);
		RIG_WAIT(&g, a.n_got == i + 1 && b.n_got == i + 1, LONG_MS);
		check_last(&a, big, sizes[i], NULL);
		check_last(&b, big, sizes[i], &a.got[i]);
	}
	rig_publish(&g, "c:1", "\r\n$5\r\n", 6);
	RIG_WAIT(&g, a.n_got == ARRAY_LEN(sizes) + 1, LONG_MS);
	check_last(&a, "\r\n$5\r\n", 6, NULL);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
	free(big);
}

#ifndef RIG_JSON /* it is no JSON; test_redis_envelope.c has its like */
static void own_payload_of_16_mib_keeps_its_kind(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;
	size_t len = 16 << 20;
	char *big = malloc(len);

	(void)state;
	assert_non_null(big);
	memset(big, 0xfe, len);
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	for (unsigned i = 1; i <= 3; i++) { /* larger than pending_size, so one at a time */
		assert_int_equal(redis_publish(a.r, &a.ns, (struct slice){"", 0}, "c:1", sub, WS_BINARY,
					       (struct slice){big, len}, (struct redis_token){0}),
				 REDIS_SENT);
		assert_int_equal(rig_say(&a, "c:1", sub, "no room", 1), REDIS_FULL);
		RIG_WAIT(&g, a.n_got == i && a.rooms == i, LONG_MS);
		assert_int_equal(a.got[i - 1].len, len);
		assert_int_equal(a.got[i - 1].opcode, WS_BINARY);
	}
	rig_node_close(&a);
	rig_close(&g);
	free(big);
}
#endif

/* Three replicas talk at once: each hears all, once, and all in the same order. */
static void three_replicas_hear_one_order(void **state)
{
	enum { EACH = 3000 };
	struct rig g;
	struct rig_node n[3];
	struct redis_sub *sub[3];
	char text[16];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	for (int i = 0; i < 3; i++) {
		rig_node_init(&n[i], &g, 100 + (uint64_t)i);
		rig_node_open(&n[i]);
		sub[i] = rig_subscribe(&n[i], "c:1");
	}
	RIG_WAIT(&g, n[0].up && n[1].up && n[2].up, LONG_MS);
	for (int k = 0; k < EACH; k++) {
		snprintf(text, sizeof(text), "m%d", k);
		for (int i = 0; i < 3; i++)
			assert_int_equal(rig_say(&n[i], "c:1", sub[i], text, 0), REDIS_SENT);
		if (k % 16 == 0)
			ev_run(g.loop, EVRUN_ONCE);
	}
	RIG_WAIT(&g, n[0].n_got == 3 * EACH && n[1].n_got == 3 * EACH && n[2].n_got == 3 * EACH, LONG_MS);
	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 3; k++)
			rig_check_run(&n[i], 100 + (uint64_t)k, "m", EACH);
	for (size_t k = 0; k < 3 * EACH; k++) {
		assert_int_equal(n[0].got[k].origin, n[1].got[k].origin);
		assert_int_equal(n[0].got[k].id, n[2].got[k].id);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rig_stats_of(&n[i]).duplicates, 0);
		rig_node_close(&n[i]);
	}
	rig_close(&g);
}

/* What others put on the channel of own messages. */
static void repeated_and_malformed_own_forms_are_dropped(void **state)
{
	struct rig g;
	struct rig_node a;
	uint8_t m[REDIS_FORM_HEADER + 1];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	(void)rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	m[REDIS_FORM_HEADER] = 'x';
	for (uint64_t id = 5; id >= 4; id--) {
		redis_form_put(m, WS_TEXT, 99, id);
		rig_publish(&g, REDIS_META_PREFIX "c:1", m, sizeof(m));
		rig_publish(&g, REDIS_META_PREFIX "c:1", m, sizeof(m));
	}
	redis_form_put(m, WS_TEXT, 11, 1); /* "ours", with an id that was never given out */
	rig_publish(&g, REDIS_META_PREFIX "c:1", m, sizeof(m));
	rig_publish(&g, REDIS_META_PREFIX "c:1", m, 17);
	redis_form_put(m, WS_CLOSE, 99, 7);
	rig_publish(&g, REDIS_META_PREFIX "c:1", m, sizeof(m));
	redis_form_put(m, WS_BINARY, 98, 1);
	rig_publish(&g, REDIS_META_PREFIX "c:1", m, REDIS_FORM_HEADER);
	RIG_WAIT(&g, a.n_got == 2, LONG_MS);
	assert_int_equal(a.got[0].id, 5);
	assert_int_equal(a.got[0].len, 1);
	assert_int_equal(a.got[1].origin, 98);
	assert_int_equal(a.got[1].len, 0);
	assert_int_equal(rig_stats_of(&a).duplicates, 3);
	assert_int_equal(rig_stats_of(&a).bad_form, 3);
	assert_true(a.up);
	rig_node_close(&a);
	rig_close(&g);
}

/* ---- subscriptions ---- */

static long long subscribers(struct rig *g, const char *channel)
{
	return rig_command(g, "PUBSUB NUMSUB %s", channel);
}

static void the_last_of_quick_changes_holds(void **state)
{
	enum { NAMES = 40, ROUNDS = 120 };
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub[NAMES] = {NULL};
	uint32_t seed = 7;
	unsigned wanted = 0;
	char name[32];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	for (int k = 0; k < NAMES * ROUNDS; k++) {
		unsigned i;

		seed = seed * 1664525u + 1013904223u;
		i = (seed >> 16) % NAMES;
		snprintf(name, sizeof(name), "c:%u", i);
		if (sub[i] == NULL) {
			sub[i] = rig_subscribe(&a, name);
		} else {
			redis_unsubscribe(a.r, sub[i]);
			sub[i] = NULL;
		}
		if (seed % 11 == 0)
			ev_run(g.loop, EVRUN_NOWAIT);
	}
	for (int i = 0; i < NAMES; i++)
		wanted += sub[i] != NULL;
	assert_true(wanted > 0 && wanted < NAMES);
	RIG_WAIT(&g, rig_stats_of(&a).channels == 2 * wanted, LONG_MS);
	rig_run(&g, 50);
	assert_int_equal(rig_stats_of(&a).channels, 2 * wanted);
	for (int i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "c:%d", i);
		assert_int_equal(subscribers(&g, name), sub[i] != NULL);
		snprintf(name, sizeof(name), REDIS_META_PREFIX "%s%d", "c:", i);
		assert_int_equal(subscribers(&g, name), sub[i] != NULL);
		if (sub[i] != NULL)
			assert_true(redis_sub_confirmed(sub[i]));
	}
	assert_int_equal(a.gaps, 0);
	rig_node_close(&a);
	rig_close(&g);
}

static void a_second_subscription_is_confirmed_by_its_own_answer(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	sub = rig_subscribe(&a, "c:1");
	redis_unsubscribe(a.r, sub); /* never sent at all */
	rig_run(&g, 20);
	assert_int_equal(a.subscribed, 0);
	assert_int_equal(subscribers(&g, "c:1"), 0);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.subscribed == 1, LONG_MS);
	redis_unsubscribe(a.r, sub); /* confirmed, and wanted again before Redis hears of it */
	sub = rig_subscribe(&a, "c:1");
	assert_false(redis_sub_confirmed(sub));
	RIG_WAIT(&g, a.subscribed == 2, LONG_MS);
	assert_null(redis_subscribe(a.r, &a.ns, "c:1", &a));
	assert_int_equal(errno, EEXIST);
	rig_publish(&g, "c:1", "x", 1);
	RIG_WAIT(&g, a.n_got == 1, LONG_MS);
	redis_unsubscribe(a.r, sub);
	RIG_WAIT(&g, subscribers(&g, "c:1") == 0 && rig_stats_of(&a).channels == 0, LONG_MS);
	rig_publish(&g, "c:1", "x", 1);
	rig_run(&g, 20);
	assert_int_equal(a.n_got, 1);
	rig_node_close(&a);
	rig_close(&g);
}

/* An own message is on its way when its channel is given up: its publisher still gets an answer. */
static void unsubscribing_answers_who_waits_for_an_echo(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 9), REDIS_SENT);
	redis_unsubscribe(a.r, sub);
	RIG_WAIT(&g, a.acked == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_int_equal(a.n_got, 0);
	rig_node_close(&a);
	rig_close(&g);
}

static void a_hundred_thousand_subscriptions(void **state)
{
	enum { N = 100000 };
	struct rig g;
	struct rig_node a;
	struct mallinfo2 before, after;
	uint64_t t0;
	char name[32];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	a.cfg.timeout = 10000;
	rig_node_open(&a);
	RIG_WAIT(&g, a.up, LONG_MS);
	before = mallinfo2();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "demo:room-%d", i);
		(void)rig_subscribe(&a, name);
	}
	RIG_WAIT(&g, a.subscribed == N, 60000);
	rig_run(&g, 5);
	after = mallinfo2();
	t0 = clock_mono_ms();
	(void)rig_command(&g, "CLIENT KILL TYPE pubsub");
	RIG_WAIT(&g, a.downs == 1, LONG_MS);
	RIG_WAIT(&g, a.up, 60000);
	print_message("%d subscriptions: %zu bytes each; resubscribed after a loss in %llu ms\n", N,
		      (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / N,
		      (unsigned long long)(clock_mono_ms() - t0));
	assert_int_equal(a.subscribed, 2 * N);
	assert_int_equal(rig_stats_of(&a).channels, 2 * N);
	rig_publish(&g, "demo:room-99999", "x", 1);
	RIG_WAIT(&g, a.n_got == 1, LONG_MS);
	rig_node_close(&a);
	rig_close(&g);
}

/* ---- a full ring ---- */

static void a_full_ring_pauses_and_loses_nothing(void **state)
{
	enum { N = 3000 };
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;
	char text[600];
	unsigned resumed = 0;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	a.cfg.timeout = 300;
	a.cfg.ping_interval = 100;
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	a.room = 0;
	for (int k = 0; k < N; k++) {
		int len = snprintf(text, sizeof(text), "m%d", k);

		if (k % 2 == 0)
			assert_int_equal(rig_say(&a, "c:1", sub, text, 0), REDIS_SENT);
		else
			rig_publish(&g, "c:1", text, (size_t)len);
	}
	rig_run(&g, 1000); /* longer than ping_interval + timeout: the clocks stand still */
	assert_int_equal(a.n_got, 0);
	assert_int_equal(a.refused, 1);
	assert_int_equal(a.gaps, 0);
	while (a.n_got < N) {
		a.room = (long)(resumed++ % 7);
		redis_resume(a.r);
		if (resumed % 3 == 0)
			ev_run(g.loop, EVRUN_ONCE);
		assert_true(resumed < 100000);
	}
	a.room = -1;
	redis_resume(a.r);
	RIG_WAIT(&g, rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_int_equal(a.n_got, N);
	for (size_t k = 0, own = 0, foreign = 1; k < N; k++) {
		size_t *next = a.got[k].origin != 0 ? &own : &foreign;

		snprintf(text, sizeof(text), "m%zu", *next);
		assert_string_equal(a.got[k].head, text);
		*next += 2;
	}
	assert_int_equal(a.gaps, 0);
	rig_run(&g, 300);
	assert_true(a.up);
	rig_node_close(&a);
	rig_close(&g);
}

static void what_was_parked_for_a_channel_goes_with_it(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *one;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	one = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&a, "c:2");
	RIG_WAIT(&g, a.up && a.subscribed == 2, LONG_MS);
	a.room = 0;
	rig_publish(&g, "c:1", "a", 1);
	rig_publish(&g, "c:2", "b", 1);
	RIG_WAIT(&g, a.refused == 1, LONG_MS);
	redis_unsubscribe(a.r, one);
	a.room = -1;
	redis_resume(a.r);
	RIG_WAIT(&g, a.n_got == 1, LONG_MS);
	assert_string_equal(a.got[0].head, "b");
	rig_node_close(&a);
	rig_close(&g);
}

/* The link goes while a message is parked, and another one behind it waits to be given to local clients. */
static void a_loss_while_the_ring_is_full_keeps_the_order(void **state)
{
	enum { N = 200 };
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;
	char text[16];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	a.room = 10;
	for (int k = 0; k < N; k++) {
		snprintf(text, sizeof(text), "m%d", k);
		(void)!rig_say(&a, "c:1", sub, text, 0);
		if (k == N / 2) {
			RIG_WAIT(&g, a.refused >= 1, LONG_MS);
			rig_redis_kill(&g); /* the publisher link notices at once, the paused one can't */
			RIG_WAIT(&g, !a.up, LONG_MS);
		}
	}
	rig_redis_start(&g, NULL);
	while (a.n_got < N) {
		a.room = 3;
		redis_resume(a.r);
		ev_run(g.loop, EVRUN_ONCE);
	}
	a.room = -1;
	redis_resume(a.r);
	RIG_WAIT(&g, a.up && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_check_run(&a, 11, "m", N);
	rig_node_close(&a);
	rig_close(&g);
}

/* ---- who may come in ---- */

static bool log_contains(struct rig *g, const char *what)
{
	char path[128], line[4096];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/log", g->dir);
	f = fopen(path, "re");
	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = strstr(line, what) != NULL;
	fclose(f);
	return found;
}

static char *str(const char *s)
{
	return (char *)(uintptr_t)s;
}

static void passwords_are_used_and_never_logged(void **state)
{
	static const struct {
		const char *user, *password, *says;
	} no[] = {{NULL, NULL, "NOAUTH"}, {NULL, "Sesame-9", "WRONGPASS"}, {"cast", "Hunter-9", "WRONGPASS"}};
	struct rig g;
	struct rig_node n[5];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	(void)rig_command(&g, "ACL SETUSER cast on >Hunter-2 +@all ~* &*");
	(void)rig_command(&g, "CONFIG SET requirepass Sesame-1");
	for (int i = 0; i < 5; i++)
		rig_node_init(&n[i], &g, 1 + (uint64_t)i);
	for (int i = 0; i < 3; i++) {
		n[i].cfg.user = str(no[i].user);
		n[i].cfg.password = str(no[i].password);
	}
	n[3].cfg.password = str("Sesame-1");
	n[3].cfg.db = 3;
	n[4].cfg.user = str("cast");
	n[4].cfg.password = str("Hunter-2");
	for (int i = 0; i < 5; i++)
		rig_node_open(&n[i]);
	RIG_WAIT(&g, n[3].up && n[4].up, LONG_MS);
	RIG_WAIT(&g, log_contains(&g, "NOAUTH") && log_contains(&g, "WRONGPASS"), LONG_MS);
	assert_false(n[0].up || n[1].up || n[2].up);
	assert_false(log_contains(&g, "Sesame") || log_contains(&g, "Hunter"));
	assert_true(log_contains(&g, "msg=\"connected to Redis\""));
	for (int i = 0; i < 5; i++)
		rig_node_close(&n[i]);
	rig_close(&g);
}

/* A user without SELECT, and without the right to publish on one channel. */
static void missing_rights_cost_only_what_they_concern(void **state)
{
	struct rig g;
	struct rig_node a;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	(void)rig_command(&g, "ACL SETUSER cast on >x -@all +ping +subscribe +unsubscribe +publish "
			      "resetchannels &c:* &ringcast:m:c:*");
	rig_node_init(&a, &g, 11);
	a.cfg.user = str("cast");
	a.cfg.password = str("x");
	a.cfg.db = 2;
	rig_node_open(&a);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && a.subscribed == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 1), REDIS_SENT);
	assert_int_equal(rig_say(&a, "other", NULL, "m1", 2), REDIS_SENT);
	assert_int_equal(rig_say(&a, "c:1", sub, "m2", 3), REDIS_SENT);
	/* As if the channel were subscribed: no echo will come, so local clients get it without. */
	assert_int_equal(rig_say(&a, "other", sub, "m3", 4), REDIS_SENT);
	assert_int_equal(rig_say(&a, "c:1", sub, "m4", 5), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 4 && a.acked_bad == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_string_equal(a.got[0].head, "m0");
	assert_string_equal(a.got[1].head, "m2");
	assert_string_equal(a.got[2].head, "m3");
	assert_true(a.got[2].local);
	assert_string_equal(a.got[3].head, "m4");
	assert_int_equal(a.last_acked, 2);
	assert_int_equal(rig_stats_of(&a).given_up, 2);
	assert_true(a.up && a.gaps == 0);
	rig_node_close(&a);
	rig_close(&g);
}

static void make_certificates(struct rig *g)
{
	static const char *const steps[] = {
		"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt",
		"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=no -keyout no.key -out no.crt",
		"openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout srv.key -out srv.csr",
		"printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\n' >ext",
		"openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext "
		"-out srv.crt",
	};
	char script[2048];

	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		const char *argv[] = {"sh", "-c", script, NULL};

		snprintf(script, sizeof(script), "cd %s && %s", g->dir, steps[i]);
		rig_run_program(argv);
	}
}

static void tls_is_verified(void **state)
{
	struct rig g;
	struct rig_node n[6];
	char crt[96], key[96], ca[96], no[96], port[8];
	const char *args[] = {"--tls-port",
			      port,
			      "--tls-cert-file",
			      crt,
			      "--tls-key-file",
			      key,
			      "--tls-ca-cert-file",
			      ca,
			      "--tls-auth-clients",
			      "no",
			      NULL};
	/* right authority by name and by address; wrong authority; the system's; another name; no
	 * verification */
	struct {
		const char *host, *ca;
		bool verify, ok;
	} const want[6] = {{"localhost", ca, true, true},  {"127.0.0.1", ca, true, true},
			   {"localhost", no, true, false}, {"localhost", NULL, true, false},
			   {"127.0.0.2", ca, true, false}, {"127.0.0.1", NULL, false, true}};
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	make_certificates(&g);
	snprintf(crt, sizeof(crt), "%s/srv.crt", g.dir);
	snprintf(key, sizeof(key), "%s/srv.key", g.dir);
	snprintf(ca, sizeof(ca), "%s/ca.crt", g.dir);
	snprintf(no, sizeof(no), "%s/no.crt", g.dir);
	snprintf(port, sizeof(port), "%u", rig_free_port());
	rig_redis_start(&g, args);
	for (int i = 0; i < 6; i++) {
		rig_node_init(&n[i], &g, 1 + (uint64_t)i);
		rig_node_tcp(&n[i], want[i].host, (uint16_t)atoi(port));
		n[i].cfg.tls = true;
		n[i].cfg.ca_file = str(want[i].ca);
		n[i].cfg.tls_verify = want[i].verify;
		rig_node_open(&n[i]);
	}
	sub = rig_subscribe(&n[0], "c:1");
	(void)rig_subscribe(&n[1], "c:1");
	RIG_WAIT(&g, n[0].up && n[1].up && n[5].up, LONG_MS);
	for (int k = 0; k < 500; k++) {
		char text[4000];

		memset(text, 'x', sizeof(text) - 1);
		text[snprintf(text, 16, "m%d", k)] = '\0';
		assert_int_equal(rig_say(&n[0], "c:1", sub, text, 0), REDIS_SENT);
		if (k == 250)
			n[1].room = 5;
	}
	RIG_WAIT(&g, n[0].n_got == 500 && n[1].refused == 1, LONG_MS);
	n[1].room = -1;
	redis_resume(n[1].r);
	RIG_WAIT(&g, n[1].n_got == 500, LONG_MS);
	rig_check_run(&n[0], 1, "m", 500);
	rig_check_run(&n[1], 1, "m", 500);
	RIG_WAIT(&g, log_contains(&g, "reason=certificate"), LONG_MS);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(n[i].up, want[i].ok);
		rig_node_close(&n[i]);
	}
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_own_message_comes_back_once),
		cmocka_unit_test(without_subscription_the_reply_is_the_answer),
		cmocka_unit_test(an_echo_nobody_waited_for_is_delivered_once),
		cmocka_unit_test(foreign_payloads_arrive_byte_for_byte),
#ifndef RIG_JSON
		cmocka_unit_test(own_payload_of_16_mib_keeps_its_kind),
#endif
		cmocka_unit_test(three_replicas_hear_one_order),
		cmocka_unit_test(repeated_and_malformed_own_forms_are_dropped),
		cmocka_unit_test(the_last_of_quick_changes_holds),
		cmocka_unit_test(a_second_subscription_is_confirmed_by_its_own_answer),
		cmocka_unit_test(unsubscribing_answers_who_waits_for_an_echo),
		cmocka_unit_test(a_hundred_thousand_subscriptions),
		cmocka_unit_test(a_full_ring_pauses_and_loses_nothing),
		cmocka_unit_test(what_was_parked_for_a_channel_goes_with_it),
		cmocka_unit_test(a_loss_while_the_ring_is_full_keeps_the_order),
		cmocka_unit_test(passwords_are_used_and_never_logged),
		cmocka_unit_test(missing_rights_cost_only_what_they_concern),
		cmocka_unit_test(tls_is_verified),
	};

#ifdef RIG_JSON /* test_redis_json.c runs the same in a json namespace */
	rig_is_json = true;
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
