/* LINK: shm/ring.c shm/seg.c shm/uplink.c */
#include "tests/unit/shm_rig.h"

#include <stdlib.h>

#include "shm/uplink.h"

#define SIZE 4096u

static bool push(struct shm_rig *g, size_t name_len, size_t payload_len, bool want)
{
	static const char bytes[SIZE] = "the bytes";
	struct up_rec h = {.type = UP_PUBLISH,
			   .opcode = 2,
			   .ns = 3,
			   .total = 4,
			   .request = 5,
			   .source = 6,
			   .flags = 7,
			   .throttle_key = 8,
			   .throttle_ms = 9,
			   .throttle_value = 10};

	return uplink_push(&g->producer, &h, (struct slice){bytes, name_len},
			   (struct slice){bytes, payload_len}, want);
}

static void what_goes_up_comes_out(void **state)
{
	struct shm_rig g;
	struct up_view v;
	uint64_t pos = SIZE;

	(void)state;
	rig_open(&g, SIZE, pos);
	assert_int_equal(uplink_peek(&g.reader, pos, &v), UP_NONE);
	for (size_t name = 0; name < 12; name++) {
		for (size_t payload = 0; payload < 300; payload += 7) {
			assert_true(push(&g, name, payload, false));
			assert_int_equal(uplink_peek(&g.reader, pos, &v), UP_RECORD);
			assert_int_equal(v.h.type, UP_PUBLISH);
			assert_int_equal(v.h.opcode, 2);
			assert_int_equal(v.h.ns, 3);
			assert_int_equal(v.h.total, 4);
			assert_int_equal(v.h.request, 5);
			assert_int_equal(v.h.source, 6);
			assert_int_equal(v.h.flags, 7);
			assert_int_equal(v.h.throttle_key, 8);
			assert_int_equal(v.h.throttle_ms, 9);
			assert_int_equal(v.h.throttle_value, 10);
			assert_int_equal(v.room.len, name);
			assert_int_equal(v.payload.len, payload);
			assert_memory_equal(v.room.p, "the bytes\0\0\0", name);
			assert_memory_equal(v.payload.p, "the bytes", payload < 9 ? payload : 9);
			assert_int_equal(v.end, ring_head(&g.reader));
			pos = v.end;
			assert_int_equal(uplink_peek(&g.reader, pos, &v), UP_NONE);
			assert_false(uplink_release(&g.reader, pos));
		}
	}
	rig_close(&g);
}

static void full_is_full_to_the_byte(void **state)
{
	struct shm_rig g;
	struct up_view v;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	assert_true(push(&g, 0, SIZE - 48 - 40, false)); /* SIZE - 48 */
	assert_false(push(&g, 0, 24, false));            /* 64: one alignment too much */
	assert_true(push(&g, 0, 8, false));              /* 48 */
	assert_false(push(&g, 0, 0, false));
	assert_int_equal(g.producer.hdr->starving, 0); /* nobody wanted to be told */
	assert_int_equal(uplink_peek(&g.reader, SIZE, &v), UP_RECORD);
	assert_false(uplink_release(&g.reader, v.end));
	assert_true(push(&g, 0, SIZE - 48 - 40, false));
	rig_close(&g);
}

static void never_fits(void **state)
{
	struct shm_rig g;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	assert_true(push(&g, 0, SIZE - 40, false)); /* the whole ring */
	rig_close(&g);
	rig_open(&g, SIZE, SIZE);
	assert_false(push(&g, 0, SIZE - 39, true)); /* one byte more */
	assert_int_equal(ring_head(&g.reader), SIZE);
	rig_close(&g);
}

static void a_starving_worker_is_told_once(void **state)
{
	struct shm_rig g;
	struct up_view v;
	uint64_t pos = SIZE;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	while (push(&g, 0, 1000, true))
		;
	assert_int_equal(g.producer.hdr->starving, 1);
	assert_int_equal(uplink_peek(&g.reader, pos, &v), UP_RECORD);
	pos = v.end;
	assert_true(uplink_release(&g.reader, pos));
	assert_int_equal(g.producer.hdr->starving, 0);
	assert_int_equal(uplink_peek(&g.reader, pos, &v), UP_RECORD);
	assert_false(uplink_release(&g.reader, v.end));
	assert_true(push(&g, 0, 1000, true));
	assert_int_equal(g.producer.hdr->starving, 0);
	rig_close(&g);
}

/* What the worker may have written instead of a record, and instead of head. */
static void nonsense_is_broken(void **state)
{
	static const struct {
		uint32_t len, payload;
		uint8_t name_len;
		enum up_peek verdict;
	} v[] = {
		{48, 8, 0, UP_RECORD},
		{48, 0, 8, UP_RECORD},
		{48, 0, 1, UP_RECORD},
		{0, 0, 0, UP_BROKEN},
		{16, 0, 0, UP_BROKEN},
		{32, 0, 0, UP_BROKEN},
		{40, 0, 0, UP_BROKEN},
		{49, 0, 0, UP_BROKEN},
		{47, 0, 0, UP_BROKEN},
		{48, 9, 0, UP_BROKEN},
		{48, 0, 9, UP_BROKEN},
		{48, 1, 1, UP_BROKEN},
		{64, 0, 0, UP_BROKEN},
		{48, UINT32_MAX, 0, UP_BROKEN},
		{48, UINT32_MAX - 39, 0, UP_BROKEN},
		{48, UINT32_MAX - 47, 255, UP_BROKEN},
		{UINT32_MAX, 0, 0, UP_BROKEN},
		{UINT32_MAX - 15, 0, 0, UP_BROKEN},
		{UINT32_MAX & ~15u, UINT32_MAX, 255, UP_BROKEN},
	};
	struct shm_rig g;
	struct up_view view;
	struct up_rec *h;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	assert_true(push(&g, 0, 8, false));
	h = (struct up_rec *)g.data;
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		h->len = v[i].len;
		h->payload = v[i].payload;
		h->name_len = v[i].name_len;
		if (uplink_peek(&g.reader, SIZE, &view) != v[i].verdict)
			fail_msg("case %zu", i);
	}
	rig_close(&g);
}

static void a_head_that_lies_is_broken(void **state)
{
	static const uint64_t bad[] = {
		0,         SIZE - 16,     1,          SIZE + 1,        SIZE + 16,
		SIZE + 31, 2 * SIZE + 16, UINT64_MAX, UINT64_MAX - 15, SIZE + (UINT64_C(1) << 63)};
	struct shm_rig g;
	struct up_view view;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	assert_true(push(&g, 0, 8, false));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		g.producer.hdr->head = bad[i];
		if (uplink_peek(&g.reader, SIZE, &view) != UP_BROKEN)
			fail_msg("head %#llx", (unsigned long long)bad[i]);
	}
	rig_close(&g);
}

static uint32_t random_word(void)
{
	static uint64_t seed = 42;

	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 32);
}

/* Random memory, random heads: a view never leaves what the worker has committed, nor the mapping. */
static void random_memory_never_leads_out(void **state)
{
	struct shm_rig g;
	struct up_view v;
	unsigned verdicts[3] = {0};

	(void)state;
	rig_open(&g, SIZE, SIZE);
	for (int i = 0; i < 200000; i++) {
		uint64_t pos = SIZE + (uint64_t)(i % (SIZE / 16)) * 16, head;
		struct up_rec *h = (struct up_rec *)ring_at(&g.producer, pos);
		enum up_peek p;

		h->len = random_word() & (random_word() % 2 ? 0x17f0 : UINT32_MAX);
		h->payload = random_word() & (random_word() % 2 ? 0x3ff : UINT32_MAX);
		h->name_len = (uint8_t)random_word();
		head = random_word() % 2 ? pos + (random_word() % (2 * SIZE) & ~15u) : pos * random_word();
		g.producer.hdr->head = random_word() % 64 == 0 ? pos : head;
		head = g.producer.hdr->head;
		p = uplink_peek(&g.reader, pos, &v);
		verdicts[p]++;
		if (p != UP_RECORD)
			continue;
		assert_true(v.end > pos && v.end <= head && v.end - pos <= SIZE && v.end % RING_ALIGN == 0);
		assert_true((const uint8_t *)v.room.p >= g.data);
		assert_true(v.room.p + v.room.len <= v.payload.p);
		assert_true((const uint8_t *)v.payload.p + v.payload.len <=
			    ring_at(&g.reader, pos) + (v.end - pos));
		assert_true((const uint8_t *)v.payload.p + v.payload.len <= g.data + 2 * SIZE);
	}
	/* The test has met all three. */
	assert_true(verdicts[UP_NONE] > 1000 && verdicts[UP_RECORD] > 1000 && verdicts[UP_BROKEN] > 1000);
	rig_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_goes_up_comes_out),
		cmocka_unit_test(full_is_full_to_the_byte),
		cmocka_unit_test(never_fits),
		cmocka_unit_test(a_starving_worker_is_told_once),
		cmocka_unit_test(nonsense_is_broken),
		cmocka_unit_test(a_head_that_lies_is_broken),
		cmocka_unit_test(random_memory_never_leads_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
