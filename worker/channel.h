/* channel.h - the worker's channels: who is a member here, and what the master was told.
 *
 *          first join             REC_SUBSCRIBED              last leave
 *   (none) ---------> PENDING -----------------> SUBSCRIBED ------------> (none; UP_DROP)
 *            UP_ADD     |  last waiter gone: (none; UP_DROP)
 *
 * A PENDING channel has waiters (JOINING connections) and no members, so ring records of it concern nobody
 * here. The master counted the interest before it sent REC_SUBSCRIBED and drops it when it has read UP_DROP:
 * whatever concerns a member is protected (slot.h).
 *
 * A namespace's own channel (room "") may be held: then it stays, and is subscribed to, without members.
 *
 * Members are connection indices in one packed array: live ones first, then those that are behind, so that a
 * fan-out touches only sockets that can be sent to. A single member needs no array.
 *
 * Worker; one thread. Indices and pointers are stable while the channel exists.
 */
#ifndef RC_CHANNEL_H
#define RC_CHANNEL_H

#include "common/config.h"
#include "common/log.h"

struct worker;
struct conn;

#define CHANNEL_NONE UINT32_MAX

#define CHANNEL_ROOM_SHORT 16u /* bytes of a room that need no block of their own */

enum channel_state { CHANNEL_FREE, CHANNEL_PENDING, CHANNEL_SUBSCRIBED };

struct channel {
	uint64_t hash;
	uint64_t last;       /* position of the newest record seen; 0 = none */
	uint64_t last_plain; /* of the newest one that is not targeted */
	uint64_t n_plain;    /* how many of these were seen */
	union {
		uint32_t one;   /* cap == 0 */
		uint32_t *many; /* cap > 0 */
	} members;
	uint32_t n, n_live, cap;
	uint32_t n_idle;  /* members that are behind, but with nothing of this channel (behind.h) */
	uint32_t next;    /* in its hash bucket, or in the free list */
	uint32_t waiting; /* PENDING: first JOINING connection (linked by conn.member); CONN_NONE */
	uint32_t batch;   /* fanout.c: its place in the batch under way, or CHANNEL_NONE */
	uint16_t ns;      /* index in config->namespaces */
	uint8_t room_len;
	uint8_t state : 7; /* enum channel_state */
	bool is_held : 1;  /* kept without members: targeted records travel in it (user.h) */
	union {
		char in[CHANNEL_ROOM_SHORT]; /* room_len <= CHANNEL_ROOM_SHORT */
		char *out;
	} room; /* channel_room() */
};

_Static_assert(sizeof(struct channel) == 88, "channel: often one for each client");

#define CHANNEL_SEGMENT_BITS 8u
#define CHANNEL_SEGMENT      (1u << CHANNEL_SEGMENT_BITS)

/* Slab segments that never move, so a new channel costs its own bytes and no copy of the others. */
struct channel_table {
	struct channel **segment;
	uint32_t n_segments, n;
	uint32_t free;
	uint32_t *bucket; /* first channel of a chain; a power of two of them */
	uint32_t n_buckets;
};

int channel_table_init(struct channel_table *t) MUST_CHECK;
/* After the last connection has gone. */
void channel_table_free(struct channel_table *t);

static inline struct channel *channel_at(const struct channel_table *t, uint32_t index)
{
	return &t->segment[index >> CHANNEL_SEGMENT_BITS][index & (CHANNEL_SEGMENT - 1)];
}

static inline struct slice channel_room(const struct channel *ch)
{
	return (struct slice){ch->room_len <= CHANNEL_ROOM_SHORT ? ch->room.in : ch->room.out, ch->room_len};
}

static inline uint32_t *channel_members(struct channel *ch)
{
	return ch->cap == 0 ? &ch->members.one : ch->members.many;
}

/* The channel of a record header; CHANNEL_NONE if nobody here knows it. ns is the namespace's id. */
uint32_t channel_find(const struct worker *w, uint64_t hash, uint16_t ns_id, struct slice room);

/* Records with these hashes come next: fetch what channel_find() and a send to an only member will look at.
 * One after the other each lookup waits for memory four times where there are many channels; here the waits
 * of all overlap. A hint, nothing else. */
#define CHANNEL_AHEAD 16u
void channel_ahead(const struct worker *w, const uint64_t hash[CHANNEL_AHEAD], unsigned n);

/* `c` (HANDSHAKE done) wants to be in ns:room. It becomes a member at once (returns 1), or waits in JOINING
 * (returns 0) until channel_subscribed(). -1: no memory. */
int channel_join(struct worker *w, struct conn *c, uint16_t ns_index, struct slice room) MUST_CHECK;

/* REC_SUBSCRIBED: all waiters become members; join_done() of input.c runs for each. */
void channel_subscribed(struct worker *w, uint32_t index);

/* Hold the namespace's own channel, made if there is none. Returns its index, or CHANNEL_NONE: no memory. One
 * holder: when it is subscribed user_subscribed() runs, behind the members that waited for it. */
uint32_t channel_hold(struct worker *w, uint16_t ns_index) MUST_CHECK;
void channel_release(struct worker *w, uint32_t index);

/* `c` leaves, as a member or as a waiter. Nothing if it is neither. */
void channel_leave(struct worker *w, struct conn *c);

/* "ns:room", or "ns" for the namespace's own channel, as a value for a log line. Returns dst->s. */
const char *channel_log_name(const struct worker *w, uint32_t index, struct log_quoted *dst);

/* Move a member between the live part and the rest. */
void channel_set_live(struct worker *w, struct conn *c, bool is_live);

/* input.c: the 101 for a connection whose membership has just begun. */
void join_done(struct worker *w, struct conn *c);

#endif
