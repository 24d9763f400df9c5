/* partial.h - frames that some clients have got a piece of (behind.h). Worker; one thread; behind.c alone
 * calls this.
 */
#ifndef RC_PARTIAL_H
#define RC_PARTIAL_H

#include "worker/behind.h"

struct worker;
struct conn;

/* The one of the frame at `pos`, which is protected: the ring keeps it for us. NULL: no memory. */
struct partial *partial_hold(struct worker *w, uint64_t pos) MUST_CHECK;
/* The one of a frame whose bytes are in the scratch now: shared if there is a copy already. NULL: no memory.
 */
struct partial *partial_private(struct worker *w, uint64_t pos, const uint8_t *frame,
				uint32_t frame_len) MUST_CHECK;
/* The one of the frame at `pos`, before the cursor, as a copy of its own. NULL: no memory, or (*is_lapped) it
 * is reclaimed. */
struct partial *partial_large(struct worker *w, uint64_t pos, bool *is_lapped) MUST_CHECK;

/* `c` is inside it from now on, ext->off bytes; or inside none any more (off = 0). The last one out frees it.
 */
void partial_enter(struct worker *w, struct conn *c, struct partial *p);
void partial_leave(struct worker *w, struct conn *c);

/* slow_memory: reset everybody inside the oldest copies until the rest fits. */
void partial_enforce_memory(struct worker *w);

#endif
