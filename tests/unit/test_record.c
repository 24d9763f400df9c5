/* LINK: shm/ring.c shm/seg.c shm/record.c */
#include "tests/unit/shm_rig.h"

#include <stdlib.h>

#include "common/wsframe.h"

#define SIZE 65536u

static uint64_t put(struct shm_rig *g, uint64_t gate, size_t name_len, size_t payload_len, uint64_t prev)
{
	static char name[256], payload[1 << 17];
	struct rec h = {.type = REC_PUBLICATION,
			.opcode = WS_TEXT,
			.ns = 3,
			.hash = 4,
			.seq = 5,
			.time_ns = 6,
			.origin = 7,
			.id = 8,
			.slot = 9,
			.incarnation = 10,
			.arg = {11, 12}};

	if (name[0] == '\0') {
		memset(name, 'n', sizeof(name));
		memset(payload, 'p', sizeof(payload));
	}
	return rec_commit(&g->producer, gate, &h, (struct slice){name, name_len},
			  (struct slice){payload, payload_len}, prev);
}

static void size_counts_every_part(void **state)
{
	(void)state;
	assert_int_equal(rec_size(0, 0), 112); /* 96 + 16 */
	assert_int_equal(rec_size(0, 1), 128);
	assert_int_equal(rec_size(0, 16), 128);
	assert_int_equal(rec_size(0, 17), 144);
	assert_int_equal(rec_size(1, 0), 128);
	assert_int_equal(rec_size(8, 8), 128);
	assert_int_equal(rec_size(8, 9), 144);
	assert_int_equal(rec_size(9, 0), 128);
	assert_int_equal(rec_size(9, 1), 144);
	assert_int_equal(rec_size(0, 16u << 20), (16u << 20) + 112);
	assert_int_equal(rec_size_targeted(0, 0, 8), rec_size(0, 8));
	assert_int_equal(rec_size_targeted(0, 8, 8), 128);
	assert_int_equal(rec_size_targeted(1, 24, 9), 160);
}

static void bytes_of_a_record_are_exact(void **state)
{
	static const struct {
		size_t payload_len, header_len;
		uint8_t header[WS_HEADER_MAX];
	} v[] = {
		{0, 2, {0x81, 0}},
		{1, 2, {0x81, 1}},
		{125, 2, {0x81, 125}},
		{126, 4, {0x81, 126, 0, 126}},
		{65535, 4, {0x81, 126, 0xff, 0xff}},
		{65536, 10, {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
		{65537, 10, {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 1}},
	};
	static const size_t names[] = {0, 1, 7, 8, 9, 200};
	struct shm_rig g;

	(void)state;
	rig_open(&g, 1 << 18, 1 << 18);
	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		for (size_t k = 0; k < ARRAY_LEN(names); k++) {
			uint64_t pos = put(&g, g.producer.head, names[k], v[i].payload_len, 0);
			const uint8_t *at = ring_at(&g.reader, pos);
			const struct rec *h = (const struct rec *)at;
			uint32_t payload_off = (uint32_t)(96 + ALIGN_UP(names[k], (size_t)8) + 16);

			assert_int_equal(pos % RING_ALIGN, 0);
			assert_int_equal(h->len, rec_size(names[k], v[i].payload_len));
			assert_int_equal(pos + h->len, ring_head(&g.reader));
			assert_int_equal(h->next, 0);
			assert_int_equal(h->type, REC_PUBLICATION);
			assert_int_equal(h->opcode, WS_TEXT);
			assert_int_equal(h->ns, 3);
			assert_int_equal(h->hash, 4);
			assert_int_equal(h->seq, 5);
			assert_int_equal(h->time_ns, 6);
			assert_int_equal(h->origin, 7);
			assert_int_equal(h->id, 8);
			assert_int_equal(h->slot, 9);
			assert_int_equal(h->incarnation, 10);
			assert_int_equal(h->arg[0], 11);
			assert_int_equal(h->arg[1], 12);
			assert_int_equal(h->name_len, names[k]);
			assert_int_equal(h->frame_len, v[i].header_len + v[i].payload_len);
			assert_int_equal(h->frame_off, payload_off - v[i].header_len);
			assert_memory_equal(at + h->frame_off, v[i].header, v[i].header_len);
			assert_int_equal(rec_room(h, at).len, names[k]);
			for (size_t b = 0; b < names[k]; b++)
				assert_int_equal(rec_room(h, at).p[b], 'n');
			for (size_t b = 0; b < v[i].payload_len; b++)
				assert_int_equal(at[payload_off + b], 'p');
		}
	}
	rig_close(&g);
}

static void control_has_no_frame(void **state)
{
	struct shm_rig g;
	struct rec h = {.type = REC_SUBSCRIBED, .ns = 2, .slot = 1, .arg = {1, 2}}, copy;
	uint64_t pos;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	pos = rec_commit(&g.producer, g.producer.head, &h, (struct slice){"room", 4}, (struct slice){0}, 0);
	assert_true(rec_peek(&g.reader, pos, &copy));
	assert_int_equal(copy.frame_len, 0);
	assert_int_equal(copy.frame_off, 0);
	assert_null(rec_payload(&copy, ring_at(&g.reader, pos)).p);
	assert_int_equal(copy.targets_len, 0);
	assert_int_equal(copy.type, REC_SUBSCRIBED);
	assert_memory_equal(rec_room(&copy, ring_at(&g.reader, pos)).p, "room", 4);
	rig_close(&g);
}

/* One entry of a targets block; returns the bytes it took. */
static size_t put_target(uint8_t *at, uint64_t hash, uint16_t kind, const char *id)
{
	struct rec_target t = {.hash = hash, .kind = kind, .len = (uint16_t)strlen(id)};

	memset(at, 0, rec_target_size(t.len));
	memcpy(at, &t, offsetof(struct rec_target, id));
	memcpy(at + offsetof(struct rec_target, id), id, t.len);
	return rec_target_size(t.len);
}

static void targets_stand_between_room_and_payload(void **state)
{
	static const char *ids[] = {"1", "1234", "12345", "", "a group"};
	_Alignas(8) uint8_t block[256];
	struct slice targets = {(const char *)block, 0}, payload;
	struct rec h = {.type = REC_PUBLICATION, .opcode = WS_TEXT, .flags = REC_TARGETED}, copy;
	size_t off = 0;
	struct shm_rig g;
	uint64_t pos;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ids); i++)
		targets.len += put_target(block + targets.len, 100 + i,
					  i < 4 ? REC_TARGET_USER : REC_TARGET_GROUP, ids[i]);
	assert_int_equal(targets.len, 16 + 16 + 24 + 16 + 24); /* 12 and the id, in steps of 8 */
	rig_open(&g, SIZE, SIZE);
	pos = rec_commit_targeted(&g.producer, g.producer.head, &h, (struct slice){"room", 4}, targets,
				  (struct slice){"payload", 7}, 0);
	assert_true(rec_peek(&g.reader, pos, &copy));
	assert_int_equal(copy.flags, REC_TARGETED);
	assert_int_equal(copy.targets_len, targets.len);
	assert_int_equal(copy.len, rec_size_targeted(4, targets.len, 7));
	assert_memory_equal(rec_room(&copy, ring_at(&g.reader, pos)).p, "room", 4);
	assert_int_equal(rec_targets(&copy, ring_at(&g.reader, pos)).len, targets.len);
	assert_memory_equal(rec_targets(&copy, ring_at(&g.reader, pos)).p, block, targets.len);
	payload = rec_payload(&copy, ring_at(&g.reader, pos));
	assert_int_equal(payload.len, 7);
	assert_memory_equal(payload.p, "payload", 7);
	assert_memory_equal(ring_at(&g.reader, pos) + copy.frame_off, "\x81\x07payload", 9);
	targets = rec_targets(&copy, ring_at(&g.reader, pos));
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		const struct rec_target *t = rec_target_next(targets, &off);

		assert_non_null(t);
		assert_int_equal(t->hash, 100 + i);
		assert_int_equal(t->kind, i < 4 ? REC_TARGET_USER : REC_TARGET_GROUP);
		assert_int_equal(t->len, strlen(ids[i]));
		assert_memory_equal(t->id, ids[i], t->len);
	}
	assert_null(rec_target_next(targets, &off));
	rig_close(&g);
}

/* What a reader may meet in memory that is being reclaimed. */
static void walk_of_targets_never_leaves_the_block(void **state)
{
	_Alignas(8) uint8_t block[64];
	size_t off, full = put_target(block, 1, REC_TARGET_USER, "0123456789");

	(void)state;
	assert_int_equal(full, 24);
	for (size_t len = 0; len < full; len++) {
		off = 0;
		assert_null(rec_target_next((struct slice){(const char *)block, len}, &off));
		assert_int_equal(off, 0);
	}
	off = 0;
	assert_non_null(rec_target_next((struct slice){(const char *)block, full}, &off));
	assert_null(rec_target_next((struct slice){(const char *)block, full}, &off));
	((struct rec_target *)block)->len = UINT16_MAX;
	off = 0;
	assert_null(rec_target_next((struct slice){(const char *)block, sizeof(block)}, &off));
}

static void payload_of_any_length_is_found(void **state)
{
	static const size_t lens[] = {0, 1, 125, 126, 65535, 65536};
	struct shm_rig g;

	(void)state;
	rig_open(&g, 1 << 18, 1 << 18);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		uint64_t pos = put(&g, g.producer.head, i, lens[i], 0);
		struct slice payload;
		struct rec h;

		assert_true(rec_peek(&g.reader, pos, &h));
		payload = rec_payload(&h, ring_at(&g.reader, pos));
		assert_non_null(payload.p);
		assert_int_equal(payload.len, lens[i]);
		for (size_t b = 0; b < payload.len; b++)
			assert_int_equal(payload.p[b], 'p');
	}
	rig_close(&g);
}

static void chain_is_linked(void **state)
{
	struct shm_rig g;
	uint64_t a, b, c, next;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	a = put(&g, g.producer.head, 1, 10, 0);
	put(&g, g.producer.head, 1, 10, 0); /* another channel's */
	assert_true(rec_next(&g.reader, a, &next));
	assert_int_equal(next, 0);
	b = put(&g, g.producer.head, 1, 10, a);
	c = put(&g, g.producer.head, 1, 10, b);
	assert_true(rec_next(&g.reader, a, &next));
	assert_int_equal(next, b);
	assert_true(rec_next(&g.reader, b, &next));
	assert_int_equal(next, c);
	assert_true(rec_next(&g.reader, c, &next));
	assert_int_equal(next, 0);
	rig_close(&g);
}

/* The record that is committed reclaims its own predecessor: nothing may be written to that any more, since
 * its bytes may be the new record's. */
static void predecessor_reclaimed_by_the_same_commit(void **state)
{
	struct shm_rig g;
	uint32_t big = SIZE - 112; /* payload for a record of SIZE bytes */
	uint64_t a, b, next;
	struct rec h;

	(void)state;
	assert_int_equal(rec_size(0, big), SIZE);
	rig_open(&g, SIZE, SIZE);
	a = put(&g, g.producer.head, 0, 8, 0);
	b = put(&g, g.producer.head, 0, big - 16, a); /* all but the last 16 bytes of the ring: it covers a */
	assert_true(ring_reclaim(&g.reader) > a);
	assert_false(rec_peek(&g.reader, a, &h));
	assert_false(rec_next(&g.reader, a, &next));
	assert_true(rec_peek(&g.reader, b, &h));
	assert_int_equal(h.next, 0);
	assert_int_equal(h.len, SIZE - 16);
	for (uint32_t i = 0; i < big - 16; i++)
		assert_int_equal(ring_at(&g.reader, b)[112 + i], 'p');

	/* And one that only just survives is linked. */
	a = put(&g, g.producer.head, 0, 8, 0);
	b = put(&g, a, 0, big - 128, a);
	assert_int_equal(g.producer.head, a + SIZE);
	assert_int_equal(ring_reclaim(&g.reader), a);
	assert_true(rec_next(&g.reader, a, &next));
	assert_int_equal(next, b);
	rig_close(&g);
}

/* Records of 128 bytes fill the ring; the reader looks at one while it is reclaimed. */
static void copies_are_valid_until_reclaimed(void **state)
{
	struct shm_rig g;
	uint64_t first, payload[1];
	struct rec h;

	(void)state;
	rig_open(&g, SIZE, SIZE);
	first = put(&g, g.producer.head, 0, 8, 0);
	for (unsigned i = 1; i < SIZE / 128; i++)
		put(&g, first, 0, 8, 0);
	assert_true(ring_space(&g.producer, first) < 128);
	assert_true(rec_peek(&g.reader, first, &h));
	assert_true(rec_copy(&g.reader, first, 112, payload, 8));
	assert_memory_equal(payload, "pppppppp", 8);
	put(&g, g.producer.head, 0, 8, 0);
	/* Not one byte of its payload is overwritten yet, but it may be. */
	assert_false(rec_copy(&g.reader, first, 112, payload, 8));
	assert_false(rec_peek(&g.reader, first, &h));
	rig_close(&g);
}

/* 1,000,000 records behind on a channel of 10 records: the chain leads past all the others. */
static void catch_up_visits_its_own_channel_only(void **state)
{
	enum { ALL = 1000000, OWN = 10 };
	const uint64_t size = UINT64_C(1) << 27;
	struct shm_rig g;
	uint64_t pos, next, mine = 0, first = 0;
	unsigned visits = 0;

	(void)state;
	rig_open(&g, size, size);
	for (unsigned i = 0; i <= ALL; i++) {
		bool is_mine = i % (ALL / OWN) == 0;

		pos = put(&g, g.producer.head, 0, 8, is_mine ? mine : 0);
		if (is_mine)
			mine = pos;
		if (first == 0)
			first = pos;
	}
	assert_true(g.producer.head - first > (uint64_t)ALL * 128);
	for (pos = first; pos != 0; pos = next) {
		struct rec h;

		assert_true(rec_peek(&g.reader, pos, &h));
		assert_true(rec_next(&g.reader, pos, &next));
		visits++;
	}
	assert_int_equal(visits, OWN + 1);
	rig_close(&g);
}

static void hash_knows_key_namespace_and_room(void **state)
{
	struct slice a = {"a", 1}, b = {"b", 1}, none = {NULL, 0};

	(void)state;
	assert_int_equal(rec_channel_hash(1, 2, a), rec_channel_hash(1, 2, a));
	assert_int_not_equal(rec_channel_hash(1, 2, a), rec_channel_hash(1, 2, b));
	assert_int_not_equal(rec_channel_hash(1, 2, a), rec_channel_hash(2, 2, a));
	assert_int_not_equal(rec_channel_hash(1, 2, a), rec_channel_hash(1, 3, a));
	assert_int_not_equal(rec_channel_hash(1, 2, none), rec_channel_hash(1, 3, none));
}

static void hashes_of_users_groups_and_channels_differ(void **state)
{
	struct slice a = {"a", 1}, b = {"b", 1};

	(void)state;
	assert_int_equal(rec_user_hash(1, 2, a), rec_user_hash(1, 2, a));
	assert_int_not_equal(rec_user_hash(1, 2, a), rec_user_hash(1, 2, b));
	assert_int_not_equal(rec_user_hash(1, 2, a),
			     rec_user_hash(1, 3, a)); /* a user is one of a namespace */
	assert_int_not_equal(rec_user_hash(1, 2, a), rec_user_hash(2, 2, a));
	assert_int_not_equal(rec_user_hash(1, 2, a), rec_channel_hash(1, 2, a));
	assert_int_not_equal(rec_group_hash(1, a), rec_group_hash(2, a));
	assert_int_not_equal(rec_group_hash(1, a), rec_group_hash(1, b));
	for (uint16_t ns = 0; ns < 64; ns++) {
		assert_int_not_equal(rec_group_hash(1, a), rec_user_hash(1, ns, a));
		assert_int_not_equal(rec_group_hash(1, a), rec_channel_hash(1, ns, a));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_counts_every_part),
		cmocka_unit_test(bytes_of_a_record_are_exact),
		cmocka_unit_test(control_has_no_frame),
		cmocka_unit_test(targets_stand_between_room_and_payload),
		cmocka_unit_test(walk_of_targets_never_leaves_the_block),
		cmocka_unit_test(payload_of_any_length_is_found),
		cmocka_unit_test(chain_is_linked),
		cmocka_unit_test(predecessor_reclaimed_by_the_same_commit),
		cmocka_unit_test(copies_are_valid_until_reclaimed),
		cmocka_unit_test(catch_up_visits_its_own_channel_only),
		cmocka_unit_test(hash_knows_key_namespace_and_room),
		cmocka_unit_test(hashes_of_users_groups_and_channels_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
