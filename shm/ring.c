#include "shm/ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void ring_init(struct ring *r, struct ring_hdr *hdr, uint8_t *data, uint64_t size, uint64_t start)
{
	hdr->layout = RING_LAYOUT;
	hdr->size = size;
	hdr->start = start;
	SHM_STORE_RLX(R4, &hdr->head, start);
	SHM_STORE_RLX(R0, &hdr->reclaim, start);
	SHM_STORE_RLX(G1, &hdr->tail, start);
	hdr->magic = RING_MAGIC;
	*r = (struct ring){.hdr = hdr, .data = data, .size = size, .mask = size - 1, .head = start, .reclaim = start};
}

int ring_attach(struct ring *r, struct ring_hdr *hdr, uint8_t *data, uint64_t size)
{
	if (hdr->magic != RING_MAGIC || hdr->layout != RING_LAYOUT || hdr->size != size) {
		errno = EPROTO;
		return -1;
	}
	*r = (struct ring){.hdr = hdr, .data = data, .size = size, .mask = size - 1};
	r->head = SHM_LOAD(C1, &hdr->head);
	r->reclaim = SHM_LOAD(C5, &hdr->reclaim);
	return 0;
}

uint8_t *ring_reserve(struct ring *r, uint32_t len, uint64_t gate)
{
	uint64_t end = r->head + len;

	/* Past the gate it would overwrite what a worker is sending. */
	assert(len % RING_ALIGN == 0 && len <= ring_space(r, gate));
	if (end > r->reclaim + r->size) {
		uint64_t need = end - r->size;

		r->reclaim = u64_max(need, u64_min(gate, need + r->size / 64));
		SHM_STORE(R0, &r->hdr->reclaim, r->reclaim); /* R0, pairs with C5 */
		SHM_FENCE(R1);                               /* R1, pairs with C3 */
	}
	return ring_at(r, r->head);
}

uint64_t ring_commit(struct ring *r, uint32_t len)
{
	uint64_t pos = r->head;

	r->head += len;
	SHM_STORE(R4, &r->hdr->head, r->head); /* R4, pairs with C1 */
	return pos;
}

void ring_store(void *dst, const void *src, size_t len)
{
	_Atomic uint64_t *to = dst;
	const uint8_t *from = src;
	size_t words = len / 8, rest = len % 8;
	uint64_t w;

	for (size_t i = 0; i < words; i++) {
		memcpy(&w, from + 8 * i, 8);
		SHM_STORE_RLX(R2, &to[i], w);
	}
	if (rest > 0) {
		w = 0;
		memcpy(&w, from + 8 * words, rest);
		SHM_STORE_RLX(R2, &to[words], w);
	}
}

void ring_load(void *dst, const void *src, size_t len)
{
	/* The source is only loaded; C has no atomic load from const before C17's fix, hence the cast. */
	_Atomic uint64_t *from = (_Atomic uint64_t *)(uintptr_t)src;
	uint8_t *to = dst;
	size_t words = len / 8, rest = len % 8;
	uint64_t w;

	for (size_t i = 0; i < words; i++) {
		w = SHM_LOAD_RLX(C2, &from[i]);
		memcpy(to + 8 * i, &w, 8);
	}
	if (rest > 0) {
		w = SHM_LOAD_RLX(C2, &from[words]);
		memcpy(to + 8 * words, &w, rest);
	}
}
