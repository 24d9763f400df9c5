/* presence_redis.h - this replica's users, as Redis shows them to the other replicas.
 *
 *    ringcast:presence:<node>:<namespace>   sorted set, all scores 0, members "room\0user\0sockets"; lives
 * for redis.lease
 *
 * Master process, on its loop; never blocks. Only namespaces with presence = on, only while the command link
 * is open.
 *
 *      link opens, or the key has vanished          all members written
 *   (nothing) -----------------------> REWRITING -----------------------> KEPT   changes are written 50 ms
 * later, in batches; ^                                                                   |    the lease is
 * renewed every third of it
 *       +-------------------------- link lost ------------------------------+
 *
 * A batch is one EVAL: what leaves, what comes and the lease are one step, so that no key is ever without
 * one, wherever the connection breaks. Crashed, a replica's keys are gone when the lease is; stopped, at once
 * (nodes_leave).
 */
#ifndef RC_PRESENCE_REDIS_H
#define RC_PRESENCE_REDIS_H

#include "master/presence.h"

#define PRESENCE_KEY_MAX (sizeof(CFG_OWN_PREFIX "presence::") + 16 + CFG_NAME_MAX)
/* room, NUL, user, NUL, decimal sockets; and the NUL that snprintf() puts behind it */
#define PRESENCE_MEMBER_MAX (CFG_ROOM_MAX + PRESENCE_USER_MAX + 13)

/* Before relay_start(). 0, or -1 with ENOMEM. */
int presence_redis_start(struct master *m) MUST_CHECK;
void presence_redis_stop(struct master *m);

/* Something changed in the table: write it soon. */
void presence_redis_poke(struct master *m);

/* Four times a second: leases. */
void presence_redis_tick(struct master *m, uint64_t now_ms);

/* A clean stop: delete the keys. */
void presence_redis_leave(struct master *m);

/* The key of a node's namespace, NUL-terminated. */
void presence_redis_key(char dst[PRESENCE_KEY_MAX], uint64_t node, const char *ns);

/* What a member says. False: it is none. Slices point into `text`. */
bool presence_redis_read(struct slice text, struct slice *room, struct slice *user,
			 uint32_t *sockets) MUST_CHECK;

#endif
