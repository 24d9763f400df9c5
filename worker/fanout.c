#include "worker/fanout.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/input.h"
#include "worker/matched.h"
#include "worker/worker.h"

#define BEAT_EVERY 64 /* sends between heartbeats */
#define RUN        64 /* descriptors read ahead of their sends */

int fanout_init(struct worker *w, uint64_t start)
{
	struct fanout *f = &w->fanout;

	*f = (struct fanout){.done = start, .cursor = start};
	f->records = malloc(FANOUT_RECORDS * sizeof(*f->records));
	f->channels = malloc(FANOUT_RECORDS * sizeof(*f->channels));
	f->own = malloc(FANOUT_RECORDS * sizeof(*f->own));
	f->gather = malloc(FANOUT_GATHER);
	if (f->records == NULL || f->channels == NULL || f->own == NULL || f->gather == NULL)
		return -1;
	return fanout_reserve(w, 0);
}

int fanout_reserve(struct worker *w, uint32_t n)
{
	struct fanout *f = &w->fanout;
	uint32_t cap = FANOUT_DIRECT + n + n / 2;
	struct fanout_direct *direct;

	if (f->direct_cap >= FANOUT_DIRECT + n)
		return 0;
	direct = realloc(f->direct, cap * sizeof(*direct));
	if (direct == NULL)
		return -1;
	f->direct = direct;
	f->direct_cap = cap;
	return 0;
}

void fanout_free(struct fanout *f)
{
	free(f->records);
	free(f->channels);
	free(f->own);
	free(f->direct);
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

/* The frames that one send carries, in order: records of one channel, or all that a marked connection gets.
 */
struct group {
	const struct fanout_record *rec[FANOUT_RECORDS];
	uint32_t n;
	const uint8_t *bytes;
	size_t len;
	bool is_tracked; /* one of them is */
};

/* `sent` bytes of the group went out: in which record does it stop, how far in? */
static uint32_t locate(const struct group *g, size_t sent, uint32_t *off)
{
	uint32_t i = 0;

	while (i < g->n && sent >= g->rec[i]->frame_len) {
		sent -= g->rec[i]->frame_len;
		i++;
	}
	*off = (uint32_t)sent;
	return i;
}

/* locate(), for a connection: what it has got whole is delivered. */
static uint32_t took(struct worker *w, const struct conn *c, const struct group *g, size_t sent,
		     uint32_t *off)
{
	uint32_t complete = locate(g, sent, off);

	for (uint32_t i = 0; g->is_tracked && i < complete; i++)
		delivered_to(w, c, g->rec[i]->pos);
	return complete;
}

/* What a send returned that was not everything: how many bytes went out? False: the connection is gone. */
static bool how_far(struct worker *w, struct conn *c, ssize_t sent, size_t *bytes)
{
	if (sent == -1 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
		conn_drop(w, c, false, 1006);
		return false;
	}
	*bytes = sent == -1 ? 0 : (size_t)sent;
	return true;
}

/* The send was short, refused, or the member had something else to send first. Returns how many frames are
 * complete. */
static uint32_t send_stopped(struct worker *w, struct conn *c, const struct group *g, ssize_t sent)
{
	struct behind_start at = {0};
	uint32_t complete;
	size_t bytes;

	if (!how_far(w, c, sent, &bytes))
		return 0;
	complete = took(w, c, g, bytes, &at.off);
	at.pos = g->rec[complete]->pos;
	at.seq = g->rec[complete]->seq;
	behind_begin(w, c, &at);
	return complete;
}

/* What a group has come to. */
struct sent {
	uint64_t deliveries, bytes, sends;
};

/* The descriptors of the members from `place` on that can simply be sent to: up to one that can't, at most
 * RUN. They are read in one go: a send leaves nothing of ours in the caches nearest to the processor, so
 * between two of them each of these lines would be waited for alone. */
static uint32_t gather_run(const struct worker *w, const struct channel *ch, const uint32_t *m,
			   uint32_t place, int fd[RUN])
{
	uint32_t n = (uint32_t)u64_min(ch->n_live - place, RUN);

	for (uint32_t i = 0; i < n; i++) {
		const struct conn *c = conn_at(&w->conns, m[place + i]);

		fd[i] = c->fd;
		if (unlikely((c->flags & (CONN_BLOCKED | CONN_MATCHED)) != 0))
			return i;
	}
	return n;
}

/* Returns how many took everything; if these are fewer than n, *last is what the next one's send returned. */
static uint32_t send_run(const struct group *g, const int fd[RUN], uint32_t n, ssize_t *last)
{
	const uint8_t *bytes = g->bytes;
	const size_t len = g->len;
	uint32_t i = 0;

	for (; i < n; i++) {
		*last = send(fd[i], bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (unlikely(*last != (ssize_t)len))
			break;
	}
	return i;
}

/* Many channels with one member each are a long send, too. */
static void beat(struct worker *w, uint32_t sends)
{
	w->fanout.unbeaten += sends;
	if (w->fanout.unbeaten >= BEAT_EVERY) {
		w->fanout.unbeaten = 0;
		slot_beat(&w->slot);
	}
}

/* One group to every live member; returns how many had their turn before because they are marked. A member
 * that stops being live swaps places with the last live one, which then has its turn there. Nothing but the
 * handling of such a one changes a member's state meanwhile. */
static uint32_t send_members(struct worker *w, uint32_t channel, const struct group *g, struct sent *out)
{
	const struct channel *ch = channel_at(&w->channels, channel);
	const uint32_t *m = channel_members(channel_at(&w->channels, channel));
	uint32_t place = 0, passed = 0;
	int fd[RUN];

	while (place < ch->n_live) {
		uint32_t n = gather_run(w, ch, m, place, fd), whole;
		ssize_t last = 0;
		struct conn *c;

		whole = send_run(g, fd, n, &last);
		place += whole;
		out->deliveries += (uint64_t)whole * g->n;
		out->bytes += whole * g->len;
		out->sends += whole;
		beat(w, whole);
		if (whole == RUN || place == ch->n_live)
			continue;
		c = conn_at(&w->conns, m[place]);
		if (c->flags & CONN_MATCHED) {
			passed++;
			place++;
			continue;
		}
		if (whole < n) {
			out->sends++;
			beat(w, 1);
		} else {
			last = 0; /* it has something else to send first */
		}
		out->bytes += last > 0 ? (uint64_t)last : 0;
		out->deliveries += send_stopped(w, c, g, last);
	}
	return passed;
}

static uint32_t send_group(struct worker *w, uint32_t channel, const struct group *g)
{
	struct counters_ns *n =
		&w->count->ns[w->config->namespaces[channel_at(&w->channels, channel)->ns].id];
	struct sent sent = {0};
	uint32_t passed = send_members(w, channel, g, &sent);

	count_add(&w->count->sends, sent.sends);
	count_add(&n->deliveries, sent.deliveries);
	count_add(&n->bytes_out, sent.bytes);
	return passed;
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
		uint32_t members = channel_at(&w->channels, fc->channel)->n_live, passed;

		g.rec[0] = r;
		g.n = 1;
		g.is_tracked = r->is_tracked;
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
				g.is_tracked |= r->is_tracked;
				i = r->next;
			}
		}
		if (members == 0)
			return; /* gone meanwhile, or all behind: they follow the chain */
		passed = send_group(w, fc->channel, &g);
		for (uint32_t k = 0; g.is_tracked && k < g.n; k++)
			delivered_live(w, channel_at(&w->channels, fc->channel), g.rec[k]->pos);
		if (members > passed)
			count_delay(w, &g, members - passed);
	}
}

/* ---------------------------------------------------------------- sending to those that are marked */

/* What the batch has for `c`: its links, newest first, and its channel's records, oldest first, merged.
 * Places in the batch grow with positions. */
static void collect(const struct worker *w, const struct conn *c, struct group *g)
{
	static uint32_t direct[FANOUT_RECORDS];
	const struct fanout *f = &w->fanout;
	const struct channel *ch = channel_at(&w->channels, c->channel);
	uint32_t plain = ch->batch == CHANNEL_NONE ? FANOUT_END : f->channels[ch->batch].first, n = 0;

	for (uint32_t i = session_of(w, c)->direct; i != FANOUT_END; i = f->direct[i].before)
		direct[n++] = f->direct[i].record;
	g->n = 0;
	g->len = 0;
	g->is_tracked = false;
	while (n > 0 || plain != FANOUT_END) {
		const struct fanout_record *r;

		if (n > 0 && direct[n - 1] < plain) {
			r = &f->records[direct[--n]];
		} else {
			r = &f->records[plain];
			plain = r->next;
		}
		g->rec[g->n++] = r;
		g->is_tracked |= r->is_tracked;
		g->len += r->frame_len;
	}
}

static ssize_t send_records(const struct conn *c, const struct group *g)
{
	static struct iovec iov[FANOUT_RECORDS];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = g->n};

	_Static_assert(FANOUT_RECORDS <= IOV_MAX, "one call takes a batch");
	for (uint32_t i = 0; i < g->n; i++)
		iov[i] = (struct iovec){(void *)(uintptr_t)g->rec[i]->frame, g->rec[i]->frame_len};
	return sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* send_stopped(), for one of these: it may be behind in its channel's chain, in the namespace's, or in both.
 */
static uint32_t merged_stopped(struct worker *w, struct conn *c, const struct group *g, ssize_t sent)
{
	const struct channel *ch = channel_at(&w->channels, c->channel);
	struct behind_start at = {.seq = ch->n_plain + 1};
	uint32_t complete;
	size_t bytes;

	if (!how_far(w, c, sent, &bytes))
		return 0;
	complete = took(w, c, g, bytes, &at.off);
	at.is_direct = g->rec[complete]->is_targeted;
	for (uint32_t i = g->n; i-- > complete;) {
		const struct fanout_record *r = g->rec[i];

		if (!r->is_targeted) {
			at.seq = r->seq;
		} else {
			at.owed++;
			at.direct_last = u64_max(at.direct_last, r->pos);
		}
		if (r->channel == c->channel)
			at.pos = r->pos;
		else
			at.direct_pos = r->pos;
	}
	behind_begin(w, c, &at);
	return complete;
}

static void send_merged(struct worker *w, struct conn *c)
{
	static struct group g;
	struct counters_ns *n = &w->count->ns[w->config->namespaces[c->ns].id];
	ssize_t sent = 0;
	uint32_t off;

	collect(w, c, &g);
	if ((c->flags & CONN_BLOCKED) == 0) {
		sent = send_records(c, &g);
		count_add(&w->count->sends, 1);
	}
	if (sent > 0)
		count_add(&n->bytes_out, (uint64_t)sent);
	if (sent != (ssize_t)g.len)
		g.n = merged_stopped(w, c, &g, sent);
	else if (g.is_tracked)
		(void)took(w, c, &g, g.len, &off);
	count_add(&n->deliveries, g.n);
	if (g.n > 0)
		count_delay(w, &g, 1);
}

/* Each once: at its first link, which nothing is before. */
static void send_direct(struct worker *w)
{
	struct fanout *f = &w->fanout;

	for (uint32_t i = 0; i < f->n_direct; i++) {
		struct conn *c = conn_at(&w->conns, f->direct[i].conn);

		/* It may have been dropped since it was marked: another one's policy reset it. */
		if (f->direct[i].before == FANOUT_END && c->state == CONN_OPEN)
			send_merged(w, c);
		beat(w, 1);
	}
}

static void unmark(struct worker *w)
{
	struct fanout *f = &w->fanout;

	for (uint32_t i = 0; i < f->n_direct; i++)
		conn_at(&w->conns, f->direct[i].conn)->flags &= (uint16_t)~CONN_MATCHED;
	f->n_direct = 0;
}

static void log_batch(const struct worker *w)
{
	const struct fanout *f = &w->fanout;
	struct log_quoted q;

	for (uint32_t i = 0; i < f->n_records; i++) {
		const struct fanout_record *r = &f->records[i];

		if (r->members > 0)
			log_event(LOG_DEBUG, "sent",
				  "channel=%s total=%u msg=\"Sent to %u local connections\"",
				  channel_log_name(w, r->channel, &q), r->members, r->members);
	}
}

static void send_batch(struct worker *w)
{
	struct fanout *f = &w->fanout;

	if (log_on(LOG_DEBUG))
		log_batch(w);
	send_direct(w);
	for (uint32_t i = 0; i < f->n_channels; i++) {
		channel_at(&w->channels, f->channels[i].channel)->batch = CHANNEL_NONE;
		send_channel(w, &f->channels[i]);
	}
	unmark(w);
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

/* The batch's next record; it counts when n_records grows. */
static struct fanout_record *fill_record(struct worker *w, uint64_t pos, const struct rec *h,
					 uint32_t channel)
{
	struct fanout_record *r = &w->fanout.records[w->fanout.n_records];

	*r = (struct fanout_record){.pos = pos,
				    .seq = channel_at(&w->channels, channel)->n_plain,
				    .time_ns = h->time_ns,
				    .frame = ring_at(&w->ring, pos) + h->frame_off,
				    .frame_len = h->frame_len,
				    .next = FANOUT_END,
				    .channel = channel,
				    .is_targeted = (h->flags & REC_TARGETED) != 0,
				    .is_tracked = (h->flags & REC_TRACKED) != 0};
	return r;
}

/* For all members. */
static void take_plain(struct worker *w, uint64_t pos, const struct rec *h, uint32_t index)
{
	struct channel *ch = channel_at(&w->channels, index);
	struct fanout *f = &w->fanout;
	struct fanout_channel *fc;

	ch->n_plain++;
	ch->last_plain = pos;
	latest_set(w, index, h->opcode, rec_payload(h, ring_at(&w->ring, pos)));
	if (ch->n_idle > 0)
		behind_arrived(w, ch, pos);
	matched_members(w, ch);
	if (ch->n_live == 0)
		return;
	fc = batch_channel(f, ch, index);
	fill_record(w, pos, h, index)->members = ch->n_live;
	if (fc->first == FANOUT_END)
		fc->first = f->n_records;
	else
		f->records[fc->last].next = f->n_records;
	fc->last = f->n_records++;
	f->bytes += h->frame_len;
}

/* One of the users that a record is for. */
static void take_match(struct worker *w, struct user *u, void *arg)
{
	struct fanout_record *r = arg;
	struct fanout *f = &w->fanout;

	for (uint32_t i = 0; i < u->n; i++) {
		struct conn *c = conn_at(&w->conns, user_sockets(u)[i]);
		struct session *s = session_of(w, c);

		if (c->flags & CONN_BEHIND) {
			behind_owe(w, c, r->pos);
			continue;
		}
		if ((c->flags & CONN_MATCHED) == 0) {
			c->flags |= CONN_MATCHED;
			s->direct = FANOUT_END;
		}
		f->direct[f->n_direct] = (struct fanout_direct){c->index, f->n_records, s->direct};
		s->direct = f->n_direct++;
		r->members++;
	}
	matched_user(w, u);
}

static void take_targeted(struct worker *w, uint64_t pos, const struct rec *h, uint32_t index)
{
	struct fanout *f = &w->fanout;
	struct fanout_record *r = fill_record(w, pos, h, index);

	user_match(w, channel_at(&w->channels, index)->ns, rec_targets(h, ring_at(&w->ring, pos)), pos,
		   take_match, r);
	if (r->members == 0)
		return;
	f->n_records++;
	f->bytes += h->frame_len;
}

static void take_publication(struct worker *w, uint64_t pos, const struct rec *h)
{
	struct fanout *f = &w->fanout;
	uint32_t index = channel_find(w, h->hash, h->ns, rec_room(h, ring_at(&w->ring, pos)));

	if (h->slot == w->boot->slot && h->incarnation == w->boot->incarnation)
		f->own[f->n_own++] = (uint32_t)h->arg[0];
	matched_begin(h->arg[1] != 0);
	if (index != CHANNEL_NONE && channel_at(&w->channels, index)->state == CHANNEL_SUBSCRIBED) {
		channel_at(&w->channels, index)->last = pos;
		if (unlikely(h->flags & REC_TRACKED))
			delivered_begin(w, pos, (uint32_t)h->arg[1]);
		if (h->flags & REC_TARGETED)
			take_targeted(w, pos, h, index);
		else
			take_plain(w, pos, h, index);
	}
	matched_tell(w, h->arg[1]);
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

/* What the next records will ask of the channel table. */
static void look_ahead(const struct worker *w, uint64_t pos, uint64_t head)
{
	uint64_t hash[CHANNEL_AHEAD];
	unsigned n = 0;
	struct rec h;

	for (; n < CHANNEL_AHEAD && pos < head && rec_peek(&w->ring, pos, &h); pos += h.len)
		hash[n++] = h.hash;
	if (n > 1)
		channel_ahead(w, hash, n);
}

/* Read on from `pos`. Returns the position behind what was taken. A control record ends the batch, so that it
 * acts between what came before it and what comes after: *control is set. */
static uint64_t read_batch(struct worker *w, uint64_t pos, struct rec *h, bool *control)
{
	struct fanout *f = &w->fanout;
	uint64_t head = ring_head(&w->ring); /* C1, pairs with R4 */

	*control = false;
	for (uint32_t n = 0;
	     pos < head && n < FANOUT_RECORDS && f->bytes < FANOUT_BYTES && f->n_direct < FANOUT_DIRECT;
	     n++) {
		if (n % CHANNEL_AHEAD == 0)
			look_ahead(w, pos, head);
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
			control_handle(w, h, (struct slice){0}, rec_payload(h, ring_at(&w->ring, pos)));
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
	delivered_tell(w);
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
