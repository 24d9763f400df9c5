/* The receive path of one connection. Bytes pass the gate (ws_gate.c), data frames then a borrowed parser
 * (ws_pool.c), and messages are put together here.
 *
 *                 header incomplete, or control frame incomplete
 *              +--> stash (<= 131 bytes) --+
 *              |                           |  complete
 *   boundary --+---------------------------+--> control frame: handled on the spot --> boundary
 *     ^  ^                                 |
 *     |  |                                 +--> data frame --> parser --> payload (frame_left > 0)
 *     |  |          FIN: message delivered                                   |
 *     |  +-------------------------------------------------------------------+
 *     +---- no FIN: boundary, but in_message: the parser stays ---------------+
 *
 * Nothing here has a deadline; the connection bounds by a timer how long ws_is_mid_message() may last.
 */
#include "worker/ws.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/wsframe.h"
#include "worker/ws_gate.h"
#include "worker/ws_pool.h"

#define TOO_BIG        1009
#define INTERNAL_ERROR 1011
#define TRY_LATER      1013

#define MSG_MIN 256 /* the first allocation of a message of unknown length */

struct ws_in {
	struct ws_parser *parser; /* held while in_message, and during a feed */
	uint8_t *msg;             /* the message so far; NULL if msg_cap == 0 */
	uint64_t msg_len, msg_cap;
	uint64_t announced;  /* bytes of all frames of the message, by their headers */
	uint64_t frame_left; /* payload of the data frame under way that has not arrived */
	uint32_t frames;     /* of the message, this one included */
	uint8_t opcode;      /* of the message */
	bool fin;            /* of the data frame under way */
	bool in_message;     /* from the header of its first frame until it is delivered */
	bool is_held;        /* msg is complete and waits for ws_held_done() */
	bool has_parser_counted;
	uint8_t stash_len;
	uint8_t stash[WS_GATE_NEED_MAX]; /* not initialised beyond stash_len; keep it last */
};

/* One ws_feed(). */
struct ws_call {
	struct ws_pool *pool;
	struct ws_in *in;
	const struct ws_limits *limits;
	const struct ws_handler *h;
	void *arg;
	const uint8_t *view; /* the whole message inside the parser's buffer, instead of in->msg */
	uint64_t in_hand;    /* payload given to the parser and not yet reported by it */
	bool is_over;        /* a Close came, or a message is held: report nothing more */
};

static const uint8_t no_bytes[1];

static bool is_memory_there(const struct ws_pool *pool, uint64_t more)
{
	return pool->memory_max == 0 || (more <= pool->memory_max && pool->memory <= pool->memory_max - more);
}

static int msg_resize(struct ws_pool *pool, struct ws_in *in, uint64_t cap)
{
	uint8_t *p;

	if (!is_memory_there(pool, cap - in->msg_cap))
		return TRY_LATER;
	p = realloc(in->msg, cap);
	if (p == NULL)
		return INTERNAL_ERROR;
	pool->memory += cap - in->msg_cap;
	in->msg = p;
	in->msg_cap = cap;
	return 0;
}

/* Grow by what has arrived, never by what a header announces: the announcement costs its sender nothing and
 * only bounds the growth. The sum of the doublings stays linear in the bytes received. */
static int msg_reserve(struct ws_call *c, uint64_t need)
{
	struct ws_in *in = c->in;
	uint64_t bound = in->fin ? in->announced : c->limits->max_message, cap;

	if (need <= in->msg_cap)
		return 0;
	cap = u64_max(in->msg_cap * 2, MSG_MIN);
	if (bound != 0)
		cap = u64_min(cap, bound);
	return msg_resize(c->pool, in, u64_max(cap, need));
}

static void msg_drop(struct ws_pool *pool, struct ws_in *in)
{
	if (in->msg_cap > 0) {
		pool->memory -= in->msg_cap;
		free(in->msg);
	}
	in->msg = NULL;
	in->msg_len = in->msg_cap = 0;
}

int ws_got_payload(struct ws_call *c, const uint8_t *p, size_t len)
{
	struct ws_in *in = c->in;
	int code;

	c->in_hand -= len;
	in->frame_left -= len;
	if (in->fin && in->frame_left == 0 && in->msg_len == 0) {
		c->view = p;
		in->msg_len = len;
		return 0;
	}
	code = msg_reserve(c, in->msg_len + len + c->in_hand);
	if (code != 0)
		return code;
	memcpy(in->msg + in->msg_len, p, len);
	in->msg_len += len;
	return 0;
}

/* The handler could not take the message: own it. */
static int msg_hold(struct ws_call *c)
{
	struct ws_in *in = c->in;
	int code;

	c->is_over = true;
	in->is_held = true;
	if (c->view == NULL)
		return 0;
	code = msg_resize(c->pool, in, in->msg_len);
	if (code == 0)
		memcpy(in->msg, c->view, in->msg_len);
	return code;
}

int ws_got_message(struct ws_call *c)
{
	struct ws_in *in = c->in;
	const uint8_t *p = c->view != NULL ? c->view : in->msg != NULL ? in->msg : no_bytes;

	in->in_message = false;
	if (c->h->on_message(c->arg, in->opcode, p, in->msg_len) == WS_HOLD)
		return msg_hold(c);
	msg_drop(c->pool, in);
	return 0;
}

/* Give one frame's bytes to the parser: `header` bytes of it and `payload` behind them. */
static int feed_parser(struct ws_call *c, const uint8_t *p, size_t header, size_t payload)
{
	struct ws_in *in = c->in;
	uint64_t left = in->frame_left - payload;
	int code;

	if (in->parser == NULL) {
		in->parser = ws_pool_borrow(c->pool);
		if (in->parser == NULL)
			return INTERNAL_ERROR;
	}
	c->view = NULL;
	c->in_hand = payload;
	code = ws_parser_feed(in->parser, c, p, header + payload);
	if (code != 0)
		return code;
	/* Gate and parser must agree on where the frame ends, and whether the message does. */
	if (in->frame_left != left || (left == 0 && in->in_message == in->fin))
		return INTERNAL_ERROR;
	return 0;
}

/* Judge a data frame by its header alone, before a byte of its payload is taken. */
static int begin_data(struct ws_call *c, const struct ws_header *hd)
{
	const struct ws_limits *limits = c->limits;
	struct ws_in *in = c->in;

	if (!in->in_message) {
		in->opcode = hd->opcode;
		in->announced = 0;
		in->frames = 0;
	}
	if (__builtin_add_overflow(in->announced, hd->len, &in->announced) ||
	    (limits->max_message != 0 && in->announced > limits->max_message))
		return TOO_BIG;
	if (++in->frames == 0 || (limits->max_fragments != 0 && in->frames > limits->max_fragments))
		return TOO_BIG;
	in->fin = hd->fin;
	in->in_message = true; /* until ws_got_message() */
	in->frame_left = hd->len;
	return 0;
}

static int take_control(struct ws_call *c, const struct ws_header *hd, const uint8_t *masked)
{
	uint8_t payload[WS_CONTROL_PAYLOAD_MAX];
	size_t len = (size_t)hd->len;
	uint16_t close_code;
	int code;

	for (size_t i = 0; i < len; i++)
		payload[i] = masked[i] ^ hd->mask[i % 4];
	if (hd->opcode == WS_PONG) {
		c->h->on_pong(c->arg);
		return 0;
	}
	if (hd->opcode == WS_PING) {
		c->h->on_ping(c->arg, payload, len);
		return 0;
	}
	code = ws_gate_close(payload, len, &close_code);
	if (code != 0)
		return code;
	c->is_over = true;
	c->h->on_close(c->arg, close_code);
	return 0;
}

/* Take a frame whose header (and, of a control frame, payload) stands at p[0..n). Sets *used. */
static int take_frame(struct ws_call *c, const struct ws_header *hd, const uint8_t *p, size_t n, size_t *used)
{
	size_t payload;
	int code;

	if (ws_is_control(hd->opcode)) {
		*used = hd->size + (size_t)hd->len;
		return take_control(c, hd, p + hd->size);
	}
	*used = hd->size;
	code = begin_data(c, hd);
	if (code != 0)
		return code;
	payload = (size_t)u64_min(hd->len, n - hd->size);
	*used += payload;
	return feed_parser(c, p, hd->size, payload);
}

/* A frame begins in the stash: complete there what the gate needs, then take it from there. */
static int step_stashed(struct ws_call *c, const uint8_t *data, size_t len, size_t *pos)
{
	struct ws_in *in = c->in;
	struct ws_header hd;
	size_t n, used;
	int code;

	while ((code = ws_gate(in->stash, in->stash_len, in->in_message, &hd)) == WS_GATE_MORE) {
		n = hd.need - in->stash_len;
		if (n > len - *pos)
			n = len - *pos;
		if (n == 0)
			return 0;
		memcpy(in->stash + in->stash_len, data + *pos, n);
		in->stash_len += (uint8_t)n;
		*pos += n;
	}
	if (code != WS_GATE_PASS)
		return code;
	n = in->stash_len;
	in->stash_len = 0;
	return take_frame(c, &hd, in->stash, n, &used);
}

static int step(struct ws_call *c, const uint8_t *data, size_t len, size_t *pos)
{
	struct ws_in *in = c->in;
	const uint8_t *p = data + *pos;
	size_t n = len - *pos, used = 0;
	struct ws_header hd;
	int code;

	if (in->frame_left > 0) {
		n = (size_t)u64_min(in->frame_left, n);
		*pos += n;
		return feed_parser(c, p, 0, n);
	}
	if (in->stash_len > 0)
		return step_stashed(c, data, len, pos);
	code = ws_gate(p, n, in->in_message, &hd);
	if (code == WS_GATE_MORE) {
		memcpy(in->stash, p, n);
		in->stash_len = (uint8_t)n;
		*pos = len;
		return 0;
	}
	if (code == WS_GATE_PASS)
		code = take_frame(c, &hd, p, n, &used);
	*pos += used;
	return code;
}

static void give_parser(struct ws_pool *pool, struct ws_in *in)
{
	if (in->parser == NULL)
		return;
	if (in->has_parser_counted)
		pool->memory -= WS_PARSER_BYTES;
	in->has_parser_counted = false;
	ws_pool_give(pool, in->parser);
	in->parser = NULL;
}

/* Drop all that `in` owns, and the struct itself if it is the connection's and not ws_feed()'s own. */
static void forget(struct ws_pool *pool, struct ws_in *in, struct ws_in **state)
{
	give_parser(pool, in);
	msg_drop(pool, in);
	if (*state == NULL)
		return;
	pool->memory -= sizeof(*in);
	free(*state);
	*state = NULL;
}

/* A parser is counted only while it stays attached, and refused then; a stash alone is counted but never
 * refused: it is bounded by the number of connections, and a header cut in two is nobody's fault. */
static int settle_parser(struct ws_pool *pool, struct ws_in *in)
{
	if (!in->in_message) {
		give_parser(pool, in);
		return 0;
	}
	if (in->has_parser_counted)
		return 0;
	if (!is_memory_there(pool, WS_PARSER_BYTES))
		return TRY_LATER;
	pool->memory += WS_PARSER_BYTES;
	in->has_parser_counted = true;
	return 0;
}

/* The end of a feed without error: keep what is unfinished, and nothing else. */
static int settle(struct ws_pool *pool, struct ws_in *in, struct ws_in **state)
{
	int code = settle_parser(pool, in);

	if (code != 0)
		return code;
	if (!in->in_message && in->stash_len == 0 && !in->is_held) {
		forget(pool, in, state);
		return 0;
	}
	if (*state != NULL)
		return 0;
	*state = malloc(sizeof(**state));
	if (*state == NULL)
		return INTERNAL_ERROR;
	memcpy(*state, in, offsetof(struct ws_in, stash) + in->stash_len);
	pool->memory += sizeof(**state);
	return 0;
}

int ws_feed(struct ws_pool *pool, struct ws_in **state, const struct ws_limits *limits,
	    const struct ws_handler *h, void *arg, const uint8_t *data, size_t len, size_t *consumed)
{
	struct ws_call c = {.pool = pool, .in = *state, .limits = limits, .h = h, .arg = arg};
	struct ws_in fresh;
	size_t pos = 0;
	int code = 0;

	if (c.in == NULL) {
		c.in = &fresh;
		memset(&fresh, 0, offsetof(struct ws_in, stash));
	}
	assert(!c.in->is_held); /* the caller has not finished with the last message */
	while (pos < len && code == 0 && !c.is_over)
		code = step(&c, data, len, &pos);
	*consumed = pos;
	if (code == 0 && (!c.is_over || c.in->is_held))
		code = settle(pool, c.in, state);
	else if (code == 0)
		forget(pool, c.in, state); /* a Close: nothing behind it counts */
	if (code != 0)
		forget(pool, c.in, state);
	return code;
}

struct slice ws_held(const struct ws_in *state, uint8_t *opcode)
{
	if (state == NULL || !state->is_held)
		return (struct slice){0};
	*opcode = state->opcode;
	return (struct slice){(const char *)(state->msg != NULL ? state->msg : no_bytes),
			      (size_t)state->msg_len};
}

void ws_held_done(struct ws_pool *pool, struct ws_in **state)
{
	assert(*state != NULL && (*state)->is_held);
	forget(pool, *state, state);
}

bool ws_is_mid_message(const struct ws_in *state)
{
	return state != NULL && !state->is_held;
}

void ws_reset(struct ws_pool *pool, struct ws_in **state)
{
	if (*state != NULL)
		forget(pool, *state, state);
}
