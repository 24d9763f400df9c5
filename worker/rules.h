/* rules.h - what clients' messages do, and what is said to clients without a publication: greeting, idle
 * frame. Worker; one thread; never blocks.
 *
 *                       text = name of a text rule --------------------> its action
 *    message of a       JSON object, "type" = name of a rule ----------> its action
 *    namespace that     another JSON object ---------------------------> published if clients may; else
 * ignored has rules or a     text that is no JSON object: counted as a bad frame; the bad_frames-th closes
 * with 1008 json envelope      binary: a bad frame, and 1003
 *
 * In a plain namespace whose clients may publish, what no rule takes is a publication, whatever it is: no
 * frame is bad there.
 */
#ifndef RC_RULES_H
#define RC_RULES_H

#include "common/base.h"
#include "common/template.h"
#include "worker/ws.h"

struct worker;
struct conn;

/* Bytes of a rule's frame, of a greeting, of an idle frame; a larger one is not sent, and counted (dropped,
 * too_large). So that an answer fits what may wait for a socket, and a publication one record of the uplink:
 * it is made anew if it has to wait, and its parts could not be told apart from those of the first one. */
#define RULES_FRAME_MAX 65535u

/* Buffers. 0, or -1 with errno. */
int rules_start(struct worker *w) MUST_CHECK;
void rules_stop(struct worker *w);

/* Does the namespace read its clients' messages (rules, or a json envelope)? Else they are publications, or
 * nothing. */
bool rules_apply(const struct worker *w, const struct conn *c) MUST_CHECK;

/* A whole message of an OPEN connection. WS_HOLD: the uplink is full; offer it again (is_resumed). May close
 * or drop the connection. */
enum ws_take rules_message(struct worker *w, struct conn *c, uint8_t opcode, struct slice text,
			   bool is_resumed) MUST_CHECK;

/* The values that templates may name for this connection; slices point into the worker's memory of now. */
struct rules_scratch {
	char conn[48], node[20];
};
void rules_values(const struct worker *w, const struct conn *c, struct rules_scratch *scratch,
		  struct template_values *out);

/* Append the greeting as a text frame. 0, or -1 (ENOMEM) with `out` unchanged. */
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
