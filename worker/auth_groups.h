/* auth_groups.h - the last changes of groups by control messages. A hook's answer that was asked for before a
 * change and comes after it knows nothing of it, and must not undo it. Worker; pure but for malloc.
 *
 * Changes are numbered from 1; the newest AUTH_CHANGES_MAX are kept.
 */
#ifndef RC_AUTH_GROUPS_H
#define RC_AUTH_GROUPS_H

#include "worker/identity.h"

#define AUTH_CHANGES_MAX 1024u

struct auth_change {
	char *text;                  /* group, then user */
	uint8_t group_len, user_len; /* group_len 0: something else about the user has changed */
	bool is_add;
};

struct auth_changes {
	struct auth_change last[AUTH_CHANGES_MAX]; /* number n stands at n % AUTH_CHANGES_MAX */
	uint64_t n;
};

void auth_changes_free(struct auth_changes *c);

/* `user` joins or leaves `group` (both at most 255 bytes). */
void auth_changes_note(struct auth_changes *c, struct slice group, struct slice user, bool is_add);

enum auth_apply {
	AUTH_UNCHANGED, /* nothing has happened to this user since then */
	AUTH_CHANGED,   /* something has, and is applied */
	AUTH_UNKNOWN,   /* more has happened than is kept, or no memory: ask again */
};
/* Apply to `who` what happened after change number `since`. */
enum auth_apply auth_changes_apply(const struct auth_changes *c, uint64_t since,
				   struct identity *who) MUST_CHECK;

#endif
