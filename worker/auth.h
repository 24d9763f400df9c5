/* auth.h - who may connect: from a good handshake to a verdict, and again later. Worker; one thread; never
 * blocks.
 *
 *      handshake good                    verdict
 *   HANDSHAKE --------> AUTHORIZING -------------------> JOINING (user_prepare, channel_join, 101, first
 * frames) | refused, or none in time
 *                            +--> refuse = "403": the status, before the upgrade
 *                            +--> accept-then-close: 101, Close with code and reason; never a member
 *
 * Whoever needs no authorization passes through at once. AUTHORIZING is bounded by handshake_timeout.
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
	bool is_bearer; /* set here: the token came as a subprotocol, which the 101 is to select */
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
/* From the tick: rechecks and hooks' deadlines. */
void auth_tick(struct worker *w);

/* The connection's session goes, or the connection before it has one: no answer of a hook shall find it. */
void auth_forget(struct worker *w, struct conn *c);

/* From the connection's timer: is it due to be asked again, or has it expired? False: it was closed. */
bool auth_expired(struct worker *w, struct conn *c) MUST_CHECK;

/* A control message has changed what a user may do: no cached verdict about him counts any more. */
void auth_uncache_user(struct worker *w, struct slice user);

/* A client's message for the namespace's hook (rule action "forward"): its frames go to this socket. False:
 * too many under way for this socket, or no hook; dropped and counted. */
bool auth_forward(struct worker *w, struct conn *c, struct slice message) MUST_CHECK;

#endif
