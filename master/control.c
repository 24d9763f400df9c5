#include "master/control.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "master/redis_cmd.h"
#include "master/relay.h"

#define LOG_EVERY_MS 10000u

static bool is_method(const struct json_member *m)
{
	return m->type == JSON_TYPE_STRING &&
	       (json_is(m->value, "disconnect") || json_is(m->value, "groups"));
}

static uint64_t read_origin(const struct json_member *m)
{
	char hex[17];
	char *end;
	uint64_t v;

	if (m->type != JSON_TYPE_STRING || json_string_copy(m->value, hex, sizeof(hex) - 1) != 16)
		return 0;
	hex[16] = '\0';
	v = strtoull(hex, &end, 16);
	return *end == '\0' ? v : 0;
}

bool control_read(struct slice text, uint64_t *origin)
{
	struct json_iter it;
	struct json_member m;
	bool has_method = false;
	int rc;

	*origin = 0;
	if (text.len > CONTROL_MAX || json_object_begin(&it, text) == -1)
		return false;
	while ((rc = json_object_next(&it, &m)) == 1) {
		if (json_is(m.key, "method"))
			has_method = is_method(&m);
		else if (json_is(m.key, "_rc_origin"))
			*origin = read_origin(&m);
	}
	return rc == 0 && has_method;
}

/* False: the ring is full, and enough waits for it. Redis would go on giving orders meanwhile. */
static bool to_workers(struct master *m, struct slice text)
{
	const struct rec h = {.type = REC_CONTROL};

	if (seq_is_backlogged(&m->seq)) {
		count_add(&m->count->controls_lost, 1);
		return false;
	}
	count_add(&m->count->controls, 1);
	seq_control_all_payload(&m->seq, &h, (struct slice){0}, text);
	return true;
}

/* The same with our name as its last member: of duplicates the last counts. */
static void to_replicas(struct master *m, struct slice text)
{
	struct buf b = {0};
	size_t end = text.len;

	while (end > 0 && text.p[end - 1] != '}')
		end--; /* blanks behind it */
	if (buf_put(&b, text.p, end - 1) == -1 ||
	    buf_printf(&b, ",\"_rc_origin\":\"%016" PRIx64 "\"}", m->seq.origin) == -1)
		log_event(LOG_ERROR, "no_memory", "msg=\"an order did not reach the other replicas\"");
	else
		redis_tell(m->cmd, CONTROL_CHANNEL, (struct slice){b.p, b.len});
	buf_free(&b);
}

void control_ask(struct master *m, const struct ask_question *q)
{
	uint64_t origin;

	if (!control_read(q->payload, &origin)) {
		ask_answer_bad(m, &q->from, "bad_request");
		return;
	}
	if (!to_workers(m, q->payload)) {
		ask_answer(m, &q->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
		return;
	}
	if (m->cmd != NULL)
		to_replicas(m, q->payload);
	ask_answer(m, &q->from, REC_REPLY_OK, (struct slice){0});
}

/* May it be logged again? */
static bool is_due(uint64_t *logged_ms)
{
	uint64_t now = clock_mono_ms();

	if (*logged_ms != 0 && now - *logged_ms < LOG_EVERY_MS)
		return false;
	*logged_ms = now;
	return true;
}

static void on_control(void *arg, struct slice channel, struct slice payload)
{
	static uint64_t bad_ms, lost_ms;
	struct master *m = arg;
	uint64_t origin;

	(void)channel;
	if (!control_read(payload, &origin)) {
		count_add(&m->count->controls_bad, 1);
		if (is_due(&bad_ms))
			log_event(LOG_WARN, "control_bad",
				  "channel=" CONTROL_CHANNEL " total=%" PRIu64
				  " msg=\"no order that we know\"",
				  count_get(&m->count->controls_bad));
	} else if (origin != m->seq.origin && !to_workers(m, payload) && is_due(&lost_ms)) {
		log_event(LOG_ERROR, "control_lost",
			  "channel=" CONTROL_CHANNEL " total=%" PRIu64
			  " msg=\"the ring is full, and too much waits\"",
			  count_get(&m->count->controls_lost));
	}
}

int control_start(struct master *m)
{
	return relay_listen(m, CONTROL_CHANNEL, on_control, m);
}
