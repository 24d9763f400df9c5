#include "worker/identity.h"

#include <stdlib.h>

void identity_clear(struct identity *id)
{
	free(id->groups);
	free(id->frames);
	buf_free(&id->text);
	*id = (struct identity){0};
}

void identity_free(struct identity *id)
{
	if (id == NULL)
		return;
	identity_clear(id);
	free(id);
}

struct identity *identity_of_user(struct slice user)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (id == NULL || buf_put(&id->text, user.p, user.len) == -1) {
		identity_free(id);
		return NULL;
	}
	id->is_allowed = true;
	id->user = (struct slice){id->text.p, user.len};
	return id;
}

struct identity *identity_refused(const char *reason)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (id == NULL || buf_puts(&id->text, reason) == -1) {
		identity_free(id);
		return NULL;
	}
	id->status = 403;
	id->code = 1008;
	id->reason = (struct slice){id->text.p, id->text.len};
	return id;
}
