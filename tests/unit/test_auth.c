/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* Connections that an application decides about: the test is the application, on a socket of its own, and
 * answers when it pleases. */
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"
#include "worker/auth.h"
#include "worker/user_int.h"

#define TURNS 20000

static struct rig r;
static int listener = -1;
static char url[64], name[] = "app", secret[] = "s3cret", cookie_name[] = "sid", user_id[] = "user_id";
static struct cfg_source_of cookie_key = {CFG_PLACE_COOKIE, cookie_name};
static struct cfg_auth hook;

/* A request that the application has got, and has not answered. */
struct asked {
	int fd;
	char text[8192]; /* NUL-terminated */
	const char *body;
};

static void listen_for_hooks(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 64), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/hook?a=b", ntohs(a.sin_port));
}

static void prepare(void)
{
	struct cfg_namespace *ns = &r.namespaces[RIG_DEMO];

	rig_init(&r);
	listen_for_hooks();
	hook = (struct cfg_auth){.name = name,
				 .type = CFG_AUTH_HOOK,
				 .url = url,
				 .timeout = 60000,
				 .concurrency = 4,
				 .breaker_failures = 0,
				 .breaker_pause = 1000};
	r.config.auths = &hook;
	r.config.n_auths = 1;
	r.config.limits.handshake_timeout = 120000;
	ns->auth = &hook;
}

/* libev's callbacks shall see the test's clock, too. */
static void start(void)
{
	rig_start(&r);
	ev_check_stop(r.w->loop, &r.w->check);
	ev_prepare_stop(r.w->loop, &r.w->prepare);
	r.w->now_ms = r.now_ms;
}

static void begin(void)
{
	prepare();
	start();
}

static void end(void)
{
	rig_check(&r);
	rig_stop(&r);
	close(listener);
}

static void turn(void)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};

	rig_admin_turn(&r);
	poll(&p, 1, 0);
}

/* What libev and the kernel have on their way arrives. */
static void settle(void)
{
	for (int i = 0; i < 100; i++)
		turn();
}

static void request(struct rig_client *c, const char *path, const char *headers)
{
	char head[1024];
	int n = snprintf(head, sizeof(head),
			 "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
			 path, headers);

	rig_dial(&r, c, 0);
	assert_int_equal(send(c->fd, head, (size_t)n, 0), n);
	settle();
}

static bool is_whole(const char *text)
{
	const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");

	return body != NULL && length != NULL && strlen(body + 4) >= strtoul(length + 16, NULL, 10);
}

/* The next request on a connection that stands (fd >= 0), or on a new one. */
static void take_on(struct asked *a, int fd)
{
	size_t len = 0;

	a->fd = fd;
	a->text[0] = '\0';
	for (int i = 0; i < TURNS && !is_whole(a->text); i++) {
		ssize_t n;

		if (a->fd == -1) {
			a->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
			turn();
			continue;
		}
		n = recv(a->fd, a->text + len, sizeof(a->text) - 1 - len, 0);
		if (n > 0)
			len += (size_t)n;
		a->text[len] = '\0';
		turn();
	}
	assert_true(is_whole(a->text));
	a->body = strstr(a->text, "\r\n\r\n") + 4;
	assert_true(json_validate((struct slice){a->body, strlen(a->body)}, NULL));
}

static void take(struct asked *a)
{
	take_on(a, -1);
}

static bool is_asked(void)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};

	settle();
	return poll(&p, 1, 0) == 1;
}

/* Answer, and keep the connection. In one piece: the second of two would wait for an acknowledgement. */
static void answer(const struct asked *a, int status, const char *body)
{
	struct buf text = {0};

	assert_int_equal(buf_printf(&text, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n%s", status,
				    strlen(body), body),
			 0);
	assert_int_equal(send(a->fd, text.p, text.len, MSG_NOSIGNAL), text.len);
	buf_free(&text);
	settle();
}

static void allow(const char *body)
{
	struct asked a;

	take(&a);
	answer(&a, 200, body);
	close(a.fd);
}

static bool has_text(const struct rig_client *c, const char *text)
{
	return c->in.len > 0 && memmem(c->in.p, c->in.len, text, strlen(text)) != NULL;
}

static void is_status(struct rig_client *c, int status)
{
	char want[32];

	settle();
	rig_read(c, 0);
	snprintf(want, sizeof(want), "HTTP/1.1 %d ", status);
	if (!has_text(c, want))
		fail_msg("%.20s instead of %s", c->in.len > 0 ? c->in.p : "nothing", want);
	assert_true(c->is_eof);
}

static void is_open(struct rig_client *c)
{
	settle();
	rig_read(c, 0);
	assert_true(rig_take_101(c));
	assert_int_equal(rig_conn(&r, c)->state, CONN_OPEN);
}

static void gone(struct rig_client *c)
{
	rig_hang_up(c);
	settle();
}

static const struct user *user(struct rig_client *c)
{
	const struct user *u = user_of(r.w, rig_conn(&r, c));

	assert_non_null(u);
	return u;
}

static void is_group(struct rig_client *c, const char *want)
{
	assert_int_equal(user_n_groups(user(c)), 1);
	assert_int_equal(user(c)->more->groups[0].group->len, strlen(want));
	assert_memory_equal(user(c)->more->groups[0].group->name, want, strlen(want));
}

/* Let the worker's clock pass. */
static void pass(uint64_t ms)
{
	rig_pass(&r, ms);
	settle();
}

/* ---- what is asked, and the verdict */

static void the_request_tells_all(void **state)
{
	struct rig_client c;
	struct asked a;
	char id[CONN_ID_SIZE], want[1024];

	(void)state;
	prepare();
	hook.secret = secret;
	start();
	request(&c, "/ws/r%22m?a=%221&b", "Cookie: sid=x; y=\"z\"\r\nOrigin: https://app.example\r\n");
	assert_int_equal(rig_conn(&r, &c)->state, CONN_AUTHORIZING);
	rig_check(&r);
	take(&a);
	assert_memory_equal(a.text, "POST /hook?a=b HTTP/1.1\r\n", 25);
	assert_non_null(strstr(a.text, "\r\nAuthorization: Bearer s3cret\r\n"));
	assert_non_null(strstr(a.text, "\r\nContent-Type: application/json\r\n"));
	assert_null(strstr(a.text, "Expect"));
	conn_id(r.w, rig_conn(&r, &c), id);
	snprintf(want, sizeof(want),
		 "{\"event\":\"connect\",\"conn\":\"%s\",\"namespace\":\"demo\",\"room\":\"r\\\"m\","
		 "\"method\":\"GET\","
		 "\"uri\":\"/ws/r%%22m\",\"query\":\"a=%%221&b\",\"headers\":{\"cookie\":\"sid=x; "
		 "y=\\\"z\\\"\","
		 "\"origin\":\"https://app.example\"},\"address\":\"\"}",
		 id);
	assert_string_equal(a.body, want);
	answer(&a, 200,
	       "{\"allow\":true,\"user\":7,\"groups\":[\"g\"],\"frames\":[\"not for this namespace\"]}");
	is_open(&c);
	assert_int_equal(session_user(r.w, session_of(r.w, rig_conn(&r, &c))).len, 1);
	assert_int_equal(user_n_groups(user(&c)), 1);
	assert_int_equal(rig_rest(&c), 0);
	assert_null(session_of(r.w, rig_conn(&r, &c))->more); /* the cookie is not kept */
	assert_int_equal(RIG_COUNT(&r, hook_requests), 1);
	gone(&c);
	close(a.fd);
	end();
}

static void connections_are_kept(void **state)
{
	struct rig_client c[3];
	struct asked a;
	int fd = -1;

	(void)state;
	begin();
	for (size_t i = 0; i < 3; i++) {
		request(&c[i], "/ws/a", "");
		take_on(&a, fd);
		fd = a.fd;
		answer(&a, 200, "{\"allow\":true}");
		is_open(&c[i]);
	}
	assert_false(is_asked());
	for (size_t i = 0; i < 3; i++)
		gone(&c[i]);
	close(fd);
	end();
}

static void early_bytes_and_frames_in_order(void **state)
{
	struct rig_client c;
	struct rig_frame f;

	(void)state;
	prepare();
	r.namespaces[RIG_DEMO].hook_first_frames = true;
	start();
	request(&c, "/ws/a", "");
	rig_send(&c, WS_TEXT, "early", 5);
	settle();
	allow("{\"allow\":true,\"frames\":[{\"type\":\"x\",\"n\":1.50},\"plain\"]}");
	is_open(&c);
	rig_expect(&r, &c, "{\"type\":\"x\",\"n\":1.50}");
	assert_true(rig_frame(&c, &f));
	assert_memory_equal(f.payload, "plain", 5);
	rig_expect(&r, &c, "early");
	assert_true(session_of(r.w, rig_conn(&r, &c))->is_settled); /* and the frames are gone */
	gone(&c);
	end();
}

static void many_first_frames_for_a_slow_reader(void **state)
{
	struct rig_client c;
	struct buf body = {0};
	struct rig_frame f;
	unsigned n = 0;

	(void)state;
	prepare();
	r.namespaces[RIG_DEMO].hook_first_frames = true;
	start();
	rig_dial(&r, &c, 4096);
	rig_request(&c, "/ws/a");
	settle();
	assert_int_equal(buf_puts(&body, "{\"allow\":true,\"frames\":[\"\""), 0);
	for (int i = 1; i < 50; i++)
		assert_int_equal(buf_printf(&body, ",\"%04000d\"", i), 0);
	assert_int_equal(buf_put(&body, "]}", 3), 0);
	allow(body.p);
	buf_free(&body);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	rig_check(&r);
	for (int i = 0; i < 400; i++) {
		rig_read(&c, 4096);
		if (n == 0 && c.used == 0)
			(void)rig_take_101(&c);
		while (rig_frame(&c, &f))
			n++;
		turn();
	}
	assert_int_equal(n, 50);
	gone(&c);
	end();
}

static void refusals(void **state)
{
	static const struct {
		int status;
		const char *body;
		int want;
		enum count_refused why;
	} cases[] = {
		{200, "{\"allow\":false}", 403, COUNT_REFUSED_auth},
		{200, "{\"allow\":false,\"status\":401}", 401, COUNT_REFUSED_auth},
		{401, "", 401, COUNT_REFUSED_auth},
		{403, "<html>", 403, COUNT_REFUSED_auth},
		{404, "{}", 404, COUNT_REFUSED_auth},
		{200, "{\"allow\":true,\"expires_at\":1}", 403, COUNT_REFUSED_auth},
		{200, "{\"allow\":true,\"user\":8}", 403, COUNT_REFUSED_user},
		{200, "garbage", 503, COUNT_REFUSED_hook},
		{200, "{\"allow\":1}", 503, COUNT_REFUSED_hook},
		{500, "{\"allow\":true}", 503, COUNT_REFUSED_hook},
		{302, "{\"allow\":true}", 503, COUNT_REFUSED_hook},
		{201, "{\"allow\":true}", 503, COUNT_REFUSED_hook},
		{400, "", 503, COUNT_REFUSED_hook},
	};

	(void)state;
	prepare();
	r.namespaces[RIG_DEMO].user_query = user_id;
	r.namespaces[RIG_DEMO].user_query_is_int = true;
	start();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t before = RIG_COUNT(&r, refused[cases[i].why]);
		struct rig_client c;
		struct asked a;

		request(&c, "/ws/a?user_id=7", "");
		take(&a);
		answer(&a, cases[i].status, cases[i].body);
		close(a.fd);
		is_status(&c, cases[i].want);
		assert_int_equal(RIG_COUNT(&r, refused[cases[i].why]), before + 1);
		gone(&c);
	}
	assert_int_equal(RIG_NS(&r, RIG_DEMO, opened), 0);
	end();
}

static void refusals_after_the_upgrade(void **state)
{
	static const struct {
		const char *body;
		unsigned code;
		const char *reason;
	} cases[] = {
		{"{\"allow\":false,\"reason\":\"no such thread\"}", 1008, "no such thread"},
		{"{\"allow\":false,\"code\":4403}", 4403, ""},
		{"nonsense", 1011, "internal error"},
	};

	(void)state;
	prepare();
	r.namespaces[RIG_DEMO].refuse = CFG_REFUSE_CLOSE;
	start();
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rig_client c;
		struct rig_frame f;

		request(&c, "/ws/a", "");
		allow(cases[i].body);
		rig_read(&c, 0);
		assert_true(rig_take_101(&c));
		assert_true(rig_frame(&c, &f));
		assert_int_equal(c.close_code, cases[i].code);
		assert_int_equal(f.len, 2 + strlen(cases[i].reason));
		assert_memory_equal(f.payload + 2, cases[i].reason, f.len - 2);
		gone(&c);
		pass(r.config.limits.close_linger + 100);
		assert_int_equal(r.w->conns.n, 0);
	}
	assert_int_equal(RIG_NS(&r, RIG_DEMO, opened), 0);
	end();
}

static void an_answer_without_end(void **state)
{
	struct rig_client c;
	struct asked a;
	char *big = calloc(1, 300001);

	(void)state;
	begin();
	assert_non_null(big);
	memset(big, ' ', 300000);
	request(&c, "/ws/a", "");
	take(&a);
	dprintf(a.fd, "HTTP/1.1 200 X\r\n\r\n");
	for (size_t done = 0; done < 300000;) {
		ssize_t n = send(a.fd, big + done, 300000 - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n == -1 && rig_conn(&r, &c)->state != CONN_AUTHORIZING)
			break;
		done += n > 0 ? (size_t)n : 0;
		turn();
	}
	is_status(&c, 503);
	gone(&c);
	close(a.fd);
	free(big);
	end();
}

/* ---- who goes meanwhile */

static void gone_while_asked(void **state)
{
	struct rig_client c[8];
	struct asked a;

	(void)state;
	prepare();
	hook.concurrency = 4; /* of two workers: 2 here */
	start();
	for (size_t i = 0; i < 8; i++)
		request(&c[i], "/ws/a", "");
	assert_int_equal(RIG_COUNT(&r, hook_requests), 2);
	gone(&c[1]); /* under way */
	gone(&c[4]); /* waiting */
	assert_int_equal(RIG_COUNT(&r, hook_requests), 3);
	assert_int_equal(r.w->conns.n, 6);
	take(&a);
	answer(&a, 200, "{\"allow\":true}");
	is_open(&c[0]);
	for (size_t i = 0; i < 8; i++)
		gone(&c[i]);
	assert_int_equal(r.w->conns.n, 0);
	assert_int_equal(r.w->sessions.n, 0);
	close(a.fd);
	end();
}

static void the_hook_never_answers(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	hook.timeout = 200;
	start();
	request(&c, "/ws/a", "");
	for (int i = 0; i < 1000 && !c.is_eof; i++) {
		struct pollfd p = {.fd = c.fd, .events = POLLIN};

		poll(&p, 1, 5);
		turn();
		rig_read(&c, 0);
	}
	assert_true(has_text(&c, "HTTP/1.1 503 "));
	assert_int_equal(RIG_COUNT(&r, hook_failures), 1);
	gone(&c);
	end();
}

static void the_handshake_takes_too_long(void **state)
{
	struct rig_client c, d;

	(void)state;
	prepare();
	r.config.limits.handshake_timeout = 1000;
	r.namespaces[RIG_SKIP].auth = &hook;
	r.namespaces[RIG_SKIP].refuse = CFG_REFUSE_CLOSE;
	start();
	request(&c, "/ws/a", "");
	request(&d, "/skip/a", "");
	pass(1200);
	is_status(&c, 503);
	rig_read(&d, 0);
	assert_true(rig_take_101(&d));
	rig_expect_close(&r, &d, 1011);
	gone(&c);
	gone(&d);
	end();
}

static void waiting_counts_into_the_timeout(void **state)
{
	struct rig_client c[12];
	unsigned refused = 0;

	(void)state;
	prepare();
	hook.concurrency = 2; /* one here; four more may wait */
	hook.timeout = 50000;
	start();
	for (size_t i = 0; i < 12; i++) {
		request(&c[i], "/ws/a", "");
		rig_read(&c[i], 0);
		refused += has_text(&c[i], "HTTP/1.1 503 ");
	}
	assert_int_equal(refused, 7);
	assert_int_equal(RIG_COUNT(&r, hook_requests), 1);
	pass(51000);
	for (size_t i = 1; i < 5; i++)
		is_status(&c[i], 503);
	assert_int_equal(RIG_COUNT(&r, refused[COUNT_REFUSED_hook]), 11);
	for (size_t i = 0; i < 12; i++)
		gone(&c[i]);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

static void stopping_while_asked(void **state)
{
	struct rig_client c;

	(void)state;
	begin();
	request(&c, "/ws/a", "");
	rig_control(&r, &(struct rec){.type = REC_DRAIN, .arg = {1001, 0}}, (struct slice){0});
	settle();
	pass(100);
	is_status(&c, 503);
	gone(&c);
	end();
}

/* libcurl looks names up in a thread, with this in place of the C library's: a resolver that hangs. */
static unsigned lookups;
static sem_t resolver;

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	(void)node;
	(void)service;
	(void)hints;
	*res = NULL;
	__atomic_add_fetch(&lookups, 1, __ATOMIC_SEQ_CST);
	sem_wait(&resolver);
	return EAI_AGAIN;
}

static void a_resolver_that_hangs(void **state)
{
	struct rig_client c, d;
	uint64_t before, longest = 0;

	(void)state;
	prepare();
	assert_int_equal(sem_init(&resolver, 0, 0), 0);
	hook.url = (char *)(uintptr_t) "http://slow.example/hook";
	hook.timeout = 300;
	start();
	request(&c, "/ws/a", "");
	request(&d, "/ws/a", "");
	for (int i = 0; i < TURNS && __atomic_load_n(&lookups, __ATOMIC_SEQ_CST) == 0; i++)
		turn();
	assert_int_equal(__atomic_load_n(&lookups, __ATOMIC_SEQ_CST) > 0, 1);
	gone(&d);                                     /* cancelled */
	for (int i = 0; i < 1000 && !c.is_eof; i++) { /* timed out */
		struct pollfd p = {.fd = c.fd, .events = POLLIN};

		poll(&p, 1, 5);
		before = clock_mono_ms();
		turn();
		longest = u64_max(longest, clock_mono_ms() - before);
		rig_read(&c, 0);
	}
	assert_true(has_text(&c, "HTTP/1.1 503 "));
	assert_true(longest <
		    5000); /* the thread still hangs: with a turn that waited for it this test would, too */
	gone(&c);
	end();
	for (unsigned i = 0; i < 8; i++)
		sem_post(&resolver);
}

/* ---- breaker */

static void the_breaker(void **state)
{
	struct rig_client c;
	struct asked a;

	(void)state;
	prepare();
	hook.breaker_failures = 3;
	hook.breaker_pause = 2000;
	start();
	for (int i = 0; i < 3; i++) {
		request(&c, "/ws/a", "");
		take(&a);
		answer(&a, 500, "");
		close(a.fd);
		is_status(&c, 503);
		gone(&c);
	}
	request(&c, "/ws/a", ""); /* not even asked */
	is_status(&c, 503);
	gone(&c);
	assert_int_equal(RIG_COUNT(&r, hook_requests), 3);
	assert_int_equal(RIG_COUNT(&r, hook_open), 1);
	pass(2100);
	request(&c, "/ws/a", ""); /* on trial; it vanishes, so the next is */
	assert_int_equal(RIG_COUNT(&r, hook_requests), 4);
	gone(&c);
	take_on(&a, accept4(listener, NULL, NULL, SOCK_NONBLOCK));
	close(a.fd);
	request(&c, "/ws/a", "");
	take(&a);
	answer(&a, 500, "");
	close(a.fd);
	is_status(&c, 503);
	gone(&c);
	request(&c, "/ws/a", "");
	is_status(&c, 503);
	gone(&c);
	assert_int_equal(RIG_COUNT(&r, hook_open), 2);
	pass(2100);
	request(&c, "/ws/a", "");
	allow("{\"allow\":true}");
	is_open(&c);
	gone(&c);
	request(&c, "/ws/a", ""); /* closed again */
	allow("{\"allow\":true}");
	is_open(&c);
	gone(&c);
	end();
}

/* ---- cache */

static void cached_verdicts(void **state)
{
	struct rig_client c;

	(void)state;
	prepare();
	hook.cache_key = &cookie_key;
	hook.n_cache_key = 1;
	hook.cache_ttl = 15000;
	start();
	request(&c, "/ws/a", "Cookie: sid=1\r\n");
	allow("{\"allow\":true,\"user\":\"u\",\"groups\":[\"g\"]}");
	is_open(&c);
	gone(&c);
	request(&c, "/ws/a", "Cookie: other=2; sid=1\r\n");
	is_open(&c);
	assert_memory_equal(session_user(r.w, session_of(r.w, rig_conn(&r, &c))).p, "u", 1);
	assert_int_equal(RIG_COUNT(&r, hook_cached), 1);
	gone(&c);
	/* Another cookie, another room, no cookie at all: asked. */
	request(&c, "/ws/a", "Cookie: sid=2\r\n");
	allow("{\"allow\":false}");
	is_status(&c, 403);
	gone(&c);
	request(&c, "/ws/b", "Cookie: sid=1\r\n");
	allow("{\"allow\":true}");
	is_open(&c);
	gone(&c);
	for (int i = 0; i < 2; i++) {
		request(&c, "/ws/a", "");
		allow("{\"allow\":true}");
		is_open(&c);
		gone(&c);
	}
	/* A refusal is remembered as well; a change is not slept through; nor is the end of the time. */
	request(&c, "/ws/a", "Cookie: sid=2\r\n");
	is_status(&c, 403);
	gone(&c);
	auth_uncache_user(r.w, (struct slice){"u", 1});
	request(&c, "/ws/a", "Cookie: sid=1\r\n");
	allow("{\"allow\":true,\"user\":\"u\"}");
	is_open(&c);
	gone(&c);
	pass(15100);
	request(&c, "/ws/a", "Cookie: sid=1\r\n");
	allow("{\"allow\":true,\"user\":\"u\"}");
	is_open(&c);
	gone(&c);
	assert_int_equal(RIG_COUNT(&r, hook_cached), 2);
	end();
}

/* ---- later */

static void asked_again(void **state)
{
	struct rig_client c;
	struct asked a;

	(void)state;
	prepare();
	hook.recheck = 10000;
	start();
	request(&c, "/ws/a?x=1", "Cookie: sid=1\r\n");
	allow("{\"allow\":true,\"user\":\"u\",\"groups\":[\"g\"]}");
	is_open(&c);
	pass(8000);
	assert_false(is_asked());
	pass(3200);
	take(&a);
	assert_non_null(strstr(a.body, "\"event\":\"recheck\""));
	assert_non_null(strstr(a.body, "\"room\":\"a\""));
	assert_non_null(strstr(a.body, "\"query\":\"x=1\""));
	assert_non_null(strstr(a.body, "sid=1"));
	answer(&a, 200, "{\"allow\":true,\"user\":\"u\",\"groups\":[\"h\",\"i\"]}");
	close(a.fd);
	assert_int_equal(user_n_groups(user(&c)), 2);
	pass(11200);
	take(&a); /* it can't say: who is in stays in */
	answer(&a, 500, "");
	close(a.fd);
	assert_int_equal(rig_conn(&r, &c)->state, CONN_OPEN);
	pass(11200);
	take(&a);
	answer(&a, 200, "{\"allow\":false,\"code\":4001,\"reason\":\"logged out\"}");
	close(a.fd);
	rig_expect_close(&r, &c, 4001);
	assert_int_equal(RIG_COUNT(&r, evicted), 1);
	gone(&c);
	request(&c, "/ws/a", "");
	allow("{\"allow\":true,\"user\":\"u\"}");
	is_open(&c);
	pass(11200);
	allow("{\"allow\":true,\"user\":\"v\"}");
	rig_expect_close(&r, &c, 1008);
	gone(&c);
	request(&c, "/ws/a", ""); /* leaves while it is asked about */
	allow("{\"allow\":true,\"user\":\"u\"}");
	is_open(&c);
	pass(11200);
	assert_true(is_asked());
	rig_send_close(&c, 1000);
	settle();
	gone(&c);
	assert_int_equal(r.w->conns.n, 0);
	end();
}

static void expiry(void **state)
{
	struct rig_client c;
	char body[100];

	(void)state;
	begin();
	request(&c, "/ws/a", "");
	snprintf(body, sizeof(body), "{\"allow\":true,\"expires_at\":%" PRIu64 "}",
		 clock_wall_ms() / 1000 + 1);
	allow(body);
	is_open(&c);
	for (int i = 0; i < 200 && c.close_code == 0; i++) {
		struct pollfd p = {.fd = c.fd, .events = POLLIN};
		struct rig_frame f;

		poll(&p, 1, 20);
		pass(50);
		rig_read(&c, 0);
		(void)rig_frame(&c, &f);
	}
	assert_int_equal(c.close_code, 1008);
	assert_int_equal(RIG_COUNT(&r, evicted), 1);
	gone(&c);
	end();
}

static void groups_that_change_meanwhile(void **state)
{
	struct rig_client c;
	struct asked a;
	const struct slice g = {"g", 1}, h = {"h", 1}, u = {"u", 1}, v = {"v", 1};

	(void)state;
	begin();
	request(&c, "/ws/a", "");
	take(&a);
	auth_note_group_change(r.w, g, u, false);
	auth_note_group_change(r.w, h, u, true);
	auth_note_group_change(r.w, g, v, true);
	answer(&a, 200, "{\"allow\":true,\"user\":\"u\",\"groups\":[\"g\"]}");
	close(a.fd);
	is_open(&c);
	is_group(&c, "h");
	gone(&c);
	/* What happened before is in the answer. */
	request(&c, "/ws/a", "");
	allow("{\"allow\":true,\"user\":\"u\",\"groups\":[\"g\"]}");
	is_open(&c);
	is_group(&c, "g");
	gone(&c);
	/* More than is kept: asked once more. */
	request(&c, "/ws/a", "");
	take(&a);
	for (int i = 0; i < 2000; i++)
		auth_note_group_change(r.w, g, v, i % 2 == 0);
	answer(&a, 200, "{\"allow\":true,\"user\":\"u\",\"groups\":[\"g\"]}");
	assert_int_equal(rig_conn(&r, &c)->state, CONN_AUTHORIZING);
	take_on(&a, a.fd);
	answer(&a, 200, "{\"allow\":true,\"user\":\"u\",\"groups\":[\"h\"]}");
	close(a.fd);
	is_open(&c);
	is_group(&c, "h");
	gone(&c);
	end();
}

static void forwarded_messages(void **state)
{
	static struct cfg_rule rule = {.action = CFG_ACTION_FORWARD};
	struct rig_client c;
	struct asked a;
	struct rig_frame f;
	struct conn *conn;

	(void)state;
	prepare();
	hook.concurrency = 40;
	start();
	request(&c, "/ws/a", "");
	allow("{\"allow\":true}");
	is_open(&c);
	assert_false(
		auth_forward(r.w, rig_conn(&r, &c), (struct slice){"x", 1})); /* nothing was kept for it */
	gone(&c);
	r.namespaces[RIG_DEMO].rules = &rule;
	r.namespaces[RIG_DEMO].n_rules = 1;
	request(&c, "/ws/a", "Cookie: sid=1\r\n");
	allow("{\"allow\":true}");
	is_open(&c);
	conn = rig_conn(&r, &c);
	assert_true(auth_forward(r.w, conn, (struct slice){"{\"type\":\"q\"}", 12}));
	take(&a);
	assert_non_null(strstr(a.body, "\"event\":\"message\""));
	assert_non_null(strstr(a.body, "\"message\":\"{\\\"type\\\":\\\"q\\\"}\""));
	answer(&a, 200, "{\"frames\":[{\"n\":1},\"two\"]}");
	rig_expect(&r, &c, "{\"n\":1}");
	assert_true(rig_frame(&c, &f));
	assert_memory_equal(f.payload, "two", 3);
	assert_true(auth_forward(r.w, conn, (struct slice){"", 0}));
	take_on(&a, a.fd);
	assert_non_null(strstr(a.body, "\"message\":\"\""));
	answer(&a, 500, "");
	rig_expect_nothing(&r, &c);
	close(a.fd);
	for (unsigned i = 0; i < AUTH_FORWARDS_MAX; i++)
		assert_true(auth_forward(r.w, conn, (struct slice){"m", 1}));
	assert_false(auth_forward(r.w, conn, (struct slice){"m", 1}));
	assert_int_equal(RIG_COUNT(&r, forwards_dropped), 3);
	gone(&c); /* with eight under way */
	assert_int_equal(r.w->conns.n, 0);
	end();
}

static void a_worker_ends_with_all_under_way(void **state)
{
	struct rig_client c[8];

	(void)state;
	begin();
	for (size_t i = 0; i < 8; i++)
		request(&c[i], "/ws/a", "");
	end();
	for (size_t i = 0; i < 8; i++)
		rig_hang_up(&c[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_request_tells_all),
		cmocka_unit_test(connections_are_kept),
		cmocka_unit_test(early_bytes_and_frames_in_order),
		cmocka_unit_test(many_first_frames_for_a_slow_reader),
		cmocka_unit_test(refusals),
		cmocka_unit_test(refusals_after_the_upgrade),
		cmocka_unit_test(an_answer_without_end),
		cmocka_unit_test(gone_while_asked),
		cmocka_unit_test(the_hook_never_answers),
		cmocka_unit_test(the_handshake_takes_too_long),
		cmocka_unit_test(waiting_counts_into_the_timeout),
		cmocka_unit_test(stopping_while_asked),
		cmocka_unit_test(a_resolver_that_hangs),
		cmocka_unit_test(the_breaker),
		cmocka_unit_test(cached_verdicts),
		cmocka_unit_test(asked_again),
		cmocka_unit_test(expiry),
		cmocka_unit_test(groups_that_change_meanwhile),
		cmocka_unit_test(forwarded_messages),
		cmocka_unit_test(a_worker_ends_with_all_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
