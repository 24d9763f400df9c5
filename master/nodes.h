/* nodes.h - the replicas: what this one says about itself, and what the others say.
 *
 *    ringcast:nodes          sorted set: node -> when its lease ends, in ms of Redis' own clock
 *    ringcast:node:<node>    a JSON object: version, host, pid, uptime, connections, users, both by namespace
 *
 *    ringcast:users:<node>   its users, so that all of them can be counted (sketch.h)
 *
 * All live for redis.lease and are renewed every third of it; then the others' are read, and when one says on
 * the channel ringcast:changed that it has come or leaves. A node is named by its origin, in 16 hex digits.
 * Master process, on its loop; never blocks, but nodes_leave().
 */
#ifndef RC_NODES_H
#define RC_NODES_H

#include <hiredis/hiredis.h>

#include "common/buf.h"
#include "master/master.h"

#define KEY_NODES      CFG_OWN_PREFIX "nodes"
#define CHANNEL_NODES  CFG_OWN_PREFIX "changed"
#define NODES_MAX      256u   /* others that are looked at */
#define NODES_TEXT_MAX 65536u /* bytes of what one may say */

/* Before relay_start(): m->nodes. 0, or -1 with ENOMEM. */
int nodes_start(struct master *m) MUST_CHECK;
void nodes_stop(struct master *m); /* after relay_stop() */

/* Four times a second. */
void nodes_tick(struct master *m, uint64_t now_ms);

/* The other live replicas, as last read. *n: how many. *is_known false: not read since the link opened. Valid
 * until the loop goes on. */
const uint64_t *nodes_others(const struct master *m, unsigned *n, bool *is_known);

/* The others among the members of KEY_NODES (an array), each once: at most NODES_MAX. Returns how many. */
unsigned nodes_read(const struct master *m, const redisReply *reply, uint64_t *others);

/* {"nodes":[...]}, this one first. 0, or -1 (ENOMEM). */
int nodes_info(struct master *m, struct buf *out) MUST_CHECK;

/* A clean stop: delete everything that this replica keeps in Redis, and wait until that is done, for a second
 * at most, or until a second signal comes. */
void nodes_leave(struct master *m);

#endif
