/* wsframe.h - the header of an unmasked WebSocket frame (RFC 6455, section 5.2), server to client.
 * Used by the master (each publication is framed once) and by workers (control frames). Pure. */
#ifndef RC_WSFRAME_H
#define RC_WSFRAME_H

#include "common/base.h"

#define WS_TEXT   0x1
#define WS_BINARY 0x2
#define WS_CLOSE  0x8
#define WS_PING   0x9
#define WS_PONG   0xa

#define WS_HEADER_MAX 10 /* 2 + 8 length bytes, no mask */

static inline size_t ws_header_size(uint64_t payload_len)
{
	return payload_len < 126 ? 2 : payload_len < 65536 ? 4 : 10;
}

/* Write the header of one unfragmented frame to dst (WS_HEADER_MAX bytes). Returns its size. */
static inline size_t ws_header_put(uint8_t *dst, uint8_t opcode, uint64_t payload_len)
{
	dst[0] = (uint8_t)(0x80 | opcode);
	if (payload_len < 126) {
		dst[1] = (uint8_t)payload_len;
		return 2;
	}
	if (payload_len < 65536) {
		dst[1] = 126;
		dst[2] = (uint8_t)(payload_len >> 8);
		dst[3] = (uint8_t)payload_len;
		return 4;
	}
	dst[1] = 127;
	for (int i = 0; i < 8; i++)
		dst[2 + i] = (uint8_t)(payload_len >> (56 - 8 * i));
	return 10;
}

#endif
