#include "worker/identity.h"

#include <stdlib.h>

void identity_clear(struct identity *id)
{
	free(id->groups);
	free(id->frames);
	buf_free(&id->text);
	*id = (struct identity){0};
}
