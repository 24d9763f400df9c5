/* LINK: tests/unit/worker_rig.c worker/%.c shm/%.c */
/* What the master tells a worker: leave service (TERM, HUP, QUIT), accept or not, gaps. And how a worker
 * listens. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
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

#include "common/wsframe.h"
#include "tests/unit/worker_rig.h"

#define N 100

static struct rig r;
static struct rig_client c[N];

static void begin(unsigned clients)
{
	char path[30];

	rig_init(&r);
	r.config.limits.handshake_timeout = 10000;
	rig_start(&r);
	for (unsigned i = 0; i < clients; i++) {
		snprintf(path, sizeof(path), "/ws/%u", i % 7);
		rig_connect(&r, &c[i], path, 0);
	}
}

static void end(unsigned clients)
{
	for (unsigned i = 0; i < clients; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	rig_check(&r);
	rig_stop(&r);
}

static void tell(enum rec_type type, uint64_t arg0, uint64_t arg1)
{
	struct rec h = {.type = (uint8_t)type, .arg = {arg0, arg1}};

	rig_control(&r, &h, (struct slice){0});
	rig_settle(&r);
}

/* Clients that have got a Close; they answer it as clients do. */
static unsigned closed(unsigned clients, uint16_t code)
{
	unsigned n = 0;

	for (unsigned i = 0; i < clients; i++) {
		struct rig_frame f;

		if (c[i].close_code == 0) {
			rig_read(&c[i], 0);
			while (rig_frame(&c[i], &f))
				;
			if (c[i].close_code != 0 && !c[i].is_eof)
				rig_send_close(&c[i], c[i].close_code);
		}
		if (c[i].close_code != 0)
			assert_int_equal(c[i].close_code, code);
		n += c[i].close_code != 0;
	}
	rig_settle(&r);
	return n;
}

static void term_spreads_its_closes(void **state)
{
	(void)state;
	begin(N);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 1001, 10000);
	assert_int_equal(closed(N, 1001), 0);
	rig_pass(&r, 2500);
	assert_in_range(closed(N, 1001), 20, 27);
	rig_pass(&r, 5000);
	assert_in_range(closed(N, 1001), 70, 77);
	assert_int_equal(r.drained, 0);
	rig_pass(&r, 2700);
	assert_int_equal(closed(N, 1001), N);
	for (unsigned i = 0; i < N; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	rig_pass(&r, 500);
	assert_true(r.drained > 0);
	assert_int_equal(r.w->exit_status, 0);
	assert_int_equal(count_get(&r.w->count->closed[COUNT_CLOSED_1001]), N);
	end(0);
}

static void term_refuses_half_done_handshakes(void **state)
{
	struct rig_client half, joining;

	(void)state;
	begin(2);
	rig_dial(&r, &half, 0);
	r.hold_control = true;
	rig_dial(&r, &joining, 0);
	rig_request(&joining, "/ws/new");
	rig_settle(&r);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 1001, 0);
	rig_read(&half, 0);
	rig_read(&joining, 0);
	assert_memory_equal(half.in.p, "HTTP/1.1 503", 12);
	assert_memory_equal(joining.in.p, "HTTP/1.1 503", 12);
	assert_int_equal(closed(2, 1001), 2);
	r.hold_control = false;
	rig_hang_up(&half);
	rig_hang_up(&joining);
	end(2);
}

/* stop.close_code may be 1012, too: that is no HUP. */
static void term_with_1012_is_still_a_stop(void **state)
{
	struct rig_client half;

	(void)state;
	begin(2);
	rig_dial(&r, &half, 0);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 1012, 0);
	rig_read(&half, 0);
	assert_true(half.in.len > 12);
	assert_memory_equal(half.in.p, "HTTP/1.1 503", 12);
	assert_true(r.w->accept_paused);
	assert_int_equal(closed(2, 1012), 2);
	rig_hang_up(&half);
	end(2);
}

static void hup_finishes_handshakes_then_closes_them(void **state)
{
	struct rig_client half;
	struct rig_frame f;

	(void)state;
	begin(3);
	rig_dial(&r, &half, 0);
	tell(REC_DRAIN, 1012, 0);
	assert_int_equal(closed(3, 1012), 3);
	for (unsigned i = 0; i < 3; i++)
		rig_hang_up(&c[i]);
	rig_settle(&r);
	rig_pass(&r, 1000);
	assert_int_equal(r.drained, 0);
	rig_request(&half, "/ws/late");
	rig_settle(&r);
	rig_read(&half, 0);
	assert_true(rig_take_101(&half));
	rig_pass(&r, 200);
	rig_read(&half, 0);
	assert_true(rig_frame(&half, &f));
	assert_int_equal(half.close_code, 1012);
	rig_hang_up(&half);
	rig_settle(&r);
	rig_pass(&r, 500);
	assert_true(r.drained > 0);
	end(0);
}

/* A worker that a HUP has retired is told to stop while it waits for a handshake. */
static void term_after_hup(void **state)
{
	struct rig_client half;

	(void)state;
	begin(1);
	rig_dial(&r, &half, 0);
	tell(REC_DRAIN, 1012, 0);
	assert_int_equal(closed(1, 1012), 1);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 1001, 0);
	rig_read(&half, 0);
	assert_true(half.in.len > 12);
	assert_memory_equal(half.in.p, "HTTP/1.1 503", 12);
	rig_hang_up(&half);
	end(1);
}

/* The stop spreads its closes anew over those that are left. */
static void term_in_the_middle_of_a_spread_hup(void **state)
{
	unsigned n = 0;

	(void)state;
	begin(60);
	tell(REC_DRAIN, 1012, 10000);
	rig_pass(&r, 5000);
	assert_in_range(closed(60, 1012), 25, 33);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 1001, 10000);
	rig_pass(&r, 5000);
	for (unsigned i = 0; i < 60; i++) {
		rig_read(&c[i], 0);
		while (rig_frame(&c[i], &(struct rig_frame){0}))
			;
		n += c[i].close_code == 1001;
	}
	assert_in_range(n, 10, 18);
	end(60);
}

static void quit_waits_then_term_hurries(void **state)
{
	(void)state;
	begin(10);
	atomic_store(&r.globals->is_stopping, 1u);
	tell(REC_DRAIN, 0, 0);
	rig_pass(&r, 20000);
	assert_int_equal(closed(10, 0), 0);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "3"), "still served", 12);
	rig_expect(&r, &c[3], "still served");
	tell(REC_DRAIN, 1001, 1000);
	rig_pass(&r, 1200);
	assert_int_equal(closed(10, 1001), 10);
	end(10);
}

static void quit_ends_when_the_last_one_leaves(void **state)
{
	(void)state;
	begin(2);
	tell(REC_DRAIN, 0, 0);
	rig_hang_up(&c[0]);
	rig_settle(&r);
	rig_pass(&r, 500);
	assert_int_equal(r.drained, 0);
	rig_hang_up(&c[1]);
	rig_settle(&r);
	rig_pass(&r, 500);
	assert_true(r.drained > 0);
	end(0);
}

static void a_drain_closes_slow_clients_too(void **state)
{
	static char big[60000];
	struct rig_client slow;
	struct rig_frame f;

	(void)state;
	begin(0);
	rig_connect(&r, &slow, "/ws/a", 4096);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "a"), big, sizeof(big));
	rig_settle(&r);
	tell(REC_DRAIN, 1001, 0);
	while (slow.close_code == 0) {
		rig_settle(&r);
		while (rig_frame(&slow, &f))
			assert_true(f.opcode == WS_CLOSE || f.len == sizeof(big));
		if (slow.close_code == 0)
			assert_true(rig_read(&slow, 0) > 0);
	}
	assert_int_equal(slow.close_code, 1001);
	rig_hang_up(&slow);
	end(0);
}

static void a_gap_closes_who_asked_for_it(void **state)
{
	struct rec h = {.type = REC_GAP, .ns = RIG_DEMO + 3};
	struct rig_client other;

	(void)state;
	rig_init(&r);
	r.namespaces[RIG_DEMO].on_gap_close = true;
	rig_start(&r);
	rig_connect(&r, &c[0], "/ws/a", 0);
	rig_connect(&r, &other, "/skip/a", 0);
	rig_control(&r, &h, (struct slice){0});
	rig_expect_close(&r, &c[0], 1013);
	rig_expect_nothing(&r, &other);
	rig_hang_up(&other);
	end(1);
}

static void control_records_of_others_are_not_ours(void **state)
{
	struct rec h = {.type = REC_DRAIN, .slot = 5, .incarnation = 7, .arg = {1001}};

	(void)state;
	begin(1);
	(void)rec_commit(&r.ring, slot_cursor(&r.slot), &h, (struct slice){0}, (struct slice){0}, 0);
	h = (struct rec){
		.type = REC_DRAIN, .slot = 0, .incarnation = 6, .arg = {1001}}; /* our predecessor's */
	(void)rec_commit(&r.ring, slot_cursor(&r.slot), &h, (struct slice){0}, (struct slice){0}, 0);
	rig_settle(&r);
	assert_false(r.w->is_draining);
	h = (struct rec){.type = REC_DRAIN, .slot = REC_ALL, .arg = {1001}};
	(void)rec_commit(&r.ring, slot_cursor(&r.slot), &h, (struct slice){0}, (struct slice){0}, 0);
	rig_settle(&r);
	assert_true(r.w->is_draining);
	end(1);
}

/* ---------------------------------------------------------------- listening */

static int dial_tcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				.sin_port = htons(r.listen_port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Turn until the worker holds `n` connections. */
static bool turn_until(uint32_t n)
{
	for (int i = 0; i < 2000; i++) {
		rig_admin_turn(&r);
		if (r.w->conns.n == n)
			return true;
		poll(NULL, 0, i > 100); /* the loopback is another core's work */
	}
	return false;
}

/* The first line of what has come, within a bounded time. */
static void expect_status(int fd, const char *status)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char text[300] = "";

	for (int i = 0; i < 2000; i++) {
		rig_admin_turn(&r);
		if (poll(&p, 1, 1) > 0)
			break;
	}
	assert_true(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT) > 0);
	assert_memory_equal(text, status, strlen(status));
}

static void a_full_worker_refuses_what_is_queued_and_comes_back(void **state)
{
	int fd[8];

	(void)state;
	begin(0);
	r.w->conns.max = 3; /* also fewer than the gap that keeps a large worker from flapping */
	for (int i = 0; i < 3; i++)
		assert_true((fd[i] = dial_tcp()) >= 0);
	assert_true(turn_until(3));
	for (int i = 3; i < 5; i++)
		fd[i] = dial_tcp();
	/* Two may have been queued before it left the group: those are told so. */
	for (int i = 3; i < 5; i++) {
		if (fd[i] < 0)
			continue;
		expect_status(fd[i], "HTTP/1.1 503");
	}
	assert_true(r.w->acceptors[0].is_left);
	assert_int_equal(dial_tcp(), -1);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	assert_true(turn_until(0));
	assert_false(r.w->acceptors[0].is_left);
	assert_true((fd[0] = dial_tcp()) >= 0);
	assert_true(turn_until(1));
	close(fd[0]);
	assert_true(turn_until(0));
	for (int i = 3; i < 5; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	end(0);
}

static void queued_ones_are_refused_not_reset(void **state)
{
	int fd[10];

	(void)state;
	begin(0);
	r.w->conns.max = 2;
	for (int i = 0; i < 10; i++)
		assert_true((fd[i] = dial_tcp()) >= 0);
	assert_true(turn_until(2));
	for (int i = 2; i < 10; i++) {
		expect_status(fd[i], "HTTP/1.1 503");
		close(fd[i]);
	}
	assert_int_equal(count_get(&r.w->count->refused[COUNT_REFUSED_full]), 8);
	close(fd[0]);
	close(fd[1]);
	assert_true(turn_until(0));
	end(0);
}

static void too_many_handshakes(void **state)
{
	int a, b;

	(void)state;
	rig_init(&r);
	r.config.limits.max_handshakes = 1;
	rig_start(&r);
	assert_true((a = dial_tcp()) >= 0);
	assert_true(turn_until(1));
	assert_true((b = dial_tcp()) >= 0);
	expect_status(b, "HTTP/1.1 503");
	close(a);
	close(b);
	assert_true(turn_until(0));
	end(0);
}

static void max_connections_counts_all_workers(void **state)
{
	int fd;

	(void)state;
	rig_init(&r);
	r.config.limits.max_connections = 10;
	rig_start(&r);
	atomic_store(&r.globals->n_slots, 2u);
	atomic_store(&r.globals->worker[1].state, (uint32_t)WORKER_SERVE);
	count_set(&r.blocks[1]->connections, 8);
	count_set(&r.blocks[1]->handshaking, 2);
	assert_true((fd = dial_tcp()) >= 0);
	expect_status(fd, "HTTP/1.1 503");
	close(fd);
	count_set(&r.blocks[1]->handshaking, 1);
	assert_true((fd = dial_tcp()) >= 0);
	assert_true(turn_until(1));
	close(fd);
	assert_true(turn_until(0));
	count_set(&r.blocks[1]->connections, 100);
	atomic_store(&r.globals->worker[1].state, (uint32_t)WORKER_EMPTY); /* gone: does not count */
	assert_true((fd = dial_tcp()) >= 0);
	assert_true(turn_until(1));
	close(fd);
	assert_true(turn_until(0));
	end(0);
}

/* No descriptors left, in this process or on the host: a pause, not the end of accepting. */
static void out_of_descriptors_for_a_while(void **state)
{
	struct rlimit old, low;
	int fd, next;

	(void)state;
	begin(0);
	assert_true((fd = dial_tcp()) >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	next = dup(0);
	assert_true(next >= 0);
	close(next);
	low = old;
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	for (int i = 0; i < 100; i++)
		rig_admin_turn(&r);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(r.w->conns.n, 0);
	assert_false(ev_is_active(&r.w->acceptors[0].io)); /* it does not spin */
	rig_pass(&r, 1500);
	assert_true(ev_is_active(&r.w->acceptors[0].io));
	assert_true(turn_until(1));
	close(fd);
	assert_true(turn_until(0));
	end(0);
}

static void winch_pauses_and_goes_on(void **state)
{
	int fd;

	(void)state;
	begin(1);
	tell(REC_ACCEPT, 0, 0);
	assert_int_equal(dial_tcp(), -1);
	rig_publish(&r, rig_channel(&r, RIG_DEMO, "0"), "served", 6);
	rig_expect(&r, &c[0], "served");
	tell(REC_ACCEPT, 1, 0);
	assert_true((fd = dial_tcp()) >= 0);
	assert_true(turn_until(2));
	close(fd);
	assert_true(turn_until(1));
	end(1);
}

/* At a HUP the successor serves the same listening socket: it must stay in the group. */
static void hup_leaves_the_listener_listening(void **state)
{
	int fd;

	(void)state;
	begin(0);
	rig_connect(&r, &c[0], "/ws/a", 0);
	tell(REC_DRAIN, 1012, 0);
	assert_true((fd = dial_tcp()) >= 0);
	for (int i = 0; i < 50; i++)
		rig_admin_turn(&r);
	assert_int_equal(r.w->conns.n_handshaking, 0); /* it is not ours to accept */
	close(fd);
	end(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(term_spreads_its_closes),
		cmocka_unit_test(term_refuses_half_done_handshakes),
		cmocka_unit_test(term_with_1012_is_still_a_stop),
		cmocka_unit_test(hup_finishes_handshakes_then_closes_them),
		cmocka_unit_test(term_after_hup),
		cmocka_unit_test(term_in_the_middle_of_a_spread_hup),
		cmocka_unit_test(quit_waits_then_term_hurries),
		cmocka_unit_test(quit_ends_when_the_last_one_leaves),
		cmocka_unit_test(a_drain_closes_slow_clients_too),
		cmocka_unit_test(a_gap_closes_who_asked_for_it),
		cmocka_unit_test(control_records_of_others_are_not_ours),
		cmocka_unit_test(a_full_worker_refuses_what_is_queued_and_comes_back),
		cmocka_unit_test(queued_ones_are_refused_not_reset),
		cmocka_unit_test(too_many_handshakes),
		cmocka_unit_test(max_connections_counts_all_workers),
		cmocka_unit_test(out_of_descriptors_for_a_while),
		cmocka_unit_test(winch_pauses_and_goes_on),
		cmocka_unit_test(hup_leaves_the_listener_listening),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
