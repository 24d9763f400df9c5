#include "tests/model/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"

struct loc locs[LOCS];
unsigned n_locs;
uint64_t memory_hash;

static const volatile void *address[LOCS]; /* of locs[], apart: it is searched all the time */
static unsigned guesses[1024];

uint64_t hash_mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 29;
}

uint64_t hash_view(uint64_t h, const struct view *v)
{
	uint64_t w[sizeof(*v) / 8];

	memcpy(w, v, sizeof(w));
	for (unsigned i = 0; i < sizeof(*v) / 8; i++)
		h = hash_mix(h, w[i]);
	return h;
}

void view_join(struct view *to, const struct view *from)
{
	for (unsigned i = 0; i < VIEW; i++)
		to->t[i] = to->t[i] > from->t[i] ? to->t[i] : from->t[i];
}

/* ---- locations */

uint64_t memory_get(const volatile void *p, unsigned size)
{
	return size == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

void give_up(const char *why, unsigned l)
{
	char buf[64] = "";

	fprintf(stderr, "model: %s: %s\n", loc_name(l, buf, sizeof(buf)), why);
	abort();
}

void memory_add(unsigned l, uint64_t value, const struct view *view, uint64_t view_hash, uint16_t ts,
		unsigned lap, int thread)
{
	struct loc *c = &locs[l];
	struct message *m = &c->m[c->n];

	if (c->n == MESSAGES || ts > UINT16_MAX - TS_STEP)
		give_up("too many stores", l);
	m->value = value;
	m->view = *view;
	m->view.t[l] = ts;
	m->ts = ts;
	m->lap = (uint8_t)lap;
	m->thread = (int8_t)thread;
	c->n++;
	memory_hash += hash_mix(hash_mix(view_hash, value), (uint64_t)l << 32 | (uint64_t)ts << 16 | lap);
}

/* By a guess that is right but for the first time. */
static unsigned find(const volatile void *p)
{
	unsigned *guess = &guesses[(uintptr_t)p / 4 % ARRAY_LEN(guesses)], l = 0;

	if (*guess < n_locs && address[*guess] == p)
		return *guess;
	while (l < n_locs && address[l] != p)
		l++;
	if (l == n_locs) {
		if (n_locs == LOCS)
			give_up("too many locations", LOCS);
		locs[l].p = address[l] = p;
		n_locs++;
	}
	*guess = l;
	return l;
}

unsigned loc_of(const volatile void *p, unsigned size)
{
	static const struct view nothing;
	unsigned l = find(p);

	if (size != 0 && locs[l].n == 0) {
		locs[l].size = size;
		memory_add(l, memory_get(p, size), &nothing, 0, 0, 0, -1);
	}
	return l;
}

void model_name(const volatile void *p, const char *name)
{
	locs[loc_of(p, 0)].name = name;
}

const char *loc_name(unsigned l, char *buf, unsigned size)
{
	if (l >= n_locs)
		return "";
	if (locs[l].name != NULL)
		return locs[l].name;
	/* Words of the region: by their distance from the last named location in front of them. */
	for (unsigned i = 0, best = LOCS; i < n_locs; i++) {
		if (locs[i].name != NULL && locs[i].p < locs[l].p &&
		    (best == LOCS || locs[i].p > locs[best].p)) {
			best = i;
			snprintf(buf, size, "%s+%td", locs[i].name,
				 (const volatile char *)locs[l].p - (const volatile char *)locs[i].p);
		}
	}
	return buf;
}

void memory_reset(void)
{
	for (unsigned l = 0; l < n_locs; l++) {
		locs[l].n = 0;
		memset(locs[l].plain, 0, sizeof(locs[l].plain));
	}
	memory_hash = 0;
}

void memory_forget(void)
{
	memset(locs, 0, sizeof(locs));
	n_locs = 0;
}
