/* presence.h - who is online: what workers say (UP_PRESENCE) to tables, gauges, Redis and answers.
 *
 *    UP_PRESENCE --> presence_table.c --> gauge `users` of each namespace
 *                          |  changes
 *                          v
 *                  presence_redis.c --> one sorted set for each namespace that lists who is online
 *                  presence_ask.c   --> /api/presence, /api/presence_stats: this table and those of the other
 * replicas
 *
 * Master process, on its loop; never blocks. A dead worker's share goes in pieces.
 */
#ifndef RC_PRESENCE_H
#define RC_PRESENCE_H

#include "master/master.h"
#include "master/presence_table.h"
#include "shm/uplink.h"

struct presence_sync; /* presence_redis.c */
struct presence_asks; /* presence_ask.c */

struct presence {
	struct presence_table table;
	uint8_t reader[CROWD_READERS]; /* enum presence_reader */
	unsigned n_dead;
	struct presence_sync *sync;
	struct presence_asks *asks;
};

/* Before relay_start(): m->presence. 0, or -1 with ENOMEM. */
int presence_start(struct master *m) MUST_CHECK;
void presence_stop(struct master *m); /* after relay_stop() */

/* UP_PRESENCE: `ns` is of the master's registry, `room` private memory, `user` is not. Returns false if it is
 * nonsense. */
bool presence_told(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room,
		   struct slice user, uint32_t sockets) MUST_CHECK;

/* After waitpid() has returned the worker. */
void presence_worker_died(struct master *m, struct child *c);

/* Before the loop blocks: a piece of what the dead have left. Returns true if there is more. */
bool presence_turn(struct master *m) MUST_CHECK;

/* Four times a second. */
void presence_tick(struct master *m, uint64_t now_ms);

#endif
