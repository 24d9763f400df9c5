/* spawn.h - fork one worker, and what the child does before it is one. Master process. */
#ifndef RC_SPAWN_H
#define RC_SPAWN_H

#include "master/master.h"

/* Fork a worker for `position` of `g` into the empty slot `c`: segment, wake descriptor, reader, process;
 * c->state is BOOT afterwards. Returns 0, or -1 with errno and nothing held. In the child it does not return:
 * it ends with worker_main()'s status. Blocks as fork() does. */
int spawn_worker(struct master *m, struct child *c, struct generation *g, unsigned position) MUST_CHECK;

#endif
