/* LINK: worker/api_body.c */
/* fuzz_api - bodies of POST /api/publish, and with them the JSON scanner, base64 and room names.
 *
 * Must hold beyond not crashing: the walk over an object and the validator agree; what is accepted obeys the
 * rules it was accepted by; what is escaped decodes to itself. */
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/json.h"
#include "common/room.h"
#include "common/utf8.h"
#include "common/wsframe.h"
#include "worker/api_body.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cfg_namespace spaces[] = {
	{.name = "demo", .room = CFG_ROOM_PATH, .publish = CFG_SRC_API, .max_publication = 64},
	{.name = "forum", .room = CFG_ROOM_NONE, .publish = CFG_SRC_API},
	{.name = "echo", .room = CFG_ROOM_CONN, .publish = CFG_SRC_CLIENT},
};

static const struct config config = {.namespaces = spaces, .n_namespaces = ARRAY_LEN(spaces)};

static void must(bool holds)
{
	if (!holds)
		abort();
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(struct slice room)
{
	char *volatile copy = malloc(8);

	if (copy != NULL && room.len > 0)
		memcpy(copy, room.p, room.len);
	free(copy);
}
#endif

static void check_publish(struct slice body)
{
	struct api_publish *out = malloc(sizeof(*out));
	struct buf scratch = {0};
	int status;

	must(out != NULL);
	status = api_publish_parse(&config, body, out, &scratch);
	must((status == 0) == (out->code == NULL) && (status == 0) == (out->message == NULL));
	if (status == 0) {
		must(out->ns != NULL && out->ns->publish & CFG_SRC_API);
		must((out->ns->room == CFG_ROOM_NONE) == (out->room.len == 0));
		must(out->room.len == 0 || room_is_valid(out->room));
		must(out->opcode == WS_BINARY || utf8_is_valid(out->payload.p, out->payload.len));
		must(out->ns->max_publication == 0 || out->payload.len <= out->ns->max_publication);
#ifdef FUZZ_PLANT_BUG
		plant(out->room);
#endif
	}
	buf_free(&scratch);
	free(out);
}

static void check_walk(struct slice text)
{
	enum json_type type = JSON_TYPE_NULL;
	bool is_valid = json_validate(text, &type);
	struct json_member m;
	struct json_iter it;
	int rc;

	if (json_object_begin(&it, text) == -1) {
		must(!is_valid || type != JSON_TYPE_OBJECT);
		return;
	}
	while ((rc = json_object_next(&it, &m)) == 1) {
		enum json_type own;

		must(m.key.p >= text.p && m.value.p + m.value.len <= text.p + text.len);
		must(json_validate(m.value, &own) && own == m.type);
		must(!json_is(m.key, "channel") || !json_is(m.key, "data"));
	}
	must((rc == 0) == is_valid);
}

static void check_route(struct slice text)
{
	char *out = malloc(16);
	enum json_route r;
	size_t len = 0;

	must(out != NULL);
	r = json_route_value(text, "k", out, 16, &len);
	must(len <= 16);
	must((r == JSON_ROUTE_BAD_UTF8 || r == JSON_ROUTE_BAD_JSON) == !json_validate(text, NULL));
	must(r != JSON_ROUTE_OK || utf8_is_valid(out, len));
	free(out);
}

static void check_round_trips(struct slice text)
{
	struct buf quoted = {0}, again = {0};
	char *b64 = malloc(BASE64_ENCODED(text.len) + 1), *back;
	size_t n;

	must(json_put_string(&quoted, text) == 0);
	must(json_validate((struct slice){quoted.p, quoted.len}, NULL));
	must(json_string_decode((struct slice){quoted.p, quoted.len}, &again) == 0);
	if (utf8_is_valid(text.p, text.len))
		must(again.len == text.len && memcmp(again.p, text.p, text.len) == 0);
	must(b64 != NULL);
	n = base64_encode(text, b64);
	back = malloc(BASE64_DECODED_MAX(n) + 1);
	must(back != NULL && base64_decode((struct slice){b64, n}, back) == (ssize_t)text.len);
	must(memcmp(back, text.p, text.len) == 0);
	free(back);
	free(b64);
	buf_free(&quoted);
	buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = {(const char *)data, size};

	if (size == 0)
		return 0;
	check_publish(text);
	check_walk(text);
	check_route(text);
	check_round_trips(text);
	return 0;
}
