/* ring.h - variable-length records in a power-of-two region: one producer, readers that cannot be lapped
 * while they are live, and a history behind them that can be read by copy-and-validate.
 *
 * The same code serves the broadcast ring (producer: the master; readers: all workers) and the uplinks (producer: one
 * worker; reader: the master; shm/uplink.h). No lock, no futex, no allocation: a process killed at any instruction
 * leaves the ring usable, since nothing of a record counts before R4.
 *
 * Positions are byte counts that only grow (64 bit); position p lives at data[p & (size - 1)]. The region is mapped
 * twice back to back, so a record never wraps. Records are RING_ALIGN-aligned multiples of RING_ALIGN.
 *
 *          history (copy and validate)         protected (readers may hand it to writev)
 *         |------------------------------|----------------------------------------------|...free...|
 *      reclaim                    smallest gate                                        head
 *
 *   reclaim <= gate <= head <= reclaim + size.     Bytes before `reclaim` may be torn at any moment.
 *
 * Ordering.  P = the producer, sole writer of head, reclaim, data and next.  C = a reader.
 *
 *   R0  P  store reclaim (release)                             --- pairs with C5: who meets a record reclaimed meets
 *                                                                  the skip_to (K1, slot.h) that let it go
 *   R1  P  release fence behind R0                             --- pairs with C3
 *   R2  P  store the record's words (relaxed)                  --- read by C2
 *   R3  P  store the predecessor's `next` (release)            --- pairs with C4 and C3: who meets the position meets the
 *                                                                  record. Before R4, so that a reader that has
 *                                                                  seen head past a record never finds its
 *                                                                  predecessor's next == 0
 *   R4  P  store head (release)                                --- pairs with C1
 *   C1  C  load head (acquire): every word below it is stored
 *   C2  C  load words (relaxed) into private memory
 *   C3  C  acquire fence, then C5: if C2 met a word of a newer lap, C5 meets that lap's reclaim, so
 *          `pos >= reclaim` proves the copy whole
 *   C4  C  load next (relaxed), then C3, whose fence makes it an acquire
 *   C5  C  load reclaim (acquire)                              --- pairs with R0
 *   G1  C  store cursor (release): no byte before it will be read again as protected memory  --- pairs with G2
 *   G2  P  load cursor (acquire), before R0 reclaims bytes below it
 *
 * Bytes that may be rewritten while somebody reads them are accessed as relaxed atomic words on both sides
 * (ring_store, ring_load), never by memcpy; a protected record may be read plainly.
 */
#ifndef RC_RING_H
#define RC_RING_H

#include "shm/order.h"

#define RING_MAGIC  UINT64_C(0x31676e6972637272) /* "rrcring1" */
#define RING_LAYOUT 1u
#define RING_ALIGN  16u
#define RING_LINE   64u /* bytes of a cache line: each writer has its own */

/* In shared memory, in front of (or near) the data. */
struct ring_hdr {
	uint64_t magic; /* written last: the ring is ready */
	uint32_t layout;
	uint32_t pad0;
	uint64_t size;  /* bytes of data, a power of two */
	uint64_t start; /* the first position ever */
	uint8_t pad1[RING_LINE - 32];

	_Atomic uint64_t head; /* end of the committed records. Producer writes, all read */
	uint8_t pad2[RING_LINE - 8];

	_Atomic uint64_t reclaim; /* bytes before it may be torn. Producer writes, all read */
	uint8_t pad3[RING_LINE - 8];

	_Atomic uint64_t tail; /* uplinks: what the one reader has taken. Reader writes. Unused on the broadcast ring,
				* whose cursors live in the slots */
	_Atomic uint32_t starving; /* uplinks: the producer waits for space. Producer sets, reader clears */
	uint8_t pad4[RING_LINE - 12];
};

_Static_assert(sizeof(struct ring_hdr) == 4 * RING_LINE, "ring_hdr: four cache lines");
_Static_assert(offsetof(struct ring_hdr, head) == 1 * RING_LINE, "ring_hdr.head");
_Static_assert(offsetof(struct ring_hdr, reclaim) == 2 * RING_LINE, "ring_hdr.reclaim");
_Static_assert(offsetof(struct ring_hdr, tail) == 3 * RING_LINE, "ring_hdr.tail");
_Static_assert(offsetof(struct ring_hdr, starving) == 3 * RING_LINE + 8, "ring_hdr.starving");

/* One process' view. */
struct ring {
	struct ring_hdr *hdr;
	uint8_t *data; /* mapped twice */
	uint64_t size, mask;
	/* The producer's own copies; nobody else may rely on them. */
	uint64_t head, reclaim;
};

/* Lay a fresh ring into zeroed memory. size: a power of two >= 4096. start: a multiple of RING_ALIGN, at least
 * size (so that no position is 0 and head - size never underflows). Producer side, once. */
void ring_init(struct ring *r, struct ring_hdr *hdr, uint8_t *data, uint64_t size, uint64_t start);

/* Take an existing ring (a reader, or a producer that comes back). Checks magic, layout and size.
 * Returns 0 or -1 with errno EPROTO. */
int ring_attach(struct ring *r, struct ring_hdr *hdr, uint8_t *data, uint64_t size) MUST_CHECK;

static inline uint8_t *ring_at(const struct ring *r, uint64_t pos)
{
	return r->data + (pos & r->mask);
}

/* ---- producer */

/* Bytes that can be committed now if `gate` is the smallest gate. */
static inline uint64_t ring_space(const struct ring *r, uint64_t gate)
{
	return gate + r->size - r->head;
}

/* Make `len` bytes at head writable (R0, R1): len a multiple of RING_ALIGN, at most ring_space(gate). Returns where the
 * record goes; nothing is visible until ring_commit(). Never blocks. Reclaims a little ahead (size / 64, never
 * past the gate) so that the line of `reclaim` moves rarely. */
uint8_t *ring_reserve(struct ring *r, uint32_t len, uint64_t gate);

/* R2: copy into a reserved record as relaxed words. dst 8-aligned; up to 7 bytes behind len are zeroed. */
void ring_store(void *dst, const void *src, size_t len);

/* R4: the reserved record of `len` bytes exists. Returns its position. */
uint64_t ring_commit(struct ring *r, uint32_t len);

/* ---- readers */

/* C1 */
static inline uint64_t ring_head(const struct ring *r)
{
	return SHM_LOAD(C1, &r->hdr->head);
}

/* The reclaim position now: for estimates. */
static inline uint64_t ring_reclaim(const struct ring *r)
{
	return SHM_LOAD(C5, &r->hdr->reclaim);
}

/* Are bytes copied from `pos` on whole? If not, a later slot_skip_to() of a worker is beyond `pos`. */
static inline bool ring_is_whole(const struct ring *r, uint64_t pos)
{
	SHM_FENCE(C3);                                 /* C3, pairs with R1 */
	return pos >= SHM_LOAD(C5, &r->hdr->reclaim); /* C5, pairs with R0 */
}

/* C2: copy out as relaxed words. src 8-aligned. Exactly len bytes of dst are written. */
void ring_load(void *dst, const void *src, size_t len);

#endif
