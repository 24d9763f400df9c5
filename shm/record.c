#include "shm/record.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "common/wsframe.h"

#define HEADER_ROOM 16u /* where the frame header stands, right-aligned: WS_HEADER_MAX rounded up to words */

uint64_t rec_channel_hash(uint64_t key, uint16_t ns, struct slice room)
{
	return XXH3_64bits_withSeed(room.p == NULL ? "" : room.p, room.len, key ^ ((uint64_t)ns << 48 | ns));
}

static uint32_t payload_offset(size_t name_len)
{
	return (uint32_t)(sizeof(struct rec) + ALIGN_UP(name_len, (size_t)8) + HEADER_ROOM);
}

uint32_t rec_size(size_t name_len, size_t payload_len)
{
	return (uint32_t)ALIGN_UP(payload_offset(name_len) + payload_len, (size_t)RING_ALIGN);
}

static void link_prev(struct ring *r, uint64_t prev, uint64_t pos)
{
	struct rec *p = (struct rec *)ring_at(r, prev);

	SHM_STORE(R3, &p->next, pos); /* R3, pairs with C4 and C3 */
}

uint64_t rec_commit(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice payload,
		    uint64_t prev)
{
	uint32_t payload_off = payload_offset(room.len);
	uint32_t len = rec_size(room.len, payload.len);
	uint8_t *at = ring_reserve(r, len, gate);

	h->len = len;
	h->name_len = (uint16_t)room.len;
	h->frame_len = 0;
	h->frame_off = 0;
	atomic_init(&h->next, 0);
	if (payload.p != NULL) {
		uint8_t header[HEADER_ROOM] = {0};
		uint8_t tmp[WS_HEADER_MAX];
		size_t n = ws_header_put(tmp, h->opcode, payload.len);

		memcpy(header + HEADER_ROOM - n, tmp, n);
		h->frame_off = (uint16_t)(payload_off - n);
		h->frame_len = (uint32_t)(n + payload.len);
		ring_store(at + payload_off - HEADER_ROOM, header, HEADER_ROOM);
		ring_store(at + payload_off, payload.p, payload.len);
	}
	ring_store(at, h, sizeof(*h));
	ring_store(at + sizeof(*h), room.p, room.len);
	/* `prev` may have been reclaimed by this very reserve. */
	if (prev >= r->reclaim)
		link_prev(r, prev, r->head);
	return ring_commit(r, len);
}

bool rec_peek(const struct ring *r, uint64_t pos, struct rec *copy)
{
	ring_load(copy, ring_at(r, pos), sizeof(*copy)); /* C2 */
	return ring_is_whole(r, pos);                     /* C3 */
}

bool rec_next(const struct ring *r, uint64_t pos, uint64_t *next)
{
	struct rec *p = (struct rec *)ring_at(r, pos);

	*next = SHM_LOAD_RLX(C4, &p->next); /* C4; the fence in ring_is_whole() pairs with R3 */
	return ring_is_whole(r, pos);
}

bool rec_copy(const struct ring *r, uint64_t pos, uint32_t off, void *dst, size_t len)
{
	ring_load(dst, ring_at(r, pos) + off, len);
	return ring_is_whole(r, pos);
}
