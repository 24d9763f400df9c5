/* The scanner is a loop over "value, then what may follow it". What is open is one bit a level (1 = object)
 * in a 64-bit word: that is the depth limit, and why neither recursion nor memory is needed.
 *
 * UTF-8 is checked over the whole text first: 8 bytes a step for ASCII, and after that each byte above 0x7f
 * may be taken as it comes. Outside strings the grammar refuses them anyway. */
#include "common/json.h"

#include <errno.h>
#include <string.h>

#include "common/utf8.h"
#include "common/word.h"

_Static_assert(JSON_DEPTH_MAX == 64, "the stack of open containers is a uint64_t");

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* p is behind a backslash. Returns what is behind the escape, or NULL. */
static const char *skip_escape(const char *p, const char *end)
{
	if (p == end)
		return NULL;
	switch (*p) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		return p + 1;
	case 'u':
		if (end - p < 5 || !is_hex(p[1]) || !is_hex(p[2]) || !is_hex(p[3]) || !is_hex(p[4]))
			return NULL;
		return p + 5;
	default:
		return NULL;
	}
}

/* The first byte from p on that does not simply belong to a string: quote, backslash or control byte; or
 * `end`. */
static const char *string_stop(const char *p, const char *end)
{
	uint64_t w, stops;

	for (; end - p >= 8; p += 8) {
		w = word_load(p);
		stops = word_below(w, 0x20) | word_equal(w, '"') | word_equal(w, '\\');
		if (stops != 0)
			return p + word_first(stops);
	}
	while (p < end && (uint8_t)*p >= 0x20 && *p != '"' && *p != '\\')
		p++;
	return p;
}

/* p is behind the opening quote. Returns what is behind the closing one, or NULL. */
static const char *skip_string(const char *p, const char *end)
{
	do {
		p = string_stop(p, end);
		if (p == end || (uint8_t)*p < 0x20)
			return NULL;
		if (*p == '"')
			return p + 1;
		p = skip_escape(p + 1, end);
	} while (p != NULL);
	return NULL;
}

/* At least one digit. */
static const char *skip_digits(const char *p, const char *end)
{
	const char *start = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p > start ? p : NULL;
}

static const char *skip_number(const char *p, const char *end)
{
	if (p < end && *p == '-')
		p++;
	if (p < end && *p == '0')
		p++;
	else if ((p = skip_digits(p, end)) == NULL)
		return NULL;
	if (p < end && *p == '.' && (p = skip_digits(p + 1, end)) == NULL)
		return NULL;
	if (p == end || (*p | 0x20) != 'e')
		return p;
	p++;
	if (p < end && (*p == '+' || *p == '-'))
		p++;
	return skip_digits(p, end);
}

static const char *skip_word(const char *p, const char *end, const char *word, size_t len)
{
	return (size_t)(end - p) >= len && memcmp(p, word, len) == 0 ? p + len : NULL;
}

/* A value that is no container. p < end. */
static const char *skip_scalar(const char *p, const char *end, enum json_type *type)
{
	switch (*p) {
	case '"':
		*type = JSON_TYPE_STRING;
		return skip_string(p + 1, end);
	case 't':
		*type = JSON_TYPE_TRUE;
		return skip_word(p, end, "true", 4);
	case 'f':
		*type = JSON_TYPE_FALSE;
		return skip_word(p, end, "false", 5);
	case 'n':
		*type = JSON_TYPE_NULL;
		return skip_word(p, end, "null", 4);
	default:
		*type = JSON_TYPE_NUMBER;
		return skip_number(p, end);
	}
}

/* A key and its colon, blanks included. Returns where the value begins, or NULL. */
static const char *skip_key(const char *p, const char *end)
{
	p = skip_blanks(p, end);
	if (p == end || *p != '"' || (p = skip_string(p + 1, end)) == NULL)
		return NULL;
	p = skip_blanks(p, end);
	return p < end && *p == ':' ? skip_blanks(p + 1, end) : NULL;
}

struct open_levels {
	uint64_t is_object; /* one bit a level, the innermost lowest */
	unsigned depth, max;
};

/* p is at '{' or '['. Returns where its first value begins, or behind it if it is empty, or NULL. */
static const char *enter(const char *p, const char *end, struct open_levels *open, bool *is_empty)
{
	bool is_object = *p == '{';

	if (open->depth == open->max)
		return NULL;
	p = skip_blanks(p + 1, end);
	*is_empty = p < end && *p == (is_object ? '}' : ']');
	if (*is_empty)
		return p + 1;
	open->is_object = open->is_object << 1 | is_object;
	open->depth++;
	return is_object ? skip_key(p, end) : p;
}

/* p is behind a value. Closes what ends here. Returns where the next value begins, or behind the outermost
 * container with depth 0, or NULL. */
static const char *leave(const char *p, const char *end, struct open_levels *open)
{
	while (open->depth > 0) {
		bool is_object = open->is_object & 1;

		p = skip_blanks(p, end);
		if (p == end)
			return NULL;
		if (*p == ',')
			return is_object ? skip_key(p + 1, end) : skip_blanks(p + 1, end);
		if (*p != (is_object ? '}' : ']'))
			return NULL;
		open->is_object >>= 1;
		open->depth--;
		p++;
	}
	return p;
}

static const char *skip_container(const char *p, const char *end, unsigned max_depth)
{
	struct open_levels open = {0, 0, max_depth};
	enum json_type type;
	bool is_empty;

	do {
		if (p == end)
			return NULL;
		if (*p == '{' || *p == '[') {
			p = enter(p, end, &open, &is_empty);
			if (p == NULL || !is_empty)
				continue;
		} else {
			p = skip_scalar(p, end, &type);
		}
		if (p != NULL)
			p = leave(p, end, &open);
	} while (p != NULL && open.depth > 0);
	return p;
}

static const char *skip_value(const char *p, const char *end, unsigned max_depth, enum json_type *type)
{
	if (p == end)
		return NULL;
	if (*p != '{' && *p != '[')
		return skip_scalar(p, end, type);
	*type = *p == '{' ? JSON_TYPE_OBJECT : JSON_TYPE_ARRAY;
	return skip_container(p, end, max_depth);
}

bool json_validate(struct slice text, enum json_type *type)
{
	const char *end = text.p + text.len, *p;
	enum json_type found;

	if (text.len == 0 || !utf8_is_valid(text.p, text.len))
		return false;
	p = skip_value(skip_blanks(text.p, end), end, JSON_DEPTH_MAX, &found);
	if (p == NULL || skip_blanks(p, end) != end)
		return false;
	if (type != NULL)
		*type = found;
	return true;
}

int json_object_begin(struct json_iter *it, struct slice text)
{
	const char *end = text.p + text.len;

	if (text.len == 0 || !utf8_is_valid(text.p, text.len))
		return -1;
	it->p = skip_blanks(text.p, end);
	it->end = end;
	it->comma = NULL;
	it->is_first = true;
	if (it->p == end || *it->p != '{')
		return -1;
	it->p++;
	return 0;
}

/* Behind the closing brace only blanks may follow. */
static int object_end(struct json_iter *it)
{
	it->p = skip_blanks(it->p + 1, it->end);
	return it->p == it->end ? 0 : -1;
}

int json_object_next(struct json_iter *it, struct json_member *m)
{
	const char *key, *value, *p = skip_blanks(it->p, it->end);

	it->p = p;
	if (p == it->end)
		return -1;
	if (*p == '}')
		return object_end(it);
	if (!it->is_first) {
		if (*p != ',')
			return -1;
		it->comma = p;
		p = skip_blanks(p + 1, it->end);
	}
	it->is_first = false;
	key = p;
	if (p == it->end || *p != '"' || (p = skip_string(p + 1, it->end)) == NULL)
		return -1;
	m->key = (struct slice){key, (size_t)(p - key)};
	p = skip_blanks(p, it->end);
	if (p == it->end || *p != ':')
		return -1;
	value = skip_blanks(p + 1, it->end);
	p = skip_value(value, it->end, JSON_DEPTH_MAX - 1, &m->type);
	if (p == NULL)
		return -1;
	m->value = (struct slice){value, (size_t)(p - value)};
	it->p = p;
	return 1;
}

int json_array_begin(struct json_iter *it, struct slice raw)
{
	if (raw.len < 2 || raw.p[0] != '[')
		return -1;
	*it = (struct json_iter){.p = raw.p + 1, .end = raw.p + raw.len, .is_first = true};
	return 0;
}

int json_array_next(struct json_iter *it, struct slice *value, enum json_type *type)
{
	const char *p = skip_blanks(it->p, it->end), *behind;

	if (p == it->end)
		return -1;
	if (*p == ']')
		return 0;
	if (!it->is_first) {
		if (*p != ',')
			return -1;
		p = skip_blanks(p + 1, it->end);
	}
	it->is_first = false;
	behind = skip_value(p, it->end, JSON_DEPTH_MAX - 1, type);
	if (behind == NULL)
		return -1;
	*value = (struct slice){p, (size_t)(behind - p)};
	it->p = behind;
	return 1;
}

static int hex4(const char *p, const char *end)
{
	int v = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		if (!is_hex(p[i]))
			return -1;
		v = v << 4 | (p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
	}
	return v;
}

/* *p is behind "\u". Writes the character, with its second half if it is a surrogate. Returns bytes, or 0. */
static size_t decode_unicode(const char **p, const char *end, char *dst)
{
	int hi = hex4(*p, end), lo;

	if (hi < 0 || (hi >= 0xdc00 && hi <= 0xdfff))
		return 0;
	*p += 4;
	if (hi < 0xd800 || hi > 0xdbff)
		return utf8_put(dst, (uint32_t)hi);
	if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return 0;
	lo = hex4(*p + 2, end);
	if (lo < 0xdc00 || lo > 0xdfff)
		return 0;
	*p += 6;
	return utf8_put(dst, 0x10000u + (((uint32_t)hi & 0x3ff) << 10 | ((uint32_t)lo & 0x3ff)));
}

/* *p is behind a backslash. Writes what the escape stands for, at most 4 bytes and never more than it took
 * itself. Returns bytes, or 0. */
static size_t decode_escape(const char **p, const char *end, char *dst)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at;

	if (*p == end)
		return 0;
	if (**p == 'u') {
		(*p)++;
		return decode_unicode(p, end, dst);
	}
	at = memchr(from, **p, sizeof(from) - 1);
	if (at == NULL)
		return 0;
	(*p)++;
	*dst = to[at - from];
	return 1;
}

/* Take the quotes off. Returns false if there are none. */
static bool unquote(struct slice raw, const char **p, const char **end)
{
	if (raw.len < 2 || raw.p[0] != '"' || raw.p[raw.len - 1] != '"')
		return false;
	*p = raw.p + 1;
	*end = raw.p + raw.len - 1;
	return true;
}

/* Compare while decoding. *rest: what of the string is left behind `s`. */
static bool begins(struct slice raw, const char *s, size_t *rest)
{
	size_t n, len = strlen(s);
	const char *p, *end;
	char c[4];

	if (!unquote(raw, &p, &end) || (size_t)(end - p) < len) /* decoding never makes longer */
		return false;
	if (len > 0 && *p != *s && *p != '\\')
		return false; /* most keys end here */
	if (memchr(p, '\\', len) == NULL) {
		*rest = (size_t)(end - p) - len;
		return memcmp(p, s, len) == 0;
	}
	while (len > 0 && p < end) {
		c[0] = *p++;
		n = c[0] == '\\' ? decode_escape(&p, end, c) : 1;
		if (n == 0 || n > len || memcmp(c, s, n) != 0)
			return false;
		s += n;
		len -= n;
	}
	*rest = (size_t)(end - p);
	return len == 0;
}

bool json_is(struct slice raw, const char *s)
{
	size_t rest;

	return begins(raw, s, &rest) && rest == 0;
}

bool json_begins(struct slice raw, const char *s)
{
	size_t rest;

	return begins(raw, s, &rest);
}

ssize_t json_string_copy(struct slice raw, char *dst, size_t size)
{
	const char *p, *end, *back;
	size_t n, len = 0;
	char c[4];

	if (!unquote(raw, &p, &end))
		return -1;
	while (p < end) {
		back = memchr(p, '\\', (size_t)(end - p));
		n = (size_t)((back != NULL ? back : end) - p);
		if (n > size - len)
			return -1;
		memmove(dst + len, p, n);
		len += n;
		p += n;
		if (back == NULL)
			break;
		p++;
		n = decode_escape(&p, end, c);
		if (n == 0 || n > size - len)
			return -1;
		memcpy(dst + len, c, n);
		len += n;
	}
	return (ssize_t)len;
}

int json_string_decode(struct slice raw, struct buf *out)
{
	ssize_t n;

	if (buf_reserve(out, raw.len) == -1)
		return -1;
	n = json_string_copy(raw, out->p + out->len, raw.len);
	if (n < 0) {
		errno = EILSEQ;
		return -1;
	}
	out->len += (size_t)n;
	return 0;
}

/* What one character becomes. `c` is below 0x20, a quote or a backslash. Returns the length, 2 or 6. */
static size_t escape_char(uint8_t c, char *dst)
{
	static const char hex[] = "0123456789abcdef";
	static const char names[0x20] = {
		['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

	dst[0] = '\\';
	dst[1] = c < 0x20 ? names[c] : (char)c;
	if (dst[1] != '\0')
		return 2;
	memcpy(dst + 1, "u00", 3);
	dst[4] = hex[c >> 4];
	dst[5] = hex[c & 15];
	return 6;
}

int json_escape(struct buf *out, struct slice s)
{
	const char *p = s.p, *end = s.len == 0 ? p : p + s.len; /* of nothing: NULL is fine */
	size_t n, plain;
	char *d;

	while (p < end) {
		for (plain = 0; p + plain < end; plain += n) {
			uint8_t c = (uint8_t)p[plain];

			n = utf8_sequence(p + plain, (size_t)(end - p) - plain);
			if (n == 0 || c < 0x20 || c == '"' || c == '\\')
				break;
		}
		if (buf_put(out, p, plain) == -1 || buf_reserve(out, 6) == -1)
			return -1;
		p += plain;
		if (p == end)
			break;
		d = out->p + out->len;
		out->len += (uint8_t)*p < 0x80 ? escape_char((uint8_t)*p, d) : utf8_put(d, 0xfffd);
		p++;
	}
	return 0;
}

int json_put_string(struct buf *out, struct slice s)
{
	return buf_put(out, "\"", 1) == -1 || json_escape(out, s) == -1 || buf_put(out, "\"", 1) == -1 ? -1
												       : 0;
}

/* A number's raw text as a canonical integer, a slice of it; len 0 if it is none. */
static struct slice canonical_integer(struct slice raw)
{
	for (size_t i = 0; i < raw.len; i++) {
		if (raw.p[i] == '.' || (raw.p[i] | 0x20) == 'e')
			return (struct slice){raw.p, 0};
	}
	if (raw.len == 2 && raw.p[0] == '-' && raw.p[1] == '0')
		return (struct slice){raw.p + 1, 1};
	return raw;
}

ssize_t json_canonical(struct slice raw, enum json_type type, char *dst, size_t size)
{
	struct slice number;

	if (type == JSON_TYPE_STRING)
		return json_string_copy(raw, dst, size);
	if (type != JSON_TYPE_NUMBER)
		return -1;
	number = canonical_integer(raw);
	if (number.len == 0 || number.len > size)
		return -1;
	memcpy(dst, number.p, number.len);
	return (ssize_t)number.len;
}

enum json_route json_route_value(struct slice text, const char *key, char *dst, size_t size, size_t *len)
{
	struct json_member m, last = {.type = JSON_TYPE_NULL};
	struct json_iter it;
	ssize_t n;
	int rc;

	if (json_object_begin(&it, text) == -1) {
		if (!utf8_is_valid(text.p, text.len))
			return JSON_ROUTE_BAD_UTF8;
		return json_validate(text, NULL) ? JSON_ROUTE_NOT_OBJECT : JSON_ROUTE_BAD_JSON;
	}
	while ((rc = json_object_next(&it, &m)) == 1) {
		if (json_is(m.key, key))
			last = m;
	}
	if (rc == -1)
		return JSON_ROUTE_BAD_JSON;
	n = json_canonical(last.value, last.type, dst, size);
	*len = n < 0 ? 0 : (size_t)n;
	return n < 0 ? JSON_ROUTE_NONE : JSON_ROUTE_OK;
}
