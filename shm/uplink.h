/* uplink.h - worker to master: a ring with one reader, inside the worker's slot segment. Each worker has two:
 * control (interest, answers; always drained) and data (publications; drained while the master can commit them).
 *
 * What is larger than UPLINK_CHUNK travels as UP_PUBLISH with the first part and UP_CHUNKs behind it, never mixed with
 * another message of the same worker; an UP_PUBLISH while one is unfinished means that its publisher vanished: the
 * master forgets the unfinished one. The master trusts no field: uplink_peek() checks the record's bounds, the caller
 * what is inside.
 */
#ifndef RC_UPLINK_H
#define RC_UPLINK_H

#include "shm/ring.h"

#define UPLINK_CONTROL_BYTES 65536u
#define UPLINK_CHUNK         65536u /* payload bytes of one record at most */

enum up_type {
	/* control */
	UP_HELLO = 1, /* the worker serves from now on */
	UP_ADD,       /* ns, room: first member here wants the channel */
	UP_DROP,      /* ns, room: the last one left */
	UP_DRAINED,   /* no client left after REC_DRAIN: the worker is about to exit */
	/* data */
	UP_PUBLISH, /* ns, room, opcode, request, source; total = payload bytes of the whole message */
	UP_CHUNK,   /* the next part of the message begun by UP_PUBLISH */
};

/* What `request` of UP_PUBLISH asks for. With this bit: one REC_ANSWER under the same number (the HTTP API). Without it,
 * and not 0: no answer, but the publication's record carries slot, incarnation and arg[0] = request of its
 * publisher, so that the worker can tell which of its clients has got its own message back (a Close is answered
 * after them). Records of all other publications have slot = REC_ALL and arg[0] = 0. */
#define UP_REQUEST_ANSWER UINT32_C(0x80000000)

struct up_rec {
	uint32_t len; /* all of it; a multiple of RING_ALIGN */
	uint8_t type; /* enum up_type */
	uint8_t opcode;
	uint16_t ns;
	uint32_t total;   /* UP_PUBLISH: payload bytes of the whole message */
	uint32_t payload; /* payload bytes in this record, behind the room */
	uint32_t request; /* UP_PUBLISH, see UP_REQUEST_ANSWER; 0 = none */
	uint8_t source;   /* UP_PUBLISH: enum cfg_source: client or API */
	uint8_t name_len; /* bytes of the room behind this header */
	uint16_t pad;
};

_Static_assert(sizeof(struct up_rec) == 24, "up_rec: no hidden padding");
_Static_assert(offsetof(struct up_rec, ns) == 6 && offsetof(struct up_rec, total) == 8 &&
		       offsetof(struct up_rec, payload) == 12 && offsetof(struct up_rec, request) == 16 &&
		       offsetof(struct up_rec, source) == 20 && offsetof(struct up_rec, name_len) == 21,
	       "up_rec: layout");

/* ---- worker, the producer */

/* Append one record: header fields of `h` (len, name_len and payload are set here), room, payload. Returns false if
 * it does not fit now; with `want` the reader will then wake this worker once there is space
 * (uplink_take_starving). Never blocks. */
bool uplink_push(struct ring *r, const struct up_rec *h, struct slice room, struct slice payload,
		 bool want) MUST_CHECK;

/* ---- master, the reader */

struct up_view {
	struct up_rec h; /* private copy, bounds checked */
	struct slice room, payload; /* in memory that the worker can write: copy once, then look */
	uint64_t end;    /* position behind the record */
};

enum up_peek { UP_NONE, UP_RECORD, UP_BROKEN };

/* The record at `pos` (the caller's own copy of tail). UP_BROKEN: the worker wrote nonsense; replace it. */
enum up_peek uplink_peek(const struct ring *r, uint64_t pos, struct up_view *view) MUST_CHECK;

/* G1: everything before `pos` has been used. Returns true if the worker waits for space and must be woken. */
bool uplink_release(struct ring *r, uint64_t pos) MUST_CHECK;

#endif
