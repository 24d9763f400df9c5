/* sequencer.h - the one place where records get their position: commit to the ring, gates, wake-ups.
 *
 * Master process only; never blocks; one thread. Knows the ring, the workers' slots and the channel table;
 * nothing of Redis, uplinks and processes.
 *
 * Readers. A live worker is a reader, by a small id that is its name in the channel table. An id is used
 * again only when the table's sweep has forgotten it.
 *
 *      ring   ...|-------- first ----- concern_end --------------- head
 *                                          ^ cursor has come here: nothing behind it concerns this reader,
 *                                            "caught up": skip_to may be head
 *
 * concern_end: the end of the last record that concerned the reader. first: the start of the first one since
 * it was last known to be caught up; 0 = it is caught up. skip_to is `first`, or head if caught up (K1, after
 * R4). gate = max(cursor, skip_to) as stored: it is stored before it counts.
 *
 * Two rules keep a worker from reading what is not protected for it, when it has dropped and added a channel
 * again while an older REC_SUBSCRIBED was under way: it is taken as caught up only while its control uplink
 * is empty, looked at after the cursor; and a REC_SUBSCRIBED does not take it as caught up at all. (Callers
 * drain the control uplinks before each publication for the same reason.)
 *
 * Back-pressure. Publications leave `reserve` bytes of the ring to control records; if even these are used
 * up, control records wait in a queue on the heap, in order. Its size is bounded by what asks for them: a
 * record for each interest and each pending publication. When a publication does not fit, SEQ_FULL: nothing
 * was taken, is_full is set until seq_poll() finds space.
 *
 * Json namespaces (envelope.h). The text says whom it is for; clients get it without its '_' keys, as text
 * frames:
 *
 *      _target_users, _target_groups     the namespace's own channel (room ""), with a block of targets; or
 *      there, in whatever room           nobody, if they name nobody (no_target)
 *      neither                           the room that route_key names, or the one it came by, or the
 * namespace if it has no rooms; nobody, if there is no such room (no_route) or the namespace is targeted_only
 * (untargeted)
 *
 * What is dropped is counted by namespace and reason, and logged now and then.
 */
#ifndef RC_SEQUENCER_H
#define RC_SEQUENCER_H

#include "common/buf.h"
#include "common/config.h"
#include "common/envelope.h"
#include "master/interest.h"
#include "master/retained.h"
#include "shm/counters.h"
#include "shm/record.h"
#include "shm/slot.h"

#define SEQ_RESERVE       (256u * 1024u) /* bytes for control records, or a sixteenth of a small ring */
#define SEQ_BATCH_BYTES   65536u         /* after that much, sleepers are woken although the batch goes on */
#define SEQ_BATCH_RECORDS 256u

#define SEQ_DROP_LOG_MS 10000u /* one line in that time for each namespace and reason */

#define SEQ_NOBODY (-1)

struct seq_reader {
	struct slot *slot; /* NULL: no live worker under this id */
	int wake_fd;
	uint16_t index; /* its slot */
	uint32_t incarnation;
	uint64_t cursor;             /* as last read */
	uint64_t skip_to;            /* as last stored */
	uint64_t concern_end, first; /* concern_end 0: nothing ever did */
	uint64_t control_pos; /* what the master has taken of the control uplink: drain.c keeps it true */
	bool is_marked;       /* a record of this batch concerns it */
	bool is_broken;       /* its cursor left [old cursor, head]: it must be replaced */
};

struct sequencer {
	struct ring ring;
	struct interest interest;
	struct counters *count;                             /* the master's block */
	const struct cfg_namespace *ns[CFG_MAX_NAMESPACES]; /* by id; NULL: gone, or never was */
	uint64_t origin, hash_key;
	bool is_local; /* no Redis configured: what nobody wants is committed too, for the history */

	uint64_t gate; /* the smallest, as last computed: the true one is not smaller */
	uint64_t reserve;
	struct seq_reader reader[SLOT_MAX];
	uint8_t live[SLOT_MAX]; /* ids */
	unsigned n_live;
	uint8_t marked[SLOT_MAX]; /* ids with is_marked */
	unsigned n_marked;
	uint32_t batch_records;
	uint64_t batch_bytes;

	struct envelope envelope;  /* the one that seq_publish() reads for itself */
	struct buf targets, order; /* scratch: a block of targets, and how it is sorted */
	uint64_t drop_logged_ms[CFG_MAX_NAMESPACES][COUNT_DROPPED_N + 1]; /* the last: skipped targets */

	struct retained *retained; /* last messages of channels; lent by the master; NULL: none are kept */

	struct buf waiting; /* control records for which even the reserve has no space */
	bool is_full;
	uint64_t full_need; /* ring bytes that the publication wanted which made it full */
	uint64_t n_full;    /* how often */
};

/* `ring` was laid out by the caller (ring_init). 0, or -1 with ENOMEM. */
int seq_init(struct sequencer *s, const struct ring *ring, uint64_t origin, uint64_t hash_key,
	     struct counters *count) MUST_CHECK;
void seq_free(struct sequencer *s);

/* ---- readers */

/* A worker that begins at seq_head() from now on; its gate counts at once. `slot` and the wake descriptor are
 * borrowed until seq_reader_remove(). Returns its id, or SEQ_NOBODY if none is free. */
int seq_reader_add(struct sequencer *s, struct slot *slot, uint16_t index, uint32_t incarnation,
		   int wake_fd) MUST_CHECK;

/* After waitpid() has returned the worker: its gate counts no more, its interest is forgotten by the sweep.
 */
void seq_reader_remove(struct sequencer *s, uint8_t id);

static inline uint64_t seq_head(const struct sequencer *s)
{
	return s->ring.head;
}

/* The smallest gate, from the cursors of now. */
uint64_t seq_refresh(struct sequencer *s);

/* Which reader alone makes all others wait? Its id, or SEQ_NOBODY: if the ring is not full; if another one is
 * not at head either; or if none of the others has had anything to read within the last lap. */
int seq_blame(const struct sequencer *s);

/* ---- publications */

enum seq_result {
	SEQ_DONE,    /* committed; or nobody on this host wants it (seq 0) */
	SEQ_FULL,    /* no space: nothing was taken */
	SEQ_DROPPED, /* never will be: counted, *why says it */
};

struct seq_message {
	const struct cfg_namespace *ns;
	struct slice room; /* "" in a namespace with rooms: the payload names it (route_key) */
	struct interest_entry
		*entry;       /* not json: its channel, if the caller has it at hand; NULL: looked up */
	struct slice payload; /* private memory: it is looked at more than once (uplinks: see below) */
	const struct envelope *envelope; /* json: what the payload was read as; NULL: it is read here */
	uint8_t opcode;                  /* WS_TEXT, WS_BINARY; 0: the namespace says */
	bool is_trusted;   /* the text was checked by whoever sent it: payload may be memory of a worker (not
			      json) */
	uint32_t max_size; /* bytes of payload allowed */
	uint64_t origin, id, time_ns;
	/* The publisher's worker and its number for it; slot REC_ALL: none. */
	uint16_t slot;
	uint32_t incarnation, tag;
	uint32_t count;  /* not 0: workers with interest tell UP_MATCHED under it */
	bool is_tracked; /* ... and UP_DELIVERED */
};

struct seq_outcome {
	uint64_t seq, epoch; /* SEQ_DONE */
	const struct interest_entry
		*entry;      /* ... the channel, until the next call; NULL: nobody here wants it */
	enum rec_answer why; /* SEQ_DROPPED: REC_OVERLOADED or behind it */
};

enum seq_result seq_publish(struct sequencer *s, const struct seq_message *m,
			    struct seq_outcome *out) MUST_CHECK;

/* The room that the payload names, into dst (CFG_ROOM_MAX bytes). Returns its length; 0: none, counted as a
 * drop. */
size_t seq_route(struct sequencer *s, const struct cfg_namespace *ns, struct slice payload, char *dst);

/* ---- json namespaces (seq_json.c) */

/* Read a text; what is no JSON object is counted as a drop. REC_SENT: it is one. REC_OVERLOADED is not
 * counted here. */
enum rec_answer seq_read(struct sequencer *s, const struct cfg_namespace *ns, struct slice text,
			 struct envelope *e) MUST_CHECK;

/* Where it goes, if it goes anywhere: REC_SENT, and *room, which is "" for targets. `given`: the room that it
 * came by,
 * "" = unknown; a room that the text names must be the same. Anything else is counted as a drop. Targets
 * skipped are not: seq_count_skipped(), once a message. */
enum rec_answer seq_judge(struct sequencer *s, const struct cfg_namespace *ns, struct slice given,
			  const struct envelope *e, struct slice *room) MUST_CHECK;

/* The targets of `e` into s->targets: users first, each kind sorted by hash. 0, or -1 (ENOMEM). */
int seq_targets(struct sequencer *s, uint16_t ns, const struct envelope *e) MUST_CHECK;

/* ---- drops (seq_drop.c) */

/* Count a publication that the master drops; a line in the log now and then. */
void seq_count_drop(struct sequencer *s, const struct cfg_namespace *ns, enum count_dropped why);

/* Elements of target lists that were passed over. */
void seq_count_skipped(struct sequencer *s, const struct cfg_namespace *ns, uint32_t n);

static inline uint64_t seq_hash(const struct sequencer *s, uint16_t ns, struct slice room)
{
	return rec_channel_hash(s->hash_key, ns, room);
}

/* What tells two lives of a channel's numbering apart. */
uint64_t seq_epoch(const struct sequencer *s, const struct interest_entry *e);

/* ---- control records: never refused
 *
 * They wait in memory while a full ring has no space for them. Most answer something of a worker's, which
 * bounds them; whoever makes others (orders that come from Redis), or long ones, asks seq_is_backlogged()
 * first and does without. */

#define SEQ_WAITING_MAX (8u << 20) /* bytes */

/* So much waits that nothing may join it that need not. */
static inline bool seq_is_backlogged(const struct sequencer *s)
{
	return s->waiting.len >= SEQ_WAITING_MAX;
}

/* `h`: type, ns, hash, seq, id, arg are the caller's. */
void seq_control(struct sequencer *s, uint8_t reader, const struct rec *h, struct slice room);
void seq_control_all(struct sequencer *s, const struct rec *h);
/* With a payload (p not NULL; copied). */
void seq_control_payload(struct sequencer *s, uint8_t reader, const struct rec *h, struct slice room,
			 struct slice payload);
void seq_control_all_payload(struct sequencer *s, const struct rec *h, struct slice room,
			     struct slice payload);

/* ---- the loop */

/* Wake the sleepers that a record of the batch concerns; move skip_to. Before the loop blocks. */
void seq_flush(struct sequencer *s);

/* While is_full, once a millisecond and when uplinks wake the master: commit waiting control records, wake
 * sleepers that hold the ring. Returns true if publications may be tried again (is_full is false then). */
bool seq_poll(struct sequencer *s);

#endif
