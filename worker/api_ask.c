/* api_ask.c - the API's endpoints that ask the master: presence, presence_stats, channels, info, disconnect,
 * groups. */
#include <string.h>

#include "worker/admin.h"
#include "worker/api_parse.h"

static void reply_bad(struct admin_conn *a, struct slice why)
{
	if (why.len == strlen("too_large") && memcmp(why.p, "too_large", why.len) == 0)
		admin_error(a, 413, "too_large", "the answer would be too large");
	else
		admin_error(a, 400, "bad_request", "the request was not understood");
}

static void reply_ok(struct admin_conn *a, struct slice payload)
{
	struct buf b = {0};

	if (payload.len == 0)
		payload = (struct slice){"{}", 2};
	if (buf_puts(&b, "{\"result\":") == -1 || buf_put(&b, payload.p, payload.len) == -1 ||
	    buf_puts(&b, "}") == -1)
		a->is_closing = true;
	else
		admin_reply(a, 200, "application/json", NULL, (struct slice){b.p, b.len});
	buf_free(&b);
}

static void on_reply(struct worker *w, void *arg, enum rec_reply reply, struct slice payload)
{
	struct admin_conn *a = arg;

	(void)w;
	a->ask = 0;
	switch (reply) {
	case REC_REPLY_OK:
	case REC_REPLY_NONE:
		reply_ok(a, payload);
		break;
	case REC_REPLY_BAD:
		reply_bad(a, payload);
		break;
	case REC_REPLY_UNAVAILABLE:
		admin_error(a, 503, "overloaded", "no answer in time");
		break;
	}
	admin_answered(a);
}

void api_ask(struct admin_conn *a, const struct ask *q)
{
	if (q->payload.len > ASK_PAYLOAD_MAX) {
		admin_error(a, 413, "too_large", "the request is too large");
		return;
	}
	a->ask = ask_master(a->worker, q, on_reply, a);
	if (a->ask == 0)
		admin_error(a, 503, "overloaded", "too many requests under way");
}

/* A body was parsed: ask, or say what is wrong with it. `text` is freed. */
static void ask_or_fail(struct admin_conn *a, int status, const struct api_fault *f, enum up_ask what,
			struct buf *text)
{
	const struct ask q = {.what = what, .payload = {text->p, text->len}};

	if (status != 0)
		admin_error(a, status, f->code, f->message);
	else
		api_ask(a, &q);
	buf_free(text);
}

static void ask_channel(struct admin_conn *a, struct slice body, enum up_ask what)
{
	struct api_channel channel;
	struct api_fault f;
	int status = api_presence_parse(a->worker->config, body, &channel, &f);
	struct ask q = {.what = what};

	if (status != 0) {
		admin_error(a, status, f.code, f.message);
		return;
	}
	q.ns = channel.ns->id;
	q.room = channel.room;
	api_ask(a, &q);
}

void api_presence(struct admin_conn *a, struct slice body)
{
	ask_channel(a, body, UP_ASK_PRESENCE);
}

void api_presence_stats(struct admin_conn *a, struct slice body)
{
	ask_channel(a, body, UP_ASK_PRESENCE_STATS);
}

void api_channels(struct admin_conn *a, struct slice body)
{
	struct api_fault f;
	struct buf text = {0};
	int status = api_channels_parse(body, &text, &f);

	ask_or_fail(a, status, &f, UP_ASK_CHANNELS, &text);
}

void api_info(struct admin_conn *a, struct slice body)
{
	struct api_fault f;
	struct buf none = {0};
	int status = api_nothing_parse(body, &f);

	ask_or_fail(a, status, &f, UP_ASK_INFO, &none);
}

void api_disconnect(struct admin_conn *a, struct slice body)
{
	struct api_fault f;
	struct buf text = {0};
	int status = api_disconnect_parse(a->worker->config, body, &text, &f);

	ask_or_fail(a, status, &f, UP_ASK_CONTROL, &text);
}

void api_groups(struct admin_conn *a, struct slice body)
{
	struct api_fault f;
	struct buf text = {0};
	int status = api_groups_parse(body, &text, &f);

	ask_or_fail(a, status, &f, UP_ASK_CONTROL, &text);
}
