/* admit.h - limits by user and by address over all workers of this host: UP_ADMIT and UP_RELEASE to
 * admit_table.c, and REC_ADMIT back. Master process, on its loop; never blocks. */
#ifndef RC_ADMIT_H
#define RC_ADMIT_H

#include "master/master.h"
#include "shm/uplink.h"

/* m->admit. 0, or -1 with ENOMEM. */
int admit_start(struct master *m) MUST_CHECK;
void admit_stop(struct master *m);

/* UP_ADMIT: count and answer; without memory the answer is no. UP_RELEASE. The key may still change in the
 * worker's memory. False: it is nonsense. */
bool admit_told(struct master *m, struct child *c, const struct up_view *v) MUST_CHECK;

/* After waitpid() has returned the worker: it holds nothing any more. */
void admit_worker_died(struct master *m, struct child *c);

/* Before the loop blocks: a piece of the memory that the dead have left. Returns true if there is more. */
bool admit_turn(struct master *m) MUST_CHECK;

#endif
