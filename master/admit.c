#include "master/admit.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "master/admit_table.h"

#define FORGET_PIECE 1024u /* shares in a turn of the loop: some 100 us */

int admit_start(struct master *m)
{
	m->admit = calloc(1, sizeof(*m->admit));
	if (m->admit == NULL)
		return -1;
	return admit_table_init(m->admit, m->seq.hash_key);
}

void admit_stop(struct master *m)
{
	if (m->admit == NULL)
		return;
	admit_table_free(m->admit);
	free(m->admit);
	m->admit = NULL;
}

static void answer(struct master *m, struct child *c, uint32_t request, bool may_come)
{
	const struct rec h = {.type = REC_ADMIT, .id = request, .arg = {may_come}};

	seq_control(&m->seq, c->reader, &h, (struct slice){0});
}

static bool ask(struct master *m, struct child *c, const struct up_rec *h, struct slice key)
{
	int r = -1;

	if (c->admit == NULL)
		c->admit = admit_reader_new(m->admit);
	if (c->admit != NULL)
		r = admit_take(m->admit, c->admit, h->opcode, key, h->total);
	if (r == -1)
		log_event(LOG_ERROR, "no_memory", "msg=\"a connection is not counted, hence refused\"");
	answer(m, c, h->request, r == 1);
	return true;
}

bool admit_told(struct master *m, struct child *c, const struct up_view *v)
{
	struct slice key;
	char copy[ADMIT_KEY_MAX];

	if ((v->h.opcode != UP_LIMIT_USER && v->h.opcode != UP_LIMIT_ADDRESS) || v->payload.len == 0 ||
	    v->payload.len > sizeof(copy) || (v->h.opcode == UP_LIMIT_ADDRESS && v->payload.len != 16))
		return false;
	memcpy(copy, v->payload.p, v->payload.len);
	key = (struct slice){copy, v->payload.len};
	if (v->h.type == UP_ADMIT)
		return ask(m, c, &v->h, key);
	return c->admit != NULL && admit_give(m->admit, c->admit, v->h.opcode, key);
}

void admit_worker_died(struct master *m, struct child *c)
{
	if (c->admit == NULL)
		return;
	admit_reader_died(m->admit, c->admit);
	c->admit = NULL;
}

bool admit_turn(struct master *m)
{
	return m->admit->n_dead > 0 && admit_forget(m->admit, FORGET_PIECE);
}
