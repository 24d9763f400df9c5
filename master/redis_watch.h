/* redis_watch.h - a connection to one of the sentinels that tells when the master changes. Comes back for
 * ever, to the next sentinel after each failure.
 *
 * Master process only, on its libev loop; never blocks. A link of redis_link.h that asks for the master's
 * address and then subscribes "+switch-master": a switch that happened while nobody watched shows in the
 * answer.
 */
#ifndef RC_REDIS_WATCH_H
#define RC_REDIS_WATCH_H

#include <ev.h>

#include "common/base.h"
#include "common/config.h"

struct redis_watch;

/* cfg is borrowed and has sentinels. on_master: the sentinel names the master; host is borrowed for the call.
 * NULL: ENOMEM. */
struct redis_watch *redis_watch_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				    void (*on_master)(void *arg, const char *host, uint16_t port),
				    void *arg) MUST_CHECK;
void redis_watch_free(struct redis_watch *w); /* NULL is fine; not from within on_master */

#endif
