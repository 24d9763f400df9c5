/* wheel.h - one deadline per connection, by 32-bit index: 12 bytes each, moves in a few nanoseconds.
 *
 * A wheel of WHEEL_SLOTS ticks of WHEEL_TICK_MS; a deadline beyond one turn waits in its slot and is looked
 * at once a turn. Links live in the connections themselves (struct wheel_link), found through a function.
 * Worker; one thread; no allocation.
 */
#ifndef RC_WHEEL_H
#define RC_WHEEL_H

#include "common/base.h"

#define WHEEL_SLOTS   1024u
#define WHEEL_TICK_MS 50u
#define WHEEL_NONE    UINT32_MAX

struct wheel_link {
	uint32_t prev,
		next; /* index of the neighbour; WHEEL_NONE at the ends. prev == self: not in the wheel */
	uint32_t due; /* tick */
};

struct wheel {
	uint32_t slot[WHEEL_SLOTS]; /* first index, WHEEL_NONE if empty */
	uint64_t start_ms;
	uint32_t tick; /* handled up to and including */
	uint32_t n;
	struct wheel_link *(*link)(void *arg, uint32_t index);
	void *arg;
};

void wheel_init(struct wheel *w, uint64_t now_ms, struct wheel_link *(*link)(void *, uint32_t), void *arg);

/* An unlinked link. */
static inline void wheel_link_init(struct wheel_link *l, uint32_t self)
{
	*l = (struct wheel_link){.prev = self, .next = WHEEL_NONE};
}

/* (Re)arm `index` for `due_ms`, rounded up to a tick: never early. */
void wheel_set(struct wheel *w, uint32_t index, uint64_t due_ms);
void wheel_clear(struct wheel *w, uint32_t index);

/* Take one index that is due at now_ms out of the wheel; WHEEL_NONE when none is left. */
uint32_t wheel_expire(struct wheel *w, uint64_t now_ms);

#endif
