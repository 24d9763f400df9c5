#include "worker/rules.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"
#include "worker/auth.h"
#include "worker/input.h"
#include "worker/kept.h"
#include "worker/output.h"
#include "worker/rules_read.h"
#include "worker/worker.h"

struct rules {
	struct rules_read read;
	struct buf frame; /* what was rendered last, with room for a frame header before it */
};

int rules_start(struct worker *w)
{
	w->rules = calloc(1, sizeof(*w->rules));
	return w->rules == NULL ? -1 : 0;
}

void rules_stop(struct worker *w)
{
	if (w->rules == NULL)
		return;
	rules_read_free(&w->rules->read);
	buf_free(&w->rules->frame);
	free(w->rules);
}

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

static struct counters_ns *ns_count(const struct worker *w, const struct conn *c)
{
	return &w->count->ns[ns_of(w, c)->id];
}

/* ---- templates */

static struct slice text_slice(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static void identity_values(const struct worker *w, const struct conn *c, struct template_values *out)
{
	const struct session *s = session_of(w, c);

	if (s == NULL)
		return;
	if (session_user(w, s).len > 0)
		out->user = session_user(w, s);
	if (session_tag(s).len > 0)
		out->session = session_tag(s);
	out->info = session_info(s);
}

static void values(const struct worker *w, const struct conn *c, const struct template *t,
		   struct rules_scratch *scratch, struct template_values *out)
{
	*out = (struct template_values){.ns = text_slice(ns_of(w, c)->name)};
	if (c->channel != CHANNEL_NONE) {
		const struct channel *ch = channel_at(&w->channels, c->channel);

		out->room = channel_room(ch);
	}
	identity_values(w, c, out);
	/* Each costs more than all the rest. */
	if (t == NULL || template_uses(t, TEMPLATE_CONN)) {
		conn_id(w, c, scratch->conn);
		out->conn = text_slice(scratch->conn);
	}
	if (t == NULL || template_uses(t, TEMPLATE_NODE)) {
		snprintf(scratch->node, sizeof(scratch->node), "%016" PRIx64, w->globals->origin);
		out->node = text_slice(scratch->node);
	}
	if (t == NULL || template_uses(t, TEMPLATE_TIME))
		out->time_s = clock_wall_ms() / 1000;
	if (t == NULL || template_uses(t, TEMPLATE_MONOTONIC))
		out->monotonic_us = clock_mono_ns() / 1000;
}

_Static_assert(sizeof(((struct rules_scratch *)NULL)->conn) >= CONN_ID_SIZE,
	       "rules_scratch: a connection's id");

void rules_values(const struct worker *w, const struct conn *c, struct rules_scratch *scratch,
		  struct template_values *out)
{
	values(w, c, NULL, scratch, out);
}

enum rendered { RENDERED, RENDERED_TOO_LARGE, RENDERED_NO_MEMORY };

/* The text of `t` into the worker's buffer, and a text frame's header in front of it. */
static enum rendered render(const struct worker *w, const struct conn *c, const struct template *t,
			    const struct slice *msg, struct slice *frame, struct slice *payload)
{
	struct buf *b = &w->rules->frame;
	struct rules_scratch scratch;
	struct template_values v;
	size_t header;

	b->len = 0;
	if (buf_reserve(b, WS_HEADER_MAX) == -1)
		return RENDERED_NO_MEMORY;
	b->len = WS_HEADER_MAX;
	values(w, c, t, &scratch, &v);
	v.msg = msg;
	if (template_render(t, &v, TEMPLATE_AS_JSON, b) == -1)
		return RENDERED_NO_MEMORY;
	*payload = (struct slice){b->p + WS_HEADER_MAX, b->len - WS_HEADER_MAX};
	if (payload->len > RULES_FRAME_MAX) {
		count_add(&ns_count(w, c)->dropped[COUNT_DROPPED_too_large], 1);
		return RENDERED_TOO_LARGE;
	}
	header = ws_header_size(payload->len);
	ws_header_put((uint8_t *)b->p + WS_HEADER_MAX - header, WS_TEXT, payload->len);
	*frame = (struct slice){payload->p - header, payload->len + header};
	return RENDERED;
}

int rules_greeting(const struct worker *w, const struct conn *c, struct buf *out)
{
	const struct template *t = ns_of(w, c)->greeting;
	struct slice frame, payload;

	if (t == NULL)
		return 0;
	switch (render(w, c, t, NULL, &frame, &payload)) {
	case RENDERED:
		return buf_put(out, frame.p, frame.len);
	case RENDERED_TOO_LARGE:
		return 0;
	case RENDERED_NO_MEMORY:
		break;
	}
	return -1;
}

/* Send a frame to this client. False: the connection is gone or closing. */
static bool say(struct worker *w, struct conn *c, const struct template *t, const struct slice *msg)
{
	struct slice frame, payload;

	switch (render(w, c, t, msg, &frame, &payload)) {
	case RENDERED:
		return output_bytes(w, c, frame.p, frame.len);
	case RENDERED_TOO_LARGE:
		return true;
	case RENDERED_NO_MEMORY:
		break;
	}
	conn_close(w, c, 1011, NULL);
	return false;
}

/* ---- actions */

/* At most one of this user (or of nobody in particular: this connection) in this room by this rule, unless it
 * says something new. Hashes are keyed alike in all workers of the host. */
static void set_throttle(const struct worker *w, const struct conn *c, const struct rules_read *read,
			 struct publish_extra *extra)
{
	const struct channel *ch = channel_at(&w->channels, c->channel);
	const struct session *s = session_of(w, c);
	struct slice who = {0}, said = {read->text.p, read->rule->n_coerce > 0 ? read->text.len : 0};
	uint16_t ns = ns_of(w, c)->id;
	char id[CONN_ID_SIZE];
	uint64_t key = rec_channel_hash(w->globals->hash_key, ns, channel_room(ch));

	if (s != NULL)
		who = session_user(w, s);
	if (who.len == 0) {
		conn_id(w, c, id);
		who = text_slice(id);
	}
	key = rec_user_hash(key + read->index, ns, who);
	extra->throttle_key = key != 0 ? key : 1;
	extra->throttle_ms = read->rule->throttle;
	extra->throttle_value = (uint32_t)rec_group_hash(w->globals->hash_key, said);
}

static enum ws_take shed(struct worker *w, struct conn *c)
{
	count_add(&ns_count(w, c)->dropped[COUNT_DROPPED_shed], 1);
	return WS_TAKEN;
}

static enum ws_take publish_frame(struct worker *w, struct conn *c, const struct rules_read *read,
				  bool is_resumed)
{
	const struct channel *ch = channel_at(&w->channels, c->channel);
	const struct cfg_rule *rule = read->rule;
	struct publish_extra extra = {.flags = (uint16_t)(UP_RULE | (rule->is_low ? UP_LOW : 0))};
	/* The peer's Close waits for what is surely to come back, and so not for what may be left out. */
	bool is_tracked = rule->throttle == 0 && !rule->is_low;
	struct slice frame, payload;

	/* Who comes while others wait for the uplink waits behind them. */
	if (!is_resumed && w->starving_head != CONN_NONE)
		return rule->is_low ? shed(w, c) : WS_HOLD;
	switch (render(w, c, rule->frame, read->msg, &frame, &payload)) {
	case RENDERED:
		break;
	case RENDERED_TOO_LARGE:
		return WS_TAKEN;
	case RENDERED_NO_MEMORY:
		conn_close(w, c, 1011, NULL);
		return WS_TAKEN;
	}
	if (rule->throttle != 0)
		set_throttle(w, c, read, &extra);
	if (publish_with(w, ns_of(w, c), channel_room(ch), WS_TEXT, payload, CFG_SRC_CLIENT,
			 is_tracked ? conn_tag(c) : 0, &extra) == PUBLISH_BUSY)
		return rule->is_low ? shed(w, c) : WS_HOLD;
	if (is_tracked && c->in_flight < UINT16_MAX)
		c->in_flight++;
	return WS_TAKEN;
}

static enum ws_take act(struct worker *w, struct conn *c, const struct rules_read *read, struct slice text,
			bool is_resumed)
{
	const struct cfg_rule *rule = read->rule;

	switch (rule->action) {
	case CFG_ACTION_REPLY:
		(void)say(w, c, rule->frame, read->msg);
		break;
	case CFG_ACTION_PUBLISH:
		return publish_frame(w, c, read, is_resumed);
	case CFG_ACTION_FORWARD:
		if (!auth_forward(w, c, text))
			count_add(&ns_count(w, c)->rate_limited, 1);
		break;
	case CFG_ACTION_IGNORE:
		break;
	case CFG_ACTION_RETAINED:
		kept_answer(w, c);
		break;
	case CFG_ACTION_STORE:
	case CFG_ACTION_RECEIPT:
		kept_note(w, c, read);
		break;
	}
	return WS_TAKEN;
}

/* ---- messages */

bool rules_apply(const struct worker *w, const struct conn *c)
{
	const struct cfg_namespace *ns = ns_of(w, c);

	return ns->n_rules > 0 || ns->envelope == CFG_ENVELOPE_JSON;
}

static void bad_frame(struct worker *w, struct conn *c, uint8_t opcode)
{
	uint32_t most = ns_of(w, c)->bad_frames;
	struct session *s = session_of(w, c);

	count_add(&ns_count(w, c)->bad_frames, 1);
	if (s != NULL && s->bad_frames < UINT16_MAX)
		s->bad_frames++;
	if (opcode != WS_TEXT)
		conn_close(w, c, 1003, "text expected");
	else if (s == NULL || (most != 0 && s->bad_frames >= most))
		conn_close(w, c, 1008, "too many bad frames");
}

static enum ws_take publish_as_it_is(struct worker *w, struct conn *c, uint8_t opcode, struct slice text,
				     bool is_resumed)
{
	return input_publish(w, c, opcode, text, is_resumed) ? WS_TAKEN : WS_HOLD;
}

enum ws_take rules_message(struct worker *w, struct conn *c, uint8_t opcode, struct slice text,
			   bool is_resumed)
{
	const struct cfg_namespace *ns = ns_of(w, c);
	struct rules_read *read = &w->rules->read;
	bool may_publish = (ns->publish & CFG_SRC_CLIENT) != 0;
	bool is_any_right = may_publish && ns->envelope == CFG_ENVELOPE_PLAIN;

	switch (opcode == WS_TEXT ? rules_read(read, ns, text) : RULES_BAD) {
	case RULES_RULE:
		return act(w, c, read, text, is_resumed);
	case RULES_OTHER:
		if (may_publish)
			return publish_as_it_is(w, c, opcode, text, is_resumed);
		break;
	case RULES_BAD:
		if (is_any_right)
			return publish_as_it_is(w, c, opcode, text, is_resumed);
		bad_frame(w, c, opcode);
		break;
	case RULES_NO_MEMORY:
		conn_close(w, c, 1011, NULL);
		break;
	}
	return WS_TAKEN;
}

/* ---- the client that says nothing */

/* The session whose silence counts, or NULL. */
static struct session *listener(const struct worker *w, const struct conn *c)
{
	return ns_of(w, c)->idle.after == 0 ? NULL : session_of(w, c);
}

void rules_opened(struct worker *w, struct conn *c)
{
	struct session *s = listener(w, c);

	if (s == NULL)
		return;
	s->more->idle_due = (uint32_t)w->now_ms + ns_of(w, c)->idle.after;
}

void rules_heard(struct worker *w, struct conn *c, bool is_message)
{
	/* The timer stays: when it fires it looks at what is due then. */
	if (is_message || ns_of(w, c)->idle.any_frame)
		rules_opened(w, c);
}

uint64_t rules_due(const struct worker *w, const struct conn *c)
{
	const struct session *s = listener(w, c);
	int32_t ms;

	if (s == NULL)
		return UINT64_MAX;
	ms = (int32_t)(s->more->idle_due - (uint32_t)w->now_ms);
	return ms > 0 ? (uint64_t)ms : 0;
}

bool rules_expired(struct worker *w, struct conn *c)
{
	struct session *s = listener(w, c);

	if (s == NULL)
		return true;
	if ((c->flags & (CONN_PAUSED | CONN_HELD)) != 0)
		rules_opened(w, c); /* we do not read it: its silence is our doing */
	if (rules_due(w, c) > 0)
		return true;
	s->more->idle_due = (uint32_t)w->now_ms + ns_of(w, c)->idle.after;
	if (c->ext != NULL && c->ext->has_idle)
		return true; /* the last one has not gone out yet */
	if (!say(w, c, ns_of(w, c)->idle.frame, NULL))
		return false;
	if ((c->flags & CONN_BLOCKED) != 0 && c->ext != NULL && c->ext->out.len > 0)
		c->ext->has_idle = true;
	return true;
}
