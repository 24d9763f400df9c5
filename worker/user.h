/* user.h - who is connected here: users of a namespace, their sockets, their groups. What targeted records are matched with.
 *
 *    (ns, user id) -> user -> sockets (connection indices, packed)
 *    group name    -> group -> users
 *
 * A user exists while one of his sockets is OPEN. Groups belong to the user (of this namespace and worker), not to a socket:
 * the newest authorization says which, and "groups" control messages change them at once. While a namespace has a user here
 * the worker keeps interest in the namespace's own channel (room ""), which targeted records travel in: no 101 goes out to an
 * identified client before that interest is confirmed (user_prepare).
 *
 * The master is told of each user's first and last socket in a channel, and of each change between (UP_PRESENCE).
 *
 * Worker; one thread. Indices are stable while the user exists.
 */
#ifndef RC_USER_H
#define RC_USER_H

#include "common/base.h"
#include "shm/record.h"
#include "worker/session.h"

#define USER_NONE UINT32_MAX

struct user_group;

struct user {
	uint64_t hash;  /* rec_user_hash() */
	uint64_t stamp; /* fanout.c: position of the last record that he was matched with: once, however often he is named */
	union {
		uint32_t one;   /* cap == 0 */
		uint32_t *many; /* cap > 0 */
	} sockets;
	uint32_t n, cap;
	uint32_t next; /* in its hash bucket, or in the free list */
	uint16_t ns;   /* index in config->namespaces */
	uint16_t n_groups;
	uint8_t id_len;
	char *id;      /* id_len bytes */
	struct user_group **groups;
	struct bucket rate; /* of all his sockets here (user_rate) */
};

struct user_table; /* user.c */

struct user_table *user_table_new(void) MUST_CHECK;
/* After the last connection has gone. */
void user_table_free(struct user_table *t);

struct user *user_at(const struct worker *w, uint32_t index);
static inline const uint32_t *user_sockets(const struct user *u)
{
	return u->cap == 0 ? &u->sockets.one : u->sockets.many;
}

/* `c` (JOINING, with an identity) is about to join its channel. Returns 1: it may now; 0: it waits for the namespace's own
 * channel, and user_prepared() of input.c runs when it may go on; -1: no memory. */
int user_prepare(struct worker *w, struct conn *c) MUST_CHECK;
void user_prepared(struct worker *w, struct conn *c);

/* `c` has become a member of its channel, and session.who says who it is: into the tables, master told. An anonymous one:
 * nothing. 0, or -1: no memory. */
int user_join(struct worker *w, struct conn *c) MUST_CHECK;
/* `c` leaves service (its channel is still known). Nothing if it is in no table. Also ends a wait of user_prepare(). */
void user_leave(struct worker *w, struct conn *c);

/* session.who has been replaced by a later authorization of the same user: take over its groups. */
void user_refresh(struct worker *w, struct conn *c);

/* The user, or USER_NONE. */
uint32_t user_find(const struct worker *w, uint16_t ns_index, struct slice id);

/* Call `fn` for each user that a targets block names, once each; `pos` is the record's position. */
void user_match(struct worker *w, uint16_t ns_index, struct slice targets, uint64_t pos,
		void (*fn)(struct worker *w, struct user *u, void *arg), void *arg);
/* Is `c` among them? (catch-up) */
bool user_is_target(const struct worker *w, const struct conn *c, struct slice targets) MUST_CHECK;

/* A "groups" control message: users join and leave a group, in all namespaces. Those who are not here are passed over. */
void user_change_group(struct worker *w, struct slice group, const struct slice *add, size_t n_add,
		       const struct slice *remove, size_t n_remove);

#endif
