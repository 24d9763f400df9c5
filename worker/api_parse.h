/* api_parse.h - the bodies of the API's requests, publishing aside (api_body.h): what they ask for, and the
 * orders and questions to the master that are made of them.
 *
 * Worker process only; pure but for buffers. Unknown keys are ignored; of a repeated key the last counts.
 * Each function returns 0, or the HTTP status (400, 404, 413, or 503: no memory) with *fault filled in.
 */
#ifndef RC_API_PARSE_H
#define RC_API_PARSE_H

#include "common/buf.h"
#include "common/config.h"
#include "common/json.h"

#define API_GROUP_MAX   255u /* bytes of a group, a user, a session */
#define API_PATTERN_MAX (CFG_NAME_MAX + 1u + CFG_ROOM_MAX)

struct api_fault {
	const char *code, *message; /* constants */
};
int api_fail(struct api_fault *f, int status, const char *code, const char *message);

/* The members of a body that mean something, by key. Absent: m.value.len 0. */
struct api_member {
	const char *key;
	struct json_member m;
};
int api_read(struct slice body, struct api_member *v, size_t n, struct api_fault *f) MUST_CHECK;

struct api_channel {
	const struct cfg_namespace *ns; /* borrowed from the configuration */
	struct slice room;              /* points into name */
	char name[CFG_NAME_MAX + 1 + CFG_ROOM_MAX];
	size_t name_len;
};
/* "namespace:room", or "namespace" alone: all its rooms. */
int api_channel_parse(const struct config *c, const struct json_member *m, struct api_channel *out,
		      struct api_fault *f) MUST_CHECK;

/* {"channel":...} of a namespace that lists who is online. */
int api_presence_parse(const struct config *c, struct slice body, struct api_channel *out,
		       struct api_fault *f) MUST_CHECK;

/* {"user":..} or {"session":..} or {"conn":..} or {"channel":..}, with "namespace", "code" and "reason": append the order
 * {"method":"disconnect",...}; in it a user is a string. */
int api_disconnect_parse(const struct config *c, struct slice body, struct buf *order,
			 struct api_fault *f) MUST_CHECK;

/* {"group":"g","add":["7",8],"remove":[]}: append {"method":"groups",...}; users are strings in it, both
 * lists are there. */
int api_groups_parse(struct slice body, struct buf *order, struct api_fault *f) MUST_CHECK;

/* {} or {"pattern":"demo:"}: append what names are to begin with. An empty body is {}. */
int api_channels_parse(struct slice body, struct buf *prefix, struct api_fault *f) MUST_CHECK;

/* {}, or no body. */
int api_nothing_parse(struct slice body, struct api_fault *f) MUST_CHECK;

#endif
