/* limits.h - how many connections a user or an address may have, and how fast an address may come.
 *
 *   connect_rate   a token bucket for each address, in a table of this worker: each applies its share, for
 * the kernel spreads an address's connections over the workers per_address    connections of all workers of
 * this host: the master counts (master/admit.c). To ask is to wait; whoever per_user       got in is counted
 * until UP_RELEASE or this process's death
 *
 * Answers come in the order of the questions (uplink and ring are first in, first out), so what waits is a
 * queue. A connection that has gone meanwhile stays in it until its answer is there, and gives back at once
 * what it was given. A user is counted over all namespaces: people open several feeds at once, and it is them
 * who are limited.
 *
 * Worker; one thread; never blocks. Bounds: the table has LIMITS_PLACES addresses; of a full set the one that
 * has been quiet for longest is forgotten, which gives it a full bucket. The queue is as long as the master
 * is behind.
 */
#ifndef RC_LIMITS_H
#define RC_LIMITS_H

#include "common/config.h"
#include "shm/uplink.h"
#include "worker/address.h"

struct worker;
struct conn;
struct session;
struct limits; /* limits.c */

#define LIMITS_PLACES       4096u /* addresses of a worker that are told apart by their rate */
#define LIMITS_LOG_EVERY_MS 10000u

/* w->limits. 0, or -1 with ENOMEM. */
int limits_start(struct worker *w) MUST_CHECK;
void limits_stop(struct worker *w);

/* A handshake from this address (unknown: no limit). False: it comes too fast. */
bool limits_connect(struct worker *w, const struct address *from) MUST_CHECK;

/* Ask the master whether one more may come in; `key` is the user's id or address_key(). The connection has a
 * session. admission_admitted() has the answer. 0, or -1: no memory. */
int limits_ask(struct worker *w, struct conn *c, enum up_limit what, struct slice key) MUST_CHECK;

/* REC_ADMIT. */
void limits_answer(struct worker *w, uint32_t request, bool may_come);

/* The session ends: give back what is counted for it. */
void limits_release(struct worker *w, struct session *s);

/* A refusal of that kind and key shall be logged: once in LIMITS_LOG_EVERY_MS. *n becomes how many there were
 * since the last line, this one included; 0: no line now. */
void limits_said(struct worker *w, uint16_t kind, struct slice key, uint32_t *n);

#endif
