/* redis.h - the Redis side of the master: two links, what is subscribed, what is not yet acknowledged.
 *
 * Master process only, on its libev loop; never blocks. Knows nothing of rings, workers and rooms' members:
 * it speaks to the sequencer through `struct redis_events`.
 *
 *    subscriber link: SUBSCRIBE / UNSUBSCRIBE / PING in, messages out
 *    publisher link:  PUBLISH / PING
 *
 * Own messages of plain namespaces travel on "ringcast:m:<redis channel>": version 1 (1 byte), opcode (1),
 * origin (8), id (8), both big-endian, payload (redis_form.h). Foreign ones on the bare channel. Every
 * redis_sub stands for both. In json namespaces own messages go to the bare channel, with the keys _rc_origin
 * and _rc_id as their last members (envelope.h), which others strip and ignore; a message whose keys are not
 * just so is a foreign one. All that follows holds for both. A message may say that its origin wants to know
 * how many got it: by the opcode's highest bit, or by the key _rc_ask.
 *
 * The life of an own publication:
 *
 *     redis_publish()          PUBLISH reply and echo, in either order
 *    ------------------> SENT ------------------------------------------> delivered by the echo; gone
 *          |              |
 *          |              | a link is lost or declared dead
 *          |              v
 *          +---------> LOCAL: local clients get it at once, in id order (on_publication, local = true)
 *
 * A LOCAL one is kept, sent (again) resend_delay later, and gone with the reply. A late echo is dropped,
 * since its id <= the last one delivered here.
 *
 * resend_delay counts from the publisher link's reconnect, or from the loss of the subscriber link alone: the
 * other replicas may have lost theirs as well and need the time to resubscribe. Until it is over new
 * publications are LOCAL too, so that none overtakes. Everything not echoed is sent again, acknowledged or
 * not: Redis may have told nobody. Replicas drop by origin and id what they have had.
 *
 * Inside a callback every function below may be called but redis_free() and redis_resume(); a subscription
 * that the callback was given stays valid memory until it returns.
 */
#ifndef RC_REDIS_H
#define RC_REDIS_H

#include <ev.h>

#include "common/base.h"
#include "common/config.h"
#include "common/envelope.h"

struct redis;
struct redis_sub;

/* Which publication of a worker waits for an answer; all zero = none. Opaque to redis.c. */
struct redis_token {
	uint16_t slot;
	uint32_t incarnation;
	uint32_t request;
	uint32_t count; /* not 0: on_receivers() is wanted */
	bool asks;      /* the message says that its origin wants to know how many got it (not opaque) */
};

struct redis_publication {
	struct redis_sub *sub; /* it came in by; own ones: as published; NULL: nobody here subscribes */
	const struct cfg_namespace *ns;
	struct slice room;    /* own publications: the room it was published to; else "" */
	struct slice payload; /* borrowed for the call; json: the text, with all its keys */
	const struct envelope
		*envelope;   /* json: what it was read as, borrowed; NULL: it was not, or is none */
	uint8_t opcode;      /* own form: WS_TEXT or WS_BINARY; 0 = foreign: the namespace decides */
	uint64_t origin, id; /* own form, else 0 */
	uint64_t time_ns;    /* monotonic: when the link gave it, or (local) redis_publish() was called */
	bool local;          /* short-cut: delivered without Redis */
	bool is_asking;      /* another replica wants to know how many got it */
	struct redis_token token; /* of the publisher on this host */
};

struct redis_events {
	void *arg;
	/* Deliver to local clients. Returns false when the ring is full: redis keeps the publication, stops
	 * reading the subscriber socket (its liveness clocks stand still) and offers it again on
	 * redis_resume(). */
	bool (*on_publication)(void *arg, const struct redis_publication *pub);
	/* Both channels of the subscription are confirmed (again after every reconnect). */
	void (*on_subscribed)(void *arg, struct redis_sub *sub, void *owner);
	/* The answer to a publication that on_publication() has not answered: ok = Redis acknowledged it, and
	 * nobody here was confirmed to subscribe its channel. Not ok = no other host will get it: Redis
	 * refused it; or it was given up, and then on_publication(local) has been called with the same token
	 * before. */
	void (*on_published)(void *arg, struct redis_token token, bool ok);
	/* Redis says to how many subscribers it gave the publication; before what is above is called for it,
	 * if that is still to be. is_own: we were one of them. Only for tokens with a count. */
	void (*on_receivers)(void *arg, struct redis_token token, uint64_t receivers, bool is_own);
	/* `up` = both links are up and everything is resubscribed. Called at each change. */
	void (*on_state)(void *arg, bool up);
	/* The subscriber link was lost while up: foreign messages may have been missed. */
	void (*on_gap)(void *arg);
	/* There is room in the pending list again after REDIS_FULL. */
	void (*on_room)(void *arg);
	/* A message on a channel of redis_listen(), as it was published. Both are borrowed for the call. */
	void (*on_internal)(void *arg, struct slice channel, struct slice payload);
	/* Sentinel named the master; the links have been told. Borrowed for the call. May be NULL. */
	void (*on_master)(void *arg, const char *host, uint16_t port);
};

enum redis_result {
	REDIS_SENT,  /* handed to the publisher link; on_publication (echo) or on_published will follow */
	REDIS_LOCAL, /* LOCAL of the picture: on_publication(local) has been or will be called; queued for
		      * Redis. Or given up: the list is full while Redis is away, so the newest reach local
		      * clients alone */
	REDIS_FULL,  /* the pending list is full: nothing was taken; wait for on_room */
};

struct redis_stats {
	bool sub_up, pub_up, up;
	char address[272];   /* "127.0.0.1:6379", "unix:/run/redis.sock"; no credentials. With Sentinel: the
				master's */
	uint32_t channels;   /* Redis channels subscribed now */
	uint64_t rtt_us;     /* of the last PING on the publisher link */
	uint64_t reconnects; /* of both links */
	uint64_t gaps;
	uint64_t pending_messages, pending_bytes;
	uint64_t messages_in, bytes_in; /* received on subscribed channels, payload bytes */
	uint64_t duplicates;            /* dropped for their id, late echoes of our own included */
	uint64_t given_up;              /* not published: the list was full, or Redis refused */
	uint64_t bad_form;              /* malformed own forms, and links dropped for what they said */
};

/* The link object; connects as soon as the loop runs. `cfg` is borrowed for its life, `ev` is copied.
 * origin: random, not 0, one per master start. NULL: ENOMEM. */
struct redis *redis_new(struct ev_loop *loop, const struct cfg_redis *cfg, uint64_t origin,
			const struct redis_events *ev) MUST_CHECK;
void redis_free(struct redis *r); /* NULL is fine; calls nobody back */

/* Subscribe a Redis channel (NUL-terminated bare name, copied) for `owner`; on_subscribed follows, at the
 * earliest from the loop. One call per name: the caller counts its own interest. NULL: ENOMEM; EEXIST while
 * another subscription of that name lives. */
struct redis_sub *redis_subscribe(struct redis *r, const struct cfg_namespace *ns, const char *channel,
				  void *owner) MUST_CHECK;
/* Be told what is published on a channel that servers talk on among themselves (copied; begins with
 * CFG_OWN_PREFIX): one plain channel, from now on and for ever; what is subscribed includes it before
 * on_state() says up. 0; -1: ENOMEM; EEXIST. */
int redis_listen(struct redis *r, const char *channel) MUST_CHECK;

/* UNSUBSCRIBE both channels and free `sub`: no event names it again. */
void redis_unsubscribe(struct redis *r, struct redis_sub *sub);
bool redis_sub_confirmed(const struct redis_sub *sub);

/* Publish an own message to ns:room (bare Redis channel in `channel`); json: the payload is an object without
 * _rc_ keys. `sub` = the caller's subscription of that channel or NULL: with a confirmed one the echo is what
 * local clients get. Copies the payload. */
enum redis_result redis_publish(struct redis *r, const struct cfg_namespace *ns, struct slice room,
				const char *channel, struct redis_sub *sub, uint8_t opcode,
				struct slice payload, struct redis_token token) MUST_CHECK;

/* The ring has room again: offer what was held back, then read on. */
void redis_resume(struct redis *r);

/* After a HUP, before the old configuration goes: what is known of each namespace id is replaced.
 * Subscriptions whose namespace is gone must have been unsubscribed before; what is pending for it still goes
 * to Redis, but no more to local clients. (redis_subscribe() and redis_publish() replace the namespace that
 * they are given.) */
void redis_rebind(struct redis *r, const struct config *cfg);

/* Both links are up and everything is subscribed. The id of the last own publication. */
bool redis_is_up(const struct redis *r);
uint64_t redis_last_id(const struct redis *r);

void redis_get_stats(const struct redis *r, struct redis_stats *out);

#endif
