#include "worker/auth.h"

#include "common/log.h"
#include "worker/worker.h"

static enum auth_result ask_query(const struct auth_ask *ask, struct identity **who)
{
	if (ask->user.len == 0)
		return AUTH_FAILED; /* the configuration sees to it that there is a user_query */
	*who = identity_of_user(ask->user);
	return *who == NULL ? AUTH_FAILED : AUTH_DONE;
}

enum auth_result auth_begin(struct worker *w, struct conn *c, struct auth_ask *ask, struct identity **who)
{
	(void)w;
	(void)c;
	switch (ask->ns->auth->type) {
	case CFG_AUTH_QUERY:
		return ask_query(ask, who);
	case CFG_AUTH_HOOK:
	case CFG_AUTH_JWT:
		break;
	}
	return AUTH_FAILED;
}

/* A query that is believed is no authorization at all: whoever runs it shall know. */
static void warn_of_query(const struct worker *w)
{
	for (size_t i = 0; i < w->config->n_namespaces; i++) {
		const struct cfg_namespace *ns = &w->config->namespaces[i];

		if (ns->auth != NULL && ns->auth->type == CFG_AUTH_QUERY)
			log_event(LOG_WARN, "auth_query",
				  "ns=%s msg=\"anybody may say to be any user: the query is believed\"",
				  ns->name);
	}
}

int auth_start(struct worker *w)
{
	warn_of_query(w);
	return 0;
}

void auth_stop(struct worker *w)
{
	(void)w;
}

void auth_forget(struct worker *w, struct conn *c)
{
	(void)w;
	(void)c;
}
