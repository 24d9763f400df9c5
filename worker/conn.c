#include "worker/conn.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/admission.h"
#include "worker/auth.h"
#include "worker/input.h"
#include "worker/output.h"
#include "worker/rate.h"
#include "worker/rules.h"
#include "worker/stats.h"
#include "worker/worker.h"

#define POLL_EVENTS       256 /* taken from the clients' set at a time */
#define TAG_GEN_BITS      11u
#define REFUSED_LINGER_MS 1000 /* see conn_linger() */

#define ARM_IN  1u
#define ARM_OUT 2u

static struct wheel_link *timer_link(void *arg, uint32_t index)
{
	return &conn_at(arg, index)->timer;
}

int conn_table_init(struct worker *w, uint32_t max)
{
	struct conn_table *t = &w->conns;

	*t = (struct conn_table){.free = CONN_NONE, .max = max};
	wheel_init(&w->wheel, w->now_ms, timer_link, t);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	return t->epoll == -1 ? -1 : 0;
}

void conn_table_free(struct conn_table *t)
{
	for (uint32_t i = 0; i < t->n_segments; i++)
		free(t->segment[i]);
	close(t->epoll);
}

static int add_segment(struct conn_table *t)
{
	struct conn *seg;

	if (t->n_segments == CONN_SEGMENTS_MAX) {
		errno = ENOSPC;
		return -1;
	}
	seg = aligned_alloc(sizeof(struct conn), CONN_SEGMENT * sizeof(struct conn));
	if (seg == NULL)
		return -1;
	memset(seg, 0, CONN_SEGMENT * sizeof(struct conn));
	t->segment[t->n_segments] = seg;
	for (uint32_t i = CONN_SEGMENT; i-- > 0;) {
		uint32_t index = t->n_segments * CONN_SEGMENT + i;

		seg[i].fd = -1;
		seg[i].index = index;
		seg[i].gen = 1;
		seg[i].session = SESSION_NONE;
		seg[i].member = t->free;
		wheel_link_init(&seg[i].timer, index);
		t->free = index;
	}
	t->n_segments++;
	return 0;
}

void conn_id(const struct worker *w, const struct conn *c, char dst[CONN_ID_SIZE])
{
	snprintf(dst, CONN_ID_SIZE, "%016" PRIx64 "%02x%06x%08x%05x", w->globals->origin, w->boot->slot,
		 w->boot->incarnation & 0xffffff, c->gen, c->index);
}

struct conn *conn_by_id(struct worker *w, struct slice id)
{
	char name[CONN_ID_SIZE];
	struct conn *c;
	unsigned long index;

	if (id.len >= sizeof(name) || id.len < 5)
		return NULL;
	memcpy(name, id.p, id.len);
	name[id.len] = '\0';
	index = strtoul(name + id.len - 5, NULL, 16);
	if (index >= (unsigned long)w->conns.n_segments * CONN_SEGMENT)
		return NULL;
	c = conn_at(&w->conns, (uint32_t)index);
	conn_id(w, c, name);
	return c->state != CONN_FREE && strlen(name) == id.len && memcmp(name, id.p, id.len) == 0 ? c : NULL;
}

static uint64_t epoll_key(uint32_t index, uint32_t gen)
{
	return (uint64_t)gen << 32 | index;
}

void conn_arm(struct worker *w, struct conn *c)
{
	uint8_t want = 0;
	struct epoll_event ev;
	if ((c->flags & (CONN_PAUSED | CONN_CLOSE_WAIT | CONN_HELD)) == 0)
		want |= ARM_IN;
	if (c->flags & CONN_BLOCKED)
		want |= ARM_OUT;
	if (c->state == CONN_JOINING)
		want &= (uint8_t)~ARM_OUT;
	if (want == c->armed)
		return;
	ev.events = (want & ARM_IN ? (uint32_t)EPOLLIN : 0) | (want & ARM_OUT ? (uint32_t)EPOLLOUT : 0);
	ev.data.u64 = epoll_key(c->index, c->gen);
	if (epoll_ctl(w->conns.epoll, EPOLL_CTL_MOD, c->fd, &ev) == -1)
		log_event(LOG_ERROR, "epoll", "fd=%d errno=%d msg=\"cannot change events\"", c->fd, errno);
	c->armed = want;
}

static void set_timer(struct worker *w, struct conn *c, uint64_t ms)
{
	wheel_set(&w->wheel, c->index, w->now_ms + ms);
}

struct conn *conn_open(struct worker *w, int fd)
{
	struct conn_table *t = &w->conns;
	struct epoll_event ev = {.events = EPOLLIN};
	struct conn *c;
	uint32_t index;

	if (t->free == CONN_NONE && add_segment(t) == -1) {
		close(fd);
		return NULL;
	}
	index = t->free;
	c = conn_at(t, index);
	ev.data.u64 = epoll_key(index, c->gen);
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &ev) == -1) {
		close(fd);
		return NULL;
	}
	t->free = c->member;
	c->fd = fd;
	c->ext = NULL;
	c->session = SESSION_NONE;
	c->channel = CHANNEL_NONE;
	c->member = CONN_NONE;
	c->last_in = (uint32_t)w->now_ms;
	c->ping_due = 0;
	c->ns = 0;
	c->in_flight = 0;
	c->state = CONN_HANDSHAKE;
	c->flags = 0;
	c->close_code = 0;
	c->armed = ARM_IN;
	t->n++;
	t->n_handshaking++;
	count_set(&w->count->handshaking, t->n_handshaking);
	if (w->config->limits.handshake_timeout != 0)
		set_timer(w, c, w->config->limits.handshake_timeout);
	return c;
}

struct conn_ext *conn_ext(struct conn *c)
{
	if (c->ext == NULL) {
		c->ext = calloc(1, sizeof(*c->ext));
		if (c->ext != NULL) {
			c->ext->behind_prev = c->ext->behind_next = CONN_NONE;
			c->ext->partial_prev = c->ext->partial_next = CONN_NONE;
			c->ext->starving_prev = c->ext->starving_next = CONN_NONE;
		}
	}
	return c->ext;
}

void conn_ext_trim(struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (x == NULL)
		return;
	if (x->out.len == 0)
		buf_free(&x->out);
	if (x->in.len == 0)
		buf_free(&x->in);
	if (x->ws != NULL || x->http != NULL || x->admission != NULL || x->in.len > 0 || x->out.len > 0 ||
	    x->has_pong || x->partial != NULL || (c->flags & (CONN_BLOCKED | CONN_PAUSED)) != 0) /* BEHIND is BLOCKED */
		return;
	free(x);
	c->ext = NULL;
}

static void free_ext(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (x == NULL)
		return;
	publish_forget(w, c);
	behind_leave(w, c, false);
	ws_reset(w->ws_pool, &x->ws);
	free(x->http);
	admission_free(x->admission);
	buf_free(&x->first);
	buf_free(&x->in);
	buf_free(&x->out);
	free(x);
	c->ext = NULL;
}

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

static struct counters_ns *ns_count(const struct worker *w, const struct conn *c)
{
	return &w->count->ns[ns_of(w, c)->id];
}

/* ms until something of the session's may be due; UINT64_MAX: never. */
static uint64_t session_due(const struct worker *w, const struct conn *c)
{
	return u64_min(auth_due(w, c), u64_min(rules_due(w, c), rate_due(w, c)));
}

/* OPEN: sleep until the next thing that may be due. */
static void set_open_timer(struct worker *w, struct conn *c)
{
	const struct cfg_limits *l = &w->config->limits;
	uint32_t now = (uint32_t)w->now_ms;
	uint64_t next = UINT64_MAX;

	if (l->ping_interval != 0)
		next = (int32_t)(c->ping_due - now) > 0 ? c->ping_due - now : 0;
	if (l->idle_timeout != 0) {
		uint32_t idle = now - c->last_in;

		next = u64_min(next, idle < l->idle_timeout ? l->idle_timeout - idle : 0);
	}
	if (c->session != SESSION_NONE)
		next = u64_min(next, session_due(w, c));
	if (next == UINT64_MAX)
		wheel_clear(&w->wheel, c->index);
	else
		set_timer(w, c, next);
}

void conn_retime(struct worker *w, struct conn *c)
{
	if (c->state == CONN_OPEN && (c->flags & CONN_CLOSE_WAIT) == 0)
		set_open_timer(w, c);
}

void conn_heard(struct worker *w, struct conn *c)
{
	const struct cfg_limits *l = &w->config->limits;

	c->last_in = (uint32_t)w->now_ms;
	if ((c->flags & CONN_PINGED) == 0)
		return;
	/* Answered: ping_due was the answer's deadline, the next ping is an interval behind the last one. */
	c->flags &= (uint16_t)~CONN_PINGED;
	c->ping_due += l->ping_interval - l->pong_timeout;
	conn_retime(w, c);
}

/* Who is known is of interest to an operator; anonymous ones only to who looks for an error. */
static enum log_level traffic_level(const struct user *u)
{
	return u != NULL ? LOG_INFO : LOG_DEBUG;
}

/* The namespace's connections to all workers of this host, after the change. */
static uint64_t host_total(const struct worker *w, const struct conn *c)
{
	return stats_sum(w, offsetof(struct counters, ns) + ns_of(w, c)->id * sizeof(struct counters_ns) +
				    offsetof(struct counters_ns, connections));
}

static void log_coming(const struct worker *w, const struct conn *c)
{
	const struct user *u = user_of(w, c);
	struct log_quoted channel, user;
	char id[CONN_ID_SIZE];

	if (!log_on(traffic_level(u)))
		return;
	conn_id(w, c, id);
	log_event(traffic_level(u), "open",
		  "channel=%s conn=%s user=%s total=%" PRIu64 " msg=\"WebSocket connected\"",
		  channel_log_name(w, c->channel, &channel), id,
		  u == NULL ? "" : log_quote(&user, user_text(u).p, u->id_len), host_total(w, c));
}

/* It is counted as gone, but still in its channel. */
static void log_going(const struct worker *w, const struct conn *c, uint16_t code)
{
	const struct user *u = user_of(w, c);
	struct log_quoted channel, user;
	char id[CONN_ID_SIZE];

	if (!log_on(traffic_level(u)))
		return;
	conn_id(w, c, id);
	log_event(traffic_level(u), "close",
		  "channel=%s conn=%s user=%s code=%u total=%" PRIu64 " msg=\"WebSocket disconnected\"",
		  channel_log_name(w, c->channel, &channel), id,
		  u == NULL ? "" : log_quote(&user, user_text(u).p, u->id_len), code, host_total(w, c));
}

void conn_opened(struct worker *w, struct conn *c)
{
	const struct cfg_limits *l = &w->config->limits;
	struct counters_ns *n = ns_count(w, c);

	w->conns.n_handshaking--;
	w->conns.n_open++;
	c->state = CONN_OPEN;
	c->last_in = (uint32_t)w->now_ms;
	count_set(&w->count->handshaking, w->conns.n_handshaking);
	count_set(&w->count->connections, w->conns.n_open);
	count_add(&w->count->handshakes, 1);
	count_add(&n->opened, 1);
	count_add(&n->connections, 1);
	if (l->ping_interval != 0) {
		/* Spread over the second half of the interval: clients that come together are not pinged
		 * together. */
		uint32_t jitter = (c->index * 2654435761u ^ c->gen) % (l->ping_interval / 2 + 1);

		c->ping_due = (uint32_t)w->now_ms + l->ping_interval - jitter;
	}
	if (c->session != SESSION_NONE)
		rules_opened(w, c);
	set_open_timer(w, c);
	log_coming(w, c);
}

/* OPEN is over: out of the channel, out of the counts. */
static void leave_service(struct worker *w, struct conn *c, uint16_t code, bool keep_frame)
{
	w->conns.n_open--;
	count_set(&w->count->connections, w->conns.n_open);
	count_sub(&ns_count(w, c)->connections, 1);
	count_add(&w->count->closed[count_closed_index(code)], 1);
	log_going(w, c, code);
	behind_leave(w, c, keep_frame);
	user_leave(w, c);
	auth_forget(w, c);
	channel_leave(w, c);
	publish_forget(w, c);
	publish_abandon(w, conn_tag(c));
	c->in_flight = 0;
}

/* HANDSHAKE, AUTHORIZING or JOINING is over: whatever it waited for does not find it any more. */
static void leave_handshake(struct worker *w, struct conn *c)
{
	auth_forget(w, c);
	user_leave(w, c);
	channel_leave(w, c);
	w->conns.n_handshaking--;
	count_set(&w->count->handshaking, w->conns.n_handshaking);
}

void conn_drop(struct worker *w, struct conn *c, bool rst, uint16_t code)
{
	struct conn_table *t = &w->conns;
	uint32_t index = c->index;

	if (c->state == CONN_FREE)
		return;
	if (c->state == CONN_OPEN) {
		/* Its Close came and waits for its own publications: that is how it has closed. */
		leave_service(w, c, (c->flags & CONN_CLOSE_SEEN) != 0 ? c->close_code : code, false);
	} else if (c->state == CONN_HANDSHAKE || c->state == CONN_AUTHORIZING || c->state == CONN_JOINING) {
		leave_handshake(w, c);
	}
	session_close(w, c);
	free_ext(w, c);
	wheel_clear(&w->wheel, index);
	if (rst) {
		struct linger l = {.l_onoff = 1, .l_linger = 0};

		(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	}
	/* Nobody else holds the descriptor, so close() takes it out of the epoll set, too: one syscall less.
	 */
	close(c->fd);
	c->fd = -1;
	c->gen++;
	c->state = CONN_FREE;
	c->member = t->free;
	t->free = index;
	t->n--;
	accept_update(w);
}

void conn_linger(struct worker *w, struct conn *c)
{
	leave_handshake(w, c);
	free_ext(w, c);
	c->state = CONN_CLOSING;
	c->flags = CONN_CLOSE_SENT | CONN_CLOSE_SEEN | CONN_SHUT;
	set_timer(w, c, REFUSED_LINGER_MS);
	conn_arm(w, c);
}

void conn_reject(struct worker *w, struct conn *c, struct slice answer, uint16_t code, const char *reason)
{
	struct buf in = {0};
	uint32_t gen = c->gen;

	leave_handshake(w, c);
	if (c->ext != NULL) {
		in = c->ext->in;
		c->ext->in = (struct buf){0};
		admission_free(c->ext->admission);
		c->ext->admission = NULL;
	}
	c->state = CONN_CLOSING;
	c->close_code = code;
	c->flags = CONN_CLOSE_SENT;
	set_timer(w, c, w->config->limits.close_linger != 0 ? w->config->limits.close_linger : 1);
	if (output_bytes(w, c, answer.p, answer.len))
		output_close(w, c, code, reason);
	if (c->gen == gen)
		input_early(w, c, (struct slice){in.p, in.len});
	buf_free(&in);
}

void conn_close(struct worker *w, struct conn *c, uint16_t code, const char *reason)
{
	if (c->state == CONN_HANDSHAKE || c->state == CONN_AUTHORIZING || c->state == CONN_JOINING) {
		input_refuse(w, c, 503, "full");
		return;
	}
	if (c->state != CONN_OPEN)
		return;
	leave_service(w, c, code, true);
	c->state = CONN_CLOSING;
	c->close_code = code;
	c->flags = (uint16_t)((c->flags & ~(CONN_CLOSE_WAIT | CONN_PINGED | CONN_HELD)) | CONN_CLOSE_SENT);
	input_closing(w, c);
	set_timer(w, c, w->config->limits.close_linger != 0 ? w->config->limits.close_linger : 1);
	conn_arm(w, c); /* it may have been paused; the peer's Close and its end shall be seen */
	output_close(w, c, code, reason);
}

/* A ping is due, or the answer to one overdue. False: the connection is gone or closing. */
static bool expired_ping(struct worker *w, struct conn *c)
{
	const struct cfg_limits *l = &w->config->limits;
	uint32_t now = (uint32_t)w->now_ms;

	if (c->flags & CONN_PINGED) {
		conn_close(w, c, 1011, "keepalive ping timeout");
		return false;
	}
	if (l->pong_timeout != 0)
		c->flags |= CONN_PINGED;
	c->ping_due = now + (l->pong_timeout != 0 ? l->pong_timeout : l->ping_interval);
	return output_bytes(w, c, "\x89\x00", 2);
}

/* What of the session's is due? False: the connection is gone, or its timer is set for something else. */
static bool expired_session(struct worker *w, struct conn *c)
{
	return auth_expired(w, c) && rules_expired(w, c) && rate_expired(w, c);
}

/* OPEN: what is due? */
static void expired_open(struct worker *w, struct conn *c)
{
	const struct cfg_limits *l = &w->config->limits;
	uint32_t now = (uint32_t)w->now_ms;

	if (c->flags & CONN_CLOSE_WAIT) {
		conn_close(w, c, c->close_code, NULL);
		return;
	}
	if (c->flags & (CONN_PAUSED | CONN_HELD)) {
		/* We do not read it: that nothing is heard of it is our doing. */
		c->last_in = now;
		c->flags &= (uint16_t)~CONN_PINGED;
		c->ping_due = now + l->ping_interval;
	}
	if (l->idle_timeout != 0 && now - c->last_in >= l->idle_timeout) {
		conn_close(w, c, 1008, "idle timeout");
		return;
	}
	if (l->ping_interval != 0 && (int32_t)(now - c->ping_due) >= 0 && !expired_ping(w, c))
		return;
	if (c->session != SESSION_NONE && !expired_session(w, c))
		return;
	set_open_timer(w, c);
}

void conn_expired(struct worker *w, struct conn *c)
{
	switch ((enum conn_state)c->state) {
	case CONN_HANDSHAKE:
	case CONN_AUTHORIZING:
	case CONN_JOINING:
		admission_expired(w, c);
		break;
	case CONN_OPEN:
		expired_open(w, c);
		break;
	case CONN_CLOSING:
		conn_drop(w, c, (c->flags & CONN_SHUT) == 0, 1006);
		break;
	case CONN_FREE:
		break;
	}
}

static void handle_event(struct worker *w, const struct epoll_event *ev)
{
	uint32_t index = (uint32_t)ev->data.u64;
	struct conn *c = conn_at(&w->conns, index);

	/* The descriptor may have been closed, and its index re-used, by an earlier event of the same batch.
	 */
	if (c->gen != (uint32_t)(ev->data.u64 >> 32) || c->state == CONN_FREE)
		return;
	if (ev->events & EPOLLOUT) {
		output_ready(w, c);
		if (c->gen != (uint32_t)(ev->data.u64 >> 32))
			return;
	}
	if (ev->events & EPOLLIN)
		input_ready(w, c);
	else if (ev->events & (EPOLLERR | EPOLLHUP))
		conn_drop(w, c, false, 1006);
}

int conn_poll(struct worker *w)
{
	struct epoll_event ev[POLL_EVENTS];
	int n = epoll_wait(w->conns.epoll, ev, POLL_EVENTS, 0);

	for (int i = 0; i < n; i++) {
		handle_event(w, &ev[i]);
		if (i % 64 == 63)
			slot_beat(&w->slot);
	}
	return n;
}

uint32_t conn_tag(const struct conn *c)
{
	uint32_t gen = c->gen % ((1u << TAG_GEN_BITS) - 1) + 1; /* never 0, hence the tag neither */

	return gen << 20 | c->index;
}

struct conn *conn_by_tag(struct worker *w, uint32_t tag)
{
	uint32_t index = tag & ((1u << 20) - 1);
	struct conn *c;

	if (index >= w->conns.n_segments * CONN_SEGMENT)
		return NULL;
	c = conn_at(&w->conns, index);
	if (c->state == CONN_FREE || conn_tag(c) != tag)
		return NULL;
	return c;
}
