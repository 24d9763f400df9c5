/* presence_table.h - who is online on this host: rooms, their users, the sockets of each by worker.
 *
 *    (ns, room) -> place -> members (users), each with shares: sockets by reader
 *
 * Master process; pure but for its memory. Namespaces that list who is online (presence = on) are kept here;
 * of the others only the crowd knows. A reader is a live worker, by a number of the caller's; shares of a
 * reader are linked with each other, so that its death is taken in pieces.
 *
 * What of this stands in Redis is noted in the members (`written`), by whoever writes it there
 * (presence_redis.c): a member that has changed is in the list of changes until then. One without sockets
 * lives on while Redis still has it.
 */
#ifndef RC_PRESENCE_TABLE_H
#define RC_PRESENCE_TABLE_H

#include "common/base.h"
#include "common/config.h"
#include "master/crowd.h"
#include "master/table.h"

#define PRESENCE_USER_MAX 255u

struct presence_share {
	struct presence_member *member;
	struct presence_share *next;          /* of the member */
	struct presence_share *newer, *older; /* of the reader */
	uint32_t sockets;
	uint8_t reader;
};

struct presence_member {
	struct table_link link;
	struct presence_place *place;
	struct presence_member *next, *prev;       /* in the place */
	struct presence_member *next_ns, *prev_ns; /* in the namespace */
	struct presence_member *newer, *older;     /* has changed: in the list of changes */
	struct presence_share *shares;
	uint64_t public_hash;
	uint32_t sockets; /* sum of the shares */
	uint32_t written; /* what Redis has, if written_epoch is the namespace's epoch; else nothing */
	uint32_t written_epoch;
	bool is_changed;
	uint8_t user_len;
	char user[];
};

struct presence_place {
	struct table_link link;
	struct presence_member *first;
	uint64_t sockets;
	uint32_t users; /* members with sockets */
	uint16_t ns;
	uint8_t room_len;
	char room[];
};

struct presence_ns {
	struct presence_member *first; /* all members */
	struct presence_member
		*cursor; /* presence_redis.c: those from here on have still to be written anew; NULL: none */
	uint64_t sockets;
	uint32_t epoch;
};

struct presence_table {
	struct table places, members;
	struct crowd crowd;
	struct presence_ns ns[CFG_MAX_NAMESPACES];
	struct presence_share *newest[CROWD_READERS];
	struct presence_member *first_change, *last_change;
	uint64_t hash_key;
	bool keeps_changes; /* somebody tells Redis */
};

/* hash_key: secret. 0, or -1 with ENOMEM. */
int presence_table_init(struct presence_table *t, uint64_t hash_key) MUST_CHECK;
void presence_table_free(struct presence_table *t);

/* What a worker said: the user has so many sockets with that reader in ns:room (0: none any more).
 * `public_hash`: presence_hash(). With is_listed false only the crowd is told, and the room does not count.
 * 0, or -1 with ENOMEM: he is not counted. */
struct presence_word {
	uint16_t ns;
	struct slice room, user;
	uint64_t public_hash;
	uint32_t sockets;
	uint8_t reader;
	bool is_listed;
};
int presence_table_set(struct presence_table *t, const struct presence_word *w) MUST_CHECK;

/* Forget up to `max` things of a reader that has died. Returns how many there were; 0: nothing of it is left.
 */
uint32_t presence_table_forget(struct presence_table *t, uint8_t reader, uint32_t max);

/* NULL: nobody was there lately. */
const struct presence_place *presence_table_place(const struct presence_table *t, uint16_t ns,
						  struct slice room);
/* NULL: he is not there; perhaps one without sockets. */
const struct presence_member *presence_table_member(const struct presence_table *t, uint16_t ns,
						    struct slice room, struct slice user);

/* A user's hash that is the same on all hosts: for counting over several of them, never for places in a
 * table. */
uint64_t presence_hash(const char *ns_name, struct slice user);

static inline struct slice presence_room(const struct presence_place *p)
{
	return (struct slice){p->room, p->room_len};
}
static inline struct slice presence_user(const struct presence_member *m)
{
	return (struct slice){m->user, m->user_len};
}

/* ---- for presence_redis.c */

/* What Redis has of a member. */
static inline uint32_t presence_written(const struct presence_table *t, const struct presence_member *m)
{
	return m->written_epoch == t->ns[m->place->ns].epoch ? m->written : 0;
}

/* Redis has been told of the member as it is now: it is no change any more, and may be gone. */
void presence_table_written(struct presence_table *t, struct presence_member *m);

/* Redis has nothing of this namespace: all of it is to be written anew, from `cursor` on. */
void presence_table_restart(struct presence_table *t, uint16_t ns);

/* Changes are kept from now on, or not: what was kept is forgotten. */
void presence_table_keep_changes(struct presence_table *t, bool keep);

#endif
