#include "master/redis_form.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/wsframe.h"

#define BUCKETS REDIS_ORIGINS_MAX
#define NONE    UINT16_MAX

_Static_assert(REDIS_ORIGINS_MAX < NONE, "indices are 16 bits wide");
_Static_assert((BUCKETS & (BUCKETS - 1)) == 0, "the bucket is a mask of the hash");

/* Chained by index; the ring of `newer`/`older` orders by when each was heard last. */
struct origin {
	uint64_t origin, last;
	uint16_t chain;        /* next of the same bucket */
	uint16_t newer, older; /* neighbours in time */
};

struct redis_origins {
	uint16_t bucket[BUCKETS];
	uint16_t newest, oldest, used;
	struct origin of[REDIS_ORIGINS_MAX];
};

void redis_form_put(uint8_t *dst, uint8_t opcode, uint64_t origin, uint64_t id)
{
	uint64_t be;

	dst[0] = REDIS_FORM_VERSION;
	dst[1] = opcode;
	be = htobe64(origin);
	memcpy(dst + 2, &be, sizeof(be));
	be = htobe64(id);
	memcpy(dst + 10, &be, sizeof(be));
}

bool redis_form_get(struct redis_form *form, const char *p, size_t len)
{
	uint64_t be;

	if (len < REDIS_FORM_HEADER || p[0] != REDIS_FORM_VERSION)
		return false;
	form->opcode = (uint8_t)p[1] & ~REDIS_FORM_ASKS;
	form->is_asking = ((uint8_t)p[1] & REDIS_FORM_ASKS) != 0;
	memcpy(&be, p + 2, sizeof(be));
	form->origin = be64toh(be);
	memcpy(&be, p + 10, sizeof(be));
	form->id = be64toh(be);
	form->payload = (struct slice){p + REDIS_FORM_HEADER, len - REDIS_FORM_HEADER};
	form->envelope = NULL;
	if (form->opcode != WS_TEXT && form->opcode != WS_BINARY)
		return false;
	return form->origin != 0 && form->id != 0;
}

struct redis_origins *redis_origins_new(void)
{
	struct redis_origins *o = malloc(sizeof(*o));

	if (o == NULL)
		return NULL;
	memset(o->bucket, 0xff, sizeof(o->bucket));
	o->newest = o->oldest = NONE;
	o->used = 0;
	return o;
}

void redis_origins_free(struct redis_origins *o)
{
	free(o);
}

/* Origins are random already; the multiplication only guards against a source of poor ones. */
static uint16_t *bucket_of(struct redis_origins *o, uint64_t origin)
{
	return &o->bucket[((origin * 0x9e3779b97f4a7c15u) >> 40) & (BUCKETS - 1)];
}

static uint16_t find(struct redis_origins *o, uint64_t origin)
{
	uint16_t i;

	/* Messages come in runs of one origin. */
	if (o->newest != NONE && o->of[o->newest].origin == origin)
		return o->newest;
	for (i = *bucket_of(o, origin); i != NONE && o->of[i].origin != origin; i = o->of[i].chain)
		;
	return i;
}

uint64_t redis_origins_last(struct redis_origins *o, uint64_t origin)
{
	uint16_t i = find(o, origin);

	return i == NONE ? 0 : o->of[i].last;
}

static void unlink_time(struct redis_origins *o, uint16_t i)
{
	struct origin *e = &o->of[i];

	*(e->newer == NONE ? &o->newest : &o->of[e->newer].older) = e->older;
	*(e->older == NONE ? &o->oldest : &o->of[e->older].newer) = e->newer;
}

static void link_newest(struct redis_origins *o, uint16_t i)
{
	o->of[i].newer = NONE;
	o->of[i].older = o->newest;
	*(o->newest == NONE ? &o->oldest : &o->of[o->newest].newer) = i;
	o->newest = i;
}

static uint16_t forget_oldest(struct redis_origins *o)
{
	uint16_t i = o->oldest, *at = bucket_of(o, o->of[i].origin);

	while (*at != i)
		at = &o->of[*at].chain;
	*at = o->of[i].chain;
	unlink_time(o, i);
	return i;
}

static uint16_t insert(struct redis_origins *o, uint64_t origin)
{
	uint16_t i = o->used < REDIS_ORIGINS_MAX ? o->used++ : forget_oldest(o);
	uint16_t *at = bucket_of(o, origin);

	o->of[i].origin = origin;
	o->of[i].chain = *at;
	*at = i;
	link_newest(o, i);
	return i;
}

void redis_origins_heard(struct redis_origins *o, uint64_t origin, uint64_t id)
{
	uint16_t i = find(o, origin);

	if (i == NONE) {
		i = insert(o, origin);
	} else if (i != o->newest) {
		unlink_time(o, i);
		link_newest(o, i);
	}
	o->of[i].last = id;
}
