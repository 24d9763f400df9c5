/* load_text.c - templates, the request to upgrade and its answer (load_text.h). */
#include "bench/load_text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/wsframe.h"

#define FRAME_TEXT_MAX 4096 /* of one first frame, filled in */

size_t load_expand(char *dst, size_t size, const char *tmpl, uint32_t channel, uint32_t conn)
{
	size_t at = 0;

	while (*tmpl != '\0') {
		const char kind = tmpl[0] == '%' ? tmpl[1] : '\0';
		int n = 1;

		if (kind == 'd' || kind == 'c')
			n = snprintf(dst + at, size - at, "%u", kind == 'd' ? channel : conn);
		else
			dst[at] = *tmpl;
		if (n < 1 || at + (size_t)n + 1 > size)
			return 0;
		at += (size_t)n;
		tmpl += kind == 'd' || kind == 'c' || kind == '%' ? 2 : 1;
	}
	dst[at] = '\0';
	return at;
}

static bool has_header(const struct load_opts *o, const char *name)
{
	for (uint32_t i = 0; i < o->headers.n; i++)
		if (strncasecmp(o->headers.text[i], name, strlen(name)) == 0)
			return true;
	return false;
}

struct out {
	char *p;
	size_t size, len;
	bool full;
};

static void out_text(struct out *out, const char *text)
{
	const size_t n = strlen(text);

	if (out->full || n >= out->size - out->len) {
		out->full = true;
		return;
	}
	memcpy(out->p + out->len, text, n + 1);
	out->len += n;
}

static void out_template(struct out *out, const char *tmpl, uint32_t channel, uint32_t conn)
{
	const size_t n =
		out->full ? 0 : load_expand(out->p + out->len, out->size - out->len, tmpl, channel, conn);

	out->full |= n == 0;
	out->len += n;
}

size_t load_request(char *dst, size_t size, const struct load_opts *o, const char *path, uint32_t channel,
		    uint32_t conn)
{
	struct out out = {dst, size, 0, false};

	out_text(&out, "GET ");
	out_template(&out, path, channel, conn);
	out_text(&out, " HTTP/1.1\r\n");
	if (!has_header(o, "Host:")) {
		out_text(&out, "Host: ");
		out_text(&out, strncmp(o->target, "unix:", 5) == 0 ? "localhost" : o->target);
		out_text(&out, "\r\n");
	}
	out_text(&out, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " LOAD_KEY
		       "\r\nSec-WebSocket-Version: 13\r\n");
	if (o->subprotocol) {
		out_text(&out, "Sec-WebSocket-Protocol: ");
		out_text(&out, o->subprotocol);
		out_text(&out, "\r\n");
	}
	for (uint32_t i = 0; i < o->headers.n; i++) {
		out_template(&out, o->headers.text[i], channel, conn);
		out_text(&out, "\r\n");
	}
	out_text(&out, "\r\n");
	return out.full ? 0 : out.len;
}

/* The value of a header in a head whose lines all end with \r\n: *len bytes, NULL if there is none. */
static const char *header_value(const char *head, const char *name, size_t *len)
{
	const char *at = strcasestr(head, name); /* "\r\nName:" */

	if (!at)
		return NULL;
	at += strlen(name);
	at += strspn(at, " \t");
	*len = strcspn(at, "\r\n");
	while (*len > 0 && (at[*len - 1] == ' ' || at[*len - 1] == '\t'))
		--*len;
	return at;
}

/* Is `word` one of a list with commas between? */
static bool is_listed(const char *list, size_t list_len, const char *word, size_t len)
{
	const char *end = list + list_len;

	while (list < end) {
		size_t n, skip;

		list += strspn(list, " \t,");
		if (list >= end)
			return false;
		skip = strcspn(list, ",\r\n");
		n = skip;
		while (n > 0 && (list[n - 1] == ' ' || list[n - 1] == '\t'))
			n--;
		if (n == len && strncasecmp(list, word, len) == 0)
			return true;
		list += skip;
	}
	return false;
}

const char *load_answer_fault(const struct load_opts *o, char *head)
{
	const char *v;
	size_t n;

	if (strncmp(head, "HTTP/1.1 101", 12) != 0 || (head[12] != ' ' && head[12] != '\r')) {
		head[strcspn(head, "\r\n")] = '\0';
		return head;
	}
	v = header_value(head, "\r\nSec-WebSocket-Accept:", &n);
	if (!v || n != strlen(LOAD_ACCEPT) || memcmp(v, LOAD_ACCEPT, n) != 0)
		return "Sec-WebSocket-Accept is wrong or missing";
	v = header_value(head, "\r\nUpgrade:", &n);
	if (!v || n != 9 || strncasecmp(v, "websocket", n) != 0)
		return "no Upgrade: websocket";
	v = header_value(head, "\r\nConnection:", &n);
	if (!v || !is_listed(v, n, "upgrade", 7))
		return "no Connection: Upgrade";
	if (!o->subprotocol)
		return NULL;
	v = header_value(head, "\r\nSec-WebSocket-Protocol:", &n);
	if (!v || !is_listed(o->subprotocol, strlen(o->subprotocol), v, n))
		return "the subprotocol is not one that was asked for";
	return NULL;
}

ssize_t load_first_frames(uint8_t *dst, size_t size, const struct load_opts *o, uint32_t channel,
			  uint32_t conn)
{
	static const uint8_t mask[4] = {0x91, 0x0d, 0x5e, 0x72};
	uint8_t *at = dst;

	for (uint32_t i = 0; i < o->first_frames.n; i++) {
		char text[FRAME_TEXT_MAX];
		size_t len = load_expand(text, sizeof(text), o->first_frames.text[i], channel, conn), n;

		if (len == 0 || (size_t)(dst + size - at) < len + WS_HEADER_MAX + 4)
			return -1;
		n = ws_header_put(at, WS_TEXT, len);
		at[1] |= 0x80;
		memcpy(at + n, mask, 4);
		at += n + 4;
		for (size_t k = 0; k < len; k++)
			*at++ = (uint8_t)text[k] ^ mask[k & 3];
	}
	return at - dst;
}
