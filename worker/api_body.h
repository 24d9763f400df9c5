/* api_body.h - what POST /api/publish and /api/broadcast ask for (docs/protocol: admin HTTP).
 *
 *   {"channel":"demo:a","data":<any JSON>}   text frame, the bytes of the value exactly as they were written
 *   {"channel":"demo:a","text":"..."}        text frame, the decoded string
 *   {"channel":"demo:a","b64data":"..."}     binary frame
 *
 * With "id", a string or an integer of 1 to 255 bytes, the publisher names the message (docs/protocol: receipts); it is not
 * looked at in namespaces without receipts = on, nor in a broadcast.
 *
 * Worker process only; pure but for the scratch buffer. Other keys are ignored; of a repeated key the last
 * counts.
 */
#ifndef RC_API_BODY_H
#define RC_API_BODY_H

#include "common/base.h"
#include "common/buf.h"
#include "common/config.h"
#include "common/json.h"
#include "shm/uplink.h"

struct api_publish {
	const struct cfg_namespace *ns; /* borrowed from the configuration */
	struct slice room;    /* "" in a namespace without rooms, or (json) if the payload is to name it */
	uint8_t opcode;       /* WS_TEXT or WS_BINARY */
	struct slice payload; /* of the body or of the scratch buffer: valid while both are */
	char channel[CFG_NAME_MAX + 1 + CFG_ROOM_MAX + 1]; /* as asked for, decoded; room points in here */
	size_t channel_len;
	char id[UP_TRACK_ID_MAX]; /* what the publisher calls the message; taken where receipts = on */
	size_t id_len;            /* 0: none */

	/* The error, for {"error":{"code":...,"message":...}} */
	const char *code; /* bad_json, bad_request, bad_base64, unknown_namespace, publish_denied, too_large;
			     NULL if none */
	const char *message; /* in English, a constant */
};

/* Read the whole body. Returns 0 with *out filled in, or the HTTP status: 400, 403, 404, 413 (or 503
 * "overloaded": no memory). `scratch` holds what had to be decoded; it is emptied first. */
int api_publish_parse(const struct config *c, struct slice body, struct api_publish *out,
		      struct buf *scratch) MUST_CHECK;

/* POST /api/broadcast: the same with "channels", an array, instead of "channel". What holds for all channels:
 * the payload; *channels is the raw array (or what stands in its place). Then each of them. */
int api_broadcast_parse(struct slice body, struct api_publish *out, struct json_member *channels,
			struct buf *scratch) MUST_CHECK;
int api_broadcast_channel(const struct config *c, const struct json_member *m,
			  struct api_publish *out) MUST_CHECK;

#endif
