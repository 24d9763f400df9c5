/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Random clients (join, leave, publish, stall, resume, close, hang up), some of them known users with groups
 * that change, and records for rooms, users and groups, against a simple model that knows what each of them
 * must receive. The seed is printed; `test_random SEED [STEPS]` replays one.
 *
 * The model of a namespace is the list of what was committed in it, in order, with who must get it and who
 * may. The model of a client is its place in that list: of what must come to it nothing is lost, nothing
 * comes twice, to somebody else, or out of order, except that
 *   - in a slow = skip namespace it may be passed over; all that was is no more than what the counter says;
 *   - a connection may end with 1013, or by a reset, only if its client had stopped reading;
 *   - what is for a group that the user enters or leaves while it is under way may come or not.
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
#define USERS       6
#define GROUPS      4
#define LOG_MAX     120000 /* records of one namespace */
#define PAYLOAD_MAX 300000

enum want { ABSENT, JOINING, READING, STALLED, CLOSING };

struct model {
	struct rig_client c;
	enum want state;
	struct rig_channel *ch;
	int user;           /* -1: anonymous */
	uint64_t joined_at; /* place in the list when the request went out */
	uint64_t next;      /* where it goes on; meaningful with has_begun, else the first record decides */
	bool has_begun;
	bool has_stalled;    /* ever: it stopped reading, or may come to be a quarter of the ring behind */
	uint64_t closed_ms;  /* when it sent its Close */
	bool is_half_closed; /* its Close is sent */
	bool is_told_to_go;  /* the worker closes it with 1001 */
	uint64_t last_own;   /* the id of the last message that it sent, until it has come back */
	unsigned pings;
};

/* A record. Clients are bits, by their place in the model. */
struct entry {
	uint64_t id, pos; /* pos: where it was about to be committed */
	uint64_t must, may;
	const struct rig_channel *ch; /* NULL: targeted */
	uint32_t len;
	uint8_t users, groups; /* targets: bits */
};

struct record_log {
	struct entry *e;
	uint64_t n;
};

_Static_assert(CLIENTS <= 64, "bits of an entry");

static struct rig r;
static struct model m[CLIENTS];
static struct record_log logs[RIG_NAMESPACES];
static uint8_t groups_of[USERS]; /* bits */
static const char *const user_names[] = {"u0", "u1", "u2", "u3", "u4", "u5"};
static const char *const group_names[] = {"red", "green", "blue", "a-group-whose-name-is-long"};
static uint64_t seed, next_id, skipped, may_be_skipped, closed_1013, got_targeted;
static unsigned long steps = 6000;
static bool is_rated;        /* a third of the seeds: demo's clients are held back at two messages a second */
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

static uint64_t first_lacking(const struct conn_ext *x)
{
	if (x->pos == 0 || x->direct_pos == 0)
		return x->pos + x->direct_pos;
	return x->pos < x->direct_pos ? x->pos : x->direct_pos;
}

/* Before each commit: who may be too slow, although it reads whenever it is its turn? */
static void note_slow(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		const struct conn *c = m[i].state == ABSENT ? NULL : rig_conn(&r, &m[i].c);

		if (c != NULL && (c->flags & CONN_BEHIND) != 0 &&
		    r.ring.head + PAYLOAD_MAX + 1000 - first_lacking(c->ext) > r.ring.size / 4)
			m[i].has_stalled = true;
	}
}

/* A record is about to be committed. */
static struct entry *log_entry(unsigned ns, struct slice p)
{
	struct record_log *l = &logs[ns];
	struct entry *e;

	note_slow();
	if (l->e == NULL)
		l->e = malloc(LOG_MAX * sizeof(*l->e));
	assert_non_null(l->e);
	assert_true(l->n < LOG_MAX);
	e = &l->e[l->n++];
	*e = (struct entry){.pos = r.ring.head, .len = (uint32_t)p.len};
	memcpy(&e->id, p.p, 8);
	return e;
}

/* Is it for client `i`, as things are now? */
static void judge(struct entry *e, int i)
{
	const struct model *c = &m[i];
	uint64_t bit = UINT64_C(1) << i;
	bool is_for = false;

	if (c->state != ABSENT && e->ch != NULL)
		is_for = c->ch == e->ch;
	else if (c->state != ABSENT && c->user >= 0)
		is_for = (e->users >> c->user & 1) != 0 || (e->groups & groups_of[c->user]) != 0;
	if (is_for && (e->must & bit) == 0 && c->ch->ns == RIG_SKIP)
		may_be_skipped++;
	e->must = is_for ? e->must | bit : e->must & ~bit;
	e->may &= ~bit;
}

/* One for a room. */
static void log_record(struct rig *rig, struct rig_channel *ch, uint8_t opcode, struct slice p)
{
	struct entry *e = log_entry(ch->ns, p);

	(void)rig;
	assert_int_equal(opcode, WS_BINARY);
	e->ch = ch;
	for (int i = 0; i < CLIENTS; i++)
		judge(e, i);
}

/* One for users and groups. */
static void log_targeted(unsigned ns, uint8_t users, uint8_t groups, struct slice p)
{
	struct entry *e = log_entry(ns, p);

	e->users = users;
	e->groups = groups;
	for (int i = 0; i < CLIENTS; i++) {
		if (m[i].state != ABSENT && m[i].ch->ns == ns)
			judge(e, i);
	}
}

/* ---- what a client got */

static void got_record(struct model *c, const struct rig_frame *f)
{
	const struct record_log *l = &logs[c->ch->ns];
	uint64_t id = check_payload(f), n = c->has_begun ? c->next : c->joined_at,
		 bit = UINT64_C(1) << (c - m);

	for (; n < l->n && l->e[n].id != id; n++) {
		/* The membership begins somewhere between the request and the 101. */
		if (!c->has_begun || (l->e[n].must & bit) == 0)
			continue;
		if (c->ch->ns == RIG_SKIP && c->has_stalled)
			skipped++;
		else
			fail_msg("client %td: record %llu of its namespace was lost", c - m,
				 (unsigned long long)n);
	}
	if (n >= l->n)
		fail_msg("client %td: a record came twice or out of order, behind number %llu", c - m,
			 (unsigned long long)c->next);
	if (((l->e[n].must | l->e[n].may) & bit) == 0)
		fail_msg("client %td: record %llu of its namespace is not for it", c - m,
			 (unsigned long long)n);
	assert_int_equal(l->e[n].len, f->len);
	got_targeted += l->e[n].users != 0 || l->e[n].groups != 0;
	c->has_begun = true;
	c->next = n + 1;
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

/* The list's first record that the worker has not handled: who joins now may get it. */
static uint64_t handled(unsigned ns)
{
	const struct record_log *l = &logs[ns];
	uint64_t n = l->n;

	while (n > 0 && l->e[n - 1].pos >= r.w->fanout.done)
		n--;
	return n;
}

/* Names of the bits, NULL behind the last. */
static const char *const *names_of(uint8_t bits, const char *const *names, const char **dst)
{
	size_t n = 0;

	for (unsigned i = 0; bits >> i != 0; i++) {
		if ((bits >> i & 1) != 0)
			dst[n++] = names[i];
	}
	dst[n] = NULL;
	return dst;
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
	c->joined_at = handled(c->ch->ns);
	c->state = JOINING;
	c->user = (int)random_below(USERS + 3);
	if (c->user < USERS) {
		const char *list[GROUPS + 1];

		rig_identify(&r, &c->c, user_names[c->user], names_of(groups_of[c->user], group_names, list));
	} else {
		c->user = -1;
	}
	/* What is committed already and not yet read may be for it, and is not for whoever had its place. */
	for (uint64_t k = c->joined_at; k < logs[c->ch->ns].n; k++)
		judge(&logs[c->ch->ns].e[k], (int)(c - m));
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

static void master_publishes_to(void)
{
	static const unsigned spaces[] = {RIG_DEMO, RIG_DEMO, RIG_SKIP, RIG_FAMILY, RIG_ECHO};
	unsigned ns = spaces[random_below(5)], n = 1 + random_below(8);

	for (unsigned i = 0; i < n; i++) {
		uint8_t users = (uint8_t)(random_below(1u << USERS) & random_below(1u << USERS));
		uint8_t groups = (uint8_t)(random_below(1u << GROUPS) & random_below(1u << GROUPS));
		const char *user_list[USERS + 1], *group_list[GROUPS + 1];
		size_t len = make_payload(++next_id, random_len());

		if (!rig_has_space(&r, 0, len + 1000))
			return;
		log_targeted(ns, users, groups, (struct slice){(char *)payload, len});
		rig_publish_to(&r, ns, WS_BINARY, names_of(users, user_names, user_list),
			       names_of(groups, group_names, group_list), payload, len, random_below(2));
	}
}

/* A user enters or leaves a group. What is under way and is for him by that group alone may come or not: all
 * of it has been read, but who is behind asks again when it catches up. */
static void change_group(void)
{
	unsigned user = random_below(USERS), group = random_below(GROUPS);
	struct slice name = {user_names[user], strlen(user_names[user])};
	bool is_in = (groups_of[user] >> group & 1) != 0;

	for (int i = 0; i < CLIENTS; i++) {
		if (m[i].state == JOINING && m[i].user == (int)user)
			return; /* it brings the groups that it was given when it came */
	}
	rig_settle(&r);
	assert_int_equal(r.w->fanout.done, r.ring.head);
	groups_of[user] ^= (uint8_t)(1u << group);
	user_change_group(r.w, (struct slice){group_names[group], strlen(group_names[group])}, &name,
			  is_in ? 0 : 1, &name, is_in ? 1 : 0);
	for (int i = 0; i < CLIENTS; i++) {
		struct record_log *l =
			m[i].state == ABSENT || m[i].user != (int)user ? NULL : &logs[m[i].ch->ns];

		for (uint64_t k = m[i].has_begun ? m[i].next : m[i].joined_at; l != NULL && k < l->n; k++) {
			if ((l->e[k].groups >> group & 1) == 0 || (l->e[k].users >> user & 1) != 0)
				continue;
			l->e[k].must &= ~(UINT64_C(1) << i);
			l->e[k].may |= UINT64_C(1) << i;
		}
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

	switch (random_below(26)) {
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
	case 16:
	case 17:
	case 18:
	case 19:
		master_publishes_to();
		break;
	case 20:
		if (random_below(3) == 0)
			change_group();
		break;
	default:
		if (r.n_channels > 0)
			master_publishes();
		break;
	}
}

static bool is_any_held(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		const struct conn *c = m[i].state == ABSENT ? NULL : rig_conn(&r, &m[i].c);

		if (c != NULL && (c->flags & CONN_HELD) != 0)
			return true;
	}
	return false;
}

static void all_read(void)
{
	bool any = true;

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
}

/* Everybody reads; then each client that is still there has got its channel's last record. */
static void finish(void)
{
	r.hold_data = r.hold_control = false;
	all_read();
	for (int i = 0; is_any_held(); i++) {
		assert_true(i < 1000);
		rig_pass(&r, 50);
		all_read();
	}
	rig_check(&r);
	for (int i = 0; i < CLIENTS; i++) {
		struct model *c = &m[i];

		if (c->state == ABSENT || c->c.close_code != 0 || c->is_half_closed || c->is_told_to_go)
			continue;
		assert_int_not_equal(c->state, JOINING);
		assert_int_equal(rig_rest(&c->c), 0);
		for (uint64_t k = c->next; c->has_begun && k < logs[c->ch->ns].n; k++) {
			if ((logs[c->ch->ns].e[k].must >> i & 1) == 0)
				continue;
			if (c->ch->ns != RIG_SKIP || !c->has_stalled)
				fail_msg("client %d: record %llu of its namespace never came", i,
					 (unsigned long long)k);
			skipped++;
		}
		assert_null(rig_conn(&r, &c->c)->ext);
	}
}

static void random_clients(void **state)
{
	uint64_t counted;

	(void)state;
	rig_init(&r);
	r.config.ring.size = 2u << 20;
	r.config.limits.slow_timeout = 5000;
	is_memory_short = seed % 2 == 0;
	is_rated = seed % 3 == 0;
	if (is_rated) {
		r.namespaces[RIG_DEMO].msg_rate = 2;
		r.namespaces[RIG_DEMO].msg_burst = 1;
	}
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
	if (is_rated && steps >= 6000)
		assert_true(RIG_NS(&r, RIG_DEMO, rate_limited) > 0);
	print_message("%llu messages, %llu deliveries by target, %llu closed as slow, %llu skipped, %llu "
		      "copies, %llu catch-up "
		      "reads\n",
		      (unsigned long long)next_id, (unsigned long long)got_targeted,
		      (unsigned long long)closed_1013, (unsigned long long)counted,
		      (unsigned long long)RIG_COUNT(&r, slow_copies),
		      (unsigned long long)RIG_COUNT(&r, catchup_reads));
	/* Those that left while they missed something are in the counter only. */
	assert_true(skipped <= counted);
	assert_true(counted <= may_be_skipped);
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
		free(logs[i].e);
		logs[i] = (struct record_log){0};
	}
}

static uint64_t first; /* `seed` itself moves on */

static void say_seed(void)
{
	fprintf(stderr, "# to replay: test_random %llu %lu\n", (unsigned long long)first, steps);
}

int main(int argc, char **argv)
{
	int failed;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_clients),
	};

	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL) << 16 ^ (uint64_t)getpid();
	if (argc > 2)
		steps = strtoul(argv[2], NULL, 10);
	/* Not by cmocka, whose lines a crash leaves in a buffer; and of a long log the end is what is shown.
	 */
	first = seed;
	say_seed();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (failed != 0)
		say_seed();
	return failed;
}
