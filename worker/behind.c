#include "worker/behind.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "worker/partial.h"
#include "worker/worker.h"

#define TURN_FRAMES   64      /* of one client and loop turn */
#define TURN_BYTES    262144u /* the same; also the size of the scratch */
#define TURN_VISITS   256     /* records looked at */
#define TURN_TARGETS  1048576 /* bytes of targets blocks looked at; one block may go past it */
#define TARGETS_PIECE 8192u   /* of a block, copied at a time */

int behind_init(struct worker *w)
{
	w->behind = (struct behind){.first = CONN_NONE};
	w->behind.scratch = malloc(TURN_BYTES);
	w->behind.targets = malloc(TARGETS_PIECE);
	return w->behind.scratch == NULL || w->behind.targets == NULL ? -1 : 0;
}

void behind_free(struct behind *b)
{
	free(b->scratch);
	free(b->targets);
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

/* ---------------------------------------------------------------- places in the chains */

static struct channel *channel_of(const struct worker *w, const struct conn *c)
{
	return channel_at(&w->channels, c->channel);
}

/* Do targeted records come in another chain than the member's own? */
static bool has_two_chains(const struct worker *w, const struct conn *c)
{
	return ns_of(w, c)->room != CFG_ROOM_NONE;
}

/* The record that comes first. 0: it lacks nothing. */
static uint64_t next_pos(const struct conn_ext *x)
{
	if (x->pos == 0 || x->direct_pos == 0)
		return x->pos + x->direct_pos;
	return u64_min(x->pos, x->direct_pos);
}

/* Of a connection that is behind. */
static void set_places(struct worker *w, struct conn *c, uint64_t pos, uint64_t direct_pos)
{
	struct conn_ext *x = c->ext;

	if (x->pos == 0)
		channel_of(w, c)->n_idle--;
	if (pos == 0)
		channel_of(w, c)->n_idle++;
	x->pos = pos;
	x->direct_pos = direct_pos;
}

void behind_owe(struct worker *w, struct conn *c, uint64_t pos)
{
	struct conn_ext *x = c->ext;

	x->owed++;
	x->direct_last = pos;
	if (x->direct_pos == 0 && has_two_chains(w, c))
		x->direct_pos = pos;
}

void behind_arrived(struct worker *w, struct channel *ch, uint64_t pos)
{
	const uint32_t *m = channel_members(ch);

	/* Once for each that has caught up with the room meanwhile: then they are idle no more. */
	for (uint32_t i = ch->n_live; i < ch->n && ch->n_idle > 0; i++) {
		struct conn *c = conn_at(&w->conns, m[i]);

		if (c->ext->pos == 0)
			set_places(w, c, pos, c->ext->direct_pos);
	}
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
	if (x->pos == 0)
		channel_of(w, c)->n_idle++;
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
	if (x->pos == 0)
		channel_of(w, c)->n_idle--;
}

void behind_begin(struct worker *w, struct conn *c, const struct behind_start *at)
{
	struct conn_ext *x = conn_ext(c);
	struct partial *p = NULL;

	if (x != NULL) {
		x->pos = at->pos;
		x->direct_pos = at->direct_pos;
		x->direct_last = at->direct_last;
		x->seq = at->seq;
		x->owed = at->owed;
		x->off = at->off;
		x->is_direct = at->is_direct;
		x->took = (uint32_t)w->now_ms;
		x->is_skipping = false;
		if (at->off > 0)
			p = partial_hold(w, next_pos(x));
	}
	if (x == NULL || (at->off > 0 && p == NULL)) {
		conn_drop(w, c, true, 1013);
		return;
	}
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

/* Everything that there is for it is sent (or given up): live again. */
static void go_live(struct worker *w, struct conn *c)
{
	unlink_behind(w, c);
	channel_set_live(w, c, true);
}

/* slow = skip, at a frame boundary: go on at the room's newest record while that can still be read. What it
 * has not got before that is counted, and so are the targeted records that waited: of those few are of
 * interest later. */
static void skip_ahead(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	const struct channel *ch = channel_of(w, c);
	counter *skipped = &w->count->ns[ns_of(w, c)->id].dropped[COUNT_DROPPED_slow_skip];
	uint64_t lacks = ch->n_plain + 1 - x->seq;

	x->is_skipping = false;
	x->took = (uint32_t)w->now_ms;
	count_add(skipped, x->owed);
	x->owed = 0;
	if (lacks == 0 || ch->last_plain < ring_reclaim(&w->ring)) {
		count_add(skipped, lacks);
		set_places(w, c, 0, 0);
		go_live(w, c);
		return;
	}
	count_add(skipped, lacks - 1);
	x->seq = ch->n_plain;
	set_places(w, c, ch->last_plain, 0);
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
	skip_ahead(w, c);
	return true;
}

enum step_result { STEP_OK, STEP_LOST };

/* Behind the record at the first of *pos and *direct_pos: where next? LOST: it is reclaimed, or the chain is
 * torn (its head was forgotten), so what lies behind cannot be found by it. */
static enum step_result step_over(const struct worker *w, const struct conn *c, uint64_t *pos,
				  uint64_t *direct_pos)
{
	bool is_own = *direct_pos == 0 || (*pos != 0 && *pos < *direct_pos);
	uint64_t *at = is_own ? pos : direct_pos, next;
	uint32_t index = is_own ? c->channel : user_channel(w, c->ns);

	if (*at == channel_at(&w->channels, index)->last || (!is_own && *at >= c->ext->direct_last)) {
		*at = 0;
		return STEP_OK;
	}
	if (!rec_next(&w->ring, *at, &next) || next == 0)
		return STEP_LOST;
	*at = next;
	return STEP_OK;
}

/* A frame has gone out. */
static void count_got(struct conn_ext *x, bool is_targeted)
{
	if (!is_targeted)
		x->seq++;
	else if (x->owed > 0)
		x->owed--;
}

/* The frame under way is complete: where next? */
static enum behind_result advance(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	uint64_t pos = x->pos, direct_pos = x->direct_pos;

	count_got(x, x->is_direct);
	if (x->is_skipping) {
		skip_ahead(w, c);
		return BEHIND_CAUGHT_UP;
	}
	if (step_over(w, c, &pos, &direct_pos) == STEP_LOST)
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	set_places(w, c, pos, direct_pos);
	if (next_pos(x) != 0)
		return BEHIND_MORE;
	go_live(w, c);
	return BEHIND_CAUGHT_UP;
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
	delivered_to(w, c, p->pos);
	partial_leave(w, c);
	if ((c->flags & CONN_BEHIND) != 0 && advance(w, c) == BEHIND_GONE)
		return BEHIND_GONE;
	return BEHIND_CAUGHT_UP;
}

/* ---------------------------------------------------------------- catch-up */

/* Where a connection stands in its chains. */
struct places {
	uint64_t pos, direct_pos;
};

struct window {
	struct iovec iov[TURN_FRAMES];
	struct places before[TURN_FRAMES]; /* the record is the first of these */
	bool is_private[TURN_FRAMES];      /* the bytes are in the scratch, not in the ring */
	bool is_targeted[TURN_FRAMES];
	struct places end;      /* behind all that was looked at */
	bool is_lost;           /* ... and how to go on from there cannot be known */
	bool is_large_targeted; /* FILL_LARGE: the record is targeted */
	unsigned n, visits;
	size_t bytes, scratch_used, targets;
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

enum filter_result { FILTER_YES, FILTER_NO, FILTER_LAPPED };

/* Is `c` among the targets? Before the cursor the block is looked at piece by piece, each copied and proved
 * whole. */
static enum filter_result filter_targets(struct worker *w, const struct conn *c, uint64_t pos,
					 const struct rec *h)
{
	struct slice block = rec_targets(h, ring_at(&w->ring, pos));
	uint32_t off = (uint32_t)((const uint8_t *)block.p - ring_at(&w->ring, pos));
	size_t used;

	if (pos >= w->fanout.cursor)
		return user_is_target(w, c, block, NULL) ? FILTER_YES : FILTER_NO;
	for (size_t done = 0; done < block.len; done += used) {
		size_t n = u64_min(block.len - done, TARGETS_PIECE);

		if (!rec_copy(&w->ring, pos, off + (uint32_t)done, w->behind.targets, n))
			return FILTER_LAPPED;
		if (user_is_target(w, c, (struct slice){(char *)w->behind.targets, n}, &used))
			return FILTER_YES;
		if (used == 0)
			break;
	}
	return FILTER_NO;
}

/* Is the record at `pos` for `c`? */
static enum filter_result filter(struct worker *w, const struct conn *c, struct window *win, uint64_t pos,
				 const struct rec *h)
{
	/* What is for everybody in the namespace's own channel is not for those who are in a room. */
	if ((h->flags & REC_TARGETED) == 0)
		return pos == win->end.pos ? FILTER_YES : FILTER_NO;
	if (pos > c->ext->direct_last)
		return FILTER_NO;
	win->targets += h->targets_len;
	return filter_targets(w, c, pos, h);
}

enum fill_result { FILL_OK, FILL_LAPPED, FILL_LARGE };

/* Take the frame of the record at `pos` into the window. */
static enum fill_result take_frame(struct worker *w, struct window *win, uint64_t pos, const struct rec *h)
{
	bool is_private = pos < w->fanout.cursor, is_full = false;
	const uint8_t *frame =
		is_private ? copy_frame(w, win, pos, h, &is_full) : ring_at(&w->ring, pos) + h->frame_off;

	if (frame == NULL) {
		win->is_large_targeted = (h->flags & REC_TARGETED) != 0;
		return is_full ? FILL_LARGE : FILL_LAPPED;
	}
	win->iov[win->n] = (struct iovec){(void *)(uintptr_t)frame, h->frame_len};
	win->is_private[win->n] = is_private;
	win->is_targeted[win->n] = (h->flags & REC_TARGETED) != 0;
	win->before[win->n++] = win->end;
	win->bytes += h->frame_len;
	return FILL_OK;
}

static uint64_t first_of(const struct places *p)
{
	if (p->pos == 0 || p->direct_pos == 0)
		return p->pos + p->direct_pos;
	return u64_min(p->pos, p->direct_pos);
}

/* Follow the chains from where `c` stands; at most what one turn may look at and send. LAPPED, LARGE: nothing
 * could be taken; of what LARGE is about, win->end is before it. */
static enum fill_result fill_window(struct worker *w, const struct conn *c, struct window *win)
{
	win->end = (struct places){c->ext->pos, c->ext->direct_pos};
	win->is_lost = false;
	win->n = win->visits = 0;
	win->bytes = win->scratch_used = win->targets = 0;
	while (win->n < TURN_FRAMES && win->bytes < TURN_BYTES && win->visits < TURN_VISITS &&
	       win->targets < TURN_TARGETS) {
		uint64_t pos = first_of(&win->end);
		enum fill_result r = FILL_LAPPED;
		struct rec h;

		if (pos == 0)
			break;
		win->visits++;
		count_add(&w->count->catchup_reads, 1);
		if (rec_peek(&w->ring, pos, &h)) {
			switch (filter(w, c, win, pos, &h)) {
			case FILTER_YES:
				r = take_frame(w, win, pos, &h);
				break;
			case FILTER_NO:
				r = FILL_OK;
				break;
			case FILTER_LAPPED:
				break;
			}
		}
		if (r != FILL_OK)
			return win->n > 0 ? FILL_OK : r;
		if (step_over(w, c, &win->end.pos, &win->end.direct_pos) == STEP_LOST) {
			win->is_lost = true;
			break;
		}
	}
	return FILL_OK;
}

/* A frame before the cursor that is too large for the scratch: it gets its shared copy before its first byte
 * goes out. */
static enum behind_result begin_large(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	bool is_lapped;
	struct partial *p = partial_large(w, next_pos(x), &is_lapped);

	if (is_lapped)
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	if (p == NULL) {
		conn_drop(w, c, true, 1013);
		return BEHIND_GONE;
	}
	partial_enter(w, c, p);
	partial_enforce_memory(w);
	if (c->state != CONN_OPEN)
		return BEHIND_GONE;
	return behind_finish_frame(w, c);
}

/* All that was looked at is done with: go on from there. */
static enum behind_result go_on(struct worker *w, struct conn *c, const struct window *win)
{
	if (win->is_lost)
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	set_places(w, c, win->end.pos, win->end.direct_pos);
	if (next_pos(c->ext) != 0)
		return BEHIND_MORE;
	go_live(w, c);
	return BEHIND_CAUGHT_UP;
}

/* Where the send stopped: book what is complete, claim what is half-sent. */
static enum behind_result book(struct worker *w, struct conn *c, const struct window *win, size_t sent)
{
	struct conn_ext *x = c->ext;
	unsigned i = 0;

	while (i < win->n && sent >= win->iov[i].iov_len) {
		sent -= win->iov[i].iov_len;
		count_got(x, win->is_targeted[i]);
		delivered_to(w, c, first_of(&win->before[i]));
		i++;
	}
	if (i == win->n)
		return go_on(w, c, win);
	set_places(w, c, win->before[i].pos, win->before[i].direct_pos);
	if (sent > 0) {
		uint64_t pos = next_pos(x);
		struct partial *p = win->is_private[i] ? partial_private(w, pos, win->iov[i].iov_base,
									 (uint32_t)win->iov[i].iov_len)
						       : partial_hold(w, pos);

		if (p == NULL) {
			conn_drop(w, c, true, 1013);
			return BEHIND_GONE;
		}
		x->off = (uint32_t)sent;
		x->is_direct = win->is_targeted[i];
		partial_enter(w, c, p);
		partial_enforce_memory(w);
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

	switch (fill_window(w, c, &win)) {
	case FILL_LAPPED:
		return apply_policy(w, c) ? BEHIND_CAUGHT_UP : BEHIND_GONE;
	case FILL_LARGE:
		set_places(w, c, win.end.pos, win.end.direct_pos);
		x->is_direct = win.is_large_targeted;
		return begin_large(w, c);
	case FILL_OK:
		break;
	}
	if (win.n == 0)
		return go_on(w, c, &win); /* nothing of it is for this one */
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
		bool is_passed = next_pos(x) < reclaim && !x->is_skipping;
		bool is_stalled = timeout != 0 && (uint32_t)w->now_ms - x->took >= timeout && !x->is_skipping;

		next = x->behind_next;
		if (is_passed || is_stalled)
			(void)apply_policy(w, c);
	}
}
