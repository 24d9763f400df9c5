/* memory.h - memory_limit: what all processes take together, and whether newcomers are refused for it.
 *
 * Worker process, on its loop; blocks as a read of /proc does. Each process shows the anonymous memory of its
 * own (resident but not shared, bytes) in its counters (gauge `memory`, the master from its tick); the sum of
 * these and of the ring's size is what is compared. Pages that a worker still shares with the master after
 * the fork count once for each, so the sum is rather too large.
 *
 * Newcomers are refused while less than a 32nd of the limit is free: 50 ms of connections at full speed fit
 * in between, whose memory is seen only then.
 */
#ifndef RC_MEMORY_H
#define RC_MEMORY_H

#include "worker/worker.h"

/* Before memory_limit lets one more connection in; looks at its own size at most every 50 ms. False where
 * there is no limit. */
bool memory_is_short(struct worker *w);

/* From the tick: show the own size. */
void memory_tick(struct worker *w);

#endif
