#include "worker/handshake.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base64.h"
#include "common/integer.h"
#include "common/percent.h"
#include "common/room.h"

#define KEY_LEN    24 /* base64 of 16 bytes */
#define ORIGIN_MAX 512

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
#define GUID_LEN (sizeof(guid) - 1)

/* Does `path` begin with all of `prefix`? *len is the prefix' length then. */
static bool match_prefix(const char *prefix, struct slice path, size_t *len)
{
	size_t i = 0;

	for (; prefix[i] != '\0'; i++) {
		if (i == path.len || path.p[i] != prefix[i])
			return false;
	}
	*len = i;
	return true;
}

/* Does the path fit a template with a room? *segment is what stands for it, at least one byte. */
static bool match_room(const struct cfg_namespace *ns, struct slice path, size_t start, struct slice *segment)
{
	struct slice rest = {path.p + start, path.len - start};
	const char *slash = memchr(rest.p, '/', rest.len);
	size_t len = slash != NULL ? (size_t)(slash - rest.p) : rest.len, suffix = strlen(ns->path_suffix);

	*segment = (struct slice){rest.p, len};
	return len > 0 && rest.len - len == suffix && memcmp(rest.p + len, ns->path_suffix, suffix) == 0;
}

const struct cfg_namespace *handshake_route(const struct config *c, struct slice path, struct slice *segment)
{
	const struct cfg_namespace *best = NULL;
	size_t start, best_start = 0;
	struct slice found;

	*segment = (struct slice){path.p, 0};
	for (const struct cfg_namespace *ns = c->namespaces; ns < c->namespaces + c->n_namespaces; ns++) {
		if (!match_prefix(ns->path_prefix, path, &start))
			continue;
		if (ns->room != CFG_ROOM_PATH) {
			if (start != path.len)
				continue;
			segment->len = 0;
			return ns;
		}
		if ((best == NULL || start > best_start) && match_room(ns, path, start, &found)) {
			best = ns;
			best_start = start;
			*segment = found;
		}
	}
	return best;
}

/* The origin that the request itself was sent to, if its scheme is that of `origin`: without TLS of our own
 * we can't know it. */
static bool own_origin(struct slice origin, struct slice host, char *dst, size_t size)
{
	char text[ORIGIN_MAX];
	size_t scheme;

	if (origin.len > 8 && strncasecmp(origin.p, "https://", 8) == 0)
		scheme = 8;
	else if (origin.len > 7 && strncasecmp(origin.p, "http://", 7) == 0)
		scheme = 7;
	else
		return false;
	if (host.len > sizeof(text) - scheme)
		return false;
	memcpy(text, origin.p, scheme);
	memcpy(text + scheme, host.p, host.len);
	return config_origin_normalise((struct slice){text, scheme + host.len}, dst, size);
}

static bool origin_allowed(const struct cfg_namespace *ns, const struct http_parser *p, const char *buf)
{
	char given[ORIGIN_MAX], own[ORIGIN_MAX];
	struct slice origin;
	unsigned n = http_header(p, buf, "origin", &origin);
	bool is_origin;

	if (n == 0)
		return true;
	if (n > 1)
		return false;
	is_origin = config_origin_normalise(origin, given, sizeof(given));
	for (size_t i = 0; i < ns->n_origins; i++) {
		if (strcmp(ns->origins[i], "*") == 0 || (is_origin && strcmp(ns->origins[i], given) == 0))
			return true;
	}
	return ns->n_origins == 0 && is_origin &&
	       own_origin(origin, http_slice(buf, p->host), own, sizeof(own)) && strcmp(given, own) == 0;
}

/* Section 4.2.2: SHA-1 of key and GUID. The context is kept: looking the algorithm up costs four times the
 * hash. */
static bool accept_key(struct slice key, char *dst)
{
	static EVP_MD_CTX *ctx;
	static EVP_MD *sha1;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len;
	bool ok;

	if (ctx == NULL && ((ctx = EVP_MD_CTX_new()) == NULL))
		return false;
	if (sha1 == NULL && (sha1 = EVP_MD_fetch(NULL, "SHA1", NULL)) == NULL)
		return false;
	ok = EVP_DigestInit_ex2(ctx, sha1, NULL) == 1 && EVP_DigestUpdate(ctx, key.p, key.len) == 1 &&
	     EVP_DigestUpdate(ctx, guid, GUID_LEN) == 1 && EVP_DigestFinal_ex(ctx, digest, &len) == 1 &&
	     len == 20;
	return ok && base64_encode((struct slice){(char *)digest, len}, dst) == HANDSHAKE_ACCEPT_LEN;
}

/* Base64 of 16 bytes. The four bits that are left over need not be zero: the key is hashed as text, and
 * clients exist that fill all 22 digits at random. */
static bool is_key(struct slice key)
{
	if (key.len != KEY_LEN || key.p[22] != '=' || key.p[23] != '=')
		return false;
	for (size_t i = 0; i < 22; i++) {
		if (!base64_is_digit(key.p[i]))
			return false;
	}
	return true;
}

static int refuse(struct handshake *out, int status, const char *reason)
{
	out->reason = reason;
	return status;
}

/* {room:int}: the application's own int() decides what is one, so that its URLs go on to work. */
static bool integer_room(struct slice segment, struct handshake *out)
{
	char text[3 * CFG_ROOM_MAX];
	ssize_t n = percent_decode(segment, false, text, sizeof(text));

	if (n <= 0)
		return false;
	out->room_len = (uint16_t)integer_canonical((struct slice){text, (size_t)n}, out->room, CFG_ROOM_MAX);
	out->room[out->room_len] = '\0';
	return out->room_len != 0;
}

/* Which namespace and room the path names. */
static int check_path(const struct config *c, const struct http_parser *p, const char *buf,
		      struct handshake *out)
{
	int unknown = c->limits.unknown_path_status != 0 ? c->limits.unknown_path_status : 404;
	struct slice segment;

	out->ns = handshake_route(c, http_slice(buf, p->path), &segment);
	if (out->ns == NULL)
		return refuse(out, unknown, "no_namespace");
	if (segment.len == 0)
		return 0;
	if (out->ns->room_is_int) {
		out->is_bad_room = !integer_room(segment, out);
		return 0;
	}
	out->room_len = (uint16_t)room_from_segment(segment, out->room);
	return out->room_len != 0 ? 0 : refuse(out, 400, "bad_room");
}

/* The WebSocket headers proper. */
static int check_upgrade(const struct http_parser *p, const char *buf, struct handshake *out)
{
	struct slice version, key;
	unsigned versions = http_header(p, buf, "sec-websocket-version", &version);

	if (!http_has_token(p, buf, "connection", "upgrade") ||
	    !http_has_token(p, buf, "upgrade", "websocket"))
		return refuse(out, 426, "no_upgrade");
	if (versions > 1)
		return refuse(out, 400, "bad_version");
	if (versions == 0 || !http_equals(version, "13"))
		return refuse(out, 426, "bad_version");
	if (http_header(p, buf, "sec-websocket-key", &key) != 1 || !is_key(key))
		return refuse(out, 400, "bad_key");
	return accept_key(key, out->accept) ? 0 : refuse(out, 503, "no_memory");
}

int handshake_check(const struct config *c, const struct http_parser *p, const char *buf,
		    struct handshake *out)
{
	int status;

	out->ns = NULL;
	out->reason = NULL;
	out->is_bearer = out->is_bad_room = false;
	out->room_len = 0;
	out->room[0] = '\0';
	if (p->method != HTTP_GET)
		return refuse(out, 405, "not_get");
	if (p->minor == 0)
		return refuse(out, 400, "http_version");
	if (http_has_body(p))
		return refuse(out, 400, "body");
	if ((status = check_path(c, p, buf, out)) != 0 || (status = check_upgrade(p, buf, out)) != 0)
		return status;
	return origin_allowed(out->ns, p, buf) ? 0 : refuse(out, 403, "origin");
}

size_t handshake_response(char *dst, size_t size, const struct handshake *h)
{
	static const char head[] =
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Accept: ";
	static const char plain[] = "\r\n\r\n", bearer[] = "\r\nSec-WebSocket-Protocol: bearer\r\n\r\n";
	const char *tail = h->is_bearer ? bearer : plain;
	const size_t head_len = sizeof(head) - 1, tail_len = strlen(tail);
	const size_t len = head_len + HANDSHAKE_ACCEPT_LEN + tail_len;

	_Static_assert(sizeof(head) + HANDSHAKE_ACCEPT_LEN + sizeof(bearer) <= HANDSHAKE_RESPONSE_SIZE,
		       "size in the header");
	if (size < len)
		return 0;
	memcpy(dst, head, head_len);
	memcpy(dst + head_len, h->accept, HANDSHAKE_ACCEPT_LEN);
	memcpy(dst + head_len + HANDSHAKE_ACCEPT_LEN, tail, tail_len);
	return len;
}

static const struct {
	int status;
	const char *phrase, *headers; /* what a handshake refused with it carries besides */
} answers[] = {
	{100, "Continue", ""},
	{101, "Switching Protocols", ""},
	{200, "OK", ""},
	{400, "Bad Request", ""},
	{401, "Unauthorized", ""},
	{403, "Forbidden", ""},
	{404, "Not Found", ""},
	{405, "Method Not Allowed", "Allow: GET\r\n"},
	{408, "Request Timeout", ""},
	{413, "Content Too Large", ""},
	{414, "URI Too Long", ""},
	{426, "Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"},
	{429, "Too Many Requests", ""},
	{431, "Request Header Fields Too Large", ""},
	{500, "Internal Server Error", ""},
	{503, "Service Unavailable", "Retry-After: 1\r\n"},
};

const char *handshake_phrase(int status)
{
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		if (answers[i].status == status)
			return answers[i].phrase;
	}
	return "";
}

size_t handshake_refusal(char *dst, size_t size, int status)
{
	const char *headers = "";
	int n;

	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		if (answers[i].status == status)
			headers = answers[i].headers;
	}
	/* Every refusal says "close" and nothing else, 426 too: the connection ends, so there is no hop to
	 * protect by naming Upgrade in Connection as well. */
	n = snprintf(dst, size, "HTTP/1.1 %d %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", status,
		     handshake_phrase(status), headers);
	return n > 0 && (size_t)n < size ? (size_t)n : 0;
}
