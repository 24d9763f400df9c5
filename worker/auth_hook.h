/* auth_hook.h - requests to one authorization hook: how many at a time, who waits, and when it is not asked
 * at all. Worker; one thread; never blocks.
 *
 *                 a place is free
 *      asked ------------------------> under way ---> answered, or failed
 *        |                                ^
 *        +-> waits (first come first served, timeout counts)
 *        +-> refused at once: too many wait, or the breaker is open
 *
 * Breaker:             breaker_failures in a row              breaker_pause is over
 *            CLOSED ------------------------------> OPEN ---------------------------> one request on trial
 *              ^                                     ^                                    |   |
 *              |                                     +------------------ failed ----------+   |
 *              +------------------------------------------------------- answered -------------+
 */
#ifndef RC_AUTH_HOOK_H
#define RC_AUTH_HOOK_H

#include "common/buf.h"
#include "common/config.h"

struct worker;
struct identity;
struct http_engine;
struct auth_hook;
struct hook_request;

/* `concurrency` is that of the host: each worker takes its share, one at least. */
unsigned hook_share(const struct config *c, const struct cfg_auth *auth);

/* NULL: errno. The configuration outlives it. */
struct auth_hook *hook_new(struct worker *w, const struct cfg_auth *auth, struct http_engine *e) MUST_CHECK;
/* Drops what is under way. NULL is fine. */
void hook_free(struct auth_hook *h);
/* From the tick: deadlines of those that wait. */
void hook_tick(struct auth_hook *h);

/* Ask; `body` (JSON) is taken over. `done` runs once, later, with the verdict, which it takes over, or with
 * NULL when none could be had (is_message: as identity_read_hook()). NULL: refused at once, `done` does not
 * run. */
struct hook_request *hook_ask(struct auth_hook *h, struct buf *body, bool is_message,
			      void (*done)(void *arg, struct identity *who), void *arg) MUST_CHECK;
/* `done` will not run. Not after it has been entered. */
void hook_cancel(struct hook_request *r);

#endif
