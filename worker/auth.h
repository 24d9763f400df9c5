/* auth.h - who may connect: from a good handshake to a verdict, and again later. Worker; one thread; never
 * blocks.
 *
 *      handshake good             verdict
 *   HANDSHAKE ----> AUTHORIZING ------------> JOINING (user_prepare, channel_join, 101, first frames)
 *                        | refused, or none in time
 *                        +--> refuse = "403": the status, before the upgrade
 *                        +--> accept-then-close: 101, Close with code and reason; never a member
 *
 * Whoever needs no authorization passes through at once. AUTHORIZING is bounded by handshake_timeout.
 *
 *   query: the verdict is there at once, from the query      (auth.c)
 *   jwt:   likewise, from a token                            (auth_jwt.c)
 *   hook:  an HTTP request to the application                (auth_hook.c, auth_http.c, auth_cache.c,
 * auth_groups.c)
 */
#ifndef RC_AUTH_H
#define RC_AUTH_H

#include "common/base.h"
#include "worker/handshake.h"

struct worker;
struct conn;
struct session;
struct identity;

/* What is asked about a connection; all borrowed for the call. */
struct auth_ask {
	const struct cfg_namespace *ns; /* has an auth */
	struct slice room;              /* len 0: none */
	struct slice user;              /* what user_query says, canonical; len 0: the namespace has none */
	const struct http_parser *parser;
	const char *head;
	bool is_bearer; /* set here: the 101 is to select the subprotocol "bearer" */
};

enum auth_result {
	AUTH_DONE,   /* *who is the verdict, allowed or not; the caller's to free */
	AUTH_WAIT,   /* admission_verdict() gets it, unless auth_forget() comes first */
	AUTH_FAILED, /* none can be had now */
};
/* `c` is AUTHORIZING and has a session. */
enum auth_result auth_begin(struct worker *w, struct conn *c, struct auth_ask *ask,
			    struct identity **who) MUST_CHECK;

/* Clients of the hooks, keys of the tokens, for each auth section. 0, or -1 with errno. */
int auth_start(struct worker *w) MUST_CHECK;
void auth_stop(struct worker *w);
/* From the tick: deadlines of requests that wait. */
void auth_tick(struct worker *w);

/* `c` is let in, and about to be OPEN: its recheck and expiry begin to count. */
void auth_opened(struct worker *w, struct conn *c);

/* It leaves service, or its handshake ends: no answer of a hook shall find it. Nothing if nothing is asked.
 */
void auth_forget(struct worker *w, struct conn *c);

/* OPEN: ms until auth_expired() has something to do; UINT64_MAX: never. */
uint64_t auth_due(const struct worker *w, const struct conn *c);
/* From the connection's timer: is it due to be asked again, or has it expired? False: it was closed. */
bool auth_expired(struct worker *w, struct conn *c) MUST_CHECK;

/* A control message has put a user into a group, or out of it: answers of hooks that are under way must not
 * undo that, and cached ones do not count. auth_uncache_user(): something else about him has changed. */
void auth_note_group_change(struct worker *w, struct slice group, struct slice user, bool is_add);
void auth_uncache_user(struct worker *w, struct slice user);

/* A client's message for the namespace's hook (rule action "forward"): its frames go to this socket. False:
 * too many under way for this socket, or no hook that can be asked now; dropped and counted. */
#define AUTH_FORWARDS_MAX 8u
bool auth_forward(struct worker *w, struct conn *c, struct slice message) MUST_CHECK;

#endif
