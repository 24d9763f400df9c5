/* slot.h - one worker's segment: cursor, sleeping word, heartbeat, the two uplinks. Writable in that worker and in the
 * master, mapped by nobody else. A fresh one is made for every worker process (incarnation), so nothing of a
 * dead worker can be mistaken for its successor's.
 *
 *   0      page 0: struct slot_shared        4096      control uplink data (64 KiB)      data uplink data (ring.uplink_size)
 *
 * The gate of a worker = max(cursor, skip_to): the producer never overwrites bytes at or after the smallest gate.
 *
 * Ordering.  W = the worker, M = the master.   (G1, G2, C1, R4: ring.h)
 *
 *   K1  M  store skip_to (release), after the store of head     --- pairs with K2
 *   K2  W  load skip_to (acquire), then C1: so head >= skip_to
 *   S1  W  store sleeping = 1 (relaxed), fence (seq_cst), C1     --- pairs with S2: of the two loads behind the fences at
 *   S2  M  R4, fence (seq_cst), load sleeping (relaxed)              least one sees the other side's store
 *
 * Where the worker stands and what the master may assume: the master keeps, for each worker, the end of the last record
 * that concerned it. Only when the cursor has reached that does skip_to follow head. A worker therefore walks
 * headers from max(cursor, skip_to) on by copy and check (rec_peek); a header that turns out to be reclaimed was
 * none of its business, and it jumps to skip_to, which is then beyond it: K1 precedes R0 in the master, C5 precedes
 * K2 in the worker. A record that does concern it is protected from R4 until G1.
 */
#ifndef RC_SLOT_H
#define RC_SLOT_H

#include "shm/ring.h"

#define SLOT_MAX    256u /* slots of a host: workers of two generations, with room */
#define SLOT_MAGIC  UINT64_C(0x31746f6c73637272)
#define SLOT_LAYOUT 1u

struct slot_shared {
	uint64_t magic;
	uint32_t layout;
	uint32_t incarnation;
	uint64_t start; /* ring position at which the worker begins */
	uint16_t index;
	uint8_t pad0[RING_LINE - 26];

	_Atomic uint64_t cursor; /* worker writes (G1) */
	uint8_t pad1[RING_LINE - 8];

	_Atomic uint32_t sleeping; /* worker writes 1 and 0, master 0 when it wakes it */
	uint8_t pad2[RING_LINE - 4];

	_Atomic uint64_t heartbeat; /* worker writes: grows while it makes progress */
	uint8_t pad3[RING_LINE - 8];

	_Atomic uint64_t skip_to; /* master writes (K1) */
	uint8_t pad4[RING_LINE - 8];

	struct ring_hdr control;
	struct ring_hdr data;
};

_Static_assert(offsetof(struct slot_shared, cursor) == 1 * RING_LINE, "slot.cursor");
_Static_assert(offsetof(struct slot_shared, sleeping) == 2 * RING_LINE, "slot.sleeping");
_Static_assert(offsetof(struct slot_shared, heartbeat) == 3 * RING_LINE, "slot.heartbeat");
_Static_assert(offsetof(struct slot_shared, skip_to) == 4 * RING_LINE, "slot.skip_to");
_Static_assert(offsetof(struct slot_shared, control) == 5 * RING_LINE, "slot.control");
_Static_assert(offsetof(struct slot_shared, data) == 9 * RING_LINE, "slot.data");
_Static_assert(sizeof(struct slot_shared) <= 4096, "slot_shared: one page");

/* One process' view. */
struct slot {
	struct slot_shared *sh;
	struct ring control, data; /* uplinks */
	int fd;                    /* master: the segment; worker: -1 (closed once mapped) */
};

/* Master: create and map a segment for a worker that begins at `start`; children do not inherit the mapping.
 * Returns 0, or -1 with errno and nothing held. */
int slot_create(struct slot *s, uint16_t index, uint32_t incarnation, uint64_t start, uint64_t uplink_size) MUST_CHECK;

/* Worker: map the inherited descriptor, and close it. 0, or -1 with errno (EPROTO: it is no slot, or one with another
 * uplink size), nothing held and the descriptor still the caller's. */
int slot_attach(struct slot *s, int fd, uint64_t uplink_size) MUST_CHECK;

/* Either: unmap, close. */
void slot_close(struct slot *s);

/* ---- worker */

/* G1 */
static inline void slot_set_cursor(struct slot *s, uint64_t pos)
{
	SHM_STORE(G1, &s->sh->cursor, pos);
}

/* K2 */
static inline uint64_t slot_skip_to(const struct slot *s)
{
	return SHM_LOAD(K2, &s->sh->skip_to);
}

/* S1: announce sleep. The caller then looks at the ring once more (ring_head) and calls slot_awake() if there is
 * something, else returns to its loop with the eventfd armed. */
static inline void slot_sleep(struct slot *s)
{
	SHM_STORE_RLX(S1, &s->sh->sleeping, 1);
	SHM_FENCE(S1); /* S1, pairs with S2 */
}

static inline void slot_awake(struct slot *s)
{
	SHM_STORE_RLX(S1, &s->sh->sleeping, 0);
}

static inline void slot_beat(struct slot *s)
{
	SHM_STORE_RLX(H1, &s->sh->heartbeat, SHM_LOAD_RLX(H1, &s->sh->heartbeat) + 1);
}

/* ---- master */

/* S2: once after a batch of commits, before any slot_is_sleeping(). */
static inline void slot_fence(void)
{
	SHM_FENCE(S2); /* S2, pairs with S1 */
}

/* True if the worker sleeps; it is then marked awake, and the caller must write its eventfd. */
static inline bool slot_take_sleeping(struct slot *s)
{
	if (SHM_LOAD_RLX(S2, &s->sh->sleeping) == 0)
		return false;
	SHM_STORE_RLX(S2, &s->sh->sleeping, 0);
	return true;
}

/* G2 */
static inline uint64_t slot_cursor(const struct slot *s)
{
	return SHM_LOAD(G2, &s->sh->cursor);
}

/* K1 */
static inline void slot_set_skip_to(struct slot *s, uint64_t pos)
{
	SHM_STORE(K1, &s->sh->skip_to, pos);
}

static inline uint64_t slot_heartbeat(const struct slot *s)
{
	return SHM_LOAD_RLX(H1, &s->sh->heartbeat);
}

#endif
