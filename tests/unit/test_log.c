/* LINK: */
/* log: a storm of one event is cut, counted and told; nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"

#define LINES (3 * LOG_STORM)

static char path[] = "/tmp/ringcast-test-log-XXXXXX";

struct seen {
	unsigned written, left_out, others;
};

static struct seen read_log(const char *event)
{
	struct seen seen = {0};
	char line[4096], wanted[64];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	snprintf(wanted, sizeof(wanted), "event=%s ", event);
	while (fgets(line, sizeof(line), f) != NULL) {
		const char *storm = strstr(line, "event=log_storm reason=");

		if (strstr(line, wanted) != NULL)
			seen.written++;
		else if (storm != NULL && strstr(storm, event) != NULL)
			seen.left_out += (unsigned)strtoul(strstr(storm, "total=") + 6, NULL, 10);
		else
			seen.others++;
	}
	fclose(f);
	return seen;
}

static int setup(void **state)
{
	(void)state;
	int fd = mkstemp(path);

	assert_int_not_equal(fd, -1);
	close(fd);
	assert_int_equal(log_open(path), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(log_open(NULL), 0);
	unlink(path);
	memcpy(strrchr(path, '-') + 1, "XXXXXX", 6);
	return 0;
}

static uint64_t second(void)
{
	return clock_mono_ms() / 1000;
}

static void wait_for_next_second(void)
{
	uint64_t now = second();

	while (second() == now)
		usleep(1000);
}

static void a_storm_is_cut_and_every_line_accounted_for(void **state)
{
	(void)state;
	uint64_t first = second();

	for (unsigned i = 0; i < LINES; i++)
		log_event(LOG_INFO, "refused", "total=%u", i);
	log_event(LOG_INFO, "ready", "total=1");
	uint64_t seconds = second() - first + 1;

	wait_for_next_second();
	log_tick();
	struct seen seen = read_log("refused");

	assert_true(seen.written >= LOG_STORM && seen.written <= seconds * LOG_STORM);
	assert_int_equal(seen.written + seen.left_out, LINES);
	assert_int_equal(seen.others, 1);
	log_tick();
	assert_int_equal(read_log("refused").left_out, seen.left_out); /* told once */
}

static void the_next_line_of_the_event_tells_first(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LINES; i++)
		log_event(LOG_INFO, "refused", "total=%u", i);
	wait_for_next_second();
	log_event(LOG_INFO, "refused", "total=1");
	struct seen seen = read_log("refused");

	assert_int_equal(seen.written + seen.left_out, LINES + 1);
}

static void debug_lines_are_not_limited(void **state)
{
	(void)state;
	log_set_level(LOG_DEBUG);
	for (unsigned i = 0; i < LINES; i++)
		log_event(LOG_DEBUG, "sent", "total=%u", i);
	log_set_level(LOG_INFO);
	assert_int_equal(read_log("sent").written, LINES);
}

static void a_child_does_not_tell_what_its_parent_left_out(void **state)
{
	(void)state;
	for (unsigned i = 0; i < LINES; i++)
		log_event(LOG_INFO, "refused", "total=%u", i);
	log_set_proc("worker.0");
	wait_for_next_second();
	unsigned before = read_log("refused").left_out;

	log_tick();
	assert_int_equal(read_log("refused").left_out, before);
	log_set_proc("master");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_storm_is_cut_and_every_line_accounted_for, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_line_of_the_event_tells_first, setup, teardown),
		cmocka_unit_test_setup_teardown(debug_lines_are_not_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(a_child_does_not_tell_what_its_parent_left_out, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
