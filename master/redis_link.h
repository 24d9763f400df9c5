/* redis_link.h - one connection to Redis that comes back for ever.
 *
 * Master process only, on its libev loop; never blocks. hiredis gives the reply parser (redisReader) and the
 * command formatter, and nothing else: its asynchronous API aborts on legal traffic (docs/design.md).
 *
 *             backoff          connected           PING answered
 *      WAIT ----------> DIAL ------------> HELLO ----------------> OPEN
 *       ^                |                   |                      |  end of stream, no RESP, an error that
 *       +----------------+-------------------+                      |  denies service, a replica, or PING
 *       |  refused, an error, or cfg.timeout for both together      |  not answered in time
 *       +-----------------------------------------------------------+
 *
 * WAIT is bounded by the backoff timer, DIAL (redis_dial.h) and HELLO by one timer of cfg.timeout, OPEN by
 * the PING. Only redis_link_move() writes the state. HELLO is redis_hello.h, and refuses replicas.
 *
 * With sentinels in the configuration DIAL begins with asking them where the master is (redis_route.h); a
 * link that watches a sentinel dials them in turn.
 *
 * Liveness: a PING every cfg.ping_interval; dead when cfg.timeout has passed since it left and no byte came
 * meanwhile (its answer queues behind a large payload that still trickles in). What waits in the socket is
 * read before the verdict, and when the verdict itself comes late, half of the time is given again, so a loop
 * that was held up blames nobody. While the owner has paused reading, the
 * clocks stand still. Each PING of a link that commands travel on asks for the server's role, too: a server
 * that became a replica is a lost one ("replica").
 *
 * Callbacks come from the loop and from redis_link_resume(). From inside them every function below may be
 * called, except redis_link_free(); a link that fails meanwhile says so when the parser has returned.
 */
#ifndef RC_REDIS_LINK_H
#define RC_REDIS_LINK_H

#include <ev.h>

#include "common/base.h"
#include "common/config.h"
#include "master/redis_reply.h"

struct redis_link;

struct redis_link_events {
	void *arg;
	/* HELLO succeeded: commands may be queued. */
	void (*open)(void *arg);
	/* The open link is gone, with all that was queued; `reason` is one word, borrowed. */
	void (*lost)(void *arg, const char *reason);
	/* Subscriber: an element of an array that Redis pushed. false = it makes no sense: the link is
	 * dropped. */
	bool (*item)(void *arg, const struct redis_item *item);
	/* Publisher: the answer to the oldest own command without one (REDIS_REPLY_INTEGER or _ERROR; of an
	 * error its first word). false = drop the link. */
	bool (*reply)(void *arg, int type, const char *word);
	/* Commands: the answer to the oldest own command without one. */
	bool (*tree)(void *arg, const redisReply *reply);
	/* The output is nearly empty: more may be queued. May be NULL. */
	void (*drained)(void *arg);
	/* A PING was queued; its answer came. Either may be NULL. */
	void (*ping)(void *arg);
	void (*pong)(void *arg);
};

enum redis_link_kind {
	REDIS_LINK_SUB,
	REDIS_LINK_PUB,
	REDIS_LINK_CMD,
	REDIS_LINK_WATCH, /* to a sentinel: what a subscriber is, else */
};

/* `cfg` and `loop` are borrowed, `ev` is copied. Connects as soon as the loop runs. NULL: ENOMEM. */
struct redis_link *redis_link_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				  enum redis_link_kind kind, const struct redis_link_events *ev) MUST_CHECK;
void redis_link_free(struct redis_link *l); /* NULL is fine; calls nobody back */

bool redis_link_is_open(const struct redis_link *l);

/* Inside events.reply: the integer, if it is one. */
long long redis_link_integer(const struct redis_link *l);

/* Queue bytes of whole commands; only while open. `commands` = how many answers are owed for them
 * (not of a subscriber). Returns 0, or -1 (ENOMEM) with nothing queued. Nothing is written before
 * redis_link_flush().
 */
int redis_link_put(struct redis_link *l, const void *p, size_t len, unsigned commands) MUST_CHECK;

/* Bytes queued and not yet taken by the kernel. */
size_t redis_link_queued(const struct redis_link *l);

/* Write what is queued as far as the socket takes it, the rest when it can. */
void redis_link_flush(struct redis_link *l);

/* Drop the link (if open: lost() with this word is called, at the latest from the loop). */
void redis_link_drop(struct redis_link *l, const char *reason);

/* Sentinel names this address as the master's: a link elsewhere, or on its way elsewhere, is dropped
 * ("switched") and the next attempt goes there. Without sentinels: nothing. Not from a callback of this link.
 */
void redis_link_follow(struct redis_link *l, const char *host, uint16_t port);

/* Where it is connected to, or tries to: redis_dial_address(). "sentinel:<name>" until one has answered. */
const char *redis_link_address(const struct redis_link *l, char *dst, size_t size);

/* Stop reading and parsing: what was received stays where it is. A pause outlives a reconnect: then the link
 * opens (HELLO is read) and pauses again. Resume continues with what the parser holds, then with the socket.
 */
void redis_link_pause(struct redis_link *l);
void redis_link_resume(struct redis_link *l);

/* The owner recognised the answer to PING among pushed items. */
void redis_link_pong(struct redis_link *l);

/* Bytes of one bulk beyond which the link is dropped. */
void redis_link_set_max_bulk(struct redis_link *l, size_t bytes);

/* Monotonic ns of the read that the current callback came from. */
uint64_t redis_link_read_ns(const struct redis_link *l);

struct redis_link_stats {
	uint64_t opened; /* how often OPEN was reached */
	uint64_t failed; /* attempts that did not reach it */
	uint64_t rtt_us; /* of the last PING */
	uint64_t bytes_in;
	uint64_t bad_form; /* links dropped for what they said: no RESP, a bulk too large */
};
void redis_link_get_stats(const struct redis_link *l, struct redis_link_stats *out);

#endif
