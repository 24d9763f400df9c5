#include "worker/matched.h"

#include <string.h>

#include "worker/worker.h"

/* The master reads its control uplinks before all else, so this is only ever reached when it stands still.
 * The publisher then gets an incomplete count, which says so. */
#define OVERFLOW_MAX (UINT64_C(1) << 20)

static struct up_matched tally; /* one publication at a time */
static bool is_counting;

void matched_begin(bool is_wanted)
{
	is_counting = is_wanted;
	tally.sockets = 0;
	tally.n = 0;
}

void matched_keep(struct up_matched *t, uint64_t hash)
{
	uint64_t *list = t->user_hash;
	size_t from = 0, to = t->n;

	if (t->n == UP_MATCHED_MAX && hash >= list[UP_MATCHED_MAX - 1])
		return;
	while (from < to) {
		size_t mid = (from + to) / 2;

		if (list[mid] < hash)
			from = mid + 1;
		else
			to = mid;
	}
	if (from < t->n && list[from] == hash)
		return;
	if (t->n < UP_MATCHED_MAX)
		t->n++;
	memmove(&list[from + 1], &list[from], (t->n - 1 - from) * sizeof(*list));
	list[from] = hash;
}

void matched_user(const struct worker *w, const struct user *u)
{
	if (!is_counting)
		return;
	tally.sockets += u->n;
	matched_keep(&tally, user_cluster_hash(w, u));
}

void matched_members(const struct worker *w, const struct channel *ch)
{
	const uint32_t *m = channel_members((struct channel *)(uintptr_t)ch);

	if (!is_counting)
		return;
	tally.sockets += ch->n;
	for (uint32_t i = 0; i < ch->n; i++) {
		const struct user *u = user_of(w, conn_at(&w->conns, m[i]));

		if (u != NULL)
			matched_keep(&tally, user_cluster_hash(w, u));
	}
}

void matched_tell(struct worker *w, uint64_t number)
{
	struct up_rec h = {.type = UP_MATCHED, .total = (uint32_t)number};
	size_t len = offsetof(struct up_matched, user_hash) + tally.n * sizeof(tally.user_hash[0]);

	if (is_counting && w->control_overflow.len <= OVERFLOW_MAX)
		publish_control_payload(w, &h, (struct slice){0}, (struct slice){(const char *)&tally, len});
}
