/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_cmd.c master/redis_route.c master/redis_watch.c */
/* The command link, and the channels that servers talk on among themselves. */
#include "tests/unit/redis_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/clock.h"
#include "master/redis_cmd.h"

#define LONG_MS 20000

/* ---- a command link that writes down what it was told ---- */

struct asker {
	struct rig_node n; /* for its cfg */
	struct redis_cmd *c;
	unsigned opened, lost, answers, nulls;
	char log[4096]; /* "tag=answer " ... */
	size_t log_len;
	struct redis_cmd *again; /* not NULL: ask once more from within the answer */
	int again_errno;
};

struct question {
	struct asker *a;
	char tag;
};

static void on_open(void *arg)
{
	((struct asker *)arg)->opened++;
}

static void on_lost(void *arg)
{
	((struct asker *)arg)->lost++;
}

static void write_down(struct asker *a, const redisReply *r)
{
	size_t left = sizeof(a->log) - a->log_len;
	int n = 0;

	switch (r == NULL ? -1 : r->type) {
	case -1:
		n = snprintf(a->log + a->log_len, left, "NULL");
		break;
	case REDIS_REPLY_NIL:
		n = snprintf(a->log + a->log_len, left, "nil");
		break;
	case REDIS_REPLY_INTEGER:
		n = snprintf(a->log + a->log_len, left, "%lld", r->integer);
		break;
	case REDIS_REPLY_ARRAY:
		a->log[a->log_len++] = '(';
		for (size_t i = 0; i < r->elements; i++)
			write_down(a, r->element[i]);
		a->log[a->log_len++] = ')';
		break;
	default:
		n = snprintf(a->log + a->log_len, left, "%s", r->str);
	}
	assert_true(n >= 0 && (size_t)n < left);
	a->log_len += (size_t)n;
}

static int ask_words(struct asker *a, char tag, const char *words);

static void on_answer(void *arg, const redisReply *reply)
{
	struct question *q = arg;
	struct asker *a = q->a;

	a->answers++;
	a->nulls += reply == NULL;
	if (a->log_len < sizeof(a->log) - 256) {
		a->log[a->log_len++] = q->tag;
		a->log[a->log_len++] = '=';
		write_down(a, reply);
		a->log[a->log_len++] = ' ';
		a->log[a->log_len] = '\0';
	}
	free(q);
	if (a->again == NULL)
		return;
	a->again = NULL;
	a->again_errno = ask_words(a, 'z', "ECHO again") == 0 ? 0 : errno;
}

/* Words are separated by blanks. */
static int ask_words(struct asker *a, char tag, const char *words)
{
	struct question *q = malloc(sizeof(*q));
	struct slice argv[16];
	size_t argc = 0;
	int rc, err;

	assert_non_null(q);
	*q = (struct question){a, tag};
	while (*words != '\0' && argc < ARRAY_LEN(argv)) {
		size_t len = strcspn(words, " ");

		argv[argc++] = (struct slice){words, len};
		words += len + (words[len] == ' ');
	}
	rc = redis_cmd_call(a->c, argc, argv, on_answer, q);
	err = errno;
	if (rc == -1)
		free(q);
	errno = err;
	return rc;
}

static void asker_init(struct asker *a, struct rig *g)
{
	memset(a, 0, sizeof(*a));
	rig_node_init(&a->n, g, 99);
}

static void asker_open(struct asker *a)
{
	const struct redis_cmd_events ev = {.arg = a, .open = on_open, .lost = on_lost};

	a->c = redis_cmd_new(a->n.g->loop, &a->n.cfg, &ev);
	assert_non_null(a->c);
}

/* ---- answers ---- */

static void answers_come_in_order_and_whole(void **state)
{
	struct rig g;
	struct asker a;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	asker_init(&a, &g);
	asker_open(&a);
	assert_int_equal(ask_words(&a, 'x', "PING"), -1);
	assert_int_equal(errno, ENOTCONN);
	RIG_WAIT(&g, a.opened == 1, LONG_MS);
	assert_true(redis_cmd_is_open(a.c));
	assert_int_equal(ask_words(&a, 'a', "SET k v EX 100"), 0);
	assert_int_equal(ask_words(&a, 'b', "GET k"), 0);
	assert_int_equal(ask_words(&a, 'c', "GET nothing"), 0);
	assert_int_equal(ask_words(&a, 'd', "NOSUCH"), 0);
	assert_int_equal(ask_words(&a, 'e', "INCR n"), 0);
	assert_int_equal(ask_words(&a, 'f', "XADD s 1-1 f hello"), 0);
	assert_int_equal(redis_cmd_call(a.c, 2, (struct slice[]){{"DEL", 3}, {"n", 1}}, NULL, NULL), 0);
	assert_int_equal(ask_words(&a, 'g', "MULTI"), 0);
	assert_int_equal(ask_words(&a, 'h', "XRANGE s - +"), 0);
	assert_int_equal(ask_words(&a, 'i', "DEL s"), 0);
	assert_int_equal(ask_words(&a, 'j', "EXEC"), 0);
	assert_int_equal(ask_words(&a, 'k', "KEYS n"), 0);
	RIG_WAIT(&g, a.answers == 11, LONG_MS);
	assert_string_equal(a.log,
			    "a=OK b=v c=nil d=ERR unknown command 'NOSUCH', with args beginning with:  e=1 "
			    "f=1-1 g=OK h=QUEUED i=QUEUED j=(((1-1(fhello)))1) k=() ");
	redis_cmd_free(a.c);
	rig_close(&g);
}

/* Many more than the first ring of questions holds, with PINGs between them. */
static void thousands_are_matched(void **state)
{
	struct rig g;
	struct asker a;
	char want[32];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	asker_init(&a, &g);
	a.n.cfg.ping_interval = 5;
	asker_open(&a);
	RIG_WAIT(&g, a.opened == 1, LONG_MS);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 100; i++)
			assert_int_equal(ask_words(&a, 'i', "INCR n"), 0);
		rig_run(&g, 3);
	}
	RIG_WAIT(&g, a.answers == 5000, LONG_MS);
	a.log_len = 0;
	assert_int_equal(ask_words(&a, 'l', "INCR n"), 0);
	RIG_WAIT(&g, a.answers == 5001, LONG_MS);
	snprintf(want, sizeof(want), "l=%d ", 5001);
	assert_string_equal(a.log, want);
	assert_int_equal(a.lost, 0);
	redis_cmd_free(a.c);
	rig_close(&g);
}

/* ---- losses ---- */

static void what_is_under_way_when_the_link_is_lost_gets_null(void **state)
{
	struct rig g;
	struct rig_proxy x;
	struct asker a;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	asker_init(&a, &g);
	rig_node_tcp(&a.n, "127.0.0.1", x.port);
	a.n.cfg.timeout = 400;
	a.n.cfg.ping_interval = 100;
	asker_open(&a);
	RIG_WAIT(&g, a.opened == 1, LONG_MS);
	rig_proxy_silence(&x, true);
	assert_int_equal(ask_words(&a, 'a', "INCR n"), 0);
	assert_int_equal(ask_words(&a, 'b', "INCR n"), 0);
	a.again = a.c;
	RIG_WAIT(&g, a.lost == 1, LONG_MS); /* the PING's deadline */
	assert_string_equal(a.log, "a=NULL b=NULL ");
	assert_int_equal(a.again_errno, ENOTCONN);
	assert_false(redis_cmd_is_open(a.c));
	rig_proxy_silence(&x, false);
	RIG_WAIT(&g, a.opened == 2, LONG_MS);
	assert_int_equal(ask_words(&a, 'c', "ECHO back"), 0);
	RIG_WAIT(&g, a.answers == 3, LONG_MS);
	assert_string_equal(a.log, "a=NULL b=NULL c=back ");
	assert_int_equal(ask_words(&a, 'd', "INCR n"), 0);
	redis_cmd_free(a.c);
	assert_int_equal(a.nulls, 3);
	assert_int_equal(a.lost, 1);
	rig_proxy_close(&x);
	rig_close(&g);
}

static void output_is_bounded(void **state)
{
	static char megabyte[1 << 20];
	const struct slice argv[] = {{"ECHO", 4}, {megabyte, sizeof(megabyte)}};
	struct rig g;
	struct rig_proxy x;
	struct asker a;
	struct redis_cmd_stats s;
	unsigned n = 0;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	asker_init(&a, &g);
	rig_node_tcp(&a.n, "127.0.0.1", x.port);
	asker_open(&a);
	RIG_WAIT(&g, a.opened == 1, LONG_MS);
	rig_proxy_silence(&x, true);
	while (n < 64 && redis_cmd_call(a.c, 2, argv, NULL, NULL) == 0)
		n++;
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(n, 15);
	redis_cmd_get_stats(a.c, &s);
	assert_true(s.is_open);
	assert_int_equal(s.under_way, 15);
	assert_int_equal(s.refused, 1);
	rig_proxy_silence(&x, false);
	RIG_WAIT(&g, (redis_cmd_get_stats(a.c, &s), s.under_way == 0), LONG_MS);
	assert_int_equal(a.lost, 0);
	redis_cmd_free(a.c);
	rig_proxy_close(&x);
	rig_close(&g);
}

/* ---- a server that says something else ---- */

static const char *said;

static bool say_it(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	if (!rig_is(argv[0], "GET"))
		return false;
	rig_fake_says(c, said);
	return true;
}

static void nonsense_costs_the_link(void **state)
{
	static const char *const texts[] = {
		"*100000000\r\n",    /* more elements than a tree may have */
		"*2\r\n*262144\r\n", /* nested ones, too */
		"$16777217\r\n",     /* a bulk too large */
		"+OK\r\n+OK\r\n",    /* one answer too many */
		"-READONLY it is a replica\r\n",
		"-NOAUTH Authentication required.\r\n",
		"%1\r\n", /* no RESP2 */
		"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
	};
	struct rig g;
	struct rig_fake f;
	struct asker a;
	unsigned nulls = 0;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = say_it;
	asker_init(&a, &g);
	a.n.cfg.path = f.path;
	asker_open(&a);
	for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
		RIG_WAIT(&g, a.opened == i + 1, LONG_MS);
		said = texts[i];
		assert_int_equal(ask_words(&a, 'a', "GET k"), 0);
		RIG_WAIT(&g, a.lost == i + 1, LONG_MS);
		assert_int_equal(a.answers, i + 1);
		nulls += i != 3; /* there the first answer was good */
		assert_int_equal(a.nulls, nulls);
	}
	redis_cmd_free(a.c);
	rig_fake_close(&f);
	rig_close(&g);
}

static void errors_of_one_command_are_answers(void **state)
{
	static const char *const texts[] = {"-MOVED 1 127.0.0.1:1\r\n", "-BUSY script\r\n", "-NOPERM no\r\n",
					    "-EXECABORT x\r\n"};
	struct rig g;
	struct rig_fake f;
	struct asker a;

	(void)state;
	rig_open(&g);
	rig_fake_open(&f, &g);
	f.script = say_it;
	asker_init(&a, &g);
	a.n.cfg.path = f.path;
	asker_open(&a);
	RIG_WAIT(&g, a.opened == 1, LONG_MS);
	for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
		said = texts[i];
		assert_int_equal(ask_words(&a, 'a', "GET k"), 0);
		RIG_WAIT(&g, a.answers == i + 1, LONG_MS);
	}
	assert_int_equal(a.nulls + a.lost, 0);
	assert_string_equal(a.log, "a=MOVED 1 127.0.0.1:1 a=BUSY script a=NOPERM no a=EXECABORT x ");
	redis_cmd_free(a.c);
	rig_fake_close(&f);
	rig_close(&g);
}

/* ---- internal channels ---- */

static char heard[512];

static void on_internal(void *arg, struct slice channel, struct slice payload)
{
	size_t len = strlen(heard);

	(void)arg;
	snprintf(heard + len, sizeof(heard) - len, "%.*s:%.*s ", (int)channel.len, channel.p,
		 (int)payload.len, payload.p);
}

static void internal_channels_are_heard(void **state)
{
	struct rig g;
	struct rig_node n;
	struct asker a;

	(void)state;
	heard[0] = '\0';
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&n, &g, 11);
	n.on_internal = on_internal;
	rig_node_open(&n);
	assert_int_equal(redis_listen(n.r, "ringcast:control"), 0);
	assert_int_equal(redis_listen(n.r, "ringcast:control"), -1);
	assert_int_equal(errno, EEXIST);
	(void)rig_subscribe(&n, "c:1");
	asker_init(&a, &g);
	asker_open(&a);
	for (unsigned round = 1; round <= 2; round++) {
		RIG_WAIT(&g, n.up && a.opened == round, LONG_MS);
		/* Up means that all of it is subscribed. */
		redis_tell(a.c, "ringcast:control", (struct slice){"{}", 2});
		redis_tell(a.c, "ringcast:control", (struct slice){NULL, 0});
		redis_tell(a.c, "ringcast:m:ringcast:control", (struct slice){"x", 1});
		redis_tell(a.c, "ringcast:other", (struct slice){"x", 1});
		assert_int_equal(ask_words(&a, 'n', "PUBSUB NUMSUB ringcast:m:ringcast:control"), 0);
		RIG_WAIT(&g, a.answers == round, LONG_MS);
		RIG_WAIT(&g, strlen(heard) == round * 38, LONG_MS);
		assert_int_equal(rig_stats_of(&n).channels, 3);
		assert_int_equal(n.subscribed, round);
		if (round == 1) {
			rig_redis_kill(&g);
			RIG_WAIT(&g, !n.up && a.lost == 1, LONG_MS);
			redis_tell(a.c, "ringcast:control", (struct slice){"lost", 4});
			rig_redis_start(&g, NULL);
		}
	}
	assert_string_equal(heard,
			    "ringcast:control:{} ringcast:control: ringcast:control:{} ringcast:control: ");
	assert_string_equal(a.log, "n=(ringcast:m:ringcast:control0) n=(ringcast:m:ringcast:control0) ");
	assert_int_equal(n.n_got, 0);
	redis_cmd_free(a.c);
	rig_node_close(&n);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_come_in_order_and_whole),
		cmocka_unit_test(thousands_are_matched),
		cmocka_unit_test(what_is_under_way_when_the_link_is_lost_gets_null),
		cmocka_unit_test(output_is_bounded),
		cmocka_unit_test(nonsense_costs_the_link),
		cmocka_unit_test(errors_of_one_command_are_answers),
		cmocka_unit_test(internal_channels_are_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
