/* throttle.h - what may be published again so soon: the throttles of rules (shm/uplink.h).
 *
 * A key stands for a user, a room and a rule; a value for what was said. The same again within the time is
 * too soon; another value passes and begins it anew, so that the end of a typing is never held back by its
 * beginning.
 *
 * A table of fixed size, THROTTLE_WAYS places for a key: what is no longer needed makes room first, then what
 * will be soonest. With more keys at a time than it holds some pass too early, which costs a frame and loses
 * nothing.
 *
 * Master process; one thread; never blocks. O(1).
 */
#ifndef RC_THROTTLE_H
#define RC_THROTTLE_H

#include "common/base.h"

#define THROTTLE_SETS 8192u
#define THROTTLE_WAYS 4u

struct throttle_entry {
	uint64_t key; /* 0: never used */
	uint64_t due_ms;
	uint32_t value;
};

struct throttle {
	struct throttle_entry *entry; /* THROTTLE_SETS x THROTTLE_WAYS; made at first use */
};

/* Is it too soon for this? (Also if there is no memory to know it.) */
bool throttle_is_too_soon(struct throttle *t, uint64_t key, uint32_t value, uint64_t now_ms) MUST_CHECK;

/* It has been published: the same is too soon until `ms` from now. */
void throttle_note(struct throttle *t, uint64_t key, uint32_t value, uint32_t ms, uint64_t now_ms);

void throttle_free(struct throttle *t);

#endif
