/* LINK: worker/handshake.c worker/http.c */
/* fuzz_http - what comes before the first WebSocket frame: head, body, handshake.
 *
 * Input: one byte that chooses limits and cut, then the connection's bytes. Beyond not crashing, these must
 * hold: the outcome does not depend on how the input is cut; what was accepted has its parts inside the
 * buffer; each verdict has an answer. */
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *any[] = {"*"};
static char *list[] = {"https://app.example", "http://other.example:8080"};

static struct cfg_namespace spaces[] = {
	{.name = "demo",
	 .path_prefix = "/ws/",
	 .path_suffix = "",
	 .room = CFG_ROOM_PATH,
	 .origins = any,
	 .n_origins = 1},
	{.name = "live", .path_prefix = "/ws/", .path_suffix = "/live", .room = CFG_ROOM_PATH},
	{.name = "echo",
	 .path_prefix = "/echo",
	 .path_suffix = "",
	 .room = CFG_ROOM_CONN,
	 .origins = list,
	 .n_origins = 2},
};

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(const char *room, size_t len)
{
	char *volatile name = malloc(5);

	if (name != NULL)
		memcpy(name, room, len);
	free(name);
}
#endif

struct outcome {
	enum http_result head, body;
	struct http_parser p;
	char *buf; /* of exactly the size that was given */
	size_t len;
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* A new buffer without a spare byte: a read past the end must be seen. more > 0. */
static void give(struct outcome *o, const char *text, size_t more)
{
	char *moved = malloc(o->len + more);

	must(moved != NULL);
	memcpy(moved, o->buf, o->len);
	memcpy(moved + o->len, text, more);
	free(o->buf);
	o->buf = moved;
	o->len += more;
}

/* Step by step until there is a verdict or nothing is left. */
static void run(struct outcome *o, const struct cfg_limits *limits, const char *text, size_t len, size_t step,
		uint64_t max_body)
{
	memset(o, 0, sizeof(*o));
	http_init(&o->p, limits);
	o->buf = malloc(1);
	must(o->buf != NULL);
	for (size_t at = 0; at < len; at += step) {
		if (step > len - at)
			step = len - at;
		give(o, text + at, step);
		o->head = http_parse(&o->p, o->buf, o->len);
		if (o->head == HTTP_BAD)
			return;
		if (o->head == HTTP_DONE && http_has_body(&o->p)) {
			o->body = http_body(&o->p, o->buf, o->len, max_body);
			if (o->body != HTTP_MORE)
				return;
		} else if (o->head == HTTP_DONE) {
			return;
		}
	}
}

static void check_span(const struct outcome *o, struct http_span s)
{
	must(s.off <= o->p.head_len && s.len <= o->p.head_len - s.off);
}

static void check_head(const struct outcome *o)
{
	const struct http_parser *p = &o->p;
	struct slice v;

	must(p->head_len > 0 && p->head_len <= o->len && p->head_len <= p->max_head);
	must(memcmp(o->buf + p->head_len - 4, "\r\n\r\n", 4) == 0 && p->n_headers <= p->max_headers);
	check_span(o, p->path);
	check_span(o, p->query);
	check_span(o, p->host);
	for (unsigned i = 0; i < p->n_headers; i++)
		must(p->headers[i].name + p->headers[i].name_len + 1 + p->headers[i].value_gap +
			     p->headers[i].value_len + 2 <
		     p->head_len);
	must(http_header(p, o->buf, "host", &v) <= 1);
	must(!(p->is_chunked && p->has_length));
	must(!http_expects_continue(p, o->buf) || p->minor == 1);
	must(!http_keep_alive(p, o->buf) || !http_has_token(p, o->buf, "connection", "close"));
}

static void check_handshake(const struct config *config, const struct outcome *o)
{
	struct handshake *h = malloc(sizeof(*h));
	char answer[HANDSHAKE_REFUSAL_SIZE];
	int status;

	must(h != NULL);
	status = handshake_check(config, &o->p, o->buf, h);
	must((status == 0) == (h->reason == NULL));
	if (status != 0) {
		must(handshake_refusal(answer, sizeof(answer), status) > 0 &&
		     *handshake_phrase(status) != '\0');
	} else {
		must(o->p.method == HTTP_GET && o->p.minor == 1 && !http_has_body(&o->p));
		must((h->ns->room == CFG_ROOM_PATH && !h->is_bad_room) == (h->room_len > 0));
		must(h->room_len <= CFG_ROOM_MAX && h->room[h->room_len] == '\0' &&
		     utf8_is_valid(h->room, h->room_len));
		must(handshake_response(answer, HANDSHAKE_RESPONSE_SIZE, h) > 0);
#ifdef FUZZ_PLANT_BUG
		plant(h->room, h->room_len);
#endif
	}
	free(h);
}

/* The same end, whichever way it came. */
static void check_same(const struct outcome *a, const struct outcome *b)
{
	must(a->head == b->head);
	if (a->head == HTTP_DONE) {
		must(a->p.head_len == b->p.head_len && a->p.n_headers == b->p.n_headers &&
		     a->p.method == b->p.method);
		must(a->p.content_length == b->p.content_length && a->p.is_chunked == b->p.is_chunked);
	}
	/* a body too long and malformed may be seen as either first */
	if (a->body == HTTP_DONE && b->body == HTTP_DONE) {
		must(a->p.body_len == b->p.body_len && a->p.end == b->p.end);
		must(memcmp(a->buf + a->p.head_len, b->buf + b->p.head_len, a->p.body_len) == 0);
	} else if (a->head == HTTP_BAD) {
		must(a->p.status == b->p.status);
	}
	must((a->body == HTTP_DONE) == (b->body == HTTP_DONE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config config = {.namespaces = spaces, .n_namespaces = ARRAY_LEN(spaces)};
	static struct outcome whole, parts;
	uint64_t max_body;
	size_t step;

	if (size < 2)
		return 0;
	config.limits.max_head = data[0] & 1 ? 400 : 16384;
	config.limits.max_headers = data[0] & 2 ? 6 : 0;
	config.limits.unknown_path_status = data[0] & 4 ? 403 : 0;
	max_body = data[0] & 8 ? 32 : 1 << 20;
	step = 1 + (data[0] >> 4);
	run(&whole, &config.limits, (const char *)data + 1, size - 1, size - 1, max_body);
	run(&parts, &config.limits, (const char *)data + 1, size - 1, step, max_body);
	check_same(&whole, &parts);
	if (whole.head == HTTP_DONE) {
		check_head(&whole);
		check_head(&parts);
		check_handshake(&config, &parts);
	} else if (whole.head == HTTP_BAD) {
		must(whole.p.status >= 400 && whole.p.reason != NULL);
	}
	free(whole.buf);
	free(parts.buf);
	return 0;
}
