/* identity.h - what an authorization says about a connection, whoever said it (hook, token, query). Worker;
 * pure.
 *
 * All strings are slices of `text`, frames of `frame_text`; the identity owns both.
 */
#ifndef RC_IDENTITY_H
#define RC_IDENTITY_H

#include "common/base.h"
#include "common/buf.h"

#define IDENTITY_USER_MAX   255u /* bytes of a user id, a group, a session tag */
#define IDENTITY_GROUPS_MAX 256u
#define IDENTITY_FRAMES_MAX 64u
#define IDENTITY_REASON_MAX 123u /* of a Close frame */

struct identity {
	bool is_allowed;
	uint16_t status; /* refused: HTTP status; 403 unless said otherwise */
	uint16_t code;   /* refused: close code; 1008 unless said otherwise */
	struct slice reason;

	struct slice user; /* canonical text: a string as it is, an integer in decimal; len 0 = anonymous */
	struct slice info; /* raw JSON object; p == NULL: none */
	struct slice session; /* len 0 = none */
	uint64_t expires_at;  /* unix seconds; 0 = never */
	struct slice *groups; /* n_groups; the array is owned */
	unsigned n_groups;
	struct slice *frames; /* first frames, in order: the text of each; the array is owned */
	unsigned n_frames;

	struct buf text, frame_text; /* all of the above */
};

/* Read a hook's answer, a JSON object (docs/protocol.md, authorization hook). is_message: the answer to a
 * client's message: "frames" alone count, "allow" need not be there. Returns 0, or -1 with *wrong (a
 * constant) if it is no such answer: a missing or non-boolean "allow", a user that is neither string nor
 * integer, frames that are no array ... Out of memory is such a reason, too. A reason that is too long for a
 * Close is shortened; nothing else is. */
int identity_read_hook(struct identity *id, struct slice body, bool is_message,
		       const char **wrong) MUST_CHECK;

/* May a server's Close carry it? (1000 is only ever an echo) */
bool identity_is_close_code(unsigned code) MUST_CHECK;

/* One that is allowed, of this user (at most IDENTITY_USER_MAX bytes). NULL: no memory. */
struct identity *identity_of_user(struct slice user) MUST_CHECK;
/* One that is refused, with this status, code 1008 and this reason. NULL: no memory. */
struct identity *identity_refused(unsigned status, const char *reason) MUST_CHECK;

/* A copy without the frames. NULL: no memory. */
struct identity *identity_clone(const struct identity *id) MUST_CHECK;
/* Put into a group, or out of it; nothing if that is so already. 0, or -1: no memory, or in too many. */
int identity_add_group(struct identity *id, struct slice group) MUST_CHECK;
void identity_remove_group(struct identity *id, struct slice group);

/* What of an identity is needed once its connection is open: one block, without the frames and groups. Its
 * parts are slices of it; NULL has none of them. */
struct identity_rest {
	uint32_t info_len;
	uint8_t session_len, user_len;
	char text[]; /* session, user, info */
};

/* With the user's id if `needs_user`. *rest is the caller's to free(); NULL: nothing has to be kept. 0, or
 * -1: no memory. */
int identity_rest_of(const struct identity *id, bool needs_user, struct identity_rest **rest) MUST_CHECK;
struct slice identity_rest_user(const struct identity_rest *r);
struct slice identity_rest_session(const struct identity_rest *r);
struct slice identity_rest_info(const struct identity_rest *r); /* p == NULL: none */

/* Append its frames, each a text frame of the WebSocket protocol. 0, or -1: no memory. */
int identity_put_frames(const struct identity *id, struct buf *out) MUST_CHECK;
/* The frames have been sent: their memory goes. */
void identity_drop_frames(struct identity *id);
void identity_clear(struct identity *id);
/* Clear and free. NULL is fine. */
void identity_free(struct identity *id);

#endif
