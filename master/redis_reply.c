#include "master/redis_reply.h"

#include <stdlib.h>

#define FEED_BYTES                                                                                           \
	4096u /* the reader moves its rest after each reply: small pieces move less (10 % at 128 bytes) */
#define LINE_MAX_BYTES 1024u          /* no line of RESP that is meant for us comes near it */
#define KEEP_BYTES     (128u * 1024u) /* the reader gives back an empty buffer larger than this */
#define MAX_BULK       (16u << 20)
#define MAX_DIGITS     20 /* of a bulk's length */

struct redis_reply {
	struct redis_reply_events ev;
	redisReader *reader;
	size_t max_bulk;
	size_t tree_bytes; /* of the tree under way */
	const char *why;
	bool paused, parsing;
};

static char token; /* what every reply object is: its content was handed on when it was seen */

static void *refuse(struct redis_reply *r)
{
	redis_reply_end(r, "protocol");
	return NULL; /* stops the reader */
}

static void *take(const redisReadTask *t, int type, const char *p, size_t len)
{
	struct redis_reply *r = t->privdata;
	struct redis_item item;

	if (unlikely(r->why != NULL))
		return NULL;
	if (t->parent == NULL)
		return r->ev.plain(r->ev.arg, type, p, len) ? &token : refuse(r);
	item = (struct redis_item){p, len, type, t->idx, t->parent->elements};
	return likely(r->ev.item(r->ev.arg, &item)) ? &token : refuse(r);
}

static void *take_string(const redisReadTask *t, char *p, size_t len)
{
	return take(t, t->type, p, len);
}

static void *take_integer(const redisReadTask *t, long long value)
{
	/* Within an array none means anything. */
	return t->parent != NULL ? take(t, REDIS_REPLY_INTEGER, NULL, 0)
				 : take(t, REDIS_REPLY_INTEGER, (const char *)&value, sizeof(value));
}

static void *take_nil(const redisReadTask *t)
{
	return take(t, REDIS_REPLY_NIL, NULL, 0);
}

static void *take_array(const redisReadTask *t, int elements)
{
	struct redis_reply *r = t->privdata;

	if (t->parent != NULL || elements == 0 || r->why != NULL || !r->ev.array(r->ev.arg))
		return refuse(r);
	return &token;
}

static void drop_nothing(void *obj)
{
	(void)obj;
}

static redisReplyObjectFunctions reply_functions = {
	.createString = take_string,
	.createArray = take_array,
	.createInteger = take_integer,
	.createNil = take_nil,
	.freeObject = drop_nothing,
};

/* ---- trees: hiredis' own functions behind ours, which keep the account. The library has no name for them
 * but the one that a fresh reader has. */

static const redisReplyObjectFunctions *native;

static bool afford(const redisReadTask *t, size_t bytes)
{
	struct redis_reply *r = t->privdata;

	if (t->parent == NULL)
		r->tree_bytes = 0;
	r->tree_bytes += bytes;
	if (r->why == NULL && r->tree_bytes > r->max_bulk)
		redis_reply_end(r, "oversized");
	return r->why == NULL;
}

static void *tree_string(const redisReadTask *t, char *p, size_t len)
{
	return afford(t, len) ? native->createString(t, p, len) : NULL;
}

static void *tree_integer(const redisReadTask *t, long long value)
{
	return afford(t, 0) ? native->createInteger(t, value) : NULL;
}

static void *tree_nil(const redisReadTask *t)
{
	return afford(t, 0) ? native->createNil(t) : NULL;
}

/* The elements are paid for when they are announced: an array is allocated at its full length. */
static void *tree_array(const redisReadTask *t, int elements)
{
	return afford(t, (size_t)elements * REDIS_ELEMENT_BYTES) ? native->createArray(t, elements) : NULL;
}

static redisReplyObjectFunctions tree_functions = {
	.createString = tree_string,
	.createArray = tree_array,
	.createInteger = tree_integer,
	.createNil = tree_nil,
	.freeObject = freeReplyObject,
};

static bool deliver(struct redis_reply *r, void *reply)
{
	bool ok;

	if (r->ev.tree == NULL)
		return true; /* it was when it was seen */
	ok = r->ev.tree(r->ev.arg, reply);
	freeReplyObject(reply);
	return ok;
}

/* ---- feeding */

/* Of a bulk the reader waits for, the announced length. */
static bool is_bulk_bounded(const struct redis_reply *r, const char *p, size_t have)
{
	uint64_t announced = 0;

	for (size_t i = 0; i < have && p[i] != '\r'; i++) {
		if (i == MAX_DIGITS)
			return false;
		announced = announced * 10 + (uint64_t)((uint8_t)p[i] - '0') % 10;
		if (announced > r->max_bulk)
			return false;
	}
	return true;
}

/* Whatever the reader still waits for must be something that can end. */
static bool is_bounded(const struct redis_reply *r)
{
	const redisReader *in = r->reader;
	size_t have = in->len - in->pos;

	if (in->ridx < 0 || have == 0)
		return true;
	if (in->rstack[in->ridx].type == REDIS_REPLY_STRING)
		return is_bulk_bounded(r, in->buf + in->pos, have);
	return have <= LINE_MAX_BYTES;
}

static bool parse(struct redis_reply *r)
{
	void *reply;
	bool more;

	r->parsing = true;
	do {
		reply = NULL;
		if (redisReaderGetReply(r->reader, &reply) == REDIS_ERR)
			redis_reply_end(r, "protocol");
		more = reply != NULL;
		if (more && !deliver(r, reply))
			redis_reply_end(r, "protocol");
	} while (more && !r->paused && r->why == NULL);
	r->parsing = false;
	if (!r->paused && r->why == NULL && !is_bounded(r))
		redis_reply_end(r, "oversized");
	return r->why == NULL;
}

/* Kept unread, or in the middle of a large bulk: nothing will be moved, so the larger the piece the better.
 */
static size_t piece(const struct redis_reply *r, size_t len)
{
	if (r->paused || r->reader->len - r->reader->pos >= FEED_BYTES)
		return len;
	return u64_min(len, FEED_BYTES);
}

bool redis_reply_feed(struct redis_reply *r, const char *p, size_t len)
{
	while (len > 0 && r->why == NULL) {
		size_t n = piece(r, len);

		if (redisReaderFeed(r->reader, p, n) != REDIS_OK)
			redis_reply_end(r, "memory");
		p += n;
		len -= n;
		if (!r->paused && r->why == NULL)
			(void)parse(r);
	}
	return r->why == NULL;
}

void redis_reply_pause(struct redis_reply *r)
{
	r->paused = true;
}

bool redis_reply_resume(struct redis_reply *r)
{
	r->paused = false;
	return r->parsing || (r->why == NULL && parse(r));
}

void redis_reply_end(struct redis_reply *r, const char *why)
{
	if (r->why == NULL)
		r->why = why;
}

const char *redis_reply_why(const struct redis_reply *r)
{
	return r->why;
}

bool redis_reply_is_parsing(const struct redis_reply *r)
{
	return r->parsing;
}

void redis_reply_set_max_bulk(struct redis_reply *r, size_t bytes)
{
	r->max_bulk = bytes;
}

static redisReader *new_reader(bool makes_trees)
{
	redisReader *reader;

	if (!makes_trees)
		return redisReaderCreateWithFunctions(&reply_functions);
	reader = redisReaderCreate();
	if (reader == NULL)
		return NULL;
	native = reader->fn;
	reader->fn = &tree_functions;
	return reader;
}

struct redis_reply *redis_reply_new(const struct redis_reply_events *ev)
{
	struct redis_reply *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->ev = *ev;
	r->max_bulk = MAX_BULK;
	r->reader = new_reader(ev->tree != NULL);
	if (r->reader == NULL) {
		free(r);
		return NULL;
	}
	r->reader->privdata = r;
	r->reader->maxbuf = KEEP_BYTES;
	return r;
}

void redis_reply_free(struct redis_reply *r)
{
	if (r == NULL)
		return;
	redisReaderFree(r->reader);
	free(r);
}
