/* matched.h - who a publication is for here, for publishers that ask how many it reached (UP_MATCHED).
 *
 * Counted while the record is read: sockets that are sent to now or, being behind, later. Of the users the
 * smallest UP_MATCHED_MAX hashes are kept, so that it costs little memory and the lists of all workers and
 * hosts can be joined.
 *
 *    matched_begin, then matched_members or matched_user ..., then matched_tell
 *
 * Worker; one thread.
 */
#ifndef RC_MATCHED_H
#define RC_MATCHED_H

#include "common/base.h"
#include "shm/uplink.h"

struct worker;
struct channel;
struct user;

/* A publication is about to be read. wanted: its publisher asks; else the calls below do nothing. */
void matched_begin(bool is_wanted);
/* It is for all members of this channel. */
void matched_members(const struct worker *w, const struct channel *ch);
/* It is for this user: all his sockets. */
void matched_user(const struct worker *w, const struct user *u);
/* To the master, under this number (rec.arg[1]). */
void matched_tell(struct worker *w, uint64_t number);

/* A user's hash into a list of this kind, if it is among the smallest; they are in growing order, each once. */
void matched_keep(struct up_matched *t, uint64_t hash);

#endif
