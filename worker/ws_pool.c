#include "worker/ws_pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NOT_UTF8       1007
#define INTERNAL_ERROR 1011

static ssize_t recv_cb(wslay_event_context_ptr wslay, uint8_t *buf, size_t len, int flags, void *user)
{
	struct ws_parser *parser = user;
	size_t n = (size_t)(parser->in_end - parser->in);

	(void)flags;
	if (n == 0 || parser->error != 0) {
		wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	if (n > len)
		n = len;
	memcpy(buf, parser->in, n);
	parser->in += n;
	parser->fed += n;
	return (ssize_t)n;
}

static void frame_start_cb(wslay_event_context_ptr wslay,
			   const struct wslay_event_on_frame_recv_start_arg *arg, void *user)
{
	struct ws_parser *parser = user;

	(void)wslay;
	parser->frame_len = arg->payload_length;
	parser->in_message = !arg->fin;
}

static void frame_chunk_cb(wslay_event_context_ptr wslay,
			   const struct wslay_event_on_frame_recv_chunk_arg *arg, void *user)
{
	struct ws_parser *parser = user;

	(void)wslay;
	if (parser->error == 0 && arg->data_length > 0)
		parser->error = ws_got_payload(parser->call, arg->data, arg->data_length);
}

static void frame_end_cb(wslay_event_context_ptr wslay, void *user)
{
	struct ws_parser *parser = user;
	uint64_t len = parser->frame_len;

	(void)wslay;
	parser->done += 6 + (len > 65535 ? 8 : len > 125 ? 2 : 0) + len;
}

static void message_cb(wslay_event_context_ptr wslay, const struct wslay_event_on_msg_recv_arg *arg,
		       void *user)
{
	struct ws_parser *parser = user;

	(void)wslay;
	(void)arg;
	if (parser->error == 0)
		parser->error = ws_got_message(parser->call);
}

/* Nothing is ever sent from here: whatever wslay queues (a Close, after an error) dies with the parser. */
static const struct wslay_event_callbacks callbacks = {
	.recv_callback = recv_cb,
	.on_frame_recv_start_callback = frame_start_cb,
	.on_frame_recv_chunk_callback = frame_chunk_cb,
	.on_frame_recv_end_callback = frame_end_cb,
	.on_msg_recv_callback = message_cb,
};

static struct ws_parser *parser_new(void)
{
	struct ws_parser *parser = calloc(1, sizeof(*parser));

	if (parser == NULL)
		return NULL;
	if (wslay_event_context_server_init(&parser->wslay, &callbacks, parser) != 0) {
		free(parser);
		return NULL;
	}
	wslay_event_config_set_no_buffering(parser->wslay, 1);
	/* The gate has its own limit, over the whole message; wslay's would count each frame alone. */
	wslay_event_config_set_max_recv_msg_length(parser->wslay, UINT64_MAX);
	return parser;
}

static void parser_free(struct ws_parser *parser)
{
	wslay_event_context_free(parser->wslay);
	free(parser);
}

/* wslay has no reset. By its public interface alone, a context is as new when every byte that it fetched
 * belongs to a frame that it reported complete (so neither its buffer nor its state machine holds a partial
 * frame), no message is under way, and it neither queued nor refused anything. */
static bool is_as_new(const struct ws_parser *parser)
{
	return parser->error == 0 && parser->fed == parser->done && !parser->in_message &&
	       !wslay_event_want_write(parser->wslay) && wslay_event_get_read_enabled(parser->wslay) &&
	       wslay_event_get_write_enabled(parser->wslay);
}

struct ws_parser *ws_pool_borrow(struct ws_pool *pool)
{
	struct ws_parser *parser = pool->idle;

	if (parser != NULL) {
		pool->idle = parser->next;
		pool->n_idle--;
	} else {
		parser = parser_new();
		if (parser == NULL)
			return NULL;
	}
	parser->next = NULL;
	pool->n_borrowed++;
	return parser;
}

void ws_pool_give(struct ws_pool *pool, struct ws_parser *parser)
{
	assert(pool->n_borrowed > 0);
	pool->n_borrowed--;
	if (pool->n_idle >= pool->max_idle || !is_as_new(parser)) {
		parser_free(parser);
		return;
	}
	parser->next = pool->idle; /* last in, first out: its 8 KB are still in the cache */
	pool->idle = parser;
	pool->n_idle++;
}

int ws_parser_feed(struct ws_parser *parser, struct ws_call *call, const uint8_t *p, size_t len)
{
	int rc;

	parser->call = call;
	parser->in = p;
	parser->in_end = p + len;
	rc = wslay_event_recv(parser->wslay);
	parser->call = NULL;
	parser->in = parser->in_end = NULL;
	if (parser->error != 0)
		return parser->error;
	if (rc != 0)
		return INTERNAL_ERROR;
	/* Everything else that makes wslay stop reading has been refused at the gate. */
	if (!wslay_event_get_read_enabled(parser->wslay))
		return NOT_UTF8;
	return 0;
}

struct ws_pool *ws_pool_new(unsigned max_idle, uint64_t memory_max)
{
	struct ws_pool *pool = calloc(1, sizeof(*pool));

	if (pool == NULL)
		return NULL;
	pool->max_idle = max_idle;
	pool->memory_max = memory_max;
	return pool;
}

void ws_pool_free(struct ws_pool *pool)
{
	if (pool == NULL)
		return;
	assert(pool->n_borrowed == 0 && pool->memory == 0); /* every connection was reset before */
	while (pool->idle != NULL) {
		struct ws_parser *parser = pool->idle;

		pool->idle = parser->next;
		parser_free(parser);
	}
	free(pool);
}

uint64_t ws_pool_memory(const struct ws_pool *pool)
{
	return pool->memory;
}

unsigned ws_pool_borrowed(const struct ws_pool *pool)
{
	return pool->n_borrowed;
}
