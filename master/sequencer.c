#include "master/sequencer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/room.h"
#include "common/utf8.h"
#include "common/wsframe.h"

int seq_init(struct sequencer *s, const struct ring *ring, uint64_t origin, uint64_t hash_key,
	     struct counters *count)
{
	*s = (struct sequencer){
		.ring = *ring,
		.count = count,
		.origin = origin,
		.hash_key = hash_key,
		.is_local = true,
		.gate = ring->head,
		.reserve = u64_min(SEQ_RESERVE, ring->size / 16),
		.envelope.seed = hash_key,
	};
	return interest_init(&s->interest);
}

void seq_free(struct sequencer *s)
{
	interest_free(&s->interest);
	buf_free(&s->waiting);
	buf_free(&s->targets);
	buf_free(&s->order);
	envelope_free(&s->envelope);
}

/* ---- readers */

static int free_id(const struct sequencer *s)
{
	for (int i = 0; i < (int)SLOT_MAX; i++) {
		if (s->reader[i].slot == NULL && !interest_is_dead(&s->interest, (uint8_t)i))
			return i;
	}
	return SEQ_NOBODY;
}

int seq_reader_add(struct sequencer *s, struct slot *slot, uint16_t index, uint32_t incarnation, int wake_fd)
{
	int id = free_id(s);

	if (id == SEQ_NOBODY)
		return id;
	s->reader[id] = (struct seq_reader){
		.slot = slot,
		.wake_fd = wake_fd,
		.index = index,
		.incarnation = incarnation,
		.cursor = s->ring.head,
		.skip_to = s->ring.head,
		.control_pos = slot->control.head,
	};
	s->live[s->n_live++] = (uint8_t)id;
	return id;
}

static void list_remove(uint8_t *list, unsigned *n, uint8_t id)
{
	for (unsigned i = 0; i < *n; i++) {
		if (list[i] == id) {
			list[i] = list[--*n];
			return;
		}
	}
}

void seq_reader_remove(struct sequencer *s, uint8_t id)
{
	list_remove(s->live, &s->n_live, id);
	list_remove(s->marked, &s->n_marked, id);
	s->reader[id] = (struct seq_reader){.slot = NULL};
	interest_reader_died(&s->interest, id);
}

/* ---- gates */

/* G2. False: the worker wrote nonsense; the old value stands. */
static bool read_cursor(struct sequencer *s, struct seq_reader *r)
{
	uint64_t cursor = slot_cursor(r->slot);

	if (unlikely(cursor < r->cursor || cursor > s->ring.head)) {
		r->is_broken = true;
		return false;
	}
	r->cursor = cursor;
	return true;
}

/* Has it handled all that concerned it? What it pushed before it moved the cursor was visible when the cursor
 * was. */
static bool is_caught_up(struct sequencer *s, struct seq_reader *r)
{
	return read_cursor(s, r) && r->cursor >= r->concern_end &&
	       ring_head(&r->slot->control) == r->control_pos;
}

static void store_skip(struct seq_reader *r, uint64_t to)
{
	if (to > r->skip_to) {
		r->skip_to = to;
		slot_set_skip_to(r->slot, to); /* K1, pairs with K2 */
	}
}

/* Let skip_to follow as far as it may. */
static void move_skip(struct sequencer *s, struct seq_reader *r)
{
	if (r->first != 0 && is_caught_up(s, r))
		r->first = 0;
	store_skip(r, r->first == 0 ? s->ring.head : r->first);
}

static uint64_t gate_of(const struct seq_reader *r)
{
	return u64_max(r->cursor, r->skip_to);
}

uint64_t seq_refresh(struct sequencer *s)
{
	uint64_t gate = s->ring.head;

	for (unsigned i = 0; i < s->n_live; i++) {
		struct seq_reader *r = &s->reader[s->live[i]];

		move_skip(s, r);
		gate = u64_min(gate, gate_of(r));
	}
	s->gate = gate;
	return gate;
}

int seq_blame(const struct sequencer *s)
{
	int slowest = SEQ_NOBODY;
	bool somebody_waits = false;

	if (!s->is_full)
		return SEQ_NOBODY;
	for (unsigned i = 0; i < s->n_live; i++) {
		const struct seq_reader *r = &s->reader[s->live[i]];

		if (gate_of(r) < s->ring.head) {
			if (slowest != SEQ_NOBODY)
				return SEQ_NOBODY;
			slowest = s->live[i];
		} else if (r->concern_end + s->ring.size > s->ring.head) {
			somebody_waits = true;
		}
	}
	return somebody_waits ? slowest : SEQ_NOBODY;
}

/* Space for `need` bytes that leaves `spare` free? The cursors are read only if the last known gate is too
 * small. */
static bool has_space(struct sequencer *s, uint64_t need, uint64_t spare)
{
	return ring_space(&s->ring, s->gate) >= need + spare ||
	       ring_space(&s->ring, seq_refresh(s)) >= need + spare;
}

/* ---- marks and wake-ups */

static void mark(struct sequencer *s, uint8_t id, uint64_t pos, uint64_t end, bool may_catch_up)
{
	struct seq_reader *r = &s->reader[id];

	if (r->slot == NULL)
		return; /* died: the sweep will take it out of the lists */
	if (!r->is_marked) {
		r->is_marked = true;
		s->marked[s->n_marked++] = id;
		if (r->first == 0 || (may_catch_up && is_caught_up(s, r)))
			r->first = pos;
	} else if (r->first == 0) {
		r->first = pos; /* a refresh in mid-batch found it caught up */
	}
	r->concern_end = end;
}

static void mark_entry(struct sequencer *s, const struct interest_entry *e, uint64_t pos, uint64_t end)
{
	const uint8_t *list = interest_readers(e);

	for (unsigned i = 0; i < e->n_readers; i++)
		mark(s, list[i], pos, end, true);
}

static void wake(struct sequencer *s, struct seq_reader *r)
{
	uint64_t one = 1;

	if (!slot_take_sleeping(r->slot)) /* S2, pairs with S1 */
		return;
	count_add(&s->count->wakeups, 1);
	if (write(r->wake_fd, &one, sizeof(one)) == -1 && errno != EAGAIN)
		log_event(LOG_ERROR, "wake", "slot=%u errno=%d msg=\"cannot wake a worker\"", r->index,
			  errno);
}

void seq_flush(struct sequencer *s)
{
	uint64_t quarter = s->ring.size / 4;

	if (s->batch_records == 0)
		return;
	slot_fence(); /* S2, pairs with S1 */
	for (unsigned i = 0; i < s->n_live; i++) {
		struct seq_reader *r = &s->reader[s->live[i]];

		if (r->is_marked)
			store_skip(r, r->first); /* its cursor was looked at when it was marked */
		else
			move_skip(s, r);
		if (r->is_marked || s->ring.head - gate_of(r) > quarter)
			wake(s, r);
		r->is_marked = false;
	}
	s->n_marked = 0;
	s->batch_records = 0;
	s->batch_bytes = 0;
}

/* A record was committed; the marks are set. */
static void batch_grew(struct sequencer *s, uint64_t bytes)
{
	count_add(&s->count->ring_records, 1);
	s->batch_records++;
	s->batch_bytes += bytes;
	if (s->batch_records >= SEQ_BATCH_RECORDS || s->batch_bytes >= SEQ_BATCH_BYTES)
		seq_flush(s);
}

/* ---- publications */

uint64_t seq_epoch(const struct sequencer *s, const struct interest_entry *e)
{
	uint64_t x = s->origin ^ (e->created + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);

	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	return x ^ x >> 32;
}

static enum count_dropped route_drop(enum json_route r)
{
	switch (r) {
	case JSON_ROUTE_BAD_UTF8:
		return COUNT_DROPPED_bad_utf8;
	case JSON_ROUTE_BAD_JSON:
		return COUNT_DROPPED_bad_json;
	case JSON_ROUTE_NOT_OBJECT:
		return COUNT_DROPPED_not_object;
	case JSON_ROUTE_OK:
	case JSON_ROUTE_NONE:
		break;
	}
	return COUNT_DROPPED_no_route;
}

size_t seq_route(struct sequencer *s, const struct cfg_namespace *ns, struct slice payload, char *dst)
{
	enum json_route r;
	size_t len = 0;

	if (ns->route_key == NULL) {
		seq_count_drop(s, ns, COUNT_DROPPED_no_route);
		return 0;
	}
	r = json_route_value(payload, ns->route_key, dst, CFG_ROOM_MAX, &len);
	if (r != JSON_ROUTE_OK || !room_is_valid((struct slice){dst, len})) {
		seq_count_drop(s, ns, route_drop(r));
		return 0;
	}
	return len;
}

/* WS_TEXT or WS_BINARY; 0: to be dropped. */
static uint8_t choose_opcode(const struct seq_message *m)
{
	bool is_text;

	if (m->opcode == WS_BINARY || (m->opcode == WS_TEXT && m->is_trusted))
		return m->opcode;
	if (m->opcode == 0 && m->ns->opcode == CFG_OPCODE_BINARY)
		return WS_BINARY;
	is_text = utf8_is_valid(m->payload.p, m->payload.len);
	if (is_text)
		return WS_TEXT;
	return m->opcode == 0 && m->ns->opcode == CFG_OPCODE_AUTO ? WS_BINARY : 0;
}

/* What of a message goes on the ring, and where. */
struct verdict {
	struct slice room, targets, payload;
	uint8_t opcode;
};

static void commit(struct sequencer *s, struct interest_entry *e, const struct seq_message *m,
		   const struct verdict *v)
{
	struct rec h = {
		.type = REC_PUBLICATION,
		.opcode = v->opcode,
		.ns = e->ns,
		.flags = (uint16_t)((v->targets.len > 0 ? REC_TARGETED : 0) |
				    (m->is_tracked ? REC_TRACKED : 0)),
		.hash = e->hash,
		.seq = e->seq + 1,
		.time_ns = m->time_ns,
		.origin = m->origin,
		.id = m->id,
		.slot = m->slot,
		.incarnation = m->incarnation,
		.arg = {m->tag, m->count},
	};
	/* A record without payload still has a frame: its pointer must not be NULL. */
	struct slice payload = {v->payload.p == NULL ? "" : v->payload.p, v->payload.len};

	e->last = rec_commit_targeted(&s->ring, s->gate, &h, interest_room(e), v->targets, payload, e->last);
	e->seq = h.seq;
	mark_entry(s, e, e->last, s->ring.head);
	batch_grew(s, h.len);
}

static void set_full(struct sequencer *s, uint64_t need)
{
	s->full_need = need;
	if (s->is_full)
		return;
	s->is_full = true;
	s->n_full++;
	count_add(&s->count->ring_full, 1);
	seq_flush(s); /* whoever could make space must be awake */
}

static struct interest_entry *if_wanted(struct interest_entry *e)
{
	return e == NULL || e->n_readers == 0 ? NULL : e;
}

/* The channel, if the record is to be committed at all. With Redis only for those who listen now; without it
 * for the history, too. *is_lost: there is no memory for it. */
static struct interest_entry *entry_of(struct sequencer *s, uint16_t ns, struct slice room, bool *is_lost)
{
	uint64_t hash = seq_hash(s, ns, room);
	struct interest_entry *e;

	*is_lost = false;
	if (s->is_local) {
		e = interest_get(&s->interest, hash, ns, room);
		*is_lost = e == NULL;
		return e;
	}
	return if_wanted(interest_find(&s->interest, hash, ns, room));
}

static enum seq_result dropped(struct sequencer *s, const struct seq_message *m, struct seq_outcome *out,
			       enum rec_answer why, enum count_dropped reason)
{
	out->why = why;
	seq_count_drop(s, m->ns, reason);
	return SEQ_DROPPED;
}

/* Space for such a record? If not, s is full now. */
static bool has_room_for(struct sequencer *s, size_t targets_len, size_t payload_len)
{
	uint64_t need = rec_size_targeted(CFG_ROOM_MAX, targets_len, payload_len);

	if (s->waiting.len == 0 && has_space(s, need, s->reserve))
		return true;
	set_full(s, need);
	return false;
}

static enum seq_result publish_to(struct sequencer *s, const struct seq_message *m, struct interest_entry *e,
				  const struct verdict *v, struct seq_outcome *out)
{
	commit(s, e, m, v);
	out->seq = e->seq;
	out->epoch = seq_epoch(s, e);
	out->entry = e;
	return SEQ_DONE;
}

/* What a newcomer of the channel will be given: also while nobody here listens. */
static void retain(struct sequencer *s, const struct cfg_namespace *ns, const struct verdict *v)
{
	if (ns->retain == CFG_RETAIN_LAST && s->retained != NULL)
		retained_keep(s->retained, seq_hash(s, ns->id, v->room), ns->id, v->room, v->opcode,
			      v->payload);
}

static enum seq_result publish_plain(struct sequencer *s, const struct seq_message *m,
				     struct seq_outcome *out)
{
	struct verdict v = {.room = m->room, .payload = m->payload};
	char route[CFG_ROOM_MAX];
	struct interest_entry *e;
	bool is_lost = false;

	if (v.room.len == 0 && m->ns->room != CFG_ROOM_NONE) {
		v.room = (struct slice){route, seq_route(s, m->ns, m->payload, route)};
		if (v.room.len == 0)
			return SEQ_DROPPED;
	}
	e = m->entry != NULL ? if_wanted(m->entry) : entry_of(s, m->ns->id, v.room, &is_lost);
	if (is_lost)
		return dropped(s, m, out, REC_OVERLOADED, COUNT_DROPPED_shed);
	if (e == NULL && m->ns->retain != CFG_RETAIN_LAST)
		return SEQ_DONE;
	v.opcode = choose_opcode(m);
	if (v.opcode == 0)
		return dropped(s, m, out, REC_NO_ROUTE, COUNT_DROPPED_bad_utf8);
	retain(s, m->ns, &v);
	if (e == NULL)
		return SEQ_DONE;
	return publish_to(s, m, e, &v, out);
}

static enum seq_result publish_json(struct sequencer *s, const struct seq_message *m, struct seq_outcome *out)
{
	const struct envelope *env = m->envelope;
	struct verdict v = {.opcode = WS_TEXT};
	struct interest_entry *e;
	bool is_lost;

	if (env == NULL) {
		env = &s->envelope;
		out->why = seq_read(s, m->ns, m->payload, &s->envelope);
		if (out->why == REC_OVERLOADED)
			return dropped(s, m, out, REC_OVERLOADED, COUNT_DROPPED_shed);
		if (out->why != REC_SENT)
			return SEQ_DROPPED;
	}
	out->why = seq_judge(s, m->ns, m->room, env, &v.room);
	if (out->why == REC_SENT || out->why == REC_NO_TARGET)
		seq_count_skipped(s, m->ns, m->is_trusted ? 0 : env->skipped);
	if (out->why != REC_SENT)
		return SEQ_DROPPED;
	e = entry_of(s, m->ns->id, v.room, &is_lost);
	if (is_lost || (env->is_targeted && e != NULL && seq_targets(s, m->ns->id, env) == -1))
		return dropped(s, m, out, REC_OVERLOADED, COUNT_DROPPED_shed);
	v.payload = env->payload;
	if (!env->is_targeted)
		retain(s, m->ns, &v); /* there was space for it: what follows does not make it wait */
	if (e == NULL)
		return SEQ_DONE;
	if (env->is_targeted)
		v.targets = (struct slice){s->targets.p, s->targets.len};
	if (v.targets.len + v.payload.len > s->ring.size / 4)
		return dropped(s, m, out, REC_TOO_LARGE, COUNT_DROPPED_too_large);
	if (!has_room_for(s, v.targets.len, v.payload.len))
		return SEQ_FULL;
	return publish_to(s, m, e, &v, out);
}

enum seq_result seq_publish(struct sequencer *s, const struct seq_message *m, struct seq_outcome *out)
{
	*out = (struct seq_outcome){.why = REC_NO_ROUTE};
	if (m->payload.len > m->max_size || m->payload.len > s->ring.size / 4)
		return dropped(s, m, out, REC_TOO_LARGE, COUNT_DROPPED_too_large);
	/* Space first: a message that waits is offered again every millisecond. */
	if (!has_room_for(s, 0, m->payload.len))
		return SEQ_FULL;
	return m->ns->envelope == CFG_ENVELOPE_JSON ? publish_json(s, m, out) : publish_plain(s, m, out);
}

/* ---- control records */

struct waiting_control {
	struct rec h;
	bool is_all;
	uint8_t reader;
	uint32_t incarnation;
	uint16_t room_len;
	bool has_payload;
	size_t payload_len;
};

static void commit_control(struct sequencer *s, const struct waiting_control *w, struct slice room,
			   struct slice payload)
{
	struct rec h = w->h;
	uint64_t pos;

	if (!w->is_all &&
	    (s->reader[w->reader].slot == NULL || s->reader[w->reader].incarnation != w->incarnation))
		return; /* it died while the record waited */
	h.time_ns = clock_mono_ns();
	h.slot = w->is_all ? REC_ALL : s->reader[w->reader].index;
	h.incarnation = w->incarnation;
	pos = rec_commit(&s->ring, s->gate, &h, room, w->has_payload ? payload : (struct slice){0}, 0);
	if (!w->is_all)
		mark(s, w->reader, pos, s->ring.head, h.type != REC_SUBSCRIBED);
	for (unsigned i = 0; w->is_all && i < s->n_live; i++)
		mark(s, s->live[i], pos, s->ring.head, true);
	batch_grew(s, h.len);
}

static void put_control(struct sequencer *s, const struct waiting_control *w, struct slice room,
			struct slice payload)
{
	if (s->waiting.len == 0 && has_space(s, rec_size(room.len, payload.len), 0)) {
		commit_control(s, w, room, payload);
		return;
	}
	if (buf_reserve(&s->waiting, sizeof(*w) + room.len + payload.len) == -1) {
		log_event(LOG_ERROR, "no_memory", "msg=\"a control record was lost\"");
		return;
	}
	memcpy(s->waiting.p + s->waiting.len, w, sizeof(*w));
	if (room.len > 0)
		memcpy(s->waiting.p + s->waiting.len + sizeof(*w), room.p, room.len);
	if (payload.len > 0)
		memcpy(s->waiting.p + s->waiting.len + sizeof(*w) + room.len, payload.p, payload.len);
	s->waiting.len += sizeof(*w) + room.len + payload.len;
	set_full(s, s->reserve);
}

void seq_control_payload(struct sequencer *s, uint8_t reader, const struct rec *h, struct slice room,
			 struct slice payload)
{
	struct waiting_control w = {.h = *h,
				    .reader = reader,
				    .incarnation = s->reader[reader].incarnation,
				    .room_len = (uint16_t)room.len,
				    .has_payload = payload.p != NULL,
				    .payload_len = payload.len};

	if (s->reader[reader].slot != NULL)
		put_control(s, &w, room, payload);
}

void seq_control(struct sequencer *s, uint8_t reader, const struct rec *h, struct slice room)
{
	seq_control_payload(s, reader, h, room, (struct slice){0});
}

void seq_control_all_payload(struct sequencer *s, const struct rec *h, struct slice room,
			     struct slice payload)
{
	struct waiting_control w = {.h = *h,
				    .is_all = true,
				    .room_len = (uint16_t)room.len,
				    .has_payload = payload.p != NULL,
				    .payload_len = payload.len};

	put_control(s, &w, room, payload);
}

void seq_control_all(struct sequencer *s, const struct rec *h)
{
	seq_control_all_payload(s, h, (struct slice){0}, (struct slice){0});
}

static void commit_waiting(struct sequencer *s)
{
	size_t used = 0;

	while (used < s->waiting.len) {
		struct waiting_control w;

		memcpy(&w, s->waiting.p + used, sizeof(w));
		if (!has_space(s, rec_size(w.room_len, w.payload_len), 0))
			break;
		used += sizeof(w);
		commit_control(s, &w, (struct slice){s->waiting.p + used, w.room_len},
			       (struct slice){s->waiting.p + used + w.room_len, w.payload_len});
		used += w.room_len + w.payload_len;
	}
	if (used > 0)
		buf_shift(&s->waiting, used);
	if (s->waiting.len == 0)
		buf_free(&s->waiting);
}

bool seq_poll(struct sequencer *s)
{
	if (!s->is_full)
		return false;
	if (s->waiting.len > 0)
		commit_waiting(s);
	seq_flush(s);
	if (s->waiting.len > 0 || !has_space(s, s->full_need, s->reserve)) {
		/* A sleeper may hold half-sent frames: awake, it copies them and lets go. */
		slot_fence(); /* S2, pairs with S1 */
		for (unsigned i = 0; i < s->n_live; i++) {
			struct seq_reader *r = &s->reader[s->live[i]];

			if (s->ring.head - gate_of(r) > s->ring.size / 4)
				wake(s, r);
		}
		return false;
	}
	s->is_full = false;
	return true;
}
