/* LINK: master/control.c master/nodes.c master/survey.c master/sketch.c master/kmv.c master/table.c
 *       shm/record.c shm/ring.c shm/counters.c shm/seg.c
 * COVER: master/control.c master/nodes.c master/survey.c master/sketch.c */
/* fuzz_replicas - what other replicas, Redis and workers tell the master: orders, the list of replicas, their
 * texts, channels by name. The input is a script; Redis answers what it likes, when it likes.
 *
 * Must hold beyond not crashing: an order that workers get is one; what replicas get of it carries our name,
 * so that its echo goes no further; /api/info and /api/channels are JSON whatever others wrote; each question
 * has one answer.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "master/control.h"
#include "master/nodes.h"
#include "master/presence_redis.h"
#include "master/redis_cmd.h"
#include "master/relay.h"
#include "master/survey.h"
#include "tests/fuzz/script.h"

#define ORIGIN    0x1122334455667788u
#define CALLS_MAX 64
#define WORKERS   3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct call {
	redis_cmd_fn *fn;
	void *arg;
	size_t n; /* keys of an MGET; 0: another command */
};

static struct {
	struct master m;
	struct globals globals;
	struct presence presence;
	struct counters count;
	relay_internal_fn *on_control, *on_changed;
	void *control_arg, *changed_arg;
	struct redis_cmd_events ev;
	bool is_open;
	struct call call[CALLS_MAX];
	unsigned n_calls, n_orders, n_asked, n_answered;
} w;

/* A piece of the script as memory of its own, so that a read past its end is seen. */
static struct slice piece(struct script *s)
{
	size_t len = (size_t)next(s) * 4;
	char *copy;

	if (len > s->len)
		len = s->len;
	copy = malloc(len + 1);
	assert(copy != NULL);
	copy = realloc(copy, len == 0 ? 1 : len);
	assert(copy != NULL);
	if (len > 0)
		memcpy(copy, s->p, len);
	s->p += len;
	s->len -= len;
	return (struct slice){copy, len};
}

static void free_piece(struct slice s)
{
	free((void *)(uintptr_t)s.p);
}

static void is_object(struct slice text)
{
	enum json_type type;

	assert(json_validate(text, &type) && type == JSON_TYPE_OBJECT);
}

/* ---- the rest of the master */

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(struct slice order)
{
	char *volatile copy = malloc(40);

	if (copy != NULL)
		memcpy(copy, order.p, order.len);
	free(copy);
}
#endif

void seq_control_all_payload(struct sequencer *s, const struct rec *h, struct slice room,
			     struct slice payload)
{
	uint64_t origin;

	assert(s == &w.m.seq && room.len == 0);
	if (h->type != REC_CONTROL)
		return;
	assert(control_read(payload, &origin) && payload.len <= CONTROL_MAX);
	is_object(payload);
	assert(!seq_is_backlogged(s));
	w.n_orders++;
#ifdef FUZZ_PLANT_BUG
	plant(payload);
#endif
}

void redis_tell(struct redis_cmd *c, const char *channel, struct slice payload)
{
	uint64_t origin;
	unsigned before = w.n_orders;

	(void)c;
	assert(strcmp(channel, CONTROL_CHANNEL) == 0);
	is_object(payload);
	/* A few bytes longer than what came: an order that only just fits is one for this host alone. */
	assert(payload.len > CONTROL_MAX || (control_read(payload, &origin) && origin == ORIGIN));
	w.on_control(w.control_arg, (struct slice){channel, strlen(channel)}, payload);
	assert(w.n_orders == before);
}

size_t ask_reply_max(const struct master *m)
{
	(void)m;
	return 2000;
}

void ask_answer(struct master *m, const struct ask_from *to, enum rec_reply reply, struct slice payload)
{
	assert(m == &w.m && to->slot < WORKERS);
	w.n_answered++;
	assert(w.n_answered <= w.n_asked);
	if (reply == REC_REPLY_OK && payload.len > 0)
		is_object(payload);
}

void ask_answer_bad(struct master *m, const struct ask_from *to, const char *code)
{
	(void)code;
	ask_answer(m, to, REC_REPLY_BAD, (struct slice){0});
}

int relay_listen(struct master *m, const char *channel, relay_internal_fn *fn, void *arg)
{
	(void)m;
	if (strcmp(channel, CONTROL_CHANNEL) == 0) {
		w.on_control = fn;
		w.control_arg = arg;
	} else {
		w.on_changed = fn;
		w.changed_arg = arg;
	}
	return 0;
}

int relay_watch(struct master *m, const struct redis_cmd_events *ev)
{
	(void)m;
	w.ev = *ev;
	return 0;
}

void presence_redis_leave(struct master *m)
{
	(void)m;
}

bool redis_cmd_is_open(const struct redis_cmd *c)
{
	(void)c;
	return w.is_open;
}

int redis_cmd_call(struct redis_cmd *c, size_t argc, const struct slice *argv, redis_cmd_fn *fn, void *arg)
{
	(void)c;
	for (size_t i = 0; i < argc; i++)
		assert(argv[i].p != NULL);
	if (!w.is_open || w.n_calls == CALLS_MAX)
		return -1;
	if (fn == NULL)
		return 0;
	if (memcmp(argv[0].p, "PUBLISH", argv[0].len) == 0) {
		fn(arg, NULL); /* a stop waits for this one */
		return 0;
	}
	w.call[w.n_calls++] =
		(struct call){fn, arg, memcmp(argv[0].p, "MGET", argv[0].len) == 0 ? argc - 1 : 0};
	return 0;
}

/* ---- Redis */

static redisReply text_reply(struct slice text)
{
	return (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text.p, .len = text.len};
}

/* hiredis ends each string with a NUL. */
static struct slice with_nul(struct slice s)
{
	char *copy = realloc((void *)(uintptr_t)s.p, s.len + 1);

	assert(copy != NULL);
	copy[s.len] = '\0';
	return (struct slice){copy, s.len};
}

static struct slice node_name(struct script *s)
{
	uint8_t how = next(s);
	char *name = malloc(17);

	if (how >= 250) {
		free(name);
		return with_nul(piece(s));
	}
	assert(name != NULL);
	snprintf(name, 17, "%016" PRIx64, how == 0 ? ORIGIN : (uint64_t)how % 16);
	return (struct slice){name, 16};
}

/* What a replica of this version says, about. */
static struct slice node_text(struct script *s, bool is_users)
{
	static const char *const texts[] = {
		"{\"node\":\"1\",\"connections\":7,\"users\":3,\"namespaces\":{\"demo\":{\"connections\":7,"
		"\"users\":3}}}",
		"{\"connections\":\"18446744073709551615\"}",
		"{\"demo\":\"00112233445566778899aabbccddeeff\",\"news\":\"0011223344556677\",\"x\":7}",
		"{\"demo\":\"00112233445566778899aabbccddeef\",\"demo\":\"\"}",
	};
	uint8_t how = next(s);
	char *copy;

	if (how >= 128)
		return with_nul(piece(s));
	copy = strdup(texts[how % 2 + (is_users ? 2 : 0)]);
	assert(copy != NULL);
	return (struct slice){copy, strlen(copy)};
}

static void answer_call(struct script *s)
{
	struct call call;
	redisReply reply = {.type = REDIS_REPLY_ARRAY}, part[2 * NODES_MAX + 2], *list[2 * NODES_MAX + 2];
	uint8_t how = next(s);
	size_t n;

	if (w.n_calls == 0)
		return;
	call = w.call[0];
	memmove(w.call, w.call + 1, --w.n_calls * sizeof(w.call[0]));
	if (how < 8) {
		reply.type = how < 4 ? REDIS_REPLY_ERROR : REDIS_REPLY_INTEGER;
		reply.str = (char *)(uintptr_t) "NOPERM";
		reply.len = 6;
		call.fn(call.arg, how == 7 ? NULL : &reply);
		return;
	}
	n = call.n > 0 ? call.n - (how == 8) : next(s);
	for (size_t i = 0; i < n; i++) {
		part[i] = text_reply(call.n > 0 ? node_text(s, i % 2 == 1) : node_name(s));
		list[i] = &part[i];
		if (s->len > 0 && *s->p == 0xff)
			part[i].type = REDIS_REPLY_NIL;
	}
	reply.elements = n;
	reply.element = list;
	call.fn(call.arg, &reply);
	for (size_t i = 0; i < n; i++)
		free(part[i].str);
}

static void toggle_link(void)
{
	w.is_open = !w.is_open;
	if (w.is_open) {
		w.ev.open(w.ev.arg);
		return;
	}
	while (w.n_calls > 0) {
		struct call call = w.call[--w.n_calls];

		call.fn(call.arg, NULL);
	}
	w.ev.lost(w.ev.arg);
}

/* ---- the script */

static void look(void)
{
	struct buf b = {0};
	bool is_known;
	unsigned n;

	(void)nodes_others(&w.m, &n, &is_known);
	assert(n <= NODES_MAX && (is_known || n == 0));
	assert(nodes_info(&w.m, &b) == 0);
	is_object((struct slice){b.p, b.len});
	buf_free(&b);
	assert(w.globals.cluster_nodes == n + 1);
}

static void ask(struct script *s, bool is_order)
{
	struct slice text = piece(s);
	struct ask_question q = {.what = is_order ? UP_ASK_CONTROL : UP_ASK_CHANNELS,
				 .payload = text,
				 .from = {.slot = next(s) % WORKERS, .request = ++w.n_asked}};

	if (is_order)
		control_ask(&w.m, &q);
	else
		survey_ask(&w.m, &q);
	free_piece(text);
}

static void tell(struct script *s)
{
	uint8_t how = next(s);
	struct slice text = how & 64 ? piece(s) : (struct slice){strdup("{\"demo:a\":3,\"demo:b\":12}"), 24};

	survey_told(&w.m, &w.m.child[how % WORKERS], how >> 2 & 15, how & 128, text);
	free_piece(text);
}

static void come(struct script *s, relay_internal_fn *fn, void *arg)
{
	struct slice text = piece(s);

	fn(arg, (struct slice){"x", 1}, text);
	free_piece(text);
}

static void step(struct script *s)
{
	static uint64_t now_ms;

	switch (next(s) % 11) {
	case 0:
		come(s, w.on_control, w.control_arg);
		break;
	case 1:
		come(s, w.on_changed, w.changed_arg);
		break;
	case 2:
		toggle_link();
		break;
	case 3:
	case 4:
		answer_call(s);
		break;
	case 5:
		now_ms = clock_mono_ms() + (uint64_t)next(s) * 100;
		nodes_tick(&w.m, now_ms);
		break;
	case 6:
		ask(s, true);
		break;
	case 7:
		ask(s, false);
		break;
	case 8:
		tell(s);
		break;
	case 9:
		survey_worker_died(&w.m, &w.m.child[next(s) % WORKERS]);
		break;
	default:
		w.m.seq.waiting.len = next(s) % 4 == 0 ? SEQ_WAITING_MAX : 0;
	}
	look();
}

static void begin(void)
{
	static struct slot slots[WORKERS];
	struct ev_loop *loop = w.m.loop;
	int fd = w.m.counters_fd;

	memset(&w, 0, sizeof(w));
	w.m.loop = loop != NULL ? loop : ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	w.m.counters_fd = loop != NULL ? fd : counters_create();
	assert(w.m.loop != NULL && w.m.counters_fd != -1);
	w.m.globals = &w.globals;
	w.m.count = &w.count;
	w.m.presence = &w.presence;
	w.m.cmd = (struct redis_cmd *)&w;
	w.m.seq.origin = ORIGIN;
	w.m.redis_cfg.lease = 15000;
	w.globals.n_namespaces = 2;
	memcpy(w.globals.namespaces[0], "demo", 5);
	memcpy(w.globals.namespaces[1], "news", 5);
	for (unsigned i = 0; i < WORKERS; i++) {
		w.m.child[i] = (struct child){.slot = (uint16_t)i, .incarnation = i + 1, .hello_ms = i < 2};
		w.m.seq.reader[i] =
			(struct seq_reader){.slot = &slots[i], .index = (uint16_t)i, .incarnation = i + 1};
		w.m.seq.live[i] = (uint8_t)i;
	}
	w.m.seq.n_live = WORKERS;
	assert(survey_start(&w.m) == 0 && nodes_start(&w.m) == 0 && control_start(&w.m) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = {data, size};

	log_set_level(LOG_ERROR);
	begin();
	toggle_link();
	while (s.len > 0)
		step(&s);
	for (uint32_t number = 1; number <= 20; number++) /* late ones, too */
		for (unsigned i = 0; i < WORKERS; i++)
			survey_told(&w.m, &w.m.child[i], number, false, (struct slice){"{\"demo:z\":1}", 12});
	nodes_leave(&w.m);
	if (w.is_open)
		toggle_link();
	survey_stop(&w.m);
	nodes_stop(&w.m);
	return 0;
}
