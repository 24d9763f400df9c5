/* redis_subs.h - which channels are subscribed: the table of names, and what is still to be said to Redis.
 *
 * Master process only; never blocks. One entry stands for a name's two Redis channels (bare, and own
 * messages); an internal one for the bare channel alone, and it is wanted for ever.
 *
 * Wish and wire are kept apart. Changes of the wish only queue the entry; redis_subs_write() compares the two
 * once per loop turn and sends what differs, in batches, so that a quick unsubscribe and subscribe costs
 * nothing. Each command sent adds the confirmations it will get to `owed`. Redis answers in order, so when
 * `owed` is 0 the last command is in force, whatever came before it:
 *
 *      wanted, on wire, owed 0     -> confirmed
 *      not wanted, not on wire, 0  -> freed
 *
 * Memory: one allocation per name of 27 bytes + length, and 8 to 16 bytes of table.
 */
#ifndef RC_REDIS_SUBS_H
#define RC_REDIS_SUBS_H

#include "common/base.h"
#include "common/buf.h"
#include "master/redis_link.h"

#define REDIS_SUBS_BATCH 500 /* names in one command: two channels each */

struct redis_sub {
	void *owner;
	uint32_t hash;
	uint32_t owed;    /* confirmations to come */
	uint32_t pending; /* own publications that refer to this entry (redis_pending.c) */
	uint16_t ns;      /* id of its namespace */
	uint16_t len;
	bool wanted : 1;
	bool on_wire : 1;
	bool confirmed : 1;
	bool queued : 1;  /* stands in redis_subs.queue: not to be freed */
	bool syncing : 1; /* was wanted when the link opened, not confirmed since */
	bool is_internal : 1;
	uint8_t pins : 3; /* callers that hold on to the entry */
	char name[];      /* NUL-terminated bare channel */
};

struct redis_subs {
	struct redis_sub **slot; /* open addressing, linear; a power of two */
	size_t n_slots, used;
	struct redis_sub **queue; /* first come, first sent */
	size_t queue_at, queue_len, queue_cap;
	size_t confirmed, syncing; /* entries with that flag */
	size_t internal;           /* entries with that flag: confirmed ones */
	struct redis_sub *last;    /* found last; messages come in runs of one channel */
	struct redis_sub
		*reading; /* the caller's: channel of the message under way; NULL when the entry is freed */
	struct buf out;   /* scratch of redis_subs_write() */
	bool linked;
	void (*on_confirmed)(void *arg, struct redis_sub *sub);
	void *arg;
};

void redis_subs_free(struct redis_subs *s);

/* Want a channel. NULL: ENOMEM; EEXIST if it is wanted already; EINVAL for a name over 64,000 bytes. */
struct redis_sub *redis_subs_want(struct redis_subs *s, uint16_t ns, const char *name,
				  void *owner) MUST_CHECK;

/* Want an internal channel. 0; -1 with ENOMEM, EEXIST or EINVAL as above. */
int redis_subs_listen(struct redis_subs *s, const char *name) MUST_CHECK;

/* Want it no longer; `sub` may be freed at once. Returns -1 with ENOMEM if Redis can't be told: the link must
 * go. */
int redis_subs_unwant(struct redis_subs *s, struct redis_sub *sub) MUST_CHECK;

/* NULL if there is none. */
struct redis_sub *redis_subs_find(struct redis_subs *s, const char *name, size_t len);

/* Hold on to an entry across a callback that may unsubscribe it. NULL is fine. Pins nest (up to 7 deep). */
static inline void redis_subs_pin(struct redis_sub *sub)
{
	if (sub != NULL)
		sub->pins++;
}

/* Let go: it is freed if nobody wanted it any more. */
void redis_subs_unpin(struct redis_subs *s, struct redis_sub *sub);

/* The link opened: all that is wanted is to be sent. Returns -1 with ENOMEM: the link must go. */
int redis_subs_open(struct redis_subs *s) MUST_CHECK;

/* The link is gone and with it all that was on the wire. */
void redis_subs_lost(struct redis_subs *s);

/* Send what differs, as long as the link's queue is short; on_confirmed may be called. Returns -1 with
 * ENOMEM. */
int redis_subs_write(struct redis_subs *s, struct redis_link *link) MUST_CHECK;

/* Redis confirmed a SUBSCRIBE or UNSUBSCRIBE of one of the name's channels; on_confirmed may be called. */
void redis_subs_reply(struct redis_subs *s, const char *name, size_t len);

/* Redis channels that are confirmed. */
static inline size_t redis_subs_channels(const struct redis_subs *s)
{
	return s->confirmed * 2 - s->internal;
}

/* All that was wanted when the link opened has been confirmed. */
static inline bool redis_subs_is_synced(const struct redis_subs *s)
{
	return s->linked && s->syncing == 0;
}

#endif
