/* session.h - what a connection has beyond its plain record: who it is, how it behaves. Only connections of
 * namespaces that ask for it have one (session_is_needed): with auth, user_query, rules, idle, rates, or a
 * limit by user or address.
 *
 * There are as many as identified clients, and most say nothing for hours: so it is 40 bytes, and what a few
 * namespaces need is a block of its own.
 *
 * Made when the handshake has proved good, freed with the connection. Slab segments; named by 32-bit indices
 * (struct conn.session); pointers are valid until it is freed. Worker; one thread.
 */
#ifndef RC_SESSION_H
#define RC_SESSION_H

#include "common/config.h"
#include "worker/address.h"
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

/* What only some namespaces need, one heap block; pointed to from the session, which is small without it. */
struct session_more {
	struct auth_request *request; /* auth_app.c: what the hook is asked again with; NULL: never */
	uint32_t recheck_due;         /* ms of the worker's clock, low 32 bits; meaningful with has_recheck */
	uint32_t idle_due;            /* idle.after: ms: when the idle frame is due */
	struct bucket rate;           /* msg_rate, user_rate */
	uint32_t held_since;          /* ms: not read since then for its rate; meaningful with is_held */
	uint8_t address[16];          /* with is_address_long */
};

struct session {
	uint32_t user;  /* user.h: index; USER_NONE: anonymous, or not a member yet. In a free one the next
			   free */
	uint32_t place; /* in the user's list of sockets */
	union {
		struct identity *who;       /* until it is settled. NULL: no verdict yet, or anonymous */
		struct identity_rest *rest; /* is_settled; NULL: nothing beyond the user */
	};
	struct session_more *more; /* NULL: none of it is in use */
	uint32_t expires_at; /* unix seconds, with has_expiry; those beyond 32 bits are the last one: 2106 */
	uint32_t address;    /* IPv4, as in struct in_addr; unless is_address_long */
	union {
		uint32_t asking; /* before OPEN: limits.c: number of the question to the master under way; 0 =
				    none */
		uint32_t direct; /* OPEN, with CONN_MATCHED: fanout.c: its targeted records in the batch are
				    listed there */
	};
	uint16_t bad_frames;
	unsigned claim : 2;    /* user.c: enum user_claim */
	unsigned forwards : 4; /* hook requests under way for its messages */
	bool is_settled : 1, has_recheck : 1, has_expiry : 1, is_rechecking : 1;
	bool has_address : 1, is_address_long : 1;
	bool counts_user : 1, counts_address : 1; /* the master counts it (UP_ADMIT) */
	bool is_held : 1;
};

_Static_assert(sizeof(struct session) == 40, "session: one for each identified connection");

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
/* Note its address, and make room for what its namespace (c->ns) needs. 0, or -1: no memory. */
int session_equip(struct worker *w, struct conn *c, const struct address *from) MUST_CHECK;
/* What is beyond the plain session, made if there is none. NULL: no memory. */
struct session_more *session_more(struct session *s);

/* Give it back if nothing of it is in use. The connection has a session. */
void session_trim(struct worker *w, struct conn *c);

/* The connection is let in: `who`, which is taken over, has said all that it has to say, and what is needed
 * later is kept without the rest: his groups are in the tables of users, his first frames are sent. Again
 * after a recheck. */
void session_settle(struct worker *w, struct session *s, struct identity *who);

/* Who it is, as far as it is known; len 0, p NULL: nobody in particular. Valid until the session changes, or
 * its user leaves. */
struct slice session_user(const struct worker *w, const struct session *s);
struct slice session_tag(const struct session *s);  /* identity.session */
struct slice session_info(const struct session *s); /* identity.info */
struct address session_address(const struct session *s);

/* The connection's session, or NULL. */
struct session *session_of(const struct worker *w, const struct conn *c);
/* Free what it holds. The connection has left its user (user_leave) before. */
void session_close(struct worker *w, struct conn *c);

#endif
