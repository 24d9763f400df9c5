/* user_int.h - what user.c and user_group.c share. Nobody else's. */
#ifndef RC_USER_INT_H
#define RC_USER_INT_H

#include "worker/worker.h"

struct user_group {
	struct hash_node node; /* of namespace and name */
	uint64_t hash;         /* rec_group_hash(): of the name */
	struct user **users;
	uint32_t n, cap;
	uint16_t ns;
	uint8_t len;
	char name[]; /* len bytes */
};

/* How many sockets of a user are in a channel: in namespaces with presence. */
struct user_place {
	struct hash_node node;
	uint32_t user, channel;
	uint32_t n;
};

struct user_ns {
	uint32_t channel; /* (ns, ""), held; CHANNEL_NONE */
	uint32_t claims;
	uint32_t waiting; /* first connection; linked by conn.member and, backwards, session.place */
};

#define USER_SEGMENT_BITS 8u
#define USER_SEGMENT      (1u << USER_SEGMENT_BITS)

struct user_table {
	struct user **segment; /* slabs that never move */
	uint32_t n_segments, free;
	uint32_t n_sockets; /* of all users */
	struct hash_table users, groups, places;
	struct user_ns ns[CFG_MAX_NAMESPACES]; /* by index */
};

/* user_group.c */

/* The user's groups are these from now on. 0, or -1: no memory for all; what is not named he has left in any
 * case. */
int user_groups_replace(struct worker *w, struct user *u, const struct slice *names, unsigned n) MUST_CHECK;
/* He is in none any more. */
void user_groups_leave(struct worker *w, struct user *u);
/* `hash` is rec_group_hash(name). NULL: nobody here is in it. */
struct user_group *user_group_find(const struct user_table *t, uint16_t ns, uint64_t hash, struct slice name);
bool user_in_group(const struct user *u, uint64_t hash, struct slice name) MUST_CHECK;

#endif
