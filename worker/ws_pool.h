/* ws_pool.h - wslay parsers that connections borrow. Private to worker/ws*.c; nobody else includes it.
 *
 * An idle wslay context costs 8.7 KB, more than thirty times the whole budget of an idle connection, so
 * parsers belong to the worker. One is attached to a connection from the header of a data frame to the end
 * of its message, and at most for the duration of a feed otherwise.
 *
 *            borrow                       give, provably as new
 *   idle ------------> attached to one ------------------------------> idle (or freed: max_idle reached)
 *     ^                 connection     ------------------------------> freed
 *     |                                   give, anything else
 *   (new when none is idle)
 *
 * Only payload of data frames goes through a parser: it unmasks, joins and checks UTF-8 on the fly. Control
 * frames never reach it. (wslay 1.1.1 would queue a pong of its own per ping, checks the reason of a Close
 * that arrives in pieces wrongly, and refuses close codes 1012 to 1014.)
 */
#ifndef RC_WS_POOL_H
#define RC_WS_POOL_H

#include "worker/ws.h"

#include <wslay/wslay.h>

/* What one parser costs: six allocations of 8,696 bytes together, and our own struct. */
#define WS_PARSER_BYTES 8800

struct ws_call; /* one ws_feed() under way: worker/ws.c */

struct ws_parser {
	wslay_event_context_ptr wslay;
	struct ws_parser *next; /* in the idle list */

	/* The slot: wslay's user_data can't be changed, so it is this struct, which points to the call of the
	 * moment. All three are NULL outside ws_parser_feed(). */
	struct ws_call *call;
	const uint8_t *in, *in_end; /* bytes that wslay has not fetched yet */
	int error; /* close code that an upcall gave; the rest of the input is then withheld */

	/* Is it as new? Counted from what wslay itself reports, not from our gate, so that one checks the
	 * other. fed: bytes fetched. done: bytes of all frames that wslay reported complete. Both run freely
	 * over a parser's life. */
	uint64_t fed, done;
	uint64_t frame_len;
	bool in_message;
};

struct ws_pool {
	struct ws_parser *idle;
	unsigned n_idle, max_idle, n_borrowed;
	uint64_t memory, memory_max;
};

/* Returns a parser at a clean boundary, or NULL (no memory). */
struct ws_parser *ws_pool_borrow(struct ws_pool *pool) MUST_CHECK;

/* The parser is the pool's again, whatever state it is in. */
void ws_pool_give(struct ws_pool *pool, struct ws_parser *parser);

/* Feed bytes of ONE data frame that the gate has passed: its whole header, then payload, in as many calls as
 * it takes. The upcalls below are made from inside. Returns 0, 1007, 1011, or what an upcall returned; after
 * a code the parser can only be given back. */
int ws_parser_feed(struct ws_parser *parser, struct ws_call *call, const uint8_t *p, size_t len) MUST_CHECK;

/* Upcalls, in worker/ws.c. Payload, unmasked and so far valid; `p` is valid until the next upcall. */
int ws_got_payload(struct ws_call *call, const uint8_t *p, size_t len) MUST_CHECK;
/* The message is complete and, if text, valid; the last payload is still readable. */
int ws_got_message(struct ws_call *call) MUST_CHECK;

#endif
