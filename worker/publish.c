/* publish.c - up the uplinks: publications (data) and interest (control). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "shm/uplink.h"
#include "worker/input.h"
#include "worker/worker.h"

/* One record up; remembered, so that the master is woken before this worker sleeps. */
static bool push(struct worker *w, struct ring *r, const struct up_rec *h, struct slice room,
		 struct slice payload)
{
	if (!uplink_push(r, h, room, payload, true))
		return false;
	w->uplink_pushed = true;
	return true;
}

/* A message of several records: as many as fit now. The owner offers the same message again until it is
 * through; meanwhile no other message may get between its chunks. */
static enum publish_result push_chunks(struct worker *w, const struct up_rec *first, struct slice room,
				       struct slice payload)
{
	struct chunking *k = &w->chunking;

	if (!k->is_active) {
		if (!push(w, &w->slot.data, first, room, (struct slice){payload.p, UPLINK_CHUNK}))
			return PUBLISH_BUSY;
		*k = (struct chunking){.is_active = true, .owner = first->request, .done = UPLINK_CHUNK};
	}
	while (k->done < payload.len) {
		struct up_rec h = {.type = UP_CHUNK};
		size_t n = u64_min(payload.len - k->done, UPLINK_CHUNK);

		if (!push(w, &w->slot.data, &h, (struct slice){0}, (struct slice){payload.p + k->done, n}))
			return PUBLISH_BUSY;
		k->done += n;
		slot_beat(&w->slot);
	}
	k->is_active = false;
	return PUBLISH_OK;
}

enum publish_result publish_with(struct worker *w, const struct cfg_namespace *ns, struct slice room,
				 uint8_t opcode, struct slice payload, enum cfg_source source,
				 uint32_t request, const struct publish_extra *extra)
{
	struct up_rec h = {.type = UP_PUBLISH,
			   .opcode = opcode,
			   .ns = ns->id,
			   .total = (uint32_t)payload.len,
			   .request = request,
			   .source = (uint8_t)source,
			   .flags = extra->flags,
			   .throttle_key = extra->throttle_key,
			   .throttle_ms = extra->throttle_ms,
			   .throttle_value = extra->throttle_value};
	enum publish_result r;

	if (w->chunking.is_active && w->chunking.owner != request)
		r = PUBLISH_BUSY;
	else if (payload.len > UPLINK_CHUNK)
		r = push_chunks(w, &h, room, payload);
	else
		r = push(w, &w->slot.data, &h, room, payload) ? PUBLISH_OK : PUBLISH_BUSY;
	if (r == PUBLISH_BUSY && (extra->flags & UP_LOW) == 0)
		count_add(&w->count->uplink_full, 1);
	return r;
}

enum publish_result publish_message(struct worker *w, const struct cfg_namespace *ns, struct slice room,
				    uint8_t opcode, struct slice payload, enum cfg_source source,
				    uint32_t request)
{
	const struct publish_extra none = {0};

	return publish_with(w, ns, room, opcode, payload, source, request, &none);
}

void publish_abandon(struct worker *w, uint32_t request)
{
	/* The master drops the unfinished message when the next UP_PUBLISH arrives. */
	if (w->chunking.is_active && w->chunking.owner == request)
		w->chunking.is_active = false;
}

/* Control records that did not fit, in order: each as header, room and payload. */
static bool push_overflow(struct worker *w)
{
	struct buf *b = &w->control_overflow;
	size_t used = 0;

	while (used < b->len) {
		const char *behind = b->p + used + sizeof(struct up_rec);
		struct up_rec h;

		memcpy(&h, b->p + used, sizeof(h));
		if (!push(w, &w->slot.control, &h, (struct slice){behind, h.name_len},
			  (struct slice){behind + h.name_len, h.payload}))
			break;
		used += sizeof(h) + h.name_len + h.payload;
	}
	if (used > 0)
		buf_shift(b, used);
	if (b->len == 0)
		buf_free(b);
	return b->len == 0;
}

void publish_control_payload(struct worker *w, const struct up_rec *h, struct slice room,
			     struct slice payload)
{
	struct buf *b = &w->control_overflow;
	struct up_rec copy = *h;

	if (b->len == 0 && push(w, &w->slot.control, h, room, payload))
		return;
	copy.name_len = (uint8_t)room.len;
	copy.payload = (uint32_t)payload.len;
	/* All three or none: half a record would be taken for the beginning of another. */
	if (buf_reserve(b, sizeof(copy) + room.len + payload.len) == -1 ||
	    buf_put(b, &copy, sizeof(copy)) == -1 || buf_put(b, room.p, room.len) == -1 ||
	    buf_put(b, payload.p, payload.len) == -1) {
		log_event(LOG_ERROR, "no_memory", "msg=\"interest cannot be told to the master; leaving\"");
		worker_stop(w, 1);
	}
}

void publish_control(struct worker *w, enum up_type type, uint16_t ns, struct slice room)
{
	struct up_rec h = {.type = (uint8_t)type, .ns = ns};

	publish_control_payload(w, &h, room, (struct slice){0});
}

void publish_flush(struct worker *w)
{
	uint64_t one = 1;

	if (!w->uplink_pushed)
		return;
	w->uplink_pushed = false;
	if (!globals_must_wake(w->globals, &w->master_nap))
		return;
	if (write(w->boot->master_wake_fd, &one, sizeof(one)) == -1 && errno != EAGAIN)
		log_event(LOG_ERROR, "wake", "errno=%d msg=\"cannot wake the master\"", errno);
}

void publish_wait(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (c->flags & CONN_PAUSED)
		return;
	c->flags |= CONN_PAUSED;
	conn_arm(w, c);
	x->starving_prev = w->starving_tail;
	x->starving_next = CONN_NONE;
	if (w->starving_tail == CONN_NONE)
		w->starving_head = c->index;
	else
		conn_at(&w->conns, w->starving_tail)->ext->starving_next = c->index;
	w->starving_tail = c->index;
}

void publish_forget(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if ((c->flags & CONN_PAUSED) == 0)
		return;
	c->flags &= (uint16_t)~CONN_PAUSED;
	publish_abandon(w, conn_tag(c));
	if (x->starving_prev == CONN_NONE)
		w->starving_head = x->starving_next;
	else
		conn_at(&w->conns, x->starving_prev)->ext->starving_next = x->starving_next;
	if (x->starving_next == CONN_NONE)
		w->starving_tail = x->starving_prev;
	else
		conn_at(&w->conns, x->starving_next)->ext->starving_prev = x->starving_prev;
	x->starving_prev = x->starving_next = CONN_NONE;
}

void publish_resume(struct worker *w)
{
	if (w->control_overflow.len > 0 && !push_overflow(w))
		return;
	if (!ask_resume(w))
		return;
	/* The HTTP API first: it has few messages here, one a connection, while clients may never stop
	 * waiting. And if one of its messages is half-way up, nobody else's can go before it. */
	admin_resume(w);
	while (w->starving_head != CONN_NONE) {
		if (!input_resume(w, conn_at(&w->conns, w->starving_head)))
			return;
	}
}
