#include "worker/api_parse.h"

#include <string.h>

#include "common/room.h"
#include "common/utf8.h"

#define REASON_MAX 123u /* of a Close frame, bytes */

int api_fail(struct api_fault *f, int status, const char *code, const char *message)
{
	*f = (struct api_fault){code, message};
	return status;
}

static int bad_request(struct api_fault *f, const char *message)
{
	return api_fail(f, 400, "bad_request", message);
}

static int no_memory(struct api_fault *f)
{
	return api_fail(f, 503, "overloaded", "out of memory");
}

int api_read(struct slice body, struct api_member *v, size_t n, struct api_fault *f)
{
	struct json_iter it;
	struct json_member m;
	int rc;

	if (json_object_begin(&it, body) == -1) {
		if (json_validate(body, NULL))
			return bad_request(f, "the body must be a JSON object");
		return api_fail(f, 400, "bad_json", "the body is not valid JSON");
	}
	while ((rc = json_object_next(&it, &m)) == 1) {
		for (size_t i = 0; i < n; i++) {
			if (json_is(m.key, v[i].key))
				v[i].m = m;
		}
	}
	return rc == 0 ? 0 : api_fail(f, 400, "bad_json", "the body is not valid JSON");
}

static bool is_given(const struct api_member *v)
{
	return v->m.value.len > 0;
}

int api_channel_parse(const struct config *c, const struct json_member *m, struct api_channel *out,
		      struct api_fault *f)
{
	const char *colon;
	ssize_t n;

	*out = (struct api_channel){0};
	if (m->value.len == 0 || m->type != JSON_TYPE_STRING)
		return bad_request(f, "channel: a string is required");
	n = json_string_copy(m->value, out->name, sizeof(out->name));
	if (n <= 0)
		return bad_request(f, "channel: empty, too long or not Unicode");
	out->name_len = (size_t)n;
	colon = memchr(out->name, ':', out->name_len);
	n = colon == NULL ? n : colon - out->name;
	out->ns = config_find(c, (struct slice){out->name, (size_t)n});
	if (out->ns == NULL)
		return api_fail(f, 404, "unknown_namespace", "channel: there is no such namespace");
	if (colon == NULL)
		return 0;
	if (out->ns->room == CFG_ROOM_NONE)
		return bad_request(f, "channel: this namespace has no rooms");
	out->room = (struct slice){colon + 1, out->name_len - (size_t)n - 1};
	return room_is_valid(out->room) ? 0 : bad_request(f, "channel: not a valid room name");
}

int api_presence_parse(const struct config *c, struct slice body, struct api_channel *out,
		       struct api_fault *f)
{
	struct api_member v[] = {{.key = "channel"}};
	int status = api_read(body, v, ARRAY_LEN(v), f);

	if (status == 0)
		status = api_channel_parse(c, &v[0].m, out, f);
	if (status == 0 && !out->ns->presence)
		status = api_fail(f, 400, "not_available",
				  "channel: the namespace does not keep who is online (presence)");
	return status;
}

/* ---- orders */

/* A user id, as a JSON string: integers in their canonical form. */
static int put_user(struct buf *out, struct slice raw, enum json_type type, struct api_fault *f)
{
	char text[API_GROUP_MAX];
	ssize_t n = json_canonical(raw, type, text, sizeof(text));

	if (n <= 0)
		return bad_request(f, "users are strings or integers of 1 to 255 bytes");
	return json_put_string(out, (struct slice){text, (size_t)n}) == -1 ? no_memory(f) : 0;
}

/* What a member's text has to be, for who sent something else. */
static int bad_text(struct api_fault *f, const char *key)
{
	static const char *const wanted[][2] = {
		{"session", "session: a string of 1 to 255 bytes is required"},
		{"conn", "conn: a string of 1 to 255 bytes is required"},
		{"group", "group: a string of 1 to 255 bytes is required"},
		{"reason", "reason: a string of at most 123 bytes is required"},
		{"namespace", "namespace: a namespace's name is required"},
	};

	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		if (strcmp(key, wanted[i][0]) == 0)
			return bad_request(f, wanted[i][1]);
	}
	return bad_request(f, "a string is required");
}

/* ,"key":"text" */
static int put_text(struct buf *out, const struct api_member *v, size_t max, struct api_fault *f)
{
	char text[API_PATTERN_MAX];
	ssize_t n = -1;

	if (v->m.type == JSON_TYPE_STRING)
		n = json_string_copy(v->m.value, text, max);
	if (n < 0 || (n == 0 && strcmp(v->key, "reason") != 0))
		return bad_text(f, v->key);
	if (buf_printf(out, ",\"%s\":", v->key) == -1 ||
	    json_put_string(out, (struct slice){text, (size_t)n}) == -1)
		return no_memory(f);
	return 0;
}

/* What says why (1000 would say that all is well); codes that no Close may carry are none. */
static int put_code(struct buf *out, const struct api_member *v, struct api_fault *f)
{
	unsigned code = 0;

	for (size_t i = 0; v->m.type == JSON_TYPE_NUMBER && i < v->m.value.len && v->m.value.len == 4; i++) {
		if (v->m.value.p[i] < '0' || v->m.value.p[i] > '9')
			return bad_request(f, "code: a close code is required");
		code = code * 10 + (unsigned)(v->m.value.p[i] - '0');
	}
	if ((code < 1001 || code > 1003) && (code < 1007 || code > 1014) && (code < 3000 || code > 4999))
		return bad_request(f, "code: 1001 to 1003, 1007 to 1014, or 3000 to 4999");
	return buf_printf(out, ",\"code\":%u", code) == -1 ? no_memory(f) : 0;
}

static int put_whom(const struct config *c, struct buf *order, const struct api_member *v,
		    struct api_fault *f)
{
	struct api_channel channel;
	int status;

	if (strcmp(v->key, "user") == 0) {
		if (buf_puts(order, ",\"user\":") == -1)
			return no_memory(f);
		return put_user(order, v->m.value, v->m.type, f);
	}
	if (strcmp(v->key, "channel") == 0) {
		status = api_channel_parse(c, &v->m, &channel, f);
		if (status == 0 && channel.room.len == 0 && channel.ns->room != CFG_ROOM_NONE)
			status = bad_request(f, "channel: this namespace needs a room");
		return status != 0 ? status : put_text(order, v, sizeof(channel.name), f);
	}
	return put_text(order, v, API_GROUP_MAX, f);
}

int api_disconnect_parse(const struct config *c, struct slice body, struct buf *order, struct api_fault *f)
{
	struct api_member v[] = {{.key = "user"}, {.key = "session"}, {.key = "conn"},     {.key = "channel"},
				 {.key = "code"}, {.key = "reason"},  {.key = "namespace"}};
	struct api_channel channel;
	int status = api_read(body, v, ARRAY_LEN(v), f);
	unsigned given = 0;

	if (status != 0)
		return status;
	if (buf_puts(order, "{\"method\":\"disconnect\"") == -1)
		return no_memory(f);
	for (size_t i = 0; i < 4; i++) {
		if (!is_given(&v[i]))
			continue;
		given++;
		if ((status = put_whom(c, order, &v[i], f)) != 0)
			return status;
	}
	if (given != 1)
		return bad_request(f, "exactly one of user, session, conn and channel is required");
	if (is_given(&v[4]) && (status = put_code(order, &v[4], f)) != 0)
		return status;
	if (is_given(&v[5]) && (status = put_text(order, &v[5], REASON_MAX, f)) != 0)
		return status;
	if (is_given(&v[6])) {
		status = api_channel_parse(c, &v[6].m, &channel, f);
		if (status == 0 && channel.room.len > 0)
			status = bad_request(f, "namespace: a namespace's name is required");
		if (status != 0 || (status = put_text(order, &v[6], CFG_NAME_MAX, f)) != 0)
			return status;
	}
	return buf_puts(order, "}") == -1 ? no_memory(f) : 0;
}

/* ,"key":["7","8"]; absent: an empty list. */
static int put_users(struct buf *order, const struct api_member *v, struct api_fault *f)
{
	struct json_iter it;
	struct slice raw;
	enum json_type type;
	int status = 0;

	if (buf_printf(order, ",\"%s\":[", v->key) == -1)
		return no_memory(f);
	if (is_given(v)) {
		bool is_first = true;

		if (v->m.type != JSON_TYPE_ARRAY || json_array_begin(&it, v->m.value) == -1)
			return bad_request(f, "add, remove: arrays are required");
		while (status == 0 && json_array_next(&it, &raw, &type) == 1) {
			if (!is_first && buf_puts(order, ",") == -1)
				return no_memory(f);
			is_first = false;
			status = put_user(order, raw, type, f);
		}
	}
	if (status != 0)
		return status;
	return buf_puts(order, "]") == -1 ? no_memory(f) : 0;
}

int api_groups_parse(struct slice body, struct buf *order, struct api_fault *f)
{
	struct api_member v[] = {{.key = "group"}, {.key = "add"}, {.key = "remove"}};
	int status = api_read(body, v, ARRAY_LEN(v), f);

	if (status != 0)
		return status;
	if (!is_given(&v[0]))
		return bad_text(f, v[0].key);
	if (buf_puts(order, "{\"method\":\"groups\"") == -1)
		return no_memory(f);
	if ((status = put_text(order, &v[0], API_GROUP_MAX, f)) != 0)
		return status;
	if (!is_given(&v[1]) && !is_given(&v[2]))
		return bad_request(f, "at least one of add and remove is required");
	if ((status = put_users(order, &v[1], f)) != 0 || (status = put_users(order, &v[2], f)) != 0)
		return status;
	return buf_puts(order, "}") == -1 ? no_memory(f) : 0;
}

/* ---- questions */

int api_nothing_parse(struct slice body, struct api_fault *f)
{
	return body.len == 0 ? 0 : api_read(body, NULL, 0, f);
}

int api_channels_parse(struct slice body, struct buf *prefix, struct api_fault *f)
{
	struct api_member v[] = {{.key = "pattern"}};
	char text[API_PATTERN_MAX];
	ssize_t n = -1;
	int status = body.len == 0 ? 0 : api_read(body, v, ARRAY_LEN(v), f);

	if (status != 0 || !is_given(&v[0]))
		return status;
	if (v[0].m.type == JSON_TYPE_STRING)
		n = json_string_copy(v[0].m.value, text, sizeof(text));
	if (n < 0)
		return bad_request(f, "pattern: a string is required, at most as long as a channel's name");
	return buf_put(prefix, text, (size_t)n) == -1 ? no_memory(f) : 0;
}
