#include "worker/ws_gate.h"

#include "common/utf8.h"
#include "common/wsframe.h"

#define PROTOCOL_ERROR 1002
#define NOT_UTF8       1007

/* What the first two bytes tell. */
static bool is_start_legal(uint8_t b0, uint8_t b1, bool in_message)
{
	uint8_t opcode = b0 & 0x0f, len7 = b1 & 0x7f;
	bool fin = b0 & 0x80;

	if ((b0 & 0x70) || !(b1 & 0x80)) /* no extension gives RSV a meaning; clients must mask */
		return false;
	switch (opcode) {
	case 0:
		return in_message;
	case WS_TEXT:
	case WS_BINARY:
		return !in_message;
	case WS_CLOSE:
	case WS_PING:
	case WS_PONG:
		return fin && len7 <= WS_CONTROL_PAYLOAD_MAX;
	default:
		return false;
	}
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static int ask(struct ws_header *h, size_t need)
{
	h->need = need;
	return WS_GATE_MORE;
}

int ws_gate(const uint8_t *p, size_t n, bool in_message, struct ws_header *h)
{
	size_t ext;

	if (n < 2)
		return ask(h, 2);
	if (!is_start_legal(p[0], p[1], in_message))
		return PROTOCOL_ERROR;
	h->opcode = p[0] & 0x0f;
	h->fin = p[0] & 0x80;
	h->len = p[1] & 0x7f;
	ext = h->len == 126 ? 2 : h->len == 127 ? 8 : 0;
	h->size = (uint8_t)(2 + ext + 4);
	if (n < h->size)
		return ask(h, ws_is_control(h->opcode) ? h->size + h->len : h->size);
	if (ext > 0) {
		h->len = big_endian(p + 2, ext);
		if (h->len < (ext == 2 ? 126 : 65536) || h->len >> 63)
			return PROTOCOL_ERROR;
	}
	if (ws_is_control(h->opcode) && n < h->size + h->len)
		return ask(h, h->size + h->len);
	h->mask = p + 2 + ext;
	return WS_GATE_PASS;
}

static bool may_close_code_travel(uint16_t code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

int ws_gate_close(const uint8_t *p, size_t len, uint16_t *code)
{
	*code = 1005;
	if (len == 0)
		return 0;
	if (len == 1)
		return PROTOCOL_ERROR;
	*code = (uint16_t)big_endian(p, 2);
	if (!may_close_code_travel(*code))
		return PROTOCOL_ERROR;
	return utf8_is_valid(p + 2, len - 2) ? 0 : NOT_UTF8;
}
