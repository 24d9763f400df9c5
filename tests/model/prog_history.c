/* prog_history.c - readers behind the gates: nothing is protected for them, and they say so to nobody.
 *
 * Checked: a copy that validates is whole and exact, wherever the producer was meanwhile; whoever has seen
 * head past a record never finds its predecessor's next == 0; following `next` (C4), without ever looking at
 * head again, gives a whole record or a detected reclaim.
 */
#include <string.h>

#include "shm/record.h"
#include "tests/model/message.h"
#include "tests/model/programs.h"

static unsigned n_messages;
static struct ring producer_ring;

static void setup(void)
{
	message_ring_init(&producer_ring);
}

static void setup3(void)
{
	n_messages = 3;
	setup();
}

static void setup4(void)
{
	n_messages = 4;
	setup();
}

static void setup5(void)
{
	n_messages = 5;
	setup();
}

/* Nobody holds the ring: gate = head. */
static void producer(void)
{
	uint64_t last = 0;

	for (unsigned i = 0; i < n_messages; i++)
		last = message_commit(&producer_ring, producer_ring.head, i, last);
}

/* Copy the record at `pos` as a client that is behind does. False: reclaimed. */
static bool copy(const struct ring *r, uint64_t pos)
{
	uint64_t payload[MESSAGE_WORDS];
	struct rec h;

	if (!rec_peek(r, pos, &h))
		return false;
	message_check_header(pos, &h);
	if (!rec_copy(r, pos, PAYLOAD_OFF, payload, sizeof(payload)))
		return false;
	message_check_payload(pos, payload);
	return true;
}

/* Take what was there at one moment, oldest first. */
static void history_reader(void)
{
	struct ring r = message_ring_view();
	uint64_t head = ring_head(&r), next;

	for (uint64_t pos = RING_START; pos < head; pos += MESSAGE_BYTES) {
		uint64_t values[] = {pos, head};

		model_checkpoint(20, 2, values);
		if (!copy(&r, pos))
			continue;
		model_checkpoint(21, 2, values);
		if (!rec_next(&r, pos, &next))
			continue;
		model_check(next == 0 || next == pos + MESSAGE_BYTES, "a wrong next was taken for whole");
		model_check(next != 0 || pos + MESSAGE_BYTES == head,
			    "next == 0 behind a record that head has shown");
	}
}

/* Learn of the first record by head, of all others by `next`. */
static void chain_reader(void)
{
	struct ring r = message_ring_view();
	uint64_t pos = RING_START, next = 0;

	while (ring_head(&r) == RING_START)
		model_await(&message_ring_hdr.head);
	for (;;) {
		uint64_t values[] = {pos};

		model_checkpoint(22, 1, values);
		if (!copy(&r, pos))
			return;
		model_checkpoint(23, 1, values);
		if (!rec_next(&r, pos, &next) || next == 0)
			return;
		model_check(next == pos + MESSAGE_BYTES, "a wrong next was taken for whole");
		pos = next;
	}
}

const struct model_program programs_history[] = {
	{"history/copy",
	 "four messages on a ring of two, a reader without a gate",
	 2,
	 setup4,
	 {producer, history_reader},
	 NULL},
	{"history/two",
	 "three messages, two such readers",
	 3,
	 setup3,
	 {producer, history_reader, history_reader},
	 NULL},
	{"large/history",
	 "four messages, two such readers",
	 3,
	 setup4,
	 {producer, history_reader, history_reader},
	 NULL},
	{"history/chain",
	 "five messages, a reader that only follows next",
	 2,
	 setup5,
	 {producer, chain_reader},
	 NULL},
};
const unsigned n_programs_history = ARRAY_LEN(programs_history);
