/* record.h - what travels on the broadcast ring, master to workers.
 *
 *   0        88              88+name_len    frame_off - (pad)      frame_off          payload (8-aligned)
 *   | header | room name ... | zero padding | ... right-aligned    | frame header | payload ... | padding |
 *                                                                  '-------- frame_len ---------'
 *
 * A publication carries one finished, unmasked WebSocket frame: the bytes that every client gets. The payload starts
 * 8-aligned, the frame header stands right in front of it. A control record has no frame: its `arg` words say it all.
 */
#ifndef RC_RECORD_H
#define RC_RECORD_H

#include "shm/ring.h"

enum rec_type {
	REC_PUBLICATION = 1,
	/* Control, addressed to one worker (slot and incarnation), or to all (slot REC_ALL). */
	REC_SUBSCRIBED, /* ns, room: the channel's membership may begin at this record. arg[0]: 1 = Redis did not
			 * confirm in time */
	REC_ANSWER,     /* to one publish request. id: the request; seq; arg[0]: enum rec_answer; arg[1]: epoch */
	REC_DRAIN,      /* leave service. arg[0]: close code (0: wait for the clients to leave), arg[1]: ms to spread
			 * the closes over */
	REC_ACCEPT,     /* arg[0]: 1 = accept, 0 = pause (WINCH) */
	REC_REOPEN,     /* open the log file anew */
	REC_GAP,        /* ns: foreign messages may have been lost; on_gap = close namespaces act on it */
};

enum rec_answer { REC_SENT, REC_QUEUED, REC_OFF, REC_OVERLOADED, REC_TOO_LARGE, REC_NO_ROUTE };

#define REC_ALL UINT16_MAX

struct rec {
	_Atomic uint64_t next; /* position of the channel's next record, 0 = none yet; the one field written after
				* commit (R3) */
	uint32_t len;          /* all of it, padding included; a multiple of RING_ALIGN */
	uint8_t type;          /* enum rec_type */
	uint8_t opcode;        /* WS_TEXT or WS_BINARY */
	uint16_t ns;           /* namespace id (globals.h) */
	uint64_t hash;         /* of the channel: rec_channel_hash(ns, room) */
	uint64_t seq;          /* of the channel on this host, from 1, no holes */
	uint64_t time_ns;      /* CLOCK_MONOTONIC when the master took the message */
	uint64_t origin, id;   /* of ringcast's own publications; 0 = foreign */
	uint32_t frame_len;    /* frame header + payload; 0 = control */
	uint16_t frame_off;    /* from the record's start */
	uint16_t name_len;     /* bytes of the room, 0 if the namespace has none */
	uint32_t incarnation;  /* control: of the worker addressed; publication: of the publisher's worker */
	uint16_t slot;         /* control: the worker addressed, or REC_ALL; publication: the publisher's
				* worker if a client here published it (UP_REQUEST_ANSWER in uplink.h), else REC_ALL */
	uint16_t pad;
	uint64_t arg[2];
};

_Static_assert(sizeof(struct rec) == 88, "rec: no hidden padding");
_Static_assert(offsetof(struct rec, next) == 0 && offsetof(struct rec, len) == 8 && offsetof(struct rec, type) == 12 &&
		       offsetof(struct rec, ns) == 14 && offsetof(struct rec, hash) == 16 &&
		       offsetof(struct rec, seq) == 24 && offsetof(struct rec, time_ns) == 32 &&
		       offsetof(struct rec, origin) == 40 && offsetof(struct rec, id) == 48 &&
		       offsetof(struct rec, frame_len) == 56 && offsetof(struct rec, frame_off) == 60 &&
		       offsetof(struct rec, name_len) == 62 && offsetof(struct rec, incarnation) == 64 &&
		       offsetof(struct rec, slot) == 68 && offsetof(struct rec, arg) == 72,
	       "rec: layout");

/* Hash of a channel: keyed, so that clients cannot aim room names at one bucket. `key` is globals.hash_key. */
uint64_t rec_channel_hash(uint64_t key, uint16_t ns, struct slice room);

/* Bytes that a record with this room and payload takes on the ring. */
uint32_t rec_size(size_t name_len, size_t payload_len);

/* The room of a record: behind its header. */
static inline struct slice rec_room(const struct rec *h, const uint8_t *at)
{
	return (struct slice){(const char *)at + sizeof(struct rec), h->name_len};
}

/* Master. Reserve, fill and commit one record. Of `h` the caller sets everything but len, next, frame_len, frame_off
 * and name_len. payload.p == NULL: a control record without frame. `prev`: the channel's last record that is not
 * reclaimed, or 0: its `next` is linked (R3). The caller has checked ring_space(). Returns the record's position. */
uint64_t rec_commit(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice payload,
		    uint64_t prev);

/* A reader. Copy the header at `pos` and prove it whole (C2, C3). False: reclaimed meanwhile, use none of it. */
bool rec_peek(const struct ring *r, uint64_t pos, struct rec *copy) MUST_CHECK;

/* C4: the channel's next record behind `pos`; 0 = none yet. Meaningful only if `pos` is whole afterwards: the
 * function checks and returns false if it was reclaimed. */
bool rec_next(const struct ring *r, uint64_t pos, uint64_t *next) MUST_CHECK;

/* Copy [off, off + len) of the record at `pos` into dst and prove it whole. off a multiple of 8. */
bool rec_copy(const struct ring *r, uint64_t pos, uint32_t off, void *dst, size_t len) MUST_CHECK;

#endif
