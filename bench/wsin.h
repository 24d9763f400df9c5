/* wsin.h - the receiving half of a WebSocket client, with no memory of its own worth the name.
 *
 * Works in place on the caller's read buffer; what a read cut in the middle of a header (or of a control
 * frame, or of the first few payload bytes) waits in a stash of WSIN_STASH bytes inside the struct. The
 * caller leaves that much room before each read, so that stash and new bytes lie in a row:
 *
 *     | room (WSIN_STASH) | bytes just read |
 *
 * All zero is a valid fresh one. One owner; pure.
 */
#ifndef BENCH_WSIN_H
#define BENCH_WSIN_H

#include "common/base.h"

#define WSIN_STASH 144 /* 14 of header + 125 of a control frame, rounded up */
#define WSIN_HEAD  48  /* payload bytes of a data frame that come in one piece, usually (PAYLOAD_MIN) */

struct wsin {
	uint64_t rem; /* payload bytes of the current data frame still to come */
	uint16_t stash_len;
	uint8_t stash[WSIN_STASH];
};

struct wsin_ops {
	uint64_t head; /* payload bytes of a data frame that come in one piece; at most WSIN_STASH - 14 */
	/* A frame begins. Control: all `len` bytes are there. Data: `have` >= min(len, head) of them
	 * are. `fin_op` is the first header byte. Returns false to stop (the connection is then given up). */
	bool (*frame)(void *arg, uint8_t fin_op, const uint8_t *payload, uint64_t len, uint64_t have);
	/* More payload of the data frame. */
	void (*more)(void *arg, const uint8_t *payload, uint64_t n);
	/* The data frame is complete. */
	bool (*end)(void *arg);
};

/* Take the n bytes at p (room for WSIN_STASH before them). Returns 0, or -1: the peer broke the protocol
 * (masked, reserved bits, control frame too long), or a callback said stop. */
int wsin_feed(struct wsin *w, uint8_t *p, size_t n, const struct wsin_ops *ops, void *arg) MUST_CHECK;

#endif
