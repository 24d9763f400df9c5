/* store.h - what Redis keeps for clients: values of retained messages, what rules store, who has read what,
 * and messages for users who are away (the taking; offline.h has the putting).
 *
 *    UP_ASK_FETCH     GET, unless another key exists
 *    UP_ASK_STORE     SET, PX
 *    UP_ASK_RECEIPT   ringcast:receipts:<namespace>[:<room>]:<id>
 *                     a sorted set: user -> ms since 1970 of the first report; lives receipts_ttl from the
 *                     last one; at most RECEIPTS_USERS_MAX users
 *    UP_ASK_RECEIPTS  the same, read
 *    UP_ASK_OFFLINE   ringcast:offline:<namespace>:<user>
 *                     a stream; read and deleted in one step
 *
 * In a key's room ':' and '%' are written %3A and %25: "a" with "b:1" is not "a:b" with "1".
 *
 * Without Redis (local mode) receipts are kept in a table of the last RECEIPTS_LOCAL_MAX messages, the others
 * are answered REC_REPLY_UNAVAILABLE; as they are while the link is down, and when no answer has come within
 * redis.timeout.
 *
 * Master process, on its loop; never blocks. Bounds: STORE_MAX questions under way.
 */
#ifndef RC_STORE_H
#define RC_STORE_H

#include "common/buf.h"
#include "master/ask.h"

#define STORE_MAX          4096u
#define RECEIPTS_USERS_MAX 10000u
#define RECEIPTS_LOCAL_MAX 1024u
#define STORE_ID_MAX       255u /* bytes of a message's id */
#define STORE_KEY_MAX      1024u
#define OFFLINE_TAKE_MAX   200u /* messages of one user that are kept and taken */

/* Followed by namespace, ':', user: a stream whose entries have one field, the message. */
#define STORE_OFFLINE_PREFIX CFG_OWN_PREFIX "offline:"

struct store;

/* m->store. 0, or -1 with ENOMEM. */
int store_start(struct master *m) MUST_CHECK;
void store_stop(struct master *m); /* after relay_stop() */

/* One of the kinds above. */
void store_ask(struct master *m, const struct ask_question *q);

/* Four times a second: deadlines. */
void store_tick(struct master *m, uint64_t now_ms);

/* Append a key: prefix, namespace, room (if any), last part. 0, or -1 (ENOMEM, or longer than STORE_KEY_MAX).
 */
int store_key(struct buf *out, const char *prefix, const char *ns, struct slice room,
	      struct slice last) MUST_CHECK;

#endif
