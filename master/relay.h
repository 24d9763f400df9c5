/* relay.h - between Redis, workers and sequencer: who is subscribed to what, publications in and out, answers.
 *
 * Master process, on its loop; never blocks. In local mode (no Redis) subscriptions are answered at once and
 * publications go straight to the ring.
 *
 * A room channel in Redis mode:
 *
 *                 first UP_ADD                  confirmed, or subscribe_timeout (arg[0] = 1)
 *      (no sub) -----------------> sub, waiting ---------------------------------------------> sub
 *          ^                                                                                    | last UP_DROP, or the
 *          |            unsubscribe_delay later, if nobody came                                 v last reader died
 *          +----------------------------------------------------------------------------- sub, lingering
 *
 * A REC_SUBSCRIBED goes to all readers of the entry: a worker that had it before takes no notice. While the subscriber
 * link has been down for redis.timeout, or since the start, nobody waits: arg[0] = 1 at once. Both delays are constant, so
 * their timers are queues, and one ev_timer serves both.
 */
#ifndef RC_RELAY_H
#define RC_RELAY_H

#include "master/master.h"

/* Connect, if a URL is configured, and subscribe the family channels of m->seq.ns. 0, or -1 with ENOMEM. */
int relay_start(struct master *m) MUST_CHECK;
void relay_stop(struct master *m);

/* A worker's interest. `room` is private memory. */
void relay_add(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room);
void relay_drop(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room);

/* What a worker publishes. */
struct relay_message {
	const struct cfg_namespace *ns;
	struct slice room;    /* private memory */
	struct slice payload;
	bool is_private;      /* payload, too; else it is memory that the worker can write */
	uint8_t opcode, source;
	uint32_t request; /* uplink.h */
};

/* Returns false if it has to wait: ring or pending list are full; nothing was taken. Else it is on its way, or refused,
 * and the worker's answer with it. */
bool relay_publish(struct master *m, struct child *c, const struct relay_message *msg) MUST_CHECK;

/* Is a message of `total` bytes more than its source may send? Then it is counted and answered. */
bool relay_refuses_size(struct master *m, struct child *c, const struct relay_message *msg, uint64_t total) MUST_CHECK;
void relay_refuse(struct master *m, struct child *c, const struct relay_message *msg, enum rec_answer why);

/* The ring has space again. */
void relay_resume(struct master *m);

/* The sweep of the channel table, `buckets` further. */
void relay_sweep(struct master *m, uint64_t buckets);

/* A reload: from now on `ns` is what its id means. NULL for an id whose namespace is gone with the last worker that knew it: the
 * subscriptions of its channels go. */
void relay_set_namespace(struct master *m, uint16_t id, const struct cfg_namespace *ns);

/* The configuration behind the old generation's namespaces is about to be freed. */
void relay_rebind(struct master *m);

/* Four times a second: what workers show about Redis. */
void relay_tick(struct master *m, uint64_t now_ms);

#endif
