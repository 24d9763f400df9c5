#include "tests/model/message.h"

#include <string.h>

#include "common/wsframe.h"

struct ring_hdr message_ring_hdr;
_Atomic uint64_t message_region[RING_BYTES / 8] __attribute__((aligned(64)));

void message_ring_init(struct ring *producer)
{
	memset(&message_ring_hdr, 0, sizeof(message_ring_hdr));
	memset(message_region, 0, sizeof(message_region));
	ring_init(producer, &message_ring_hdr, (uint8_t *)message_region, RING_BYTES, RING_START);
	model_name(&message_ring_hdr.head, "head");
	model_name(&message_ring_hdr.reclaim, "reclaim");
	model_name(message_region, "record0");
	model_name(message_region + MESSAGE_BYTES / 8, "record1");
}

struct ring message_ring_view(void)
{
	struct ring r;

	model_check(ring_attach(&r, &message_ring_hdr, (uint8_t *)message_region, RING_BYTES) == 0,
		    "ring_attach");
	return r;
}

static struct rec header_of(unsigned i)
{
	return (struct rec){.type = REC_PUBLICATION,
			    .opcode = WS_BINARY,
			    .ns = (uint16_t)(i + 1),
			    .hash = 0x100 + i,
			    .seq = i + 1,
			    .time_ns = 0x200 + i,
			    .origin = 0x300 + i,
			    .id = 0x400 + i,
			    .incarnation = 0x500 + i,
			    .slot = (uint16_t)(0x600 + i),
			    .arg = {0x700 + i, 0x800 + i}};
}

static uint64_t payload_word(unsigned i, unsigned k)
{
	return 0x10000u * (i + 1) + k;
}

uint64_t message_commit(struct ring *r, uint64_t gate, unsigned i, uint64_t prev)
{
	struct rec h = header_of(i);
	uint64_t payload[MESSAGE_WORDS];

	for (unsigned k = 0; k < MESSAGE_WORDS; k++)
		payload[k] = payload_word(i, k);
	return rec_commit(r, gate, &h, (struct slice){0},
			  (struct slice){(const char *)payload, sizeof(payload)}, prev);
}

void message_check_header(uint64_t pos, const struct rec *h)
{
	unsigned i = (unsigned)((pos - RING_START) / MESSAGE_BYTES);
	struct rec want = header_of(i);
	struct rec got = *h;

	model_check(pos >= RING_START && pos % MESSAGE_BYTES == 0, "a position that is no record's");
	model_check(got.next == 0 || got.next == pos + MESSAGE_BYTES,
		    "a wrong next in a header proved whole");
	atomic_init(&got.next, 0);
	want.len = MESSAGE_BYTES;
	want.frame_off = PAYLOAD_OFF - 2;
	want.frame_len = 2 + sizeof(uint64_t) * MESSAGE_WORDS;
	model_check(memcmp(&got, &want, sizeof(want)) == 0, "a torn or foreign header was taken for whole");
}

void message_check_payload(uint64_t pos, const uint64_t *payload)
{
	unsigned i = (unsigned)((pos - RING_START) / MESSAGE_BYTES);

	for (unsigned k = 0; k < MESSAGE_WORDS; k++)
		model_check(payload[k] == payload_word(i, k),
			    "a torn or foreign payload was taken for whole");
}

void message_check_protected(const struct ring *r, uint64_t pos)
{
	const uint8_t *at = ring_at(r, pos);
	uint64_t payload[MESSAGE_WORDS];

	(void)model_plain(at + 56); /* frame_len, frame_off */
	for (unsigned k = 0; k < MESSAGE_WORDS; k++)
		payload[k] = model_plain(at + PAYLOAD_OFF + 8 * k);
	message_check_payload(pos, payload);
}
