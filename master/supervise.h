/* supervise.h - the life of worker processes. Master process, on its loop; blocks as fork() does.
 *
 *            spawn           UP_HELLO          REC_DRAIN
 *   EMPTY ----------> BOOT ----------> SERVE ------------> DRAIN
 *     ^                 |                |                    |
 *     |                 | exit, or       | exit, or           | exit, or SIGKILL at the deadline
 *     |                 | SIGKILL after  | SIGKILL: stuck,    |
 *     |                 | BOOT_MS        | hold, broken       |
 *     +-- remains <-----+----------------+--------------------+
 *
 * Only child_move() writes the state. `remains`: waitpid() has returned the process (pid 0, its gate counts
 * no more), but its data uplink holds publications that the ring or Redis can't take yet; usually over at
 * once.
 *
 * A post is a worker position of a generation; a vacant one is filled at once. Only a worker that died before
 * HELLO or within SUPERVISE_EARLY_MS of it, and not by a signal from outside, makes its post wait: 50 ms,
 * doubling up to 5 s. Never given up.
 *
 * Stuck: a heartbeat that stands still for ring.stuck_time, measured in the master's own ticks, so that a
 * machine that slept kills nobody. Hold: see seq_blame(): the time during which one worker alone made all the
 * others wait adds up, time in which it did not is taken off again; at ring.hold_max it is killed. (A worker
 * that is merely the slowest, with the others close behind, never gets there.)
 */
#ifndef RC_SUPERVISE_H
#define RC_SUPERVISE_H

#include "master/master.h"

#define SUPERVISE_BOOT_MS        10000u /* fork to HELLO */
#define SUPERVISE_EARLY_MS       1000u  /* a death that soon after HELLO counts as a failed start */
#define SUPERVISE_BACKOFF_MIN_MS 50u
#define SUPERVISE_BACKOFF_MAX_MS 5000u
#define SUPERVISE_STOP_MS        2000u /* beyond the times that clients are given */

/* A generation for `config` (which it owns from here on), without workers. NULL: ENOMEM, config is the
 * caller's. */
struct generation *supervise_generation(struct master *m, struct config *config) MUST_CHECK;

/* Fill vacant posts of the generations that are in service or starting. */
void supervise_fill(struct master *m);

/* Collect the dead. From SIGCHLD, and from the tick in case one was lost. */
void supervise_reap(struct master *m);

/* UP_HELLO arrived. */
void supervise_hello(struct master *m, struct child *c);

/* SIGKILL; logged and counted. Idempotent: the first reason stands. */
void supervise_kill(struct master *m, struct child *c, enum child_kill why);

/* Remains whose uplink may be empty by now: free the slot. Nothing happens to others. */
void supervise_bury(struct master *m, struct child *c);

/* Tell the workers of `g` (NULL: all) to leave: REC_DRAIN with these arguments; SIGKILL after due_ms (a point
 * in time; 0 = never). */
void supervise_drain(struct master *m, const struct generation *g, uint16_t code, uint32_t spread_ms,
		     uint64_t due_ms);

/* Four times a second: heartbeats, deadlines. elapsed_ms since the last time. */
void supervise_tick(struct master *m, uint32_t elapsed_ms);

/* The ring is full, or was until elapsed_ms ago: who made the others wait? */
void supervise_hold(struct master *m, uint32_t elapsed_ms);

void supervise_kill_all(struct master *m, const struct generation *g, enum child_kill why);

/* Set the timer for the first vacant post. */
void supervise_arm(struct master *m);

#endif
