#include "common/envelope.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/json.h"
#include "common/utf8.h"

#define SET_MIN 16u /* slots of the set of ids; it is at most half full */

void envelope_free(struct envelope *e)
{
	buf_free(&e->ids);
	buf_free(&e->cut);
	buf_free(&e->seen);
}

/* ---- cutting members out */

struct cutter {
	struct buf *out;
	const char *from; /* all before it has been copied or cut */
	bool has_kept;    /* a member was kept: the next one cut takes the comma before it along */
	bool owes_comma; /* one was cut before any was kept: the comma behind it goes, too, if there is one */
	bool has_cut;
};

/* What was kept so far is copied, up to `end`. */
static int keep_upto(struct cutter *c, const char *end)
{
	return end == c->from ? 0 : buf_put(c->out, c->from, (size_t)(end - c->from));
}

/* Each member, in order; is_cut: without this one. */
static int cutter_member(struct cutter *c, const struct json_iter *it, const struct json_member *m,
			 bool is_cut)
{
	if (c->owes_comma) {
		if (keep_upto(c, it->comma) == -1)
			return -1;
		c->from = it->comma + 1;
		c->owes_comma = false;
	}
	if (!is_cut) {
		c->has_kept = true;
		return 0;
	}
	if (keep_upto(c, c->has_kept ? it->comma : m->key.p) == -1)
		return -1;
	c->from = m->value.p + m->value.len;
	c->owes_comma = !c->has_kept;
	c->has_cut = true;
	return 0;
}

/* ---- distinct ids */

static uint32_t *set_slots(const struct envelope *e)
{
	return (uint32_t *)(void *)e->seen.p;
}

static int set_clear(struct envelope *e, size_t n_slots)
{
	e->seen.len = 0;
	if (buf_reserve(&e->seen, n_slots * sizeof(uint32_t)) == -1)
		return -1;
	e->seen.len = n_slots * sizeof(uint32_t);
	memset(e->seen.p, 0, e->seen.len);
	return 0;
}

static struct slice id_at(const struct envelope *e, size_t at)
{
	uint16_t len;

	memcpy(&len, e->ids.p + at, sizeof(len));
	return (struct slice){e->ids.p + at + sizeof(len), len};
}

/* The slot of that id, or the empty one where it would stand. A slot holds an id's offset + 1. */
static uint32_t *set_find(const struct envelope *e, struct slice id)
{
	uint32_t *slot = set_slots(e);
	size_t mask = e->seen.len / sizeof(*slot) - 1;
	size_t i = XXH3_64bits_withSeed(id.p, id.len, e->seed) & mask;

	while (slot[i] != 0) {
		struct slice other = id_at(e, slot[i] - 1);

		if (other.len == id.len && memcmp(other.p, id.p, id.len) == 0)
			break;
		i = (i + 1) & mask;
	}
	return &slot[i];
}

/* Twice the slots: the ids from offset `first` on are put in again. */
static int set_grow(struct envelope *e, size_t first)
{
	if (set_clear(e, e->seen.len / sizeof(uint32_t) * 2) == -1)
		return -1;
	for (size_t at = first; at < e->ids.len; at += sizeof(uint16_t) + id_at(e, at).len)
		*set_find(e, id_at(e, at)) = (uint32_t)at + 1;
	return 0;
}

/* ---- targets */

/* One list of ids. */
struct target_list {
	size_t first; /* its offset in ids */
	uint32_t *n;  /* distinct ones */
	bool takes_integers;
};

static enum envelope_verdict add_target(struct envelope *e, const struct target_list *l, struct slice raw,
					enum json_type type)
{
	uint32_t *slot;
	size_t at = e->ids.len;
	ssize_t n = -1;
	uint16_t len;

	if (buf_reserve(&e->ids, sizeof(len) + ENVELOPE_USER_MAX) == -1)
		return ENVELOPE_NO_MEMORY;
	if (type == JSON_TYPE_STRING || l->takes_integers)
		n = json_canonical(raw, type, e->ids.p + at + sizeof(len), ENVELOPE_USER_MAX);
	if (n <= 0) {
		e->skipped++;
		return ENVELOPE_OK;
	}
	len = (uint16_t)n;
	memcpy(e->ids.p + at, &len, sizeof(len));
	slot = set_find(e, id_at(e, at));
	if (*slot != 0)
		return ENVELOPE_OK;
	if (e->n_users + e->n_groups == ENVELOPE_TARGETS_MAX)
		return ENVELOPE_TOO_LARGE;
	*slot = (uint32_t)at + 1;
	e->ids.len += sizeof(len) + len;
	if (++*l->n > e->seen.len / sizeof(*slot) / 2 && set_grow(e, l->first) == -1)
		return ENVELOPE_NO_MEMORY;
	return ENVELOPE_OK;
}

/* Enough for ids of the usual length, so that the set need not grow on the way. */
static size_t slots_for(size_t text_len)
{
	size_t n = SET_MIN;

	while (n < text_len / 4 && n < 2 * (size_t)ENVELOPE_TARGETS_MAX)
		n *= 2;
	return n;
}

static enum envelope_verdict read_targets(struct envelope *e, const struct json_member *m, uint32_t *n,
					  bool takes_integers)
{
	struct target_list l = {.first = e->ids.len, .n = n, .takes_integers = takes_integers};
	enum envelope_verdict v = ENVELOPE_OK;
	struct json_iter it;
	struct slice value;
	enum json_type type;

	if (m->value.p == NULL)
		return ENVELOPE_OK;
	e->is_targeted = true;
	if (json_array_begin(&it, m->value) == -1) {
		e->skipped++;
		return ENVELOPE_OK;
	}
	if (set_clear(e, slots_for(m->value.len)) == -1)
		return ENVELOPE_NO_MEMORY;
	while (v == ENVELOPE_OK && json_array_next(&it, &value, &type) == 1)
		v = add_target(e, &l, value, type);
	return v;
}

/* ---- the keys of our own */

/* The members that mean something, the last of each; value.p NULL: it is not there. */
struct found {
	struct json_member room, users, groups, origin, id, ask;
};

static bool hex_value(const char *p, size_t len, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < len; i++) {
		char c = p[i];

		if (c >= '0' && c <= '9')
			*out = *out << 4 | (uint64_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			*out = *out << 4 | (uint64_t)((c | 0x20) - 'a' + 10);
		else
			return false;
	}
	return true;
}

static bool decimal_value(const char *p, size_t len, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9' || __builtin_mul_overflow(*out, 10u, out) ||
		    __builtin_add_overflow(*out, (uint64_t)(p[i] - '0'), out))
			return false;
	}
	return true;
}

/* Anything but what envelope_sign() writes is no origin. */
static void read_origin(struct envelope *e, const struct found *f)
{
	char text[20];
	ssize_t n;

	if (f->origin.value.p == NULL || f->origin.type != JSON_TYPE_STRING || f->id.value.p == NULL ||
	    f->id.type != JSON_TYPE_NUMBER)
		return;
	n = json_canonical(f->origin.value, f->origin.type, text, sizeof(text));
	if (n != 16 || !hex_value(text, 16, &e->origin))
		return;
	n = json_canonical(f->id.value, f->id.type, text, sizeof(text));
	if (n < 0 || !decimal_value(text, (size_t)n, &e->id))
		return;
	e->has_origin = e->origin != 0 && e->id != 0;
	e->is_asking = e->has_origin && f->ask.type == JSON_TYPE_NUMBER && f->ask.value.len == 1 &&
		       *f->ask.value.p == '1';
}

static void note(struct envelope *e, struct found *f, const struct json_member *m)
{
	if (json_is(m->key, "_target_users")) {
		f->users = *m;
	} else if (json_is(m->key, "_target_groups")) {
		f->groups = *m;
	} else if (json_begins(m->key, "_rc_")) {
		e->has_own_keys = true;
		if (json_is(m->key, "_rc_origin"))
			f->origin = *m;
		else if (json_is(m->key, "_rc_id"))
			f->id = *m;
		else if (json_is(m->key, "_rc_ask"))
			f->ask = *m;
	}
}

/* ---- the whole */

static void clear(struct envelope *e)
{
	e->has_room = e->is_targeted = e->has_origin = e->is_asking = e->has_own_keys = false;
	e->n_users = e->n_groups = e->skipped = 0;
	e->origin = e->id = 0;
	e->room_len = e->ids.len = e->cut.len = 0;
}

/* Why json_object_begin() refused it. */
static enum envelope_verdict no_object(struct slice text)
{
	if (!utf8_is_valid(text.p, text.len))
		return ENVELOPE_BAD_UTF8;
	return json_validate(text, NULL) ? ENVELOPE_NOT_OBJECT : ENVELOPE_BAD_JSON;
}

/* Does it begin with '_', perhaps written as an escape? Most keys are done with a look at one byte. */
static bool is_server_key(struct slice raw)
{
	return (raw.p[1] == '_' || raw.p[1] == '\\') && json_begins(raw, "_");
}

static enum envelope_verdict walk(struct envelope *e, struct slice text, const char *route_key,
				  struct found *f)
{
	struct cutter c = {.out = &e->cut, .from = text.p};
	struct json_member m;
	struct json_iter it;
	int rc;

	if (json_object_begin(&it, text) == -1)
		return no_object(text);
	while ((rc = json_object_next(&it, &m)) == 1) {
		bool is_cut = is_server_key(m.key);

		if (cutter_member(&c, &it, &m, is_cut) == -1)
			return ENVELOPE_NO_MEMORY;
		if (is_cut)
			note(e, f, &m);
		if (route_key != NULL && json_is(m.key, route_key))
			f->room = m;
	}
	if (rc == -1)
		return ENVELOPE_BAD_JSON;
	if (c.has_cut && keep_upto(&c, text.p + text.len) == -1)
		return ENVELOPE_NO_MEMORY;
	e->payload = c.has_cut ? (struct slice){e->cut.p, e->cut.len} : text;
	return ENVELOPE_OK;
}

enum envelope_verdict envelope_read(struct envelope *e, struct slice text, const char *route_key)
{
	struct found f = {.room.value.p = NULL};
	enum envelope_verdict v;
	ssize_t n;

	clear(e);
	v = walk(e, text, route_key, &f);
	if (v != ENVELOPE_OK)
		return v;
	if (f.room.value.p != NULL) {
		n = json_canonical(f.room.value, f.room.type, e->room, sizeof(e->room) - 1);
		e->has_room = n >= 0;
		e->room_len = n < 0 ? 0 : (size_t)n;
	}
	read_origin(e, &f);
	v = read_targets(e, &f.users, &e->n_users, true);
	return v == ENVELOPE_OK ? read_targets(e, &f.groups, &e->n_groups, false) : v;
}

struct slice envelope_id(const struct envelope *e, size_t *at)
{
	struct slice id = id_at(e, *at);

	*at += sizeof(uint16_t) + id.len;
	return id;
}

/* ---- signing */

int envelope_sign(struct buf *out, struct slice text, uint64_t origin, uint64_t id, bool ask)
{
	size_t brace = text.len, last, before = out->len;

	while (text.p[--brace] != '}') {
	}
	for (last = brace; strchr(" \t\r\n", text.p[last - 1]) != NULL; last--) {
	}
	/* What stands before the last brace is another one only if nothing stands between them. */
	if (buf_put(out, text.p, brace) == 0 &&
	    buf_printf(out, "%s%s\"_rc_origin\":\"%016" PRIx64 "\",\"_rc_id\":%" PRIu64,
		       text.p[last - 1] == '{' ? "" : ",", ask ? "\"_rc_ask\":1," : "", origin, id) == 0 &&
	    buf_put(out, text.p + brace, text.len - brace) == 0)
		return 0;
	out->len = before;
	return -1;
}

int envelope_unsign(struct buf *out, struct slice text)
{
	struct cutter c = {.out = out, .from = text.p};
	size_t before = out->len;
	struct json_member m;
	struct json_iter it;

	if (json_object_begin(&it, text) == -1)
		return -1;
	while (json_object_next(&it, &m) == 1) {
		if (cutter_member(&c, &it, &m, json_begins(m.key, "_rc_")) == -1)
			goto fail;
	}
	if (keep_upto(&c, text.p + text.len) == 0)
		return 0;
fail:
	out->len = before;
	return -1;
}
