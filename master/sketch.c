#include "master/sketch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "master/presence.h"

#define WALK_MIN 4096u /* entries of a piece: some 50 us */

void sketch_clear(struct kmv **v)
{
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++) {
		free(v[i]);
		v[i] = NULL;
	}
}

void sketch_free(struct sketch *s)
{
	sketch_clear(s->ready);
	sketch_clear(s->building);
}

/* Without memory the count is too small. */
static void add(struct kmv **v, unsigned ns, uint64_t hash)
{
	if (v[ns] == NULL && (v[ns] = calloc(1, sizeof(**v))) == NULL)
		return;
	kmv_add(v[ns], hash);
}

void sketch_walk(struct sketch *s, const struct master *m, unsigned turns)
{
	const struct crowd *t = &m->presence->table.crowd;
	uint32_t end = (uint32_t)u64_min(t->n_used, s->at + u64_max(WALK_MIN, t->n_used / turns + 1));

	for (; s->at < end; s->at++) {
		const struct crowd_entry *e = crowd_entry_at(t, s->at);

		if (e->places > 0)
			add(s->building, e->ns, e->hash);
	}
	if (s->at < t->n_used)
		return;
	s->at = 0;
	sketch_clear(s->ready);
	memcpy(s->ready, s->building, sizeof(s->ready));
	memset(s->building, 0, sizeof(s->building));
}

int sketch_put(const struct sketch *s, const struct master *m, struct buf *out)
{
	bool is_first = true;

	if (buf_puts(out, "{") == -1)
		return -1;
	for (unsigned i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (s->ready[i] == NULL)
			continue;
		if (buf_printf(out, "%s\"%s\":\"", is_first ? "" : ",", m->globals->namespaces[i]) == -1)
			return -1;
		is_first = false;
		for (unsigned n = 0; n < s->ready[i]->n; n++) {
			if (buf_printf(out, "%016" PRIx64, s->ready[i]->hash[n]) == -1)
				return -1;
		}
		if (buf_puts(out, "\"") == -1)
			return -1;
	}
	return buf_puts(out, "}");
}

/* The digits of one hash. False: they are none. */
static bool read_hash(const char *p, uint64_t *hash)
{
	static const char digits[] = "0123456789abcdef";

	*hash = 0;
	for (unsigned i = 0; i < 16; i++) {
		const char *digit = memchr(digits, p[i], 16);

		if (digit == NULL)
			return false;
		*hash = *hash << 4 | (uint64_t)(digit - digits);
	}
	return true;
}

static void read_hashes(struct kmv **into, unsigned ns, struct slice raw)
{
	uint64_t hash;

	for (size_t i = 1; i + 16 < raw.len && read_hash(raw.p + i, &hash); i += 16)
		add(into, ns, hash);
}

void sketch_read(struct kmv **into, const struct master *m, struct slice text)
{
	uint32_t n = atomic_load_explicit(&m->globals->n_namespaces, memory_order_relaxed); /* we write it */
	struct json_iter it;
	struct json_member member;

	if (json_object_begin(&it, text) == -1)
		return;
	while (json_object_next(&it, &member) == 1) {
		for (uint32_t i = 0; i < n && member.type == JSON_TYPE_STRING; i++) {
			if (json_is(member.key, m->globals->namespaces[i]))
				read_hashes(into, i, member.value);
		}
	}
}
