/* redis_reply.h - RESP in, replies out: hiredis' redisReader, fed with care.
 *
 * Master process only. Pure: bytes in, callbacks out, no socket and no clock. For messages the reader's
 * object functions are ours: they hand each string on where it stands in the reader's buffer, and make no
 * object of it. For the answers to commands (events.tree is set) hiredis' own build its reply trees, within a
 * budget.
 *
 * The reader is fed at most REDIS_FEED_MAX at a time and then emptied, since it moves what is left behind
 * each reply; a bulk must be complete in its memory, so the head of one that is too large ends the
 * conversation at once, as does a line that does not end.
 *
 * Ending: a callback that returns false, redis_reply_end(), or bytes that are no RESP. The functions that
 * parse then return false, and redis_reply_why() says the word. Nothing is parsed after it.
 */
#ifndef RC_REDIS_REPLY_H
#define RC_REDIS_REPLY_H

#include <hiredis/hiredis.h>

#include "common/base.h"

#define REDIS_FEED_MAX      16384u
#define REDIS_ELEMENT_BYTES 64u /* what an element of a tree costs beside its bytes, about */

struct redis_reply;

/* One element of an array, in the order of arrival. Its bytes stand in the reader's buffer and are gone when
 * the callback returns. The reader forgets what it has handed out: whoever wants to carry a half-read array
 * over an exec keeps it here. */
struct redis_item {
	const char *p; /* strings only */
	size_t len;
	int type; /* REDIS_REPLY_STRING, _INTEGER, _NIL, _STATUS, _ERROR */
	int idx, elements;
};

struct redis_reply_events {
	void *arg;
	bool (*array)(void *arg); /* an array begins; false: none is expected */
	bool (*item)(void *arg, const struct redis_item *item);
	/* A reply that is no array; of an integer p points to a long long. */
	bool (*plain)(void *arg, int type, const char *p, size_t len);
	/* Not NULL: called with each whole reply instead of the three above, which are then not used. The
	 * tree is freed when it returns; false = it makes no sense. */
	bool (*tree)(void *arg, const redisReply *reply);
};

/* `ev` is copied. NULL: ENOMEM. */
struct redis_reply *redis_reply_new(const struct redis_reply_events *ev) MUST_CHECK;
void redis_reply_free(struct redis_reply *r); /* NULL is fine; not from a callback */

/* Bytes of one bulk that are too many; trees: also of one reply's bulks together, REDIS_ELEMENT_BYTES for
 * each element counted in. 16 MiB at first. */
void redis_reply_set_max_bulk(struct redis_reply *r, size_t bytes);

/* Parse `len` (at most REDIS_FEED_MAX) further bytes. While paused they are kept and not looked at. */
bool redis_reply_feed(struct redis_reply *r, const char *p, size_t len) MUST_CHECK;

/* Stop after the reply under way; from a callback, or outside. */
void redis_reply_pause(struct redis_reply *r);

/* Go on with what is kept. */
bool redis_reply_resume(struct redis_reply *r) MUST_CHECK;

/* End it from a callback. `why` is a literal. */
void redis_reply_end(struct redis_reply *r, const char *why);
const char *redis_reply_why(const struct redis_reply *r); /* NULL: it has not ended */

bool redis_reply_is_parsing(const struct redis_reply *r);

#endif
