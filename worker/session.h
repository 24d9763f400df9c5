/* session.h - what a connection has beyond its plain record: who it is, how it behaves. Only connections of
 * namespaces that ask for it have one (session_is_needed): with auth, user_query, rules, idle, rates, or a
 * limit by user or address.
 *
 * Made when the handshake has proved good, freed with the connection. Slab segments; named by 32-bit indices
 * (struct conn.session); pointers are valid until it is freed. Worker; one thread.
 */
#ifndef RC_SESSION_H
#define RC_SESSION_H

#include "common/config.h"
#include "worker/identity.h"

struct worker;
struct conn;
struct auth_request;

#define SESSION_NONE UINT32_MAX

/* A token bucket: `rate` a second up to `burst`. */
struct bucket {
	uint32_t milli; /* tokens x 1000 */
	uint32_t at;    /* ms of the worker's clock, low 32 bits */
};
/* Take one token. False: there is none now. rate 0: always true. A fresh (all zero) bucket is full. */
bool bucket_take(struct bucket *b, uint32_t rate, uint32_t burst, uint64_t now_ms);
/* ms until a token is there. */
uint32_t bucket_wait(const struct bucket *b, uint32_t rate);

struct session {
	uint32_t conn;  /* index; in a free one the next free */
	uint32_t user;  /* user.h: index; USER_NONE: anonymous, or not a member yet */
	uint32_t place; /* in the user's list of sockets */
	uint8_t claim;  /* user.c: enum user_claim */

	struct identity *who;         /* NULL: anonymous. Its frames are gone once they are sent */
	struct auth_request *request; /* auth.c: what the hook is asked again with; NULL: never */
	uint32_t recheck_due;         /* ms of the worker's clock, low 32 bits; meaningful with has_recheck */
	bool has_recheck, has_expiry, is_rechecking;

	bool has_address, counts_user, counts_address; /* counts_*: the master counts it (UP_ADMIT) */
	uint8_t address[16];                           /* of the client, IPv4 mapped */
	uint32_t asking; /* limits.c: number of the question to the master under way; 0 = none */

	uint32_t heard;    /* ms: the last message of the client (idle.after) */
	uint32_t idle_due; /* ms: when the idle frame is due */
	uint16_t bad_frames;
	uint8_t forwards; /* hook requests under way for its messages */
	struct bucket rate;
	uint32_t held_since; /* ms: not read since then for its rate; meaningful with is_held */
	bool is_held;
	bool is_matched; /* fanout.c: has targeted records in the batch under way ... */
	uint32_t direct; /* ... which are listed there */
};

#define SESSION_SEGMENT_BITS 8u
#define SESSION_SEGMENT      (1u << SESSION_SEGMENT_BITS)
struct session_table {
	struct session **segment;
	uint32_t n_segments, n, free;
};

void session_table_init(struct session_table *t);
/* After the last connection has gone. */
void session_table_free(struct session_table *t);

static inline struct session *session_at(const struct session_table *t, uint32_t index)
{
	return &t->segment[index >> SESSION_SEGMENT_BITS][index & (SESSION_SEGMENT - 1)];
}

/* Does a connection to this namespace need one? */
bool session_is_needed(const struct worker *w, const struct cfg_namespace *ns);

/* The connection's session, made if it has none. NULL: no memory. */
struct session *session_open(struct worker *w, struct conn *c);
/* The connection's session, or NULL. */
struct session *session_of(const struct worker *w, const struct conn *c);
/* Free what it holds. The connection has left its user (user_leave) before. */
void session_close(struct worker *w, struct conn *c);

#endif
