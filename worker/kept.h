/* kept.h - what is kept for clients elsewhere, and given to them, and what their rules have kept: retained
 * messages, stored values, receipts, the queue of a user who was away. Worker; one thread; never blocks.
 *
 *    not yet a member   kept_begin()   retain = "redis": the value [-> unless] --+--> admission goes on
 *                                      offline_max: the queue -------------------+
 *    a member now       kept_put()     what was asked for; retain = "last": this worker's copy (latest.h)
 *
 * A question that is not answered (Redis is away, redis.timeout has passed) is passed over: the client comes
 * in without. Between the answer and the membership lies at least a turn of the loop, and the confirmation of
 * the channel if he is its first: what is published in that time is neither in the answer nor sent to him
 * (docs/protocol.md).
 */
#ifndef RC_KEPT_H
#define RC_KEPT_H

#include "common/base.h"
#include "common/buf.h"

struct worker;
struct conn;
struct rules_read;

enum kept { KEPT_DONE, KEPT_WAIT, KEPT_NO_MEMORY };

/* A connection that is about to join `room` of its namespace: ask for what is kept for it. WAIT:
 * admission_go_on() follows, unless the connection goes. */
enum kept kept_begin(struct worker *w, struct conn *c, struct slice room) MUST_CHECK;

/* It is a member: append the frames. `asked` is what kept_begin() has left in conn_ext.first. 0, or -1: no
 * memory. */
int kept_put(struct worker *w, struct conn *c, struct slice asked, struct buf *out) MUST_CHECK;

/* Rule action "retained". May drop the connection. */
void kept_answer(struct worker *w, struct conn *c);

/* Rule actions "store" and "receipt": fire and forget. Nothing if a part of the key is missing in the
 * message; a receipt without a user is none. */
void kept_note(struct worker *w, struct conn *c, const struct rules_read *read);

#endif
