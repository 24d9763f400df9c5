#include "master/survey.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "master/table.h"

struct survey_name {
	struct table_link link;
	struct survey_name *next;
	uint64_t n;
	size_t len;
	char name[];
};

struct survey {
	struct surveys *owner;
	struct ask_from from;
	ev_timer deadline;
	uint32_t number;         /* 0: free */
	bool is_asked[SLOT_MAX]; /* by slot: has not told everything yet */
	uint32_t incarnation[SLOT_MAX];
	unsigned n_left;
	bool is_too_large;
	size_t bytes; /* of the answer, about */
	char *prefix;
	size_t prefix_len;
	struct table names;
	struct survey_name *first;
};

struct surveys {
	struct master *m;
	uint32_t last;
	struct survey v[SURVEYS_MAX];
};

/* ---- the answer */

static void survey_free(struct survey *s)
{
	struct survey_name *n, *next;

	ev_timer_stop(s->owner->m->loop, &s->deadline);
	for (n = s->first; n != NULL; n = next) {
		next = n->next;
		free(n);
	}
	table_free(&s->names);
	free(s->prefix);
	s->prefix = NULL;
	s->first = NULL;
	s->number = 0;
}

static int put_result(const struct survey *s, struct buf *b)
{
	if (buf_puts(b, "{\"channels\":{") == -1)
		return -1;
	for (const struct survey_name *n = s->first; n != NULL; n = n->next) {
		if ((n != s->first && buf_puts(b, ",") == -1) ||
		    json_put_string(b, (struct slice){n->name, n->len}) == -1 ||
		    buf_printf(b, ":{\"num_clients\":%" PRIu64 "}", n->n) == -1)
			return -1;
	}
	return buf_printf(b, "},\"partial\":%s}", s->n_left > 0 ? "true" : "false");
}

static void finish(struct survey *s)
{
	struct master *m = s->owner->m;
	struct buf b = {0};

	if (s->is_too_large)
		ask_answer_bad(m, &s->from, "too_large");
	else if (put_result(s, &b) == -1)
		ask_answer(m, &s->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
	else
		ask_answer(m, &s->from, REC_REPLY_OK, (struct slice){b.p, b.len});
	buf_free(&b);
	survey_free(s);
}

static void on_deadline(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	finish(timer->data);
}

/* ---- what workers tell */

static struct survey_name *find_name(const struct survey *s, uint64_t hash, struct slice name)
{
	struct table_link *l = NULL;

	while ((l = table_next(&s->names, hash, l)) != NULL) {
		struct survey_name *n = CONTAINER_OF(l, struct survey_name, link);

		if (n->len == name.len && memcmp(n->name, name.p, name.len) == 0)
			return n;
	}
	return NULL;
}

static void add(struct survey *s, struct slice name, uint64_t count)
{
	uint64_t hash = rec_channel_hash(s->owner->m->seq.hash_key, 0, name);
	struct survey_name *n;

	if (name.len < s->prefix_len || memcmp(name.p, s->prefix, s->prefix_len) != 0)
		return;
	n = find_name(s, hash, name);
	if (n != NULL) {
		n->n += count;
		return;
	}
	s->bytes += name.len + sizeof("\"\":{\"num_clients\":1},");
	if (s->bytes > ask_reply_max(s->owner->m) || (n = malloc(sizeof(*n) + name.len)) == NULL) {
		s->is_too_large = true;
		return;
	}
	n->link.hash = hash;
	n->n = count;
	n->len = name.len;
	memcpy(n->name, name.p, name.len);
	n->next = s->first;
	s->first = n;
	table_insert(&s->names, &n->link);
}

/* {"demo:a":3,...} */
static void merge(struct survey *s, struct slice text)
{
	char name[CFG_NAME_MAX + 1 + CFG_ROOM_MAX];
	struct json_iter it;
	struct json_member m;

	if (json_object_begin(&it, text) == -1)
		return;
	while (!s->is_too_large && json_object_next(&it, &m) == 1) {
		ssize_t len = json_string_copy(m.key, name, sizeof(name));
		uint64_t count = 0;

		for (size_t i = 0; i < m.value.len && i < 12 && m.value.p[i] >= '0' && m.value.p[i] <= '9';
		     i++)
			count = count * 10 + (uint64_t)(m.value.p[i] - '0');
		if (len > 0)
			add(s, (struct slice){name, (size_t)len}, count);
	}
}

static struct survey *find(const struct master *m, uint32_t number)
{
	for (unsigned i = 0; number != 0 && i < SURVEYS_MAX; i++) {
		if (m->surveys->v[i].number == number)
			return &m->surveys->v[i];
	}
	return NULL;
}

static void has_told(struct survey *s, uint16_t slot)
{
	s->is_asked[slot] = false;
	if (--s->n_left == 0)
		finish(s);
}

static bool is_awaited(const struct survey *s, const struct child *c)
{
	return s->number != 0 && s->is_asked[c->slot] && s->incarnation[c->slot] == c->incarnation;
}

void survey_told(struct master *m, const struct child *c, uint32_t number, bool has_more,
		 struct slice payload)
{
	struct survey *s = find(m, number);
	char *copy;

	if (s == NULL || !is_awaited(s, c))
		return; /* late */
	copy = malloc(payload.len + 1);
	if (copy == NULL) {
		s->is_too_large = true;
	} else {
		memcpy(copy, payload.p, payload.len);
		merge(s, (struct slice){copy, payload.len});
		free(copy);
	}
	if (!has_more)
		has_told(s, c->slot);
}

void survey_worker_died(struct master *m, const struct child *c)
{
	for (unsigned i = 0; i < SURVEYS_MAX; i++) {
		struct survey *s = &m->surveys->v[i];

		if (is_awaited(s, c))
			has_told(s, c->slot);
	}
}

/* ---- asking */

static struct survey *take(struct surveys *all)
{
	for (unsigned i = 0; i < SURVEYS_MAX; i++) {
		struct survey *s = &all->v[i];

		if (s->number != 0)
			continue;
		*s = (struct survey){.owner = all};
		if (table_init(&s->names) == -1)
			return NULL;
		all->last = all->last == UINT32_MAX ? 1 : all->last + 1;
		s->number = all->last;
		return s;
	}
	return NULL;
}

static void tell_workers(struct survey *s)
{
	struct master *m = s->owner->m;
	const struct rec h = {.type = REC_SURVEY, .id = s->number, .arg = {SURVEY_CHANNELS}};

	for (unsigned i = 0; i < m->seq.n_live; i++) {
		const struct seq_reader *r = &m->seq.reader[m->seq.live[i]];

		if (m->child[r->index].hello_ms == 0)
			continue; /* nobody can be with it yet */
		s->is_asked[r->index] = true;
		s->incarnation[r->index] = r->incarnation;
		s->n_left++;
	}
	seq_control_all_payload(&m->seq, &h, (struct slice){0}, (struct slice){s->prefix, s->prefix_len});
}

void survey_ask(struct master *m, const struct ask_question *q)
{
	struct survey *s = take(m->surveys);

	if (s == NULL) {
		ask_answer(m, &q->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
		return;
	}
	s->from = q->from;
	ev_timer_init(&s->deadline, on_deadline, SURVEY_MS / 1e3, 0.);
	s->deadline.data = s;
	s->prefix = malloc(q->payload.len + 1); /* + 1: never NULL */
	if (s->prefix == NULL) {
		ask_answer(m, &q->from, REC_REPLY_UNAVAILABLE, (struct slice){0});
		survey_free(s);
		return;
	}
	memcpy(s->prefix, q->payload.p, q->payload.len);
	s->prefix_len = q->payload.len;
	tell_workers(s);
	if (s->n_left == 0)
		finish(s);
	else
		ev_timer_start(m->loop, &s->deadline);
}

int survey_start(struct master *m)
{
	m->surveys = calloc(1, sizeof(*m->surveys));
	if (m->surveys == NULL)
		return -1;
	m->surveys->m = m;
	return 0;
}

void survey_stop(struct master *m)
{
	for (unsigned i = 0; m->surveys != NULL && i < SURVEYS_MAX; i++) {
		if (m->surveys->v[i].number != 0)
			survey_free(&m->surveys->v[i]);
	}
	free(m->surveys);
	m->surveys = NULL;
}
