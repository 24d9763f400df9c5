#include "worker/fanout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "worker/input.h"
#include "worker/worker.h"

#define BEAT_EVERY 64 /* sends between heartbeats */
#define PREFETCH   8  /* members ahead */

int fanout_init(struct worker *w, uint64_t start)
{
	struct fanout *f = &w->fanout;

	*f = (struct fanout){.done = start, .cursor = start};
	f->records = malloc(FANOUT_RECORDS * sizeof(*f->records));
	f->channels = malloc(FANOUT_RECORDS * sizeof(*f->channels));
	f->own = malloc(FANOUT_RECORDS * sizeof(*f->own));
	f->gather = malloc(FANOUT_GATHER);
	return f->records == NULL || f->channels == NULL || f->own == NULL || f->gather == NULL ? -1 : 0;
}

void fanout_free(struct fanout *f)
{
	free(f->records);
	free(f->channels);
	free(f->own);
	free(f->gather);
}

bool fanout_is_idle(const struct worker *w)
{
	uint64_t skip = slot_skip_to(&w->slot); /* K2 before C1: head >= skip */
	uint64_t head = ring_head(&w->ring);

	return u64_max(w->fanout.done, skip) == head;
}

void fanout_skip(struct worker *w)
{
	w->fanout.done = u64_max(w->fanout.done, slot_skip_to(&w->slot));
}

void fanout_publish_cursor(struct worker *w)
{
	struct fanout *f = &w->fanout;
	uint64_t head = ring_head(&w->ring);
	uint64_t cursor = u64_min(f->done, behind_hold(w, head - w->ring.size / 4));

	if (cursor > f->cursor) {
		f->cursor = cursor;
		slot_set_cursor(&w->slot, cursor); /* G1, pairs with G2 */
	}
}

/* ---------------------------------------------------------------- sending */

/* The frames that one send carries: records of one channel, in order. */
struct group {
	const struct fanout_record *rec[FANOUT_RECORDS];
	uint32_t n;
	const uint8_t *bytes;
	size_t len;
};

/* `sent` bytes of the group went out: in which record does it stop, how far in? */
static const struct fanout_record *locate(const struct group *g, size_t sent, uint32_t *off,
					  uint32_t *complete)
{
	uint32_t i = 0;

	while (i < g->n && sent >= g->rec[i]->frame_len) {
		sent -= g->rec[i]->frame_len;
		i++;
	}
	*off = (uint32_t)sent;
	*complete = i;
	return i < g->n ? g->rec[i] : NULL;
}

/* The send was short, refused, or the member had something else to send first. */
static uint32_t send_stopped(struct worker *w, struct conn *c, const struct group *g, ssize_t sent)
{
	const struct fanout_record *r;
	uint32_t off, complete;

	if (sent == -1) {
		if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
			conn_drop(w, c, false, 1006);
			return 0;
		}
		sent = 0;
	}
	r = locate(g, (size_t)sent, &off, &complete);
	behind_begin(w, c, r->pos, r->seq, off);
	return complete;
}

/* One group to every live member. Downwards, because a member that stops being live swaps places with the
 * last live one, which has had its turn. */
static void send_group(struct worker *w, uint32_t channel, const struct group *g)
{
	const uint32_t *m = channel_members(channel_at(&w->channels, channel));
	struct counters_ns *n =
		&w->count->ns[w->config->namespaces[channel_at(&w->channels, channel)->ns].id];
	uint64_t deliveries = 0, bytes = 0, sends = 0;

	for (uint32_t i = channel_at(&w->channels, channel)->n_live; i-- > 0;) {
		struct conn *c = conn_at(&w->conns, m[i]);
		ssize_t sent = 0;

		if (i >= PREFETCH)
			__builtin_prefetch(conn_at(&w->conns, m[i - PREFETCH]));
		if (likely((c->flags & CONN_BLOCKED) == 0)) {
			sent = send(c->fd, g->bytes, g->len, MSG_DONTWAIT | MSG_NOSIGNAL);
			sends++;
		}
		if (likely(sent == (ssize_t)g->len))
			deliveries += g->n;
		else
			deliveries += send_stopped(w, c, g, sent);
		if (sent > 0)
			bytes += (size_t)sent;
		if (sends % BEAT_EVERY == BEAT_EVERY - 1)
			slot_beat(&w->slot);
	}
	/* Many channels with one member each are a long send, too. */
	w->fanout.unbeaten += (uint32_t)sends;
	if (w->fanout.unbeaten >= BEAT_EVERY) {
		w->fanout.unbeaten = 0;
		slot_beat(&w->slot);
	}
	count_add(&w->count->sends, sends);
	count_add(&n->deliveries, deliveries);
	count_add(&n->bytes_out, bytes);
}

static void count_delay(struct worker *w, const struct group *g, uint32_t members)
{
	uint64_t now = clock_mono_ns();

	for (uint32_t i = 0; i < g->n; i++)
		count_latency(w->count, now > g->rec[i]->time_ns ? (now - g->rec[i]->time_ns) / 1000 : 0,
			      members);
}

/* All frames of one channel in this batch: single ones straight from the ring, several small ones gathered.
 */
static void send_channel(struct worker *w, const struct fanout_channel *fc)
{
	static struct group g; /* 8 KiB of pointers: not for the stack of every turn */
	struct fanout *f = &w->fanout;
	uint32_t i = fc->first;

	while (i != FANOUT_END) {
		const struct fanout_record *r = &f->records[i];
		uint32_t members = channel_at(&w->channels, fc->channel)->n_live;

		g.rec[0] = r;
		g.n = 1;
		g.bytes = r->frame;
		g.len = r->frame_len;
		i = r->next;
		if (i != FANOUT_END && g.len + f->records[i].frame_len <= FANOUT_GATHER) {
			memcpy(f->gather, r->frame, r->frame_len);
			g.bytes = f->gather;
			while (i != FANOUT_END && g.len + f->records[i].frame_len <= FANOUT_GATHER) {
				r = &f->records[i];
				memcpy(f->gather + g.len, r->frame, r->frame_len);
				g.len += r->frame_len;
				g.rec[g.n++] = r;
				i = r->next;
			}
		}
		if (members == 0)
			return; /* gone meanwhile, or all behind: they follow the chain */
		send_group(w, fc->channel, &g);
		count_delay(w, &g, members);
	}
}

static void send_batch(struct worker *w)
{
	struct fanout *f = &w->fanout;

	for (uint32_t i = 0; i < f->n_channels; i++) {
		channel_at(&w->channels, f->channels[i].channel)->batch = CHANNEL_NONE;
		send_channel(w, &f->channels[i]);
	}
	f->n_records = 0;
	f->n_channels = 0;
	f->bytes = 0;
}

/* ---------------------------------------------------------------- reading */

static struct fanout_channel *batch_channel(struct fanout *f, struct channel *ch, uint32_t index)
{
	if (ch->batch == CHANNEL_NONE) {
		ch->batch = f->n_channels;
		f->channels[f->n_channels++] =
			(struct fanout_channel){.channel = index, .first = FANOUT_END, .last = FANOUT_END};
	}
	return &f->channels[ch->batch];
}

static void take_publication(struct worker *w, uint64_t pos, const struct rec *h)
{
	struct fanout *f = &w->fanout;
	const uint8_t *at = ring_at(&w->ring, pos);
	uint32_t index = channel_find(w, h->hash, h->ns, rec_room(h, at));
	struct fanout_channel *fc;
	struct channel *ch;

	if (h->slot == w->boot->slot && h->incarnation == w->boot->incarnation)
		f->own[f->n_own++] = (uint32_t)h->arg[0];
	if (index == CHANNEL_NONE)
		return;
	ch = channel_at(&w->channels, index);
	if (ch->state != CHANNEL_SUBSCRIBED)
		return;
	ch->last = pos;
	ch->last_seq = h->seq;
	if (ch->n_live == 0)
		return;
	fc = batch_channel(f, ch, index);
	f->records[f->n_records] = (struct fanout_record){.pos = pos,
							  .seq = h->seq,
							  .time_ns = h->time_ns,
							  .frame = at + h->frame_off,
							  .frame_len = h->frame_len,
							  .next = FANOUT_END};
	if (fc->first == FANOUT_END)
		fc->first = f->n_records;
	else
		f->records[fc->last].next = f->n_records;
	fc->last = f->n_records++;
	f->bytes += h->frame_len;
}

/* Own publications that came back: after the batch is sent, since a Close may be answered now. */
static void own_seen(struct worker *w)
{
	struct fanout *f = &w->fanout;

	for (uint32_t i = 0; i < f->n_own; i++) {
		struct conn *c = conn_by_tag(w, f->own[i]);

		if (c != NULL && c->state == CONN_OPEN)
			input_own_seen(w, c);
	}
	f->n_own = 0;
}

static bool is_for_us(const struct worker *w, const struct rec *h)
{
	return h->slot == REC_ALL || (h->slot == w->boot->slot && h->incarnation == w->boot->incarnation);
}

/* Read on from `pos`. Returns the position behind what was taken. A control record ends the batch, so that it
 * acts between what came before it and what comes after: *control is set. */
static uint64_t read_batch(struct worker *w, uint64_t pos, struct rec *h, bool *control)
{
	struct fanout *f = &w->fanout;
	uint64_t head = ring_head(&w->ring); /* C1, pairs with R4 */

	*control = false;
	for (uint32_t n = 0; pos < head && n < FANOUT_RECORDS && f->bytes < FANOUT_BYTES; n++) {
		if (!rec_peek(&w->ring, pos, h)) {
			/* Reclaimed under our eyes: none of it concerned us, so skip_to is beyond it. */
			pos = slot_skip_to(&w->slot);
			head = ring_head(&w->ring);
			continue;
		}
		count_add(&w->count->records, 1);
		if (h->type == REC_PUBLICATION)
			take_publication(w, pos, h);
		else if (h->type == REC_ANSWER && is_for_us(w, h)) {
			/* Of no order with what clients get: an HTTP publisher shall not wait for the
			 * fan-out, nor cut the batch in pieces. */
			control_handle(w, h, (struct slice){0}, (struct slice){0});
		} else if (is_for_us(w, h)) {
			*control = true;
			return pos;
		}
		pos += h->len;
	}
	return pos;
}

bool fanout_turn(struct worker *w)
{
	struct fanout *f = &w->fanout;
	bool control;
	struct rec h;

	f->done = u64_max(f->done, slot_skip_to(&w->slot));
	f->done = read_batch(w, f->done, &h, &control);
	count_add(&w->count->batches, 1);
	send_batch(w);
	own_seen(w);
	if (control) {
		const uint8_t *at = ring_at(&w->ring, f->done);

		control_handle(w, &h, rec_room(&h, at), rec_payload(&h, at));
		f->done += h.len;
	}
	slot_beat(&w->slot);
	fanout_publish_cursor(w);
	return !fanout_is_idle(w);
}
