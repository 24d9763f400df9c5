/* seq_json.c - json namespaces: the verdict on a text, its room, its block of targets. */
#include "master/sequencer.h"

#include <string.h>

#include "common/room.h"

/* ---- verdicts */

enum rec_answer seq_read(struct sequencer *s, const struct cfg_namespace *ns, struct slice text,
			 struct envelope *e)
{
	static const struct {
		enum rec_answer answer;
		enum count_dropped reason;
	} bad[] = {
		[ENVELOPE_BAD_UTF8] = {REC_BAD_JSON, COUNT_DROPPED_bad_utf8},
		[ENVELOPE_BAD_JSON] = {REC_BAD_JSON, COUNT_DROPPED_bad_json},
		[ENVELOPE_NOT_OBJECT] = {REC_NOT_OBJECT, COUNT_DROPPED_not_object},
		[ENVELOPE_TOO_LARGE] = {REC_TOO_LARGE, COUNT_DROPPED_too_large},
	};
	enum envelope_verdict v = envelope_read(e, text, ns->route_key);

	if (v == ENVELOPE_OK)
		return REC_SENT;
	if (v == ENVELOPE_NO_MEMORY)
		return REC_OVERLOADED; /* counted by whoever gives up */
	seq_count_drop(s, ns, bad[v].reason);
	return bad[v].answer;
}

static bool is_room(const struct cfg_namespace *ns, struct slice given, const struct envelope *e,
		    struct slice *room)
{
	*room = given;
	if (ns->room == CFG_ROOM_NONE)
		return given.len == 0;
	if (ns->route_key == NULL)
		return given.len > 0; /* it came by a channel that has the room in its name */
	*room = (struct slice){e->room, e->room_len};
	return e->has_room && room_is_valid(*room) &&
	       (given.len == 0 || (given.len == room->len && memcmp(given.p, room->p, given.len) == 0));
}

enum rec_answer seq_judge(struct sequencer *s, const struct cfg_namespace *ns, struct slice given,
			  const struct envelope *e, struct slice *room)
{
	if (e->is_targeted && e->n_users + e->n_groups == 0) {
		seq_count_drop(s, ns, COUNT_DROPPED_no_target);
		return REC_NO_TARGET;
	}
	if (e->is_targeted) {
		*room = (struct slice){0};
		return REC_SENT;
	}
	if (ns->targeted_only) {
		seq_count_drop(s, ns, COUNT_DROPPED_untargeted);
		return REC_UNTARGETED;
	}
	if (is_room(ns, given, e, room))
		return REC_SENT;
	seq_count_drop(s, ns, COUNT_DROPPED_no_route);
	return REC_NO_ROUTE;
}

/* ---- the block of targets */

struct target {
	uint64_t hash;
	size_t at; /* of its id in envelope.ids */
};

/* Hashes are uniform, and keyed: nobody can aim. So the upper bits are nearly the whole order: count them,
 * place each target in its bucket (of which there are as many as targets), and let the few in each sort
 * themselves. Linear, where qsort() would take ten milliseconds for the largest lists, and memory for each.
 */
static void sort_targets(const struct target *from, struct target *to, uint32_t *bucket, size_t n,
			 unsigned bits)
{
	size_t n_buckets = (size_t)1 << bits;
	uint32_t sum = 0;

	memset(bucket, 0, n_buckets * sizeof(*bucket));
	for (size_t i = 0; i < n; i++)
		bucket[from[i].hash >> (64 - bits)]++;
	for (size_t b = 0; b < n_buckets; b++) {
		uint32_t count = bucket[b];

		bucket[b] = sum;
		sum += count;
	}
	for (size_t i = 0; i < n; i++)
		to[bucket[from[i].hash >> (64 - bits)]++] = from[i];
	for (size_t i = 1; i < n; i++) {
		struct target t = to[i];
		size_t k = i;

		for (; k > 0 && to[k - 1].hash > t.hash; k--)
			to[k] = to[k - 1];
		to[k] = t;
	}
}

static void put_target(char **out, const struct target *t, enum rec_target_kind kind, struct slice id)
{
	struct rec_target head = {.hash = t->hash, .kind = (uint16_t)kind, .len = (uint16_t)id.len};
	size_t size = rec_target_size(id.len), head_len = offsetof(struct rec_target, id);

	memcpy(*out, &head, head_len);
	memcpy(*out + head_len, id.p, id.len);
	memset(*out + head_len + id.len, 0, size - head_len - id.len);
	*out += size;
}

/* The `n` ids from *at on. In s->order: the targets, twice, and the buckets. */
static void put_kind(struct sequencer *s, uint16_t ns, const struct envelope *e, enum rec_target_kind kind,
		     size_t n, size_t *at, char **out)
{
	struct target *from = (struct target *)(void *)s->order.p, *to = from + n;
	unsigned bits = 1;
	size_t pos;

	while ((size_t)1 << bits < n)
		bits++;
	for (size_t i = 0; i < n; i++) {
		struct slice id;

		from[i].at = *at;
		id = envelope_id(e, at);
		from[i].hash = kind == REC_TARGET_USER ? rec_user_hash(s->hash_key, ns, id)
						       : rec_group_hash(s->hash_key, id);
	}
	sort_targets(from, to, (uint32_t *)(void *)(to + n), n, bits);
	for (size_t i = 0; i < n; i++) {
		pos = to[i].at;
		put_target(out, &to[i], kind, envelope_id(e, &pos));
	}
}

int seq_targets(struct sequencer *s, uint16_t ns, const struct envelope *e)
{
	size_t n = e->n_users > e->n_groups ? e->n_users : e->n_groups, total = e->n_users + e->n_groups,
	       at = 0;
	/* An entry's head and padding take at most 19 bytes where an id's length takes two. */
	size_t most = e->ids.len + total * (19 - sizeof(uint16_t));
	char *out;

	s->targets.len = s->order.len = 0;
	/* Fewer than 2 * n buckets, or two. */
	if (buf_reserve(&s->targets, most) == -1 ||
	    buf_reserve(&s->order, n * 2 * sizeof(struct target) + (n * 2 + 2) * sizeof(uint32_t)) == -1)
		return -1;
	out = s->targets.p;
	put_kind(s, ns, e, REC_TARGET_USER, e->n_users, &at, &out);
	put_kind(s, ns, e, REC_TARGET_GROUP, e->n_groups, &at, &out);
	s->targets.len = (size_t)(out - s->targets.p);
	return 0;
}
