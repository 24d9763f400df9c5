/* receipts.h - who has read what, where there is no Redis: the last messages anybody reported, in memory.
 *
 * Master process; pure but for malloc. Bounded: `max` messages, the one that was reported longest ago goes
 * first; RECEIPTS_USERS_MAX users of each (store.h).
 */
#ifndef RC_RECEIPTS_H
#define RC_RECEIPTS_H

#include "common/base.h"

struct receipts;

struct receipts *receipts_new(uint32_t max) MUST_CHECK; /* NULL: ENOMEM */
void receipts_free(struct receipts *r);                 /* NULL is fine */

/* The user has read the message that `key` names, at `ms`; the first report counts. 0, or -1: ENOMEM, or too
 * many users. */
int receipts_add(struct receipts *r, struct slice key, struct slice user, uint64_t ms) MUST_CHECK;

/* Call `fn` for each, in the order of reports. Nothing for an unknown message. */
void receipts_each(const struct receipts *r, struct slice key,
		   void (*fn)(void *arg, struct slice user, uint64_t ms), void *arg);

#endif
