/* place.h - where a request carries something: query parameter, cookie, header. Worker; pure.
 *
 * Of a query parameter or cookie that stands there twice the last counts, as the frameworks of the
 * applications behind us have it; of a header, the first.
 */
#ifndef RC_PLACE_H
#define RC_PLACE_H

#include "common/base.h"
#include "common/config.h"
#include "worker/http.h"

/* The raw value of query parameter `name` (its key is decoded, the value is not). False: it is not there. */
bool place_query(struct slice query, const char *name, struct slice *raw) MUST_CHECK;

/* The value of cookie `name` in a Cookie header, without blanks and quotes around it. False: it is not there.
 */
bool place_cookie(struct slice header, const char *name, struct slice *value) MUST_CHECK;

/* The user that query parameter `name` names, canonical, into dst: an integer's decimal text (is_int), or the
 * decoded text, UTF-8 without control characters. Returns its length (1 .. size), or 0: absent, no integer,
 * too long. */
size_t place_user(struct slice query, const char *name, bool is_int, char *dst, size_t size) MUST_CHECK;

/* The bearer token in an Authorization header's value. False: another scheme, or none. */
bool place_bearer(struct slice header, struct slice *token) MUST_CHECK;

/* Does the list of subprotocols offer "bearer"? */
bool place_offers_bearer(const struct http_parser *p, const char *head) MUST_CHECK;
/* The token that a list of subprotocols carries: the element behind "bearer". False: none. */
bool place_subprotocol(struct slice header, struct slice *token) MUST_CHECK;

/* What `from` names in this request, not decoded but for query values, which are decoded into dst. p == NULL
 * in the result: it is not there, or does not fit. */
struct slice place_find(const struct cfg_source_of *from, const struct http_parser *p, const char *head,
			char *dst, size_t size);

#endif
