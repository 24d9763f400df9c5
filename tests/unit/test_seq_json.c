/* LINK: master/retained.c master/sequencer.c master/seq_json.c master/seq_drop.c master/interest.c shm/ring.c shm/record.c
 * shm/slot.c shm/seg.c shm/uplink.c shm/counters.c */
/* Json namespaces: where a text goes, what of it clients get, and what is dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/wsframe.h"
#include "master/sequencer.h"
#include "shm/seg.h"

#define SIZE (UINT64_C(1) << 20)
#define NS   3
#define KEY  88

struct rig {
	struct sequencer s;
	struct cfg_namespace ns;
	uint8_t *data;
};

static char name[] = "feed", route_key[] = "track";

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	int fd = seg_create("test-ring", SEG_PAGE + SIZE);
	struct counters *count = calloc(1, sizeof(*count));
	struct ring ring;

	if (r == NULL || fd == -1 || count == NULL)
		return -1;
	r->data = seg_map_twice(fd, SEG_PAGE, SIZE, SEG_PAGE, PROT_READ | PROT_WRITE);
	close(fd);
	if (r->data == NULL)
		return -1;
	ring_init(&ring, (struct ring_hdr *)(r->data - SEG_PAGE), r->data, SIZE, SIZE);
	r->ns = (struct cfg_namespace){.name = name,
				       .id = NS,
				       .room = CFG_ROOM_PATH,
				       .envelope = CFG_ENVELOPE_JSON,
				       .route_key = route_key};
	*state = r;
	return seq_init(&r->s, &ring, 77, KEY, count);
}

static int teardown(void **state)
{
	struct rig *r = *state;

	seg_unmap_twice(r->data, SIZE, SEG_PAGE);
	free(r->s.count);
	seq_free(&r->s);
	free(r);
	return 0;
}

static uint64_t dropped(struct rig *r, enum count_dropped why)
{
	return count_get(&r->s.count->ns[NS].dropped[why]);
}

static enum seq_result publish_to(struct rig *r, const char *room, struct slice text, struct seq_outcome *out)
{
	struct seq_message m = {
		.ns = &r->ns,
		.room = {room, strlen(room)},
		.payload = text,
		.max_size = UINT32_MAX,
		.time_ns = 5,
		.slot = REC_ALL,
	};

	return seq_publish(&r->s, &m, out);
}

static enum seq_result publish(struct rig *r, const char *room, const char *text)
{
	struct seq_outcome out;

	return publish_to(r, room, (struct slice){text, strlen(text)}, &out);
}

/* The record that begins at `pos`: its room, whether it has targets, its payload. */
static void check_record(struct rig *r, uint64_t pos, const char *room, bool is_targeted, const char *payload)
{
	const uint8_t *at = ring_at(&r->s.ring, pos);
	const struct rec *h = (const struct rec *)at;

	assert_true(pos < seq_head(&r->s));
	assert_int_equal(h->type, REC_PUBLICATION);
	assert_int_equal(h->opcode, WS_TEXT);
	assert_int_equal(h->ns, NS);
	assert_int_equal(h->hash, rec_channel_hash(KEY, NS, (struct slice){room, strlen(room)}));
	assert_int_equal(h->name_len, strlen(room));
	assert_memory_equal(rec_room(h, at).p, room, strlen(room));
	assert_int_equal(h->flags, is_targeted ? REC_TARGETED : 0);
	assert_int_equal(h->targets_len > 0, is_targeted);
	assert_int_equal(rec_payload(h, at).len, strlen(payload));
	assert_memory_equal(rec_payload(h, at).p, payload, strlen(payload));
}

static void the_route_key_names_the_room(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);

	assert_int_equal(publish(r, "", "{\"track\":12,\"_x\":1,\"text\":\"hi\"}"), SEQ_DONE);
	check_record(r, pos, "12", false, "{\"track\":12,\"text\":\"hi\"}");
	pos = seq_head(&r->s);
	assert_int_equal(publish(r, "t1", "{\"track\":\"t1\"}"), SEQ_DONE);
	check_record(r, pos, "t1", false, "{\"track\":\"t1\"}");
	/* It came for one room and names another. */
	assert_int_equal(publish(r, "t1", "{\"track\":\"t2\"}"), SEQ_DROPPED);
	assert_int_equal(dropped(r, COUNT_DROPPED_no_route), 1);
}

static void a_room_in_the_channel_s_name_needs_no_key(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);

	r->ns.route_key = NULL;
	assert_int_equal(publish(r, "t1", "{\"_x\":1}"), SEQ_DONE);
	check_record(r, pos, "t1", false, "{}");
	assert_int_equal(publish(r, "", "{\"track\":\"t1\"}"), SEQ_DROPPED);
	assert_int_equal(dropped(r, COUNT_DROPPED_no_route), 1);
}

static void without_rooms_it_goes_to_the_namespace(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);

	r->ns.route_key = NULL;
	r->ns.room = CFG_ROOM_NONE;
	assert_int_equal(publish(r, "", "{\"track\":\"t1\"}"), SEQ_DONE);
	check_record(r, pos, "", false, "{\"track\":\"t1\"}");
}

static void targets_go_to_the_namespace_sorted(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s), last = 0;
	const struct rec_target *t;
	struct slice block;
	unsigned kinds[3] = {0};
	size_t off = 0;

	assert_int_equal(publish(r, "",
				 "{\"track\":\"t1\",\"_target_users\":[7,\"7\",\"a-long-user-name\",8,1234],"
				 "\"_target_groups\":[\"7\",\"admins\"]}"),
			 SEQ_DONE);
	check_record(r, pos, "", true, "{\"track\":\"t1\"}");
	block = rec_targets((const struct rec *)ring_at(&r->s.ring, pos), ring_at(&r->s.ring, pos));
	while ((t = rec_target_next(block, &off)) != NULL) {
		struct slice id = {t->id, t->len};

		assert_in_range(t->kind, REC_TARGET_USER, REC_TARGET_GROUP);
		assert_true(t->kind == REC_TARGET_GROUP || kinds[REC_TARGET_GROUP] == 0);
		assert_true(kinds[t->kind]++ == 0 || t->hash > last);
		last = t->hash;
		assert_int_equal(t->hash, t->kind == REC_TARGET_USER ? rec_user_hash(KEY, NS, id)
								     : rec_group_hash(KEY, id));
	}
	assert_int_equal(off, block.len);
	assert_int_equal(kinds[REC_TARGET_USER], 4);
	assert_int_equal(kinds[REC_TARGET_GROUP], 2);
}

static void many_targets_are_all_there_in_order(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s), last = 0;
	static bool seen[10000];
	const struct rec_target *t;
	struct buf b = {0};
	struct seq_outcome out;
	struct slice block;
	size_t off = 0;

	assert_int_equal(buf_puts(&b, "{\"_target_users\":[0"), 0);
	for (int i = 1; i < 10000; i++)
		assert_int_equal(buf_printf(&b, ",%d", i), 0);
	assert_int_equal(buf_puts(&b, "]}"), 0);
	assert_int_equal(publish_to(r, "", (struct slice){b.p, b.len}, &out), SEQ_DONE);
	block = rec_targets((const struct rec *)ring_at(&r->s.ring, pos), ring_at(&r->s.ring, pos));
	while ((t = rec_target_next(block, &off)) != NULL) {
		char id[8] = "";

		assert_true(t->hash > last && t->len < sizeof(id));
		last = t->hash;
		memcpy(id, t->id, t->len);
		assert_false(seen[strtoul(id, NULL, 10)]);
		seen[strtoul(id, NULL, 10)] = true;
	}
	assert_int_equal(off, block.len);
	for (int i = 0; i < 10000; i++)
		assert_true(seen[i]);
	buf_free(&b);
}

/* The text is small enough, the block is not: 20,000 entries of 16 bytes in a ring of 1 MiB. */
static void a_block_may_be_too_large_for_the_ring(void **state)
{
	struct rig *r = *state;
	struct buf b = {0};
	struct seq_outcome out;

	assert_int_equal(buf_puts(&b, "{\"_target_users\":[0"), 0);
	for (int i = 1; i < 20000; i++)
		assert_int_equal(buf_printf(&b, ",%d", i), 0);
	assert_int_equal(buf_puts(&b, "]}"), 0);
	assert_int_equal(publish_to(r, "", (struct slice){b.p, b.len}, &out), SEQ_DROPPED);
	assert_int_equal(out.why, REC_TOO_LARGE);
	assert_int_equal(dropped(r, COUNT_DROPPED_too_large), 1);
	buf_free(&b);
}

static void fails_closed(void **state)
{
	static const struct {
		const char *text;
		enum rec_answer why;
		enum count_dropped reason;
	} v[] = {
		{"{\"track\":\"t1\",\"_target_users\":[]}", REC_NO_TARGET, COUNT_DROPPED_no_target},
		{"{\"track\":\"t1\",\"_target_users\":null}", REC_NO_TARGET, COUNT_DROPPED_no_target},
		{"{\"track\":\"t1\",\"_target_users\":7}", REC_NO_TARGET, COUNT_DROPPED_no_target},
		{"{\"track\":\"t1\",\"_target_users\":[1.5,null]}", REC_NO_TARGET, COUNT_DROPPED_no_target},
		{"{\"track\":\"t1\",\"_target_groups\":[]}", REC_NO_TARGET, COUNT_DROPPED_no_target},
		{"{\"track\":\"t1\",\"_target_users\":[],\"_target_groups\":null}", REC_NO_TARGET,
		 COUNT_DROPPED_no_target},
		{"{}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":null}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":1.0}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":\"\"}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":\"a/b\"}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":\"..\"}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"{\"track\":\"a\\u0000\"}", REC_NO_ROUTE, COUNT_DROPPED_no_route},
		{"", REC_BAD_JSON, COUNT_DROPPED_bad_json},
		{"{", REC_BAD_JSON, COUNT_DROPPED_bad_json},
		{"{\"track\":NaN}", REC_BAD_JSON, COUNT_DROPPED_bad_json},
		{"[]", REC_NOT_OBJECT, COUNT_DROPPED_not_object},
		{"null", REC_NOT_OBJECT, COUNT_DROPPED_not_object},
		{"{\"track\":\"\xff\"}", REC_BAD_JSON, COUNT_DROPPED_bad_utf8},
	};
	struct rig *r = *state;
	uint64_t start = seq_head(&r->s);

	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		uint64_t before = dropped(r, v[i].reason);
		struct seq_outcome out;

		if (publish_to(r, "", (struct slice){v[i].text, strlen(v[i].text)}, &out) != SEQ_DROPPED ||
		    out.why != v[i].why || dropped(r, v[i].reason) != before + 1)
			fail_msg("%s", v[i].text);
	}
	assert_int_equal(seq_head(&r->s), start);
}

static void targeted_only_means_that(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);
	struct seq_outcome out;

	r->ns.targeted_only = true;
	assert_int_equal(publish_to(r, "", (struct slice){"{\"track\":\"t1\"}", 14}, &out), SEQ_DROPPED);
	assert_int_equal(out.why, REC_UNTARGETED);
	assert_int_equal(dropped(r, COUNT_DROPPED_untargeted), 1);
	/* Targets that leave nobody are none to be told from targets that name somebody. */
	assert_int_equal(publish(r, "", "{\"_target_users\":[]}"), SEQ_DROPPED);
	assert_int_equal(dropped(r, COUNT_DROPPED_untargeted), 1);
	assert_int_equal(dropped(r, COUNT_DROPPED_no_target), 1);
	assert_int_equal(seq_head(&r->s), pos);
	assert_int_equal(publish(r, "", "{\"_target_groups\":[\"g\"]}"), SEQ_DONE);
	check_record(r, pos, "", true, "{}");
}

static void skipped_targets_are_counted_once(void **state)
{
	struct rig *r = *state;
	const char *text = "{\"_target_users\":[1,1.5,null,{}],\"_target_groups\":3}";
	struct seq_message m = {.ns = &r->ns,
				.payload = {text, strlen(text)},
				.max_size = UINT32_MAX,
				.slot = REC_ALL,
				.is_trusted = true};
	struct seq_outcome out;

	assert_int_equal(publish(r, "", text), SEQ_DONE);
	assert_int_equal(count_get(&r->s.count->targets_skipped), 4);
	/* What came up from here was counted when it was read for the first time. */
	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DONE);
	assert_int_equal(count_get(&r->s.count->targets_skipped), 4);
}

static void what_was_read_is_not_read_again(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);
	struct envelope e = {0};
	struct seq_message m = {.ns = &r->ns,
				.payload = {"nonsense", 8},
				.envelope = &e,
				.max_size = UINT32_MAX,
				.slot = REC_ALL};
	struct seq_outcome out;

	assert_int_equal(envelope_read(&e, (struct slice){"{\"track\":5,\"_a\":1}", 18}, route_key),
			 ENVELOPE_OK);
	assert_int_equal(seq_publish(&r->s, &m, &out), SEQ_DONE);
	check_record(r, pos, "5", false, "{\"track\":5}");
	envelope_free(&e);
}

static void with_redis_only_listeners_count(void **state)
{
	struct rig *r = *state;
	uint64_t pos = seq_head(&r->s);
	struct slice none = {"", 0};
	struct interest_entry *e;

	r->s.is_local = false;
	assert_int_equal(publish(r, "", "{\"_target_users\":[1]}"), SEQ_DONE);
	assert_int_equal(seq_head(&r->s), pos);
	e = interest_get(&r->s.interest, seq_hash(&r->s, NS, none), NS, none);
	assert_non_null(e);
	assert_int_equal(interest_add(e, 0), 0);
	assert_int_equal(publish(r, "", "{\"_target_users\":[1]}"), SEQ_DONE);
	check_record(r, pos, "", true, "{}");
}

/* The block needs space that the text alone does not. */
static void a_full_ring_takes_nothing(void **state)
{
	struct rig *r = *state;
	struct seq_outcome out;
	struct buf b = {0};
	struct slot slot;
	enum seq_result res = SEQ_DONE;
	uint64_t head;
	int id;

	assert_int_equal(slot_create(&slot, 1, 1, seq_head(&r->s), UINT64_C(256) << 10), 0);
	id = seq_reader_add(&r->s, &slot, 1, 1, -1);
	assert_int_not_equal(id, SEQ_NOBODY);
	assert_int_equal(interest_add(interest_get(&r->s.interest, seq_hash(&r->s, NS, (struct slice){"", 0}),
						   NS, (struct slice){"", 0}),
				      (uint8_t)id),
			 0);
	assert_int_equal(buf_puts(&b, "{\"_target_users\":[0"), 0);
	for (int i = 1; i < 11000; i++) /* five such records fit */
		assert_int_equal(buf_printf(&b, ",%d", i), 0);
	assert_int_equal(buf_puts(&b, "]}"), 0);
	for (int i = 0; i < 100 && res == SEQ_DONE; i++)
		res = publish_to(r, "", (struct slice){b.p, b.len}, &out);
	assert_int_equal(res, SEQ_FULL);
	assert_true(r->s.is_full && r->s.full_need >= 176000);
	head = seq_head(&r->s);
	assert_false(seq_poll(&r->s));
	slot_set_cursor(&slot, head);
	assert_true(seq_poll(&r->s));
	assert_int_equal(publish_to(r, "", (struct slice){b.p, b.len}, &out), SEQ_DONE);
	check_record(r, head, "", true, "{}");
	seq_reader_remove(&r->s, (uint8_t)id);
	slot_close(&slot);
	buf_free(&b);
}

static unsigned lines_with(const char *path, const char *what)
{
	char line[4096];
	unsigned n = 0;
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		n += strstr(line, what) != NULL;
	(void)fclose(f);
	return n;
}

static void one_line_for_each_reason(void **state)
{
	struct rig *r = *state;
	char path[] = "test-seq-json-XXXXXX";
	int fd = mkstemp(path);

	assert_int_not_equal(fd, -1);
	close(fd);
	assert_int_equal(log_open(path), 0);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(publish(r, "", "{}"), SEQ_DROPPED);
		assert_int_equal(publish(r, "", "{\"_target_users\":[null]}"), SEQ_DROPPED);
	}
	assert_int_equal(lines_with(path, "event=dropped ns=feed reason=no_route total=1 msg="), 1);
	assert_int_equal(lines_with(path, "event=dropped ns=feed reason=no_target total=1 msg="), 1);
	assert_int_equal(lines_with(path, "event=targets_skipped ns=feed total=1 msg="), 1);
	assert_int_equal(lines_with(path, "event="), 3);
	assert_int_equal(dropped(r, COUNT_DROPPED_no_route), 1000);
	assert_int_equal(log_open(NULL), 0);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_route_key_names_the_room),
		TEST(a_room_in_the_channel_s_name_needs_no_key),
		TEST(without_rooms_it_goes_to_the_namespace),
		TEST(targets_go_to_the_namespace_sorted),
		TEST(many_targets_are_all_there_in_order),
		TEST(a_block_may_be_too_large_for_the_ring),
		TEST(fails_closed),
		TEST(targeted_only_means_that),
		TEST(skipped_targets_are_counted_once),
		TEST(what_was_read_is_not_read_again),
		TEST(with_redis_only_listeners_count),
		TEST(a_full_ring_takes_nothing),
		TEST(one_line_for_each_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
