/* ws.h - the receiving half of RFC 6455 for one connection, through borrowed wslay parsers.
 *
 * Worker process only; never blocks; one thread. A connection at a clean boundary (no frame begun, no message
 * under way) owns NOTHING here: its `struct ws_in *` is NULL. The state appears when a read ends in the
 * middle of a header, payload or fragmented message, and goes away at the next clean boundary.
 *
 * Nothing is written here: pings, closes and errors are reported, the connection answers (conn_out.c).
 */
#ifndef RC_WS_H
#define RC_WS_H

#include "common/base.h"

struct ws_pool; /* the worker's parsers (LIFO), its accounting of assembly memory */
struct ws_in;   /* one connection's unfinished input */

/* Exactly the limit is allowed; one more is 1009, on the header alone. */
struct ws_limits {
	uint32_t max_message;   /* bytes of one message, all its frames together; 0 = no limit */
	uint32_t max_fragments; /* frames of one message; 0 = no limit */
};

enum ws_take { WS_TAKEN, WS_HOLD };

struct ws_handler {
	/* A complete message, UTF-8 checked if text. `p` is valid during the call only. WS_HOLD: cannot be
	 * taken now; ws keeps a copy (ws_held) and ws_feed returns at once with the rest unconsumed. */
	enum ws_take (*on_message)(void *arg, uint8_t opcode, const uint8_t *p, size_t len);
	void (*on_ping)(void *arg, const uint8_t *p, size_t len); /* len <= 125 */
	void (*on_pong)(void *arg);
	/* The peer's Close, already checked. code 1005: empty Close. Nothing is reported after it. */
	void (*on_close)(void *arg, uint16_t code);
};

/* The pool of one worker. max_idle parsers are kept for re-use; memory_max bounds all that unfinished input
 * costs (0 = no limit): assembly buffers at their capacity, and about 8.8 KB of parser for each connection
 * that is in the middle of a message. Partial headers (200 bytes a connection) are counted, never refused.
 * NULL: ENOMEM. ws_pool_free: only after ws_reset() of every connection; NULL is fine. */
struct ws_pool *ws_pool_new(unsigned max_idle, uint64_t memory_max) MUST_CHECK;
void ws_pool_free(struct ws_pool *pool);
uint64_t ws_pool_memory(const struct ws_pool *pool);   /* bytes that unfinished input costs now */
unsigned ws_pool_borrowed(const struct ws_pool *pool); /* parsers in use now */

/* Feed `len` bytes that the socket gave. *state is the connection's (NULL at first). Sets *consumed (less
 * than len only after WS_HOLD, a Close or an error). Handlers are called from inside, in the order of the
 * frames; they may not free the connection nor call ws_* for it. With a message held it must not be called
 * (asserted). Returns 0, or the close code to send: 1002, 1007, 1009 (size, fragments), 1011 (no memory),
 * 1013 (memory_max). After a code or on_close the state is already forgotten, and the caller feeds no more.
 */
int ws_feed(struct ws_pool *pool, struct ws_in **state, const struct ws_limits *limits,
	    const struct ws_handler *h, void *arg, const uint8_t *data, size_t len,
	    size_t *consumed) MUST_CHECK;

/* The message kept by WS_HOLD; p == NULL if none (never NULL for an empty message). Valid until
 * ws_held_done(), which is only called with one held. */
struct slice ws_held(const struct ws_in *state, uint8_t *opcode);
void ws_held_done(struct ws_pool *pool, struct ws_in **state);

/* Is a frame or a message under way, be it one byte of a header? For deadlines: it holds 200 bytes, or from
 * the first whole data header on 9 KB and what has arrived. */
bool ws_is_mid_message(const struct ws_in *state);

/* Forget the connection's input. *state becomes NULL. */
void ws_reset(struct ws_pool *pool, struct ws_in **state);

#endif
