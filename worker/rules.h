/* rules.h - what clients' messages do, and what is said to clients without a publication: greeting, idle frame.
 * Worker; one thread; never blocks. */
#ifndef RC_RULES_H
#define RC_RULES_H

#include "common/base.h"
#include "common/template.h"
#include "worker/ws.h"

struct worker;
struct conn;

/* Does the namespace read its clients' messages (rules, or a json envelope)? Else they are publications, or nothing. */
bool rules_apply(const struct worker *w, const struct conn *c) MUST_CHECK;

/* A whole message of an OPEN connection. WS_HOLD: the uplink is full; offer it again. May close the connection. */
enum ws_take rules_message(struct worker *w, struct conn *c, uint8_t opcode, struct slice text,
			   bool is_resumed) MUST_CHECK;

/* The values that templates may name for this connection; slices point into the worker's memory of now. */
struct rules_scratch {
	char conn[48], node[20];
};
void rules_values(const struct worker *w, const struct conn *c, struct rules_scratch *scratch,
		  struct template_values *out);

/* Append the greeting as a text frame. 0, or -1 (ENOMEM). */
int rules_greeting(const struct worker *w, const struct conn *c, struct buf *out) MUST_CHECK;

/* The connection has been OPEN from now on: its idle clock starts. */
void rules_opened(struct worker *w, struct conn *c);
/* A message (is_message) or a control frame of the client came. */
void rules_heard(struct worker *w, struct conn *c, bool is_message);
/* From the connection's timer: send the idle frame if it is due. False: the connection is gone. */
bool rules_expired(struct worker *w, struct conn *c) MUST_CHECK;
/* ms until rules_expired() has something to do; UINT64_MAX: never. */
uint64_t rules_due(const struct worker *w, const struct conn *c);

#endif
