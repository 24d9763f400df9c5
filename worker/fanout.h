/* fanout.h - from the ring to the live members: a batch of records at a time, one send per member and
 * channel.
 *
 * A batch is what lies between `done` and head, bounded in records and bytes. Its publications are sorted by
 * channel as they are read; then each channel's members get all of the channel's frames: one frame straight
 * from ring memory, several small ones gathered once into a private buffer so that every member takes one
 * contiguous write. Only then does the cursor move.
 *
 * A targeted record is matched when it is read: each socket that it is for gets a link to it, and is marked
 * (CONN_MATCHED). Who is marked gets all that the batch has for him, the records of his channel and those
 * that are for him alone, merged by position, in one call, before the channels' turn, which passes over him.
 * So nobody else pays for it, and it costs its matches, not the connections.
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
#define FANOUT_DIRECT  8192u   /* links to targeted records; the record that passes it is the batch's last */

struct fanout_record {
	uint64_t pos, time_ns;
	uint64_t
		seq; /* not targeted: its number among those of its channel, as channel.n_plain counts them */
	const uint8_t *frame; /* ring memory, protected until the cursor moves */
	uint32_t frame_len;
	uint32_t next; /* the channel's next in this batch, or FANOUT_END */
	uint32_t channel;
	uint32_t members; /* live ones that it is for */
	bool is_targeted;
	bool is_tracked; /* delivered.h */
};
#define FANOUT_END UINT32_MAX

/* A targeted record for one connection. */
struct fanout_direct {
	uint32_t conn, record;
	uint32_t before; /* his link before this one, FANOUT_END: none. The newest is session.direct */
};

struct fanout_channel {
	uint32_t channel, first, last, n;
};

struct fanout {
	uint64_t done;   /* records before it have been handled */
	uint64_t cursor; /* what the master was told */
	uint32_t n_records, n_channels, n_own, n_direct;
	uint32_t unbeaten; /* sends since the last heartbeat */
	uint64_t bytes;
	struct fanout_record *records;   /* FANOUT_RECORDS */
	struct fanout_channel *channels; /* FANOUT_RECORDS */
	uint32_t *own; /* FANOUT_RECORDS: tags of clients whose own publications are in the batch */
	struct fanout_direct *direct; /* direct_cap: FANOUT_DIRECT, and one for each identified connection, so
				       * that the last record that is taken always finds room */
	uint32_t direct_cap;
	uint8_t *gather; /* FANOUT_GATHER */
};

int fanout_init(struct worker *w, uint64_t start) MUST_CHECK;
void fanout_free(struct fanout *f);

/* There are about to be so many connections that targeted records may be for. 0, or -1: no memory. */
int fanout_reserve(struct worker *w, uint32_t n) MUST_CHECK;

/* Handle one batch. Returns true if there is more. */
bool fanout_turn(struct worker *w);

/* Anything behind `done` that concerns this worker? For the moment before sleep. */
bool fanout_is_idle(const struct worker *w);

/* Nothing before skip_to concerns this worker: move there. Before sleep. */
void fanout_skip(struct worker *w);

/* Tell the master how far this worker is (G1). Makes copies of half-sent frames that would hold the ring. */
void fanout_publish_cursor(struct worker *w);

#endif
