#include "worker/ws_gate.h"

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
	return ws_is_utf8(p + 2, len - 2) ? 0 : NOT_UTF8;
}

/* Bytes of the character that begins at p, of which n are there; 0 if there is none. */
static size_t utf8_step(const uint8_t *p, size_t n)
{
	uint8_t lo = 0x80, hi = 0xbf;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (n < len)
		return 0;
	switch (p[0]) { /* the second byte alone decides on overlong forms, surrogates and the upper end */
	case 0xe0:
		lo = 0xa0;
		break;
	case 0xed:
		hi = 0x9f;
		break;
	case 0xf0:
		lo = 0x90;
		break;
	case 0xf4:
		hi = 0x8f;
		break;
	}
	if (p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

bool ws_is_utf8(const uint8_t *p, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_step(p + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}
