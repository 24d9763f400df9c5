/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* The admin listener over real sockets: HTTP as clients of other authors speak it, and what it may cost the
 * worker. */
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/json.h"
#include "tests/unit/worker_rig.h"
#include "worker/admin.h"

static struct rig r;
static char answer[1 << 20];

static void begin(void)
{
	rig_init(&r);
	rig_start(&r);
}

static void end(void)
{
	for (int i = 0; i < 1000 && r.w->admin->n > 0; i++) {
		rig_admin_turn(&r);
		poll(NULL, 0, i > 10);
	}
	assert_int_equal(r.w->admin->n, 0);
	rig_check(&r);
	rig_stop(&r);
}

static void say(int fd, const char *text)
{
	rig_admin_send(&r, fd, text, strlen(text));
}

static void expect(int fd, const char *start)
{
	assert_true(rig_admin_answer(&r, fd, answer, sizeof(answer)) > 0);
	assert_memory_equal(answer, start, strlen(start));
}

static void expect_end(int fd)
{
	assert_int_equal(rig_admin_answer(&r, fd, answer, sizeof(answer)), 0);
}

static void kept_and_closed(void **state)
{
	int fd;

	(void)state;
	begin();
	fd = rig_admin(&r);
	for (int i = 0; i < 3; i++) {
		say(fd, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
		expect(fd, "HTTP/1.1 200 OK");
		assert_non_null(strstr(answer, "Connection: keep-alive"));
		assert_non_null(strstr(answer, "\r\n\r\n{\"status\":\"ok\",\"reasons\":[]}"));
	}
	say(fd, "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	expect(fd, "HTTP/1.1 ");
	assert_non_null(strstr(answer, "Connection: close"));
	expect_end(fd);
	close(fd);
	fd = rig_admin(&r);
	say(fd, "GET /health HTTP/1.0\r\n\r\n");
	expect(fd, "HTTP/1.1 200 OK");
	expect_end(fd);
	close(fd);
	end();
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	static const char *const paths[] = {"/health", "/nothing", "/ready", "/metrics", "/stats"};
	static const char *const statuses[] = {"200", "404", "200", "200", "200"};
	char all[1000] = "";
	size_t len = 0;
	int fd;

	(void)state;
	begin();
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		len += (size_t)snprintf(all + len, sizeof(all) - len, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n",
					paths[i]);
	fd = rig_admin(&r);
	say(fd, all);
	shutdown(fd, SHUT_WR); /* what is complete is answered all the same */
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		expect(fd, "HTTP/1.1 ");
		assert_memory_equal(answer + 9, statuses[i], 3);
	}
	assert_non_null(strstr(answer, "\"memory\":{"));
	expect_end(fd);
	close(fd);
	end();
}

/* A thousand requests in one read must not hold the fan-out up: one a turn, and none while an answer is
 * unread. */
static void pipelined_requests_take_turns(void **state)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
	char *all = malloc(1000 * sizeof(request));
	size_t n = sizeof(request) - 1, out = 0;
	int fd;

	(void)state;
	assert_non_null(all);
	begin();
	for (size_t i = 0; i < 1000; i++)
		memcpy(all + i * n, request, n);
	fd = rig_admin(&r);
	rig_admin_send(&r, fd, all, 1000 * n);
	free(all);
	for (int i = 0; i < 3000; i++) {
		rig_admin_turn(&r);
		if (r.w->admin->first != NULL) {
			const struct admin_conn *a = r.w->admin->first;

			out = u64_max(out, a->out.len);
		}
	}
	/* Never more than one answer waits. */
	assert_true(out < 100000);
	close(fd);
	end();
}

static void head_has_no_body(void **state)
{
	int fd;

	(void)state;
	begin();
	fd = rig_admin(&r);
	say(fd, "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nHEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
		"HEAD /api/publish HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: "
		"close\r\n\r\n");
	shutdown(fd, SHUT_WR);
	{
		size_t len = 0;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		const char *at = answer;

		for (int i = 0; i < 10000; i++) {
			ssize_t got;

			rig_admin_turn(&r);
			if (poll(&p, 1, 1) <= 0)
				continue;
			got = recv(fd, answer + len, sizeof(answer) - 1 - len, MSG_DONTWAIT);
			if (got <= 0)
				break;
			len += (size_t)got;
		}
		answer[len] = '\0';
		for (int i = 0; i < 3; i++) {
			assert_memory_equal(at,
					    i == 0   ? "HTTP/1.1 200"
					    : i == 1 ? "HTTP/1.1 404"
						     : "HTTP/1.1 405",
					    12);
			assert_non_null(strstr(at, "Content-Length: "));
			at = strstr(at, "\r\n\r\n");
			assert_non_null(at);
			at += 4;
		}
		assert_memory_equal(at, "HTTP/1.1 200", 12);
		assert_non_null(strstr(at, "{\"status\""));
	}
	close(fd);
	end();
}

static void what_is_not_allowed_says_what_is(void **state)
{
	int fd;

	(void)state;
	begin();
	fd = rig_admin(&r);
	say(fd, "GET /api/publish HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(fd, "HTTP/1.1 405");
	assert_non_null(strstr(answer, "\r\nAllow: POST\r\n"));
	say(fd, "DELETE /stats HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(fd, "HTTP/1.1 405");
	assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
	close(fd);
	end();
}

static void publish_and_be_answered(void **state)
{
	static const char body[] = "{\"channel\":\"demo:a\",\"data\":{\"x\": 1}}";
	struct rig_client c;
	char head[200];
	int fd;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	fd = rig_admin(&r);
	snprintf(head, sizeof(head),
		 "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\nExpect: "
		 "100-continue\r\n\r\n",
		 sizeof(body) - 1);
	say(fd, head);
	expect(fd, "HTTP/1.1 100 Continue\r\n\r\n");
	say(fd, body);
	expect(fd, "HTTP/1.1 200");
	assert_non_null(strstr(
		answer,
		"{\"result\":{\"channel\":\"demo:a\",\"seq\":1,\"epoch\":"
		"\"0000000000000063\",\"redis\":\"off\",\"sockets\":3,\"users\":2,\"partial\":false}}"));
	rig_expect(&r, &c, "{\"x\": 1}");
	/* Chunked, and the next request right behind it. */
	say(fd, "POST /api/publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"10\r\n{\"channel\":\"demo\r\n11\r\n:a\",\"text\":\"two\"}\r\n0\r\n\r\nGET /health "
		"HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(fd, "HTTP/1.1 200");
	expect(fd, "HTTP/1.1 200");
	assert_non_null(strstr(answer, "\"ok\""));
	rig_expect(&r, &c, "two");
	close(fd);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

static void too_large_by_its_length(void **state)
{
	char *part = calloc(1, 1 << 16);
	int fd;

	(void)state;
	assert_non_null(part);
	begin();
	/* Who asks first is told before it sends anything. */
	fd = rig_admin(&r);
	say(fd, "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\nExpect: "
		"100-continue\r\n\r\n");
	expect(fd, "HTTP/1.1 413");
	expect_end(fd);
	close(fd);
	/* Who sends at once gets the answer all the same, and we don't keep what it sends. */
	fd = rig_admin(&r);
	say(fd, "POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n");
	for (int i = 0; i < 40; i++)
		rig_admin_send(&r, fd, part, 1 << 16);
	expect(fd, "HTTP/1.1 413");
	assert_true(r.w->admin->first == NULL || r.w->admin->first->in.len == 0);
	close(fd);
	free(part);
	end();
}

static void a_wrong_key_is_refused_without_the_body(void **state)
{
	char key[] = "secret";
	int fd;

	(void)state;
	rig_init(&r);
	r.admins[0].api_key = key;
	rig_start(&r);
	fd = rig_admin(&r);
	say(fd,
	    "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: secreT\r\nContent-Length: 100000\r\n\r\n{");
	expect(fd, "HTTP/1.1 401");
	expect_end(fd);
	close(fd);
	fd = rig_admin(&r);
	say(fd, "POST /api/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: "
		"2\r\n\r\n{}");
	expect(fd, "HTTP/1.1 400");
	close(fd);
	end();
}

/* Bytes that trickle in do not keep a request alive. */
static void one_deadline_for_a_request(void **state)
{
	int fd;

	(void)state;
	begin();
	fd = rig_admin(&r);
	say(fd, "GET /hea");
	for (int i = 0; i < 100 && (r.w->admin->first == NULL || r.w->admin->first->in.len == 0); i++)
		rig_admin_turn(&r);
	assert_non_null(r.w->admin->first);
	{
		double before = ev_timer_remaining(r.w->loop, &r.w->admin->first->deadline);

		for (int i = 0; i < 60; i++) {
			say(fd, "l");
			rig_admin_turn(&r);
			poll(NULL, 0, 2);
		}
		assert_true(r.w->admin->first->in.len > 60);
		ev_now_update(r.w->loop);
		assert_true(ev_timer_remaining(r.w->loop, &r.w->admin->first->deadline) < before - 0.08);
	}
	close(fd);
	end();
}

static void no_descriptor_no_spin(void **state)
{
	struct rlimit old, low;
	int fd, next;

	(void)state;
	begin();
	fd = rig_admin(&r);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	next = dup(0);
	assert_true(next >= 0);
	close(next);
	low = old;
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	for (int i = 0; i < 20; i++) {
		rig_admin_turn(&r);
		poll(NULL, 0, 1);
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_false(ev_is_active(&r.w->admin->listeners[0]));
	r.now_ms = u64_max(r.now_ms, r.w->now_ms);
	rig_pass(&r, 1500);
	assert_true(ev_is_active(&r.w->admin->listeners[0]));
	say(fd, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(fd, "HTTP/1.1 200");
	close(fd);
	end();
}

static void enough_is_enough(void **state)
{
	int fd[5];

	(void)state;
	begin();
	r.w->admin->max = 3;
	for (int i = 0; i < 5; i++) {
		fd[i] = rig_admin(&r);
		say(fd[i], "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
	}
	for (int i = 0; i < 3; i++)
		expect(fd[i], "HTTP/1.1 200");
	assert_int_equal(r.w->admin->n, 3);
	close(fd[0]);
	close(fd[1]);
	expect(fd[3], "HTTP/1.1 200"); /* they waited in the queue */
	expect(fd[4], "HTTP/1.1 200");
	close(fd[2]);
	close(fd[3]);
	close(fd[4]);
	end();
}

/* Bodies that programs parse: JSON all through, whatever the counters are. */
static void stats_are_json(void **state)
{
	struct rig_client c;
	struct buf b = {0};
	enum json_type type;
	bool is_ready;

	(void)state;
	begin();
	rig_connect(&r, &c, "/ws/a", 0);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), "x", 1);
	rig_settle(&r);
	assert_int_equal(stats_json(r.w, &b), 0);
	assert_true(json_validate((struct slice){b.p, b.len}, &type));
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_non_null(strstr(b.p, "\"demo\":{\"connections\":1,\"users\":0,\"channels\":1,"));
	assert_non_null(strstr(b.p, "\"deliveries\":1,"));
	buf_free(&b);
	assert_int_equal(stats_ready(r.w, &b, &is_ready), 0);
	assert_true(is_ready);
	buf_free(&b);
	atomic_store(&r.globals->is_subscribed, 0u);
	atomic_store(&r.globals->is_stopping, 1u);
	atomic_store(&r.globals->generation, 1u);
	assert_int_equal(stats_ready(r.w, &b, &is_ready), 0);
	assert_false(is_ready);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(b.p, "{\"status\":\"not_ready\",\"reasons\":[\"stopping\",\"workers_starting\","
				 "\"redis_not_subscribed\"]}");
	buf_free(&b);
	rig_hang_up(&c);
	rig_settle(&r);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept_and_closed),
		cmocka_unit_test(pipelined_requests_are_answered_in_order),
		cmocka_unit_test(pipelined_requests_take_turns),
		cmocka_unit_test(head_has_no_body),
		cmocka_unit_test(what_is_not_allowed_says_what_is),
		cmocka_unit_test(publish_and_be_answered),
		cmocka_unit_test(too_large_by_its_length),
		cmocka_unit_test(a_wrong_key_is_refused_without_the_body),
		cmocka_unit_test(one_deadline_for_a_request),
		cmocka_unit_test(no_descriptor_no_spin),
		cmocka_unit_test(enough_is_enough),
		cmocka_unit_test(stats_are_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
