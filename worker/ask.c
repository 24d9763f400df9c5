#include "worker/ask.h"

#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"

#define NONE UINT32_MAX

enum ask_state { ASK_FREE, ASK_WAITING, ASK_SENT };

struct ask_entry {
	ask_fn *fn;
	void *arg;
	struct waiting *copy; /* WAITING: the record to be pushed */
	uint64_t due_ms;
	uint32_t gen;        /* grows with each use: late answers find nobody */
	uint32_t prev, next; /* by age; FREE: next free */
	uint8_t state;
};

/* A record that did not fit the uplink: room, then payload behind it. */
struct waiting {
	struct up_rec h;
	uint32_t room_len, payload_len;
	char bytes[];
};

void ask_init(struct ask_table *t)
{
	*t = (struct ask_table){.free = NONE, .oldest = NONE, .newest = NONE};
}

void ask_free(struct ask_table *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		free(t->v[i].copy);
	free(t->v);
	ask_init(t);
}

static uint32_t number_of(const struct ask_table *t, uint32_t index)
{
	return t->v[index].gen << ASK_INDEX_BITS | index;
}

/* NONE: no such question any more. */
static uint32_t index_of(const struct ask_table *t, uint32_t number)
{
	uint32_t index = number & (ASK_MAX - 1);

	return index < t->n && t->v[index].state != ASK_FREE && number_of(t, index) == number ? index : NONE;
}

static uint32_t take_entry(struct ask_table *t)
{
	uint32_t index = t->free;

	if (index != NONE) {
		t->free = t->v[index].next;
		return index;
	}
	if (t->v == NULL)
		t->v = calloc(ASK_MAX, sizeof(*t->v)); /* pages that no question has used stay untouched */
	return t->v == NULL || t->n == ASK_MAX ? NONE : t->n++;
}

static void append(struct ask_table *t, uint32_t index)
{
	struct ask_entry *e = &t->v[index];

	e->prev = t->newest;
	e->next = NONE;
	if (t->newest == NONE)
		t->oldest = index;
	else
		t->v[t->newest].next = index;
	t->newest = index;
}

static void drop_copy(struct ask_table *t, struct ask_entry *e)
{
	if (e->copy == NULL)
		return;
	t->waiting_bytes -= e->copy->room_len + e->copy->payload_len;
	t->n_waiting--;
	free(e->copy);
	e->copy = NULL;
}

static void release(struct ask_table *t, uint32_t index)
{
	struct ask_entry *e = &t->v[index];

	drop_copy(t, e);
	if (e->prev == NONE)
		t->oldest = e->next;
	else
		t->v[e->prev].next = e->next;
	if (e->next == NONE)
		t->newest = e->prev;
	else
		t->v[e->next].prev = e->prev;
	e->state = ASK_FREE;
	e->next = t->free;
	t->free = index;
}

static bool push(struct worker *w, const struct up_rec *h, struct slice room, struct slice payload)
{
	if (!uplink_push(&w->slot.data, h, room, payload, true))
		return false;
	w->uplink_pushed = true;
	return true;
}

/* Keep the record until there is space. False: too much waits already, or no memory. */
static bool keep(struct ask_table *t, struct ask_entry *e, const struct up_rec *h, const struct ask *q)
{
	uint32_t size = (uint32_t)(q->room.len + q->payload.len);

	if (t->waiting_bytes + size > ASK_WAIT_BYTES)
		return false;
	e->copy = malloc(sizeof(*e->copy) + size);
	if (e->copy == NULL)
		return false;
	e->copy->h = *h;
	e->copy->room_len = (uint32_t)q->room.len;
	e->copy->payload_len = (uint32_t)q->payload.len;
	if (q->room.len > 0)
		memcpy(e->copy->bytes, q->room.p, q->room.len);
	if (q->payload.len > 0)
		memcpy(e->copy->bytes + q->room.len, q->payload.p, q->payload.len);
	t->waiting_bytes += size;
	t->n_waiting++;
	return true;
}

uint32_t ask_master(struct worker *w, const struct ask *q, ask_fn *fn, void *arg)
{
	struct ask_table *t = &w->asks;
	struct up_rec h = {.type = UP_REQUEST, .opcode = (uint8_t)q->what, .ns = q->ns, .total = q->total};
	struct ask_entry *e;
	uint32_t index;

	if (q->payload.len > ASK_PAYLOAD_MAX || q->room.len > CFG_ROOM_MAX)
		return 0;
	index = take_entry(t);
	if (index == NONE)
		return 0;
	e = &t->v[index];
	e->gen = (e->gen + 1) & (UINT32_MAX >> ASK_INDEX_BITS);
	if (e->gen == 0)
		e->gen = 1; /* so that no number is 0 */
	e->fn = fn;
	e->arg = arg;
	e->due_ms = w->now_ms + ASK_DEADLINE_MS;
	append(t, index);
	h.request = number_of(t, index);
	e->state = ASK_SENT;
	if (t->n_waiting == 0 && push(w, &h, q->room, q->payload))
		return h.request;
	e->state = ASK_WAITING;
	if (keep(t, e, &h, q)) {
		count_add(&w->count->uplink_full, 1);
		return h.request;
	}
	release(t, index);
	return 0;
}

void ask_forget(struct worker *w, uint32_t number)
{
	uint32_t index = index_of(&w->asks, number);

	if (index == NONE)
		return;
	/* What has been sent is answered all the same; its entry goes then. What has not need not be. */
	w->asks.v[index].fn = NULL;
	if (w->asks.v[index].state == ASK_WAITING)
		release(&w->asks, index);
}

static void answer(struct worker *w, uint32_t index, enum rec_reply reply, struct slice payload)
{
	ask_fn *fn = w->asks.v[index].fn;
	void *arg = w->asks.v[index].arg;

	release(&w->asks, index);
	if (fn != NULL)
		fn(w, arg, reply, payload);
}

void ask_reply(struct worker *w, uint32_t number, enum rec_reply reply, struct slice payload)
{
	uint32_t index = index_of(&w->asks, number);

	if (index != NONE && w->asks.v[index].state == ASK_SENT)
		answer(w, index, reply, payload);
}

bool ask_is_waiting(const struct worker *w)
{
	return w->asks.n_waiting > 0;
}

/* Those that wait are the newest ones: from the first of them on. */
bool ask_resume(struct worker *w)
{
	struct ask_table *t = &w->asks;
	uint32_t index = t->newest;

	if (t->n_waiting == 0)
		return true;
	for (uint32_t i = 1; i < t->n_waiting; i++)
		index = t->v[index].prev;
	while (index != NONE) {
		struct ask_entry *e = &t->v[index];
		const struct waiting *c = e->copy;

		if (!push(w, &c->h, (struct slice){c->bytes, c->room_len},
			  (struct slice){c->bytes + c->room_len, c->payload_len}))
			return false;
		e->state = ASK_SENT;
		drop_copy(t, e);
		index = e->next;
	}
	return true;
}

void ask_tick(struct worker *w)
{
	struct ask_table *t = &w->asks;

	/* New ones that an answer asks are behind all that are due. */
	while (t->oldest != NONE && t->v[t->oldest].due_ms <= w->now_ms)
		answer(w, t->oldest, REC_REPLY_UNAVAILABLE, (struct slice){0});
}
