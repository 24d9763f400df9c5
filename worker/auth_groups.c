#include "worker/auth_groups.h"

#include <stdlib.h>
#include <string.h>

void auth_changes_free(struct auth_changes *c)
{
	for (size_t i = 0; i < AUTH_CHANGES_MAX; i++)
		free(c->last[i].text);
	*c = (struct auth_changes){0};
}

void auth_changes_note(struct auth_changes *c, struct slice group, struct slice user, bool is_add)
{
	struct auth_change *e = &c->last[++c->n % AUTH_CHANGES_MAX];

	free(e->text);
	/* Without memory it stays a change that nobody knows the details of: auth_changes_apply() says so. */
	e->text = malloc(group.len + user.len + 1);
	e->group_len = (uint8_t)group.len;
	e->user_len = (uint8_t)user.len;
	e->is_add = is_add;
	if (e->text == NULL)
		return;
	if (group.len > 0)
		memcpy(e->text, group.p, group.len);
	if (user.len > 0)
		memcpy(e->text + group.len, user.p, user.len);
}

static bool concerns(const struct auth_change *e, const struct identity *who)
{
	return e->user_len == who->user.len && e->user_len > 0 &&
	       memcmp(e->text + e->group_len, who->user.p, e->user_len) == 0;
}

enum auth_apply auth_changes_apply(const struct auth_changes *c, uint64_t since, struct identity *who)
{
	enum auth_apply result = AUTH_UNCHANGED;

	if (c->n - since > AUTH_CHANGES_MAX)
		return AUTH_UNKNOWN;
	for (uint64_t n = since + 1; n <= c->n; n++) {
		const struct auth_change *e = &c->last[n % AUTH_CHANGES_MAX];
		struct slice group = {e->text, e->group_len};

		if (e->text == NULL)
			return AUTH_UNKNOWN;
		if (!concerns(e, who))
			continue;
		result = AUTH_CHANGED;
		if (group.len == 0)
			continue;
		if (!e->is_add)
			identity_remove_group(who, group);
		else if (identity_add_group(who, group) == -1)
			return AUTH_UNKNOWN;
	}
	return result;
}
