/* api_broadcast.c - POST /api/broadcast: one payload to many channels, each of which has an answer of its
 * own.
 *
 * The publications go up in order, as the uplink takes them, WINDOW of them under way at a time; their
 * numbers are consecutive, so that an answer finds its place. The connection is WAITING until all of them
 * have come, or none has come for a while: then what is missing is "overloaded".
 */
#include <stdlib.h>
#include <string.h>

#include "worker/admin.h"

/* The master counts so many publications at a time and more (reached.h); of the next ones it would know
 * nothing. */
#define WINDOW 128u

struct item {
	struct slice raw; /* the channel, of the body */
	enum json_type type;
	const char *code, *message; /* why it was not published */
	bool is_answered;
	struct api_answer answer;
};

struct broadcast {
	uint32_t first; /* number of the first channel's publication */
	uint32_t n;
	uint32_t next; /* to be sent */
	uint32_t n_done;
	uint32_t n_flying; /* sent, not answered */
	struct item item[];
};

static int count_channels(struct admin_conn *a, const struct json_member *channels, uint32_t *n)
{
	struct json_iter it;
	struct slice raw;
	enum json_type type;

	*n = 0;
	if (channels->type == JSON_TYPE_ARRAY && json_array_begin(&it, channels->value) == 0) {
		while (*n <= API_BROADCAST_MAX && json_array_next(&it, &raw, &type) == 1)
			++*n;
	}
	if (*n > 0 && *n <= API_BROADCAST_MAX)
		return 0;
	admin_error(a, 400, "bad_request", "channels: an array of 1 to 1000 channels is required");
	return -1;
}

static struct broadcast *make(struct admin_conn *a, const struct json_member *channels, uint32_t n)
{
	struct broadcast *b = calloc(1, sizeof(*b) + n * sizeof(b->item[0]));
	struct json_iter it;

	if (b == NULL || json_array_begin(&it, channels->value) == -1) {
		free(b);
		return NULL;
	}
	while (b->n < n && json_array_next(&it, &b->item[b->n].raw, &b->item[b->n].type) == 1)
		b->n++;
	b->first = api_take_requests(a->worker->admin, n);
	return b;
}

void api_broadcast_free(struct admin_conn *a)
{
	if (a->broadcast == NULL)
		return;
	if (a->is_unsent)
		publish_abandon(a->worker, a->broadcast->first + a->broadcast->next);
	a->is_unsent = false;
	free(a->broadcast);
	a->broadcast = NULL;
	buf_free(&a->scratch);
}

static int put_answers(struct admin_conn *a, struct buf *out)
{
	const struct broadcast *b = a->broadcast;

	if (buf_puts(out, "{\"result\":{\"responses\":[") == -1)
		return -1;
	for (uint32_t i = 0; i < b->n; i++) {
		const struct item *item = &b->item[i];
		char name[sizeof(a->publish.channel)];
		ssize_t len = 0;
		int rc;

		if (i > 0 && buf_puts(out, ",") == -1)
			return -1;
		if (item->code != NULL) {
			rc = api_put_error(out, item->code, item->message);
		} else if (!item->is_answered) {
			rc = api_put_error(out, "overloaded", "not acknowledged in time");
		} else {
			len = json_string_copy(item->raw, name, sizeof(name));
			rc = api_put_answer(out, (struct slice){name, len < 0 ? 0 : (size_t)len},
					    &item->answer);
		}
		if (rc == -1)
			return -1;
	}
	return buf_puts(out, "]}}");
}

void api_broadcast_end(struct admin_conn *a)
{
	struct buf out = {0};

	if (put_answers(a, &out) == -1)
		admin_error(a, 503, "overloaded", "no memory");
	else
		admin_reply(a, 200, "application/json", NULL, (struct slice){out.p, out.len});
	buf_free(&out);
	api_broadcast_free(a);
}

bool api_broadcast_again(struct admin_conn *a)
{
	struct broadcast *b = a->broadcast;

	a->is_unsent = false;
	for (; b->next < b->n && b->n_flying < WINDOW; b->next++) {
		struct item *item = &b->item[b->next];
		const struct json_member m = {.value = item->raw, .type = item->type};

		if (api_broadcast_channel(a->worker->config, &m, &a->publish) != 0) {
			item->code = a->publish.code;
			item->message = a->publish.message;
			b->n_done++;
		} else if (api_send(a, b->first + b->next) == PUBLISH_BUSY) {
			a->is_unsent = true;
			return false;
		} else {
			b->n_flying++;
		}
	}
	return b->n_done == b->n;
}

bool api_broadcast_asked(const struct admin_conn *a, uint32_t request)
{
	return a->broadcast != NULL && request - a->broadcast->first < a->broadcast->n;
}

bool api_broadcast_answer(struct admin_conn *a, uint32_t request, const struct api_answer *answer)
{
	struct broadcast *b = a->broadcast;
	struct item *item = &b->item[request - b->first];

	if (!item->is_answered && item->code == NULL) {
		item->is_answered = true;
		item->answer = *answer;
		b->n_done++;
		b->n_flying--;
	}
	/* While a message is half-way up, admin_resume() goes on. */
	return a->is_unsent ? b->n_done == b->n : api_broadcast_again(a);
}

void api_broadcast(struct admin_conn *a, struct slice body)
{
	struct json_member channels;
	int status = api_broadcast_parse(body, &a->publish, &channels, &a->scratch);
	uint32_t n;

	if (status != 0) {
		admin_error(a, status, a->publish.code, a->publish.message);
		return;
	}
	if (count_channels(a, &channels, &n) == -1)
		return;
	a->broadcast = make(a, &channels, n);
	if (a->broadcast == NULL)
		admin_error(a, 503, "overloaded", "no memory");
	else if (api_broadcast_again(a))
		api_broadcast_end(a); /* no channel was any good */
}
