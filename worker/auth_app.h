/* auth_app.h - asking the application about connections: what it is told, what is done with its answers.
 * Between auth.c, which decides when, and auth_hook.c, which knows nothing of connections. Worker; one
 * thread; never blocks.
 */
#ifndef RC_AUTH_APP_H
#define RC_AUTH_APP_H

#include "common/jwks.h"
#include "worker/auth.h"
#include "worker/auth_cache.h"
#include "worker/auth_groups.h"
#include "worker/identity.h"

struct auth_hook;
struct http_engine;

struct auth {
	struct http_engine *http; /* NULL: no hooks */
	struct auth_hook **hooks; /* by index in config->auths; NULL for other types */
	struct jwks *keys;        /* likewise; empty for other types */
	struct auth_cache *cache; /* NULL: nothing is cached */
	struct auth_changes changes;
};

/* As auth_begin(), for auth sections of type "hook". session_more.request is made, and kept until
 * app_forget(). */
enum auth_result app_connect(struct worker *w, struct conn *c, const struct auth_ask *what,
			     struct identity **who) MUST_CHECK;

/* OPEN, with a session_more.request. auth_rechecked() gets the verdict, unless app_forget() comes first.
 * False: it can't be asked now. */
bool app_recheck(struct worker *w, struct conn *c) MUST_CHECK;
/* auth.c; `who` is taken over. NULL: none could be had. */
void auth_rechecked(struct worker *w, struct conn *c, struct identity *who);
/* A verdict that has expired before it is used is a refusal. Takes over, and gives. NULL stays NULL, also
 * without memory. */
struct identity *auth_unless_expired(struct identity *who) MUST_CHECK;

void app_forget(struct worker *w, struct conn *c);

#endif
