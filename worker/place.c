#include "worker/place.h"

#include <string.h>
#include <strings.h>

#include "common/integer.h"
#include "common/percent.h"
#include "common/utf8.h"

#define KEY_MAX 256 /* bytes of a parameter's decoded name that are looked at */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct slice trim(struct slice s)
{
	while (s.len > 0 && is_blank(s.p[0]))
		s = (struct slice){s.p + 1, s.len - 1};
	while (s.len > 0 && is_blank(s.p[s.len - 1]))
		s.len--;
	return s;
}

/* Take what stands before the next `by` off *rest. False: there is nothing left. */
static bool next_part(struct slice *rest, char by, struct slice *part)
{
	const char *end;

	if (rest->p == NULL)
		return false;
	end = rest->len == 0 ? NULL : memchr(rest->p, by, rest->len);
	if (end == NULL) {
		*part = *rest;
		*rest = (struct slice){NULL, 0};
		return true;
	}
	*part = (struct slice){rest->p, (size_t)(end - rest->p)};
	*rest = (struct slice){end + 1, rest->len - part->len - 1};
	return true;
}

static void split(struct slice part, struct slice *key, struct slice *value)
{
	const char *eq = part.len == 0 ? NULL : memchr(part.p, '=', part.len);

	*key = (struct slice){part.p, eq == NULL ? part.len : (size_t)(eq - part.p)};
	*value = eq == NULL ? (struct slice){part.p + part.len, 0}
			    : (struct slice){eq + 1, part.len - key->len - 1};
}

static bool is_named(struct slice key, const char *name)
{
	char text[KEY_MAX];
	ssize_t n = percent_decode(key, true, text, sizeof(text));

	return n >= 0 && (size_t)n == strlen(name) && memcmp(text, name, (size_t)n) == 0;
}

bool place_query(struct slice query, const char *name, struct slice *raw)
{
	struct slice part, key, value;
	bool is_found = false;

	while (next_part(&query, '&', &part)) {
		split(part, &key, &value);
		if (is_named(key, name)) {
			*raw = value;
			is_found = true;
		}
	}
	return is_found;
}

bool place_cookie(struct slice header, const char *name, struct slice *value)
{
	struct slice part, key, v;
	bool is_found = false;

	while (next_part(&header, ';', &part)) {
		split(part, &key, &v);
		key = trim(key);
		if (key.len != strlen(name) || memcmp(key.p, name, key.len) != 0)
			continue;
		v = trim(v);
		if (v.len >= 2 && v.p[0] == '"' && v.p[v.len - 1] == '"')
			v = (struct slice){v.p + 1, v.len - 2};
		*value = v;
		is_found = true;
	}
	return is_found;
}

static bool is_plain_text(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		if ((uint8_t)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	}
	return utf8_is_valid(s.p, s.len);
}

size_t place_user(struct slice query, const char *name, bool is_int, char *dst, size_t size)
{
	char text[3 * CFG_ROOM_MAX];
	struct slice raw;
	ssize_t n;

	if (!place_query(query, name, &raw))
		return 0;
	n = percent_decode(raw, true, text, sizeof(text));
	if (n <= 0)
		return 0;
	if (is_int)
		return integer_canonical((struct slice){text, (size_t)n}, dst, size);
	if ((size_t)n > size || !is_plain_text((struct slice){text, (size_t)n}))
		return 0;
	memcpy(dst, text, (size_t)n);
	return (size_t)n;
}

bool place_bearer(struct slice header, struct slice *token)
{
	if (header.len < 8 || strncasecmp(header.p, "bearer ", 7) != 0)
		return false;
	*token = trim((struct slice){header.p + 7, header.len - 7});
	return token->len > 0;
}

bool place_subprotocol(struct slice header, struct slice *token)
{
	struct slice part;
	bool is_next = false;

	while (next_part(&header, ',', &part)) {
		part = trim(part);
		if (is_next) {
			*token = part;
			return part.len > 0;
		}
		is_next = http_equals(part, "bearer");
	}
	return false;
}

bool place_offers_bearer(const struct http_parser *p, const char *head)
{
	return http_has_token(p, head, "sec-websocket-protocol", "bearer");
}

struct slice place_find(const struct cfg_source_of *from, const struct http_parser *p, const char *head,
			char *dst, size_t size)
{
	const struct slice none = {NULL, 0};
	struct slice value;
	ssize_t n;

	switch (from->place) {
	case CFG_PLACE_HEADER:
		if (http_header(p, head, from->name == NULL ? "authorization" : from->name, &value) == 0)
			return none;
		return from->name != NULL || place_bearer(value, &value) ? value : none;
	case CFG_PLACE_COOKIE:
		if (http_header(p, head, "cookie", &value) == 0)
			return none;
		return place_cookie(value, from->name, &value) ? value : none;
	case CFG_PLACE_QUERY:
		if (!place_query(http_slice(head, p->query), from->name, &value))
			return none;
		n = percent_decode(value, false, dst, size);
		return n == -1 ? none : (struct slice){dst, (size_t)n};
	case CFG_PLACE_SUBPROTOCOL:
		if (http_header(p, head, "sec-websocket-protocol", &value) == 0)
			return none;
		return place_subprotocol(value, &value) ? value : none;
	}
	return none;
}
