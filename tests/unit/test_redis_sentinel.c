/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_cmd.c master/redis_route.c master/redis_watch.c */
/* Which server the links go to: what sentinels say, and what the server says of itself. Sentinels are
 * scripted here; tests/integ/test_sentinel.py has real ones. */
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
#include "master/redis_cmd.h"

#define LONG_MS 20000

/* ---- scripted sentinels, and a node that asks them ---- */

static uint16_t answer_port; /* what they say; 0: they know no such master */
static unsigned asked;

static void say_address(struct rig_fake_conn *c, uint16_t port)
{
	char text[96];
	char digits[8];

	snprintf(digits, sizeof(digits), "%u", port);
	snprintf(text, sizeof(text), "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n", strlen(digits), digits);
	rig_fake_says(c, text);
}

static bool as_sentinel(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	if (rig_is(argv[0], "AUTH")) {
		rig_fake_says(c, "-ERR AUTH <password> called without any password configured\r\n");
		return true;
	}
	if (!rig_is(argv[0], "SENTINEL"))
		return false;
	assert_int_equal(argc, 3);
	assert_true(rig_is(argv[1], "GET-MASTER-ADDR-BY-NAME") && rig_is(argv[2], "mymaster"));
	asked++;
	if (answer_port == 0)
		rig_fake_says(c, "*-1\r\n");
	else
		say_address(c, answer_port);
	return true;
}

static bool as_silent(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)c;
	(void)argc;
	(void)argv;
	return true;
}

static const char *lie;

static bool as_liar(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	(void)argc;
	(void)argv;
	rig_fake_says(c, lie);
	return true;
}

static bool as_replica(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	c->f->step++;
	if (!rig_is(argv[0], "INFO"))
		return false;
	assert_int_equal(argc, 2);
	if (rig_is(argv[1], "replication"))
		rig_fake_says(c, "$27\r\n# Replication\r\nrole:slave\r\n\r\n");
	else
		rig_fake_says(c, "$30\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n");
	return true;
}

static void node_init(struct rig_node *n, struct rig *g, const uint16_t *ports, unsigned n_ports)
{
	static char localhost[] = "127.0.0.1", name[] = "mymaster";

	rig_node_init(n, g, 11);
	n->cfg.is_unix = false;
	n->cfg.path = NULL;
	n->cfg.host = localhost;
	n->cfg.port = ports[0];
	n->cfg.sentinel_name = name;
	n->cfg.n_sentinels = n_ports;
	for (unsigned i = 0; i < n_ports; i++) {
		n->cfg.sentinels[i].host = localhost;
		n->cfg.sentinels[i].port = ports[i];
	}
}

static bool is_at(struct rig_node *n, uint16_t port)
{
	char want[32];

	snprintf(want, sizeof(want), "127.0.0.1:%u", port);
	return strcmp(rig_stats_of(n).address, want) == 0;
}

/* Pushed to whoever watches this sentinel. Returns whether somebody does. */
static bool push_switch(struct rig_fake *f, const char *name, uint16_t to)
{
	struct rig_fake_conn *c = rig_fake_subscriber(f);
	char what[128], text[256];

	if (c == NULL)
		return false;
	snprintf(what, sizeof(what), "%s 127.0.0.1 1 127.0.0.1 %u", name, to);
	snprintf(text, sizeof(text), "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%zu\r\n%s\r\n",
		 strlen(what), what);
	rig_fake_says(c, text);
	return true;
}

/* ---- asking ---- */

/* One refuses, one is silent, one lies, one does not know: the fifth is asked within the same attempt. */
static void sentinels_are_asked_in_turn(void **state)
{
	static const char *const lies[] = {"$5\r\nhello\r\n",
					   "*1\r\n$1\r\na\r\n",
					   "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n70000\r\n",
					   "*2\r\n$5\r\na\"b\\c\r\n$1\r\n1\r\n",
					   "*2\r\n$0\r\n\r\n$1\r\n1\r\n",
					   "*2\r\n:1\r\n:1\r\n",
					   "-IDONTKNOW\r\n",
					   "*100000000\r\n",
					   "nonsense\r\n"};
	struct rig g;
	struct rig_proxy x;
	struct rig_fake silent, liar, good;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	rig_fake_open_tcp(&silent, &g);
	rig_fake_open_tcp(&liar, &g);
	rig_fake_open_tcp(&good, &g);
	silent.script = as_silent;
	liar.script = as_liar;
	good.script = as_sentinel;
	answer_port = x.port;
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		const uint16_t ports[] = {rig_free_port(), silent.port, liar.port, good.port};

		lie = lies[i];
		node_init(&a, &g, ports, ARRAY_LEN(ports));
		a.cfg.timeout = i == 0 ? 3000 : 1000;
		a.cfg.backoff_min = a.cfg.backoff_max = 60000; /* the first attempt has to do */
		rig_node_open(&a);
		RIG_WAIT(&g, a.up, LONG_MS);
		assert_true(is_at(&a, x.port));
		rig_node_close(&a);
	}
	rig_fake_close(&silent);
	rig_fake_close(&liar);
	rig_fake_close(&good);
	rig_proxy_close(&x);
	rig_close(&g);
}

static void the_address_is_unknown_until_one_answers(void **state)
{
	struct rig g;
	struct rig_proxy x;
	struct rig_fake s;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	rig_fake_open_tcp(&s, &g);
	s.script = as_sentinel;
	answer_port = 0;
	asked = 0;
	node_init(&a, &g, &s.port, 1);
	a.cfg.password = (char *)(uintptr_t) "unused";
	rig_node_open(&a);
	RIG_WAIT(&g, asked > 6, LONG_MS);
	assert_string_equal(rig_stats_of(&a).address, "sentinel:mymaster");
	assert_false(a.up);
	a.cfg.password = NULL;
	answer_port = x.port;
	RIG_WAIT(&g, a.up && is_at(&a, x.port), LONG_MS);
	rig_node_close(&a);
	rig_fake_close(&s);
	rig_proxy_close(&x);
	rig_close(&g);
}

/* A sentinel may be behind: what it names is a replica by now. The next one is asked. */
static void a_named_replica_is_not_taken(void **state)
{
	struct rig g;
	struct rig_proxy x;
	struct rig_fake stale, good, replica;
	struct rig_node a;
	uint16_t ports[2];

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x, &g);
	rig_fake_open_tcp(&stale, &g);
	rig_fake_open_tcp(&good, &g);
	rig_fake_open_tcp(&replica, &g);
	stale.script = as_liar;
	good.script = as_sentinel;
	replica.script = as_replica;
	{
		static char text[64];

		snprintf(text, sizeof(text), "*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%u\r\n",
			 replica.port > 9999 ? 5 : 4, replica.port);
		lie = text;
	}
	answer_port = x.port;
	ports[0] = stale.port;
	ports[1] = good.port;
	node_init(&a, &g, ports, 2);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up && is_at(&a, x.port), LONG_MS);
	assert_true(replica.step > 0); /* they have been there */
	assert_int_equal(a.downs, 0);
	rig_node_close(&a);
	rig_fake_close(&stale);
	rig_fake_close(&good);
	rig_fake_close(&replica);
	rig_proxy_close(&x);
	rig_close(&g);
}

/* ---- following ---- */

static void no_lost(void *arg)
{
	++*(unsigned *)arg;
}

static void no_open(void *arg)
{
	(void)arg;
}

static struct redis_cmd *cmd;

static void a_switch_moves_all_links_at_once(void **state)
{
	struct rig g;
	struct rig_proxy x1, x2;
	struct rig_fake s;
	struct rig_node a;
	unsigned cmd_lost = 0, before;
	const struct redis_cmd_events ev = {.arg = &cmd_lost, .open = no_open, .lost = no_lost};

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x1, &g);
	rig_proxy_open(&x2, &g);
	rig_fake_open_tcp(&s, &g);
	s.script = as_sentinel;
	answer_port = x1.port;
	asked = 0;
	node_init(&a, &g, &s.port, 1);
	rig_node_open(&a);
	cmd = redis_cmd_new(g.loop, &a.cfg, &ev);
	assert_non_null(cmd);
	RIG_WAIT(&g, a.up && redis_cmd_is_open(cmd) && rig_fake_subscriber(&s) != NULL, LONG_MS);
	assert_true(is_at(&a, x1.port));
	before = asked;

	/* Another name, and the address that they have: nothing. */
	assert_true(push_switch(&s, "other", x2.port));
	assert_true(push_switch(&s, "mymaster", x1.port));
	rig_run(&g, 100);
	assert_int_equal(a.downs + cmd_lost, 0);

	assert_true(push_switch(&s, "mymaster", x2.port));
	RIG_WAIT(&g, a.downs == 1, LONG_MS);
	RIG_WAIT(&g, a.up && is_at(&a, x2.port), LONG_MS);
	assert_int_equal(asked, before);                       /* the event said where to */
	assert_null(x1.pipes == NULL ? NULL : x1.pipes->next); /* the command link is told by the owner */
	redis_cmd_follow(cmd, "127.0.0.1", x2.port);
	RIG_WAIT(&g, cmd_lost == 1 && redis_cmd_is_open(cmd) && x1.pipes == NULL, LONG_MS);

	/* Nonsense costs the watcher its connection and nobody else's. */
	rig_fake_says(rig_fake_subscriber(&s),
		      "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$3\r\na b\r\n");
	RIG_WAIT(&g, rig_fake_subscriber(&s) == NULL, LONG_MS);
	RIG_WAIT(&g, rig_fake_subscriber(&s) != NULL, LONG_MS); /* which asks, and hears x1 */
	RIG_WAIT(&g, a.up && is_at(&a, x1.port), LONG_MS);
	assert_int_equal(a.downs, 2);
	redis_cmd_free(cmd);
	rig_node_close(&a);
	rig_fake_close(&s);
	rig_proxy_close(&x1);
	rig_proxy_close(&x2);
	rig_close(&g);
}

/* The sentinel was away when it happened. */
static void a_switch_that_nobody_watched_is_followed(void **state)
{
	struct rig g;
	struct rig_proxy x1, x2;
	struct rig_fake s;
	struct rig_node a;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_proxy_open(&x1, &g);
	rig_proxy_open(&x2, &g);
	rig_fake_open_tcp(&s, &g);
	s.script = as_sentinel;
	answer_port = x1.port;
	node_init(&a, &g, &s.port, 1);
	rig_node_open(&a);
	RIG_WAIT(&g, a.up && rig_fake_subscriber(&s) != NULL, LONG_MS);
	answer_port = x2.port;
	shutdown(rig_fake_subscriber(&s)->fd, SHUT_RDWR);
	RIG_WAIT(&g, a.downs == 1 && a.up && is_at(&a, x2.port), LONG_MS);
	rig_node_close(&a);
	rig_fake_close(&s);
	rig_proxy_close(&x1);
	rig_proxy_close(&x2);
	rig_close(&g);
}

/* ---- without sentinels ---- */

static void a_master_that_became_a_replica_is_a_lost_one(void **state)
{
	struct rig g;
	struct rig_node a;
	unsigned cmd_lost = 0;
	const struct redis_cmd_events ev = {.arg = &cmd_lost, .open = no_open, .lost = no_lost};
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	rig_redis_start(&g, NULL);
	rig_node_init(&a, &g, 11);
	a.cfg.ping_interval = 50;
	rig_node_open(&a);
	cmd = redis_cmd_new(g.loop, &a.cfg, &ev);
	assert_non_null(cmd);
	sub = rig_subscribe(&a, "c:1");
	RIG_WAIT(&g, a.up && redis_cmd_is_open(cmd), LONG_MS);
	(void)rig_command(&g, "REPLICAOF 127.0.0.1 1");
	RIG_WAIT(&g, a.downs == 1 && a.gaps == 1 && cmd_lost == 1, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 0), REDIS_LOCAL);
	RIG_WAIT(&g, a.n_got == 1, LONG_MS);
	rig_run(&g, 300); /* attempts that find a replica */
	assert_false(a.up || redis_cmd_is_open(cmd));
	(void)rig_command(&g, "REPLICAOF NO ONE");
	RIG_WAIT(&g, a.up && redis_cmd_is_open(cmd) && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	assert_int_equal(a.n_got, 1);
	redis_cmd_free(cmd);
	rig_node_close(&a);
	rig_close(&g);
}

static void a_cluster_node_serves(void **state)
{
	char port[8], bus[8];
	const char *const args[] = {"--port",
				    port,
				    "--cluster-enabled",
				    "yes",
				    "--cluster-port",
				    bus,
				    "--cluster-config-file",
				    "nodes.conf",
				    NULL};
	struct rig g;
	struct rig_node a, b;
	struct redis_sub *sub;

	(void)state;
	rig_open(&g);
	snprintf(port, sizeof(port), "%u", rig_free_port());
	snprintf(bus, sizeof(bus), "%u", rig_free_port());
	rig_redis_start(&g, args);
	(void)rig_command(&g, "CLUSTER ADDSLOTSRANGE 0 16383");
	rig_node_init(&a, &g, 11);
	rig_node_init(&b, &g, 22);
	a.cfg.ping_interval = 50;
	rig_node_open(&a);
	rig_node_open(&b);
	sub = rig_subscribe(&a, "c:1");
	(void)rig_subscribe(&b, "c:1");
	RIG_WAIT(&g, a.up && b.up, LONG_MS);
	assert_int_equal(rig_say(&a, "c:1", sub, "m0", 0), REDIS_SENT);
	RIG_WAIT(&g, a.n_got == 1 && b.n_got == 1 && rig_stats_of(&a).pending_messages == 0, LONG_MS);
	rig_run(&g, 300); /* several PINGs */
	assert_int_equal(a.downs + b.downs, 0);
	rig_node_close(&a);
	rig_node_close(&b);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sentinels_are_asked_in_turn),
		cmocka_unit_test(the_address_is_unknown_until_one_answers),
		cmocka_unit_test(a_named_replica_is_not_taken),
		cmocka_unit_test(a_switch_moves_all_links_at_once),
		cmocka_unit_test(a_switch_that_nobody_watched_is_followed),
		cmocka_unit_test(a_master_that_became_a_replica_is_a_lost_one),
		cmocka_unit_test(a_cluster_node_serves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
