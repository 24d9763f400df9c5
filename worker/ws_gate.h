/* ws_gate.h - judges a client's frame header before any parser or allocator hears of it.
 *
 * Worker process only. Pure functions over bytes: no state, no allocation, never block.
 *
 *      first two bytes            whole header                   whole frame
 *   ------------------------> ----------------------> ------------------------------------>
 *   RSV, opcode, mask bit,    minimal length,          control frames only: they are handed
 *   order, control length     63-bit length            on whole, their payload <= 125 bytes
 *
 * Each verdict falls at the earliest byte that allows it, so a bad frame costs its sender no more than
 * two bytes and costs us nothing.
 */
#ifndef RC_WS_GATE_H
#define RC_WS_GATE_H

#include "common/base.h"

#define WS_CONTROL_PAYLOAD_MAX 125
#define WS_CLIENT_HEADER_MAX   14                           /* 2 + 8 length bytes + 4 mask bytes */
#define WS_GATE_NEED_MAX       (6 + WS_CONTROL_PAYLOAD_MAX) /* the most that WS_GATE_MORE ever asks for */

/* Verdicts; any other value is the close code (1002) to send. */
#define WS_GATE_PASS 0
#define WS_GATE_MORE (-1) /* call again when `need` bytes are together */

struct ws_header {
	uint64_t len;        /* payload bytes, <= 2^63 - 1 */
	size_t need;         /* bytes that must be together for the next verdict: 2..WS_GATE_NEED_MAX */
	const uint8_t *mask; /* 4 bytes inside `p` */
	uint8_t size;        /* bytes of the header with its mask: 6..14 */
	uint8_t opcode;
	bool fin;
};

/* Judge the frame that begins at p[0], of which n bytes are there. in_message: a fragmented message is under
 * way. On WS_GATE_PASS `h` is complete, and of a control frame the payload is there too; on WS_GATE_MORE only
 * h->need is set, and it is > n. */
int ws_gate(const uint8_t *p, size_t n, bool in_message, struct ws_header *h) MUST_CHECK;

static inline bool ws_is_control(uint8_t opcode)
{
	return opcode & 0x8;
}

/* Judge the (unmasked) payload of a Close. Returns 0 and *code (1005: it was empty), or the close code to
 * answer with: 1002 (one byte, a code that may not travel), 1007 (the reason is not UTF-8). */
int ws_gate_close(const uint8_t *p, size_t len, uint16_t *code) MUST_CHECK;

#endif
