/* offline.h - messages for users who are connected nowhere: offline_max > 0.
 *
 * A targeted publication passes every replica. One of them, the publisher's for those of ringcast itself, of
 * the others the live replica with the smallest node id, looks which of the users are not connected: here, by
 * its own table, elsewhere by what the other replicas keep in Redis (presence_redis.h); and appends the
 * message to the streams of those who are not,
 *
 *    ringcast:offline:<namespace>:<user>
 *        a stream, field "m"; MAXLEN offline_max (at most OFFLINE_TAKE_MAX), PEXPIRE offline_ttl
 *    ringcast:online:<namespace>:<user>
 *        exists for OFFLINE_ONLINE_MS from the moment in which a socket of his has taken the queue: he is
 *        about to be listed as present
 *
 * Looking and appending are one script, and so is taking (store.h): a message is in the queue when it is
 * taken, or its queueing sees that the user is there.
 *
 * Master process, on its loop; never blocks. Bounds: OFFLINE_USERS_MAX users of one message,
 * OFFLINE_MESSAGE_MAX bytes; what is more, and what Redis does not take, is counted as lost (offline_lost).
 * Not for a cluster of several nodes: a script's keys are in several slots.
 */
#ifndef RC_OFFLINE_H
#define RC_OFFLINE_H

#include "common/envelope.h"
#include "master/master.h"

#define OFFLINE_USERS_MAX     1000u
#define OFFLINE_BATCH         100u /* users of one script */
#define OFFLINE_MESSAGE_MAX   65536u
#define OFFLINE_ONLINE_MS     3000u
#define OFFLINE_ONLINE_PREFIX CFG_OWN_PREFIX "online:"

/* A publication of a json namespace has been committed, or nobody here wants it. origin: 0 = foreign. */
void offline_publication(struct master *m, const struct cfg_namespace *ns, uint64_t origin,
			 const struct envelope *e);

#endif
