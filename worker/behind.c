#include "worker/behind.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "worker/worker.h"

#define TURN_FRAMES  64      /* of one client and loop turn */
#define TURN_BYTES   262144u /* the same; also the size of the scratch */
#define SHARE_SEARCH 32      /* newest copies that are looked through for one to share */

int behind_init(struct worker *w)
{
	w->behind = (struct behind){.first = CONN_NONE};
	w->behind.scratch = malloc(TURN_BYTES);
	return w->behind.scratch == NULL ? -1 : 0;
}

void behind_free(struct behind *b)
{
	free(b->scratch);
}

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

static void count_sent(struct worker *w, const struct conn *c, uint64_t frames, uint64_t bytes)
{
	struct counters_ns *n = &w->count->ns[ns_of(w, c)->id];

	count_add(&w->count->sends, 1);
	count_add(&n->deliveries, frames);
	count_add(&n->bytes_out, bytes);
}

/* ---------------------------------------------------------------- half-sent frames */

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

static void partial_leave(struct worker *w, struct conn *c)
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

static void partial_enter(struct worker *w, struct conn *c, struct partial *p)
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

/* A frame in protected memory. NULL: no memory. */
static struct partial *partial_hold(struct worker *w, uint64_t pos)
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

/* Reset everybody inside the oldest copies until they fit. */
static void enforce_memory(struct worker *w)
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

/* A frame whose bytes are in the scratch now. NULL: no memory. */
static struct partial *partial_private(struct worker *w, uint64_t pos, const uint8_t *frame,
				       uint32_t frame_len)
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
		enforce_memory(w);
	}
	return p == NULL ? UINT64_MAX : p->pos;
}

/* ---------------------------------------------------------------- in and out */

static void link_behind(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	x->behind_prev = CONN_NONE;
	x->behind_next = w->behind.first;
	if (w->behind.first != CONN_NONE)
		conn_at(&w->conns, w->behind.first)->ext->behind_prev = c->index;
	w->behind.first = c->index;
	w->behind.n++;
	c->flags |= CONN_BEHIND;
}

static void unlink_behind(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (x->behind_prev == CONN_NONE)
		w->behind.first = x->behind_next;
	else
		conn_at(&w->conns, x->behind_prev)->ext->behind_next = x->behind_next;
	if (x->behind_next != CONN_NONE)
		conn_at(&w->conns, x->behind_next)->ext->behind_prev = x->behind_prev;
	x->behind_prev = x->behind_next = CONN_NONE;
	w->behind.n--;
	c->flags &= (uint16_t)~CONN_BEHIND;
}

void behind_begin(struct worker *w, struct conn *c, uint64_t pos, uint64_t seq, uint32_t off)
{
	struct conn_ext *x = conn_ext(c);
	struct partial *p = NULL;

	if (x != NULL && off > 0)
		p = partial_hold(w, pos);
	if (x == NULL || (off > 0 && p == NULL)) {
		conn_drop(w, c, true, 1013);
		return;
	}
	x->pos = pos;
	x->seq = seq;
	x->off = off;
	x->took = (uint32_t)w->now_ms;
	x->is_skipping = false;
	if (p != NULL)
		partial_enter(w, c, p);
	link_behind(w, c);
	channel_set_live(w, c, false);
	c->flags |= CONN_BLOCKED;
	conn_arm(w, c);
}

void behind_leave(struct worker *w, struct conn *c, bool keep_frame)
{
	if (c->ext == NULL)
		return;
	if (c->flags & CONN_BEHIND)
		unlink_behind(w, c);
	/* Of a large frame that has its copy but no byte out yet nothing need be finished. */
	if (!keep_frame || c->ext->off == 0)
		partial_leave(w, c);
}

/* Everything that the channel has is sent (or given up): live again. */
static void go_live(struct worker *w, struct conn *c)
{
	unlink_behind(w, c);
	channel_set_live(w, c, true);
}

/* slow = skip, at a frame boundary: go on at the channel's newest record while that can still be read. What
 * it has not got before that, from number `seq` on, is counted. */
static void skip_ahead(struct worker *w, struct conn *c, uint64_t seq)
{
	struct conn_ext *x = c->ext;
	const struct channel *ch = channel_at(&w->channels, c->channel);
	counter *skipped = &w->count->ns[ns_of(w, c)->id].dropped[COUNT_DROPPED_slow_skip];

	x->is_skipping = false;
	x->took = (uint32_t)w->now_ms;
	if (ch->last < ring_reclaim(&w->ring)) {
		count_add(skipped, ch->last_seq - seq + 1);
		go_live(w, c);
		return;
	}
	count_add(skipped, ch->last_seq - seq);
	x->pos = ch->last;
	x->seq = ch->last_seq;
}

/* The ring has passed its position, or it takes nothing. False: it was closed. */
static bool apply_policy(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (ns_of(w, c)->slow == CFG_SLOW_DISCONNECT) {
		conn_close(w, c, 1013, "slow consumer");
		return false;
	}
	if (x->off > 0) {
		x->is_skipping = true; /* first the frame that was begun */
		x->took = (uint32_t)w->now_ms;
		return true;
	}
	partial_leave(w, c); /* a large frame that waited for its first byte */
	skip_ahead(w, c, x->seq);
	return true;
}

/* The frame at x->pos is complete: where next? */
static enum behind_result advance(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	const struct channel *ch = channel_at(&w->channels, c->channel);
	uint64_t next;

	if (x->pos == ch->last) {
		go_live(w, c);
		return BEHIND_CAUGHT_UP;
	}
	if (x->is_skipping) {
		skip_ahead(w, c, x->seq + 1);
		return BEHIND_CAUGHT_UP;
	}
	x->seq++;
	/* next == 0: the chain is torn (its head was forgotten); what lies behind cannot be found by it. */
	if (!rec_next(&w->ring, x->pos, &next) || next == 0)
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	x->pos = next;
	return BEHIND_MORE;
}

enum behind_result behind_finish_frame(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	struct partial *p = x->partial;
	const uint8_t *frame;
	ssize_t n;

	if (p == NULL)
		return BEHIND_CAUGHT_UP;
	frame = (p->copy != NULL ? p->copy : ring_at(&w->ring, p->pos)) + p->frame_off;
	n = send(c->fd, frame + x->off, p->frame_len - x->off, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n == -1) {
		if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
			return BEHIND_BLOCKED;
		conn_drop(w, c, false, 1006);
		return BEHIND_GONE;
	}
	x->off += (uint32_t)n;
	x->took = (uint32_t)w->now_ms;
	count_sent(w, c, x->off == p->frame_len, (uint64_t)n);
	if (x->off < p->frame_len)
		return BEHIND_BLOCKED;
	partial_leave(w, c);
	if ((c->flags & CONN_BEHIND) != 0 && advance(w, c) == BEHIND_GONE)
		return BEHIND_GONE;
	return BEHIND_CAUGHT_UP;
}

/* ---------------------------------------------------------------- catch-up */

struct window {
	struct iovec iov[TURN_FRAMES];
	uint64_t pos[TURN_FRAMES];
	bool is_private[TURN_FRAMES]; /* the bytes are in the scratch, not in the ring */
	unsigned n;
	size_t bytes, scratch_used;
};

/* The frame of the record `h` at `pos`, as bytes in the scratch. NULL: reclaimed, or no room (*is_full). */
static const uint8_t *copy_frame(struct worker *w, struct window *win, uint64_t pos, const struct rec *h,
				 bool *is_full)
{
	uint32_t skew = h->frame_off & 7u;
	size_t len = (size_t)h->frame_len + skew;
	uint8_t *to = w->behind.scratch + win->scratch_used;

	*is_full = len > TURN_BYTES - win->scratch_used;
	if (*is_full || !rec_copy(&w->ring, pos, h->frame_off - skew, to, len))
		return NULL;
	win->scratch_used += ALIGN_UP(len, (size_t)8);
	return to + skew;
}

enum fill_result { FILL_OK, FILL_LAPPED, FILL_LARGE };

/* Follow the chain from `pos`; at most what one turn may send. LAPPED, LARGE: nothing could be taken. */
static enum fill_result fill_window(struct worker *w, struct window *win, uint64_t pos)
{
	win->n = 0;
	win->bytes = win->scratch_used = 0;
	while (win->n < TURN_FRAMES && win->bytes < TURN_BYTES && pos != 0 && pos < w->fanout.done) {
		bool is_private = pos < w->fanout.cursor, is_full = false;
		const uint8_t *frame;
		struct rec h;
		uint64_t next;

		count_add(&w->count->catchup_reads, 1);
		if (!rec_peek(&w->ring, pos, &h))
			return win->n > 0 ? FILL_OK : FILL_LAPPED;
		frame = is_private ? copy_frame(w, win, pos, &h, &is_full)
				   : ring_at(&w->ring, pos) + h.frame_off;
		if (frame == NULL)
			return win->n > 0 ? FILL_OK : is_full ? FILL_LARGE : FILL_LAPPED;
		win->iov[win->n] = (struct iovec){(void *)(uintptr_t)frame, h.frame_len};
		win->is_private[win->n] = is_private;
		win->pos[win->n++] = pos;
		win->bytes += h.frame_len;
		if (!rec_next(&w->ring, pos, &next))
			break;
		pos = next;
	}
	return FILL_OK;
}

/* The frame at `pos`, before the cursor, as a copy of its own. NULL: no memory, or (*is_lapped) it is
 * reclaimed. */
static struct partial *copy_large(struct worker *w, uint64_t pos, bool *is_lapped)
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

/* A frame before the cursor that is too large for the scratch: it gets its shared copy before its first byte
 * goes out. */
static enum behind_result begin_large(struct worker *w, struct conn *c)
{
	bool is_lapped;
	struct partial *p = copy_large(w, c->ext->pos, &is_lapped);

	if (is_lapped)
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	if (p == NULL) {
		conn_drop(w, c, true, 1013);
		return BEHIND_GONE;
	}
	partial_enter(w, c, p);
	enforce_memory(w);
	if (c->state != CONN_OPEN)
		return BEHIND_GONE;
	return behind_finish_frame(w, c);
}

/* Where the send stopped: book what is complete, claim what is half-sent. */
static enum behind_result book(struct worker *w, struct conn *c, const struct window *win, size_t sent)
{
	struct conn_ext *x = c->ext;
	unsigned i = 0;

	while (i < win->n && sent >= win->iov[i].iov_len) {
		sent -= win->iov[i].iov_len;
		i++;
		if (i < win->n) {
			x->pos = win->pos[i];
			x->seq++;
		}
	}
	if (i == win->n)
		return advance(w, c);
	if (sent > 0) {
		struct partial *p = win->is_private[i] ? partial_private(w, win->pos[i], win->iov[i].iov_base,
									 (uint32_t)win->iov[i].iov_len)
						       : partial_hold(w, win->pos[i]);

		if (p == NULL) {
			conn_drop(w, c, true, 1013);
			return BEHIND_GONE;
		}
		x->off = (uint32_t)sent;
		partial_enter(w, c, p);
		enforce_memory(w);
		if (c->state != CONN_OPEN)
			return BEHIND_GONE;
	}
	return BEHIND_BLOCKED;
}

enum behind_result behind_run(struct worker *w, struct conn *c)
{
	static struct window win; /* one thread; too large for the stack's taste */
	struct conn_ext *x = c->ext;
	struct msghdr msg = {.msg_iov = win.iov};
	uint64_t frames = 0;
	ssize_t n;

	switch (fill_window(w, &win, x->pos)) {
	case FILL_LAPPED:
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	case FILL_LARGE:
		return begin_large(w, c);
	case FILL_OK:
		break;
	}
	if (win.n == 0) {
		/* `done` is not beyond its position yet: nothing it lacks. */
		go_live(w, c);
		return BEHIND_CAUGHT_UP;
	}
	msg.msg_iovlen = win.n;
	n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n == -1) {
		if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
			return BEHIND_BLOCKED;
		conn_drop(w, c, false, 1006);
		return BEHIND_GONE;
	}
	x->took = (uint32_t)w->now_ms;
	for (size_t left = (size_t)n; frames < win.n && left >= win.iov[frames].iov_len; frames++)
		left -= win.iov[frames].iov_len;
	count_sent(w, c, frames, (uint64_t)n);
	return book(w, c, &win, (size_t)n);
}

void behind_sweep(struct worker *w)
{
	uint64_t reclaim = ring_reclaim(&w->ring);
	uint32_t timeout = w->config->limits.slow_timeout;
	uint32_t next;

	for (uint32_t i = w->behind.first; i != CONN_NONE; i = next) {
		struct conn *c = conn_at(&w->conns, i);
		struct conn_ext *x = c->ext;
		bool is_passed = x->pos < reclaim && !x->is_skipping;
		bool is_stalled = timeout != 0 && (uint32_t)w->now_ms - x->took >= timeout && !x->is_skipping;

		next = x->behind_next;
		if (is_passed || is_stalled)
			(void)apply_policy(w, c);
	}
}
