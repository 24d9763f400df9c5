#include "master/redis_subs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "master/redis_form.h"
#include "master/redis_resp.h"

#define NAME_MAX_BYTES 64000
#define SLOTS_MIN      64
#define QUEUE_MIN      64
#define QUEUE_KEEP     1024          /* an empty queue larger than this is given back */
#define OUT_HIGH       (256 * 1024u) /* no further batch while the link has this much to write */

static const struct slice meta = {REDIS_META_PREFIX, REDIS_META_PREFIX_LEN};

static uint32_t hash_of(const char *name, size_t len)
{
	return (uint32_t)XXH3_64bits(name, len);
}

static bool is_named(const struct redis_sub *sub, const char *name, size_t len)
{
	return sub->len == len && memcmp(sub->name, name, len) == 0;
}

/* ---- the table ---- */

/* The slot of that name, or the empty one where it would stand. */
static size_t slot_of(const struct redis_subs *s, uint32_t hash, const char *name, size_t len)
{
	size_t i = hash & (s->n_slots - 1);

	while (s->slot[i] != NULL && (s->slot[i]->hash != hash || !is_named(s->slot[i], name, len)))
		i = (i + 1) & (s->n_slots - 1);
	return i;
}

static int grow(struct redis_subs *s)
{
	size_t n = s->n_slots == 0 ? SLOTS_MIN : s->n_slots * 2, old_n = s->n_slots;
	struct redis_sub **slot = calloc(n, sizeof(struct redis_sub *)), **old = s->slot;

	if (slot == NULL)
		return -1;
	s->slot = slot;
	s->n_slots = n;
	for (size_t i = 0; i < old_n; i++)
		if (old[i] != NULL)
			slot[slot_of(s, old[i]->hash, old[i]->name, old[i]->len)] = old[i];
	free(old);
	return 0;
}

/* Entries behind the hole move up unless that would put them before their home. */
static void close_hole(struct redis_subs *s, size_t hole)
{
	size_t mask = s->n_slots - 1;

	for (size_t i = (hole + 1) & mask; s->slot[i] != NULL; i = (i + 1) & mask) {
		size_t home = s->slot[i]->hash & mask;

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		s->slot[hole] = s->slot[i];
		hole = i;
	}
	s->slot[hole] = NULL;
}

static void discard(struct redis_subs *s, struct redis_sub *sub)
{
	close_hole(s, slot_of(s, sub->hash, sub->name, sub->len));
	s->used--;
	if (s->last == sub)
		s->last = NULL;
	if (s->reading == sub)
		s->reading = NULL;
	free(sub);
}

struct redis_sub *redis_subs_find(struct redis_subs *s, const char *name, size_t len)
{
	if (s->last != NULL && is_named(s->last, name, len))
		return s->last;
	s->last = s->n_slots == 0 ? NULL : s->slot[slot_of(s, hash_of(name, len), name, len)];
	return s->last;
}

static struct redis_sub *insert(struct redis_subs *s, const char *name, size_t len)
{
	struct redis_sub *sub;

	if ((s->used + 1) * 4 > s->n_slots * 3 && grow(s) == -1)
		return NULL;
	sub = calloc(1, u64_max(sizeof(*sub), offsetof(struct redis_sub, name) + len + 1));
	if (sub == NULL)
		return NULL;
	memcpy(sub->name, name, len);
	sub->len = (uint16_t)len;
	sub->hash = hash_of(name, len);
	s->slot[slot_of(s, sub->hash, name, len)] = sub;
	s->used++;
	return sub;
}

/* ---- what is to be said ---- */

static int queue_reserve(struct redis_subs *s, size_t more)
{
	size_t cap = s->queue_cap == 0 ? QUEUE_MIN : s->queue_cap;
	struct redis_sub **q;

	if (s->queue_at > 0) {
		s->queue_len -= s->queue_at;
		memmove(s->queue, s->queue + s->queue_at, s->queue_len * sizeof(*q));
		s->queue_at = 0;
	}
	while (cap < s->queue_len + more)
		cap *= 2;
	if (cap == s->queue_cap)
		return 0;
	q = realloc(s->queue, cap * sizeof(*q));
	if (q == NULL)
		return -1;
	s->queue = q;
	s->queue_cap = cap;
	return 0;
}

static int enqueue(struct redis_subs *s, struct redis_sub *sub)
{
	if (sub->queued)
		return 0;
	if (s->queue_len == s->queue_cap && queue_reserve(s, 1) == -1)
		return -1;
	s->queue[s->queue_len++] = sub;
	sub->queued = true;
	return 0;
}

static void queue_reset(struct redis_subs *s)
{
	s->queue_at = s->queue_len = 0;
	if (s->queue_cap <= QUEUE_KEEP)
		return;
	free(s->queue);
	s->queue = NULL;
	s->queue_cap = 0;
}

static void unsync(struct redis_subs *s, struct redis_sub *sub)
{
	s->syncing -= sub->syncing;
	sub->syncing = false;
}

static void unconfirm(struct redis_subs *s, struct redis_sub *sub)
{
	s->confirmed -= sub->confirmed;
	s->internal -= sub->confirmed && sub->is_internal;
	sub->confirmed = false;
}

/* Nothing is under way for `sub`: it may have become what is wished. */
static void settle(struct redis_subs *s, struct redis_sub *sub)
{
	if (sub->owed > 0 || sub->queued || sub->pins > 0)
		return;
	if (!sub->wanted && !sub->on_wire) {
		discard(s, sub);
	} else if (sub->wanted && sub->on_wire && !sub->confirmed) {
		sub->confirmed = true;
		s->confirmed++;
		s->internal += sub->is_internal;
		unsync(s, sub);
		if (!sub->is_internal)
			s->on_confirmed(s->arg, sub);
	}
}

struct redis_sub *redis_subs_want(struct redis_subs *s, uint16_t ns, const char *name, void *owner)
{
	size_t len = strlen(name);
	struct redis_sub *sub;

	if (len > NAME_MAX_BYTES) {
		errno = EINVAL;
		return NULL;
	}
	sub = redis_subs_find(s, name, len); /* one may still be on its way out */
	if (sub != NULL && sub->wanted) {
		errno = EEXIST;
		return NULL;
	}
	if (sub == NULL)
		sub = insert(s, name, len);
	if (sub == NULL)
		return NULL;
	if (s->linked && enqueue(s, sub) == -1) {
		settle(s, sub);
		return NULL;
	}
	sub->wanted = true;
	sub->ns = ns;
	sub->owner = owner;
	return sub;
}

int redis_subs_listen(struct redis_subs *s, const char *name)
{
	struct redis_sub *sub = redis_subs_want(s, 0, name, NULL);

	if (sub == NULL)
		return -1;
	sub->is_internal = true; /* nothing has been sent yet: that is done once per turn */
	return 0;
}

int redis_subs_unwant(struct redis_subs *s, struct redis_sub *sub)
{
	sub->wanted = false;
	sub->owner = NULL;
	sub->pending = 0;
	unsync(s, sub);
	unconfirm(s, sub);
	if (s->linked)
		return enqueue(s, sub);
	settle(s, sub);
	return 0;
}

void redis_subs_unpin(struct redis_subs *s, struct redis_sub *sub)
{
	if (sub != NULL && --sub->pins == 0 && !sub->wanted)
		settle(s, sub);
}

int redis_subs_open(struct redis_subs *s)
{
	s->linked = true;
	if (queue_reserve(s, s->used) == -1)
		return -1;
	for (size_t i = 0; i < s->n_slots; i++) {
		struct redis_sub *sub = s->slot[i];

		if (sub == NULL)
			continue;
		s->syncing += !sub->syncing;
		sub->syncing = true;
		if (enqueue(s, sub) == -1)
			return -1;
	}
	return 0;
}

void redis_subs_lost(struct redis_subs *s)
{
	s->linked = false;
	queue_reset(s);
	s->last = s->reading = NULL;
	for (size_t i = 0; i < s->n_slots; i++) {
		struct redis_sub *sub = s->slot[i];

		if (sub == NULL)
			continue;
		unsync(s, sub);
		unconfirm(s, sub);
		sub->queued = sub->on_wire = false;
		sub->owed = 0;
	}
	/* A discard moves entries backwards, past a sweep that goes forward: start over at the same slot, and
	 * the one entry that may wrap to the end is met there. */
	for (size_t i = 0; i < s->n_slots;) {
		if (s->slot[i] != NULL && !s->slot[i]->wanted)
			discard(s, s->slot[i]);
		else
			i++;
	}
}

/* The next entries of the queue that need the same command. Others are settled on the way, but never behind a
 * batch begun: on_confirmed may change the wish of an entry that stands in it, and that would go unnoticed.
 */
static size_t take_batch(struct redis_subs *s, struct redis_sub **batch, bool *subscribe)
{
	size_t n = 0;

	while (s->queue_at < s->queue_len && n < REDIS_SUBS_BATCH) {
		struct redis_sub *sub = s->queue[s->queue_at];

		if (sub->wanted != sub->on_wire) {
			if (n > 0 && sub->wanted != *subscribe)
				break;
			*subscribe = sub->wanted;
			batch[n++] = sub;
			s->queue_at++;
			continue;
		}
		if (n > 0)
			break;
		s->queue_at++;
		sub->queued = false;
		settle(s, sub);
	}
	return n;
}

static size_t channels_of(const struct redis_sub *sub)
{
	return sub->is_internal ? 1 : 2;
}

static int put_names(struct redis_subs *s, const struct redis_sub *sub)
{
	static const struct slice none = {"", 0};
	struct slice name = {sub->name, sub->len};

	if (resp_put_bulk(&s->out, none, name) == -1)
		return -1;
	return sub->is_internal ? 0 : resp_put_bulk(&s->out, meta, name);
}

static int write_batch(struct redis_subs *s, struct redis_link *link, struct redis_sub **batch, size_t n,
		       bool subscribe)
{
	static const struct slice none = {"", 0}, verb[2] = {{"UNSUBSCRIBE", 11}, {"SUBSCRIBE", 9}};
	size_t channels = 0;

	for (size_t i = 0; i < n; i++)
		channels += channels_of(batch[i]);
	s->out.len = 0;
	if (resp_put_array(&s->out, 1 + channels) == -1 ||
	    resp_put_bulk(&s->out, none, verb[subscribe]) == -1)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (put_names(s, batch[i]) == -1)
			return -1;
	if (redis_link_put(link, s->out.p, s->out.len, 0) == -1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		batch[i]->on_wire = subscribe;
		batch[i]->owed += (uint32_t)channels_of(batch[i]);
		batch[i]->queued = false;
	}
	return 0;
}

int redis_subs_write(struct redis_subs *s, struct redis_link *link)
{
	struct redis_sub *batch[REDIS_SUBS_BATCH];
	bool subscribe = false;

	while (s->linked && s->queue_at < s->queue_len && redis_link_queued(link) < OUT_HIGH) {
		size_t n = take_batch(s, batch, &subscribe);

		if (n > 0 && write_batch(s, link, batch, n, subscribe) == -1)
			return -1;
	}
	if (s->linked && s->queue_at == s->queue_len && s->queue_len > 0) {
		queue_reset(s);
		buf_free(&s->out);
	}
	return 0;
}

void redis_subs_reply(struct redis_subs *s, const char *name, size_t len)
{
	struct redis_sub *sub = redis_subs_find(s, name, len);

	if (sub == NULL || sub->owed == 0)
		return;
	sub->owed--;
	settle(s, sub);
}

void redis_subs_free(struct redis_subs *s)
{
	for (size_t i = 0; i < s->n_slots; i++)
		free(s->slot[i]);
	free(s->slot);
	free(s->queue);
	buf_free(&s->out);
	*s = (struct redis_subs){0};
}
