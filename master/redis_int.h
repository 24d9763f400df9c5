/* redis_int.h - what redis.c (subscriptions, incoming messages, state) and redis_own.c (own publications)
 * share. Nobody else includes it. Master process only, on its loop.
 *
 *                         both links up, all resubscribed
 *        +--------+ <---------------------------------------- +----------+
 *        | NORMAL |                                           | FALLBACK |
 *        +--------+ ----------------------------------------> +----------+
 *                         a link lost, or "holding"
 *
 * NORMAL: a publication goes to the publisher link, its echo to local clients.
 * FALLBACK: local clients get each at once, in id order; the list keeps what Redis is still to get.
 * "Holding": nothing is sent for resend_delay after a link was lost or came back, since the other replicas
 * will have lost theirs too and need that time to resubscribe. Then the list is sent from its head, new ones
 * behind it.
 *
 * "Blocked": on_publication() said that the ring is full. Nothing more is offered, and the subscriber link is
 * paused, until redis_resume(). At most one incoming message is parked meanwhile.
 */
#ifndef RC_REDIS_INT_H
#define RC_REDIS_INT_H

#include "master/redis.h"
#include "master/redis_form.h"
#include "master/redis_link.h"
#include "master/redis_pending.h"
#include "master/redis_subs.h"
#include "master/redis_watch.h"

enum redis_push { PUSH_UNKNOWN, PUSH_MESSAGE, PUSH_CONFIRM, PUSH_PONG };

struct redis_parked {
	char *p; /* NULL: none */
	size_t len;
	struct redis_sub *sub;
	uint64_t time_ns;
	bool is_own_form;
};

struct redis {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	struct redis_events ev;
	uint64_t origin;
	struct redis_link *sub, *pub;
	struct redis_watch *watch; /* NULL: no sentinels */
	struct redis_subs subs;
	struct redis_origins *origins;
	const struct cfg_namespace *ns[CFG_MAX_NAMESPACES]; /* by id */
	ev_prepare
		prepare; /* last thing before the loop sleeps: all that a turn queued goes out in one write */

	/* The push under way on the subscriber link. */
	enum redis_push push;
	bool push_own_form; /* the channel of own messages of subs.reading, which is NULL if nobody wants it
			     */

	struct redis_parked parked;
	struct envelope envelope; /* of the json message under way */
	size_t max_bulk;
	bool synced;  /* the subscriber link is open and everything is confirmed */
	bool up_told; /* what on_state() was told last */
	bool blocked;
	bool offering; /* inside on_publication(): nothing else is offered from within it */

	struct redis_pending pending; /* from here: redis_own.c */
	ev_timer hold;
	bool holding;
	bool fallback;        /* the state of the picture; not yet delivered ones are in pending.next_local */
	bool full_told;       /* REDIS_FULL was answered: on_room() is owed */
	bool sweep;           /* some entry may have become done outside of the usual places */
	uint64_t full_need;   /* bytes that the last REDIS_FULL wanted */
	uint64_t last_id;     /* of own publications */
	uint64_t last_local;  /* the last own id that local clients were given */
	uint64_t local_upto;  /* the local pass ends behind this id */
	uint64_t replied_id;  /* last one answered */
	uint64_t echo_due_id; /* all answered up to it must have been echoed when the subscriber's PONG comes
			       */
	uint64_t give_up_logged_ns;
	struct buf signed_text; /* json: what is published, with our keys */

	uint64_t gaps, messages_in, bytes_in, duplicates, given_up, bad_form;
};

/* redis.c: hand one publication to the sequencer. false = the ring is full: now blocked. */
bool redis_offer(struct redis *r, const struct redis_publication *pub) MUST_CHECK;

/* redis_own.c */
void redis_own_init(struct redis *r);
void redis_own_free(struct redis *r);

/* A link came or went. first: the publisher's very first attempt succeeded, so nobody has lost anything. */
void redis_own_pub_open(struct redis *r, bool first);
void redis_own_pub_lost(struct redis *r);
void redis_own_sub_lost(struct redis *r);
void redis_own_update(struct redis *r);

/* One answer to a PUBLISH; ok = an integer, `receivers`; else Redis refused it. false = there was none to
 * answer. */
bool redis_own_replied(struct redis *r, bool ok, uint64_t receivers) MUST_CHECK;

/* An own message came by the subscriber link. false = the ring is full, offer it again. */
bool redis_own_echo(struct redis *r, struct redis_sub *sub, const struct redis_form *form,
		    uint64_t time_ns) MUST_CHECK;

/* The subscriber link's PING was queued, answered: whatever was acknowledged before it has been echoed by
 * now. */
void redis_own_sub_ping(struct redis *r);
void redis_own_sub_pong(struct redis *r);

/* Go on with local delivery after a full ring. */
void redis_own_resume(struct redis *r);

/* `sub` is about to go: nothing waits for its echo. */
void redis_own_unsubscribe(struct redis *r, struct redis_sub *sub);

/* Once per loop turn, and when the link has room. */
void redis_own_turn(struct redis *r);
void redis_own_pump(struct redis *r);

#endif
