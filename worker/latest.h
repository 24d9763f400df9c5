/* latest.h - retain = "last": each channel's last message, as this worker has seen it go by.
 *
 *    REC_SUBSCRIBED with REC_RETAINED --> copy --> replaced by untargeted records --> gone with its channel
 *
 * A newcomer is given the copy when he becomes a member: between two batches, when what has been read and
 * what he will be sent meet without gap or overlap. So nobody misses a message, and nobody gets one twice.
 *
 * Worker; one thread. Bounded: LATEST_BYTES of all channels together; what does not fit is not kept (nor is
 * what it would have replaced), and counted (retained_evicted).
 */
#ifndef RC_LATEST_H
#define RC_LATEST_H

#include "common/base.h"

struct worker;
struct latest_frame;

#define LATEST_BYTES (UINT64_C(64) << 20)

struct latest_table {
	struct latest_frame **v; /* by channel index; NULL until a namespace retains */
	uint32_t n;
	uint64_t bytes;
};

/* This is the channel's last message now. Nothing if its namespace does not retain. */
void latest_set(struct worker *w, uint32_t channel, uint8_t opcode, struct slice payload);

/* The whole frame; len 0: there is none. Valid until the channel's next message. */
struct slice latest_get(const struct worker *w, uint32_t channel);

/* The channel goes. */
void latest_drop(struct worker *w, uint32_t channel);
void latest_free(struct worker *w);

#endif
