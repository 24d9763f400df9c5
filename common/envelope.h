/* envelope.h - the json envelope: who a published JSON object is for, and what of it clients get.
 *
 *   {"type":"mention","track_id":"t1",...,"_target_users":["7",8]}
 *
 * One pass over the text, no tree; a list of targets is walked a second time, once the text has proved valid.
 * Top-level keys that begin with '_' are for the server and are cut out, each with one comma: the one before
 * it, or, where no kept member stands before it, the one behind it. All other bytes stay as they were
 * written; with no such key the payload is the text itself. Keys are compared after decoding escapes; of
 * duplicate keys the last counts (for duplicates of route_key, _target_users and _target_groups, too).
 *
 * Any process; pure but for its buffers, which are kept for the next message.
 */
#ifndef RC_ENVELOPE_H
#define RC_ENVELOPE_H

#include "common/base.h"
#include "common/buf.h"

#define ENVELOPE_TARGETS_MAX 65536u /* distinct ones of one message; what is more makes it too large */
#define ENVELOPE_USER_MAX    255u /* bytes of a user id, group or session; a longer one is skipped and counted \
				   */
#define ENVELOPE_SIGN_MAX 80u     /* bytes that envelope_sign() adds at most */

enum envelope_verdict {
	ENVELOPE_OK,
	ENVELOPE_BAD_UTF8,
	ENVELOPE_BAD_JSON,
	ENVELOPE_NOT_OBJECT,
	ENVELOPE_TOO_LARGE, /* more than ENVELOPE_TARGETS_MAX targets */
	ENVELOPE_NO_MEMORY,
};

struct envelope {
	uint64_t seed; /* the caller's, kept: of the hashes that find duplicate ids. Secret, or publishers may
			  aim */

	struct slice payload; /* what clients get: of the text, or of `cut` */

	bool has_room;   /* the route key is there, a string or an integer, and short enough */
	size_t room_len; /* canonical text; whether it is a valid room is the caller's to check */
	char room[256];

	bool is_targeted; /* _target_users or _target_groups is there, whatever it holds */
	uint32_t n_users,
		n_groups; /* distinct ids: decoded strings and canonical integers; groups: strings alone */
	uint32_t skipped; /* elements, and whole values, that are none of these, empty or too long */
	struct buf ids;   /* users first, then groups: each 2 bytes length (host order), then the bytes */

	bool has_origin;   /* _rc_origin (16 hex digits) and _rc_id (an integer) are both there, well-formed,
			      not 0 */
	bool is_asking;    /* ... and "_rc_ask":1: the origin wants to know how many got it */
	bool has_own_keys; /* some key begins with "_rc_", whatever it holds */
	uint64_t origin, id;

	struct buf cut, seen; /* scratch */
};

void envelope_free(struct envelope *e);

/* Read `text`. route_key: NULL if the namespace has none. `e` is all zero at first (but for the seed), or of
 * an earlier call. On anything but ENVELOPE_OK no field means anything. */
enum envelope_verdict envelope_read(struct envelope *e, struct slice text, const char *route_key) MUST_CHECK;

/* The next id of `ids`: *at is the offset, 0 at first. */
struct slice envelope_id(const struct envelope *e, size_t *at);

/* Append the text of object `text` (which envelope_read() or json_validate() has accepted) to `out`
 * ... with "_rc_origin":"<16 hex>","_rc_id":<id> as its last members, and "_rc_ask":1 before them; of a text
 * that has such keys already the new ones count, being the last.
 * ... without its top-level keys that begin with "_rc_".
 * 0, or -1 (ENOMEM). */
int envelope_sign(struct buf *out, struct slice text, uint64_t origin, uint64_t id, bool ask) MUST_CHECK;
int envelope_unsign(struct buf *out, struct slice text) MUST_CHECK;

#endif
