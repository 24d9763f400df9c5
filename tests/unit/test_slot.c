/* LINK: shm/ring.c shm/seg.c shm/slot.c shm/uplink.c shm/counters.c */
#include "tests/unit/shm_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "shm/counters.h"
#include "shm/globals.h"
#include "shm/slot.h"
#include "shm/uplink.h"

#define UPLINK (256u * 1024u)

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static unsigned count_mappings(void)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		n += strstr(line, "ringcast-slot") != NULL;
	fclose(f);
	return n;
}

static void both_sides_see_one_slot(void **state)
{
	const struct up_rec h = {.type = UP_ADD, .ns = 7};
	struct slot master, worker;
	struct up_view v;

	(void)state;
	assert_int_equal(slot_create(&master, 3, 4, 4096, UPLINK), 0);
	assert_int_equal(slot_attach(&worker, dup(master.fd), UPLINK), 0);
	assert_int_equal(worker.fd, -1);
	assert_int_equal(worker.sh->index, 3);
	assert_int_equal(worker.sh->incarnation, 4);
	assert_int_equal(worker.sh->start, 4096);
	assert_int_equal(slot_cursor(&master), 4096);
	assert_int_equal(slot_skip_to(&worker), 4096);

	slot_set_cursor(&worker, 8192);
	assert_int_equal(slot_cursor(&master), 8192);
	slot_set_skip_to(&master, 9000);
	assert_int_equal(slot_skip_to(&worker), 9000);
	slot_beat(&worker);
	assert_int_equal(slot_heartbeat(&master), 1);

	assert_true(uplink_push(&worker.control, &h, (struct slice){"x", 1}, (struct slice){0}, false));
	assert_int_equal(uplink_peek(&master.control, master.control.head, &v), UP_RECORD);
	assert_int_equal(v.h.ns, 7);
	assert_int_equal(uplink_peek(&master.data, master.data.head, &v), UP_NONE);
	slot_close(&worker);
	slot_close(&master);
}

static void sleep_is_taken_once(void **state)
{
	struct slot s;

	(void)state;
	assert_int_equal(slot_create(&s, 0, 1, 4096, UPLINK), 0);
	assert_false(slot_take_sleeping(&s));
	slot_sleep(&s);
	slot_fence();
	assert_true(slot_take_sleeping(&s));
	assert_false(slot_take_sleeping(&s));
	slot_sleep(&s);
	slot_awake(&s);
	assert_false(slot_take_sleeping(&s));
	slot_close(&s);
}

static void a_nap_is_ended_once_by_each(void **state)
{
	struct globals *g = calloc(1, sizeof(*g));
	uint32_t a = 0, b = 0;

	(void)state;
	assert_non_null(g);
	assert_false(globals_must_wake(g, &a));
	globals_nap(g);
	assert_true(globals_must_wake(g, &a));
	assert_false(globals_must_wake(g, &a));
	assert_true(globals_must_wake(g, &b));
	globals_awake(g);
	globals_awake(g);
	assert_false(globals_must_wake(g, &a));
	globals_nap(g);
	assert_true(globals_must_wake(g, &a));
	globals_nap(g); /* asleep again without having said that it was awake */
	assert_true(globals_must_wake(g, &a));
	free(g);
}

/* The two uplinks and the page in front do not overlap. */
static void regions_are_apart(void **state)
{
	struct slot s;

	(void)state;
	assert_int_equal(slot_create(&s, 0, 1, 4096, UPLINK), 0);
	memset(s.control.data, 0x11, UPLINK_CONTROL_BYTES);
	memset(s.data.data, 0x22, UPLINK);
	assert_int_equal(s.sh->magic, SLOT_MAGIC);
	assert_int_equal(s.control.data[0], 0x11);
	assert_int_equal(s.control.data[2 * UPLINK_CONTROL_BYTES - 1], 0x11);
	assert_int_equal(s.data.data[0], 0x22);
	assert_int_equal(s.data.data[2 * UPLINK - 1], 0x22);
	slot_close(&s);
}

static void attach_refuses_what_is_not_a_slot(void **state)
{
	struct slot master, worker;
	unsigned fds, mappings;
	int fd;

	(void)state;
	assert_int_equal(slot_create(&master, 0, 1, 4096, UPLINK), 0);
	fds = count_fds();
	mappings = count_mappings();
	for (int i = 0; i < 5; i++) {
		uint64_t *word = i == 0   ? &master.sh->magic
				 : i == 1 ? &master.sh->control.magic
					  : &master.sh->data.magic;
		uint32_t *layout = i == 3 ? &master.sh->layout : &master.sh->data.layout;

		fd = dup(master.fd);
		assert_int_not_equal(fd, -1);
		if (i < 3)
			*word ^= 1;
		else
			*layout ^= 1;
		errno = 0;
		assert_int_equal(slot_attach(&worker, fd, UPLINK), -1);
		assert_int_equal(errno, EPROTO);
		if (i < 3)
			*word ^= 1;
		else
			*layout ^= 1;
		close(fd); /* still the caller's */
	}
	/* Another uplink size than it was made with. */
	fd = dup(master.fd);
	assert_int_equal(slot_attach(&worker, fd, UPLINK / 2), -1);
	assert_int_equal(errno, EPROTO);
	close(fd);
	assert_int_equal(slot_attach(&worker, -1, UPLINK), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings(), mappings);
	slot_close(&master);
}

static void nothing_is_left_open(void **state)
{
	unsigned fds = count_fds(), mappings = count_mappings();

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct slot master, worker;

		assert_int_equal(slot_create(&master, 0, (uint32_t)i, 4096, UPLINK), 0);
		assert_int_equal(slot_attach(&worker, dup(master.fd), UPLINK), 0);
		slot_close(&worker);
		slot_close(&master);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_mappings(), mappings);
}

static int status_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void a_child_has_not_its_masters_mapping(void **state)
{
	struct slot master;

	(void)state;
	assert_int_equal(slot_create(&master, 0, 1, 4096, UPLINK), 0);
	for (int i = 0; i < 4; i++) {
		uint8_t *inherited[] = {(uint8_t *)master.sh, master.control.data, master.data.data,
					master.data.data + 2 * UPLINK - 1};
		pid_t pid = fork();
		int status;

		assert_int_not_equal(pid, -1);
		if (pid == 0) {
			signal(SIGSEGV, SIG_DFL);
			*(volatile uint8_t *)inherited[i] = 1;
			_exit(0);
		}
		status = status_of(pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	slot_close(&master);
}

static void a_child_maps_its_own(void **state)
{
	struct slot master, worker;
	pid_t pid;

	(void)state;
	assert_int_equal(slot_create(&master, 0, 1, 4096, UPLINK), 0);
	pid = fork();
	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		if (slot_attach(&worker, master.fd, UPLINK) == -1)
			_exit(1);
		slot_set_cursor(&worker, 5000);
		_exit(0);
	}
	assert_int_equal(status_of(pid), 0);
	assert_int_equal(slot_cursor(&master), 5000);
	slot_close(&master);
}

static void counters_of_a_slot_outlive_its_worker(void **state)
{
	int fd = counters_create();
	struct counters *c;
	const uint8_t *all;

	(void)state;
	assert_int_not_equal(fd, -1);
	c = counters_map_block(fd, 5);
	all = counters_map_all(fd);
	assert_non_null(c);
	assert_non_null(all);
	count_add(&c->sends, 3);
	count_set(&c->connections, 4);
	count_set(&c->ns[2].channels, 5);
	count_latency(c, 100, 2);
	count_latency(c, 101, 1);
	count_latency(c, UINT64_C(20000000), 1);
	counters_zero_gauges(c);
	assert_int_equal(count_get(&counters_block(all, 5)->sends), 3);
	assert_int_equal(count_get(&counters_block(all, 5)->connections), 0);
	assert_int_equal(count_get(&counters_block(all, 5)->ns[2].channels), 0);
	assert_int_equal(count_get(&counters_block(all, 4)->sends), 0);
	assert_int_equal(c->latency[0], 2);
	assert_int_equal(c->latency[1], 1);
	assert_int_equal(c->latency[COUNT_LATENCY_N - 1], 1);
	assert_int_equal(count_closed_index(1013), COUNT_CLOSED_1013);
	assert_int_equal(count_closed_index(4000), COUNT_CLOSED_other);
	assert_string_equal(count_closed_names[COUNT_CLOSED_1009], "1009");
	seg_unmap(c, COUNTERS_BLOCK);
	seg_unmap((void *)(uintptr_t)all, COUNTERS_BYTES);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_sides_see_one_slot),
		cmocka_unit_test(sleep_is_taken_once),
		cmocka_unit_test(a_nap_is_ended_once_by_each),
		cmocka_unit_test(regions_are_apart),
		cmocka_unit_test(attach_refuses_what_is_not_a_slot),
		cmocka_unit_test(nothing_is_left_open),
		cmocka_unit_test(a_child_has_not_its_masters_mapping),
		cmocka_unit_test(a_child_maps_its_own),
		cmocka_unit_test(counters_of_a_slot_outlive_its_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
