/* control.c - what the master tells this worker through the ring; leaving service. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "shm/uplink.h"
#include "worker/command.h"
#include "worker/input.h"
#include "worker/limits.h"
#include "worker/stats.h"
#include "worker/worker.h"

#define TOLD_CHUNK        8192u /* bytes of one UP_TOLD */
#define TOLD_OVERFLOW_MAX (UINT64_C(8) << 20)

static void subscribed(struct worker *w, const struct rec *h, struct slice room, struct slice payload)
{
	uint32_t index = channel_find(w, h->hash, h->ns, room);

	if (h->arg[0] != 0)
		count_add(&w->count->subscribe_timeouts, 1);
	if (index == CHANNEL_NONE)
		return;
	if (h->flags & REC_RETAINED)
		latest_set(w, index, h->opcode, payload);
	channel_subscribed(w, index);
}

static void drain(struct worker *w, uint16_t code, uint64_t spread_ms)
{
	/* 1012 is a HUP's code, and may be what stop.close_code says. */
	bool is_replaced = code == 1012 && stats_u32(&w->globals->is_stopping) == 0;

	/* What hurries more wins: waiting, then a replacement, then a stop. */
	if (w->is_draining && (code == 0 || (w->drain_code != 0 && (is_replaced || !w->is_replaced))))
		return;
	w->is_draining = true;
	w->is_replaced = is_replaced;
	w->drain_code = code;
	w->drain_end_ms = w->now_ms + spread_ms;
	w->drain_start_ms = w->now_ms;
	w->drain_total = w->conns.n_open;
	w->drain_closed = 0;
	w->drain_cursor = 0;
	log_event(LOG_INFO, "drain", "code=%u total=%u", code, w->drain_total);
	if (is_replaced) {
		accept_abandon(w); /* a successor serves the same listeners: leave them in the group */
		admin_leave(w);
	} else {
		w->accept_paused = true;
	}
	accept_update(w);
	control_drain_step(w);
}

/* How many of those that were open when it began should be gone by now. */
static uint32_t due_closes(const struct worker *w)
{
	uint64_t span = w->drain_end_ms - w->drain_start_ms;
	uint64_t past = w->now_ms - w->drain_start_ms;

	if (past >= span)
		return UINT32_MAX;
	return (uint32_t)((uint64_t)w->drain_total * past / span);
}

void control_drain_step(struct worker *w)
{
	uint32_t due, slots = w->conns.n_segments * CONN_SEGMENT;

	if (!w->is_draining)
		return;
	due = w->drain_code == 0 ? 0 : due_closes(w);
	while (w->drain_closed < due && w->drain_cursor < slots) {
		struct conn *c = conn_at(&w->conns, w->drain_cursor++);

		/* Half-done handshakes: at a stop they are refused; a replaced worker finishes them, so that
		 * nobody is refused while the port is open, and closes them after. */
		bool is_half_done = c->state == CONN_HANDSHAKE || c->state == CONN_AUTHORIZING ||
				    c->state == CONN_JOINING;

		if (c->state == CONN_OPEN && ++w->drain_closed % 64 == 0)
			slot_beat(&w->slot);
		if (c->state == CONN_OPEN || (is_half_done && !w->is_replaced))
			conn_close(w, c, w->drain_code, NULL);
	}
	if (w->drain_cursor >= slots && w->drain_code != 0)
		w->drain_cursor = 0;
	if (w->conns.n == 0 && admin_is_quiet(w)) {
		publish_control(w, UP_DRAINED, 0, (struct slice){0});
		worker_stop(w, 0);
	}
}

static void gap(struct worker *w, uint16_t ns_id)
{
	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		struct conn *c = conn_at(&w->conns, i);

		if (c->state != CONN_OPEN)
			continue;
		if (w->config->namespaces[c->ns].id == ns_id && w->config->namespaces[c->ns].on_gap_close)
			conn_close(w, c, 1013, "messages may have been lost");
		if (i % 64 == 63)
			slot_beat(&w->slot);
	}
}

static void tell(struct worker *w, uint32_t survey, struct buf *json, bool is_last)
{
	struct up_rec h = {.type = UP_TOLD, .request = survey, .opcode = is_last ? 0 : 1};

	publish_control_payload(w, &h, (struct slice){0}, (struct slice){json->p, json->len});
	json->len = 0;
}

/* "ns:room":members, of a channel that has some; into `one`. */
static int put_channel(const struct worker *w, const struct channel *ch, struct buf *one)
{
	char name[CFG_NAME_MAX + 1 + CFG_ROOM_MAX + 1];
	int len = snprintf(name, sizeof(name), "%s%s", w->config->namespaces[ch->ns].name,
			   ch->room_len > 0 ? ":" : "");
	size_t n = (size_t)len;

	if (ch->room_len > 0)
		memcpy(name + n, channel_room(ch).p, ch->room_len);
	one->len = 0;
	if (json_put_string(one, (struct slice){name, n + ch->room_len}) == -1)
		return -1;
	return buf_printf(one, ":%" PRIu32, ch->n);
}

/* SURVEY_CHANNELS. Without memory, or when the master does not read, what has been told so far is the answer.
 */
static void tell_channels(struct worker *w, uint32_t survey)
{
	const struct channel_table *t = &w->channels;
	struct buf json = {0}, one = {0};
	bool is_good = true;

	for (uint32_t i = 0; is_good && i < t->n_segments * CHANNEL_SEGMENT; i++) {
		const struct channel *ch = channel_at(t, i);

		if (i % 1024 == 1023)
			slot_beat(&w->slot);
		if (ch->state != CHANNEL_SUBSCRIBED || ch->n == 0)
			continue;
		is_good = put_channel(w, ch, &one) == 0 && w->control_overflow.len < TOLD_OVERFLOW_MAX;
		if (is_good && json.len + one.len + 2 > TOLD_CHUNK) {
			is_good = buf_puts(&json, "}") == 0;
			tell(w, survey, &json, false);
		}
		is_good = is_good && buf_puts(&json, json.len == 0 ? "{" : ",") == 0 &&
			  buf_put(&json, one.p, one.len) == 0;
	}
	if (!is_good || (json.len == 0 && buf_puts(&json, "{") == -1) || buf_puts(&json, "}") == -1)
		json.len = 0;
	tell(w, survey, &json, true);
	buf_free(&json);
	buf_free(&one);
}

static void answered(struct worker *w, const struct rec *h, struct slice payload)
{
	/* Not counted in time, or not at all. */
	struct rec_counts counts = {.is_partial = 1};

	if (payload.len == sizeof(counts))
		memcpy(&counts, payload.p, sizeof(counts));
	admin_answer(w, (uint32_t)h->id, (enum rec_answer)h->arg[0], h->seq, h->arg[1], &counts);
}

void control_handle(struct worker *w, const struct rec *h, struct slice room, struct slice payload)
{
	switch ((enum rec_type)h->type) {
	case REC_SUBSCRIBED:
		subscribed(w, h, room, payload);
		break;
	case REC_ANSWER:
		answered(w, h, payload);
		break;
	case REC_DRAIN:
		drain(w, (uint16_t)h->arg[0], h->arg[1]);
		break;
	case REC_ACCEPT:
		if (!w->is_draining) {
			w->accept_paused = h->arg[0] == 0;
			accept_update(w);
		}
		break;
	case REC_REOPEN:
		if (log_reopen() == -1)
			log_event(LOG_ERROR, "reopen", "errno=%d msg=\"cannot open the log file anew\"",
				  errno);
		break;
	case REC_GAP:
		gap(w, h->ns);
		break;
	case REC_REPLY:
		ask_reply(w, (uint32_t)h->id, (enum rec_reply)h->arg[0], payload);
		break;
	case REC_ADMIT:
		limits_answer(w, (uint32_t)h->id, h->arg[0] != 0);
		break;
	case REC_CONTROL:
		command_handle(w, payload);
		break;
	case REC_SURVEY:
		if (h->arg[0] == SURVEY_CHANNELS)
			tell_channels(w, (uint32_t)h->id);
		break;
	case REC_PUBLICATION:
		break;
	}
}
