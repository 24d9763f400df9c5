/* subscribe.h - who is subscribed to what: interest of the workers, subscriptions in Redis, and when a worker
 * is told that a channel's membership may begin.
 *
 * Master process, on its loop; never blocks. In local mode (no Redis) every interest is answered at once. A
 * room channel in Redis mode:
 *
 *                first UP_ADD                 confirmed, or subscribe_timeout (arg[0] = 1)
 *     (no sub) ----------------> sub, waiting --------------------------------------------> sub
 *         ^                                                                                  | last UP_DROP,
 * or the |          unsubscribe_delay later, if nobody came                                 v last reader
 * died
 *         +--------------------------------------------------------------------------- sub, lingering
 *
 * A REC_SUBSCRIBED goes to all readers of the entry: a worker that had it before takes no notice. While the
 * subscriber link has been down for redis.timeout nobody waits: arg[0] = 1 at once. Both delays are constant,
 * so their timers are queues, and one ev_timer serves both.
 *
 * A family channel (one Redis channel for all rooms of a namespace) is subscribed from the start on; its
 * entry stands in master.family and in no table.
 */
#ifndef RC_SUBSCRIBE_H
#define RC_SUBSCRIBE_H

#include "master/master.h"

/* Bytes of a Redis channel's name without its NUL: prefix, room, suffix. */
#define SUBSCRIBE_NAME_MAX (2 * CFG_PATH_MAX + CFG_ROOM_MAX)

/* After m->redis was made, or with NULL there: subscribe the family channels of m->seq.ns. 0, or -1 with
 * ENOMEM. */
int subscribe_start(struct master *m) MUST_CHECK;

/* Before m->redis goes. */
void subscribe_stop(struct master *m);

/* A worker's interest. `room` is private memory. */
void subscribe_add(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room);
void subscribe_drop(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room);

/* Redis confirmed the subscription that was made for `e`. */
void subscribe_confirmed(struct master *m, struct interest_entry *e);

/* Every family channel has been confirmed at least once, and the link been up; true in local mode. */
bool subscribe_is_complete(const struct master *m);

/* The sweep of the channel table, `buckets` further. */
void subscribe_sweep(struct master *m, uint64_t buckets);

/* A reload: from now on `ns` is what its id means. NULL: the namespace is gone, with the last worker that
 * knew it, and the subscriptions of its channels go. Costs a walk over the channel table if its Redis channel
 * is another one now. */
void subscribe_set_namespace(struct master *m, uint16_t id, const struct cfg_namespace *ns);

#endif
