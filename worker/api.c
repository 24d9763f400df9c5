/* api.c - POST /api/publish, and how answers to publications read. */
#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"
#include "worker/admin.h"

/* status 200: `redis` and perhaps `dropped`; else `code` and `message`. */
static const struct verdict {
	int status;
	const char *code, *message;
	const char *redis, *dropped;
} verdicts[] = {
	[REC_SENT] = {200, .redis = "sent"},
	[REC_QUEUED] = {200, .redis = "queued"},
	[REC_OFF] = {200, .redis = "off"},
	/* The publisher has made no mistake: there is nobody whom it is for. */
	[REC_NO_TARGET] = {200, .redis = "off", .dropped = "no_target"},
	[REC_UNTARGETED] = {200, .redis = "off", .dropped = "untargeted"},
	[REC_TOO_LARGE] = {413, "too_large", "the payload is larger than max_publication"},
	[REC_BAD_JSON] = {400, "bad_json", "the payload is not valid JSON"},
	[REC_NOT_OBJECT] = {400, "bad_request", "the payload is no JSON object"},
	[REC_NO_ROUTE] = {400, "bad_request",
			  "the payload names no room by its route_key, or another one than the channel"},
	[REC_OVERLOADED] = {503, "overloaded", "the message could not be taken"},
};

static const struct verdict *verdict_of(enum rec_answer what)
{
	return &verdicts[what < ARRAY_LEN(verdicts) ? what : REC_OVERLOADED];
}

int api_put_error(struct buf *b, const char *code, const char *message)
{
	return buf_printf(b, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"}}", code, message);
}

int api_put_answer(struct buf *b, struct slice channel, const struct api_answer *answer)
{
	const struct verdict *v = verdict_of(answer->what);

	if (v->status != 200)
		return api_put_error(b, v->code, v->message);
	if (buf_puts(b, "{\"result\":{\"channel\":") == -1 || json_put_string(b, channel) == -1 ||
	    buf_printf(b, ",\"seq\":%" PRIu64 ",\"epoch\":\"%016" PRIx64 "\",\"redis\":\"%s\"", answer->seq,
		       answer->epoch, v->redis) == -1 ||
	    buf_printf(b, ",\"sockets\":%" PRIu64 ",\"users\":%" PRIu64 ",\"partial\":%s",
		       answer->counts.sockets, answer->counts.users,
		       answer->counts.is_partial && v->dropped == NULL ? "true" : "false") == -1 ||
	    (v->dropped != NULL && buf_printf(b, ",\"dropped\":\"%s\"", v->dropped) == -1))
		return -1;
	return buf_puts(b, "}}");
}

uint32_t api_take_requests(struct admin *ad, uint32_t n)
{
	if (ad->next_request + n >= UP_REQUEST_ANSWER)
		ad->next_request = 0; /* what had these numbers was answered long ago */
	ad->next_request += n;
	return (ad->next_request - n + 1) | UP_REQUEST_ANSWER;
}

enum publish_result api_send(struct admin_conn *a, uint32_t request)
{
	const struct publish_extra extra = {.flags =
						    a->publish.id_len > 0 ? UP_COUNT | UP_TRACKED : UP_COUNT};

	return publish_with(a->worker, a->publish.ns, a->publish.room, a->publish.opcode, a->publish.payload,
			    CFG_SRC_API, request, &extra);
}

/* On the control uplink, which the master reads before it takes a publication: only when that is full (the
 * master stands still) may this come too late; then nothing will be known of the message. */
static void send_id(struct admin_conn *a)
{
	const struct up_rec h = {.type = UP_TRACK, .ns = a->publish.ns->id, .request = a->request};

	if (a->publish.id_len > 0)
		publish_control_payload(a->worker, &h, (struct slice){0},
					(struct slice){a->publish.id, a->publish.id_len});
}

void api_publish_again(struct admin_conn *a)
{
	a->is_unsent = api_send(a, a->request) == PUBLISH_BUSY;
}

void api_publish(struct admin_conn *a, struct slice body)
{
	int status = api_publish_parse(a->worker->config, body, &a->publish, &a->scratch);

	if (status != 0) {
		admin_error(a, status, a->publish.code, a->publish.message);
		return;
	}
	/* The payload lies in the connection's own buffers, which nobody moves while the request is WAITING.
	 */
	a->request = api_take_requests(a->worker->admin, 1);
	send_id(a);
	api_publish_again(a);
}

void api_publish_answer(struct admin_conn *a, const struct api_answer *answer)
{
	const struct verdict *v = verdict_of(answer->what);
	struct buf b = {0};

	if (v->status != 200)
		admin_error(a, v->status, v->code, v->message);
	else if (api_put_answer(&b, (struct slice){a->publish.channel, a->publish.channel_len}, answer) == -1)
		a->is_closing = true;
	else
		admin_reply(a, 200, "application/json", NULL, (struct slice){b.p, b.len});
	buf_free(&b);
	buf_free(&a->scratch);
}
