#include "master/throttle.h"

#include <stdlib.h>

static struct throttle_entry *set_of(const struct throttle *t, uint64_t key)
{
	return &t->entry[(key >> 32) % THROTTLE_SETS * THROTTLE_WAYS];
}

bool throttle_is_too_soon(struct throttle *t, uint64_t key, uint32_t value, uint64_t now_ms)
{
	const struct throttle_entry *e;

	if (t->entry == NULL)
		t->entry = calloc((size_t)THROTTLE_SETS * THROTTLE_WAYS, sizeof(*t->entry));
	if (t->entry == NULL)
		return true;
	e = set_of(t, key);
	for (unsigned i = 0; i < THROTTLE_WAYS; i++, e++) {
		if (e->key == key)
			return e->value == value && e->due_ms > now_ms;
	}
	return false;
}

void throttle_note(struct throttle *t, uint64_t key, uint32_t value, uint32_t ms, uint64_t now_ms)
{
	struct throttle_entry *e, *best;

	if (t->entry == NULL)
		return;
	best = e = set_of(t, key);
	for (unsigned i = 0; i < THROTTLE_WAYS; i++, e++) {
		if (e->key == key) {
			best = e;
			break;
		}
		if (e->due_ms < best->due_ms)
			best = e;
	}
	*best = (struct throttle_entry){key, now_ms + ms, value};
}

void throttle_free(struct throttle *t)
{
	free(t->entry);
	t->entry = NULL;
}
