/* reload.h - HUP: the configuration anew, and workers that were born with it. Master process.
 *
 *            HUP, and it is right           all said HELLO               the old ones are gone
 *     NONE ------------------------> BOOT ------------------> DRAIN ----------------------------> NONE
 *      ^                               |                        | handshake_timeout + 2 s: SIGKILL
 *      +-------------------------------+
 *        RELOAD_BOOT_MS without: the new ones are killed, nothing has changed
 *
 * A wrong configuration is logged problem by problem (event=reload_failed) and changes nothing. While the
 * next generation boots, both use the same listeners; then the old workers close their clients with 1012 and
 * exit. One HUP that arrives meanwhile is remembered. ring.size, ring.uplink_size and redis.* keep their
 * values until the next start (event=reload names them).
 */
#ifndef RC_RELOAD_H
#define RC_RELOAD_H

#include "master/master.h"

#define RELOAD_BOOT_MS 10000u

void reload_begin(struct master *m);

/* All workers of m->next have said HELLO. */
void reload_switch(struct master *m);

/* The last process of `g` is gone and buried. */
void reload_generation_empty(struct master *m, struct generation *g);

/* Four times a second: deadlines. */
void reload_tick(struct master *m, uint64_t now_ms);

/* Free a generation without children. NULL is fine. */
void reload_free_generation(struct generation *g);

#endif
