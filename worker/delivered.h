/* delivered.h - how many sockets here have taken a whole message, for publishers that named it (REC_TRACKED,
 * UP_DELIVERED).
 *
 * Taken means: the kernel has all bytes of the frame for that socket. Live members count after the channel's
 * sends, those that were behind when their last byte went out. Known are the last DELIVERED_RECORDS tracked
 * records; what a slow member completes of older ones is not told.
 *
 * Live members are told of at once; single ones are gathered until delivered_tell(), at the latest with the
 * tick. If the control uplink's overflow is full (the master stands still) the telling is lost, so the
 * numbers are lower bounds.
 *
 * Worker; one thread. Costs nothing where nothing is tracked.
 */
#ifndef RC_DELIVERED_H
#define RC_DELIVERED_H

#include "common/base.h"

struct worker;
struct conn;
struct channel;
struct delivered;

#define DELIVERED_RECORDS                                                                                    \
	1024u /* tracked records that are known, a whole batch at least; 90 KB, at the first of them */

/* The record at `pos` is tracked under this number; positions grow. */
void delivered_begin(struct worker *w, uint64_t pos, uint32_t number);

/* `c` has all of the frame at `pos`; nothing if that is not tracked. */
void delivered_to(struct worker *w, const struct conn *c, uint64_t pos);

/* The channel's sends are done: all live members that are not marked (CONN_MATCHED) have the frame at `pos`.
 */
void delivered_live(struct worker *w, struct channel *ch, uint64_t pos);

/* To the master, what has gathered. */
void delivered_tell(struct worker *w);

void delivered_free(struct worker *w);

#endif
