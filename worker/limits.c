#include "worker/limits.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "shm/record.h"
#include "worker/admission.h"
#include "worker/worker.h"

#define WAYS  8u
#define SETS  (LIMITS_PLACES / WAYS)
#define LINES 256u /* keys whose last log line is remembered; two that meet cost lines, not silence */

/* One address and its bucket. Known by its hash alone: two that share one (64 bits, keyed) share a bucket. */
struct place {
	uint64_t hash; /* 0: free */
	struct bucket bucket;
};

struct line {
	uint64_t hash, due_ms;
	uint32_t n;
};

/* A question that the master has not answered yet. */
struct waiting {
	struct waiting *next;
	uint32_t request, conn, gen;
	uint8_t what, key_len;
	char key[];
};

struct limits {
	uint32_t rate, burst; /* this worker's share; rate 0: no limit */
	uint32_t asked;       /* number of the last question; never 0 */
	struct waiting *first, **end;
	struct place *places; /* LIMITS_PLACES, or NULL without a rate */
	struct line lines[LINES];
};

static uint32_t share(uint32_t all, uint32_t workers)
{
	return all == 0 ? 0 : all / workers > 0 ? all / workers : 1;
}

int limits_start(struct worker *w)
{
	const struct cfg_limits *l = &w->config->limits;
	struct limits *t = calloc(1, sizeof(*t));
	uint32_t workers = w->config->workers > 0 ? w->config->workers : 1;

	if (t == NULL)
		return -1;
	w->limits = t;
	t->end = &t->first;
	t->rate = share(l->connect_rate, workers);
	t->burst = share(l->connect_burst > 0 ? l->connect_burst : l->connect_rate, workers);
	if (t->rate > 0)
		t->places = calloc(LIMITS_PLACES, sizeof(*t->places));
	return t->rate > 0 && t->places == NULL ? -1 : 0;
}

void limits_stop(struct worker *w)
{
	struct limits *t = w->limits;

	if (t == NULL)
		return;
	while (t->first != NULL) {
		struct waiting *q = t->first;

		t->first = q->next;
		free(q);
	}
	free(t->places);
	free(t);
	w->limits = NULL;
}

static uint64_t hash_of(const struct worker *w, uint16_t kind, struct slice key)
{
	uint64_t hash = rec_channel_hash(w->globals->hash_key, kind, key);

	return hash != 0 ? hash : 1;
}

/* ---- rate */

static struct place *find_place(struct limits *t, uint64_t hash, uint32_t now)
{
	struct place *set = &t->places[hash % SETS * WAYS], *oldest = set;

	for (struct place *p = set; p < set + WAYS; p++) {
		if (p->hash == hash)
			return p;
		if (oldest->hash != 0 && (p->hash == 0 || now - p->bucket.at > now - oldest->bucket.at))
			oldest = p;
	}
	*oldest = (struct place){.hash = hash};
	return oldest;
}

bool limits_connect(struct worker *w, const struct address *from)
{
	struct limits *t = w->limits;
	uint8_t key[16];
	uint64_t hash;

	if (t->rate == 0 || !from->is_known)
		return true;
	address_key(from, key);
	hash = hash_of(w, UP_LIMIT_ADDRESS, (struct slice){(const char *)key, sizeof(key)});
	return bucket_take(&find_place(t, hash, (uint32_t)w->now_ms)->bucket, t->rate, t->burst, w->now_ms);
}

/* ---- numbers of connections */

int limits_ask(struct worker *w, struct conn *c, enum up_limit what, struct slice key)
{
	const struct cfg_limits *l = &w->config->limits;
	struct limits *t = w->limits;
	struct waiting *q = malloc(sizeof(*q) + key.len);
	struct up_rec h = {.type = UP_ADMIT,
			   .opcode = (uint8_t)what,
			   .total = what == UP_LIMIT_USER ? l->per_user : l->per_address};

	if (q == NULL)
		return -1;
	if (++t->asked == 0)
		t->asked = 1;
	*q = (struct waiting){.request = t->asked,
			      .conn = c->index,
			      .gen = c->gen,
			      .what = (uint8_t)what,
			      .key_len = (uint8_t)key.len};
	memcpy(q->key, key.p, key.len);
	*t->end = q;
	t->end = &q->next;
	session_of(w, c)->asking = q->request;
	h.request = q->request;
	publish_control_payload(w, &h, (struct slice){0}, key);
	return 0;
}

static void give_back(struct worker *w, enum up_limit what, struct slice key)
{
	const struct up_rec h = {.type = UP_RELEASE, .opcode = (uint8_t)what};

	publish_control_payload(w, &h, (struct slice){0}, key);
}

/* Whose question it was, if it still waits for the answer. */
static struct conn *asker(struct worker *w, const struct waiting *q)
{
	struct conn *c = conn_at(&w->conns, q->conn);
	struct session *s;

	if (c->gen != q->gen || c->state != CONN_JOINING)
		return NULL;
	s = session_of(w, c);
	if (s == NULL || s->asking != q->request)
		return NULL;
	s->asking = 0;
	return c;
}

void limits_answer(struct worker *w, uint32_t request, bool may_come)
{
	struct limits *t = w->limits;
	struct waiting *q = t->first;
	struct conn *c;

	if (q == NULL || q->request != request) {
		log_event(LOG_ERROR, "admit", "msg=\"an answer to a question that was not asked\"");
		return;
	}
	t->first = q->next;
	if (t->first == NULL)
		t->end = &t->first;
	c = asker(w, q);
	if (c != NULL) {
		struct session *s = session_of(w, c);

		s->counts_user |= may_come && q->what == UP_LIMIT_USER;
		s->counts_address |= may_come && q->what == UP_LIMIT_ADDRESS;
		admission_admitted(w, c, (enum up_limit)q->what, may_come);
	} else if (may_come) {
		give_back(w, (enum up_limit)q->what, (struct slice){q->key, q->key_len});
	}
	free(q);
}

void limits_release(struct worker *w, struct session *s)
{
	uint8_t key[16];

	if (s->counts_user)
		give_back(w, UP_LIMIT_USER, session_user(w, s));
	if (s->counts_address) {
		const struct address a = session_address(s);

		address_key(&a, key);
		give_back(w, UP_LIMIT_ADDRESS, (struct slice){(const char *)key, sizeof(key)});
	}
	s->counts_user = s->counts_address = false;
}

/* ---- log lines */

void limits_said(struct worker *w, uint16_t kind, struct slice key, uint32_t *n)
{
	uint64_t hash = hash_of(w, kind, key);
	struct line *line = &w->limits->lines[hash % LINES];

	*n = 0;
	if (line->hash != hash)
		*line = (struct line){.hash = hash};
	line->n++;
	if (line->due_ms > w->now_ms)
		return;
	*n = line->n;
	line->n = 0;
	line->due_ms = w->now_ms + LIMITS_LOG_EVERY_MS;
}
