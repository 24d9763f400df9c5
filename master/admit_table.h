/* admit_table.h - how many connections of one user, or from one address, this host has: limits.per_user and
 * per_address.
 *
 *    (kind, key) -> entry -> shares: a number by reader          shares of a reader are linked with each
 * other, too
 *
 * A reader is a worker process. A dead one's shares count for nothing from the moment it is dead; their
 * memory goes in pieces. Memory is bounded by what is counted: a share for each pair of key and worker that
 * has such a connection.
 *
 * Master process; pure but for its memory.
 */
#ifndef RC_ADMIT_TABLE_H
#define RC_ADMIT_TABLE_H

#include "common/base.h"
#include "master/table.h"

#define ADMIT_KEY_MAX 255u

struct admit_entry;

struct admit_share {
	struct admit_entry *entry;
	struct admit_reader *reader;
	struct admit_share *next;          /* of the entry */
	struct admit_share *newer, *older; /* of the reader */
	uint32_t n;                        /* never 0 */
};

struct admit_entry {
	struct table_link link;
	struct admit_share *shares; /* never NULL */
	uint8_t kind, len;
	char key[];
};

struct admit_reader {
	struct admit_share *newest;
	struct admit_reader *next, *prev; /* of all */
	bool is_dead;
};

struct admit_table {
	struct table table;
	uint64_t hash_key;
	struct admit_reader *readers;
	unsigned n_dead;
};

/* hash_key: secret. 0, or -1 with ENOMEM. */
int admit_table_init(struct admit_table *t, uint64_t hash_key) MUST_CHECK;
void admit_table_free(struct admit_table *t);

/* A worker. NULL: ENOMEM. */
struct admit_reader *admit_reader_new(struct admit_table *t) MUST_CHECK;

/* It is dead: `r` is the table's from now on. */
void admit_reader_died(struct admit_table *t, struct admit_reader *r);

/* Forget up to `max` shares of dead readers. True: there are more. */
bool admit_forget(struct admit_table *t, uint32_t max);

/* How many there are. */
uint64_t admit_count(const struct admit_table *t, uint8_t kind, struct slice key);

/* Count one more if there are fewer than `limit`. 1: counted; 0: not; -1: no memory, not counted. */
int admit_take(struct admit_table *t, struct admit_reader *r, uint8_t kind, struct slice key,
	       uint32_t limit) MUST_CHECK;

/* One less. False: the reader has none. */
bool admit_give(struct admit_table *t, struct admit_reader *r, uint8_t kind, struct slice key) MUST_CHECK;

#endif
