#include "worker/identity.h"

#include <stdlib.h>
#include <string.h>

#include "common/integer.h"
#include "common/json.h"
#include "common/wsframe.h"

/* The members that count, raw; the last of repeated ones. p == NULL: absent, or null. */
struct answer {
	struct json_member allow, status, code, reason, user, info, session, expires_at, groups, frames;
};

static struct json_member *place_of(struct answer *a, struct slice key)
{
	static const struct {
		const char *name;
		size_t offset;
	} known[] = {
#define KNOWN(name) {#name, offsetof(struct answer, name)}
		KNOWN(allow), KNOWN(status),  KNOWN(code),       KNOWN(reason), KNOWN(user),
		KNOWN(info),  KNOWN(session), KNOWN(expires_at), KNOWN(groups), KNOWN(frames),
#undef KNOWN
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (json_is(key, known[i].name))
			return (struct json_member *)((char *)a + known[i].offset);
	}
	return NULL;
}

static bool walk(struct answer *a, struct slice body)
{
	struct json_iter it;
	struct json_member m, *place;
	int rc;

	if (json_object_begin(&it, body) == -1)
		return false;
	while ((rc = json_object_next(&it, &m)) == 1) {
		place = place_of(a, m.key);
		if (place == NULL)
			continue;
		*place = m;
		if (m.type == JSON_TYPE_NULL)
			place->value.p = NULL;
	}
	return rc == 0;
}

/* Append the decoded string to the text, which has room for it (identity_read_hook): earlier slices stay
 * valid. */
static bool put_string(struct buf *text, struct slice raw, size_t max, struct slice *out)
{
	char *at = text->p + text->len;
	ssize_t n = json_string_copy(raw, at, text->cap - text->len);

	if (n == -1 || (size_t)n > max)
		return false;
	text->len += (size_t)n;
	*out = (struct slice){at, (size_t)n};
	return true;
}

static void put_raw(struct buf *text, struct slice raw, struct slice *out)
{
	char *at = text->p + text->len;

	memcpy(at, raw.p, raw.len);
	text->len += raw.len;
	*out = (struct slice){at, raw.len};
}

/* A number without fraction and exponent in [min, max]; else false. */
static bool get_number(const struct json_member *m, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (m->type != JSON_TYPE_NUMBER)
		return false;
	for (size_t i = 0; i < m->value.len; i++) {
		char c = m->value.p[i];

		if (c < '0' || c > '9' || v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(c - '0');
	}
	*out = v;
	return v >= min && v <= max;
}

/* Seconds may have a fraction, which is cut off: a language without integers writes one. */
static bool get_seconds(const struct json_member *m, uint64_t *out)
{
	const char *dot = m->type == JSON_TYPE_NUMBER ? memchr(m->value.p, '.', m->value.len) : NULL;
	struct json_member whole = *m;

	if (dot != NULL) {
		for (const char *p = dot + 1; p < m->value.p + m->value.len; p++) {
			if (*p < '0' || *p > '9')
				return false;
		}
		whole.value.len = (size_t)(dot - m->value.p);
	}
	return get_number(&whole, 1, UINT64_MAX, out);
}

static bool read_user(struct identity *id, const struct json_member *m)
{
	char *at = id->text.p + id->text.len;
	size_t n;

	if (m->type == JSON_TYPE_STRING)
		return put_string(&id->text, m->value, IDENTITY_USER_MAX, &id->user);
	if (m->type != JSON_TYPE_NUMBER)
		return false;
	n = integer_canonical(m->value, at, u64_min(id->text.cap - id->text.len, IDENTITY_USER_MAX));
	id->text.len += n;
	id->user = (struct slice){at, n};
	return n > 0;
}

/* UTF-8 is not cut inside a character. */
static void shorten(struct slice *s, size_t max)
{
	if (s->len <= max)
		return;
	s->len = max;
	while (s->len > 0 && ((uint8_t)s->p[s->len] & 0xc0) == 0x80)
		s->len--;
}

/* Elements of an array; -1 if it is none, or has more than `max`. */
static int count_elements(const struct json_member *m, unsigned max)
{
	enum json_type type;
	struct json_iter it;
	struct slice value;
	unsigned n = 0;

	if (m->type != JSON_TYPE_ARRAY || json_array_begin(&it, m->value) == -1)
		return -1;
	while (json_array_next(&it, &value, &type) == 1)
		n++;
	return n <= max ? (int)n : -1;
}

static bool read_group(struct buf *text, struct slice raw, enum json_type type, struct slice *out)
{
	return type == JSON_TYPE_STRING && put_string(text, raw, IDENTITY_USER_MAX, out) && out->len > 0;
}

static bool read_frame(struct buf *text, struct slice raw, enum json_type type, struct slice *out)
{
	if (type == JSON_TYPE_STRING)
		return put_string(text, raw, SIZE_MAX, out);
	if (type != JSON_TYPE_OBJECT && type != JSON_TYPE_ARRAY)
		return false;
	put_raw(text, raw, out);
	return true;
}

static bool read_list(struct buf *text, const struct json_member *m, unsigned max,
		      bool (*read_one)(struct buf *, struct slice, enum json_type, struct slice *),
		      struct slice **list, unsigned *n)
{
	int count = count_elements(m, max);
	enum json_type type;
	struct json_iter it;
	struct slice raw;

	if (count <= 0)
		return count == 0;
	*list = calloc((size_t)count, sizeof(**list));
	if (*list == NULL || json_array_begin(&it, m->value) == -1)
		return false;
	while (json_array_next(&it, &raw, &type) == 1) {
		if (!read_one(text, raw, type, &(*list)[*n]))
			return false;
		(*n)++;
	}
	return true;
}

static const char *read_refusal(struct identity *id, const struct answer *a)
{
	uint64_t n;

	id->status = 403;
	id->code = 1008;
	if (a->status.value.p != NULL) {
		if (!get_number(&a->status, 400, 599, &n))
			return "status is no number from 400 to 599";
		id->status = (uint16_t)n;
	}
	if (a->code.value.p != NULL) {
		if (!get_number(&a->code, 1000, 4999, &n) || !identity_is_close_code((unsigned)n))
			return "code is none that a Close may carry";
		id->code = (uint16_t)n;
	}
	if (a->reason.value.p != NULL) {
		if (a->reason.type != JSON_TYPE_STRING ||
		    !put_string(&id->text, a->reason.value, SIZE_MAX, &id->reason))
			return "reason is no string";
		shorten(&id->reason, IDENTITY_REASON_MAX);
	}
	return NULL;
}

static const char *read_welcome(struct identity *id, const struct answer *a)
{
	if (a->user.value.p != NULL && !read_user(id, &a->user))
		return "user is neither a string nor an integer, or too long";
	if (a->info.value.p != NULL) {
		if (a->info.type != JSON_TYPE_OBJECT)
			return "info is no object";
		put_raw(&id->text, a->info.value, &id->info);
	}
	if (a->session.value.p != NULL &&
	    (a->session.type != JSON_TYPE_STRING ||
	     !put_string(&id->text, a->session.value, IDENTITY_USER_MAX, &id->session)))
		return "session is no string, or too long";
	if (a->expires_at.value.p != NULL && !get_seconds(&a->expires_at, &id->expires_at))
		return "expires_at is no time in seconds";
	if (a->groups.value.p != NULL &&
	    !read_list(&id->text, &a->groups, IDENTITY_GROUPS_MAX, read_group, &id->groups, &id->n_groups))
		return "groups is no array of names, or too long";
	return NULL;
}

static const char *read_answer(struct identity *id, const struct answer *a, bool is_message)
{
	const char *wrong = NULL;

	if (!is_message) {
		if (a->allow.value.p == NULL ||
		    (a->allow.type != JSON_TYPE_TRUE && a->allow.type != JSON_TYPE_FALSE))
			return "allow is neither true nor false";
		id->is_allowed = a->allow.type == JSON_TYPE_TRUE;
		wrong = id->is_allowed ? read_welcome(id, a) : read_refusal(id, a);
	}
	if (wrong == NULL && a->frames.value.p != NULL && (is_message || id->is_allowed) &&
	    !read_list(&id->frame_text, &a->frames, IDENTITY_FRAMES_MAX, read_frame, &id->frames,
		       &id->n_frames))
		return "frames is no array of objects, arrays and strings, or too long";
	return wrong;
}

/* Nothing gets longer by being decoded. */
static int reserve(struct identity *id, const struct answer *a)
{
	size_t n = a->reason.value.len + a->user.value.len + a->info.value.len + a->session.value.len +
		   a->groups.value.len;

	return buf_reserve(&id->text, n + 1) == -1 ||
			       buf_reserve(&id->frame_text, a->frames.value.len + 1) == -1
		       ? -1
		       : 0;
}

int identity_read_hook(struct identity *id, struct slice body, bool is_message, const char **wrong)
{
	struct answer a = {0};

	*id = (struct identity){0};
	*wrong = NULL;
	if (!walk(&a, body))
		*wrong = "no JSON object";
	else if (reserve(id, &a) == -1)
		*wrong = "no memory";
	else
		*wrong = read_answer(id, &a, is_message);
	if (*wrong == NULL)
		return 0;
	identity_clear(id);
	return -1;
}

bool identity_is_close_code(unsigned code)
{
	return (code >= 1001 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

void identity_clear(struct identity *id)
{
	free(id->groups);
	free(id->frames);
	buf_free(&id->text);
	buf_free(&id->frame_text);
	*id = (struct identity){0};
}

int identity_put_frames(const struct identity *id, struct buf *out)
{
	uint8_t header[WS_HEADER_MAX];

	for (unsigned i = 0; i < id->n_frames; i++) {
		size_t n = ws_header_put(header, WS_TEXT, id->frames[i].len);

		if (buf_put(out, header, n) == -1 || buf_put(out, id->frames[i].p, id->frames[i].len) == -1)
			return -1;
	}
	return 0;
}

void identity_drop_frames(struct identity *id)
{
	free(id->frames);
	buf_free(&id->frame_text);
	id->frames = NULL;
	id->n_frames = 0;
}

static void move_slice(struct slice *s, const char *from, const char *to)
{
	if (s->p != NULL)
		s->p = to + (s->p - from);
}

/* Let the slices of the text point into a copy of it, with room for `more` bytes. */
static int move_text(struct identity *id, size_t more)
{
	struct buf old = id->text, text = {0};

	if (buf_reserve(&text, old.len + more + 1) == -1 || buf_put(&text, old.p, old.len) == -1) {
		buf_free(&text);
		return -1;
	}
	move_slice(&id->reason, old.p, text.p);
	move_slice(&id->user, old.p, text.p);
	move_slice(&id->info, old.p, text.p);
	move_slice(&id->session, old.p, text.p);
	for (unsigned i = 0; i < id->n_groups; i++)
		move_slice(&id->groups[i], old.p, text.p);
	id->text = text;
	return 0;
}

struct identity *identity_clone(const struct identity *id)
{
	struct identity *copy = malloc(sizeof(*copy));

	if (copy == NULL)
		return NULL;
	*copy = *id;
	copy->frames = NULL;
	copy->n_frames = 0;
	copy->frame_text = (struct buf){0};
	copy->groups = id->n_groups == 0 ? NULL : malloc(id->n_groups * sizeof(*copy->groups));
	if (id->n_groups > 0 && copy->groups == NULL) {
		free(copy);
		return NULL;
	}
	if (id->n_groups > 0)
		memcpy(copy->groups, id->groups, id->n_groups * sizeof(*copy->groups));
	if (move_text(copy, 0) == -1) {
		free(copy->groups);
		free(copy);
		return NULL;
	}
	return copy;
}

static unsigned find_group(const struct identity *id, struct slice group)
{
	unsigned i = 0;

	while (i < id->n_groups &&
	       (id->groups[i].len != group.len || memcmp(id->groups[i].p, group.p, group.len) != 0))
		i++;
	return i;
}

int identity_add_group(struct identity *id, struct slice group)
{
	struct buf old = id->text;
	struct slice *more;

	if (find_group(id, group) < id->n_groups)
		return 0;
	if (id->n_groups == IDENTITY_GROUPS_MAX)
		return -1;
	more = realloc(id->groups, (id->n_groups + 1) * sizeof(*more));
	if (more == NULL)
		return -1;
	id->groups = more;
	if (move_text(id, group.len) == -1)
		return -1;
	buf_free(&old);
	put_raw(&id->text, group, &id->groups[id->n_groups++]);
	return 0;
}

void identity_remove_group(struct identity *id, struct slice group)
{
	unsigned i = find_group(id, group);

	if (i < id->n_groups)
		id->groups[i] = id->groups[--id->n_groups];
}

void identity_free(struct identity *id)
{
	if (id == NULL)
		return;
	identity_clear(id);
	free(id);
}

static char *put_slice(char *at, struct slice s)
{
	return s.len == 0 ? at : mempcpy(at, s.p, s.len);
}

int identity_rest_of(const struct identity *id, bool needs_user, struct identity_rest **rest)
{
	struct slice user = needs_user ? id->user : (struct slice){0}, info = id->info;
	size_t len = id->session.len + user.len + info.len;
	struct identity_rest *r;

	*rest = NULL;
	if (len == 0)
		return 0;
	r = malloc(offsetof(struct identity_rest, text) + len);
	if (r == NULL || info.len > UINT32_MAX) {
		free(r);
		return -1;
	}
	r->info_len = (uint32_t)info.len;
	r->session_len = (uint8_t)id->session.len;
	r->user_len = (uint8_t)user.len;
	put_slice(put_slice(put_slice(r->text, id->session), user), info);
	*rest = r;
	return 0;
}

static struct slice part(const struct identity_rest *r, size_t off, size_t len)
{
	return len == 0 ? (struct slice){0} : (struct slice){r->text + off, len};
}

struct slice identity_rest_session(const struct identity_rest *r)
{
	return r == NULL ? (struct slice){0} : part(r, 0, r->session_len);
}

struct slice identity_rest_user(const struct identity_rest *r)
{
	return r == NULL ? (struct slice){0} : part(r, r->session_len, r->user_len);
}

struct slice identity_rest_info(const struct identity_rest *r)
{
	return r == NULL ? (struct slice){0} : part(r, (size_t)r->session_len + r->user_len, r->info_len);
}

struct identity *identity_of_user(struct slice user)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (id == NULL || buf_put(&id->text, user.p, user.len) == -1) {
		identity_free(id);
		return NULL;
	}
	id->is_allowed = true;
	id->user = (struct slice){id->text.p, user.len};
	return id;
}

struct identity *identity_refused(unsigned status, const char *reason)
{
	struct identity *id = calloc(1, sizeof(*id));

	if (id == NULL || buf_puts(&id->text, reason) == -1) {
		identity_free(id);
		return NULL;
	}
	id->status = (uint16_t)status;
	id->code = 1008;
	id->reason = (struct slice){id->text.p, id->text.len};
	return id;
}
