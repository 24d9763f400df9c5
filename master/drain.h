/* drain.h - uplinks to actions. Master process, on its loop; never blocks.
 *
 * Control uplinks are always drained, entirely. Data uplinks only while the ring has space and Redis' pending
 * list has room, round robin over the workers, bounded per turn. No byte of a worker is trusted: one that
 * breaks the rules is killed (supervise_kill), one that asks for something unwise gets its answer.
 *
 * A message in chunks is put together on the heap: one per worker, and all of them reserve their whole size
 * out of a budget of ring.size, so that those under way can always be finished. One whose worker sends
 * nothing more (its client vanished) is forgotten when the worker's next message begins, or after
 * DRAIN_ABANDONED_MS when another one waits for the budget.
 */
#ifndef RC_DRAIN_H
#define RC_DRAIN_H

#include "master/master.h"

#define DRAIN_TURN_BYTES   65536u /* payload of one worker's data and turn, at least one record */
#define DRAIN_TURN_RECORDS 64u
#define DRAIN_ABANDONED_MS 1000u

/* All control uplinks, to their ends. Also called before each publication from Redis is committed: a client
 * that has got its 101 must not miss it because the master has not looked (sequencer.h). */
void drain_control(struct master *m);

/* Control, then a bounded amount of data. Returns true if data is left that could be taken now. */
bool drain_turn(struct master *m);

/* Is there something that drain_turn() would take? Looks only. */
bool drain_has_work(const struct master *m);

/* The last words of a dead worker: what its data uplink holds. Returns true if all is taken. */
bool drain_remains(struct master *m, struct child *c);

/* Free what a child's unfinished message holds. */
void drain_forget(struct master *m, struct child *c);

/* Four times a second: forget abandoned messages that keep others waiting. */
void drain_tick(struct master *m, uint64_t now_ms);

#endif
