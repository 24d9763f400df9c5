#include "shm/uplink.h"

#include <string.h>

bool uplink_push(struct ring *r, const struct up_rec *h, struct slice room, struct slice payload, bool want)
{
	struct up_rec copy = *h;
	size_t name_end = sizeof(copy) + ALIGN_UP(room.len, (size_t)8);
	uint32_t len = (uint32_t)ALIGN_UP(name_end + payload.len, (size_t)RING_ALIGN);
	uint64_t gate = SHM_LOAD(G2, &r->hdr->tail); /* G2, pairs with G1 of uplink_release */
	uint8_t *at;

	if (ring_space(r, gate) < len) {
		if (!want)
			return false;
		/* Say so, then look once more: S1/S2 of slot.h with the roles exchanged. The reader stores tail, then
		 * looks at `starving`; we store `starving`, then look at tail. */
		SHM_STORE_RLX(S1, &r->hdr->starving, 1);
		SHM_FENCE(S1);
		gate = SHM_LOAD(G2, &r->hdr->tail);
		if (ring_space(r, gate) < len)
			return false;
		SHM_STORE_RLX(S1, &r->hdr->starving, 0);
	}
	copy.len = len;
	copy.name_len = (uint8_t)room.len;
	copy.payload = (uint32_t)payload.len;
	at = ring_reserve(r, len, gate);
	ring_store(at, &copy, sizeof(copy));
	ring_store(at + sizeof(copy), room.p, room.len);
	ring_store(at + name_end, payload.p, payload.len);
	ring_commit(r, len);
	return true;
}

enum up_peek uplink_peek(const struct ring *r, uint64_t pos, struct up_view *view)
{
	uint64_t head = ring_head(r); /* C1, pairs with R4 */
	const uint8_t *at = ring_at(r, pos);
	uint64_t name_end;

	if (head == pos)
		return UP_NONE;
	if (head < pos || head - pos > r->size || head - pos < sizeof(view->h) || head % RING_ALIGN != 0)
		return UP_BROKEN;
	ring_load(&view->h, at, sizeof(view->h));
	name_end = sizeof(view->h) + ALIGN_UP((uint64_t)view->h.name_len, (uint64_t)8);
	if (view->h.len % RING_ALIGN != 0 || view->h.len > head - pos ||
	    view->h.len < name_end + (uint64_t)view->h.payload)
		return UP_BROKEN;
	view->room = (struct slice){(const char *)at + sizeof(view->h), view->h.name_len};
	view->payload = (struct slice){(const char *)at + name_end, view->h.payload};
	view->end = pos + view->h.len;
	return UP_RECORD;
}

bool uplink_release(struct ring *r, uint64_t pos)
{
	SHM_STORE(G1, &r->hdr->tail, pos); /* G1, pairs with G2 of uplink_push */
	SHM_FENCE(S2);                     /* then look whether the worker starves: pairs with S1 of uplink_push */
	if (SHM_LOAD_RLX(S2, &r->hdr->starving) == 0)
		return false;
	SHM_STORE_RLX(S2, &r->hdr->starving, 0);
	return true;
}

bool uplink_matched(struct slice payload, struct up_matched *out)
{
	const size_t fixed = offsetof(struct up_matched, user_hash);

	out->n = 0;
	if (payload.len < fixed || payload.len > sizeof(*out))
		return false;
	memcpy(out, payload.p, payload.len);
	return out->n <= UP_MATCHED_MAX && payload.len == fixed + out->n * sizeof(out->user_hash[0]);
}
