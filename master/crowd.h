/* crowd.h - how many users a namespace has: each counts once, on however many workers and in however many
 * rooms.
 *
 * Master process; pure but for its memory. A user is known by a hash alone, so a million of them is no
 * burden: 24 bytes for a user and reader, and 4 to 8 of buckets. Two users of one hash count as one.
 *
 *    hash -> bucket -> entry (reader 0) -> entry (reader 1) ...      entries of a reader are also linked with
 * each other, so that its death is taken in pieces
 *
 * A reader is a live worker, by a number of the caller's.
 */
#ifndef RC_CROWD_H
#define RC_CROWD_H

#include "common/base.h"
#include "common/config.h"

#define CROWD_READERS      256u
#define CROWD_SEGMENT_BITS 12u
#define CROWD_SEGMENT      (1u << CROWD_SEGMENT_BITS)

struct crowd_entry {
	uint64_t hash;
	uint32_t next;         /* in its bucket; free: the next free one */
	uint32_t older, newer; /* of the same reader */
	uint8_t ns, reader;
	uint16_t places; /* 0: free. Rooms that he is in there; UINT16_MAX: that many or more, until the reader dies */
};

_Static_assert(sizeof(struct crowd_entry) == 24, "crowd_entry: size");
_Static_assert(CFG_MAX_NAMESPACES <= UINT8_MAX, "crowd_entry: ns");

struct crowd {
	uint64_t key;
	struct crowd_entry **segment;
	uint32_t n_segments, n_used, free, n;
	uint32_t *bucket, *old; /* old: NULL unless growing */
	uint32_t n_buckets, n_old, moved;
	uint32_t newest[CROWD_READERS];
	uint64_t users[CFG_MAX_NAMESPACES]; /* distinct ones */
};

/* key: secret; places in the table depend on it. 0, or -1 with ENOMEM. */
int crowd_init(struct crowd *t, uint64_t key) MUST_CHECK;
void crowd_free(struct crowd *t);

/* A user is in one more place with that reader; crowd_put(): in one, whatever was said before. 0, or -1 with
 * ENOMEM: not counted. */
int crowd_add(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader) MUST_CHECK;
int crowd_put(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader) MUST_CHECK;

/* In one place less. Nothing if he was in none. */
void crowd_drop(struct crowd *t, uint16_t ns, uint64_t hash, uint8_t reader);

/* Entries by number, from 0 to n_used; one with no places is free. */
static inline const struct crowd_entry *crowd_entry_at(const struct crowd *t, uint32_t index)
{
	return &t->segment[index >> CROWD_SEGMENT_BITS][index & (CROWD_SEGMENT - 1)];
}

bool crowd_has(const struct crowd *t, uint16_t ns, uint64_t hash) MUST_CHECK;

/* Forget up to `max` users of a reader that adds none any more. Returns how many there were. */
uint32_t crowd_forget(struct crowd *t, uint8_t reader, uint32_t max);

#endif
