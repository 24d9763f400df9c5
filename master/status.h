/* status.h - what workers show about the master and about each other: upkeep of the globals and of the
 * master's counters. Master process; never blocks.
 */
#ifndef RC_STATUS_H
#define RC_STATUS_H

#include "master/master.h"

/* A worker's state changed. */
void status_worker(struct master *m, const struct child *c);

/* A worker is about to be started in that slot. */
void status_slot(struct master *m, uint16_t slot);

/* The worker of that slot is being replaced. */
void status_restarted(struct master *m, uint16_t slot);

/* Phase, generation and number of positions. */
void status_master(struct master *m);

/* is_subscribed: every family channel has been confirmed at least once. */
void status_redis(struct master *m, const struct redis_stats *s, bool is_subscribed);

/* A publication had to wait: one log line in ten seconds. */
void status_ring_full(struct master *m);

/* Four times a second: gates, memory. */
void status_tick(struct master *m);

#endif
