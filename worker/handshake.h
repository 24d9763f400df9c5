/* handshake.h - is this request a WebSocket handshake that we take (RFC 6455, section 4.2), and what to
 * answer.
 *
 * Worker process only; pure: no socket, no clock. Nothing is kept of the request's buffer, so that it may go
 * while the 101 waits for its subscription. Extensions are never selected, and of the subprotocols only
 * "bearer", when it carried the token that the client was let in with.
 */
#ifndef RC_HANDSHAKE_H
#define RC_HANDSHAKE_H

#include "common/base.h"
#include "common/config.h"
#include "worker/http.h"

#define HANDSHAKE_ACCEPT_LEN    28
#define HANDSHAKE_RESPONSE_SIZE 200 /* enough for handshake_response() */
#define HANDSHAKE_REFUSAL_SIZE  192 /* enough for handshake_refusal() */

struct handshake {
	const struct cfg_namespace *ns; /* borrowed from the configuration */
	uint16_t room_len; /* 0: the namespace has no rooms, or the room is {conn}, the caller's to fill in */
	char room[CFG_ROOM_MAX + 1]; /* decoded, NUL-terminated */
	char accept[HANDSHAKE_ACCEPT_LEN];
	bool is_bad_room; /* a {room:int} that is no integer: good else, the caller's to refuse; room_len is 0
			   */
	bool is_bearer;   /* the 101 selects the subprotocol "bearer". The caller's to set; handshake_check()
			     clears it */
	/* Why it was refused, for counters and logs; NULL if it was not: "http_version" "not_get" "body"
	 * "no_namespace" "bad_room" "no_upgrade" "bad_version" "bad_key" "origin" "no_memory" */
	const char *reason;
};

/* Judge the complete head (HTTP_DONE) in `buf`. Returns 0 with *out filled in, or the status to refuse with:
 * 400, 403, 404 (or limits.unknown_path_status), 405, 426, 503 (no memory). The connection is then to be
 * closed: what follows a refused upgrade is never read as another request.
 *
 * Path: the raw path against each namespace's template, a literal one first; a {room} segment is decoded
 * once, a {room:int} one made canonical besides ("+007" is room "7"; no integer: is_bad_room). Origin: no
 * header at all is no browser and passes; several are refused; else as the namespace's origins say: one of
 * the list, or
 * "*", or (without a list) the host and port that the request was sent to. "null" needs "*". */
int handshake_check(const struct config *c, const struct http_parser *p, const char *buf,
		    struct handshake *out) MUST_CHECK;

/* The 101 into dst. Returns its length, or 0 if `size` is too small. */
size_t handshake_response(char *dst, size_t size, const struct handshake *h) MUST_CHECK;

/* A refusal with `status` (400, 403 .. 503), empty body and Connection: close. Returns its length, or 0 if it
 * does not fit. */
size_t handshake_refusal(char *dst, size_t size, int status) MUST_CHECK;

/* The reason phrase of a status that this server sends; "" for others. */
const char *handshake_phrase(int status);

/* Template against raw path; *segment is what stands for {room}, len 0 if the template has none. NULL: no
 * namespace. Of several templates with a room the one with the longest literal start wins. */
const struct cfg_namespace *handshake_route(const struct config *c, struct slice path, struct slice *segment);

#endif
