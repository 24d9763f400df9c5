#include "master/delivered.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "master/kmv.h"
#include "master/nodes.h"
#include "shm/uplink.h"

struct message {
	uint16_t ns, slot;
	uint8_t room_len, id_len;
	uint32_t incarnation;
	char room[CFG_ROOM_MAX], id[UP_TRACK_ID_MAX];
	uint64_t sockets, of;
	struct kmv users, of_users;
};

_Static_assert(CFG_ROOM_MAX <= UINT8_MAX && UP_TRACK_ID_MAX <= UINT8_MAX, "lengths fit");

/* What is searched by lies apart: 4 KB each. */
struct delivered {
	uint32_t next;                       /* messages, ever */
	uint32_t number[DELIVERED_MESSAGES]; /* 0: not published */
	uint32_t request[DELIVERED_MESSAGES];
	struct message v[DELIVERED_MESSAGES];
};

void delivered_stop(struct master *m)
{
	free(m->delivered);
	m->delivered = NULL;
}

bool delivered_track(struct master *m, const struct child *c, uint16_t ns, uint32_t request, struct slice id)
{
	const struct cfg_namespace *n = ns < CFG_MAX_NAMESPACES ? m->seq.ns[ns] : NULL;
	struct delivered *d;
	uint32_t place;

	if (id.len == 0 || id.len > UP_TRACK_ID_MAX || request == 0)
		return false;
	if (n == NULL || !n->receipts)
		return true; /* not any more, after a reload */
	if (m->delivered == NULL)
		m->delivered = calloc(1, sizeof(*m->delivered));
	d = m->delivered;
	if (d == NULL)
		return true;
	place = d->next++ % DELIVERED_MESSAGES;
	d->number[place] = 0;
	d->request[place] = request;
	d->v[place] = (struct message){
		.ns = ns, .slot = c->slot, .incarnation = c->incarnation, .id_len = (uint8_t)id.len};
	memcpy(d->v[place].id, id.p, id.len);
	return true;
}

/* The place of the i-th newest. */
static uint32_t place_of(const struct delivered *d, uint32_t i)
{
	return (d->next - 1 - i) % DELIVERED_MESSAGES;
}

void delivered_bind(struct master *m, const struct child *c, uint32_t request, struct slice room,
		    uint32_t number)
{
	struct delivered *d = m->delivered;

	for (uint32_t i = 0; d != NULL && i < DELIVERED_MESSAGES; i++) {
		uint32_t place = place_of(d, i);
		struct message *v = &d->v[place];

		if (d->request[place] != request || v->slot != c->slot || v->incarnation != c->incarnation)
			continue;
		d->number[place] = number;
		v->room_len = (uint8_t)room.len;
		memcpy(v->room, room.p == NULL ? "" : room.p, room.len);
		return;
	}
}

/* The place, or DELIVERED_MESSAGES: none. */
static uint32_t find(const struct master *m, uint32_t number)
{
	const struct delivered *d = m->delivered;
	uint32_t i = 0;

	if (d == NULL || number == 0)
		return DELIVERED_MESSAGES;
	while (i < DELIVERED_MESSAGES && d->number[i] != number)
		i++;
	return i;
}

void delivered_drop(struct master *m, uint32_t number)
{
	uint32_t place = find(m, number);

	if (place < DELIVERED_MESSAGES)
		m->delivered->number[place] = 0;
}

bool delivered_is_tracked(const struct master *m, uint32_t number)
{
	return find(m, number) < DELIVERED_MESSAGES;
}

static void add(struct kmv *k, uint64_t *sockets, const struct up_matched *told)
{
	*sockets += told->sockets;
	for (uint64_t i = 0; i < told->n; i++)
		kmv_add(k, told->user_hash[i]);
}

void delivered_matched(struct master *m, uint32_t number, struct slice payload)
{
	uint32_t place = find(m, number);
	struct up_matched told;

	if (place < DELIVERED_MESSAGES && uplink_matched(payload, &told))
		add(&m->delivered->v[place].of_users, &m->delivered->v[place].of, &told);
}

bool delivered_told(struct master *m, uint32_t number, struct slice payload)
{
	uint32_t place = find(m, number);
	struct up_matched told;

	if (!uplink_matched(payload, &told))
		return false;
	if (place < DELIVERED_MESSAGES)
		add(&m->delivered->v[place].users, &m->delivered->v[place].sockets, &told);
	return true;
}

uint32_t delivered_find(const struct master *m, uint16_t ns, struct slice room, struct slice id)
{
	const struct delivered *d = m->delivered;

	for (uint32_t i = 0; d != NULL && i < DELIVERED_MESSAGES; i++) {
		uint32_t place = place_of(d, i);
		const struct message *v = &d->v[place];

		if (d->number[place] != 0 && v->ns == ns && v->id_len == id.len &&
		    memcmp(v->id, id.p, id.len) == 0 &&
		    (v->room_len == 0 || (v->room_len == room.len && memcmp(v->room, room.p, room.len) == 0)))
			return d->number[place];
	}
	return 0;
}

int delivered_put(const struct master *m, uint32_t number, struct buf *out)
{
	uint32_t place = find(m, number);
	const struct message *v;
	bool is_known;
	unsigned n;

	if (place == DELIVERED_MESSAGES)
		return 0;
	v = &m->delivered->v[place];
	(void)nodes_others(m, &n, &is_known);
	return buf_printf(out,
			  ",\"delivered\":{\"sockets\":%" PRIu64 ",\"of\":%" PRIu64 ",\"users\":%" PRIu64
			  ",\"of_users\":%" PRIu64 ",\"partial\":%s}",
			  v->sockets, v->of, kmv_count(&v->users), kmv_count(&v->of_users),
			  m->redis != NULL && (n > 0 || !is_known) ? "true" : "false");
}
