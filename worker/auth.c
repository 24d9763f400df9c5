#include "worker/auth.h"

#include "worker/worker.h"

void auth_forget(struct worker *w, struct conn *c)
{
	(void)w;
	(void)c;
}
