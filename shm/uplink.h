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
	UP_PRESENCE,  /* ns, room ("" unless the namespace has presence), payload: user id. total: the user's sockets of
		       * this worker in that channel from now on; 0 = none */
	UP_ADMIT,     /* opcode: enum up_limit, payload: user id or address (16 bytes), request; total: the limit. Answered
		       * by REC_ADMIT; if it says 1, one more is counted until UP_RELEASE or the worker's death */
	UP_RELEASE,   /* opcode and payload as above: one less */
	UP_MATCHED,   /* total: low half of the record's arg[1]; payload: struct up_matched */
	UP_TOLD,      /* request: the survey; opcode: 1 = more follows; payload: a JSON object of numbers, {"demo:a":3} */
	UP_TRACK,     /* ns, request, payload: the publisher's id (UP_TRACK_ID_MAX) of the message that comes next under this
		       * request, with UP_TRACKED */
	UP_DELIVERED, /* total: low half of the record's arg[1]; payload: struct up_matched in which sockets have taken
		       * the whole frame since the last telling, and hashes of their users, in any order */
	/* data */
	UP_PUBLISH, /* ns, room, opcode, request, source; total = payload bytes of the whole message */
	UP_CHUNK,   /* the next part of the message begun by UP_PUBLISH */
	UP_REQUEST, /* something of the master: opcode: enum up_ask, ns, room, request, payload (one record's worth at most);
		     * answered by REC_REPLY under the same number. May stand between the chunks of a message */
};

enum up_limit { UP_LIMIT_USER = 1, UP_LIMIT_ADDRESS = 2 };

/* What UP_REQUEST asks for; payload -> payload of the reply. */
enum up_ask {
	UP_ASK_CONTROL = 1,    /* JSON object with "method" (REC_CONTROL): all workers of all replicas get it -> "" */
	UP_ASK_PRESENCE,       /* who is in ns:room, everywhere -> JSON, the "result" of /api/presence */
	UP_ASK_PRESENCE_STATS, /* how many -> JSON likewise */
	UP_ASK_CHANNELS,       /* JSON -> JSON */
	UP_ASK_INFO,           /* -> JSON: the replicas */
	UP_ASK_RECEIPTS,       /* ns, room, payload: message id -> JSON */
	UP_ASK_RECEIPT,        /* ns, room, payload: user id, NUL, message id: it is read -> "" */
	UP_ASK_FETCH,          /* payload: key, NUL, key that must not exist ("" = none) -> the key's value; REC_REPLY_NONE */
	UP_ASK_STORE,          /* total: ttl in ms (0 = for ever), payload: key, NUL, value -> "" */
	UP_ASK_OFFLINE,        /* ns, payload: user id: what was kept for him, and is forgotten with the answer -> a sequence
				* of 4 bytes length (host order) and payload; REC_REPLY_NONE */
};

/* Flags of UP_PUBLISH. */
enum up_flag {
	UP_LOW = 1,   /* dropped (shed) rather than waited for */
	UP_COUNT = 2, /* the answer shall say how many sockets and users matched */
	UP_RULE = 4,  /* source client: the frame of a rule that a client's message set off. The operator's words, not the
		       * client's: max_publication bounds it, and its '_' keys mean what they mean from the API */
	UP_TRACKED = 8, /* with UP_COUNT: UP_TRACK came before it */
};

/* How many sockets here got, or will get, a publication, and who: the smallest UP_MATCHED_MAX distinct hashes of their
 * users, in growing order. With fewer than that the list is complete; else it is a sample from which the number of
 * distinct users over several workers and hosts can be estimated (k minimum values; Beyer et al., SIGMOD 2007). */
#define UP_MATCHED_MAX 512u
struct up_matched {
	uint64_t sockets;
	uint64_t n; /* of user_hash */
	uint64_t user_hash[UP_MATCHED_MAX]; /* only n of them travel */
};

#define UP_TRACK_ID_MAX 255u

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
	uint16_t flags;   /* enum up_flag */
	/* UP_PUBLISH: at most one of this throttle_key in throttle_ms, unless throttle_value has changed; key 0: no limit */
	uint64_t throttle_key;
	uint32_t throttle_ms, throttle_value;
};

_Static_assert(sizeof(struct up_rec) == 40, "up_rec: no hidden padding");
_Static_assert(offsetof(struct up_rec, ns) == 6 && offsetof(struct up_rec, total) == 8 &&
		       offsetof(struct up_rec, payload) == 12 && offsetof(struct up_rec, request) == 16 &&
		       offsetof(struct up_rec, source) == 20 && offsetof(struct up_rec, name_len) == 21 &&
		       offsetof(struct up_rec, flags) == 22 && offsetof(struct up_rec, throttle_key) == 24,
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

/* A payload of struct up_matched, copied out of memory that the worker can write. False: it is nonsense. */
bool uplink_matched(struct slice payload, struct up_matched *out) MUST_CHECK;

#endif
