/* interest.h - the channel table of the master: who wants a channel, where its last record lies.
 *
 * Master process only; never blocks; one thread. A reader is a live worker, by an id of its own
 * (sequencer.h): ids of dead workers stay in the lists until the sweep has passed, so a death costs nothing
 * at once, whatever the number of channels.
 *
 *    hash -> bucket -> entry -> entry ...            (two bucket arrays while the table grows: each call
 * moves a few)
 *
 * Memory: 64 bytes an entry and its room's name, 8 to 16 bytes of buckets. Up to INTEREST_FEW readers stand
 * in the entry itself. An entry is forgotten by the sweep when nobody wants it, nothing is subscribed for it,
 * no timer names it, and its last record is reclaimed: until then `last` and `seq` carry the channel's chain.
 */
#ifndef RC_INTEREST_H
#define RC_INTEREST_H

#include "common/base.h"
#include "shm/slot.h"

#define INTEREST_FEW     8u
#define INTEREST_READERS SLOT_MAX

struct redis_sub;

struct interest_entry {
	struct interest_entry *next;
	uint64_t hash;
	uint64_t last; /* ring position of its newest record, 0 = none yet */
	uint64_t seq;  /* of that record */
	struct redis_sub *sub;
	union {
		uint8_t few[INTEREST_FEW]; /* n_readers 1 to INTEREST_FEW */
		uint8_t *many;             /* more */
		uint64_t idle_ms;          /* n_readers 0: since when (CLOCK_MONOTONIC) */
	};
	uint32_t created; /* how many were created before it: two lives of one name are told apart */
	uint16_t ns;
	uint16_t n_readers;
	uint8_t name_len;
	bool is_waiting : 1; /* readers wait for Redis' confirmation; a timer names the entry */
	bool has_linger : 1; /* a timer names the entry */
	bool has_wait : 1;   /* a timer names the entry */
	bool is_family : 1;  /* stands for a namespace's one Redis channel; in no table */
	char room[];
};

struct interest {
	struct interest_entry **bucket, **old; /* old: NULL unless growing */
	uint64_t n_buckets, n_old, moved;      /* powers of two; old[0 .. moved) is empty */
	uint64_t n;
	uint32_t created;
	uint64_t sweep;                       /* next bucket to look at */
	uint64_t pass;                        /* whole passes made without a growth in between */
	uint64_t dead[INTEREST_READERS / 64]; /* readers to be taken out */
	uint64_t dead_pass[INTEREST_READERS]; /* the pass they died in */
	unsigned n_dead;
};

/* 0, or -1 with ENOMEM. */
int interest_init(struct interest *t) MUST_CHECK;
void interest_free(struct interest *t);

static inline struct slice interest_room(const struct interest_entry *e)
{
	return (struct slice){e->room, e->name_len};
}

/* The channel's entry, or NULL. */
struct interest_entry *interest_find(struct interest *t, uint64_t hash, uint16_t ns, struct slice room);

/* The same, made if it is not there (room.len at most CFG_ROOM_MAX). NULL: ENOMEM. */
struct interest_entry *interest_get(struct interest *t, uint64_t hash, uint16_t ns,
				    struct slice room) MUST_CHECK;

/* An entry outside of the table, for a family channel. Free it with free(). NULL: ENOMEM. */
struct interest_entry *interest_family(uint16_t ns) MUST_CHECK;

/* Readers of an entry, n_readers of them, in no order. Valid until the next change. */
static inline const uint8_t *interest_readers(const struct interest_entry *e)
{
	return e->n_readers <= INTEREST_FEW ? e->few : e->many;
}

bool interest_has(const struct interest_entry *e, uint8_t reader);

/* 0 (also if it was there), or -1 with ENOMEM. */
int interest_add(struct interest_entry *e, uint8_t reader) MUST_CHECK;

/* Returns true if it was the last one: e->idle_ms = now_ms then. False if it was not there at all. */
bool interest_drop(struct interest_entry *e, uint8_t reader, uint64_t now_ms);

/* The reader is gone: the sweep takes it out of all entries. Its id may be used again when interest_is_dead()
 * has become false. */
void interest_reader_died(struct interest *t, uint8_t reader);
static inline bool interest_is_dead(const struct interest *t, uint8_t reader)
{
	return (t->dead[reader / 64] >> reader % 64 & 1) != 0;
}

struct interest_sweep {
	uint64_t now_ms, reclaim;
	/* The entry's last reader was a dead one. NULL: nothing to be told. */
	void (*on_idle)(void *arg, struct interest_entry *e);
	void *arg;
};

/* Look at the next `buckets` buckets: take out dead readers, forget entries. */
void interest_sweep(struct interest *t, uint64_t buckets, const struct interest_sweep *how);

/* Call `fn` for every entry of namespace `ns`; it may not add or remove entries. Costs a walk over the whole
 * table: for reloads only. */
void interest_walk(struct interest *t, uint16_t ns, void (*fn)(void *arg, struct interest_entry *e),
		   void *arg);

#endif
