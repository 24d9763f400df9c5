/* api.c - POST /api/publish. */
#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"
#include "worker/admin.h"

void api_publish_again(struct admin_conn *a)
{
	a->is_unsent = publish_message(a->worker, a->publish.ns, a->publish.room, a->publish.opcode,
				       a->publish.payload, CFG_SRC_API, a->request) == PUBLISH_BUSY;
}

void api_publish(struct admin_conn *a, struct slice body)
{
	struct admin *ad = a->worker->admin;
	int status = api_publish_parse(a->worker->config, body, &a->publish, &a->scratch);

	if (status != 0) {
		admin_error(a, status, a->publish.code, a->publish.message);
		return;
	}
	/* The payload lies in the connection's own buffers, which nobody moves while the request is WAITING.
	 */
	ad->next_request = (ad->next_request + 1) & ~UP_REQUEST_ANSWER;
	a->request = ad->next_request | UP_REQUEST_ANSWER;
	api_publish_again(a);
}

void api_publish_answer(struct admin_conn *a, enum rec_answer answer, uint64_t seq, uint64_t epoch)
{
	static const char *const redis[] = {[REC_SENT] = "sent", [REC_QUEUED] = "queued", [REC_OFF] = "off"};
	struct buf b = {0};

	switch (answer) {
	case REC_TOO_LARGE:
		admin_error(a, 413, "too_large", "the payload is larger than max_publication");
		break;
	case REC_BAD_JSON:
		admin_error(a, 400, "bad_json", "the payload is no JSON object");
		break;
	case REC_NO_TARGET:
	case REC_UNTARGETED:
	case REC_NO_ROUTE:
		admin_error(a, 400, "bad_request", "the payload does not name a room by its route_key");
		break;
	case REC_OVERLOADED:
		admin_error(a, 503, "overloaded", "the message could not be taken");
		break;
	case REC_SENT:
	case REC_QUEUED:
	case REC_OFF:
		if (buf_puts(&b, "{\"result\":{\"channel\":") == -1 ||
		    json_put_string(&b, (struct slice){a->publish.channel, a->publish.channel_len}) == -1 ||
		    buf_printf(&b, ",\"seq\":%" PRIu64 ",\"epoch\":\"%016" PRIx64 "\",\"redis\":\"%s\"}}",
			       seq, epoch, redis[answer]) == -1)
			a->is_closing = true;
		else
			admin_reply(a, 200, "application/json", NULL, (struct slice){b.p, b.len});
		break;
	}
	buf_free(&b);
	buf_free(&a->scratch);
}
