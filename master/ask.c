#include "master/ask.h"

#include <string.h>

#include "master/control.h"
#include "master/nodes.h"
#include "master/presence_ask.h"
#include "master/store.h"
#include "master/survey.h"

#define SHORT_ANSWER 512u /* bytes of one that is given whatever waits: each was asked for */

size_t ask_reply_max(const struct master *m)
{
	return u64_min(UINT64_C(1) << 20, m->seq.ring.size / 16);
}

const struct cfg_namespace *ask_namespace(const struct master *m, const struct ask_question *q)
{
	return q->ns < CFG_MAX_NAMESPACES ? m->seq.ns[q->ns] : NULL;
}

void ask_answer(struct master *m, const struct ask_from *to, enum rec_reply reply, struct slice payload)
{
	const struct child *c = &m->child[to->slot % SLOT_MAX];
	struct rec h = {.type = REC_REPLY, .id = to->request, .arg = {reply}};
	static const char too_large[] = "too_large";

	if (c->pid == 0 || c->incarnation != to->incarnation)
		return;
	if (payload.len > ask_reply_max(m)) {
		h.arg[0] = REC_REPLY_BAD;
		payload = (struct slice){too_large, sizeof(too_large) - 1};
	}
	if (payload.len > SHORT_ANSWER && seq_is_backlogged(&m->seq)) {
		h.arg[0] = REC_REPLY_UNAVAILABLE;
		payload = (struct slice){NULL, 0};
	}
	if (payload.p == NULL)
		payload = (struct slice){"", 0};
	seq_control_payload(&m->seq, c->reader, &h, (struct slice){0}, payload);
}

void ask_answer_bad(struct master *m, const struct ask_from *to, const char *code)
{
	ask_answer(m, to, REC_REPLY_BAD, (struct slice){code, strlen(code)});
}

static void info(struct master *m, const struct ask_question *q)
{
	struct buf b = {0};

	if (nodes_info(m, &b) == -1)
		ask_answer(m, &q->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
	else
		ask_answer(m, &q->from, REC_REPLY_OK, (struct slice){b.p, b.len});
	buf_free(&b);
}

bool ask_take(struct master *m, const struct ask_question *q)
{
	switch ((enum up_ask)q->what) {
	case UP_ASK_CONTROL:
		control_ask(m, q);
		return true;
	case UP_ASK_PRESENCE:
	case UP_ASK_PRESENCE_STATS:
		presence_ask(m, q);
		return true;
	case UP_ASK_CHANNELS:
		survey_ask(m, q);
		return true;
	case UP_ASK_INFO:
		info(m, q);
		return true;
	case UP_ASK_RECEIPTS:
	case UP_ASK_RECEIPT:
	case UP_ASK_FETCH:
	case UP_ASK_STORE:
	case UP_ASK_OFFLINE:
		store_ask(m, q);
		return true;
	}
	return false;
}
