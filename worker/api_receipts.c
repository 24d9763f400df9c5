/* api_receipts.c - POST /api/receipts: who has read a message. */
#include "worker/admin.h"
#include "worker/api_parse.h"

/* {"channel":"chat:a","id":"m1"}: the id is a string or an integer. */
static int parse(const struct config *c, struct slice body, struct api_channel *channel,
		 char id[API_GROUP_MAX], size_t *id_len, struct api_fault *f)
{
	struct api_member v[] = {{.key = "channel"}, {.key = "id"}};
	int status = api_read(body, v, ARRAY_LEN(v), f);
	ssize_t len;

	if (status == 0)
		status = api_channel_parse(c, &v[0].m, channel, f);
	if (status != 0)
		return status;
	if (!channel->ns->receipts)
		return api_fail(f, 400, "not_available", "channel: the namespace keeps no receipts");
	if ((channel->room.len == 0) != (channel->ns->room == CFG_ROOM_NONE))
		return api_fail(f, 400, "bad_request", "channel: a room is expected");
	len = v[1].m.value.len == 0 ? -1 : json_canonical(v[1].m.value, v[1].m.type, id, API_GROUP_MAX);
	if (len <= 0)
		return api_fail(f, 400, "bad_request",
				"id: a string or an integer of 1 to 255 bytes is expected");
	*id_len = (size_t)len;
	return 0;
}

void api_receipts(struct admin_conn *a, struct slice body)
{
	char id[API_GROUP_MAX];
	struct api_channel channel;
	struct api_fault f;
	struct ask q = {.what = UP_ASK_RECEIPTS};
	int status = parse(a->worker->config, body, &channel, id, &q.payload.len, &f);

	if (status != 0) {
		admin_error(a, status, f.code, f.message);
		return;
	}
	q.ns = channel.ns->id;
	q.room = channel.room;
	q.payload.p = id;
	api_ask(a, &q);
}
