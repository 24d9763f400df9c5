/* rate.h - how fast clients may send: msg_rate and msg_burst of a connection, user_rate of all sockets that a
 * user has at this worker.
 *
 * Each message takes a token, each ping and pong one more. A message for which there is none is kept, and its
 * connection not read (CONN_HELD) until there is one: the client's own sending comes to a stop, nothing is
 * lost, and it costs nobody else anything. Counted as rate_limited, each time. Whoever has sent more than
 * that for RATE_PATIENCE_MS without a break (a read after which nothing was left) is closed with 1008
 * "message rate".
 *
 *    OPEN --no token--> OPEN, HELD --a token, from the timer--> OPEN, the kept message is looked at, and so
 * on | for RATE_PATIENCE_MS
 *                           +--> CLOSING
 *
 * The timer's step is 50 ms and the worker looks at it every 100, so a burst should hold a fifth of its rate.
 * Worker; one thread; never blocks. Only connections with a session have a rate.
 */
#ifndef RC_RATE_H
#define RC_RATE_H

#include "common/base.h"

struct worker;
struct conn;

#define RATE_PATIENCE_MS 10000u

/* Take a token for what the client has sent. True where there is no limit. */
bool rate_take(struct worker *w, struct conn *c) MUST_CHECK;

/* There was none: read no more of it for a while. ws.h keeps the message, if it is one. */
void rate_hold(struct worker *w, struct conn *c);

/* All that the client has sent is read, and it is not held. */
void rate_at_rest(struct worker *w, struct conn *c);

/* ms until a held connection may go on; UINT64_MAX: it is not held. */
uint64_t rate_due(const struct worker *w, const struct conn *c);

/* From the connection's timer. False: the connection is gone, or is closing and needs no timer of an open
 * one. */
bool rate_expired(struct worker *w, struct conn *c) MUST_CHECK;

#endif
