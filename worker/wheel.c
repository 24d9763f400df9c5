#include "worker/wheel.h"

#define MASK (WHEEL_SLOTS - 1)

void wheel_init(struct wheel *w, uint64_t now_ms, struct wheel_link *(*link)(void *, uint32_t), void *arg)
{
	*w = (struct wheel){.start_ms = now_ms, .link = link, .arg = arg};
	for (size_t i = 0; i < WHEEL_SLOTS; i++)
		w->slot[i] = WHEEL_NONE;
}

static uint32_t tick_of(const struct wheel *w, uint64_t ms)
{
	return ms <= w->start_ms ? 0 : (uint32_t)((ms - w->start_ms) / WHEEL_TICK_MS);
}

void wheel_clear(struct wheel *w, uint32_t index)
{
	struct wheel_link *l = w->link(w->arg, index);

	if (l->prev == index)
		return;
	if (l->prev == WHEEL_NONE)
		w->slot[l->due & MASK] = l->next;
	else
		w->link(w->arg, l->prev)->next = l->next;
	if (l->next != WHEEL_NONE)
		w->link(w->arg, l->next)->prev = l->prev;
	l->prev = index;
	l->next = WHEEL_NONE;
	w->n--;
}

void wheel_set(struct wheel *w, uint32_t index, uint64_t due_ms)
{
	struct wheel_link *l = w->link(w->arg, index);
	uint32_t due = tick_of(w, due_ms + WHEEL_TICK_MS - 1) + 1;
	uint32_t *slot;

	if (due <= w->tick)
		due = w->tick + 1;
	wheel_clear(w, index);
	slot = &w->slot[due & MASK];
	l->due = due;
	l->prev = WHEEL_NONE;
	l->next = *slot;
	if (*slot != WHEEL_NONE)
		w->link(w->arg, *slot)->prev = index;
	*slot = index;
	w->n++;
}

uint32_t wheel_expire(struct wheel *w, uint64_t now_ms)
{
	uint32_t now = tick_of(w, now_ms);

	if (w->n == 0) {
		w->tick = now > w->tick ? now : w->tick;
		return WHEEL_NONE;
	}
	/* `tick` stays on a slot until nothing in it is due: a slot holds links of later turns too. */
	while (w->tick < now) {
		uint32_t i = w->slot[(w->tick + 1) & MASK];

		while (i != WHEEL_NONE && w->link(w->arg, i)->due > w->tick + 1)
			i = w->link(w->arg, i)->next;
		if (i != WHEEL_NONE) {
			wheel_clear(w, i);
			return i;
		}
		w->tick++;
	}
	return WHEEL_NONE;
}
