#include "worker/kept.h"

#include <string.h>

#include "common/json.h"
#include "common/template.h"
#include "common/utf8.h"
#include "common/wsframe.h"
#include "worker/admission.h"
#include "worker/output.h"
#include "worker/rules.h"
#include "worker/rules_read.h"
#include "worker/worker.h"

/* What a question was asked for; with the connection's tag it is the answer's argument. */
enum kind {
	FIRST_VALUE,  /* newcomer: the retained value */
	FIRST_UNLESS, /* once more, unless a key exists that the value names */
	FIRST_QUEUE,  /* what was kept while he was away */
	RULE_VALUE,   /* the same for a rule's answer */
	RULE_UNLESS,
};

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

static void count_drop(struct worker *w, const struct conn *c, enum count_dropped why)
{
	count_add(&w->count->ns[ns_of(w, c)->id].dropped[why], 1);
}

static struct slice room_of(const struct worker *w, const struct conn *c)
{
	const struct channel *ch;

	if (c->channel == CHANNEL_NONE)
		return c->ext == NULL || c->ext->admission == NULL
			       ? (struct slice){0}
			       : (struct slice){c->ext->admission->h.room, c->ext->admission->h.room_len};
	ch = channel_at(&w->channels, c->channel);
	return channel_room(ch);
}

static struct slice user_of_conn(const struct worker *w, const struct conn *c)
{
	const struct session *s = session_of(w, c);

	return s == NULL ? (struct slice){0} : session_user(w, s);
}

/* ---- asking */

static void answered(struct worker *w, void *arg, enum rec_reply reply, struct slice payload);

static bool ask(struct worker *w, const struct conn *c, enum kind kind, enum up_ask what,
		struct slice payload)
{
	const struct ask q = {.what = what, .ns = ns_of(w, c)->id, .payload = payload};
	uintptr_t arg = (uintptr_t)kind << 32 | conn_tag(c);

	return ask_master(w, &q, answered, (void *)arg) != 0;
}

/* "key NUL unless" into `b`. Returns 1; 0: the key has a hole; -1: no memory. */
static int put_fetch(const struct cfg_namespace *ns, const struct template_values *v, bool with_unless,
		     struct buf *b)
{
	int rc = template_render_name(ns->retain_key, v, b);

	if (rc != 1)
		return rc;
	if (buf_put(b, "", 1) == -1)
		return -1;
	/* One that can't be named does not exist. */
	if (with_unless && template_render_name(ns->retain_unless, v, b) == -1)
		return -1;
	return 1;
}

/* Ask for the value. value: what was answered before, if `unless` depends on it; else p == NULL. */
static bool ask_value(struct worker *w, struct conn *c, struct slice room, enum kind kind, struct slice value)
{
	const struct cfg_namespace *ns = ns_of(w, c);
	struct rules_scratch scratch;
	struct template_values v;
	struct buf b = {0};
	bool with_unless = ns->retain_unless != NULL &&
			   (value.p != NULL || !template_uses(ns->retain_unless, TEMPLATE_VALUE));
	bool ok;

	rules_values(w, c, &scratch, &v);
	v.room = room;
	v.value = value;
	ok = put_fetch(ns, &v, with_unless, &b) == 1 &&
	     ask(w, c, kind, UP_ASK_FETCH, (struct slice){b.p, b.len});
	buf_free(&b);
	return ok;
}

static bool needs_second_look(const struct cfg_namespace *ns)
{
	return ns->retain_unless != NULL && template_uses(ns->retain_unless, TEMPLATE_VALUE);
}

/* ---- frames */

static int put_frame(struct buf *out, struct slice payload)
{
	uint8_t header[WS_HEADER_MAX];
	size_t n = ws_header_put(header, WS_TEXT, payload.len);

	return buf_put(out, header, n) == -1 ? -1 : buf_put(out, payload.p, payload.len);
}

/* The text that the value makes. Returns 1; 0: it makes none, counted; -1: no memory. */
static int put_text(struct worker *w, struct conn *c, struct slice value, struct buf *out)
{
	const struct template *t = ns_of(w, c)->retain_frame;
	struct rules_scratch scratch;
	struct template_values v;
	enum json_type type;

	if (t == NULL) {
		if (utf8_is_valid(value.p, value.len))
			return buf_put(out, value.p, value.len) == -1 ? -1 : 1;
		count_drop(w, c, COUNT_DROPPED_bad_utf8);
		return 0;
	}
	if (!json_validate(value, &type) || type != JSON_TYPE_OBJECT) {
		count_drop(w, c, COUNT_DROPPED_bad_json);
		return 0;
	}
	rules_values(w, c, &scratch, &v);
	v.room = room_of(w, c);
	v.value = value;
	return template_render(t, &v, TEMPLATE_AS_JSON, out) == -1 ? -1 : 1;
}

/* The retained frame of this value, appended. 0, or -1: no memory. */
static int put_retained(struct worker *w, struct conn *c, struct slice value, struct buf *out)
{
	struct buf text = {0};
	int rc = put_text(w, c, value, &text);

	if (rc == 1 && text.len > RULES_FRAME_MAX)
		count_drop(w, c, COUNT_DROPPED_too_large);
	else if (rc == 1)
		rc = put_frame(out, (struct slice){text.p, text.len});
	buf_free(&text);
	return rc == -1 ? -1 : 0;
}

/* The sequence of UP_ASK_OFFLINE. */
static int put_queue(struct slice list, struct buf *out)
{
	uint32_t len;

	while (list.len >= sizeof(len)) {
		memcpy(&len, list.p, sizeof(len));
		list.p += sizeof(len);
		list.len -= sizeof(len);
		if (len > list.len)
			break;
		if (put_frame(out, (struct slice){list.p, len}) == -1)
			return -1;
		list.p += len;
		list.len -= len;
	}
	return 0;
}

/* ---- newcomers */

static bool ask_queue(struct worker *w, struct conn *c)
{
	struct slice user = user_of_conn(w, c);

	return ns_of(w, c)->offline_max > 0 && user.len > 0 && ask(w, c, FIRST_QUEUE, UP_ASK_OFFLINE, user);
}

enum kept kept_begin(struct worker *w, struct conn *c, struct slice room)
{
	if (ns_of(w, c)->retain == CFG_RETAIN_REDIS && ask_value(w, c, room, FIRST_VALUE, (struct slice){0}))
		return KEPT_WAIT;
	return ask_queue(w, c) ? KEPT_WAIT : KEPT_DONE;
}

/* Returns whether another question is under way. Without memory he comes in without. */
static bool take_first(struct worker *w, struct conn *c, enum kind kind, struct slice payload)
{
	struct buf *out = &c->ext->first;
	int rc;

	if (kind == FIRST_VALUE && needs_second_look(ns_of(w, c)))
		return ask_value(w, c, room_of(w, c), FIRST_UNLESS, payload);
	rc = kind == FIRST_QUEUE ? put_queue(payload, out) : put_retained(w, c, payload, out);
	if (rc == -1)
		count_drop(w, c, COUNT_DROPPED_shed);
	return false;
}

static void first_answered(struct worker *w, struct conn *c, enum kind kind, enum rec_reply reply,
			   struct slice payload)
{
	if (c->state != CONN_JOINING || c->ext == NULL || c->ext->admission == NULL)
		return;
	if (reply == REC_REPLY_OK && take_first(w, c, kind, payload))
		return;
	if (kind != FIRST_QUEUE && ask_queue(w, c))
		return;
	admission_go_on(w, c);
}

int kept_put(struct worker *w, struct conn *c, struct slice asked, struct buf *out)
{
	struct slice last = latest_get(w, c->channel);

	if (buf_put(out, asked.p, asked.len) == -1)
		return -1;
	return buf_put(out, last.p, last.len);
}

/* ---- rules */

static void say(struct worker *w, struct conn *c, struct slice frame)
{
	if (frame.len > RULES_FRAME_MAX + WS_HEADER_MAX)
		count_drop(w, c, COUNT_DROPPED_too_large);
	else if (frame.len > 0)
		(void)output_bytes(w, c, frame.p, frame.len);
}

void kept_answer(struct worker *w, struct conn *c)
{
	switch (ns_of(w, c)->retain) {
	case CFG_RETAIN_OFF:
		break;
	case CFG_RETAIN_LAST:
		say(w, c, latest_get(w, c->channel));
		break;
	case CFG_RETAIN_REDIS:
		if (!ask_value(w, c, room_of(w, c), RULE_VALUE, (struct slice){0}))
			count_drop(w, c, COUNT_DROPPED_shed);
		break;
	}
}

static void rule_answered(struct worker *w, struct conn *c, enum kind kind, enum rec_reply reply,
			  struct slice payload)
{
	struct buf out = {0};

	if (c->state != CONN_OPEN || reply == REC_REPLY_NONE)
		return;
	if (reply != REC_REPLY_OK) {
		count_drop(w, c, COUNT_DROPPED_shed);
		return;
	}
	if (kind == RULE_VALUE && needs_second_look(ns_of(w, c))) {
		if (!ask_value(w, c, room_of(w, c), RULE_UNLESS, payload))
			count_drop(w, c, COUNT_DROPPED_shed);
		return;
	}
	if (put_retained(w, c, payload, &out) == 0)
		say(w, c, (struct slice){out.p, out.len});
	buf_free(&out);
}

static void answered(struct worker *w, void *arg, enum rec_reply reply, struct slice payload)
{
	enum kind kind = (enum kind)((uintptr_t)arg >> 32);
	struct conn *c = conn_by_tag(w, (uint32_t)(uintptr_t)arg);

	if (c == NULL)
		return;
	if (kind == RULE_VALUE || kind == RULE_UNLESS)
		rule_answered(w, c, kind, reply, payload);
	else
		first_answered(w, c, kind, reply, payload);
}

/* A value that is JSON is written as JSON. */
static enum template_as form_of(const struct template *t)
{
	return strchr("{[\"", template_text(t)[0]) != NULL && template_text(t)[0] != '\0' ? TEMPLATE_AS_JSON
											  : TEMPLATE_AS_PLAIN;
}

/* Append what the action needs. 1; 0: nothing is to be kept; -1: no memory. */
static int put_note(struct worker *w, struct conn *c, const struct rules_read *read, struct buf *b)
{
	const struct cfg_rule *rule = read->rule;
	struct slice user = user_of_conn(w, c);
	struct rules_scratch scratch;
	struct template_values v;
	int rc;

	rules_values(w, c, &scratch, &v);
	v.msg = read->msg;
	if (rule->action == CFG_ACTION_RECEIPT) {
		if (user.len == 0 || memchr(user.p, '\0', user.len) != NULL)
			return 0;
		if (buf_put(b, user.p, user.len) == -1 || buf_put(b, "", 1) == -1)
			return -1;
		return template_render_name(rule->key, &v, b);
	}
	rc = template_render_name(rule->key, &v, b);
	if (rc != 1)
		return rc;
	if (buf_put(b, "", 1) == -1 || template_render(rule->value, &v, form_of(rule->value), b) == -1)
		return -1;
	return 1;
}

void kept_note(struct worker *w, struct conn *c, const struct rules_read *read)
{
	struct buf b = {0};
	int rc = put_note(w, c, read, &b);
	struct ask q = {.what = read->rule->action == CFG_ACTION_STORE ? UP_ASK_STORE : UP_ASK_RECEIPT,
			.ns = ns_of(w, c)->id,
			.room = room_of(w, c),
			.payload = {b.p, b.len},
			.total = read->rule->ttl};

	if (rc == -1 || (rc == 1 && ask_master(w, &q, NULL, NULL) == 0))
		count_drop(w, c, COUNT_DROPPED_shed);
	buf_free(&b);
}
