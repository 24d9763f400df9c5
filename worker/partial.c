#include "worker/partial.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "worker/worker.h"

#define SHARE_SEARCH 32 /* newest copies that are looked through for one to share */

static void list_insert(struct partial_list *l, struct partial *after, struct partial *p)
{
	p->prev = after;
	p->next = after == NULL ? l->first : after->next;
	if (p->next == NULL)
		l->last = p;
	else
		p->next->prev = p;
	if (after == NULL)
		l->first = p;
	else
		after->next = p;
}

static void list_remove(struct partial_list *l, struct partial *p)
{
	if (p->prev == NULL)
		l->first = p->next;
	else
		p->prev->next = p->next;
	if (p->next == NULL)
		l->last = p->prev;
	else
		p->next->prev = p->prev;
}

static void partial_free(struct worker *w, struct partial *p)
{
	list_remove(p->copy == NULL ? &w->behind.held : &w->behind.copied, p);
	if (p->copy != NULL)
		w->behind.copy_bytes -= p->frame_len;
	count_set(&w->count->slow_bytes, w->behind.copy_bytes);
	free(p->copy);
	free(p);
}

void partial_leave(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	struct partial *p = x->partial;

	if (p == NULL)
		return;
	if (x->partial_prev == CONN_NONE)
		p->first = x->partial_next;
	else
		conn_at(&w->conns, x->partial_prev)->ext->partial_next = x->partial_next;
	if (x->partial_next != CONN_NONE)
		conn_at(&w->conns, x->partial_next)->ext->partial_prev = x->partial_prev;
	x->partial_prev = x->partial_next = CONN_NONE;
	x->partial = NULL;
	x->off = 0;
	if (p->first == CONN_NONE)
		partial_free(w, p);
}

void partial_enter(struct worker *w, struct conn *c, struct partial *p)
{
	struct conn_ext *x = c->ext;

	x->partial = p;
	x->partial_prev = CONN_NONE;
	x->partial_next = p->first;
	if (p->first != CONN_NONE)
		conn_at(&w->conns, p->first)->ext->partial_prev = c->index;
	p->first = c->index;
}

static struct partial *partial_new(uint64_t pos, uint32_t frame_off, uint32_t frame_len)
{
	struct partial *p = calloc(1, sizeof(*p));

	if (p != NULL)
		*p = (struct partial){
			.pos = pos, .frame_off = frame_off, .frame_len = frame_len, .first = CONN_NONE};
	return p;
}

struct partial *partial_hold(struct worker *w, uint64_t pos)
{
	struct partial_list *l = &w->behind.held;
	struct partial *at = l->last;
	struct partial *p;
	const struct rec *h = (const struct rec *)ring_at(&w->ring, pos);

	assert(pos >= w->fanout.cursor); /* else the ring may overwrite it under our clients */
	while (at != NULL && at->pos > pos)
		at = at->prev;
	if (at != NULL && at->pos == pos)
		return at;
	p = partial_new(pos, h->frame_off, h->frame_len);
	if (p != NULL)
		list_insert(l, at, p);
	return p;
}

void partial_enforce_memory(struct worker *w)
{
	struct behind *b = &w->behind;
	uint64_t max = w->config->limits.slow_memory;

	while (max != 0 && b->copy_bytes > max && b->copied.first != b->copied.last) {
		struct partial *p = b->copied.first;

		while (b->copied.first == p)
			conn_drop(w, conn_at(&w->conns, p->first), true, 1013);
	}
}

/* `p`, which is in no list, owns `copy` now: the frame stands `off` bytes into it. */
static void partial_adopt(struct worker *w, struct partial *p, uint8_t *copy, uint32_t off)
{
	struct behind *b = &w->behind;

	p->copy = copy;
	p->frame_off = off;
	list_insert(&b->copied, b->copied.last, p);
	b->copy_bytes += p->frame_len;
	count_add(&w->count->slow_copies, 1);
	count_set(&w->count->slow_bytes, b->copy_bytes);
}

static int partial_copy(struct worker *w, struct partial *p, const uint8_t *frame)
{
	uint8_t *copy = malloc(p->frame_len);

	if (copy == NULL)
		return -1;
	memcpy(copy, frame, p->frame_len);
	partial_adopt(w, p, copy, 0);
	return 0;
}

/* A copy that others are inside already. */
static struct partial *partial_find(struct worker *w, uint64_t pos)
{
	struct partial *p = w->behind.copied.last;

	for (int i = 0; p != NULL && i < SHARE_SEARCH; i++, p = p->prev) {
		if (p->pos == pos)
			return p;
	}
	return NULL;
}

struct partial *partial_private(struct worker *w, uint64_t pos, const uint8_t *frame, uint32_t frame_len)
{
	struct partial *p = partial_find(w, pos);

	if (p != NULL)
		return p;
	p = partial_new(pos, 0, frame_len);
	if (p != NULL && partial_copy(w, p, frame) == -1) {
		free(p);
		p = NULL;
	}
	return p;
}

uint64_t behind_hold(struct worker *w, uint64_t keep_from)
{
	struct behind *b = &w->behind;
	struct partial *p;

	while ((p = b->held.first) != NULL && p->pos < keep_from) {
		list_remove(&b->held, p);
		if (partial_copy(w, p, ring_at(&w->ring, p->pos) + p->frame_off) == -1) {
			/* No memory to finish the frame with: its clients cannot go on. */
			list_insert(&b->held, NULL, p);
			while (b->held.first == p)
				conn_drop(w, conn_at(&w->conns, p->first), true, 1013);
			continue;
		}
		partial_enforce_memory(w);
	}
	return p == NULL ? UINT64_MAX : p->pos;
}

struct partial *partial_large(struct worker *w, uint64_t pos, bool *is_lapped)
{
	struct partial *p = partial_find(w, pos);
	uint8_t *bytes;
	struct rec h;
	uint32_t skew;

	*is_lapped = p == NULL && !rec_peek(&w->ring, pos, &h);
	if (p != NULL || *is_lapped)
		return p;
	skew = h.frame_off & 7u;
	bytes = malloc((size_t)h.frame_len + skew);
	p = partial_new(pos, 0, h.frame_len);
	*is_lapped = bytes != NULL &&
		     !rec_copy(&w->ring, pos, h.frame_off - skew, bytes, (size_t)h.frame_len + skew);
	if (bytes == NULL || p == NULL || *is_lapped) {
		free(bytes);
		free(p);
		return NULL;
	}
	partial_adopt(w, p, bytes, skew);
	return p;
}
