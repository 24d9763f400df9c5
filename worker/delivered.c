#include "worker/delivered.h"

#include <stdlib.h>
#include <string.h>

#include "worker/matched.h"
#include "worker/worker.h"

#define GATHER_USERS 8u
#define OVERFLOW_MAX (UINT64_C(1) << 20) /* as matched.c */

struct tracked {
	uint64_t pos;
	uint32_t number;
	uint32_t sockets; /* not told yet */
	uint32_t n;       /* hashes of their users */
	uint64_t user_hash[GATHER_USERS];
};

_Static_assert(DELIVERED_RECORDS >= FANOUT_RECORDS,
	       "records are read before the first of their batch is sent");

struct delivered {
	uint64_t n;       /* records, ever: the last of them lie in v, by n % DELIVERED_RECORDS */
	uint64_t pending; /* those before it have nothing to tell */
	struct tracked v[DELIVERED_RECORDS];
};

static void tell(struct worker *w, uint32_t number, const struct up_matched *m)
{
	struct up_rec h = {.type = UP_DELIVERED, .total = number};
	size_t len = offsetof(struct up_matched, user_hash) + m->n * sizeof(m->user_hash[0]);

	if (w->control_overflow.len <= OVERFLOW_MAX)
		publish_control_payload(w, &h, (struct slice){0}, (struct slice){(const char *)m, len});
}

static void tell_one(struct worker *w, struct tracked *t)
{
	static struct up_matched m;

	if (t->sockets == 0)
		return;
	m.sockets = t->sockets;
	m.n = t->n;
	memcpy(m.user_hash, t->user_hash, t->n * sizeof(t->user_hash[0]));
	tell(w, t->number, &m);
	t->sockets = t->n = 0;
}

void delivered_begin(struct worker *w, uint64_t pos, uint32_t number)
{
	struct tracked *t;

	if (w->delivered == NULL)
		w->delivered = calloc(1, sizeof(*w->delivered));
	if (w->delivered == NULL)
		return; /* without memory nobody is told of */
	t = &w->delivered->v[w->delivered->n++ % DELIVERED_RECORDS];
	tell_one(w, t);
	*t = (struct tracked){.pos = pos, .number = number};
}

static uint64_t oldest(const struct delivered *d)
{
	return d->n > DELIVERED_RECORDS ? d->n - DELIVERED_RECORDS : 0;
}

/* Which is it? d->n: none. */
static uint64_t find(const struct delivered *d, uint64_t pos)
{
	uint64_t from = oldest(d), to = d->n;

	while (from < to) {
		uint64_t mid = from + (to - from) / 2;
		const struct tracked *t = &d->v[mid % DELIVERED_RECORDS];

		if (t->pos == pos)
			return mid;
		if (t->pos < pos)
			from = mid + 1;
		else
			to = mid;
	}
	return d->n;
}

void delivered_to(struct worker *w, const struct conn *c, uint64_t pos)
{
	struct delivered *d = w->delivered;
	const struct user *u;
	struct tracked *t;
	uint64_t i;

	if (likely(d == NULL) || (i = find(d, pos)) == d->n)
		return;
	t = &d->v[i % DELIVERED_RECORDS];
	t->sockets++;
	d->pending = u64_min(d->pending, i);
	u = user_of(w, c);
	if (u == NULL)
		return;
	t->user_hash[t->n++] = user_cluster_hash(w, u);
	if (t->n == GATHER_USERS)
		tell_one(w, t);
}

void delivered_live(struct worker *w, struct channel *ch, uint64_t pos)
{
	static struct up_matched m;
	const struct delivered *d = w->delivered;
	const uint32_t *member = channel_members(ch);
	uint64_t at = d == NULL ? 0 : find(d, pos);

	if (d == NULL || at == d->n)
		return;
	m.sockets = m.n = 0;
	for (uint32_t i = 0; i < ch->n_live; i++) {
		const struct conn *c = conn_at(&w->conns, member[i]);
		const struct user *u;

		if (c->flags & CONN_MATCHED)
			continue; /* has had its turn, and was counted then */
		m.sockets++;
		u = user_of(w, c);
		if (u != NULL)
			matched_keep(&m, user_cluster_hash(w, u));
	}
	if (m.sockets > 0)
		tell(w, d->v[at % DELIVERED_RECORDS].number, &m);
}

void delivered_tell(struct worker *w)
{
	struct delivered *d = w->delivered;

	if (d == NULL)
		return;
	for (uint64_t i = u64_max(d->pending, oldest(d)); i < d->n; i++)
		tell_one(w, &d->v[i % DELIVERED_RECORDS]);
	d->pending = d->n;
}

void delivered_free(struct worker *w)
{
	free(w->delivered);
	w->delivered = NULL;
}
