/* LINK: worker/identity.c */
/* fuzz_identity - answers of authorization hooks.
 *
 * Must hold beyond not crashing: all that is taken lies in the identity's own text and obeys the bounds; what
 * is refused leaves nothing behind. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"
#include "worker/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_slice(const struct buf *text, struct slice s, size_t max)
{
	if (s.len == 0)
		return;
	must(s.len <= max);
	must(s.p >= text->p && s.p + s.len <= text->p + text->len);
	must(utf8_is_valid(s.p, s.len));
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(struct slice session)
{
	char *volatile copy = malloc(8);

	if (copy != NULL && session.len > 0)
		memcpy(copy, session.p, session.len);
	free(copy);
}
#endif

static bool same(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* A copy stands alone, and groups come and go. */
static void check_copy(const struct identity *id)
{
	struct identity *copy = identity_clone(id);
	struct slice more = {"more", 4};
	unsigned n;

	must(copy != NULL && copy->n_frames == 0 && copy->n_groups == id->n_groups);
	must(same(copy->user, id->user) && same(copy->info, id->info) && same(copy->session, id->session));
	n = copy->n_groups;
	must(identity_add_group(copy, more) == 0 || n == IDENTITY_GROUPS_MAX);
	must(same(copy->user, id->user) && same(copy->info, id->info) && same(copy->session, id->session));
	for (unsigned i = 0; i < id->n_groups; i++)
		must(same(copy->groups[i], id->groups[i]));
	identity_remove_group(copy, more);
	must(copy->n_groups <= n);
	identity_free(copy);
}

static void check_frames(struct identity *id)
{
	struct buf out = {0};
	size_t len = 0;

	must(identity_put_frames(id, &out) == 0);
	for (unsigned i = 0; i < id->n_frames; i++)
		len += id->frames[i].len + 2;
	must(out.len >= len);
	buf_free(&out);
	identity_drop_frames(id);
	must(id->n_frames == 0 && id->frame_text.p == NULL);
}

static void check(struct slice body, bool is_message)
{
	struct identity id;
	const char *wrong;
	enum json_type type;

	if (identity_read_hook(&id, body, is_message, &wrong) == -1) {
		must(wrong != NULL && id.text.p == NULL && id.groups == NULL && id.frames == NULL);
		return;
	}
	must(wrong == NULL && json_validate(body, &type) && type == JSON_TYPE_OBJECT);
	must(id.text.len <= id.text.cap && id.frame_text.len <= id.frame_text.cap);
	check_slice(&id.text, id.user, IDENTITY_USER_MAX);
	check_slice(&id.text, id.session, IDENTITY_USER_MAX);
	check_slice(&id.text, id.reason, IDENTITY_REASON_MAX);
	check_slice(&id.text, id.info, body.len);
	must(id.info.p == NULL || (json_validate(id.info, &type) && type == JSON_TYPE_OBJECT));
	must(id.n_groups <= IDENTITY_GROUPS_MAX && id.n_frames <= IDENTITY_FRAMES_MAX);
	for (unsigned i = 0; i < id.n_groups; i++) {
		must(id.groups[i].len > 0);
		check_slice(&id.text, id.groups[i], IDENTITY_USER_MAX);
	}
	for (unsigned i = 0; i < id.n_frames; i++)
		check_slice(&id.frame_text, id.frames[i], body.len);
	must(id.is_allowed || is_message || (id.status >= 400 && identity_is_close_code(id.code)));
	must(is_message || id.is_allowed || id.n_frames == 0);
#ifdef FUZZ_PLANT_BUG
	plant(id.session);
#endif
	check_copy(&id);
	check_frames(&id);
	identity_clear(&id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice body = {(const char *)data, size};
	struct identity *user = identity_of_user((struct slice){body.p, u64_min(size, IDENTITY_USER_MAX)}),
			*refused = identity_refused(403, "no");

	must(user != NULL && user->is_allowed && refused != NULL && !refused->is_allowed);
	check_copy(user);
	check_copy(refused);
	identity_free(user);
	identity_free(refused);
	check(body, false);
	check(body, true);
	return 0;
}
