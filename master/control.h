/* control.h - orders to all workers of all replicas: whom to disconnect, who joins and leaves a group.
 *
 *     API: UP_ASK_CONTROL ----+------------------> REC_CONTROL to the workers of this host
 *                             |                        ^
 *                             v  _rc_origin added      |  not our own echo
 *                       "ringcast:control" in Redis ---+       (anybody may publish there)
 *
 * An order is a JSON object with "method": "disconnect" or "groups" (docs/protocol.md); this part looks at no
 * more of it. Best effort: while Redis is away only this host gets it. Master process, on its loop; never
 * blocks.
 */
#ifndef RC_CONTROL_H
#define RC_CONTROL_H

#include "master/ask.h"
#include "master/master.h"

#define CONTROL_CHANNEL CFG_OWN_PREFIX "control"
#define CONTROL_MAX     UPLINK_CHUNK /* bytes of an order */

/* 0, or -1 with ENOMEM. */
int control_start(struct master *m) MUST_CHECK;

/* UP_ASK_CONTROL: answered at once. */
void control_ask(struct master *m, const struct ask_question *q);

/* Is it an order? If so, *origin is the last "_rc_origin" in it, 0 if there is none. */
bool control_read(struct slice text, uint64_t *origin) MUST_CHECK;

#endif
