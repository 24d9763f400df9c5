/* retained.h - the last message of each channel of namespaces with retain = "last": what a newcomer is given.
 *
 * Master process; pure but for malloc. The sequencer keeps each untargeted publication here as it commits it,
 * or finds that nobody on this host wants it; a worker gets the copy with REC_SUBSCRIBED and from then on
 * keeps its own.
 *
 * Bounded in bytes (bookkeeping included): the channel that has been silent longest is forgotten first, and
 * counted.
 */
#ifndef RC_RETAINED_H
#define RC_RETAINED_H

#include "common/base.h"
#include "common/config.h"

#define RETAINED_MAX_BYTES (UINT64_C(64) << 20)

struct retained;

/* NULL: ENOMEM. */
struct retained *retained_new(uint64_t max_bytes) MUST_CHECK;
void retained_free(struct retained *r); /* NULL is fine */

/* hash: rec_channel_hash() of ns and room. Copied. What can't be kept (memory, or more than the bound) takes
 * the channel's older message with it: none is better than a wrong one. */
void retained_keep(struct retained *r, uint64_t hash, uint16_t ns, struct slice room, uint8_t opcode,
		   struct slice payload);

/* The channel's last message. False: there is none. The payload is valid until the next retained_keep(). */
bool retained_find(const struct retained *r, uint64_t hash, uint16_t ns, struct slice room, uint8_t *opcode,
		   struct slice *payload) MUST_CHECK;

/* Forget the namespaces for which `keep` is false. */
void retained_only(struct retained *r, const bool keep[CFG_MAX_NAMESPACES]);

struct retained_stats {
	uint64_t n, bytes, evicted;
};
void retained_get_stats(const struct retained *r, struct retained_stats *out);

#endif
