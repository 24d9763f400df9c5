#include "worker/api_body.h"

#include <errno.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "common/room.h"
#include "common/wsframe.h"

/* The keys that mean something. Absent: raw value of length 0. */
struct request {
	struct json_member channel, channels, data, text, b64data, id;
};

static int fail(struct api_publish *out, int status, const char *code, const char *message)
{
	out->code = code;
	out->message = message;
	return status;
}

static int bad_request(struct api_publish *out, const char *message)
{
	return fail(out, 400, "bad_request", message);
}

static int read_request(struct slice body, struct request *req, struct api_publish *out)
{
	struct json_iter it;
	struct json_member m;
	int rc;

	memset(req, 0, sizeof(*req));
	if (json_object_begin(&it, body) == -1) {
		if (json_validate(body, NULL))
			return bad_request(out, "the body must be a JSON object");
		return fail(out, 400, "bad_json", "the body is not valid JSON");
	}
	while ((rc = json_object_next(&it, &m)) == 1) {
		if (json_is(m.key, "channel"))
			req->channel = m;
		else if (json_is(m.key, "channels"))
			req->channels = m;
		else if (json_is(m.key, "data"))
			req->data = m;
		else if (json_is(m.key, "text"))
			req->text = m;
		else if (json_is(m.key, "b64data"))
			req->b64data = m;
		else if (json_is(m.key, "id"))
			req->id = m;
	}
	return rc == 0 ? 0 : fail(out, 400, "bad_json", "the body is not valid JSON");
}

static bool is_given(const struct json_member *m)
{
	return m->value.len > 0;
}

/* "namespace" or "namespace:room" */
static int take_channel(const struct config *c, const struct json_member *m, struct api_publish *out)
{
	struct slice name;
	const char *colon;
	ssize_t n;

	if (!is_given(m) || m->type != JSON_TYPE_STRING)
		return bad_request(out, "channel: a string is required");
	n = json_string_copy(m->value, out->channel, sizeof(out->channel) - 1);
	if (n <= 0)
		return bad_request(out, "channel: empty, too long or not Unicode");
	out->channel[n] = '\0';
	out->channel_len = (size_t)n;
	colon = memchr(out->channel, ':', (size_t)n);
	name = (struct slice){out->channel, colon != NULL ? (size_t)(colon - out->channel) : (size_t)n};
	out->ns = config_find(c, name);
	if (out->ns == NULL)
		return fail(out, 404, "unknown_namespace", "channel: there is no such namespace");
	if (out->ns->room == CFG_ROOM_NONE)
		return colon == NULL ? 0 : bad_request(out, "channel: this namespace has no rooms");
	if (colon == NULL && out->ns->envelope == CFG_ENVELOPE_JSON)
		return 0; /* the payload says whom it is for */
	if (colon == NULL)
		return bad_request(out, "channel: this namespace needs a room");
	out->room = (struct slice){colon + 1, (size_t)n - name.len - 1};
	return room_is_valid(out->room) ? 0 : bad_request(out, "channel: not a valid room name");
}

/* A string without escapes is used where it stands. */
static int take_text(const struct json_member *m, struct api_publish *out, struct buf *scratch)
{
	if (m->type != JSON_TYPE_STRING)
		return bad_request(out, "text: a string is required");
	out->payload = (struct slice){m->value.p + 1, m->value.len - 2};
	if (memchr(out->payload.p, '\\', out->payload.len) == NULL)
		return 0;
	if (json_string_decode(m->value, scratch) == -1) {
		if (errno == EILSEQ)
			return bad_request(out, "text: half of a surrogate pair is no text");
		return fail(out, 503, "overloaded", "out of memory");
	}
	out->payload = (struct slice){scratch->p, scratch->len};
	return 0;
}

static int take_base64(const struct json_member *m, struct api_publish *out, struct buf *scratch)
{
	struct slice text = {m->value.p + 1, m->value.len - 2};
	ssize_t n;

	if (m->type != JSON_TYPE_STRING)
		return bad_request(out, "b64data: a string is required");
	if (memchr(text.p, '\\', text.len) != NULL) { /* "\/" is how some write a slash */
		if (json_string_decode(m->value, scratch) == -1)
			return errno == ENOMEM ? fail(out, 503, "overloaded", "out of memory")
					       : fail(out, 400, "bad_base64", "b64data: not base64");
		text = (struct slice){scratch->p, scratch->len};
	} else if (buf_reserve(scratch, BASE64_DECODED_MAX(text.len) + 1) ==
		   -1) { /* + 1: never a NULL payload */
		return fail(out, 503, "overloaded", "out of memory");
	}
	n = base64_decode(text, scratch->p);
	if (n < 0)
		return fail(out, 400, "bad_base64", "b64data: not base64 with padding");
	scratch->len = (size_t)n;
	out->payload = (struct slice){scratch->p, scratch->len};
	return 0;
}

static int take_payload(const struct request *req, struct api_publish *out, struct buf *scratch)
{
	int given = is_given(&req->data) + is_given(&req->text) + is_given(&req->b64data);

	if (given != 1)
		return bad_request(out, "exactly one of data, text and b64data is required");
	if (is_given(&req->b64data)) {
		out->opcode = WS_BINARY;
		return take_base64(&req->b64data, out, scratch);
	}
	out->opcode = WS_TEXT;
	if (is_given(&req->text))
		return take_text(&req->text, out, scratch);
	out->payload = req->data.value;
	return 0;
}

/* The publisher's name for it: only who keeps receipts has use for one. */
static int take_id(const struct json_member *m, struct api_publish *out)
{
	ssize_t n;

	if (!is_given(m) || !out->ns->receipts)
		return 0;
	n = json_canonical(m->value, m->type, out->id, sizeof(out->id));
	if (n <= 0)
		return bad_request(out, "id: a string or an integer of 1 to 255 bytes is expected");
	out->id_len = (size_t)n;
	return 0;
}

/* May it go there? */
static int judge(struct api_publish *out)
{
	if (!(out->ns->publish & CFG_SRC_API))
		return fail(out, 403, "publish_denied", "channel: this namespace takes nothing from the API");
	if (out->ns->max_publication != 0 && out->payload.len > out->ns->max_publication)
		return fail(out, 413, "too_large", "the payload is larger than max_publication");
	return 0;
}

int api_publish_parse(const struct config *c, struct slice body, struct api_publish *out, struct buf *scratch)
{
	struct request req;
	int status;

	memset(out, 0, sizeof(*out));
	scratch->len = 0;
	if ((status = read_request(body, &req, out)) != 0 ||
	    (status = take_channel(c, &req.channel, out)) != 0)
		return status;
	if (!(out->ns->publish & CFG_SRC_API))
		return judge(out);
	if ((status = take_payload(&req, out, scratch)) != 0 || (status = judge(out)) != 0)
		return status;
	return take_id(&req.id, out);
}

int api_broadcast_parse(struct slice body, struct api_publish *out, struct json_member *channels,
			struct buf *scratch)
{
	struct request req;
	int status;

	memset(out, 0, sizeof(*out));
	scratch->len = 0;
	if ((status = read_request(body, &req, out)) != 0)
		return status;
	*channels = req.channels;
	return is_given(&req.channels) ? take_payload(&req, out, scratch)
				       : bad_request(out, "channels: an array is required");
}

int api_broadcast_channel(const struct config *c, const struct json_member *m, struct api_publish *out)
{
	int status;

	out->ns = NULL;
	out->room = (struct slice){0};
	out->code = out->message = NULL;
	status = take_channel(c, m, out);
	return status != 0 ? status : judge(out);
}
