#include "master/reached.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "master/kmv.h"
#include "master/nodes.h"
#include "master/redis_cmd.h"
#include "master/relay.h"
#include "shm/uplink.h"

#define CHANNEL_PREFIX CFG_OWN_PREFIX "r:"
#define CHANNEL_MAX    (sizeof(CHANNEL_PREFIX) + 16)

_Static_assert(KMV_MAX == UP_MATCHED_MAX, "both keep as many");

struct count {
	struct master *m;
	ev_timer deadline;
	uint32_t number;
	bool is_begun;

	/* Whose: of a worker here (origin 0), or another replica's. */
	uint16_t slot;
	uint32_t incarnation, request;
	uint64_t origin;
	uint64_t id; /* of the publication; 0: not known to Redis */

	enum rec_answer what;
	uint64_t seq, epoch;

	bool is_asked[SLOT_MAX]; /* by slot: has not told yet */
	uint32_t asked_incarnation[SLOT_MAX];
	unsigned n_workers;         /* of them */
	uint64_t *other;            /* replicas that have not told yet; NULL: none was asked */
	unsigned n_asked, n_others; /* how many there were; of them are left */
	unsigned n_wanted;          /* how many of these are still waited for */
	bool is_family;

	uint64_t sockets;
	struct kmv users;
	bool is_partial;
};

struct reached {
	struct master *m;
	uint32_t generation;
	unsigned next; /* where the search for a free place begins */
	struct count *v[REACHED_MAX];
	char channel[CHANNEL_MAX];
	bool is_cluster; /* or not known: what PUBLISH answers is no number of all receivers */
};

/* ---- numbers: generation and place */

static struct count *find(const struct master *m, uint32_t number)
{
	struct count *c = number == 0 ? NULL : m->reached->v[number % REACHED_MAX];

	return c != NULL && c->number == number ? c : NULL;
}

static void count_free(struct count *c)
{
	struct master *m = c->m;

	ev_timer_stop(m->loop, &c->deadline);
	m->reached->v[c->number % REACHED_MAX] = NULL;
	free(c->other);
	free(c);
}

static struct count *make(struct master *m)
{
	struct reached *t = m->reached;
	struct count *c;

	for (unsigned i = 0; i < REACHED_MAX && t->v[t->next] != NULL; i++)
		t->next = (t->next + 1) % REACHED_MAX;
	if (t->v[t->next] != NULL || (c = calloc(1, sizeof(*c))) == NULL)
		return NULL;
	/* Never 0, and not again what a worker may still be about to tell. */
	t->generation = t->generation % (UINT32_MAX / REACHED_MAX - 1) + 1;
	c->m = m;
	c->number = t->generation * REACHED_MAX + t->next;
	ev_init(&c->deadline, NULL);
	t->v[t->next] = c;
	t->next = (t->next + 1) % REACHED_MAX;
	return c;
}

uint32_t reached_new(struct master *m, uint16_t slot, uint32_t incarnation, uint32_t request)
{
	struct count *c = make(m);

	if (c == NULL)
		return 0;
	c->slot = slot;
	c->incarnation = incarnation;
	c->request = request;
	return c->number;
}

uint32_t reached_new_other(struct master *m, uint64_t origin, uint64_t id)
{
	struct count *c = make(m);

	if (c == NULL)
		return 0;
	c->origin = origin;
	c->id = id;
	return c->number;
}

void reached_drop(struct master *m, uint32_t number)
{
	struct count *c = find(m, number);

	if (c != NULL)
		count_free(c);
}

/* ---- the answer */

static void answer_worker(struct count *c)
{
	struct master *m = c->m;
	const struct child *to = &m->child[c->slot % SLOT_MAX];
	struct rec_counts counts = {
		.sockets = c->sockets, .users = kmv_count(&c->users), .is_partial = c->is_partial};
	const struct rec h = {
		.type = REC_ANSWER, .id = c->request, .seq = c->seq, .arg = {(uint64_t)c->what, c->epoch}};

	if (c->is_partial)
		count_add(&m->count->counts_partial, 1);
	if (to->pid != 0 && to->incarnation == c->incarnation)
		seq_control_payload(&m->seq, to->reader, &h, (struct slice){0},
				    (struct slice){(const char *)&counts, sizeof(counts)});
}

static int put_report(const struct count *c, struct buf *b)
{
	if (buf_printf(b,
		       "{\"node\":\"%016" PRIx64 "\",\"id\":%" PRIu64 ",\"sockets\":%" PRIu64
		       ",\"partial\":%s,\"users\":[",
		       c->m->seq.origin, c->id, c->sockets, c->is_partial ? "true" : "false") == -1)
		return -1;
	for (unsigned i = 0; i < c->users.n; i++)
		if (buf_printf(b, "%s\"%016" PRIx64 "\"", i > 0 ? "," : "", c->users.hash[i]) == -1)
			return -1;
	return buf_puts(b, "]}");
}

static void answer_replica(struct count *c)
{
	char channel[CHANNEL_MAX];
	struct buf b = {0};

	snprintf(channel, sizeof(channel), CHANNEL_PREFIX "%016" PRIx64, c->origin);
	if (c->m->cmd != NULL && put_report(c, &b) == 0)
		redis_tell(c->m->cmd, channel, (struct slice){b.p, b.len});
	buf_free(&b);
}

static void finish(struct count *c)
{
	c->is_partial = c->is_partial || c->n_workers > 0 || c->n_wanted > 0;
	if (c->origin != 0)
		answer_replica(c);
	else
		answer_worker(c);
	count_free(c);
}

static void finish_if_done(struct count *c)
{
	if (c->is_begun && c->n_workers == 0 && c->n_wanted == 0)
		finish(c);
}

static void on_deadline(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	finish(timer->data);
}

static void start_clock(struct count *c)
{
	unsigned ms = c->origin != 0 ? REACHED_OTHERS_MS : REACHED_MS;

	ev_now_update(c->m->loop);
	ev_timer_init(&c->deadline, on_deadline, ms / 1e3, 0.);
	c->deadline.data = c;
	ev_timer_start(c->m->loop, &c->deadline);
}

bool reached_begin(struct master *m, uint32_t number, const struct interest_entry *e, enum rec_answer what,
		   const struct seq_outcome *out)
{
	struct count *c = find(m, number);
	const uint8_t *list = e == NULL ? NULL : interest_readers(e);

	if (c == NULL || c->is_begun)
		return c != NULL;
	c->is_begun = true;
	c->what = what;
	c->seq = out->seq;
	c->epoch = out->epoch;
	for (unsigned i = 0; e != NULL && i < e->n_readers; i++) {
		const struct seq_reader *r = &m->seq.reader[list[i]];

		if (r->slot == NULL || c->is_asked[r->index])
			continue; /* died: the sweep will take it out of the list */
		c->is_asked[r->index] = true;
		c->asked_incarnation[r->index] = r->incarnation;
		c->n_workers++;
	}
	if (c->n_workers == 0 && c->n_wanted == 0)
		finish(c);
	else
		start_clock(c);
	return true;
}

/* ---- the workers here */

bool reached_told(struct master *m, const struct child *child, uint32_t number, struct slice payload)
{
	struct count *c = find(m, number);
	struct up_matched told;

	if (!uplink_matched(payload, &told))
		return false;
	if (c == NULL || !c->is_asked[child->slot] || c->asked_incarnation[child->slot] != child->incarnation)
		return true; /* too late, or its interest came after the record */
	c->is_asked[child->slot] = false;
	c->n_workers--;
	c->sockets += told.sockets;
	for (uint64_t i = 0; i < told.n; i++)
		kmv_add(&c->users, told.user_hash[i]);
	finish_if_done(c);
	return true;
}

void reached_worker_died(struct master *m, const struct child *child)
{
	for (unsigned i = 0; i < REACHED_MAX; i++) {
		struct count *c = m->reached->v[i];

		if (c == NULL)
			continue;
		if (c->origin == 0 && c->slot == child->slot && c->incarnation == child->incarnation) {
			count_free(c);
		} else if (c->is_asked[child->slot] &&
			   c->asked_incarnation[child->slot] == child->incarnation) {
			c->is_asked[child->slot] = false;
			c->n_workers--;
			c->is_partial = true; /* its clients may have had it */
			finish_if_done(c);
		}
	}
}

/* ---- the other replicas */

bool reached_asks_others(const struct master *m)
{
	bool is_known;
	unsigned n;

	(void)nodes_others(m, &n, &is_known);
	return n > 0 && redis_is_up(m->redis);
}

void reached_sent(struct master *m, uint32_t number, uint64_t id, bool is_family)
{
	struct count *c = find(m, number);
	bool is_known;
	unsigned n;
	const uint64_t *others = nodes_others(m, &n, &is_known);

	if (c == NULL)
		return;
	c->id = id;
	c->is_family = is_family;
	c->other = calloc(n, sizeof(*c->other));
	if (c->other == NULL) {
		c->is_partial = true;
		return;
	}
	memcpy(c->other, others, n * sizeof(*c->other));
	c->n_asked = c->n_others = c->n_wanted = n;
}

void reached_receivers(struct master *m, uint32_t number, uint64_t receivers, bool is_own)
{
	struct count *c = find(m, number);
	uint64_t told;

	if (c == NULL || c->other == NULL || c->is_family || m->reached->is_cluster)
		return;
	receivers -= is_own && receivers > 0;
	told = c->n_asked - c->n_others; /* they are among them */
	c->n_wanted = (unsigned)u64_min(c->n_wanted, receivers > told ? receivers - told : 0);
	finish_if_done(c);
}

struct report {
	uint64_t node, id, sockets;
	bool is_partial;
	struct json_member users;
};

static bool read_number(const struct json_member *m, uint64_t *out)
{
	char text[24];
	ssize_t n = json_canonical(m->value, m->type, text, sizeof(text) - 1);
	char *end;

	if (m->type != JSON_TYPE_NUMBER || n <= 0 || text[0] == '-')
		return false;
	text[n] = '\0';
	*out = strtoull(text, &end, 10);
	return *end == '\0';
}

static bool read_hex(struct slice raw, enum json_type type, uint64_t *out)
{
	char text[17], *end;

	if (type != JSON_TYPE_STRING || json_string_copy(raw, text, 16) != 16)
		return false;
	text[16] = '\0';
	*out = strtoull(text, &end, 16);
	return *end == '\0' && text[0] != '-' && text[0] != '+' && text[0] != ' ';
}

static bool read_report(struct slice text, struct report *r)
{
	struct json_member m;
	struct json_iter it;
	int rc;

	*r = (struct report){0};
	if (json_object_begin(&it, text) == -1)
		return false;
	while ((rc = json_object_next(&it, &m)) == 1) {
		if ((json_is(m.key, "node") && !read_hex(m.value, m.type, &r->node)) ||
		    (json_is(m.key, "id") && !read_number(&m, &r->id)) ||
		    (json_is(m.key, "sockets") && !read_number(&m, &r->sockets)))
			return false;
		if (json_is(m.key, "partial"))
			r->is_partial = m.type == JSON_TYPE_TRUE;
		else if (json_is(m.key, "users"))
			r->users = m;
	}
	return rc == 0 && r->users.type == JSON_TYPE_ARRAY && r->users.value.p != NULL;
}

/* Each is heard once. */
static bool is_awaited(struct count *c, uint64_t node)
{
	for (unsigned i = 0; i < c->n_others; i++) {
		if (c->other[i] != node)
			continue;
		c->other[i] = c->other[--c->n_others];
		c->n_wanted -= c->n_wanted > 0;
		return true;
	}
	return false;
}

static void add_report(struct count *c, const struct report *r)
{
	enum json_type type;
	struct json_iter it;
	struct slice value;
	uint64_t hash;

	c->sockets += r->sockets;
	c->is_partial = c->is_partial || r->is_partial;
	if (json_array_begin(&it, r->users.value) == -1)
		return;
	while (json_array_next(&it, &value, &type) == 1) {
		if (read_hex(value, type, &hash))
			kmv_add(&c->users, hash);
	}
	finish_if_done(c);
}

static void on_report(void *arg, struct slice channel, struct slice payload)
{
	struct master *m = arg;
	struct report r;

	(void)channel;
	if (!read_report(payload, &r))
		return;
	for (unsigned i = 0; i < REACHED_MAX; i++) {
		struct count *c = m->reached->v[i];

		if (c != NULL && c->origin == 0 && c->id == r.id && r.id != 0) {
			if (is_awaited(c, r.node))
				add_report(c, &r);
			return;
		}
	}
}

/* ---- start and end */

/* "redis_mode:cluster": each node counts its own subscribers. Not allowed to ask: as if it were one. */
static void on_info(void *arg, const redisReply *reply)
{
	struct reached *t = arg;

	if (reply != NULL && reply->type == REDIS_REPLY_STRING)
		t->is_cluster = memmem(reply->str, reply->len, "redis_mode:cluster", 18) != NULL;
}

static void on_open(void *arg)
{
	struct reached *t = arg;
	const struct slice argv[] = {{"INFO", 4}, {"server", 6}};

	t->is_cluster = true;
	(void)!redis_cmd_call(t->m->cmd, ARRAY_LEN(argv), argv, on_info, t); /* refused: stays unknown */
}

int reached_start(struct master *m)
{
	const struct redis_cmd_events watch = {.open = on_open};
	struct redis_cmd_events events = watch;
	struct reached *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return -1;
	m->reached = t;
	t->m = m;
	events.arg = t;
	snprintf(t->channel, sizeof(t->channel), CHANNEL_PREFIX "%016" PRIx64, m->seq.origin);
	return relay_watch(m, &events) == -1 ? -1 : relay_listen(m, t->channel, on_report, m);
}

void reached_stop(struct master *m)
{
	struct reached *t = m->reached;

	if (t == NULL)
		return;
	for (unsigned i = 0; i < REACHED_MAX; i++)
		if (t->v[i] != NULL)
			count_free(t->v[i]);
	free(t);
	m->reached = NULL;
}
