/* redis_form.h - how a replica's own messages look on Redis, and who has been heard so far.
 *
 * Master process only. Pure but for the allocation in redis_origins_new(); never blocks.
 *
 *     version 1 | opcode | origin, 8 bytes | id, 8 bytes | payload
 *       (1)        (1)      big-endian        big-endian
 *
 * The opcode is WS_TEXT or WS_BINARY, with REDIS_FORM_ASKS if the origin wants to know how many got the
 * message.
 *
 * An origin is one master's life, its ids only grow. So "is this id newer than the last one of its origin?"
 * is all that is needed to hear each message once, whatever was sent again after an outage.
 */
#ifndef RC_REDIS_FORM_H
#define RC_REDIS_FORM_H

#include "common/base.h"
#include "common/envelope.h"

#define REDIS_FORM_VERSION 1
#define REDIS_FORM_HEADER  18 /* bytes before the payload */
#define REDIS_FORM_ASKS    0x80

/* What stands before a bare channel's name in the name of the channel of own messages. */
#define REDIS_META_PREFIX     "ringcast:m:"
#define REDIS_META_PREFIX_LEN (sizeof(REDIS_META_PREFIX) - 1)

/* Origins remembered; beyond it the one silent for longest is forgotten (it could then be heard twice). */
#define REDIS_ORIGINS_MAX 1024

struct redis_form {
	uint64_t origin, id;             /* neither is ever 0 */
	uint8_t opcode;                  /* WS_TEXT or WS_BINARY */
	bool is_asking;                  /* the origin wants to know how many got it */
	struct slice payload;            /* points into the decoded bytes */
	const struct envelope *envelope; /* of a json text: what it was read as; else NULL */
};

/* Write the header for one message to dst (REDIS_FORM_HEADER bytes). */
void redis_form_put(uint8_t *dst, uint8_t opcode, uint64_t origin, uint64_t id);

/* Read one message. Returns false if it is none: too short, another version or opcode, origin or id 0. */
bool redis_form_get(struct redis_form *form, const char *p, size_t len) MUST_CHECK;

struct redis_origins;

/* Returns NULL with ENOMEM. redis_origins_free(NULL) is fine. */
struct redis_origins *redis_origins_new(void) MUST_CHECK;
void redis_origins_free(struct redis_origins *o);

/* The last id heard of `origin`; 0 if it is unknown. Does not count as hearing it. */
uint64_t redis_origins_last(struct redis_origins *o, uint64_t origin);

/* Remember that `id` was heard, and forget the origin silent for longest if the table is full. */
void redis_origins_heard(struct redis_origins *o, uint64_t origin, uint64_t id);

#endif
