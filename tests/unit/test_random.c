/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Random clients (join, leave, publish, stall, resume, close, hang up) against a simple model that knows what
 * each of them must receive. The seed is printed; `test_random SEED [STEPS]` replays one.
 *
 * The model of a channel is the list of what was committed on it, by number. The model of a client is the
 * number of the next record that it must get: none is lost, repeated or out of order, except that
 *   - on a slow = skip channel numbers may jump forward; all jumps together are what the counter says;
 *   - a connection may end with 1013, or by a reset, only if its client had stopped reading.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

#define CLIENTS     40
#define ROOMS       4
#define LOG_MAX     60000 /* records of one channel */
#define PAYLOAD_MAX 300000

enum want { ABSENT, JOINING, READING, STALLED, CLOSING };

struct model {
	struct rig_client c;
	enum want state;
	struct rig_channel *ch;
	uint64_t joined_at;  /* the channel's number when the request went out */
	uint64_t next;       /* number of the next record; 0 = the first one decides */
	bool has_stalled;    /* ever: it stopped reading, or may come to be a quarter of the ring behind */
	uint64_t closed_ms;  /* when it sent its Close */
	bool is_half_closed; /* its Close is sent */
	bool is_told_to_go;  /* the worker closes it with 1001 */
	uint64_t last_own;   /* the id of the last message that it sent, until it has come back */
	unsigned pings;
};

struct record_log {
	uint64_t *id;  /* by number - 1 */
	uint64_t *pos; /* where it was about to be committed */
	uint32_t *len;
	uint64_t n;
};

static struct rig r;
static struct model m[CLIENTS];
static struct record_log logs[RIG_NAMESPACES * ROOMS * 64];
static uint64_t seed, next_id, skipped, closed_1013;
static unsigned long steps = 6000;
static bool is_memory_short; /* half of the seeds: whoever is inside a copied frame may be reset */
static uint8_t payload[PAYLOAD_MAX];

static uint32_t random_below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 11) % n);
}

/* ---- payloads: a number that is unique in the run, then bytes that follow from it */

static size_t make_payload(uint64_t id, size_t len)
{
	if (len < 8)
		len = 8;
	memcpy(payload, &id, 8);
	for (size_t i = 8; i < len; i++)
		payload[i] = (uint8_t)(id * 31 + i * 7 + (i >> 8));
	return len;
}

static uint64_t check_payload(const struct rig_frame *f)
{
	uint64_t id;

	assert_int_equal(f->opcode, WS_BINARY);
	assert_true(f->len >= 8);
	memcpy(&id, f->payload, 8);
	make_payload(id, f->len);
	assert_memory_equal(f->payload, payload, f->len);
	return id;
}

static size_t random_len(void)
{
	switch (random_below(40)) {
	case 0:
		return random_below(PAYLOAD_MAX);
	case 1:
	case 2:
		return random_below(70000);
	case 3:
	case 4:
	case 5:
	case 6:
		return random_below(5000);
	default:
		return random_below(200);
	}
}

static struct record_log *log_of(const struct rig_channel *ch)
{
	size_t i = (size_t)(ch - r.channels);

	assert_true(i < ARRAY_LEN(logs));
	return &logs[i];
}

/* Before each commit: who may be too slow, although it reads whenever it is its turn? */
static void note_slow(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		const struct conn *c = m[i].state == ABSENT ? NULL : rig_conn(&r, &m[i].c);

		if (c != NULL && (c->flags & CONN_BEHIND) != 0 &&
		    r.ring.head + PAYLOAD_MAX + 1000 - c->ext->pos > r.ring.size / 4)
			m[i].has_stalled = true;
	}
}

/* The record is about to be committed as number ch->seq + 1. */
static void log_record(struct rig *rig, struct rig_channel *ch, uint8_t opcode, struct slice p)
{
	struct record_log *l = log_of(ch);

	(void)rig;
	note_slow();
	assert_int_equal(opcode, WS_BINARY);
	assert_true(l->n == ch->seq);
	assert_true(l->n < LOG_MAX);
	if (l->id == NULL) {
		l->id = malloc(LOG_MAX * sizeof(*l->id));
		l->pos = malloc(LOG_MAX * sizeof(*l->pos));
		l->len = malloc(LOG_MAX * sizeof(*l->len));
		assert_non_null(l->id);
		assert_non_null(l->pos);
		assert_non_null(l->len);
	}
	memcpy(&l->id[l->n], p.p, 8);
	l->pos[l->n] = r.ring.head;
	l->len[l->n++] = (uint32_t)p.len;
}

/* ---- what a client got */

static void got_record(struct model *c, const struct rig_frame *f)
{
	const struct record_log *l = log_of(c->ch);
	uint64_t id = check_payload(f), n;

	if (c->next == 0) {
		/* The membership begins somewhere between the request and the 101. */
		n = c->joined_at;
		while (n < l->n && l->id[n] != id)
			n++;
	} else {
		n = c->next - 1;
		if (c->ch->ns == RIG_SKIP && c->has_stalled) {
			while (n < l->n && l->id[n] != id)
				n++;
			skipped += n - (c->next - 1);
		}
	}
	if (n >= l->n || l->id[n] != id)
		fail_msg("client %td: not the record that it must get next (number %llu)", c - m,
			 (unsigned long long)c->next);
	assert_int_equal(l->len[n], f->len);
	c->next = n + 2;
	if (id == c->last_own)
		c->last_own = 0;
}

static void forget(struct model *c)
{
	rig_hang_up(&c->c);
	memset(c, 0, sizeof(*c));
	c->c.fd = -1;
}

/* Take what has come apart. */
static void look_at_input(struct model *c)
{
	struct rig_frame f;

	if (c->state == JOINING) {
		if (!rig_take_101(&c->c))
			return;
		c->state = READING;
	}
	while (c->c.close_code == 0 && rig_frame(&c->c, &f)) {
		if (f.opcode == WS_PONG) {
			assert_true(c->pings > 0);
			c->pings--;
		} else if (f.opcode == WS_CLOSE) {
			if (c->c.close_code == 1013) {
				assert_true(c->has_stalled);
				closed_1013++;
			} else if (c->c.close_code == 1001) {
				assert_true(c->is_told_to_go);
			} else {
				assert_true(c->is_half_closed);
				assert_int_equal(c->c.close_code, 1000);
				/* Its own messages came first, if it read on. */
				assert_true(c->has_stalled || c->last_own == 0 ||
					    r.now_ms - c->closed_ms >= 500);
			}
		} else {
			got_record(c, &f);
		}
	}
}

static void read_client(struct model *c, size_t max)
{
	rig_read(&c->c, max);
	look_at_input(c);
	if (!c->c.is_eof && !c->c.is_reset)
		return;
	/* A connection that ends without a Close was reset, because its client did not read. */
	assert_true(c->c.close_code != 0 || c->has_stalled || c->is_told_to_go || is_memory_short);
	forget(c);
}

static void readers_read(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		if (m[i].state == READING || m[i].state == JOINING)
			read_client(&m[i], 0);
	}
}

/* ---- what may happen */

/* Number of the channel's last record that the worker has handled: who joins now gets what follows. */
static uint64_t handled(const struct rig_channel *ch)
{
	const struct record_log *l = log_of(ch);
	uint64_t n = l->n;

	while (n > 0 && l->pos[n - 1] >= r.w->fanout.done)
		n--;
	return n;
}

static void join(struct model *c)
{
	static const char *const prefixes[] = {"/ws/", "/skip/", "/echo", "/family"};
	static const unsigned spaces[] = {RIG_DEMO, RIG_SKIP, RIG_ECHO, RIG_FAMILY};
	unsigned kind = random_below(8), room = random_below(ROOMS);
	char path[40];

	kind = kind < 4 ? 0 : kind < 6 ? 1 : kind - 4; /* mostly rooms */
	rig_dial(&r, &c->c, random_below(2) != 0 ? 4096 : 65536);
	if (spaces[kind] == RIG_ECHO || spaces[kind] == RIG_FAMILY)
		snprintf(path, sizeof(path), "%s", prefixes[kind]);
	else
		snprintf(path, sizeof(path), "%sroom%u", prefixes[kind], room);
	if (spaces[kind] == RIG_ECHO) {
		char id[CONN_ID_SIZE];

		conn_id(r.w, rig_conn(&r, &c->c), id);
		c->ch = rig_channel(&r, RIG_ECHO, id);
	} else {
		snprintf(path + 30, 10, "room%u", room);
		c->ch = rig_channel(&r, spaces[kind], spaces[kind] == RIG_FAMILY ? "" : path + 30);
	}
	c->joined_at = handled(c->ch);
	c->state = JOINING;
	rig_request(&c->c, path);
}

/* It may send: the worker has it open and reads it. */
static bool is_open(const struct model *c)
{
	const struct conn *conn;

	if (c->state == ABSENT || c->state == JOINING || c->is_half_closed || c->c.close_code != 0)
		return false;
	conn = rig_conn(&r, &c->c);
	return conn != NULL && conn->state == CONN_OPEN && (conn->flags & CONN_PAUSED) == 0;
}

static void client_publishes(struct model *c)
{
	size_t len = random_len();

	if (!is_open(c))
		return;
	len = make_payload(++next_id, len);
	c->last_own = next_id;
	rig_send(&c->c, WS_BINARY, payload, len);
}

static void master_publishes(void)
{
	struct rig_channel *ch = &r.channels[random_below((uint32_t)r.n_channels)];
	unsigned n = 1 + random_below(8);

	for (unsigned i = 0; i < n; i++) {
		size_t len = make_payload(++next_id, random_len());

		if (!rig_has_space(&r, ch->room_len, len))
			return;
		log_record(&r, ch, WS_BINARY, (struct slice){(char *)payload, len});
		rig_publish_binary(&r, ch, payload, len);
	}
}

/* As a drain does, at any moment: paused, behind, in the middle of a frame, while its Close waits. */
static void worker_closes(struct model *c)
{
	struct conn *conn = c->state == ABSENT || c->state == JOINING ? NULL : rig_conn(&r, &c->c);

	if (conn == NULL || conn->state != CONN_OPEN)
		return;
	c->is_told_to_go = true;
	conn_close(r.w, conn, 1001, "going");
}

static void step(void)
{
	struct model *c = &m[random_below(CLIENTS)];

	switch (random_below(20)) {
	case 0:
	case 1:
	case 2:
		if (c->state == ABSENT)
			join(c);
		break;
	case 3:
		if (c->state == READING) {
			c->state = STALLED;
			c->has_stalled = true;
		}
		break;
	case 4:
	case 5:
		if (c->state == STALLED)
			c->state = READING;
		break;
	case 6:
		if (c->state == STALLED) /* sips */
			read_client(c, 1 + random_below(20000));
		break;
	case 7:
		if (c->state != ABSENT && random_below(4) == 0)
			forget(c);
		if (random_below(4) == 0)
			worker_closes(c);
		break;
	case 8:
		if (is_open(c) && random_below(3) == 0) {
			c->is_half_closed = true;
			c->closed_ms = r.now_ms;
			rig_send_close(&c->c, 1000);
		}
		break;
	case 9:
		if (is_open(c)) {
			c->pings++;
			rig_send(&c->c, WS_PING, "?", 1);
		}
		break;
	case 10:
		for (unsigned n = random_below(15); n > 0; n--) {
			rig_pass(&r, 100);
			readers_read();
		}
		break;
	case 11:
		r.hold_data = random_below(3) == 0;
		break;
	case 12:
		r.hold_control = random_below(4) == 0;
		break;
	case 13:
	case 14:
	case 15:
		client_publishes(c);
		break;
	default:
		if (r.n_channels > 0)
			master_publishes();
		break;
	}
}

/* Everybody reads; then each client that is still there has got its channel's last record. */
static void finish(void)
{
	bool any = true;

	r.hold_data = r.hold_control = false;
	for (int turns = 0; any; turns++) {
		assert_true(turns < RIG_TURNS);
		rig_settle(&r);
		any = false;
		for (int i = 0; i < CLIENTS; i++) {
			size_t before = m[i].c.in.len - m[i].c.used;

			if (m[i].state == ABSENT)
				continue;
			if (m[i].state == STALLED)
				m[i].state = READING;
			read_client(&m[i], 0);
			if (m[i].state != ABSENT)
				any |= m[i].c.used > 0 || rig_rest(&m[i].c) != before;
		}
	}
	rig_check(&r);
	for (int i = 0; i < CLIENTS; i++) {
		struct model *c = &m[i];

		if (c->state == ABSENT || c->c.close_code != 0 || c->is_half_closed || c->is_told_to_go)
			continue;
		assert_int_not_equal(c->state, JOINING);
		assert_int_equal(rig_rest(&c->c), 0);
		if (c->next == 0)
			continue;
		if (c->ch->ns == RIG_SKIP && c->has_stalled)
			skipped += c->ch->seq - (c->next - 1);
		else
			assert_int_equal(c->next, c->ch->seq + 1);
		assert_null(rig_conn(&r, &c->c)->ext);
	}
}

static void random_clients(void **state)
{
	uint64_t counted;

	(void)state;
	print_message("seed %llu, %lu steps\n", (unsigned long long)seed, steps);
	rig_init(&r);
	r.config.ring.size = 2u << 20;
	r.config.limits.slow_timeout = 5000;
	is_memory_short = seed % 2 == 0;
	if (is_memory_short)
		r.config.limits.slow_memory = 500000;
	r.on_publish = log_record;
	rig_start(&r);
	for (int i = 0; i < CLIENTS; i++)
		m[i].c.fd = -1;
	for (unsigned long i = 0; i < steps; i++) {
		step();
		if (random_below(3) != 0)
			rig_turn(&r);
		if (random_below(3) != 0)
			readers_read();
		if (i % 64 == 0) {
			rig_settle(&r);
			rig_check(&r);
		}
	}
	finish();
	counted = count_get(&r.w->count->ns[RIG_SKIP + 3].dropped[COUNT_DROPPED_slow_skip]);
	print_message("%llu messages, %llu closed as slow, %llu skipped, %llu copies, %llu catch-up reads\n",
		      (unsigned long long)next_id, (unsigned long long)closed_1013,
		      (unsigned long long)counted, (unsigned long long)RIG_COUNT(&r, slow_copies),
		      (unsigned long long)RIG_COUNT(&r, catchup_reads));
	/* Those that left while they missed something are in the counter only. */
	assert_true(skipped <= counted);
	for (int i = 0; i < CLIENTS; i++) {
		if (m[i].state != ABSENT)
			forget(&m[i]);
	}
	rig_settle(&r);
	rig_pass(&r, 7000);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(r.w->channels.n, 0);
	assert_int_equal(ws_pool_memory(r.w->ws_pool), 0);
	assert_int_equal(ws_pool_borrowed(r.w->ws_pool), 0);
	rig_check(&r);
	rig_stop(&r);
	for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
		free(logs[i].id);
		free(logs[i].pos);
		free(logs[i].len);
		logs[i] = (struct record_log){0};
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_clients),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	if (argc > 2)
		steps = strtoul(argv[2], NULL, 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
