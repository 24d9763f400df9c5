/* user.h - who is connected here: users of a namespace, their sockets, their groups. What targeted records
 * are matched with.
 *
 *    (ns, user id)    -> user  -> sockets (connection indices, packed)
 *    (ns, group name) -> group -> users
 *
 * A user exists while one of his sockets is OPEN. Groups belong to the user (of this namespace and worker),
 * not to a socket: the newest authorization says which, and "groups" control messages change them at once.
 *
 * While a namespace has an identified connection here (JOINING or OPEN) the worker keeps interest in the
 * namespace's own channel (room ""), which targeted records travel in: no 101 goes out to an identified
 * client before that interest is confirmed (user_prepare). Each such connection has a claim on it:
 *
 *          user_prepare                    REC_SUBSCRIBED of (ns, "")
 *    NONE -------------> WAITING ------------------------------------> HELD ---> user_join: in the tables
 *      ^                    |                                            |
 *      +--------------------+---------------- user_leave ----------------+
 *
 * The master is told of each change of the number of a user's sockets in a channel (UP_PRESENCE).
 *
 * Cost: a target that is not here costs one look into a table; one that is, his sockets. A group costs its
 * users.
 *
 * Worker; one thread. Indices and pointers are stable while the user exists.
 */
#ifndef RC_USER_H
#define RC_USER_H

#include "common/base.h"
#include "shm/record.h"
#include "worker/hash.h"
#include "worker/session.h"

#define USER_NONE UINT32_MAX

/* Groups of one user: what an authorization may name, and as many again by control messages. */
#define USER_GROUPS_MAX (2 * IDENTITY_GROUPS_MAX)

enum user_claim { USER_CLAIM_NONE, USER_CLAIM_WAITING, USER_CLAIM_HELD };

struct user_group;

/* A user's membership in a group. */
struct user_member {
	struct user_group *group;
	uint32_t place; /* in the group's list */
	bool is_named;  /* scratch of user_groups_replace() */
};

/* What few users have: groups, and a rate where the namespace has one. */
struct user_more {
	struct bucket rate; /* of all his sockets here (user_rate) */
	uint16_t n, cap;
	struct user_member groups[]; /* by the hash of their names */
};

#define USER_ID_SHORT 16u /* bytes of an id that need no block of their own */

struct user {
	struct hash_node node; /* rec_user_hash() */
	uint64_t stamp; /* position of the last record that he was matched with: once, however often he is
			   named */
	union {
		uint32_t one;   /* cap == 0 */
		uint32_t *many; /* cap > 0 */
	} sockets;
	struct user_more *more; /* NULL: no groups, no rate */
	uint32_t n, cap;
	uint32_t index; /* his own; in a free one the next free */
	uint16_t ns;    /* index in config->namespaces */
	uint8_t id_len;
	union {
		char in[USER_ID_SHORT]; /* id_len <= USER_ID_SHORT */
		char *out;
	} id;
};

_Static_assert(sizeof(struct user) == 72, "user: one for each who is online here");

struct user_table; /* user_int.h */

struct user_table *user_table_new(void) MUST_CHECK;
/* After the last connection has gone. NULL is fine. */
void user_table_free(struct user_table *t);

struct user *user_at(const struct worker *w, uint32_t index);
static inline const uint32_t *user_sockets(const struct user *u)
{
	return u->cap == 0 ? &u->sockets.one : u->sockets.many;
}
/* The user that `c` is a socket of, or NULL: anonymous, or not a member yet. */
struct user *user_of(const struct worker *w, const struct conn *c);

/* `c` (JOINING, c->ns is set, session.who says who it is) is about to join its channel. Returns 1: it may
 * now, also because it is anonymous; 0: it waits for the namespace's own channel, and user_prepared() of
 * admission.c runs when it may go on; -1: no memory. Until it goes on it is in no channel, and conn.member is
 * the wait's. */
int user_prepare(struct worker *w, struct conn *c) MUST_CHECK;
void user_prepared(struct worker *w, struct conn *c);
/* channel.c: the namespace's own channel, which is held, has been subscribed. */
void user_subscribed(struct worker *w, uint16_t ns_index);

/* `c` has become a member of its channel, and session.who says who it is: into the tables, master told. An
 * anonymous one: nothing. 0, or -1: no memory. */
int user_join(struct worker *w, struct conn *c) MUST_CHECK;
/* `c` leaves service (its channel is still known). Also ends a wait of user_prepare(). Nothing if there is
 * neither. */
void user_leave(struct worker *w, struct conn *c);

/* A later authorization of the same user: take over its groups. */
void user_refresh(struct worker *w, struct conn *c, const struct identity *who);

/* His id, canonical. */
static inline struct slice user_text(const struct user *u)
{
	return (struct slice){u->id_len <= USER_ID_SHORT ? u->id.in : u->id.out, u->id_len};
}
static inline uint16_t user_n_groups(const struct user *u)
{
	return u->more == NULL ? 0 : u->more->n;
}

/* The user, or USER_NONE. */
uint32_t user_find(const struct worker *w, uint16_t ns_index, struct slice id);

/* The channel of a namespace that targeted records travel in, while somebody has a claim on it; else
 * CHANNEL_NONE. */
uint32_t user_channel(const struct worker *w, uint16_t ns_index);

/* A number for the user that is the same on every host of the cluster (struct up_matched). */
uint64_t user_cluster_hash(const struct worker *w, const struct user *u);

/* Call `fn` for each user that a targets block names, once each; `pos` is the record's position. `fn` lets
 * all users and sockets be where they are. */
void user_match(struct worker *w, uint16_t ns_index, struct slice targets, uint64_t pos,
		void (*fn)(struct worker *w, struct user *u, void *arg), void *arg);
/* Is `c` among them? (catch-up) `targets` is a block, or a piece of one; *used (unless NULL) is how much of
 * it was looked at, in whole entries: all that could be, if the answer is no. */
bool user_is_target(const struct worker *w, const struct conn *c, struct slice targets,
		    size_t *used) MUST_CHECK;

/* A "groups" control message: users join and leave a group, in all namespaces. Those who are not here are
 * passed over; who is in both lists leaves. */
void user_change_group(struct worker *w, struct slice group, const struct slice *add, size_t n_add,
		       const struct slice *remove, size_t n_remove);

#endif
