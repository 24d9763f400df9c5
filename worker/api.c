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

/* `dropped`: why nobody gets it; NULL: it is on its way. */
static void publish_result(struct admin_conn *a, const char *redis, const char *dropped, uint64_t seq,
			   uint64_t epoch)
{
	struct buf b = {0};

	if (buf_puts(&b, "{\"result\":{\"channel\":") == -1 ||
	    json_put_string(&b, (struct slice){a->publish.channel, a->publish.channel_len}) == -1 ||
	    buf_printf(&b, ",\"seq\":%" PRIu64 ",\"epoch\":\"%016" PRIx64 "\",\"redis\":\"%s\"", seq, epoch,
		       redis) == -1 ||
	    (dropped != NULL && buf_printf(&b, ",\"dropped\":\"%s\"", dropped) == -1) ||
	    buf_puts(&b, "}}") == -1)
		a->is_closing = true;
	else
		admin_reply(a, 200, "application/json", NULL, (struct slice){b.p, b.len});
	buf_free(&b);
}

void api_publish_answer(struct admin_conn *a, enum rec_answer answer, uint64_t seq, uint64_t epoch)
{
	switch (answer) {
	case REC_SENT:
		publish_result(a, "sent", NULL, seq, epoch);
		break;
	case REC_QUEUED:
		publish_result(a, "queued", NULL, seq, epoch);
		break;
	case REC_OFF:
		publish_result(a, "off", NULL, seq, epoch);
		break;
	/* The publisher has made no mistake: there is nobody whom it is for. */
	case REC_NO_TARGET:
		publish_result(a, "off", "no_target", seq, epoch);
		break;
	case REC_UNTARGETED:
		publish_result(a, "off", "untargeted", seq, epoch);
		break;
	case REC_TOO_LARGE:
		admin_error(a, 413, "too_large", "the payload is larger than max_publication");
		break;
	case REC_BAD_JSON:
		admin_error(a, 400, "bad_json", "the payload is not valid JSON");
		break;
	case REC_NOT_OBJECT:
		admin_error(a, 400, "bad_request", "the payload is no JSON object");
		break;
	case REC_NO_ROUTE:
		admin_error(a, 400, "bad_request", "the payload does not name a room by its route_key");
		break;
	case REC_OVERLOADED:
		admin_error(a, 503, "overloaded", "the message could not be taken");
		break;
	}
	buf_free(&a->scratch);
}
