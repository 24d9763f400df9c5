/* command.h - what an operator orders of all workers, by the admin API or over Redis (REC_CONTROL,
 * docs/protocol.md):
 *
 *   {"method":"disconnect", "user":"7" | "session":".." | "conn":".." | "channel":"ns:room",
 *    "namespace":".."?, "code":1008?, "reason":".."?}
 *   {"method":"groups", "group":"..", "add":[..]?, "remove":[..]?}
 *
 * Worker; one thread. Its cost is the connections that are closed or the users that are named; only
 * "session", and a "user" while handshakes are under way, look at every connection.
 */
#ifndef RC_COMMAND_H
#define RC_COMMAND_H

#include "common/base.h"

struct worker;

/* Carry it out on this worker's connections. Malformed ones are logged, at most one a second, and change
 * nothing. Between batches only: connections close. */
void command_handle(struct worker *w, struct slice json);

#endif
