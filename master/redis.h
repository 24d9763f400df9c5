/* redis.h - the Redis side of the master: two links, what is subscribed, what is not yet acknowledged.
 *
 * Master process only, on its libev loop; never blocks. Knows nothing of rings, workers and rooms' members:
 * it speaks to the sequencer through `struct redis_events`.
 *
 *    subscriber link: SUBSCRIBE / UNSUBSCRIBE / PING in, messages out
 *    publisher link:  PUBLISH / PING
 *
 * Own messages travel on "ringcast:m:<redis channel>" (interface 7): version 1 (1 byte), opcode (1), origin
 * (8), id (8, big-endian), payload. Foreign ones on the bare channel. Every redis_sub stands for both.
 *
 * The life of an own publication (docs/design.md, "Redis"):
 *
 *      redis_publish()            PUBLISH reply            echo
 *   ------------------> SENT ---------------+---------------------+--> delivered, gone when both came
 *         |              | a link is down or declared dead
 *         |              v
 *         +---------> LOCAL: delivered to local clients at once, in id order (on_publication with local =
 * true); kept until its PUBLISH reply, sent (again) resend_delay after the reconnect; the late echo is
 * dropped because its id <= the last one delivered here
 */
#ifndef RC_REDIS_H
#define RC_REDIS_H

#include <ev.h>

#include "common/base.h"
#include "common/config.h"

struct redis;
struct redis_sub;

/* Which publication of a worker waits for an answer; all zero = none. Opaque to redis.c. */
struct redis_token {
	uint16_t slot;
	uint32_t incarnation;
	uint32_t request;
};

struct redis_publication {
	struct redis_sub
		*sub; /* the subscription it came in by; NULL: an own one that nobody here subscribes */
	const struct cfg_namespace *ns;
	struct slice room;        /* own publications: the room it was published to; else "" */
	struct slice payload;     /* borrowed for the call */
	uint8_t opcode;           /* own form: WS_TEXT or WS_BINARY; 0 = foreign: the namespace decides */
	uint64_t origin, id;      /* own form, else 0 */
	uint64_t time_ns;         /* monotonic: when the link gave it, or redis_publish() was called */
	bool local;               /* short-cut: delivered without Redis */
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
	/* PUBLISH was acknowledged for a publication that expects no echo. ok is false if it was given up
	 * (pending_size passed while Redis was away). */
	void (*on_published)(void *arg, struct redis_token token, bool ok);
	/* `up` = both links are up and everything is resubscribed. Called at each change. */
	void (*on_state)(void *arg, bool up);
	/* The subscriber link was lost while up: foreign messages may have been missed. */
	void (*on_gap)(void *arg);
	/* There is room in the pending list again after REDIS_FULL. */
	void (*on_room)(void *arg);
};

enum redis_result {
	REDIS_SENT,  /* handed to the publisher link; on_publication (echo) or on_published will follow */
	REDIS_LOCAL, /* a link is down: on_publication(local) has been or will be called; queued for Redis */
	REDIS_FULL,  /* the pending list is full: nothing was taken; wait for on_room */
};

struct redis_stats {
	bool sub_up, pub_up, up;
	char address[160]; /* "127.0.0.1:6379", "unix:/run/redis.sock"; no credentials */
	uint32_t channels; /* Redis channels subscribed now */
	uint64_t rtt_us;   /* of the last PING on the publisher link */
	uint64_t reconnects, gaps, pending_messages, pending_bytes;
	uint64_t messages_in, bytes_in, duplicates, given_up, bad_form;
};

/* The link object; connects as soon as the loop runs. `cfg` and `ev` are borrowed for its life.
 * origin: random, not 0, one per master start. NULL: ENOMEM. */
struct redis *redis_new(struct ev_loop *loop, const struct cfg_redis *cfg, uint64_t origin,
			const struct redis_events *ev) MUST_CHECK;
void redis_free(struct redis *r);

/* Subscribe a Redis channel (NUL-terminated bare name, copied) for `owner`; on_subscribed follows, at the
 * earliest from the loop. One call per name: the caller counts its own interest. NULL: ENOMEM. */
struct redis_sub *redis_subscribe(struct redis *r, const struct cfg_namespace *ns, const char *channel,
				  void *owner) MUST_CHECK;
/* UNSUBSCRIBE both channels and free `sub`: no event names it again. */
void redis_unsubscribe(struct redis *r, struct redis_sub *sub);
bool redis_sub_confirmed(const struct redis_sub *sub);

/* Publish an own message to ns:room (bare Redis channel in `channel`). `sub` = the caller's subscription of
 * that channel or NULL: with a confirmed one the echo is what local clients get. Copies the payload. */
enum redis_result redis_publish(struct redis *r, const struct cfg_namespace *ns, struct slice room,
				const char *channel, struct redis_sub *sub, uint8_t opcode,
				struct slice payload, struct redis_token token) MUST_CHECK;

/* The ring has room again: offer what was held back, then read on. */
void redis_resume(struct redis *r);

/* After a HUP the namespaces of the old configuration go away: repoint every subscription and pending entry
 * by namespace id. Subscriptions whose namespace is gone must have been unsubscribed before. */
void redis_rebind(struct redis *r, const struct config *cfg);

void redis_get_stats(const struct redis *r, struct redis_stats *out);

#endif
