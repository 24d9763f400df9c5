/* signals.h - signals to actions (docs/operations.md has the list). Master process.
 *
 *    TERM INT   stop: clients are closed, spread over stop.drain_time; the second one ends at once
 *    QUIT       stop accepting, leave when the clients have left
 *    HUP        reload.h
 *    USR1       log files anew, here and in the workers
 *    USR2       refused in this version
 *    WINCH      stop accepting, serve on; a HUP ends it. Only without a terminal, where it would mean a
 * resized window CHLD       supervise_reap()
 */
#ifndef RC_SIGNALS_H
#define RC_SIGNALS_H

#include "master/master.h"

void signals_start(struct master *m);

/* In a forked child, before it destroys the loop: libev lets a signal belong to one loop only. Dispositions
 * are the defaults afterwards. */
void signals_stop(struct master *m);

#endif
