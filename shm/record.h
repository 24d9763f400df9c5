/* record.h - what travels on the broadcast ring, master to workers.
 *
 *   0        96              (8-aligned)                           frame_off          payload (8-aligned)
 *   | header | room name ... | targets ... | ... right-aligned     | frame header | payload ... | padding |
 *                              targets_len                         '-------- frame_len ---------'
 *
 * A publication carries one finished, unmasked WebSocket frame: the bytes that every client gets. The payload starts
 * 8-aligned, the frame header stands right in front of it. Most control records have no frame: their `arg` words say it
 * all; those with a payload (rec_payload) carry it the same way.
 *
 * Targets. A targeted publication is for users and groups, in whatever room they are: its channel is the namespace itself
 * (room ""), also where the namespace has rooms, and so is its chain. The block holds entries of struct rec_target, users
 * first, each kind sorted by hash, each entry 8-aligned:
 *
 *   | hash (8) | kind (2) | len (2) | id (len) ... | padding |
 */
#ifndef RC_RECORD_H
#define RC_RECORD_H

#include "shm/ring.h"

enum rec_type {
	REC_PUBLICATION = 1,
	/* Control, addressed to one worker (slot and incarnation), or to all (slot REC_ALL). */
	REC_SUBSCRIBED, /* ns, room: the channel's membership may begin at this record. arg[0]: 1 = Redis did not
			 * confirm in time */
	REC_ANSWER,     /* to one publish request. id: the request; seq; arg[0]: enum rec_answer; arg[1]: epoch; payload:
			 * struct rec_counts, if counts were asked for and are known */
	REC_DRAIN,      /* leave service. arg[0]: close code (0: wait for the clients to leave), arg[1]: ms to spread
			 * the closes over */
	REC_ACCEPT,     /* arg[0]: 1 = accept, 0 = pause (WINCH) */
	REC_REOPEN,     /* open the log file anew */
	REC_GAP,        /* ns: foreign messages may have been lost; on_gap = close namespaces act on it */
	REC_REPLY,      /* to one UP_REQUEST. id: the request; arg[0]: enum rec_reply; payload: what was asked for */
	REC_ADMIT,      /* to one UP_ADMIT. id: its request; arg[0]: 1 = come in, 0 = over the limit */
	REC_CONTROL,    /* payload: a JSON object with "method": "disconnect" or "groups" (docs/protocol.md) */
	REC_SURVEY,     /* all workers: answer with UP_TOLD. id: the survey; arg[0]: enum survey_kind; ns, room, payload: of
			 * what */
};

/* SENT, QUEUED, OFF: taken; what Redis has to do with it. The others: refused. */
enum rec_answer {
	REC_SENT,
	REC_QUEUED,
	REC_OFF,
	REC_OVERLOADED,
	REC_TOO_LARGE,
	REC_NO_ROUTE,
	REC_BAD_JSON,
	REC_NO_TARGET,  /* taken for nobody: targets that leave nobody. Not an error of the publisher's */
	REC_UNTARGETED, /* taken for nobody: targeted_only */
	REC_NOT_OBJECT, /* JSON, but no object */
};

enum rec_reply { REC_REPLY_OK, REC_REPLY_NONE, REC_REPLY_UNAVAILABLE, REC_REPLY_BAD };

enum survey_kind { SURVEY_CHANNELS = 1 };

#define REC_ALL UINT16_MAX

/* Whom a publication reached, or will: on this host, and with Redis up on all. */
struct rec_counts {
	uint64_t sockets, users; /* users: an estimate where there are many (UP_MATCHED_MAX in uplink.h) */
	uint64_t is_partial;     /* 1: not all workers and replicas have told in time */
};

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
	uint32_t frame_len;    /* frame header + payload; 0 = none */
	uint32_t frame_off;    /* from the record's start */
	uint16_t name_len;     /* bytes of the room, 0 if the namespace has none */
	uint16_t slot;         /* control: the worker addressed, or REC_ALL; publication: the publisher's
				* worker if a client here published it (UP_REQUEST_ANSWER in uplink.h), else REC_ALL */
	uint32_t incarnation;  /* control: of the worker addressed; publication: of the publisher's worker */
	uint32_t targets_len;  /* bytes of the block behind the room */
	uint16_t flags;        /* enum rec_flag */
	uint16_t pad;
	uint64_t arg[2];       /* publication: [0] the publisher's tag, [1] not 0: every worker that has interest tells
				* UP_MATCHED under this number */
};

enum rec_flag {
	REC_TARGETED = 1, /* for the targets alone */
	REC_RETAINED = 2, /* REC_SUBSCRIBED: its payload is the channel's retained frame */
	REC_TRACKED = 4,  /* publication with arg[1]: workers also tell UP_DELIVERED under it */
};

enum rec_target_kind { REC_TARGET_USER = 1, REC_TARGET_GROUP = 2 };

struct rec_target {
	uint64_t hash; /* rec_user_hash(ns, id) or rec_group_hash(id) */
	uint16_t kind; /* enum rec_target_kind */
	uint16_t len;
	char id[];     /* len bytes, then zeros to a multiple of 8 */
};

_Static_assert(offsetof(struct rec_target, id) == 12, "rec_target: layout");

_Static_assert(sizeof(struct rec) == 96, "rec: no hidden padding");
_Static_assert(offsetof(struct rec, next) == 0 && offsetof(struct rec, len) == 8 && offsetof(struct rec, type) == 12 &&
		       offsetof(struct rec, ns) == 14 && offsetof(struct rec, hash) == 16 &&
		       offsetof(struct rec, seq) == 24 && offsetof(struct rec, time_ns) == 32 &&
		       offsetof(struct rec, origin) == 40 && offsetof(struct rec, id) == 48 &&
		       offsetof(struct rec, frame_len) == 56 && offsetof(struct rec, frame_off) == 60 &&
		       offsetof(struct rec, name_len) == 64 && offsetof(struct rec, slot) == 66 &&
		       offsetof(struct rec, incarnation) == 68 && offsetof(struct rec, targets_len) == 72 &&
		       offsetof(struct rec, flags) == 76 && offsetof(struct rec, arg) == 80,
	       "rec: layout");

/* Hash of a channel: keyed, so that clients cannot aim room names at one bucket. `key` is globals.hash_key. */
uint64_t rec_channel_hash(uint64_t key, uint16_t ns, struct slice room);

/* Hash of a user in a namespace, and of a group, which is the same in all namespaces. Keyed likewise. */
uint64_t rec_user_hash(uint64_t key, uint16_t ns, struct slice user);
uint64_t rec_group_hash(uint64_t key, struct slice group);

/* Hash of a user in a namespace that is the same in every process of a cluster: by names, without a key. For counting
 * (struct up_matched); a client that aims at collisions hides itself from a count and nothing more. */
uint64_t rec_cluster_hash(struct slice ns_name, struct slice user);

/* Bytes of one entry of the targets block. */
static inline size_t rec_target_size(size_t id_len)
{
	return ALIGN_UP(offsetof(struct rec_target, id) + id_len, (size_t)8);
}

/* Bytes that a record with this room and payload takes on the ring; targeted: with a block of so many bytes. */
uint32_t rec_size(size_t name_len, size_t payload_len);
uint32_t rec_size_targeted(size_t name_len, size_t targets_len, size_t payload_len);

/* The room of a record: behind its header. */
static inline struct slice rec_room(const struct rec *h, const uint8_t *at)
{
	return (struct slice){(const char *)at + sizeof(struct rec), h->name_len};
}

/* The targets block of a record. */
static inline struct slice rec_targets(const struct rec *h, const uint8_t *at)
{
	return (struct slice){(const char *)at + sizeof(struct rec) + ALIGN_UP((size_t)h->name_len, (size_t)8),
			      h->targets_len};
}

/* The payload, without the frame's header; p == NULL: the record has no frame. */
struct slice rec_payload(const struct rec *h, const uint8_t *at);

/* Walk a block: the entry at *off, or NULL at its end (or when the rest is no whole entry). */
const struct rec_target *rec_target_next(struct slice block, size_t *off);

/* Master. Reserve, fill and commit one record. Of `h` the caller sets everything but len, next, frame_len, frame_off
 * and name_len. payload.p == NULL: a control record without frame. `prev`: the channel's last record that is not
 * reclaimed, or 0: its `next` is linked (R3). The caller has checked ring_space(). Returns the record's position. */
uint64_t rec_commit(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice payload,
		    uint64_t prev);

/* The same with a targets block (a multiple of 8 bytes, as above; "" = none). */
uint64_t rec_commit_targeted(struct ring *r, uint64_t gate, struct rec *h, struct slice room, struct slice targets,
			     struct slice payload, uint64_t prev);

/* A reader. Copy the header at `pos` and prove it whole (C2, C3). False: reclaimed meanwhile, use none of it. */
bool rec_peek(const struct ring *r, uint64_t pos, struct rec *copy) MUST_CHECK;

/* C4: the channel's next record behind `pos`; 0 = none yet. Meaningful only if `pos` is whole afterwards: the
 * function checks and returns false if it was reclaimed. */
bool rec_next(const struct ring *r, uint64_t pos, uint64_t *next) MUST_CHECK;

/* Copy [off, off + len) of the record at `pos` into dst and prove it whole. off a multiple of 8. */
bool rec_copy(const struct ring *r, uint64_t pos, uint32_t off, void *dst, size_t len) MUST_CHECK;

#endif
