/* LINK: master/redis.c master/redis_own.c master/redis_pending.c master/redis_subs.c master/redis_reply.c
 *       master/redis_form.c
 *
 * The Redis side without sockets and clock: redis_link.h is played by this file, on top of the shipped
 * parser. The input is a script: what the subscriber link reads (any bytes, in any pieces), links that open
 * and break, an honest Redis that takes a step, a ring that is full, channels that come and go, publications.
 *
 * Whatever happens: own messages reach local clients in id order and once; a message goes to the channel that
 * it was sent to; when all is well again each publication has been answered, the pending list is empty, and
 * "up" is said. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/wsframe.h"
#include "master/redis_int.h"
#include "master/redis_resp.h"
#include "tests/fuzz/script.h"

#define NAMES      5
#define TOKENS_MAX 4096
#define ORIGIN     0x1122334455667788u
#define MARK       "\xf5mark" /* a payload that tells which channel it was sent to */
#define MARK_LEN   5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the link that the module sees ---- */

struct redis_link {
	struct redis_link_events ev;
	enum redis_link_kind kind;
	bool open, paused;
	struct redis_reply *in;
	size_t max_bulk;
	struct buf out;
	unsigned owed;
};

static struct {
	struct ev_loop *loop;
	struct redis *r;
	struct redis_link *link[2];
	struct redis_sub *sub[NAMES];
	struct cfg_namespace ns;
	bool on_server[NAMES][2]; /* bare, own messages */
	long room;
	unsigned within; /* 1 + name to subscribe or unsubscribe inside the next on_publication() */
	uint64_t last_own;
	bool up;
	uint32_t tokens;
	uint8_t answers[TOKENS_MAX];
} w;

static void link_close(struct redis_link *l, const char *why)
{
	l->open = false;
	redis_reply_free(l->in);
	l->in = NULL;
	buf_free(&l->out);
	l->owed = 0;
	if (l->kind == REDIS_LINK_SUB)
		memset(w.on_server, 0, sizeof(w.on_server));
	l->ev.lost(l->ev.arg, why);
}

static bool on_item(void *arg, const struct redis_item *item)
{
	struct redis_link *l = arg;

	return l->ev.item(l->ev.arg, item);
}

static bool on_array(void *arg)
{
	(void)arg;
	return true;
}

static bool on_plain(void *arg, int type, const char *p, size_t len)
{
	struct redis_link *l = arg;

	if (type != REDIS_REPLY_STATUS || len != 4 || memcmp(p, "PONG", 4) != 0)
		return false;
	redis_link_pong(l);
	return true;
}

static void link_open(struct redis_link *l)
{
	struct redis_reply_events ev = {.arg = l, .array = on_array, .item = on_item, .plain = on_plain};

	l->in = redis_reply_new(&ev);
	assert(l->in != NULL);
	redis_reply_set_max_bulk(l->in, l->max_bulk);
	if (l->paused)
		redis_reply_pause(l->in);
	l->open = true;
	l->ev.open(l->ev.arg);
}

struct redis_link *redis_link_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				  enum redis_link_kind kind, const struct redis_link_events *ev)
{
	struct redis_link *l = calloc(1, sizeof(*l));

	(void)loop;
	(void)cfg;
	assert(l != NULL);
	l->ev = *ev;
	l->kind = kind;
	w.link[kind] = l;
	return l;
}

void redis_link_free(struct redis_link *l)
{
	redis_reply_free(l->in);
	buf_free(&l->out);
	free(l);
}

long long redis_link_integer(const struct redis_link *l)
{
	(void)l;
	return 1;
}

bool redis_link_is_open(const struct redis_link *l)
{
	return l->open;
}

int redis_link_put(struct redis_link *l, const void *p, size_t len, unsigned commands)
{
	assert(l->open);
	l->owed += commands;
	return buf_put(&l->out, p, len);
}

size_t redis_link_queued(const struct redis_link *l)
{
	return l->out.len;
}

void redis_link_flush(struct redis_link *l)
{
	(void)l;
}

void redis_link_drop(struct redis_link *l, const char *reason)
{
	if (l->open)
		redis_reply_end(l->in, reason);
}

void redis_link_pause(struct redis_link *l)
{
	l->paused = true;
	if (l->open)
		redis_reply_pause(l->in);
}

void redis_link_resume(struct redis_link *l)
{
	l->paused = false;
	if (l->open && !redis_reply_resume(l->in))
		link_close(l, redis_reply_why(l->in));
}

void redis_link_pong(struct redis_link *l)
{
	if (l->ev.pong != NULL)
		l->ev.pong(l->ev.arg);
}

void redis_link_set_max_bulk(struct redis_link *l, size_t bytes)
{
	l->max_bulk = bytes;
}

uint64_t redis_link_read_ns(const struct redis_link *l)
{
	(void)l;
	return 1;
}

void redis_link_get_stats(const struct redis_link *l, struct redis_link_stats *out)
{
	(void)l;
	*out = (struct redis_link_stats){.opened = 2};
}

void redis_link_follow(struct redis_link *l, const char *host, uint16_t port)
{
	(void)l;
	(void)host;
	(void)port;
}

/* Without sentinels nobody watches one. */
struct redis_watch *redis_watch_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				    void (*on_master)(void *arg, const char *host, uint16_t port), void *arg)
{
	(void)loop;
	(void)cfg;
	(void)on_master;
	(void)arg;
	abort();
}

void redis_watch_free(struct redis_watch *watch)
{
	assert(watch == NULL);
}

const char *redis_link_address(const struct redis_link *l, char *dst, size_t size)
{
	(void)l;
	dst[size - 1] = dst[0] = '\0';
	return dst;
}

static void link_read(struct redis_link *l, const char *p, size_t len)
{
	if (l->open && !redis_reply_feed(l->in, p, len))
		link_close(l, redis_reply_why(l->in));
}

/* ---- the sequencer ---- */

static int index_of(const struct redis_sub *sub)
{
	for (int i = 0; i < NAMES; i++)
		if (w.sub[i] == sub)
			return i;
	return -1;
}

static void answer(struct redis_token t)
{
	if (t.request == 0)
		return;
	assert(t.request <= w.tokens && t.slot == 3);
	assert(w.answers[t.request] < 2); /* the second one only says that Redis will not get it */
	w.answers[t.request]++;
}

static void toggle_sub(unsigned i);

static bool on_publication(void *arg, const struct redis_publication *pub)
{
	int before = pub->sub == NULL ? -1 : index_of(pub->sub);

	(void)arg;
	if (w.within > 0) {
		unsigned i = w.within - 1;

		w.within = 0;
		toggle_sub(i);
		assert(pub->sub == NULL || pub->sub->owner == NULL || pub->sub->owner == &w.sub[before]);
	}
	if (w.room == 0)
		return false;
	w.room -= w.room > 0;
	assert(pub->ns == &w.ns);
	if (pub->sub != NULL && index_of(pub->sub) == before) {
		int i = index_of(pub->sub);

		assert(i >= 0); /* not one that was unsubscribed */
		if (pub->payload.len == MARK_LEN + 1 && memcmp(pub->payload.p, MARK, MARK_LEN) == 0)
			assert(pub->payload.p[MARK_LEN] == 'a' + i);
	}
	if (pub->origin == ORIGIN) {
		assert(pub->id > w.last_own);
		w.last_own = pub->id;
	}
	answer(pub->token);
	return true;
}

static void on_subscribed(void *arg, struct redis_sub *sub, void *owner)
{
	(void)arg;
	assert(index_of(sub) >= 0 && owner == &w.sub[index_of(sub)] && redis_sub_confirmed(sub));
}

static void on_published(void *arg, struct redis_token token, bool ok)
{
	(void)arg;
	(void)ok;
	answer(token);
}

static void on_state(void *arg, bool up)
{
	(void)arg;
	assert(up != w.up);
	w.up = up;
}

static void on_event(void *arg)
{
	(void)arg;
}

/* ---- an honest Redis ---- */

static const char *const names[NAMES] = {"a", "b", "ch:c", "ch:d", "ch:e"};

static int name_index(const redisReply *channel, bool *own)
{
	const char *p = channel->str;
	size_t len = channel->len;

	*own = len > REDIS_META_PREFIX_LEN && memcmp(p, REDIS_META_PREFIX, REDIS_META_PREFIX_LEN) == 0;
	if (*own) {
		p += REDIS_META_PREFIX_LEN;
		len -= REDIS_META_PREFIX_LEN;
	}
	for (int i = 0; i < NAMES; i++)
		if (len == strlen(names[i]) && memcmp(p, names[i], len) == 0)
			return i;
	abort();
}

static void push(const char *verb, struct slice channel, struct slice payload, bool integer)
{
	struct slice none = {"", 0}, v = {verb, strlen(verb)};
	struct buf b = {0};

	assert(resp_put_array(&b, 3) == 0 && resp_put_bulk(&b, none, v) == 0 &&
	       resp_put_bulk(&b, none, channel) == 0);
	assert((integer ? buf_puts(&b, ":1\r\n") : resp_put_bulk(&b, none, payload)) == 0);
	link_read(w.link[REDIS_LINK_SUB], b.p, b.len);
	buf_free(&b);
}

static void serve_subscribe(redisReply *cmd)
{
	bool wanted = cmd->element[0]->str[0] == 'S', own;

	for (size_t i = 1; i < cmd->elements; i++) {
		struct slice channel = {cmd->element[i]->str, cmd->element[i]->len};

		w.on_server[name_index(cmd->element[i], &own)][own] = wanted;
		push(wanted ? "subscribe" : "unsubscribe", channel, (struct slice){0}, true);
	}
}

static void serve_publish(redisReply *cmd, bool refuse)
{
	struct slice channel = {cmd->element[1]->str, cmd->element[1]->len};
	struct slice payload = {cmd->element[2]->str, cmd->element[2]->len};
	struct redis_link *pub = w.link[REDIS_LINK_PUB];
	bool own;
	int i = name_index(cmd->element[1], &own);

	assert(own != (w.ns.envelope == CFG_ENVELOPE_JSON) && pub->owed > 0);
	pub->owed--;
	if (!refuse && w.on_server[i][own])
		push("message", channel, payload, false);
	assert(pub->ev.reply(pub->ev.arg, refuse ? REDIS_REPLY_ERROR : REDIS_REPLY_INTEGER,
			     refuse ? "NOPERM" : NULL));
}

/* Take all commands that stand on a link, and do them. */
static void serve(enum redis_link_kind kind, bool refuse)
{
	struct redis_link *l = w.link[kind];
	redisReader *reader = redisReaderCreate();
	struct buf taken = l->out;
	redisReply *cmd = NULL;

	l->out = (struct buf){0};
	assert(reader != NULL && redisReaderFeed(reader, taken.p, taken.len) == REDIS_OK);
	buf_free(&taken);
	while (redisReaderGetReply(reader, (void **)&cmd) == REDIS_OK && cmd != NULL) {
		if (l->open && kind == REDIS_LINK_SUB)
			serve_subscribe(cmd);
		else if (l->open)
			serve_publish(cmd, refuse);
		freeReplyObject(cmd);
	}
	assert(reader->err == 0);
	redisReaderFree(reader);
}

/* ---- the script ---- */

static void turn(void)
{
	ev_run(w.loop, EVRUN_NOWAIT);
}

static void toggle_sub(unsigned i)
{
	struct redis_sub *sub = w.sub[i];

	w.sub[i] = NULL;
	if (sub != NULL) {
		redis_unsubscribe(w.r, sub);
		return;
	}
	w.sub[i] = redis_subscribe(w.r, &w.ns, names[i], &w.sub[i]);
	assert(w.sub[i] != NULL);
}

static void say(struct script *s)
{
	char payload[514] = {0};
	unsigned i = next(s) % NAMES, len = next(s);
	struct redis_token token = {.slot = 3, .incarnation = 1, .request = w.tokens + 1};
	struct slice bytes = {payload, len * 2};

	if (token.request >= TOKENS_MAX)
		return;
	if (w.ns.envelope == CFG_ENVELOPE_JSON) {
		bytes.len += 2;
		memset(payload, ' ', bytes.len);
		payload[0] = '{';
		payload[bytes.len - 1] = '}';
	}
	w.tokens++;
	if (redis_publish(w.r, &w.ns, (struct slice){"r", 1}, names[i], w.sub[i],
			  len & 1 ? WS_TEXT : WS_BINARY, bytes, token) == REDIS_FULL) {
		assert(w.answers[token.request] == 0);
		w.tokens--;
	}
}

/* What the subscriber link reads: as it stands in the script. */
static void raw(struct script *s)
{
	size_t len = next(s);

	if (len > s->len)
		len = s->len;
	link_read(w.link[REDIS_LINK_SUB], (const char *)s->p, len);
	s->p += len;
	s->len -= len;
}

/* A message in good order, of somebody else: in two pieces, perhaps with something in between. */
static void foreign(struct script *s)
{
	struct buf b = {0};
	unsigned i = next(s) % NAMES, how = next(s), cut = next(s);
	char payload[REDIS_FORM_HEADER + MARK_LEN + 1];
	size_t at = how & 1 ? REDIS_FORM_HEADER : 0;
	struct slice prefix = {REDIS_META_PREFIX, how & 1 ? REDIS_META_PREFIX_LEN : 0}, none = {"", 0};

	redis_form_put((uint8_t *)payload, WS_TEXT, how & 2 ? 5 + (how >> 4) : ORIGIN, 1 + (next(s) & 7));
	memcpy(payload + at, MARK, MARK_LEN);
	payload[at + MARK_LEN] = (char)('a' + i);
	assert(resp_put_array(&b, 3) == 0 && resp_put_bulk(&b, none, (struct slice){"message", 7}) == 0);
	assert(resp_put_bulk(&b, prefix, (struct slice){names[i], strlen(names[i])}) == 0);
	assert(resp_put_bulk(&b, none, (struct slice){payload, at + MARK_LEN + 1}) == 0);
	cut %= b.len;
	link_read(w.link[REDIS_LINK_SUB], b.p, cut);
	if (how & 4)
		toggle_sub(next(s) % NAMES);
	if (how & 8)
		turn();
	link_read(w.link[REDIS_LINK_SUB], b.p + cut, b.len - cut);
	buf_free(&b);
}

static void toggle_link(enum redis_link_kind kind)
{
	struct redis_link *l = w.link[kind];

	/* A paused link isn't read, so its end is not seen either. */
	if (!l->open)
		link_open(l);
	else if (!l->paused)
		link_close(l, "eof");
}

static void ring(struct script *s)
{
	w.room = (long)(next(s) % 9) - 1;
	redis_resume(w.r);
}

static void ping(bool answer_it)
{
	struct redis_link *l = w.link[REDIS_LINK_SUB];

	if (!l->open)
		return;
	if (!answer_it)
		l->ev.ping(l->ev.arg);
	else
		link_read(l, "*2\r\n$4\r\npong\r\n$0\r\n\r\n", 20);
}

static void look(void)
{
	struct config cfg = {.namespaces = &w.ns, .n_namespaces = 1};
	struct redis_stats st;

	redis_rebind(w.r, &cfg);
	redis_get_stats(w.r, &st);
	assert(st.up == w.up && st.channels <= 2 * NAMES);
	assert(st.pending_bytes <= 3000 || st.pending_messages == 1);
}

static void step(struct script *s)
{
	switch (next(s) % 15) {
	case 0:
	case 1:
		raw(s);
		break;
	case 2:
		foreign(s);
		break;
	case 3:
		toggle_sub(next(s) % NAMES);
		break;
	case 4:
	case 5:
		say(s);
		break;
	case 6:
		ring(s);
		break;
	case 7:
		serve(REDIS_LINK_SUB, false);
		break;
	case 8:
		serve(REDIS_LINK_PUB, next(s) % 8 == 7);
		break;
	case 9:
		turn();
		break;
	case 10:
		toggle_link(REDIS_LINK_SUB);
		break;
	case 11:
		toggle_link(REDIS_LINK_PUB);
		break;
	case 12:
		ping(next(s) & 1);
		break;
	case 13:
		w.within = 1 + next(s) % NAMES;
		break;
	default:
		look();
	}
}

/* All faults end: everything must come right by itself. */
static void recover(void)
{
	struct redis_stats st;

	w.room = -1;
	w.within = 0;
	redis_resume(w.r);
	for (int i = 0; i < 2; i++)
		if (w.link[i]->open)
			link_close(w.link[i], "eof"); /* nobody knows what the script left in its parser */
	for (int i = 0; i < 2; i++)
		link_open(w.link[i]);
	for (int i = 0; i < 6; i++) {
		turn();
		serve(REDIS_LINK_SUB, false);
		serve(REDIS_LINK_PUB, false);
	}
	redis_get_stats(w.r, &st);
	assert(w.up && st.pending_messages == 0 && st.pending_bytes == 0);
	for (int i = 0; i < NAMES; i++)
		assert(w.sub[i] == NULL || redis_sub_confirmed(w.sub[i]));
	for (uint32_t t = 1; t <= w.tokens; t++)
		assert(w.answers[t] >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct redis_events ev = {
		.on_publication = on_publication,
		.on_subscribed = on_subscribed,
		.on_published = on_published,
		.on_state = on_state,
		.on_gap = on_event,
		.on_room = on_event,
	};
	struct cfg_redis cfg = {
		.timeout = 1000, .ping_interval = 1000, .pending_size = 3000, .resend_delay = 0};
	struct script s = {data, size};
	struct ev_loop *loop = w.loop;

	memset(&w, 0, sizeof(w));
	w.loop = loop != NULL ? loop : ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	assert(w.loop != NULL);
	log_set_level(LOG_ERROR);
	w.ns = (struct cfg_namespace){.id = 1, .redis_has_room = true, .max_publication = 1000};
	/* The last byte of a script, so that those of the corpus mean what they meant. */
	w.ns.envelope = size > 0 && data[size - 1] & 0x80 ? CFG_ENVELOPE_JSON : CFG_ENVELOPE_PLAIN;
	w.room = -1;
	w.r = redis_new(w.loop, &cfg, ORIGIN, &ev);
	assert(w.r != NULL);
	link_open(w.link[REDIS_LINK_SUB]);
	link_open(w.link[REDIS_LINK_PUB]);
	toggle_sub(0);
	toggle_sub(2);
	turn();
	while (s.len > 0)
		step(&s);
	recover();
	redis_free(w.r);
	return 0;
}
