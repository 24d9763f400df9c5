/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Targeted records: who gets them, in which order, how often; live and behind. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"
#include "worker/user_int.h"

#define SLICE(s)  ((struct slice){(s), strlen(s)})
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct rig r;

static struct rig_client *seats[64];
static size_t n_seats;

static void start(void)
{
	rig_start(&r);
	n_seats = 0;
}

static void begin(void)
{
	rig_init(&r);
	start();
}

static void seat(struct rig_client *c)
{
	assert_true(n_seats < ARRAY_LEN(seats));
	seats[n_seats++] = c;
}

static void join(struct rig_client *c, const char *path, int send_buffer)
{
	rig_connect(&r, c, path, send_buffer);
	seat(c);
}

static void join_as(struct rig_client *c, const char *path, int send_buffer, const char *user,
		    const char *const *groups)
{
	rig_connect_as(&r, c, path, send_buffer, user, groups);
	seat(c);
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	while (n_seats > 0)
		rig_hang_up(seats[--n_seats]);
	rig_settle(&r);
	rig_stop(&r);
}

static void to_users(unsigned ns, const char *const *users, const char *text)
{
	rig_publish_to(&r, ns, WS_TEXT, users, NULL, text, strlen(text), 0);
}

static void to_groups(unsigned ns, const char *const *groups, const char *text)
{
	rig_publish_to(&r, ns, WS_TEXT, NULL, groups, text, strlen(text), 0);
}

static void to_room(unsigned ns, const char *room, const char *text)
{
	rig_publish(&r, rig_channel(&r, ns, room), text, strlen(text));
}

/* ---- live */

static void only_the_targets_get_it(void **state)
{
	struct rig_client a, b, c, d;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 0, "7", NULL);
	join_as(&b, "/ws/y", 0, "7", NULL);
	join_as(&c, "/ws/x", 0, "8", LIST("red"));
	join(&d, "/ws/x", 0);
	to_users(RIG_DEMO, LIST("7", "12"), "for 7");
	rig_expect(&r, &a, "for 7");
	rig_expect(&r, &b, "for 7");
	rig_expect_nothing(&r, &c);
	to_groups(RIG_DEMO, LIST("red", "blue"), "for red");
	rig_expect(&r, &c, "for red");
	rig_expect_nothing(&r, &a);
	rig_expect_nothing(&r, &b);
	rig_expect_nothing(&r, &d);
	/* Another namespace's user of that name is another user. */
	to_users(RIG_SKIP, LIST("7"), "not for you");
	rig_expect_nothing(&r, &a);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries), 3);
	end();
}

static void each_socket_gets_it_once(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 0, "7", LIST("red", "blue"));
	join_as(&b, "/ws/x", 0, "8", LIST("red"));
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, LIST("7", "7", "8"), LIST("blue", "red"), "once", 4, 0);
	rig_expect(&r, &a, "once");
	rig_expect(&r, &b, "once");
	rig_expect_nothing(&r, &a);
	rig_expect_nothing(&r, &b);
	end();
}

/* Of a batch each client gets what is for it in the order of the ring, whoever it is for. */
static void order_is_that_of_the_ring(void **state)
{
	struct rig_client a, b, c, f, g;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 0, "7", LIST("red"));
	join_as(&b, "/ws/y", 0, "8", LIST("red"));
	join(&c, "/ws/x", 0);
	join_as(&f, "/family", 0, "7", NULL);
	join(&g, "/family", 0);
	to_users(RIG_DEMO, LIST("7"), "1");
	to_room(RIG_DEMO, "x", "2");
	to_room(RIG_DEMO, "y", "3");
	to_room(RIG_FAMILY, "", "f1");
	to_groups(RIG_DEMO, LIST("red"), "4");
	to_users(RIG_FAMILY, LIST("7"), "f2");
	to_room(RIG_DEMO, "x", "5");
	to_users(RIG_DEMO, LIST("8"), "6");
	to_room(RIG_FAMILY, "", "f3");
	for (const char *const *t = LIST("1", "2", "4", "5"); *t != NULL; t++)
		rig_expect(&r, &a, *t);
	for (const char *const *t = LIST("3", "4", "6"); *t != NULL; t++)
		rig_expect(&r, &b, *t);
	for (const char *const *t = LIST("2", "5"); *t != NULL; t++)
		rig_expect(&r, &c, *t);
	for (const char *const *t = LIST("f1", "f2", "f3"); *t != NULL; t++)
		rig_expect(&r, &f, *t);
	for (const char *const *t = LIST("f1", "f3"); *t != NULL; t++)
		rig_expect(&r, &g, *t);
	rig_expect_nothing(&r, &a);
	rig_expect_nothing(&r, &b);
	rig_expect_nothing(&r, &c);
	rig_expect_nothing(&r, &f);
	rig_expect_nothing(&r, &g);
	assert_int_equal(RIG_NS(&r, RIG_DEMO, deliveries), 9);
	assert_int_equal(RIG_NS(&r, RIG_FAMILY, deliveries), 5);
	end();
}

/* More links than a batch keeps: it ends, and the next goes on. */
static void long_lists_end_the_batch(void **state)
{
	enum { N = 40, RECORDS = 600 };
	static struct rig_client c[N];

	(void)state;
	begin();
	for (int i = 0; i < N; i++)
		join_as(&c[i], i % 2 == 0 ? "/ws/x" : "/ws/y", 1 << 20, "7", NULL);
	for (int i = 0; i < RECORDS; i++) {
		char text[16];

		snprintf(text, sizeof(text), "%d", i);
		if (i % 3 == 0)
			to_room(RIG_DEMO, "x", text);
		else
			to_users(RIG_DEMO, LIST("7"), text);
	}
	rig_settle(&r);
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < RECORDS; k++) {
			char text[16];

			snprintf(text, sizeof(text), "%d", k);
			if (k % 3 != 0 || i % 2 == 0)
				rig_expect(&r, &c[i], text);
		}
		rig_expect_nothing(&r, &c[i]);
	}
	end();
}

static char large[60000];

/* Text that begins with `id` and is `len` long. */
static const char *text_of(const char *id, size_t len)
{
	static char text[sizeof(large) + 1];

	memset(text, '.', len);
	memcpy(text, id, strlen(id));
	text[len] = '\0';
	return text;
}

/* ---- how many it reaches */

static struct up_matched matched;
static unsigned n_matched;

static void on_matched(struct rig *rig, const struct up_view *v)
{
	(void)rig;
	if (v->h.type != UP_MATCHED)
		return;
	assert_int_equal(v->h.total, 0x55667788);
	assert_true(v->payload.len >= 16 && v->payload.len <= sizeof(matched));
	memcpy(&matched, v->payload.p, v->payload.len);
	assert_int_equal(v->payload.len, 16 + 8 * matched.n);
	for (uint64_t i = 1; i < matched.n; i++)
		assert_true(matched.user_hash[i - 1] < matched.user_hash[i]);
	n_matched++;
}

static void publish_counted(unsigned ns, const char *room, const char *const *users,
			    const char *const *groups)
{
	n_matched = 0;
	matched = (struct up_matched){0};
	if (room != NULL)
		rig_publish_counted(&r, rig_channel(&r, ns, room), "?", 1, UINT64_C(0x1122334455667788));
	else
		rig_publish_to(&r, ns, WS_TEXT, users, groups, "?", 1, UINT64_C(0x1122334455667788));
	rig_settle(&r);
	assert_int_equal(n_matched, 1);
}

static void publishers_learn_how_many(void **state)
{
	enum { N = 800 };
	static struct rig_client many[N];
	static char ids[N][16];
	static uint64_t hashes[N];
	struct rig_client a, b, c, d;

	(void)state;
	begin();
	r.on_control = on_matched;
	publish_counted(RIG_DEMO, "nobody", NULL, NULL);
	assert_int_equal(matched.sockets, 0);
	join_as(&a, "/ws/x", 4096, "7", LIST("red"));
	join_as(&b, "/ws/x", 0, "7", NULL);
	join_as(&c, "/ws/y", 0, "8", LIST("red"));
	join(&d, "/ws/x", 0);
	user_change_group(r.w, SLICE("red"), &SLICE("7"), 1, NULL, 0);
	publish_counted(RIG_DEMO, "x", NULL, NULL);
	assert_int_equal(matched.sockets, 3);
	assert_int_equal(matched.n, 1);
	assert_int_equal(matched.user_hash[0], rec_cluster_hash(SLICE("demo"), SLICE("7")));
	to_room(RIG_DEMO, "x", text_of("1", 30000)); /* `a` is behind now: it will get it */
	rig_settle(&r);
	publish_counted(RIG_DEMO, NULL, LIST("8", "12"), LIST("red"));
	assert_int_equal(matched.sockets, 3);
	assert_int_equal(matched.n, 2);
	publish_counted(RIG_DEMO, NULL, LIST("12"), NULL);
	assert_int_equal(matched.sockets, 0);
	assert_int_equal(matched.n, 0);
	/* Of many users the smallest hashes go up. */
	for (int i = 0; i < N; i++) {
		snprintf(ids[i], sizeof(ids[i]), "u%d", i);
		rig_connect_as(&r, &many[i], "/ws/z", 0, ids[i], NULL);
		hashes[i] = rec_cluster_hash(SLICE("demo"), SLICE(ids[i]));
	}
	publish_counted(RIG_DEMO, "z", NULL, NULL);
	assert_int_equal(matched.sockets, N);
	assert_int_equal(matched.n, UP_MATCHED_MAX);
	for (int i = 0; i < N; i++) {
		uint64_t below = 0;

		for (int k = 0; k < N; k++)
			below += hashes[k] < hashes[i];
		if (below < UP_MATCHED_MAX)
			assert_int_equal(matched.user_hash[below], hashes[i]);
		rig_hang_up(&many[i]);
	}
	end();
}

/* ---- behind */

static void expect_texts(struct rig_client *c, const char *const *ids)
{
	struct rig_frame f;

	for (; *ids != NULL; ids++) {
		int turns = 0;

		while (!rig_frame(c, &f)) {
			rig_read(c, 0);
			rig_turn(&r);
			assert_true(turns++ < RIG_TURNS);
		}
		if (strncmp((const char *)f.payload, *ids, strlen(*ids)) != 0 ||
		    f.payload[strlen(*ids)] != '.')
			fail_msg("\"%.10s\" came, \"%s\" was expected", (const char *)f.payload, *ids);
	}
	rig_settle(&r);
	rig_read(c, 0);
	assert_int_equal(rig_rest(c), 0);
	assert_false(c->is_eof);
}

/* Both chains are followed in their common order, with the identity and groups of then. */
static void catch_up_merges_both_chains(void **state)
{
	struct rig_client a;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 4096, "7", LIST("red"));
	to_room(RIG_DEMO, "x", text_of("1", 20000)); /* more than the socket takes */
	rig_settle(&r);
	assert_true((rig_conn(&r, &a)->flags & CONN_BEHIND) != 0);
	to_users(RIG_DEMO, LIST("8"), text_of("-", 100));
	to_users(RIG_DEMO, LIST("7"), text_of("2", 100));
	to_room(RIG_DEMO, "y", text_of("-", 100));
	to_room(RIG_DEMO, "x", text_of("3", 100));
	rig_settle(&r);
	to_groups(RIG_DEMO, LIST("red"), text_of("4", 9000));
	to_groups(RIG_DEMO, LIST("blue"), text_of("-", 100));
	to_room(RIG_DEMO, "x", text_of("5", 100));
	to_users(RIG_DEMO, LIST("8"), text_of("-", 100));
	to_users(RIG_DEMO, LIST("7"), text_of("6", 100));
	to_users(RIG_DEMO, LIST("8"), text_of("-", 100));
	rig_settle(&r);
	rig_check(&r);
	expect_texts(&a, LIST("1", "2", "3", "4", "5", "6"));
	assert_null(rig_conn(&r, &a)->ext);
	rig_check(&r);
	end();
}

static void catch_up_filters_one_chain(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	join_as(&a, "/family", 4096, "7", LIST("red"));
	join(&b, "/family", 4096);
	to_users(RIG_FAMILY, LIST("7"), text_of("1", 20000));
	to_room(RIG_FAMILY, "", text_of("2", 20000));
	to_users(RIG_FAMILY, LIST("8"), text_of("-", 100));
	to_users(RIG_FAMILY, LIST("7"), text_of("3", 100));
	rig_settle(&r);
	rig_check(&r);
	to_groups(RIG_FAMILY, LIST("red"), text_of("4", 100));
	to_room(RIG_FAMILY, "", text_of("5", 100));
	to_users(RIG_FAMILY, LIST("8"), text_of("-", 100));
	rig_settle(&r);
	rig_check(&r);
	expect_texts(&a, LIST("1", "2", "3", "4", "5"));
	expect_texts(&b, LIST("2", "5"));
	assert_null(rig_conn(&r, &a)->ext);
	assert_null(rig_conn(&r, &b)->ext);
	end();
}

/* Behind in one chain alone: what comes in the other is found when it comes. */
static void the_other_chain_is_joined_when_something_comes(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 4096, "7", NULL);
	join_as(&b, "/ws/x", 4096, "8", NULL);
	to_room(RIG_DEMO, "x", text_of("0", 100)); /* the chain is older than what it lacks */
	to_users(RIG_DEMO, LIST("7"), text_of("1", 20000));
	to_room(RIG_DEMO, "y", text_of("-", 100));
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &a)->ext->pos, 0);
	assert_int_equal(channel_at(&r.w->channels, rig_conn(&r, &a)->channel)->n_idle, 1);
	to_room(RIG_DEMO, "x", text_of("2", 20000));
	rig_settle(&r);
	assert_int_equal(channel_at(&r.w->channels, rig_conn(&r, &a)->channel)->n_idle, 0);
	to_users(RIG_DEMO, LIST("8", "7"), text_of("3", 100));
	rig_settle(&r);
	rig_check(&r);
	expect_texts(&a, LIST("0", "1", "2", "3"));
	expect_texts(&b, LIST("0", "2", "3"));
	end();
}

/* Who has left a group gets nothing of it any more, also not what was sent before. */
static void groups_of_now_count(void **state)
{
	const struct slice who[] = {SLICE("7")};
	struct rig_client a;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 4096, "7", LIST("red"));
	to_room(RIG_DEMO, "x", text_of("1", 20000));
	to_groups(RIG_DEMO, LIST("red"), text_of("-", 100));
	to_users(RIG_DEMO, LIST("7"), text_of("2", 100));
	rig_settle(&r);
	user_change_group(r.w, SLICE("red"), NULL, 0, who, 1);
	rig_check(&r);
	expect_texts(&a, LIST("1", "2"));
	end();
}

/* Thousands of targets, out of the ring's history: the block is looked at in pieces. */
static void long_blocks_are_read_from_history(void **state)
{
	enum { N = 3000 };
	static char names[N][24];
	static const char *list[N + 1];
	struct rig_client a, b;

	(void)state;
	begin();
	for (int i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "%0*d", 1 + i % 20, i);
		list[i] = names[i];
	}
	list[0] = "zero";
	join_as(&a, "/ws/x", 4096, names[1777], NULL);
	join_as(&b, "/ws/x", 4096, "nobody", NULL);
	to_room(RIG_DEMO, "x", text_of("1", 50000));
	rig_settle(&r);
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, list, NULL, text_of("2", 100), 100, 0);
	rig_publish_to(&r, RIG_DEMO, WS_TEXT, LIST("nobody"), NULL, text_of("3", 100), 100, 0);
	for (int i = 0; i < 6; i++) { /* past a quarter of the ring: the cursor goes on */
		to_room(RIG_DEMO, "y", text_of("-", 60000));
		rig_settle(&r);
	}
	to_room(RIG_DEMO, "x", text_of("4", 100));
	rig_settle(&r);
	assert_true(rig_conn(&r, &a)->ext->direct_pos < slot_cursor(&r.slot));
	expect_texts(&a, LIST("1", "2", "4"));
	expect_texts(&b, LIST("1", "3", "4"));
	end();
}

/* Only what is looked at is bounded: others' records in the way take several turns. */
static void records_for_others_are_passed_in_turns(void **state)
{
	struct rig_client a;

	(void)state;
	begin();
	join_as(&a, "/family", 4096, "7", NULL);
	to_room(RIG_FAMILY, "", text_of("1", 20000));
	for (int i = 0; i < 1000; i++)
		to_users(RIG_FAMILY, LIST("8"), text_of("-", 20));
	to_users(RIG_FAMILY, LIST("7"), text_of("2", 100));
	for (int i = 0; i < 1000; i++)
		to_users(RIG_FAMILY, LIST("8"), text_of("-", 20));
	rig_settle(&r);
	expect_texts(&a, LIST("1", "2"));
	assert_null(rig_conn(&r, &a)->ext);
	end();
}

/* What waited and is skipped is counted, others' records are not. */
static void skipping_counts_what_was_for_it(void **state)
{
	struct rig_client a;

	(void)state;
	rig_init(&r);
	r.config.limits.slow_timeout = 5000;
	start();
	join_as(&a, "/skip/x", 4096, "7", NULL);
	to_room(RIG_SKIP, "x", text_of("1", 20000));
	rig_settle(&r);
	for (int i = 0; i < 10; i++) {
		to_users(RIG_SKIP, LIST("8"), text_of("-", 100));
		to_users(RIG_SKIP, LIST("7"), text_of("-", 100));
		to_room(RIG_SKIP, "x", text_of("-", 100));
	}
	to_room(RIG_SKIP, "x", text_of("2", 100));
	to_users(RIG_SKIP, LIST("7"), text_of("-", 100));
	rig_settle(&r);
	rig_pass(&r, 6000);
	expect_texts(&a, LIST("1", "2"));
	assert_int_equal(count_get(&r.w->count->ns[RIG_SKIP + 3].dropped[COUNT_DROPPED_slow_skip]), 21);
	to_users(RIG_SKIP, LIST("7"), text_of("3", 100));
	rig_settle(&r);
	expect_texts(&a, LIST("3"));
	end();
}

/* Behind with targeted records alone: the room's newest, which it has, does not come again. */
static void skipping_targeted_records_repeats_nothing(void **state)
{
	struct rig_client a;

	(void)state;
	rig_init(&r);
	r.config.limits.slow_timeout = 5000;
	start();
	join_as(&a, "/skip/x", 4096, "7", NULL);
	to_room(RIG_SKIP, "x", text_of("0", 10));
	to_users(RIG_SKIP, LIST("7"), text_of("1", 20000));
	for (int i = 0; i < 5; i++)
		to_users(RIG_SKIP, LIST("7"), text_of("-", 100));
	rig_settle(&r);
	assert_int_equal(rig_conn(&r, &a)->ext->owed, 6);
	rig_pass(&r, 6000);
	expect_texts(&a, LIST("0", "1"));
	assert_int_equal(count_get(&r.w->count->ns[RIG_SKIP + 3].dropped[COUNT_DROPPED_slow_skip]), 5);
	assert_int_equal(rig_conn(&r, &a)->flags & CONN_BEHIND, 0);
	end();
}

/* What it has got in the meantime, of either kind, is not counted. */
static void catching_up_counts_what_it_has_got(void **state)
{
	struct rig_client a;

	(void)state;
	rig_init(&r);
	r.config.limits.slow_timeout = 5000;
	start();
	join_as(&a, "/skip/x", 4096, "7", NULL);
	to_users(RIG_SKIP, LIST("7"), text_of("1", 20000)); /* half-sent */
	for (int i = 0; i < 3; i++) {
		to_users(RIG_SKIP, LIST("7"), text_of("2", 100));
		to_room(RIG_SKIP, "x", text_of("3", 100));
	}
	to_users(RIG_SKIP, LIST("7"), text_of("4", 30000)); /* half-sent again */
	to_room(RIG_SKIP, "x", text_of("-", 100));
	to_users(RIG_SKIP, LIST("7"), text_of("-", 100));
	to_room(RIG_SKIP, "x", text_of("-", 100));
	to_room(RIG_SKIP, "x", text_of("5", 100));
	rig_settle(&r);
	while (rig_conn(&r, &a)->ext->owed > 2) {
		rig_read(&a, 2000);
		rig_turn(&r);
	}
	assert_true(rig_conn(&r, &a)->ext->off > 0);
	rig_pass(&r, 6000);
	expect_texts(&a, LIST("1", "2", "3", "2", "3", "2", "3", "4", "5"));
	assert_int_equal(count_get(&r.w->count->ns[RIG_SKIP + 3].dropped[COUNT_DROPPED_slow_skip]), 3);
	end();
}

static void who_lags_behind_its_targeted_records_is_closed(void **state)
{
	struct rig_client a, b;

	(void)state;
	begin();
	join_as(&a, "/ws/x", 4096, "7", NULL);
	join_as(&b, "/ws/x", 4096, "8", NULL);
	to_users(RIG_DEMO, LIST("7"), text_of("1", 20000));
	for (int i = 0; i < 40; i++) {
		to_room(RIG_DEMO, "y", text_of("-", 60000));
		rig_settle(&r);
	}
	rig_pass(&r, 100);
	rig_settle(&r);
	rig_check(&r);
	assert_int_equal(rig_conn(&r, &a)->state, CONN_CLOSING);
	assert_int_equal(rig_conn(&r, &b)->state, CONN_OPEN);
	end();
}

/* ---- what one costs */

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Nanoseconds of a targeted record for one user among `n` connections, all in one room or each in one of
 * many: the lower quartile of several thousand, each alone in its batch, since the machine does other things,
 * too. */
static uint64_t cost_of(unsigned n, bool is_one_room)
{
	enum { RECORDS = 8000, SOME = 50 };
	static uint64_t spent[RECORDS];
	struct rig_client *c = calloc(n, sizeof(*c));
	char(*ids)[16] = calloc(n, sizeof(*ids));

	assert_non_null(c);
	assert_non_null(ids);
	begin();
	for (unsigned i = 0; i < n; i++) {
		char path[32];

		snprintf(ids[i], sizeof(ids[i]), "%u", i);
		snprintf(path, sizeof(path), "/ws/%u", is_one_room ? 0 : i % 2000);
		rig_connect_as(&r, &c[i], path, 1 << 20, ids[i], NULL);
	}
	for (unsigned k = 0; k < RECORDS; k++) {
		uint64_t before;
		unsigned who = k % SOME * (n / SOME); /* not always the one whose memory is at hand */

		to_users(RIG_DEMO, LIST(ids[who]), "{\"type\":\"mention\"}");
		before = clock_mono_ns();
		(void)worker_records(r.w);
		spent[k] = clock_mono_ns() - before;
		rig_read(&c[who], 0);
		c[who].used = c[who].in.len;
	}
	qsort(spent, RECORDS, sizeof(*spent), by_size);
	for (unsigned i = 0; i < n; i++)
		rig_hang_up(&c[i]);
	end();
	free(c);
	free(ids);
	return spent[RECORDS / 4];
}

/* Within twice, says the goal; three times here, for a machine that does other things. */
static void cost_is_that_of_the_matches(void **state)
{
	for (int i = 0; i < 2; i++) {
		uint64_t few = cost_of(200, i == 0), many = cost_of(2000, i == 0);

		(void)state;
		print_message("%s: %llu ns of 200, %llu ns of 2000\n", i == 0 ? "one room" : "own rooms",
			      (unsigned long long)few, (unsigned long long)many);
		assert_true(many < 3 * few);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_targets_get_it),
		cmocka_unit_test(each_socket_gets_it_once),
		cmocka_unit_test(order_is_that_of_the_ring),
		cmocka_unit_test(long_lists_end_the_batch),
		cmocka_unit_test(publishers_learn_how_many),
		cmocka_unit_test(catch_up_merges_both_chains),
		cmocka_unit_test(catch_up_filters_one_chain),
		cmocka_unit_test(the_other_chain_is_joined_when_something_comes),
		cmocka_unit_test(groups_of_now_count),
		cmocka_unit_test(long_blocks_are_read_from_history),
		cmocka_unit_test(records_for_others_are_passed_in_turns),
		cmocka_unit_test(skipping_counts_what_was_for_it),
		cmocka_unit_test(skipping_targeted_records_repeats_nothing),
		cmocka_unit_test(catching_up_counts_what_it_has_got),
		cmocka_unit_test(who_lags_behind_its_targeted_records_is_closed),
		cmocka_unit_test(cost_is_that_of_the_matches),
	};

	/* `test_targets N`: measure N connections. */
	if (argc > 1) {
		unsigned n = (unsigned)strtoul(argv[1], NULL, 10);

		printf("%u connections: one room %llu ns, own rooms %llu ns\n", n,
		       (unsigned long long)cost_of(n, true), (unsigned long long)cost_of(n, false));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
