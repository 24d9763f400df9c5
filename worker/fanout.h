/* fanout.h - from the ring to the live members: a batch of records at a time, one send per member and
 * channel.
 *
 * A batch is what lies between `done` and head, bounded in records and bytes. Its publications are sorted by
 * channel as they are read; then each channel's members get all of the channel's frames: one frame straight
 * from ring memory, several small ones gathered once into a private buffer so that every member takes one
 * contiguous write. Only then does the cursor move.
 *
 * The published cursor may lag behind `done`: it is held at the oldest half-sent frame that has no private
 * copy yet (behind.c), but never more than a quarter of the ring.
 */
#ifndef RC_FANOUT_H
#define RC_FANOUT_H

#include "common/base.h"

struct worker;

#define FANOUT_RECORDS 1024u   /* of one batch */
#define FANOUT_BYTES   262144u /* frame bytes of one batch; one larger frame makes a batch of its own */
#define FANOUT_GATHER  65536u  /* frames of a channel are joined up to this */

struct fanout_record {
	uint64_t pos, seq, time_ns;
	const uint8_t *frame; /* ring memory, protected until the cursor moves */
	uint32_t frame_len;
	uint32_t next; /* the channel's next in this batch, or FANOUT_END */
};
#define FANOUT_END UINT32_MAX

struct fanout_channel {
	uint32_t channel, first, last, n;
};

struct fanout {
	uint64_t done;   /* records before it have been handled */
	uint64_t cursor; /* what the master was told */
	uint32_t n_records, n_channels, n_own;
	uint32_t unbeaten; /* sends since the last heartbeat, but for those of one group */
	uint64_t bytes;
	struct fanout_record *records;   /* FANOUT_RECORDS */
	struct fanout_channel *channels; /* FANOUT_RECORDS */
	uint32_t *own;   /* FANOUT_RECORDS: tags of clients whose own publications are in the batch */
	uint8_t *gather; /* FANOUT_GATHER */
};

int fanout_init(struct worker *w, uint64_t start) MUST_CHECK;
void fanout_free(struct fanout *f);

/* Handle one batch. Returns true if there is more. */
bool fanout_turn(struct worker *w);

/* Anything behind `done` that concerns this worker? For the moment before sleep. */
bool fanout_is_idle(const struct worker *w);

/* Nothing before skip_to concerns this worker: move there. Before sleep. */
void fanout_skip(struct worker *w);

/* Tell the master how far this worker is (G1). Makes copies of half-sent frames that would hold the ring. */
void fanout_publish_cursor(struct worker *w);

#endif
