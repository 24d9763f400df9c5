/* redis_pending.h - own publications that Redis has not both acknowledged and echoed.
 *
 * Master process only. A list in id order with a budget of bytes; no callbacks, no clock, no socket: what
 * happens when is decided by redis_own.c. One allocation per entry holds the finished PUBLISH command, which
 * is what goes out however often, and the room.
 *
 *      head                   next_reply               next_send                  tail
 *      | answered, no echo yet | in flight on this link | not sent on this link ... |
 *
 * An entry leaves the list when it is done:
 *      echoed                                   Redis has executed it, wherever it was sent by
 *      or answered, not wanted, no resend       nobody here waits for it any more
 * and in no case while it is in flight, since answers are matched by their order.
 */
#ifndef RC_REDIS_PENDING_H
#define RC_REDIS_PENDING_H

#include "common/base.h"
#include "master/redis.h"
#include "master/redis_subs.h"

enum redis_entry_flag {
	ENTRY_INFLIGHT = 1,   /* on the publisher link, answer to come */
	ENTRY_REPLIED = 2,    /* answered since it was last sent */
	ENTRY_ECHOED = 4,     /* came back on the subscriber link */
	ENTRY_WANTED = 8,     /* local clients still have to get it: by its echo, or by the local pass */
	ENTRY_DELIVERED = 16, /* local clients have it */
	ENTRY_RESEND = 32,    /* a link was lost meanwhile: others may have missed it */
};

struct redis_entry {
	struct redis_entry *next, *prev;
	uint64_t id, time_ns;
	struct redis_sub *sub; /* counted in sub->pending; NULL: nobody here subscribes */
	struct redis_token token;
	uint32_t cmd_len;
	uint32_t payload_at, payload_len; /* within cmd */
	uint16_t channel_at, channel_len; /* ... the bare channel's name */
	uint16_t ns, room_len;
	uint8_t opcode;
	uint8_t flags;
	char cmd[]; /* the command, then the room */
};

struct redis_pending {
	struct redis_entry *head, *tail;
	struct redis_entry *next_reply; /* first in flight; meaningless if inflight is 0 */
	struct redis_entry *next_send;  /* NULL: all sent */
	struct redis_entry *next_echo;  /* where the search for an echo begins */
	struct redis_entry *next_local; /* next to be handed to local clients without Redis; NULL: none */
	size_t inflight, count;
	uint64_t bytes;
};

struct redis_entry_spec {
	uint64_t origin, id, time_ns;
	struct redis_sub *sub;
	uint16_t ns;
	uint8_t opcode;
	const char *channel;
	struct slice room, payload; /* payload below 512 MiB, as Redis wants */
	bool is_bare; /* the payload goes to the bare channel as it is; else in the form of redis_form.h to
			 ours */
	struct redis_token token;
};

/* Bytes that such an entry will count for. */
size_t redis_entry_cost(const struct redis_entry_spec *spec);

static inline struct slice redis_entry_payload(const struct redis_entry *e)
{
	return (struct slice){e->cmd + e->payload_at, e->payload_len};
}

static inline struct slice redis_entry_channel(const struct redis_entry *e)
{
	return (struct slice){e->cmd + e->channel_at, e->channel_len};
}

static inline struct slice redis_entry_room(const struct redis_entry *e)
{
	return (struct slice){e->cmd + e->cmd_len, e->room_len};
}

/* Append a copy of all that spec names. Returns NULL with ENOMEM. */
struct redis_entry *redis_pending_add(struct redis_pending *p,
				      const struct redis_entry_spec *spec) MUST_CHECK;

/* p->next_send has been queued on the link. */
void redis_pending_sent(struct redis_pending *p);

/* The oldest one in flight was answered. Returns it; NULL: none is in flight. */
struct redis_entry *redis_pending_replied(struct redis_pending *p);

/* The entry with that id; NULL if it has left. Ids must grow from one call to the next (between rewinds),
 * else it is not found. *missed = the first entry passed over that is still wanted, else NULL. */
struct redis_entry *redis_pending_find(struct redis_pending *p, uint64_t id, struct redis_entry **missed);

bool redis_entry_is_done(const struct redis_entry *e);

/* Unlink and free; not while in flight. */
void redis_pending_remove(struct redis_pending *p, struct redis_entry *e);

/* A link was lost: what is not echoed is marked for resending. */
void redis_pending_mark(struct redis_pending *p);

/* The publisher link is gone: nothing is in flight any more. */
void redis_pending_unsend(struct redis_pending *p);

/* All of the list is to be sent (again), in order. Nothing may be in flight. */
void redis_pending_rewind(struct redis_pending *p);

void redis_pending_free(struct redis_pending *p);

#endif
