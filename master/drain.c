#include "master/drain.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/room.h"
#include "common/wsframe.h"
#include "master/admit.h"
#include "master/ask.h"
#include "master/delivered.h"
#include "master/presence.h"
#include "master/reached.h"
#include "master/relay.h"
#include "master/subscribe.h"
#include "master/supervise.h"
#include "master/survey.h"
#include "shm/uplink.h"

static bool is_readable(const struct child *c)
{
	return c->state != WORKER_EMPTY && c->kill != KILL_BROKEN;
}

static bool is_data_stopped(const struct master *m)
{
	return m->seq.is_full || m->is_redis_full;
}

static void broken(struct master *m, struct child *c, const char *what)
{
	log_event(LOG_ERROR, "uplink_broken",
		  "slot=%u worker_pid=%ld reason=%s msg=\"a worker broke the rules of its uplink\"", c->slot,
		  (long)c->pid, what);
	supervise_kill(m, c, KILL_BROKEN);
}

/* G1; the worker is woken if it waits for the space. */
static void release(struct child *c, struct ring *r, uint64_t pos)
{
	uint64_t one = 1;

	if (uplink_release(r, pos) && c->pid != 0 && write(c->wake_fd, &one, sizeof(one)) == -1 &&
	    errno != EAGAIN)
		log_event(LOG_ERROR, "wake", "slot=%u errno=%d msg=\"cannot wake a worker\"", c->slot, errno);
}

/* The room of a record into private memory: what is looked at twice must not change in between. */
static bool take_room(const struct up_view *v, char *dst, struct slice *room)
{
	memcpy(dst, v->room.p, v->room.len);
	*room = (struct slice){dst, v->room.len};
	return room->len == 0 || room_is_valid(*room);
}

static const struct cfg_namespace *namespace_of(const struct master *m, uint16_t id)
{
	return id < CFG_MAX_NAMESPACES ? m->seq.ns[id] : NULL;
}

/* ---- control */

static const char *handle_control(struct master *m, struct child *c, const struct up_view *v)
{
	const struct cfg_namespace *ns = namespace_of(m, v->h.ns);
	char name[CFG_ROOM_MAX];
	struct slice room;

	switch ((enum up_type)v->h.type) {
	case UP_HELLO:
		supervise_hello(m, c);
		return NULL;
	case UP_DRAINED:
		return NULL; /* its exit follows */
	case UP_ADD:
	case UP_DROP:
		/* With or without a room: after a reload the namespace may be of the other kind for old
		 * workers. */
		if (ns == NULL || !take_room(v, name, &room))
			return "channel";
		if (v->h.type == UP_ADD)
			subscribe_add(m, c, ns, room);
		else
			subscribe_drop(m, c, ns, room);
		return NULL;
	case UP_PRESENCE:
		if (ns == NULL || !take_room(v, name, &room) ||
		    !presence_told(m, c, ns, room, v->payload, v->h.total))
			return "presence";
		return NULL;
	case UP_TOLD:
		survey_told(m, c, v->h.request, v->h.opcode == 1, v->payload);
		return NULL;
	case UP_MATCHED:
		if (!reached_told(m, c, v->h.total, v->payload))
			return "matched";
		delivered_matched(m, v->h.total, v->payload);
		return NULL;
	case UP_TRACK:
		return delivered_track(m, c, v->h.ns, v->h.request, v->payload) ? NULL : "track";
	case UP_DELIVERED:
		return delivered_told(m, v->h.total, v->payload) ? NULL : "delivered";
	case UP_ADMIT:
	case UP_RELEASE:
		return admit_told(m, c, v) ? NULL : "limit";
	case UP_PUBLISH:
	case UP_CHUNK:
	case UP_REQUEST:
		break;
	}
	return "type";
}

static void take_control(struct master *m, struct child *c)
{
	struct seq_reader *reader = &m->seq.reader[c->reader];
	uint64_t start = c->control_pos;
	struct up_view v;
	enum up_peek peek;
	const char *wrong = NULL;

	while (wrong == NULL && (peek = uplink_peek(&c->seg.control, c->control_pos, &v)) != UP_NONE) {
		if (peek == UP_BROKEN) {
			wrong = "record"; /* and no end of it to go on from */
			break;
		}
		wrong = handle_control(m, c, &v);
		c->control_pos = reader->control_pos = v.end;
	}
	if (wrong != NULL)
		broken(m, c, wrong);
	else if (c->control_pos != start)
		release(c, &c->seg.control, c->control_pos);
}

void drain_control(struct master *m)
{
	for (unsigned i = 0; i < m->seq.n_live; i++) {
		const struct seq_reader *r = &m->seq.reader[m->seq.live[i]];

		if (ring_head(&r->slot->control) != r->control_pos && is_readable(&m->child[r->index]))
			take_control(m, &m->child[r->index]);
	}
}

/* ---- data */

enum take { TAKE_DONE, TAKE_WAIT, TAKE_BROKEN };

void drain_forget(struct master *m, struct child *c)
{
	m->assembly_bytes -= c->assembly.total;
	buf_free(&c->assembly.payload);
	c->assembly.total = 0;
	c->assembly.quiet_ms = 0;
}

static enum take publish(struct master *m, struct child *c, const struct relay_message *msg)
{
	drain_control(m);
	return relay_publish(m, c, msg) ? TAKE_DONE : TAKE_WAIT;
}

static enum take publish_assembled(struct master *m, struct child *c)
{
	struct assembly *a = &c->assembly;
	struct relay_message msg = {
		.ns = namespace_of(m, a->ns),
		.room = {a->room, a->room_len},
		.payload = {a->payload.p, a->payload.len},
		.is_private = true,
		.opcode = a->opcode,
		.source = a->source,
		.is_rule = (a->flags & UP_RULE) != 0,
		.wants_count = (a->flags & UP_COUNT) != 0,
		.is_tracked = (a->flags & UP_TRACKED) != 0,
		.request = a->request,
	};
	enum take t = msg.ns == NULL ? TAKE_DONE : publish(m, c, &msg);

	if (t == TAKE_DONE)
		drain_forget(m, c);
	return t;
}

static bool is_assembled(const struct assembly *a)
{
	return a->total != 0 && a->payload.len == a->total;
}

/* The first part of a message that comes in several. */
static enum take begin_assembly(struct master *m, struct child *c, const struct up_view *v,
				const struct relay_message *msg)
{
	struct assembly *a = &c->assembly;

	if (relay_refuses_size(m, c, msg, v->h.total))
		return TAKE_DONE; /* its chunks find no assembly and are read past */
	if (m->assembly_bytes != 0 && m->assembly_bytes + v->h.total > m->seq.ring.size) {
		c->is_blocked = true;
		return TAKE_WAIT;
	}
	/* All of it at once: untouched pages cost nothing, and growing by copies would. */
	if (buf_reserve(&a->payload, v->h.total) == -1 ||
	    buf_put(&a->payload, v->payload.p, v->payload.len) == -1) {
		relay_refuse(m, c, msg, REC_OVERLOADED);
		buf_free(&a->payload);
		return TAKE_DONE;
	}
	a->total = v->h.total;
	m->assembly_bytes += a->total;
	a->ns = v->h.ns;
	a->opcode = v->h.opcode;
	a->source = v->h.source;
	a->flags = v->h.flags;
	a->request = v->h.request;
	a->room_len = (uint8_t)msg->room.len;
	memcpy(a->room, msg->room.p, msg->room.len);
	return TAKE_DONE;
}

/* A rule's throttle: the same user says the same too soon. */
static bool is_too_soon(struct master *m, const struct up_view *v, uint64_t now_ms)
{
	return v->h.throttle_key != 0 &&
	       throttle_is_too_soon(&m->throttle, v->h.throttle_key, v->h.throttle_value, now_ms);
}

/* A message in one piece. */
static enum take publish_whole(struct master *m, struct child *c, const struct up_view *v,
			       const struct relay_message *msg)
{
	uint64_t now_ms = v->h.throttle_key != 0 ? clock_mono_ms() : 0;
	enum take t;

	if (is_too_soon(m, v, now_ms)) {
		seq_count_drop(&m->seq, msg->ns, COUNT_DROPPED_rate);
		return TAKE_DONE;
	}
	t = publish(m, c, msg);
	if (t == TAKE_WAIT && (v->h.flags & UP_LOW) != 0) {
		relay_refuse(m, c, msg, REC_OVERLOADED); /* which counts it as shed */
		return TAKE_DONE;
	}
	/* Only now: what has to wait is looked at again. */
	if (t == TAKE_DONE && v->h.throttle_key != 0)
		throttle_note(&m->throttle, v->h.throttle_key, v->h.throttle_value, v->h.throttle_ms, now_ms);
	return t;
}

static enum take take_publish(struct master *m, struct child *c, const struct up_view *v)
{
	char name[CFG_ROOM_MAX];
	struct relay_message msg = {
		.ns = namespace_of(m, v->h.ns),
		.payload = v->payload,
		.opcode = v->h.opcode,
		.source = v->h.source,
		.is_rule = (v->h.flags & UP_RULE) != 0,
		.wants_count = (v->h.flags & UP_COUNT) != 0,
		.is_tracked = (v->h.flags & UP_TRACKED) != 0,
		.request = v->h.request,
	};

	if (msg.ns == NULL || !take_room(v, name, &msg.room) || v->h.total < v->h.payload ||
	    v->h.payload > UPLINK_CHUNK || (v->h.opcode != WS_TEXT && v->h.opcode != WS_BINARY) ||
	    (v->h.source != CFG_SRC_CLIENT && v->h.source != CFG_SRC_API))
		return TAKE_BROKEN;
	if (c->assembly.total != 0)
		drain_forget(m, c); /* its publisher vanished */
	if (v->h.total > v->h.payload)
		return begin_assembly(m, c, v, &msg);
	return publish_whole(m, c, v, &msg);
}

static enum take take_chunk(struct master *m, struct child *c, const struct up_view *v)
{
	struct assembly *a = &c->assembly;

	if (a->total == 0)
		return TAKE_DONE; /* the rest of a message that was refused, or forgotten */
	if (v->h.payload > a->total - a->payload.len ||
	    buf_put(&a->payload, v->payload.p, v->payload.len) == -1)
		return TAKE_BROKEN; /* the memory was reserved, so it can only be the length */
	a->quiet_ms = 0;
	/* If it can't be published now it waits in one piece: is_assembled(). */
	if (is_assembled(a))
		(void)publish_assembled(m, c);
	return TAKE_DONE;
}

static enum take take_request(struct master *m, struct child *c, const struct up_view *v)
{
	static char copy[UPLINK_CHUNK];
	char name[CFG_ROOM_MAX];
	struct ask_question q = {
		.what = v->h.opcode,
		.ns = v->h.ns,
		.total = v->h.total,
		.from = {c->slot, c->incarnation, v->h.request},
	};

	if (!take_room(v, name, &q.room) || v->payload.len > sizeof(copy))
		return TAKE_BROKEN;
	memcpy(copy, v->payload.p, v->payload.len);
	q.payload = (struct slice){copy, v->payload.len};
	drain_control(m); /* who is here: as the worker knew it when it asked */
	return ask_take(m, &q) ? TAKE_DONE : TAKE_BROKEN;
}

static enum take take_record(struct master *m, struct child *c, const struct up_view *v)
{
	if (v->h.type == UP_REQUEST)
		return take_request(m, c, v);
	if (v->h.type == UP_PUBLISH)
		return take_publish(m, c, v);
	return v->h.type == UP_CHUNK ? take_chunk(m, c, v) : TAKE_BROKEN;
}

/* A turn's worth of one worker's data. Returns true if there is more that could be taken. */
static bool take_data(struct master *m, struct child *c)
{
	uint64_t start = c->data_pos, bytes = 0;
	enum take t = TAKE_DONE;
	enum up_peek peek = UP_NONE;
	struct up_view v;

	c->is_blocked = false;
	for (unsigned n = 0; n < DRAIN_TURN_RECORDS && bytes < DRAIN_TURN_BYTES; n++) {
		if (is_data_stopped(m) ||
		    (is_assembled(&c->assembly) && publish_assembled(m, c) == TAKE_WAIT)) {
			t = TAKE_WAIT;
			break;
		}
		peek = uplink_peek(&c->seg.data, c->data_pos, &v);
		if (peek != UP_RECORD)
			break;
		t = take_record(m, c, &v);
		if (t != TAKE_DONE)
			break;
		bytes += v.payload.len;
		c->data_pos = v.end;
	}
	if (peek == UP_BROKEN || t == TAKE_BROKEN) {
		broken(m, c, "record");
		return false;
	}
	if (c->data_pos != start)
		release(c, &c->seg.data, c->data_pos);
	return t == TAKE_DONE && peek == UP_RECORD;
}

static bool has_data(const struct child *c)
{
	return is_readable(c) && !c->is_blocked &&
	       (is_assembled(&c->assembly) || ring_head(&c->seg.data) != c->data_pos);
}

bool drain_turn(struct master *m)
{
	bool more = false, has_remains = false;

	drain_control(m);
	for (unsigned i = 0; i < m->n_active && !is_data_stopped(m); i++) {
		struct child *c = &m->child[m->active[(m->drain_turn + i) % m->n_active]];

		c->is_blocked = false;
		if (has_data(c))
			more = take_data(m, c) || more;
		has_remains = has_remains || c->pid == 0;
	}
	m->drain_turn++;
	for (unsigned i = m->n_active; has_remains && i-- > 0;)
		supervise_bury(m, &m->child[m->active[i]]);
	return more && !is_data_stopped(m);
}

bool drain_has_work(const struct master *m)
{
	for (unsigned i = 0; i < m->n_active; i++) {
		const struct child *c = &m->child[m->active[i]];

		if (c->pid != 0 && is_readable(c) && ring_head(&c->seg.control) != c->control_pos)
			return true;
		if (!is_data_stopped(m) && has_data(c))
			return true;
	}
	return false;
}

bool drain_remains(struct master *m, struct child *c)
{
	if (c->kill == KILL_BROKEN)
		return true;
	while (take_data(m, c)) {
	}
	/* A message without its end will never have one. */
	return c->kill == KILL_BROKEN ||
	       (!is_assembled(&c->assembly) && ring_head(&c->seg.data) == c->data_pos);
}

void drain_tick(struct master *m, uint64_t now_ms)
{
	bool somebody_waits = false;

	for (unsigned i = 0; i < m->n_active; i++)
		somebody_waits = somebody_waits || m->child[m->active[i]].is_blocked;
	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];
		struct assembly *a = &c->assembly;

		if (a->total == 0 || is_assembled(a) || ring_head(&c->seg.data) != c->data_pos) {
			a->quiet_ms = 0;
		} else if (a->quiet_ms == 0) {
			a->quiet_ms = now_ms;
		} else if (somebody_waits && now_ms - a->quiet_ms >= DRAIN_ABANDONED_MS) {
			log_event(LOG_WARN, "message_abandoned",
				  "slot=%u total=%llu msg=\"the rest of a message did not come\"", c->slot,
				  (unsigned long long)a->total);
			drain_forget(m, c);
		}
	}
}
