#include "worker/auth.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/admission.h"
#include "worker/auth_app.h"
#include "worker/auth_hook.h"
#include "worker/auth_http.h"
#include "worker/auth_jwt.h"
#include "worker/place.h"
#include "worker/worker.h"

#define EXPIRY_LOOK_MS 60000u /* the wall clock may be set: it is looked at so often at least */

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

static uint64_t wall_s(void)
{
	return clock_wall_ms() / 1000;
}

static struct slice text_slice(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* ---------------------------------------------------------------- the verdict on a handshake */

static enum auth_result ask_query(const struct auth_ask *ask, struct identity **who)
{
	if (ask->user.len == 0)
		return AUTH_FAILED; /* the configuration sees to it that there is a user_query */
	*who = identity_of_user(ask->user);
	return *who == NULL ? AUTH_FAILED : AUTH_DONE;
}

/* The token stands in the first of the places that has one. */
static struct slice find_token(const struct auth_ask *ask, char *scratch, size_t size)
{
	const struct cfg_auth *a = ask->ns->auth;
	struct slice token = {NULL, 0};

	for (size_t i = 0; i < a->n_from && token.p == NULL; i++)
		token = place_find(&a->from[i], ask->parser, ask->head, scratch, size);
	return token;
}

static bool takes_subprotocol(const struct cfg_auth *a)
{
	for (size_t i = 0; i < a->n_from; i++) {
		if (a->from[i].place == CFG_PLACE_SUBPROTOCOL)
			return true;
	}
	return false;
}

/* What the client is told says nothing of keys; the log says a little more. */
static const char *refusal_text(enum jwt_result r, bool has_token)
{
	if (!has_token)
		return "no token";
	return r == JWT_EXPIRED ? "token expired" : "invalid token";
}

static enum auth_result ask_jwt(struct worker *w, struct auth_ask *ask, struct identity **who)
{
	const struct cfg_auth *a = ask->ns->auth;
	char scratch[JWT_MAX];
	struct slice token = find_token(ask, scratch, sizeof(scratch));
	const char *wrong = "absent";
	enum jwt_result r = JWT_BAD;

	/* A browser that offered a subprotocol ends a connection that selects none. */
	ask->is_bearer = takes_subprotocol(a) && place_offers_bearer(ask->parser, ask->head);
	if (token.p != NULL)
		r = jwt_check(a, &w->auth->keys[a - w->config->auths], token, wall_s(), who, &wrong);
	OPENSSL_cleanse(scratch, sizeof(scratch));
	if (r == JWT_GOOD)
		return AUTH_DONE;
	log_event(LOG_INFO, "token_refused", "auth=%s ns=%s reason=%s", a->name, ask->ns->name, wrong);
	if (r == JWT_NO_MEMORY)
		return AUTH_FAILED;
	*who = identity_refused(403, refusal_text(r, token.p != NULL));
	return *who == NULL ? AUTH_FAILED : AUTH_DONE;
}

enum auth_result auth_begin(struct worker *w, struct conn *c, struct auth_ask *what, struct identity **who)
{
	switch (what->ns->auth->type) {
	case CFG_AUTH_QUERY:
		return ask_query(what, who);
	case CFG_AUTH_HOOK:
		return app_connect(w, c, what, who);
	case CFG_AUTH_JWT:
		return ask_jwt(w, what, who);
	}
	return AUTH_FAILED;
}

void auth_forget(struct worker *w, struct conn *c)
{
	app_forget(w, c);
}

/* One that has expired before it is used is a refusal. */
struct identity *auth_unless_expired(struct identity *who)
{
	if (who == NULL || !who->is_allowed || who->expires_at == 0 || wall_s() < who->expires_at)
		return who;
	identity_free(who);
	return identity_refused(403, "expired");
}

/* ---------------------------------------------------------------- OPEN */

static bool is_asked_again(const struct cfg_namespace *ns)
{
	for (size_t i = 0; i < ns->n_rules; i++) {
		if (ns->rules[i].action == CFG_ACTION_FORWARD)
			return true;
	}
	return ns->auth->recheck != 0;
}

/* An interval, more or less: clients that came together are not asked for together. */
static void set_recheck(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);
	uint32_t every = ns_of(w, c)->auth->recheck, spread = every / 5 + 1;
	uint32_t jitter = (c->index * 2654435761u ^ c->gen * 40503u ^ (uint32_t)w->now_ms) % spread;

	s->more->recheck_due = (uint32_t)w->now_ms + every - every / 10 + jitter;
}

void auth_opened(struct worker *w, struct conn *c)
{
	const struct cfg_namespace *ns = ns_of(w, c);
	struct session *s = session_of(w, c);

	if (s == NULL || s->who == NULL || s->is_settled)
		return;
	session_settle(w, s, s->who);
	if (s->more == NULL || s->more->request == NULL)
		return;
	if (!is_asked_again(ns)) {
		auth_forget(w, c); /* and with it the cookie */
		session_trim(w, c);
		return;
	}
	s->has_recheck = ns->auth->recheck != 0;
	if (s->has_recheck)
		set_recheck(w, c);
}

static uint64_t expiry_due(const struct session *s)
{
	uint64_t now = clock_wall_ms(), at = s->expires_at;

	/* In seconds: a date that is far off may not overflow. */
	if (at > now / 1000 + EXPIRY_LOOK_MS / 1000)
		return EXPIRY_LOOK_MS;
	return at * 1000 > now ? at * 1000 - now : 0;
}

uint64_t auth_due(const struct worker *w, const struct conn *c)
{
	const struct session *s = session_of(w, c);
	uint64_t due = UINT64_MAX;
	int32_t left;

	if (s == NULL)
		return due;
	if (s->has_recheck && !s->is_rechecking) {
		left = (int32_t)(s->more->recheck_due - (uint32_t)w->now_ms);
		due = left > 0 ? (uint64_t)left : 0;
	}
	return s->has_expiry ? u64_min(due, expiry_due(s)) : due;
}

static void evict(struct worker *w, struct conn *c, uint16_t code, struct slice reason)
{
	const struct session *s = session_of(w, c);
	struct slice id = session_user(w, s);
	char text[IDENTITY_REASON_MAX + 1], address[ADMISSION_ADDRESS_SIZE];
	size_t n = u64_min(reason.len, IDENTITY_REASON_MAX);
	struct log_quoted user, why;

	if (n > 0)
		memcpy(text, reason.p, n);
	text[n] = '\0';
	admission_address(w, c, address);
	count_add(&w->count->evicted, 1);
	log_event(LOG_INFO, "revoked", "ns=%s user=%s addr=%s code=%u reason=%s", ns_of(w, c)->name,
		  log_quote(&user, id.p, id.len), address, code, log_quote(&why, text, n));
	conn_close(w, c, code, text);
}

static bool is_same(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

void auth_rechecked(struct worker *w, struct conn *c, struct identity *who)
{
	struct session *s = session_of(w, c);

	s->is_rechecking = false;
	set_recheck(w, c);
	if (who != NULL && !who->is_allowed) {
		evict(w, c, who->code, who->reason);
	} else if (who != NULL && !is_same(who->user, session_user(w, s))) {
		evict(w, c, 1008, text_slice("another user"));
	} else if (who != NULL) {
		if (who->user.len > 0)
			user_refresh(w, c, who);
		/* What the hook says of first frames is for newcomers. */
		session_settle(w, s, who);
		who = NULL;
	}
	/* NULL: it can't say. Who is in stays in. */
	identity_free(who);
	conn_retime(w, c);
}

bool auth_expired(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);

	if (s == NULL)
		return true;
	if (s->has_expiry && expiry_due(s) == 0) {
		evict(w, c, 1008, text_slice("expired"));
		return false;
	}
	if (!s->has_recheck || s->is_rechecking || (int32_t)(s->more->recheck_due - (uint32_t)w->now_ms) > 0)
		return true;
	if (app_recheck(w, c))
		s->is_rechecking = true;
	else
		set_recheck(w, c);
	return true;
}

/* ---------------------------------------------------------------- changes from outside */

void auth_uncache_user(struct worker *w, struct slice user)
{
	if (w->auth->http == NULL || user.len > IDENTITY_USER_MAX)
		return;
	auth_changes_note(&w->auth->changes, (struct slice){NULL, 0}, user, false);
	if (w->auth->cache != NULL)
		auth_cache_drop_user(w->auth->cache, user);
}

void auth_note_group_change(struct worker *w, struct slice group, struct slice user, bool is_add)
{
	if (w->auth->http == NULL || user.len > IDENTITY_USER_MAX || group.len > IDENTITY_USER_MAX)
		return;
	auth_changes_note(&w->auth->changes, group, user, is_add);
	if (w->auth->cache != NULL)
		auth_cache_drop_user(w->auth->cache, user);
}

/* ---------------------------------------------------------------- start and end */

/* A query that is believed is no authorization at all: whoever runs it shall know. */
static void warn_of_query(const struct worker *w)
{
	/* One worker of each generation says so. */
	for (size_t i = 0; w->boot->position == 0 && i < w->config->n_namespaces; i++) {
		const struct cfg_namespace *ns = &w->config->namespaces[i];

		if (ns->auth != NULL && ns->auth->type == CFG_AUTH_QUERY)
			log_event(LOG_WARN, "auth_query",
				  "ns=%s msg=\"anybody may say to be any user: the query is believed\"",
				  ns->name);
	}
}

static int start_hook(struct worker *w, size_t i, unsigned connections)
{
	const struct cfg_auth *a = &w->config->auths[i];

	if (w->auth->http == NULL && (w->auth->http = http_engine_new(w->loop, connections)) == NULL)
		return -1;
	if (a->n_cache_key > 0 && w->auth->cache == NULL && (w->auth->cache = auth_cache_new()) == NULL)
		return -1;
	w->auth->hooks[i] = hook_new(w, a, w->auth->http);
	return w->auth->hooks[i] == NULL ? -1 : 0;
}

/* The master has seen that they are of use. */
static int start_jwt(struct worker *w, size_t i)
{
	const struct cfg_auth *a = &w->config->auths[i];
	const char *wrong;

	if (jwks_parse(&w->auth->keys[i], (struct slice){a->keys_text, a->keys_len}, a->algorithms, &wrong) ==
	    0)
		return 0;
	log_event(LOG_ERROR, "auth_keys", "auth=%s msg=\"%s\"", a->name, wrong);
	errno = EINVAL;
	return -1;
}

static int start_one(struct worker *w, size_t i, unsigned connections)
{
	switch (w->config->auths[i].type) {
	case CFG_AUTH_HOOK:
		return start_hook(w, i, connections);
	case CFG_AUTH_JWT:
		return start_jwt(w, i);
	case CFG_AUTH_QUERY:
		return 0;
	}
	return -1;
}

int auth_start(struct worker *w)
{
	unsigned connections = 0;

	w->auth = calloc(1, sizeof(*w->auth));
	if (w->auth == NULL)
		return -1;
	warn_of_query(w);
	w->auth->hooks = calloc(w->config->n_auths + 1, sizeof(struct auth_hook *));
	w->auth->keys = calloc(w->config->n_auths + 1, sizeof(struct jwks));
	if (w->auth->hooks == NULL || w->auth->keys == NULL)
		return -1;
	for (size_t i = 0; i < w->config->n_auths; i++)
		connections += hook_share(w->config, &w->config->auths[i]);
	for (size_t i = 0; i < w->config->n_auths; i++) {
		if (start_one(w, i, connections) == -1)
			return -1;
	}
	return 0;
}

void auth_tick(struct worker *w)
{
	for (size_t i = 0; i < w->config->n_auths; i++) {
		if (w->auth->hooks[i] != NULL)
			hook_tick(w->auth->hooks[i]);
	}
}

void auth_stop(struct worker *w)
{
	for (size_t i = 0; i < w->config->n_auths; i++) {
		hook_free(w->auth->hooks[i]);
		jwks_free(&w->auth->keys[i]);
	}
	http_engine_free(w->auth->http);
	auth_cache_free(w->auth->cache);
	auth_changes_free(&w->auth->changes);
	free(w->auth->hooks);
	free(w->auth->keys);
	free(w->auth);
	w->auth = NULL;
}
