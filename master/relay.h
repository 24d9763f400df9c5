/* relay.h - between Redis, workers and sequencer: publications in and out, and their answers.
 *
 * Master process, on its loop; never blocks. In local mode (no Redis) publications go straight to the ring;
 * with Redis its echo is what local clients get, or redis.h's short-cut while a link is down. Subscriptions:
 * subscribe.h.
 */
#ifndef RC_RELAY_H
#define RC_RELAY_H

#include "master/master.h"
#include "master/redis_cmd.h"

/* Connect, if a URL is configured, and subscribe what is subscribed from the start. 0, or -1 with ENOMEM. */
int relay_start(struct master *m) MUST_CHECK;
void relay_stop(struct master *m);

/* What a worker publishes. */
struct relay_message {
	const struct cfg_namespace *ns;
	struct slice room; /* private memory */
	struct slice payload;
	bool is_private; /* payload, too; else it is memory that the worker can write */
	const struct envelope *envelope; /* json: relay_publish() sets it */
	uint8_t opcode, source;
	bool is_rule;     /* of a client, but the words are the configuration's (UP_RULE) */
	bool wants_count; /* UP_COUNT */
	bool is_tracked;  /* UP_TRACKED */
	uint32_t request; /* uplink.h */
};

/* Returns false if it has to wait: ring or pending list are full; nothing was taken. Else it is on its way,
 * or refused, and the worker's answer with it. */
bool relay_publish(struct master *m, struct child *c, const struct relay_message *msg) MUST_CHECK;

/* Is a message of `total` bytes more than its source may send? Then it is counted and answered. */
bool relay_refuses_size(struct master *m, struct child *c, const struct relay_message *msg,
			uint64_t total) MUST_CHECK;
void relay_refuse(struct master *m, struct child *c, const struct relay_message *msg, enum rec_answer why);

/* What comes on the Redis channel `channel` (a literal or kept by the caller for the master's life; begins with
 * CFG_OWN_PREFIX) goes to `fn`, on the loop; slices are borrowed for the call. At any time, also before relay_start(); at most
 * RELAY_INTERNAL_MAX of them. In local mode none ever comes. 0, or -1: ENOMEM, ENOSPC, EEXIST. */
#define RELAY_INTERNAL_MAX 8
typedef void relay_internal_fn(void *arg, struct slice channel, struct slice payload);
int relay_listen(struct master *m, const char *channel, relay_internal_fn *fn, void *arg) MUST_CHECK;

/* Be told when the command link (m->cmd) opens and is lost: at most RELAY_WATCH_MAX of them, before relay_start(); either
 * function may be NULL. 0, or -1 with ENOSPC. */
#define RELAY_WATCH_MAX 4
int relay_watch(struct master *m, const struct redis_cmd_events *ev) MUST_CHECK;

/* The ring has space again. */
void relay_resume(struct master *m);

/* The configuration behind the old generation's namespaces is about to be freed. */
void relay_rebind(struct master *m);

/* Four times a second: what workers show about Redis. */
void relay_tick(struct master *m, uint64_t now_ms);

#endif
