#include "master/redis_watch.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/log.h"
#include "master/redis_link.h"
#include "master/redis_route.h"

#define CHANNEL "+switch-master"

enum push { PUSH_ANSWER, PUSH_MESSAGE, PUSH_CONFIRM, PUSH_PONG };

struct redis_watch {
	const struct cfg_redis *cfg;
	struct redis_link *link;
	void (*on_master)(void *arg, const char *host, uint16_t port);
	void *arg;
	bool has_answer; /* to the question that the connection begins with */
	enum push push;  /* the array under way */
	char host[REDIS_HOST_MAX + 1];
	size_t host_len;
};

static bool tell(struct redis_watch *w, struct slice host, struct slice port)
{
	char name[REDIS_HOST_MAX + 1];
	uint16_t n;

	if (!redis_route_read(host, port, name, &n))
		return false;
	w->on_master(w->arg, name, n);
	return true;
}

/* "<name> <old host> <old port> <new host> <new port>": false = it is not like that. */
static bool take_switch(struct redis_watch *w, struct slice text)
{
	struct slice word[5];
	size_t n = 0, at = 0;
	struct log_quoted q;

	for (; n < ARRAY_LEN(word) && at < text.len; n++) {
		const char *end = memchr(text.p + at, ' ', text.len - at);
		size_t len = end == NULL ? text.len - at : (size_t)(end - text.p) - at;

		word[n] = (struct slice){text.p + at, len};
		at += len + 1;
	}
	if (n != ARRAY_LEN(word) || at <= text.len)
		return false;
	if (word[0].len != strlen(w->cfg->sentinel_name) ||
	    memcmp(word[0].p, w->cfg->sentinel_name, word[0].len) != 0)
		return true; /* another master's */
	log_event(LOG_WARN, "redis_switch", "address=%s msg=\"Sentinel names another master\"",
		  log_quote(&q, word[3].p, text.len - (size_t)(word[3].p - text.p)));
	return tell(w, word[3], word[4]);
}

static bool begin(struct redis_watch *w, const struct redis_item *it)
{
	if (!w->has_answer) {
		w->push = PUSH_ANSWER;
		if (it->elements != 2 || it->len > REDIS_HOST_MAX)
			return false;
		memcpy(w->host, it->p, it->len);
		w->host_len = it->len;
		return true;
	}
	if (it->elements == 2) {
		w->push = PUSH_PONG;
		return it->len == 4 && memcmp(it->p, "pong", 4) == 0;
	}
	w->push = it->len == 7 && memcmp(it->p, "message", 7) == 0 ? PUSH_MESSAGE : PUSH_CONFIRM;
	return it->elements == 3;
}

static bool on_item(void *arg, const struct redis_item *it)
{
	struct redis_watch *w = arg;
	struct slice text = {it->p, it->len};

	if (it->idx == 2 && w->push == PUSH_CONFIRM)
		return it->type == REDIS_REPLY_INTEGER;
	if (it->type != REDIS_REPLY_STRING)
		return false;
	if (it->idx == 0)
		return begin(w, it);
	switch (w->push) {
	case PUSH_ANSWER:
		w->has_answer = true;
		return tell(w, (struct slice){w->host, w->host_len}, text);
	case PUSH_PONG:
		redis_link_pong(w->link);
		return true;
	case PUSH_MESSAGE:
		return it->idx == 1 || take_switch(w, text);
	default:
		return true;
	}
}

static void on_open(void *arg)
{
	static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$14\r\n" CHANNEL "\r\n";
	struct redis_watch *w = arg;
	struct buf out = {0};

	w->has_answer = false;
	if (redis_route_put_question(&out, w->cfg) == -1 || buf_puts(&out, subscribe) == -1 ||
	    redis_link_put(w->link, out.p, out.len, 0) == -1)
		redis_link_drop(w->link, "memory");
	buf_free(&out);
	redis_link_flush(w->link);
}

static void on_lost(void *arg, const char *reason)
{
	(void)arg;
	(void)reason;
}

struct redis_watch *redis_watch_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				    void (*on_master)(void *arg, const char *host, uint16_t port), void *arg)
{
	struct redis_watch *w = calloc(1, sizeof(*w));
	struct redis_link_events ev = {.arg = w, .open = on_open, .lost = on_lost, .item = on_item};

	if (w == NULL)
		return NULL;
	w->cfg = cfg;
	w->on_master = on_master;
	w->arg = arg;
	w->link = redis_link_new(loop, cfg, REDIS_LINK_WATCH, &ev);
	if (w->link == NULL) {
		free(w);
		return NULL;
	}
	return w;
}

void redis_watch_free(struct redis_watch *w)
{
	if (w == NULL)
		return;
	redis_link_free(w->link);
	free(w);
}
