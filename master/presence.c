#include "master/presence.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/utf8.h"
#include "master/presence_ask.h"
#include "master/presence_redis.h"

#define FORGET_PIECE 1024u /* users of a dead worker in a turn of the loop: 0.7 ms where one costs 0.7 us */

enum presence_reader { READER_FREE, READER_LIVE, READER_DEAD };

int presence_start(struct master *m)
{
	m->presence = calloc(1, sizeof(*m->presence));
	if (m->presence == NULL)
		return -1;
	return presence_table_init(&m->presence->table, m->seq.hash_key) == -1 ||
			       presence_ask_start(m) == -1 || presence_redis_start(m) == -1
		       ? -1
		       : 0;
}

void presence_stop(struct master *m)
{
	if (m->presence == NULL)
		return;
	presence_redis_stop(m);
	presence_ask_stop(m);
	presence_table_free(&m->presence->table);
	free(m->presence);
	m->presence = NULL;
}

/* ---- gauges */

static void show(struct master *m, uint16_t ns)
{
	count_set(&m->count->ns[ns].users, m->presence->table.crowd.users[ns]);
}

static void show_all(struct master *m)
{
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++)
		show(m, i);
}

/* ---- readers: workers, by numbers that are used again when nothing in the tables names them */

static void free_reader(struct presence *p, unsigned i)
{
	p->reader[i] = READER_FREE;
	p->n_dead--;
}

static int take_reader(struct presence *p)
{
	for (unsigned i = 0; i < CROWD_READERS; i++) {
		if (p->reader[i] == READER_FREE) {
			p->reader[i] = READER_LIVE;
			return (int)i;
		}
	}
	return -1;
}

/* There are as many numbers as slots; with dead ones among them, workers die faster than pieces are taken:
 * all at once. */
static uint8_t reader_of(struct master *m, struct child *c)
{
	struct presence *p = m->presence;
	int id;

	if (c->presence_reader != 0)
		return (uint8_t)(c->presence_reader - 1);
	id = take_reader(p);
	if (id == -1) {
		for (unsigned i = 0; i < CROWD_READERS; i++) {
			if (p->reader[i] == READER_DEAD) {
				(void)presence_table_forget(&p->table, (uint8_t)i, UINT32_MAX);
				free_reader(p, i);
			}
		}
		show_all(m);
		id = take_reader(p);
	}
	c->presence_reader = (uint16_t)(id + 1);
	return (uint8_t)id;
}

void presence_worker_died(struct master *m, struct child *c)
{
	if (c->presence_reader == 0)
		return;
	m->presence->reader[c->presence_reader - 1] = READER_DEAD;
	m->presence->n_dead++;
	c->presence_reader = 0;
}

bool presence_turn(struct master *m)
{
	struct presence *p = m->presence;
	uint32_t left = FORGET_PIECE;

	if (p->n_dead == 0)
		return false;
	for (unsigned i = 0; i < CROWD_READERS && left > 0; i++) {
		if (p->reader[i] != READER_DEAD)
			continue;
		left -= presence_table_forget(&p->table, (uint8_t)i, left);
		if (left > 0)
			free_reader(p, i);
	}
	show_all(m);
	presence_redis_poke(m);
	return p->n_dead > 0;
}

/* ---- what workers say */

bool presence_told(struct master *m, struct child *c, const struct cfg_namespace *ns, struct slice room,
		   struct slice user, uint32_t sockets)
{
	/* As the worker knows it: an old generation may list what the new one does not, and the reverse. */
	const struct cfg_namespace *own = config_find_id(c->generation->config, ns->id);
	char name[PRESENCE_USER_MAX];
	struct presence_word w = {
		.ns = ns->id,
		.room = room,
		.user = {name, user.len},
		.sockets = sockets,
		.is_listed = own != NULL && own->presence,
	};

	if (user.len == 0 || user.len > sizeof(name))
		return false;
	memcpy(name, user.p, user.len); /* once: the worker can still write there */
	if (!utf8_is_valid(name, user.len))
		return false;
	w.public_hash = presence_hash(ns->name, w.user);
	w.reader = reader_of(m, c);
	if (presence_table_set(&m->presence->table, &w) == -1)
		log_event(LOG_ERROR, "no_memory", "ns=%s msg=\"a user is not counted\"", ns->name);
	show(m, ns->id);
	presence_redis_poke(m);
	return true;
}

void presence_tick(struct master *m, uint64_t now_ms)
{
	presence_ask_tick(m, now_ms);
	presence_redis_tick(m, now_ms);
}
