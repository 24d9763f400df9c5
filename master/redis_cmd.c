/* redis_cmd.c - the command link: what was asked, in order, for the answers that come in that order. */
#include "master/redis_cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "master/redis_link.h"
#include "master/redis_resp.h"

#define OUT_MAX     (16u << 20) /* bytes that wait to be sent */
#define OWED_MAX    65536u      /* commands under way; a power of two */
#define OWED_MIN    64u
#define BUFFER_KEEP (64u * 1024u) /* a scratch buffer larger than this is given back */

struct question {
	redis_cmd_fn *fn;
	void *arg;
};

struct redis_cmd {
	struct ev_loop *loop;
	struct redis_cmd_events ev;
	struct redis_link *link;
	ev_prepare prepare; /* what a turn queued goes out in one write */
	struct question *q; /* a ring of cap (a power of two) */
	size_t cap, at, n;
	struct buf out; /* scratch: one command */
	uint64_t refused;
};

/* ---- the questions under way ---- */

static int make_room(struct redis_cmd *c)
{
	size_t cap = c->cap == 0 ? OWED_MIN : c->cap * 2;
	struct question *q;

	if (c->n < c->cap)
		return 0;
	if (c->n == OWED_MAX) {
		errno = EAGAIN;
		return -1;
	}
	q = calloc(cap, sizeof(*q));
	if (q == NULL)
		return -1;
	for (size_t i = 0; i < c->n; i++)
		q[i] = c->q[(c->at + i) & (c->cap - 1)];
	free(c->q);
	c->q = q;
	c->cap = cap;
	c->at = 0;
	return 0;
}

static void answer_oldest(struct redis_cmd *c, const redisReply *reply)
{
	struct question q = c->q[c->at];

	c->at = (c->at + 1) & (c->cap - 1);
	c->n--;
	if (q.fn != NULL)
		q.fn(q.arg, reply);
}

/* ---- what the link says ---- */

static void on_open(void *arg)
{
	struct redis_cmd *c = arg;

	c->ev.open(c->ev.arg);
}

static void on_lost(void *arg, const char *reason)
{
	struct redis_cmd *c = arg;

	(void)reason;
	while (c->n > 0)
		answer_oldest(c, NULL); /* a new question from within is refused: the link is not open */
	c->ev.lost(c->ev.arg);
}

static bool on_tree(void *arg, const redisReply *reply)
{
	struct redis_cmd *c = arg;

	if (c->n == 0)
		return false;
	answer_oldest(c, reply);
	return true;
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct redis_cmd *c = w->data;

	(void)loop;
	(void)revents;
	redis_link_flush(c->link);
}

/* ---- the interface ---- */

static int format(struct buf *out, size_t argc, const struct slice *argv)
{
	static const struct slice none = {"", 0};

	out->len = 0;
	if (resp_put_array(out, argc) == -1)
		return -1;
	for (size_t i = 0; i < argc; i++)
		if (resp_put_bulk(out, none, argv[i]) == -1)
			return -1;
	return 0;
}

static int put(struct redis_cmd *c, size_t argc, const struct slice *argv)
{
	if (make_room(c) == -1 || format(&c->out, argc, argv) == -1)
		return -1;
	if (redis_link_queued(c->link) + c->out.len > OUT_MAX) {
		errno = EAGAIN;
		return -1;
	}
	return redis_link_put(c->link, c->out.p, c->out.len, 1);
}

int redis_cmd_call(struct redis_cmd *c, size_t argc, const struct slice *argv, redis_cmd_fn *fn, void *arg)
{
	int rc;

	if (!redis_cmd_is_open(c)) {
		errno = ENOTCONN;
		return -1;
	}
	rc = put(c, argc, argv);
	if (c->out.cap > BUFFER_KEEP)
		buf_free(&c->out); /* free() keeps errno */
	if (rc == -1) {
		c->refused++;
		return -1;
	}
	c->q[(c->at + c->n++) & (c->cap - 1)] = (struct question){fn, arg};
	return 0;
}

void redis_tell(struct redis_cmd *c, const char *channel, struct slice payload)
{
	const struct slice argv[] = {{"PUBLISH", 7}, {channel, strlen(channel)}, payload};

	/* Refused: counted there, and nothing that the caller could do. */
	(void)!redis_cmd_call(c, ARRAY_LEN(argv), argv, NULL, NULL);
}

bool redis_cmd_is_open(const struct redis_cmd *c)
{
	return c->link != NULL && redis_link_is_open(c->link);
}

void redis_cmd_follow(struct redis_cmd *c, const char *host, uint16_t port)
{
	redis_link_follow(c->link, host, port);
}

void redis_cmd_get_stats(const struct redis_cmd *c, struct redis_cmd_stats *out)
{
	struct redis_link_stats s;

	redis_link_get_stats(c->link, &s);
	*out = (struct redis_cmd_stats){
		.is_open = redis_link_is_open(c->link),
		.reconnects = s.opened - (s.opened > 0),
		.under_way = c->n,
		.refused = c->refused,
	};
}

struct redis_cmd *redis_cmd_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				const struct redis_cmd_events *ev)
{
	const struct redis_link_events link = {
		.open = on_open,
		.lost = on_lost,
		.tree = on_tree,
	};
	struct redis_link_events events = link;
	struct redis_cmd *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->loop = loop;
	c->ev = *ev;
	events.arg = c;
	c->link = redis_link_new(loop, cfg, REDIS_LINK_CMD, &events);
	if (c->link == NULL) {
		free(c);
		return NULL;
	}
	ev_prepare_init(&c->prepare, on_prepare);
	ev_set_priority(&c->prepare, EV_MINPRI); /* after all others of the turn */
	c->prepare.data = c;
	ev_prepare_start(loop, &c->prepare);
	return c;
}

void redis_cmd_free(struct redis_cmd *c)
{
	if (c == NULL)
		return;
	ev_prepare_stop(c->loop, &c->prepare);
	redis_link_flush(c->link);
	redis_link_free(c->link);
	c->link = NULL;
	while (c->n > 0)
		answer_oldest(c, NULL);
	free(c->q);
	buf_free(&c->out);
	free(c);
}
