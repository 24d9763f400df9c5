/* reached.h - how many sockets and users a publication reached, for publishers that ask (UP_COUNT).
 *
 *               own: relay.c                        all workers with interest, and all other replicas, have
 *      reached_new()            reached_begin()     told or died; or REACHED_MS later, partial
 *   (free) -------> NUMBERED ------------------> TELLING ------------------------------------------>
 * answered, (free) ^               | reached_drop()
 *      +---------------+
 *
 * The record carries the number in arg[1]; each worker that had interest when it was committed answers
 * UP_MATCHED. Of the users the smallest hashes are united (kmv.h); they are the same on every host
 * (worker/user.h).
 *
 * With Redis up and other replicas alive the publication also says that its origin asks (redis.h). A replica
 * that delivers it asks its own workers in the same manner, REACHED_OTHERS_MS at most, and publishes to
 * "ringcast:r:<origin>"
 *
 *      {"node":"<16 hex>","id":<of the publication>,"sockets":n,"partial":false,"users":["<16 hex>",...]}
 *
 * Who is to be waited for: the replicas that nodes.h knows. Where each room has a Redis channel of its own,
 * most of them do not subscribe it, and only as many are waited for as Redis says have received it; a node of
 * a cluster knows that of itself alone, so there the time runs out.
 *
 * Master process, on its loop; never blocks. Bound: REACHED_MAX publications at a time; the next ones are
 * answered without a count, as partial.
 */
#ifndef RC_REACHED_H
#define RC_REACHED_H

#include "master/master.h"

#define REACHED_MS        200u
#define REACHED_OTHERS_MS 150u /* leaves the others' answers time to travel */
#define REACHED_MAX       2048u /* twice what one /api/broadcast publishes */

struct reached;

/* m->reached; after nodes_start(), before relay_start(). 0, or -1 with ENOMEM. */
int reached_start(struct master *m) MUST_CHECK;
void reached_stop(struct master *m);

/* A number for a publication of a worker here, to be answered as its request, or of another replica; 0: too
 * many. */
uint32_t reached_new(struct master *m, uint16_t slot, uint32_t incarnation, uint32_t request);
uint32_t reached_new_other(struct master *m, uint64_t origin, uint64_t id);

/* It was not published: nobody will be answered. 0 is fine, here and below. */
void reached_drop(struct master *m, uint32_t number);

/* Shall others be asked? If so the publication, under this id, has gone to Redis. is_family: all replicas
 * subscribe its channel. */
bool reached_asks_others(const struct master *m);
void reached_sent(struct master *m, uint32_t number, uint64_t id, bool is_family);
/* Redis says how many have received it; is_own: one of them is this replica. */
void reached_receivers(struct master *m, uint32_t number, uint64_t receivers, bool is_own);

/* It has been committed to `e`, or nobody here wants it (NULL): `what`, `seq` and `epoch` are the answer's.
 * Returns false if there is no such number, or it was begun before: the caller answers. */
bool reached_begin(struct master *m, uint32_t number, const struct interest_entry *e, enum rec_answer what,
		   const struct seq_outcome *out);

/* UP_MATCHED. `payload` is memory that the worker can write. False: it is nonsense. */
bool reached_told(struct master *m, const struct child *c, uint32_t number, struct slice payload) MUST_CHECK;

/* A worker is gone: it tells nothing any more, and hears nothing. */
void reached_worker_died(struct master *m, const struct child *c);

#endif
