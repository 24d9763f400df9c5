/* json.h - a strict one-pass JSON scanner (RFC 8259). Any process; pure; no tree.
 *
 * Nothing is copied or converted: members are slices of the text, so that a value can be passed on exactly as
 * it was written. "Raw" below is a value's own JSON text; that of a string or key includes its quotes.
 *
 * Refused: what the grammar refuses (NaN, Infinity, leading zeros, trailing commas, control bytes in strings
 * ...), a byte order mark, invalid UTF-8, containers nested deeper than JSON_DEPTH_MAX. Accepted as the
 * grammar has it: scalars at the top, repeated keys, escapes of lone surrogates (json_string_decode() refuses
 * those, for they have no UTF-8).
 */
#ifndef RC_JSON_H
#define RC_JSON_H

#include "common/base.h"
#include "common/buf.h"

#define JSON_DEPTH_MAX 64

/* The prefix keeps clear of jansson, which claims JSON_OBJECT and the like. */
enum json_type {
	JSON_TYPE_OBJECT,
	JSON_TYPE_ARRAY,
	JSON_TYPE_STRING,
	JSON_TYPE_NUMBER,
	JSON_TYPE_TRUE,
	JSON_TYPE_FALSE,
	JSON_TYPE_NULL
};

struct json_member {
	struct slice key;   /* raw */
	struct slice value; /* raw */
	enum json_type type;
};

/* Where the walk over one object or array stands. */
struct json_iter {
	const char *p, *end;
	const char
		*comma; /* in front of the member that json_object_next() gave last; NULL: it is the first */
	bool is_first;
};

/* Is `text` one JSON value, blanks around it allowed? If so *type (unless NULL) is its type. */
bool json_validate(struct slice text, enum json_type *type) MUST_CHECK;

/* Begin to walk the members of the object that `text` is. Returns 0, or -1 if it is no object or not UTF-8:
 * json_validate() tells these apart. The text is borrowed until the walk ends. */
int json_object_begin(struct json_iter *it, struct slice text) MUST_CHECK;

/* The next member in *m. Returns 1; 0 at the end, when the whole text has proved valid; -1 if it is not valid
 * JSON. So nothing a walk gave may be acted upon before it returned 0. Repeated keys come as often as they
 * stand there. */
int json_object_next(struct json_iter *it, struct json_member *m) MUST_CHECK;

/* The same over an array that the scanner has given as a value. json_array_next() gives an element and
 * returns 1; 0 at the end; -1 if the text is none that was accepted. */
int json_array_begin(struct json_iter *it, struct slice raw) MUST_CHECK;
int json_array_next(struct json_iter *it, struct slice *value, enum json_type *type) MUST_CHECK;

/* Is this raw key or string, decoded, the same bytes as `s`? Does it begin with them? */
bool json_is(struct slice raw, const char *s) MUST_CHECK;
bool json_begins(struct slice raw, const char *s) MUST_CHECK;

/* Decode a raw string to dst (which may be raw.p), never more than raw.len - 2 bytes. Returns the bytes
 * written, or -1: more than `size`, a lone surrogate, or not a string that the scanner gave.
 * json_string_decode() appends to a buffer: 0, or -1 with errno = EILSEQ or ENOMEM and the buffer's length
 * unchanged. */
ssize_t json_string_copy(struct slice raw, char *dst, size_t size) MUST_CHECK;
int json_string_decode(struct slice raw, struct buf *out) MUST_CHECK;

/* Append `s` escaped for the inside of a JSON string; json_put_string() adds the quotes. Invalid UTF-8
 * becomes U+FFFD, so that the output is always JSON. Returns 0, or -1 (ENOMEM). */
int json_escape(struct buf *out, struct slice s) MUST_CHECK;
int json_put_string(struct buf *out, struct slice s) MUST_CHECK;

/* The canonical text of a value, as ids are compared: a string's decoded bytes, an integer's decimal digits
 * ("-0" is "0"; 1.0 and 1e2 are no integers). Returns its length, at most `size`; -1: it is neither, has a
 * lone surrogate, or is longer. */
ssize_t json_canonical(struct slice raw, enum json_type type, char *dst, size_t size) MUST_CHECK;

enum json_route {
	JSON_ROUTE_OK,
	JSON_ROUTE_BAD_UTF8,   /* the text is not UTF-8 */
	JSON_ROUTE_BAD_JSON,   /* not valid JSON */
	JSON_ROUTE_NOT_OBJECT, /* valid, but no object */
	JSON_ROUTE_NONE,       /* no such key, neither string nor integer, or longer than `size` */
};

/* The canonical text of top-level member `key` (the last, if repeated). Sets *len on JSON_ROUTE_OK; no NUL is
 * added. */
enum json_route json_route_value(struct slice text, const char *key, char *dst, size_t size,
				 size_t *len) MUST_CHECK;

#endif
