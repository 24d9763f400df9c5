#include <stdio.h>
#include <string.h>

#include "common/wsframe.h"
#include "tests/stress/stress.h"

uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint64_t seed_of(unsigned channel, uint64_t seq)
{
	return stress.seed * 1000003 + seq * CHANNELS + channel;
}

struct slice content_room(unsigned channel, char *buf, size_t size)
{
	/* 9 to 16 bytes: a control record then has STEP_BYTES. */
	return (struct slice){buf, (size_t)snprintf(buf, size, "room-number-%u", channel)};
}

uint32_t content_len(unsigned channel, uint64_t seq)
{
	uint64_t state = seed_of(channel, seq), r = random_next(&state);
	uint32_t len = (uint32_t)((r >> 8) % (r % 16 == 0 ? PAYLOAD_MAX : r % 4 == 0 ? 700 : 130));

	/* Multiples of STEP_BYTES in all. */
	return stress.threads ? (uint32_t)ALIGN_UP(len + HEAD_BYTES, STEP_BYTES) - HEAD_BYTES : len;
}

void content_fill(unsigned channel, uint64_t seq, uint8_t *dst, uint32_t len)
{
	uint64_t state = seed_of(channel, seq) ^ 0x55, w;

	for (uint32_t i = 0; i < len; i += 8) {
		w = random_next(&state);
		memcpy(dst + i, &w, len - i < 8 ? len - i : 8);
	}
}

bool content_concerns(unsigned w, unsigned channel)
{
	return w == 0 || (w + channel) % 2 == 0;
}

const char *content_check(uint64_t pos, const struct rec *h, const uint8_t *at)
{
	uint8_t want[PAYLOAD_MAX + 8 + STEP_BYTES], header[WS_HEADER_MAX];
	unsigned channel = h->ns;
	char room[32];
	struct slice name;
	uint32_t len;
	size_t n;

	if (h->arg[0] != pos)
		return "another position's record";
	if (h->type != REC_PUBLICATION || channel >= CHANNELS || h->hash != channel + 1)
		return "a wrong header";
	len = content_len(channel, h->seq);
	n = ws_header_put(header, WS_BINARY, len);
	name = content_room(channel, room, sizeof(room));
	if (h->frame_len != n + len || h->name_len != name.len || h->len != rec_size(name.len, len))
		return "wrong lengths";
	if (memcmp(at + sizeof(*h), name.p, name.len) != 0)
		return "a wrong room";
	if (memcmp(at + h->frame_off, header, n) != 0)
		return "a wrong frame header";
	content_fill(channel, h->seq, want, len);
	if (memcmp(at + h->frame_off + n, want, len) != 0)
		return "a wrong payload";
	return NULL;
}
