/* presence_ask.h - who is in a channel, on all replicas: UP_ASK_PRESENCE and UP_ASK_PRESENCE_STATS.
 *
 * This host's part is the table's; then Redis is asked who the other replicas are, and their sorted sets are
 * read, one page after another, and united: a user counts once, with all his sockets. "partial" is true when
 * the answer is not the whole cluster's: Redis is away, does not answer in time, or refuses. In local mode
 * this host is the cluster.
 *
 * Master process, on its loop; never blocks. Bounds: PRESENCE_ASKS_MAX questions at a time; PRESENCE_LIST_MAX
 * users of a list (more: "too_large"); PRESENCE_COUNT_BYTES for the users that all questions count (more:
 * partial).
 */
#ifndef RC_PRESENCE_ASK_H
#define RC_PRESENCE_ASK_H

#include "master/ask.h"
#include "master/presence.h"

#define PRESENCE_ASKS_MAX    64u
#define PRESENCE_LIST_MAX    10000u
#define PRESENCE_PAGE        1000u
#define PRESENCE_COUNT_BYTES (UINT64_C(64) << 20)

/* 0, or -1 with ENOMEM. */
int presence_ask_start(struct master *m) MUST_CHECK;
void presence_ask_stop(struct master *m); /* after relay_stop() */

/* An empty room in a namespace that has rooms: the whole namespace. Answers with the "result" of the API. */
void presence_ask(struct master *m, const struct ask_question *q);

/* Four times a second: deadlines. */
void presence_ask_tick(struct master *m, uint64_t now_ms);

#endif
