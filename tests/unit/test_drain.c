/* LINK: master/drain.c master/throttle.c master/retained.c master/sequencer.c master/seq_json.c master/seq_drop.c
 * master/interest.c shm/ring.c shm/record.c shm/slot.c shm/seg.c shm/uplink.c shm/counters.c
 * Uplinks to actions: what workers push, honest and not. Relay and supervision are played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/wsframe.h"
#include "master/admit.h"
#include "master/ask.h"
#include "master/delivered.h"
#include "master/drain.h"
#include "master/presence.h"
#include "master/reached.h"
#include "master/relay.h"
#include "master/subscribe.h"
#include "master/supervise.h"
#include "master/survey.h"
#include "shm/uplink.h"

#define UPLINK (UINT64_C(256) << 10)
#define RING   (UINT64_C(1) << 20) /* only its size matters here: the budget of unfinished messages */
#define NS     1

/* ---- what the others were asked for */

static struct {
	unsigned published, refused, added, dropped, hello, killed, buried, asked, limits;
	bool is_full;       /* relay_publish() takes nothing */
	uint64_t max;       /* relay_refuses_size() */
	uint64_t len, sum;  /* of the last message */
	uint32_t sockets, told;
	bool is_last;
	uint8_t source[64]; /* order of publishers: their slots */
	char room[CFG_ROOM_MAX + 1];
	struct relay_message last;
	struct ask_question question;
} seen;

static uint64_t sum_of(const char *p, size_t len)
{
	uint64_t s = 1469598103934665603u;

	for (size_t i = 0; i < len; i++)
		s = (s ^ (uint8_t)p[i]) * 1099511628211u;
	return s;
}

void subscribe_add(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	(void)m;
	(void)c;
	(void)ns;
	memcpy(seen.room, room.p, room.len);
	seen.room[room.len] = '\0';
	seen.added++;
}

void subscribe_drop(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room)
{
	(void)m;
	(void)c;
	(void)ns;
	(void)room;
	seen.dropped++;
}

bool relay_publish(struct master *m, struct child *c, const struct relay_message *msg)
{
	(void)m;
	if (seen.is_full)
		return false;
	seen.source[seen.published++ % sizeof(seen.source)] = (uint8_t)c->slot;
	seen.last = *msg;
	seen.len = msg->payload.len;
	seen.sum = sum_of(msg->payload.p, msg->payload.len);
	return true;
}

bool relay_refuses_size(struct master *m, struct child *c, const struct relay_message *msg, uint64_t total)
{
	(void)m;
	(void)c;
	(void)msg;
	if (total <= seen.max)
		return false;
	seen.refused++;
	return true;
}

void relay_refuse(struct master *m, struct child *c, const struct relay_message *msg, enum rec_answer why)
{
	(void)m;
	(void)c;
	(void)msg;
	(void)why;
	seen.refused++;
}

bool presence_told(struct master *master, struct child *c, const struct cfg_namespace *of, struct slice room,
		   struct slice user, uint32_t sockets)
{
	(void)master;
	(void)c;
	assert_int_equal(of->id, NS);
	memcpy(seen.room, room.p, room.len);
	seen.room[room.len] = '\0';
	seen.len = user.len;
	seen.sum = sum_of(user.p, user.len);
	seen.sockets = sockets;
	return user.len > 0;
}

bool reached_told(struct master *master, const struct child *c, uint32_t number, struct slice payload)
{
	(void)master;
	seen.told = number;
	seen.source[0] = (uint8_t)c->slot;
	seen.sum = sum_of(payload.p, payload.len);
	return payload.len > 0;
}

void delivered_matched(struct master *master, uint32_t number, struct slice payload)
{
	(void)master;
	assert_int_equal(number, seen.told);
	assert_int_equal(sum_of(payload.p, payload.len), seen.sum);
}

bool delivered_track(struct master *master, const struct child *c, uint16_t ns_id, uint32_t request,
		     struct slice id)
{
	(void)master;
	assert_int_equal(ns_id, NS);
	seen.source[0] = (uint8_t)c->slot;
	seen.told = request;
	seen.sum = sum_of(id.p, id.len);
	return id.len > 0;
}

bool delivered_told(struct master *master, uint32_t number, struct slice payload)
{
	(void)master;
	seen.told = number;
	seen.sum = sum_of(payload.p, payload.len);
	return payload.len > 0;
}

void survey_told(struct master *master, const struct child *c, uint32_t number, bool has_more, struct slice payload)
{
	(void)master;
	seen.told = number;
	seen.is_last = !has_more;
	seen.source[0] = (uint8_t)c->slot;
	seen.sum = sum_of(payload.p, payload.len);
}

bool admit_told(struct master *master, struct child *c, const struct up_view *v)
{
	(void)master;
	(void)c;
	seen.limits++;
	seen.sum = sum_of(v->payload.p, v->payload.len);
	return v->h.opcode == UP_LIMIT_USER;
}

bool ask_take(struct master *master, const struct ask_question *q)
{
	(void)master;
	if (q->what != UP_ASK_INFO)
		return false;
	seen.asked++;
	seen.question = *q;
	seen.len = q->payload.len;
	seen.sum = sum_of(q->payload.p, q->payload.len);
	return true;
}

void supervise_hello(struct master *m, struct child *c)
{
	(void)m;
	(void)c;
	seen.hello++;
}

void supervise_kill(struct master *m, struct child *c, enum child_kill why)
{
	(void)m;
	assert_int_equal(why, KILL_BROKEN);
	c->kill = why;
	seen.killed++;
}

void supervise_bury(struct master *m, struct child *c)
{
	if (c->pid == 0 && c->state != WORKER_EMPTY && drain_remains(m, c))
		seen.buried++;
}

/* ---- the rig */

static struct master m;
static struct cfg_namespace ns = {.id = NS, .room = CFG_ROOM_PATH};
static struct ring_hdr ring_hdr;
static struct counters counts;
static struct slot up[3]; /* the workers' views */

static void add_worker(uint16_t slot)
{
	struct child *c = &m.child[slot];
	int id;

	*c = (struct child){.state = WORKER_SERVE, .pid = 1, .slot = slot, .incarnation = slot + 1u};
	c->wake_fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(slot_create(&c->seg, slot, c->incarnation, RING, UPLINK), 0);
	assert_int_equal(slot_attach(&up[slot], dup(c->seg.fd), UPLINK), 0);
	id = seq_reader_add(&m.seq, &c->seg, slot, c->incarnation, c->wake_fd);
	assert_int_not_equal(id, SEQ_NOBODY);
	c->reader = (uint8_t)id;
	c->control_pos = c->seg.control.head;
	c->data_pos = c->seg.data.head;
	m.active[m.n_active++] = slot;
}

static int setup(void **state)
{
	struct ring ring;

	(void)state;
	memset(&m, 0, sizeof(m));
	memset(&seen, 0, sizeof(seen));
	memset(&ring_hdr, 0, sizeof(ring_hdr));
	seen.max = UINT64_MAX;
	ring_init(&ring, &ring_hdr, NULL, RING, RING);
	if (seq_init(&m.seq, &ring, 1, 2, &counts) == -1)
		return -1;
	m.seq.ns[NS] = &ns;
	for (uint16_t i = 0; i < 3; i++)
		add_worker(i);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		drain_forget(&m, &m.child[i]);
		slot_close(&m.child[i].seg);
		slot_close(&up[i]);
		close(m.child[i].wake_fd);
	}
	assert_int_equal(m.assembly_bytes, 0);
	seq_free(&m.seq);
	return 0;
}

static const struct up_rec honest = {
	.type = UP_PUBLISH, .opcode = WS_TEXT, .ns = NS, .source = CFG_SRC_CLIENT};

static bool push(unsigned w, struct up_rec h, const char *p, size_t len)
{
	return uplink_push(&up[w].data, &h,
			   h.type == UP_CHUNK ? (struct slice){0} : (struct slice){"room", 4},
			   (struct slice){p, len}, true);
}

static void publish(unsigned w, const char *p, size_t len)
{
	struct up_rec h = honest;

	h.total = (uint32_t)len;
	assert_true(push(w, h, p, len));
}

static void control(unsigned w, uint8_t type, uint16_t id, const char *room, size_t len)
{
	struct up_rec h = {.type = type, .ns = id};

	assert_true(uplink_push(&up[w].control, &h, (struct slice){room, len}, (struct slice){0}, false));
}

static void drain_all(void)
{
	for (int i = 0; drain_turn(&m); i++)
		assert_true(i < 100000);
}

static char *noise(size_t len)
{
	char *p = malloc(len);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(i * 2654435761u >> 13);
	return p;
}

/* ---- honest ones */

static void test_control_is_taken(void **state)
{
	(void)state;
	control(0, UP_HELLO, 0, NULL, 0);
	control(0, UP_ADD, NS, "lobby", 5);
	control(1, UP_DROP, NS, "lobby", 5);
	control(1, UP_DRAINED, 0, NULL, 0);
	assert_true(drain_has_work(&m));
	(void)drain_turn(&m);
	assert_int_equal(seen.hello, 1);
	assert_int_equal(seen.added, 1);
	assert_string_equal(seen.room, "lobby");
	assert_int_equal(seen.dropped, 1);
	assert_int_equal(seen.killed, 0);
	assert_false(drain_has_work(&m));
	/* What the sequencer looks at: nothing is left. */
	assert_int_equal(m.seq.reader[m.child[0].reader].control_pos, ring_head(&up[0].control));
}

static void test_deliveries_are_taken(void **state)
{
	struct up_rec track = {.type = UP_TRACK, .ns = NS, .request = 5};
	struct up_rec delivered = {.type = UP_DELIVERED, .total = 6};
	struct up_rec h = honest;

	(void)state;
	h.flags = UP_COUNT | UP_TRACKED;
	h.total = 1;
	assert_true(uplink_push(&up[0].control, &track, (struct slice){0}, (struct slice){"m1", 2}, false));
	assert_true(uplink_push(&up[0].data, &h, (struct slice){"r", 1}, (struct slice){"x", 1}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.told, 5);
	assert_int_equal(seen.published, 1);
	assert_true(seen.last.is_tracked);
	assert_true(uplink_push(&up[0].control, &delivered, (struct slice){0}, (struct slice){"m", 1}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.told, 6);
	assert_int_equal(seen.killed, 0);
	assert_true(uplink_push(&up[0].control, &delivered, (struct slice){0}, (struct slice){0}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.killed, 1);
}

static void test_presence_is_taken(void **state)
{
	struct up_rec h = {.type = UP_PRESENCE, .ns = NS, .total = 3};

	(void)state;
	assert_true(uplink_push(&up[0].control, &h, (struct slice){"r", 1}, (struct slice){"user 7", 6}, false));
	(void)drain_turn(&m);
	assert_string_equal(seen.room, "r");
	assert_true(seen.sum == sum_of("user 7", 6));
	assert_int_equal(seen.sockets, 3);
	assert_true(uplink_push(&up[0].control, &h, (struct slice){0}, (struct slice){0}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.killed, 1); /* as presence_told() said */
}

static void test_what_is_told_is_taken(void **state)
{
	struct up_rec h = {.type = UP_TOLD, .request = 12, .opcode = 1};

	(void)state;
	assert_true(uplink_push(&up[2].control, &h, (struct slice){0}, (struct slice){"{\"a\":1}", 7}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.told, 12);
	assert_int_equal(seen.source[0], 2);
	assert_false(seen.is_last);
	assert_true(seen.sum == sum_of("{\"a\":1}", 7));
	h.opcode = 0;
	assert_true(uplink_push(&up[2].control, &h, (struct slice){0}, (struct slice){"{}", 2}, false));
	(void)drain_turn(&m);
	assert_true(seen.is_last);
}

static void test_limits_are_taken(void **state)
{
	struct up_rec h = {.type = UP_ADMIT, .opcode = UP_LIMIT_USER, .total = 3, .request = 1};

	(void)state;
	assert_true(uplink_push(&up[0].control, &h, (struct slice){0}, (struct slice){"7", 1}, false));
	h.type = UP_RELEASE;
	assert_true(uplink_push(&up[0].control, &h, (struct slice){0}, (struct slice){"7", 1}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.limits, 2);
	assert_true(seen.sum == sum_of("7", 1));
	assert_int_equal(seen.killed, 0);
	h.opcode = 77;
	assert_true(uplink_push(&up[0].control, &h, (struct slice){0}, (struct slice){"7", 1}, false));
	(void)drain_turn(&m);
	assert_int_equal(seen.killed, 1); /* as admit_told() said */
}

static void test_interest_goes_before_publications(void **state)
{
	(void)state;
	publish(1, "x", 1);
	control(0, UP_ADD, NS, "r", 1);
	seen.is_full = true;
	(void)drain_turn(&m);
	assert_int_equal(seen.added, 1);
	assert_int_equal(seen.published, 0);
}

static void test_one_publication(void **state)
{
	struct up_rec h = honest;

	(void)state;
	h.total = 5;
	h.request = 77;
	h.opcode = WS_BINARY;
	h.source = CFG_SRC_API;
	assert_true(push(0, h, "hello", 5));
	drain_all();
	assert_int_equal(seen.published, 1);
	assert_int_equal(seen.len, 5);
	assert_true(seen.sum == sum_of("hello", 5));
	assert_int_equal(seen.last.request, 77);
	assert_int_equal(seen.last.opcode, WS_BINARY);
	assert_int_equal(seen.last.source, CFG_SRC_API);
	assert_int_equal(seen.last.room.len, 4);
	assert_ptr_equal(seen.last.ns, &ns);
	publish(0, "", 0);
	drain_all();
	assert_int_equal(seen.published, 2);
	assert_int_equal(seen.len, 0);
}

/* The frame of a rule: throttled, unless it says something new; shed where others wait. */
static void test_frames_of_rules(void **state)
{
	struct up_rec h = honest;

	(void)state;
	h.total = 1;
	h.throttle_key = 5;
	h.throttle_ms = 3600000;
	h.throttle_value = 1;
	assert_true(push(0, h, "a", 1));
	drain_all();
	assert_false(seen.last.is_rule);
	h.flags = UP_RULE;
	assert_true(push(0, h, "b", 1));
	assert_true(push(1, h, "b", 1)); /* from wherever */
	drain_all();
	assert_int_equal(seen.published, 1);
	assert_int_equal(count_get(&counts.ns[NS].dropped[COUNT_DROPPED_rate]), 2);
	h.throttle_value = 2;
	assert_true(push(0, h, "c", 1));
	drain_all();
	assert_int_equal(seen.published, 2);
	assert_true(seen.last.is_rule);
	seen.is_full = true;
	h.throttle_value = 3;
	assert_true(push(0, h, "d", 1)); /* waits, and is not too soon for itself then */
	drain_all();
	seen.is_full = false;
	drain_all();
	assert_int_equal(seen.published, 3);
	seen.is_full = true;
	h.throttle_value = 4;
	h.flags = UP_RULE | UP_LOW;
	assert_true(push(0, h, "e", 1));
	drain_all();
	assert_int_equal(seen.refused, 1);
	seen.is_full = false;
	drain_all();
	assert_int_equal(seen.published, 3);
	assert_true(push(0, h, "f", 1)); /* what was shed was not said */
	drain_all();
	assert_int_equal(seen.published, 4);
	throttle_free(&m.throttle);
}

static void test_a_question_between_chunks(void **state)
{
	struct up_rec h = honest, chunk = {.type = UP_CHUNK}, ask = {.type = UP_REQUEST, .opcode = UP_ASK_INFO};
	char *p = noise(UPLINK_CHUNK);

	(void)state;
	h.total = UPLINK_CHUNK + 1;
	assert_true(push(0, h, p, UPLINK_CHUNK));
	ask.request = 4711;
	ask.ns = 9;
	assert_true(push(0, ask, p, UPLINK_CHUNK));
	drain_all();
	assert_int_equal(seen.asked, 1);
	assert_int_equal(seen.published, 0);
	assert_int_equal(seen.question.from.request, 4711);
	assert_int_equal(seen.question.from.slot, 0);
	assert_int_equal(seen.question.from.incarnation, 1);
	assert_int_equal(seen.question.ns, 9);
	assert_int_equal(seen.question.room.len, 4);
	assert_int_equal(seen.len, UPLINK_CHUNK);
	assert_true(seen.sum == sum_of(p, UPLINK_CHUNK));
	assert_true(push(0, chunk, p, 1));
	drain_all();
	assert_int_equal(seen.published, 1);
	assert_int_equal(seen.len, UPLINK_CHUNK + 1);
	free(p);
}

static void test_a_full_ring_takes_nothing_and_loses_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		publish(0, "abc", 3);
	seen.is_full = true;
	assert_false(drain_turn(&m));
	assert_int_equal(seen.published, 0);
	m.seq.is_full = true; /* as seq_publish() says it */
	assert_false(drain_has_work(&m));
	m.seq.is_full = seen.is_full = false;
	assert_true(drain_has_work(&m));
	drain_all();
	assert_int_equal(seen.published, 10);
	m.is_redis_full = true;
	publish(0, "abc", 3);
	assert_false(drain_has_work(&m));
	drain_all();
	assert_int_equal(seen.published, 10);
}

static void test_turns_are_shared(void **state)
{
	(void)state;
	for (int i = 0; i < 1000; i++)
		publish(0, "x", 1);
	publish(1, "x", 1);
	publish(2, "x", 1);
	assert_true(drain_turn(&m));
	assert_int_equal(seen.published, DRAIN_TURN_RECORDS + 2);
	drain_all();
	assert_int_equal(seen.published, 1002);
}

static void test_a_starving_worker_is_woken(void **state)
{
	char *p = noise(UPLINK_CHUNK);
	uint64_t n;

	(void)state;
	struct up_rec h = honest;

	h.total = UPLINK_CHUNK;
	while (push(0, h, p, UPLINK_CHUNK)) {
	}
	assert_int_equal(read(m.child[0].wake_fd, &n, sizeof(n)), -1);
	(void)drain_turn(&m);
	assert_int_equal(read(m.child[0].wake_fd, &n, sizeof(n)), sizeof(n));
	free(p);
}

/* ---- large ones */

/* All of a message, the master draining whenever the uplink is full. */
static void publish_large(unsigned w, const char *p, size_t len)
{
	struct up_rec h = honest, chunk = {.type = UP_CHUNK};
	size_t done = UPLINK_CHUNK;

	h.total = (uint32_t)len;
	while (!push(w, h, p, UPLINK_CHUNK))
		(void)drain_turn(&m);
	while (done < len) {
		size_t n = len - done < UPLINK_CHUNK ? len - done : UPLINK_CHUNK;

		while (!push(w, chunk, p + done, n))
			(void)drain_turn(&m);
		done += n;
	}
}

static void test_chunks_are_put_together(void **state)
{
	size_t len = 700001;
	char *p = noise(len);

	(void)state;
	publish_large(0, p, len);
	drain_all();
	assert_int_equal(seen.published, 1);
	assert_int_equal(seen.len, len);
	assert_true(seen.sum == sum_of(p, len));
	assert_true(seen.last.is_private);
	assert_int_equal(m.assembly_bytes, 0);
	publish_large(0, p, UPLINK_CHUNK + 1);
	drain_all();
	assert_int_equal(seen.len, UPLINK_CHUNK + 1);
	free(p);
}

static void test_a_complete_one_waits_in_one_piece(void **state)
{
	char *p = noise(200000);

	(void)state;
	seen.is_full = true;
	publish_large(0, p, 200000);
	publish(0, "next", 4);
	drain_all();
	assert_int_equal(seen.published, 0);
	seen.is_full = false;
	assert_true(drain_has_work(&m));
	drain_all();
	assert_int_equal(seen.published, 2);
	assert_int_equal(seen.len, 4);
	free(p);
}

static void test_a_vanished_publisher_is_forgotten(void **state)
{
	struct up_rec h = honest;
	char *p = noise(UPLINK_CHUNK);

	(void)state;
	h.total = 2 * UPLINK_CHUNK;
	assert_true(push(0, h, p, UPLINK_CHUNK));
	publish(0, "after", 5);
	drain_all();
	assert_int_equal(seen.published, 1);
	assert_int_equal(seen.len, 5);
	assert_int_equal(m.assembly_bytes, 0);
	free(p);
}

static void test_a_refused_one_is_read_past(void **state)
{
	char *p = noise(300000);

	(void)state;
	seen.max = 100000;
	publish_large(0, p, 300000);
	publish(0, "after", 5);
	drain_all();
	assert_int_equal(seen.refused, 1);
	assert_int_equal(seen.published, 1);
	assert_int_equal(seen.len, 5);
	assert_int_equal(seen.killed, 0);
	free(p);
}

/* Two of 700 KB do not fit the budget of 1 MB together; the first never gets its end. */
static void test_the_budget_and_the_abandoned(void **state)
{
	struct up_rec h = honest, chunk = {.type = UP_CHUNK};
	char *p = noise(700000);

	(void)state;
	h.total = 700000;
	assert_true(push(0, h, p, UPLINK_CHUNK));
	drain_all();
	assert_int_equal(m.assembly_bytes, 700000);
	assert_true(push(1, h, p, UPLINK_CHUNK));
	drain_all();
	assert_true(m.child[1].is_blocked);
	assert_false(drain_has_work(&m)); /* or the loop would spin */
	publish(2, "small", 5);
	drain_all();
	assert_int_equal(seen.published, 1); /* others go on */
	drain_tick(&m, 1000);
	drain_tick(&m, 1500);
	assert_int_equal(m.assembly_bytes, 700000);
	drain_tick(&m, 1000 + DRAIN_ABANDONED_MS);
	assert_int_equal(m.assembly_bytes, 0);
	drain_all();
	assert_int_equal(m.assembly_bytes, 700000); /* now the other one's */
	/* And if the rest does come: it is thrown away, and nobody is killed. */
	assert_true(push(0, chunk, p, UPLINK_CHUNK));
	publish(0, "after", 5);
	drain_all();
	assert_int_equal(seen.killed, 0);
	assert_int_equal(seen.published, 2);
	free(p);
}

static void test_last_words(void **state)
{
	char *p = noise(UPLINK_CHUNK);
	struct up_rec h = honest;

	(void)state;
	publish(0, "one", 3);
	publish(0, "two", 3);
	h.total = 2 * UPLINK_CHUNK;
	assert_true(push(0, h, p, UPLINK_CHUNK)); /* killed in the middle of a large one */
	m.child[0].pid = 0;
	seq_reader_remove(&m.seq, m.child[0].reader);
	m.is_redis_full = true;
	assert_false(drain_remains(&m, &m.child[0]));
	m.is_redis_full = false;
	(void)drain_turn(&m);
	assert_int_equal(seen.published, 2);
	assert_int_equal(seen.buried, 1);
	free(p);
}

/* ---- dishonest ones */

static void assert_killed(unsigned w)
{
	drain_all();
	assert_int_equal(seen.killed, 1);
	assert_int_equal(seen.published, 0);
	assert_int_equal(seen.added, 0);
	/* Whatever else it says, nobody listens any more. */
	publish(w, "x", 1);
	control(w, UP_HELLO, 0, NULL, 0);
	assert_false(drain_has_work(&m));
	drain_all();
	assert_int_equal(seen.published + seen.hello, 0);
	assert_int_equal(seen.killed, 1);
}

#define BAD_PUBLISH(name, field, value)                                                                      \
	static void name(void **state)                                                                       \
	{                                                                                                    \
		struct up_rec h = honest;                                                                    \
                                                                                                             \
		(void)state;                                                                                 \
		h.total = 3;                                                                                 \
		h.field = (value);                                                                           \
		assert_true(push(0, h, "abc", 3));                                                           \
		assert_killed(0);                                                                            \
	}

BAD_PUBLISH(test_bad_type, type, 200)
BAD_PUBLISH(test_bad_control_in_data, type, UP_ADD)
BAD_PUBLISH(test_bad_opcode, opcode, WS_CLOSE)
BAD_PUBLISH(test_bad_total, total, 2)
BAD_PUBLISH(test_bad_source, source, CFG_SRC_REDIS)
BAD_PUBLISH(test_bad_namespace, ns, CFG_MAX_NAMESPACES)
BAD_PUBLISH(test_bad_namespace_far, ns, UINT16_MAX)
BAD_PUBLISH(test_bad_namespace_unused, ns, NS + 1)

BAD_PUBLISH(test_bad_question, type, UP_REQUEST)

static void test_bad_room(void **state)
{
	struct up_rec h = honest;

	(void)state;
	assert_true(uplink_push(&up[0].data, &h, (struct slice){"a/b", 3}, (struct slice){0}, false));
	assert_killed(0);
}

static void test_bad_control_room(void **state)
{
	(void)state;
	control(1, UP_ADD, NS, "a\nb", 3);
	assert_killed(1);
}

/* A reload may have given the namespace rooms while the old workers still say goodbye. */
static void test_interest_of_the_other_kind_is_no_crime(void **state)
{
	(void)state;
	control(1, UP_ADD, NS, NULL, 0);
	control(1, UP_DROP, NS, NULL, 0);
	drain_all();
	assert_int_equal(seen.added + seen.dropped, 2);
	assert_int_equal(seen.killed, 0);
}

static void test_bad_data_in_control(void **state)
{
	(void)state;
	control(1, UP_PUBLISH, NS, "r", 1);
	assert_killed(1);
}

static void test_bad_oversized_part(void **state)
{
	char *p = noise(UPLINK_CHUNK + 16);
	struct up_rec h = honest;

	(void)state;
	h.total = UPLINK_CHUNK + 16;
	assert_true(push(0, h, p, UPLINK_CHUNK + 16));
	assert_killed(0);
	free(p);
}

static void test_bad_chunk_beyond_the_total(void **state)
{
	char *p = noise(UPLINK_CHUNK);
	struct up_rec h = honest, chunk = {.type = UP_CHUNK};

	(void)state;
	h.total = UPLINK_CHUNK + 10;
	assert_true(push(0, h, p, UPLINK_CHUNK));
	assert_true(push(0, chunk, p, 11));
	assert_killed(0);
	free(p);
}

static void test_bad_head(void **state)
{
	(void)state;
	atomic_store(&up[0].sh->data.head, up[0].data.head + 2 * UPLINK);
	assert_killed(0);
}

/* Anything at all in the shared bytes: the worker may be killed, the master must not mind. */
static void test_noise(void **state)
{
	uint64_t seed = 88172645463325252u;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct child *c = &m.child[0];
		uint64_t len = 16 * (1 + seed % 400);
		uint8_t *at = up[0].data.data + (c->data_pos & (UPLINK - 1));

		for (uint64_t i = 0; i < len; i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			/* Small numbers are likelier to pass for something. */
			at[i] = (uint8_t)(seed % 3 != 0 ? seed >> 32 & 7 : seed >> 32);
		}
		atomic_store(&up[0].sh->data.head, c->data_pos + len);
		(void)drain_turn(&m);
		if (c->kill != KILL_NONE) {
			drain_forget(&m, c);
			c->kill = KILL_NONE;
			c->data_pos += len;
			atomic_store(&up[0].sh->data.head, c->data_pos);
		}
		assert_true(m.assembly_bytes <= RING || m.assembly_bytes == c->assembly.total);
	}
	assert_true(seen.killed > 100);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_control_is_taken),
		TEST(test_deliveries_are_taken),
		TEST(test_presence_is_taken),
		TEST(test_what_is_told_is_taken),
		TEST(test_limits_are_taken),
		TEST(test_interest_goes_before_publications),
		TEST(test_one_publication),
		TEST(test_frames_of_rules),
		TEST(test_a_question_between_chunks),
		TEST(test_a_full_ring_takes_nothing_and_loses_nothing),
		TEST(test_turns_are_shared),
		TEST(test_a_starving_worker_is_woken),
		TEST(test_chunks_are_put_together),
		TEST(test_a_complete_one_waits_in_one_piece),
		TEST(test_a_vanished_publisher_is_forgotten),
		TEST(test_a_refused_one_is_read_past),
		TEST(test_the_budget_and_the_abandoned),
		TEST(test_last_words),
		TEST(test_bad_type),
		TEST(test_bad_control_in_data),
		TEST(test_bad_opcode),
		TEST(test_bad_total),
		TEST(test_bad_source),
		TEST(test_bad_namespace),
		TEST(test_bad_namespace_far),
		TEST(test_bad_namespace_unused),
		TEST(test_bad_question),
		TEST(test_bad_room),
		TEST(test_bad_control_room),
		TEST(test_interest_of_the_other_kind_is_no_crime),
		TEST(test_bad_data_in_control),
		TEST(test_bad_oversized_part),
		TEST(test_bad_chunk_beyond_the_total),
		TEST(test_bad_head),
		TEST(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
