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

/* Users and groups must not meet a channel of the same name: ids of namespaces end far below these bits. */
uint64_t rec_user_hash(uint64_t key, uint16_t ns, struct slice user)
{
	return rec_channel_hash(key, ns | 0x8000, user);
}

uint64_t rec_group_hash(uint64_t key, struct slice group)
{
	return rec_channel_hash(key, 0x4000, group);
}

uint64_t rec_cluster_hash(struct slice ns_name, struct slice user)
{
	return XXH3_64bits_withSeed(user.p, user.len, XXH3_64bits(ns_name.p, ns_name.len));
}

static uint32_t payload_offset(size_t name_len, size_t targets_len)
{
	return (uint32_t)(sizeof(struct rec) + ALIGN_UP(name_len, (size_t)8) + targets_len + HEADER_ROOM);
}

uint32_t rec_size_targeted(size_t name_len, size_t targets_len, size_t payload_len)
{
	return (uint32_t)ALIGN_UP(payload_offset(name_len, targets_len) + payload_len, (size_t)RING_ALIGN);
}

uint32_t rec_size(size_t name_len, size_t payload_len)
{
	return rec_size_targeted(name_len, 0, payload_len);
}

static void link_prev(struct ring *r, uint64_t prev, uint64_t pos)
{
	struct rec *p = (struct rec *)ring_at(r, prev);

	SHM_STORE(R3, &p->next, pos); /* R3, pairs with C4 and C3 */
}

uint64_t rec_commit_targeted(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice targets,
			     struct slice payload, uint64_t prev)
{
	uint32_t payload_off = payload_offset(room.len, targets.len);
	uint32_t len = rec_size_targeted(room.len, targets.len, payload.len);
	uint8_t *at = ring_reserve(r, len, gate);

	h->len = len;
	h->name_len = (uint16_t)room.len;
	h->targets_len = (uint32_t)targets.len;
	h->frame_len = 0;
	h->frame_off = 0;
	atomic_init(&h->next, 0);
	if (payload.p != NULL) {
		uint8_t header[HEADER_ROOM] = {0};
		uint8_t tmp[WS_HEADER_MAX];
		size_t n = ws_header_put(tmp, h->opcode, payload.len);

		memcpy(header + HEADER_ROOM - n, tmp, n);
		h->frame_off = (uint32_t)(payload_off - n);
		h->frame_len = (uint32_t)(n + payload.len);
		ring_store(at + payload_off - HEADER_ROOM, header, HEADER_ROOM);
		ring_store(at + payload_off, payload.p, payload.len);
	}
	ring_store(at, h, sizeof(*h));
	ring_store(at + sizeof(*h), room.p, room.len);
	ring_store(at + sizeof(*h) + ALIGN_UP(room.len, (size_t)8), targets.p, targets.len);
	/* `prev` may have been reclaimed by this very reserve. */
	if (prev >= r->reclaim)
		link_prev(r, prev, r->head);
	return ring_commit(r, len);
}

uint64_t rec_commit(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice payload,
		    uint64_t prev)
{
	return rec_commit_targeted(r, gate, h, room, (struct slice){0}, payload, prev);
}

struct slice rec_payload(const struct rec *h, const uint8_t *at)
{
	size_t off = payload_offset(h->name_len, h->targets_len);

	if (h->frame_len == 0)
		return (struct slice){0};
	return (struct slice){(const char *)at + off, h->frame_off + h->frame_len - off};
}

const struct rec_target *rec_target_next(struct slice block, size_t *off)
{
	const struct rec_target *t = (const struct rec_target *)(const void *)(block.p + *off);
	size_t left = block.len - *off;

	if (left < sizeof(*t) || rec_target_size(t->len) > left)
		return NULL;
	*off += rec_target_size(t->len);
	return t;
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
