/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Limits by user and address, and PROXY headers, in a worker: the test plays the master that counts. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/worker_rig.h"
#include "worker/admission.h"
#include "worker/limits.h"

static struct rig r;
static char user_id[] = "user_id", auth_name[] = "trust";
static struct cfg_auth trust = {.name = auth_name, .type = CFG_AUTH_QUERY};

/* ---- the master */

static struct {
	char key[256];
	size_t len;
	uint8_t what;
	uint32_t n;
} counts[16];
static unsigned n_counts, n_asked, n_released;
static bool says_no;

static uint32_t *count_of(uint8_t what, struct slice key)
{
	for (unsigned i = 0; i < n_counts; i++)
		if (counts[i].what == what && counts[i].len == key.len &&
		    memcmp(counts[i].key, key.p, key.len) == 0)
			return &counts[i].n;
	assert_true(n_counts < ARRAY_LEN(counts));
	counts[n_counts].what = what;
	counts[n_counts].len = key.len;
	memcpy(counts[n_counts].key, key.p, key.len);
	counts[n_counts].n = 0;
	return &counts[n_counts++].n;
}

static uint32_t of_user(const char *id)
{
	return *count_of(UP_LIMIT_USER, (struct slice){id, strlen(id)});
}

static void on_control(struct rig *rig, const struct up_view *v)
{
	struct rec h = {.type = REC_ADMIT, .id = v->h.request};
	uint32_t *n;

	if (v->h.type != UP_ADMIT && v->h.type != UP_RELEASE)
		return;
	n = count_of(v->h.opcode, v->payload);
	if (v->h.type == UP_RELEASE) {
		assert_true(*n > 0);
		(*n)--;
		n_released++;
		return;
	}
	n_asked++;
	assert_int_not_equal(v->h.request, 0);
	h.arg[0] = !says_no && *n < v->h.total;
	*n += (uint32_t)h.arg[0];
	rig_control(rig, &h, (struct slice){0});
}

/* ---- the rig */

/* demo: the query names the user. Clients come through a unix socket, so X-Forwarded-For says where from. */
static void begin(enum cfg_refuse how)
{
	struct cfg_namespace *ns = &r.namespaces[RIG_DEMO];

	rig_init(&r);
	memset(counts, 0, sizeof(counts));
	n_counts = n_asked = n_released = 0;
	says_no = false;
	ns->user_query = user_id;
	ns->auth = &trust;
	ns->refuse = how;
	r.config.trusts_unix = true;
	r.on_control = on_control;
}

static void end(void)
{
	rig_settle(&r);
	rig_check(&r);
	rig_stop(&r);
}

static void request(struct rig_client *c, const char *path, const char *from)
{
	char head[512];
	int n = snprintf(
		head, sizeof(head),
		"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"%s%s%sSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		path, from ? "X-Forwarded-For: " : "", from ? from : "", from ? "\r\n" : "");

	assert_int_equal(send(c->fd, head, (size_t)n, MSG_NOSIGNAL), n);
}

/* What becomes of a client: 101, or the status of a refusal. */
static int dial(struct rig_client *c, const char *path, const char *from)
{
	char status[4] = "";

	rig_dial(&r, c, 0);
	request(c, path, from);
	rig_settle(&r);
	rig_read(c, 0);
	assert_true(c->in.len > 12 && memcmp(c->in.p, "HTTP/1.1 ", 9) == 0);
	memcpy(status, c->in.p + 9, 3);
	return (int)strtol(status, NULL, 10);
}

static void hang_up(struct rig_client *c)
{
	rig_hang_up(c);
	rig_settle(&r);
}

static uint64_t refused(enum count_refused why)
{
	return RIG_COUNT(&r, refused[why]);
}

/* ---- per_user */

static void a_user_has_so_many_sockets(void **state)
{
	struct rig_client c[4];

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.per_user = 2;
	rig_start(&r);
	assert_int_equal(dial(&c[0], "/ws/a?user_id=7", NULL), 101);
	assert_int_equal(dial(&c[1], "/ws/b?user_id=7", NULL), 101);
	assert_int_equal(dial(&c[2], "/ws/c?user_id=7", NULL), 429);
	assert_int_equal(refused(COUNT_REFUSED_per_user), 1);
	assert_int_equal(dial(&c[3], "/ws/c?user_id=8", NULL), 101);
	hang_up(&c[2]);
	assert_int_equal(of_user("7"), 2); /* nothing was counted for it, nothing is given back */
	assert_int_equal(n_released, 0);
	hang_up(&c[0]);
	assert_int_equal(of_user("7"), 1);
	assert_int_equal(dial(&c[0], "/ws/a?user_id=7", NULL), 101);
	for (int i = 0; i < 4; i++)
		if (i != 2)
			hang_up(&c[i]);
	assert_int_equal(of_user("7") + of_user("8"), 0);
	assert_int_equal(r.w->sessions.n, 0);
	end();
}

static void refused_by_a_close(void **state)
{
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_CLOSE);
	r.config.limits.per_user = 2;
	says_no = true;
	rig_start(&r);
	assert_int_equal(dial(&c, "/ws/a?user_id=7", NULL), 101);
	assert_true(rig_take_101(&c));
	rig_expect_close(&r, &c, 1008);
	assert_int_equal(refused(COUNT_REFUSED_per_user), 1);
	hang_up(&c);
	assert_int_equal(n_released, 0);
	end();
}

/* The answer comes when the client has gone: what it was given goes back. */
static void who_vanishes_while_the_master_thinks(void **state)
{
	struct rig_client c[3];

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.per_user = 2;
	r.config.limits.handshake_timeout = 1000;
	rig_start(&r);
	r.hold_control = true;
	for (int i = 0; i < 3; i++) {
		rig_dial(&r, &c[i], 0);
		request(&c[i], "/ws/a?user_id=7", NULL);
	}
	rig_settle(&r);
	assert_int_equal(r.w->conns.n_handshaking, 3);
	rig_hang_up(&c[0]); /* the first, and its place is taken again before the answer comes */
	rig_settle(&r);
	rig_dial(&r, &c[0], 0);
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(n_asked, 3);
	assert_int_equal(n_released, 1);
	assert_int_equal(of_user("7"), 1); /* the second is in; the third came before the first gave back */
	assert_int_equal(refused(COUNT_REFUSED_per_user), 1);
	rig_read(&c[1], 0);
	assert_true(rig_take_101(&c[1]));
	/* its time runs out instead: the answer finds a refused one */
	r.hold_control = true;
	request(&c[0], "/ws/a?user_id=7", NULL);
	rig_settle(&r);
	rig_pass(&r, 1200);
	assert_int_equal(refused(COUNT_REFUSED_timeout), 1);
	r.hold_control = false;
	rig_settle(&r);
	assert_int_equal(of_user("7"), 1);
	for (int i = 0; i < 3; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	assert_int_equal(of_user("7"), 0);
	end();
}

/* ---- per_address */

static void an_address_has_so_many_sockets(void **state)
{
	struct rig_client c[6];

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.per_address = 2;
	r.config.limits.per_user = 100;
	rig_start(&r);
	assert_int_equal(dial(&c[0], "/ws/a?user_id=1", "192.0.2.1"), 101);
	assert_int_equal(dial(&c[1], "/ws/a?user_id=2", "192.0.2.1"), 101);
	assert_int_equal(dial(&c[2], "/ws/a?user_id=3", "192.0.2.1"), 429);
	assert_int_equal(refused(COUNT_REFUSED_per_address), 1);
	assert_int_equal(of_user("3"), 0); /* was not asked for */
	assert_int_equal(dial(&c[3], "/ws/a?user_id=3", "192.0.2.2"), 101);
	/* of IPv6 the network counts */
	assert_int_equal(dial(&c[4], "/ws/a?user_id=4", "2001:db8::1"), 101);
	assert_int_equal(dial(&c[5], "/ws/a?user_id=4", "2001:db8::ffff:1"), 101);
	hang_up(&c[2]);
	assert_int_equal(dial(&c[2], "/ws/a?user_id=4", "2001:db8::2"), 429);
	hang_up(&c[1]);
	assert_int_equal(dial(&c[1], "/ws/a?user_id=2", "192.0.2.1"), 101);
	for (int i = 0; i < 6; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	for (unsigned i = 0; i < n_counts; i++)
		assert_int_equal(counts[i].n, 0);
	end();
}

/* Nobody knows an address: no limit by address, and nothing breaks. */
static void without_an_address(void **state)
{
	struct rig_client c[2];

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.per_address = 1;
	r.config.limits.connect_rate = 1;
	rig_start(&r);
	assert_int_equal(dial(&c[0], "/ws/a?user_id=7", NULL), 101);
	assert_int_equal(dial(&c[1], "/ws/a?user_id=7", "junk"), 101);
	assert_int_equal(n_asked, 0);
	hang_up(&c[0]);
	hang_up(&c[1]);
	end();
}

/* Namespaces that have no sessions otherwise are limited, too. */
static void plain_namespaces_are_limited(void **state)
{
	struct rig_client c[2];

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.per_address = 1;
	rig_start(&r);
	assert_int_equal(dial(&c[0], "/echo", "192.0.2.1"), 101);
	assert_int_equal(dial(&c[1], "/family", "192.0.2.1"), 429);
	hang_up(&c[0]);
	hang_up(&c[1]);
	end();
}

/* ---- connect_rate: of two workers this one has half */

static void an_address_comes_too_fast(void **state)
{
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_CLOSE);
	r.config.limits.connect_rate = 4;
	r.config.limits.connect_burst = 6;
	rig_start(&r);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(dial(&c, "/ws/a?user_id=7", "192.0.2.1"), i < 3 ? 101 : 429);
		hang_up(&c);
	}
	assert_int_equal(refused(COUNT_REFUSED_rate), 2);
	assert_int_equal(dial(&c, "/ws/a?user_id=7", "192.0.2.2"), 101); /* others are not concerned */
	hang_up(&c);
	rig_pass(&r, 500); /* one token */
	assert_int_equal(dial(&c, "/ws/a?user_id=7", "192.0.2.1"), 101);
	hang_up(&c);
	assert_int_equal(dial(&c, "/ws/a?user_id=7", "192.0.2.1"), 429);
	hang_up(&c);
	rig_pass(&r, 60000); /* never more than the burst */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(dial(&c, "/ws/a?user_id=7", "192.0.2.1"), i < 3 ? 101 : 429);
		hang_up(&c);
	}
	end();
}

static struct address nth(unsigned i)
{
	struct address a = {true, {[10] = 0xff, [11] = 0xff, 10}};

	a.ip[13] = (uint8_t)(i >> 16);
	a.ip[14] = (uint8_t)(i >> 8);
	a.ip[15] = (uint8_t)i;
	return a;
}

/* A table full of strangers forgets those who have been quiet for longest, and goes on working. */
static void the_table_is_bounded(void **state)
{
	struct address a, one = nth(1u << 20);
	unsigned let_in = 0;

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.connect_rate = 2;
	rig_start(&r);
	for (unsigned i = 0; i < 4 * LIMITS_PLACES; i++) {
		a = nth(i);
		assert_true(limits_connect(r.w, &a));
		let_in += limits_connect(r.w, &one);
		if (i % 16 == 0)
			r.w->now_ms++; /* time passes, but less than for another token */
	}
	assert_int_equal(let_in, 2); /* 1024 ms: the burst of 1, and one more */
	end();
}

static void a_share_is_never_nothing(void **state)
{
	const struct address a = nth(1);

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.connect_rate = 1;
	rig_start(&r);
	assert_true(limits_connect(r.w, &a));
	assert_false(limits_connect(r.w, &a));
	end();
}

static void lines_are_few(void **state)
{
	uint32_t n;
	unsigned lines = 0, all = 0;

	(void)state;
	begin(CFG_REFUSE_403);
	rig_start(&r);
	for (int i = 0; i < 1000; i++) { /* 25 s */
		limits_said(r.w, COUNT_REFUSED_rate, (struct slice){"a", 1}, &n);
		lines += n > 0;
		all += n;
		r.w->now_ms += 25;
	}
	assert_int_equal(lines, 3);
	assert_int_equal(all, 801); /* what came since the last line is in the next one */
	limits_said(r.w, COUNT_REFUSED_rate, (struct slice){"b", 1}, &n);
	assert_int_equal(n, 1);
	end();
}

/* ---- PROXY headers */

static void dial_proxied(struct rig_client *c)
{
	rig_dial(&r, c, 0);
	rig_conn(&r, c)->flags |= CONN_PROXY; /* as accept.c does */
}

static void is_from(const struct rig_client *c, const char *address)
{
	char text[ADMISSION_ADDRESS_SIZE];

	admission_address(r.w, rig_conn(&r, c), text);
	assert_string_equal(text, address);
}

static void send_bytes(struct rig_client *c, const char *p, size_t len)
{
	assert_int_equal(send(c->fd, p, len, MSG_NOSIGNAL), len);
}

#define V1 "PROXY TCP4 192.0.2.9 198.51.100.7 56324 443\r\n"
#define V2                                                                                                   \
	"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                     \
	"destination-16-b\0\1\0\2"

static void proxy_headers_say_who_it_is(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *forwarded, *from;
	} t[] = {
		{V1, sizeof(V1) - 1, NULL, "192.0.2.9"},
		{V1, sizeof(V1) - 1, "203.0.113.1", "192.0.2.9"}, /* not a trusted proxy itself */
		{V2, sizeof(V2) - 1, NULL, "2001:db8::1"},
		{V2, sizeof(V2) - 1, "203.0.113.1", "203.0.113.1"}, /* this one is */
		{"PROXY UNKNOWN\r\n", 15, NULL, ""},
		{"PROXY UNKNOWN\r\n", 15, "203.0.113.1", "203.0.113.1"}, /* a unix socket, which is trusted */
	};
	static struct cfg_network network = {{0x20, 0x01, 0x0d, 0xb8}, 32};

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.trusted_proxies = &network;
	r.config.n_trusted_proxies = 1;
	rig_start(&r);
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		for (int cut = 0; cut < 3; cut++) { /* in one piece with the head; before it; byte by byte */
			struct rig_client c;

			dial_proxied(&c);
			for (size_t j = 0; j < t[i].len; j += cut == 2 ? 1 : t[i].len) {
				send_bytes(&c, t[i].bytes + j, cut == 2 ? 1 : t[i].len);
				if (cut > 0)
					rig_settle(&r);
			}
			request(&c, "/ws/a?user_id=7", t[i].forwarded);
			rig_settle(&r);
			rig_read(&c, 0);
			assert_true(rig_take_101(&c));
			is_from(&c, t[i].from);
			hang_up(&c);
		}
	}
	end();
}

static void without_a_proxy_header_nobody_comes_in(void **state)
{
	static const char *const bad[] = {"GET /ws/a?user_id=7 HTTP/1.1\r\n", "PROXY TCP4 1.2.3.4\r\n",
					  "\r\n\r\nx", "X"};
	struct rig_client c;

	(void)state;
	begin(CFG_REFUSE_403);
	r.config.limits.handshake_timeout = 1000;
	rig_start(&r);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		dial_proxied(&c);
		send_bytes(&c, bad[i], strlen(bad[i]));
		rig_settle(&r);
		rig_read(&c, 0);
		assert_true(c.is_eof && c.in.len == 0);
		rig_hang_up(&c);
	}
	assert_int_equal(refused(COUNT_REFUSED_proxy), ARRAY_LEN(bad));
	dial_proxied(&c); /* half of one, for ever */
	send_bytes(&c, "PROXY TCP4 ", 11);
	rig_settle(&r);
	rig_pass(&r, 1200);
	rig_read(&c, 0);
	assert_true(c.is_eof && c.in.len == 0);
	assert_int_equal(refused(COUNT_REFUSED_proxy), ARRAY_LEN(bad) + 1);
	rig_hang_up(&c);
	dial_proxied(&c); /* a proxy that looks whether we are there */
	hang_up(&c);
	assert_int_equal(refused(COUNT_REFUSED_aborted), 1);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_user_has_so_many_sockets),
		cmocka_unit_test(refused_by_a_close),
		cmocka_unit_test(who_vanishes_while_the_master_thinks),
		cmocka_unit_test(an_address_has_so_many_sockets),
		cmocka_unit_test(without_an_address),
		cmocka_unit_test(plain_namespaces_are_limited),
		cmocka_unit_test(an_address_comes_too_fast),
		cmocka_unit_test(the_table_is_bounded),
		cmocka_unit_test(a_share_is_never_nothing),
		cmocka_unit_test(lines_are_few),
		cmocka_unit_test(proxy_headers_say_who_it_is),
		cmocka_unit_test(without_a_proxy_header_nobody_comes_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
