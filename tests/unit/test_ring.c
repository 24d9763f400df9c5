/* LINK: shm/ring.c shm/seg.c shm/record.c */
#include "tests/unit/shm_rig.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#define SIZE 4096u

static void region_is_contiguous_over_its_end(void **state)
{
	struct shm_rig g;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	g.data[0] = 17;
	g.data[SIZE - 1] = 18;
	assert_int_equal(g.data[SIZE], 17);
	assert_int_equal(g.data[2 * SIZE - 1], 18);
	g.data[SIZE + 5] = 19;
	assert_int_equal(g.data[5], 19);
	/* The page in front of the region is the header's, not the region's end. */
	assert_int_equal(((struct ring_hdr *)(g.data - SEG_PAGE))->magic, RING_MAGIC);
	rig_close(&g);
}

static void store_and_load_keep_to_their_length(void **state)
{
	uint64_t from[4], memory[6], to[6];

	(void)state;
	for (size_t len = 0; len <= sizeof(from); len++) {
		memset(from, 0x5a, sizeof(from));
		memset(memory, 0xee, sizeof(memory));
		ring_store(memory, from, len);
		assert_memory_equal(memory, from, len);
		/* zeroed to the word's end, then untouched */
		for (size_t i = len; i < sizeof(memory); i++)
			assert_int_equal(((uint8_t *)memory)[i], i < ALIGN_UP(len, (size_t)8) ? 0 : 0xee);
		memset(to, 0x11, sizeof(to));
		ring_load(to, memory, len);
		assert_memory_equal(to, from, len);
		for (size_t i = len; i < sizeof(to); i++)
			assert_int_equal(((uint8_t *)to)[i], 0x11);
	}
	/* A source that is not aligned. */
	memcpy((uint8_t *)from + 3, "abcdefghij", 10);
	ring_store(memory, (uint8_t *)from + 3, 10);
	assert_memory_equal(memory, "abcdefghij", 10);
}

static void attach_refuses_what_is_not_this_ring(void **state)
{
	struct shm_rig g;
	struct ring r;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	errno = 0;
	assert_int_equal(ring_attach(&r, g.producer.hdr, g.data, 2 * SIZE), -1);
	assert_int_equal(errno, EPROTO);
	g.producer.hdr->layout++;
	assert_int_equal(ring_attach(&r, g.producer.hdr, g.data, SIZE), -1);
	g.producer.hdr->layout--;
	g.producer.hdr->magic ^= 1;
	assert_int_equal(ring_attach(&r, g.producer.hdr, g.data, SIZE), -1);
	g.producer.hdr->magic ^= 1;
	assert_int_equal(ring_attach(&r, g.producer.hdr, g.data, SIZE), 0);
	rig_close(&g);
}

static void a_producer_that_comes_back_goes_on(void **state)
{
	struct shm_rig g;
	struct ring again;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	for (int i = 0; i < 9; i++)
		rig_put(&g, 1024, (uint8_t)i, g.producer.head);
	assert_int_equal(ring_attach(&again, g.producer.hdr, g.data, SIZE), 0);
	assert_int_equal(again.head, g.producer.head);
	assert_int_equal(again.reclaim, g.producer.reclaim);
	/* A reserve that was not committed leaves nothing. */
	(void)ring_reserve(&g.producer, 1024, g.producer.head);
	assert_int_equal(ring_head(&g.reader), again.head);
	rig_close(&g);
}

static void space_is_counted_to_the_byte(void **state)
{
	struct shm_rig g;
	uint64_t gate = SIZE;

	(void)state;
	rig_open(&g, SIZE, gate);
	assert_int_equal(ring_space(&g.producer, gate), SIZE);
	rig_put(&g, SIZE - RING_ALIGN, 1, gate);
	assert_int_equal(ring_space(&g.producer, gate), RING_ALIGN); /* one alignment short of full */
	assert_int_equal(ring_reclaim(&g.reader), SIZE);             /* nothing had to go */
	rig_put(&g, RING_ALIGN, 2, gate);
	assert_int_equal(ring_space(&g.producer, gate), 0);
	assert_int_equal(ring_reclaim(&g.reader), SIZE);
	assert_true(ring_is_whole(&g.reader, gate));
	gate += RING_ALIGN;
	assert_int_equal(ring_space(&g.producer, gate), RING_ALIGN);
	rig_put(&g, RING_ALIGN, 3, gate);
	/* The reclaim ahead of need stops at the gate. */
	assert_int_equal(ring_reclaim(&g.reader), gate);
	assert_false(ring_is_whole(&g.reader, gate - 1));
	assert_true(ring_is_whole(&g.reader, gate));
	rig_close(&g);
}

static void reclaims_a_little_ahead(void **state)
{
	struct shm_rig g;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	for (int i = 0; i < 4; i++)
		rig_put(&g, 1024, 1, g.producer.head);
	assert_int_equal(ring_reclaim(&g.reader), SIZE);
	rig_put(&g, 16, 1, g.producer.head);
	assert_int_equal(ring_reclaim(&g.reader), SIZE + 16 + SIZE / 64);
	for (unsigned i = 0; i < SIZE / 64 / 16; i++) {
		rig_put(&g, 16, 1, g.producer.head);
		assert_int_equal(ring_reclaim(&g.reader), SIZE + 16 + SIZE / 64);
	}
	rig_put(&g, 16, 1, g.producer.head);
	assert_int_equal(ring_reclaim(&g.reader), SIZE + 32 + 2 * (SIZE / 64));
	rig_close(&g);
}

/* Records of every size over many laps, from a start just below `start + 2 laps`: each is what was written,
 * at its place, and readable in one piece. */
static void check_laps(uint64_t start)
{
	struct shm_rig g;
	uint64_t gate = start;
	uint32_t seed = 1;

	rig_open(&g, SIZE, start);
	for (int i = 0; i < 2000; i++) {
		uint32_t len;
		uint64_t pos;

		seed = seed * 1664525 + 1013904223;
		len = RING_ALIGN * (1 + (seed >> 16) % (SIZE / RING_ALIGN));
		if (ring_space(&g.producer, gate) < len)
			gate = g.producer.head + len - SIZE;
		pos = rig_put(&g, len, (uint8_t)i, gate);
		assert_int_equal(pos + len, ring_head(&g.reader));
		assert_ptr_equal(ring_at(&g.reader, pos), g.data + pos % SIZE);
		for (uint32_t k = 0; k < len; k++)
			assert_int_equal(ring_at(&g.reader, pos)[k], (uint8_t)i);
		assert_true(ring_is_whole(&g.reader, pos));
		assert_true(ring_head(&g.reader) - ring_reclaim(&g.reader) <= SIZE);
		assert_true(ring_reclaim(&g.reader) <= gate || ring_reclaim(&g.reader) == start);
	}
	rig_close(&g);
}

static void records_run_over_the_end(void **state)
{
	(void)state;
	check_laps(SIZE);
	check_laps(2 * SIZE - RING_ALIGN);
}

static void positions_cross_32_bits(void **state)
{
	(void)state;
	check_laps((UINT64_C(1) << 32) - 2 * SIZE);
	check_laps((UINT64_C(1) << 32) - RING_ALIGN);
	check_laps((UINT64_C(1) << 33) - RING_ALIGN);
}

static void a_read_only_mapping_cannot_be_made_writable(void **state)
{
	int fd = seg_create("test-seg", 2 * SEG_PAGE), ro;
	void *p;

	(void)state;
	assert_int_not_equal(fd, -1);
	ro = seg_reopen_readonly(fd);
	assert_int_not_equal(ro, -1);
	assert_null(seg_map(ro, 0, SEG_PAGE, PROT_READ | PROT_WRITE));
	assert_null(seg_map_twice(ro, SEG_PAGE, SEG_PAGE, SEG_PAGE, PROT_READ | PROT_WRITE));
	p = seg_map(ro, 0, SEG_PAGE, PROT_READ);
	assert_non_null(p);
	assert_int_equal(mprotect(p, SEG_PAGE, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(write(ro, "x", 1), -1);
	assert_int_equal(ftruncate(ro, 0), -1);
	seg_unmap(p, SEG_PAGE);
	close(ro);
	close(fd);
}

static void a_segment_keeps_its_size(void **state)
{
	int fd = seg_create("test-seg", SEG_PAGE);

	(void)state;
	assert_int_not_equal(fd, -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 2 * SEG_PAGE), -1);
	close(fd);
}

/* How a child ends that writes to p. */
static int child_writes(uint8_t *p)
{
	pid_t pid = fork();
	int status;

	assert_int_not_equal(pid, -1);
	if (pid == 0) {
		/* The sanitizers' handler would turn the signal into a report. */
		signal(SIGSEGV, SIG_DFL);
		*(volatile uint8_t *)p = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void children_do_not_inherit_what_is_kept_from_them(void **state)
{
	struct shm_rig g;
	int status;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	status = child_writes(g.data);
	assert_true(WIFEXITED(status));
	assert_int_equal(seg_keep_from_children(g.data - SEG_PAGE, SEG_PAGE + 2 * SIZE), 0);
	for (uint8_t *p = g.data - SEG_PAGE; p < g.data + 2 * SIZE; p += SEG_PAGE) {
		status = child_writes(p);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	}
	g.data[0] = 2; /* ours is as it was */
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(region_is_contiguous_over_its_end),
		cmocka_unit_test(store_and_load_keep_to_their_length),
		cmocka_unit_test(attach_refuses_what_is_not_this_ring),
		cmocka_unit_test(a_producer_that_comes_back_goes_on),
		cmocka_unit_test(space_is_counted_to_the_byte),
		cmocka_unit_test(reclaims_a_little_ahead),
		cmocka_unit_test(records_run_over_the_end),
		cmocka_unit_test(positions_cross_32_bits),
		cmocka_unit_test(a_read_only_mapping_cannot_be_made_writable),
		cmocka_unit_test(a_segment_keeps_its_size),
		cmocka_unit_test(children_do_not_inherit_what_is_kept_from_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
