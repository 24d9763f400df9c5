/* redis_link.c - a link to Redis: states, attempts, output. What comes in: redis_link_in.c. */
#include "master/redis_link_int.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define WRITE_PER_TURN (1024u * 1024u)
#define OUT_LOW        (64u * 1024u)  /* drained() is called below it */
#define OUT_KEEP       (256u * 1024u) /* an empty output buffer larger than this is given back */
#define MAX_BULK       (16u << 20)
#define FIRST_RETRY_MS 100u       /* the first attempt after a loss is not later than this */
#define QUICK_LOSS_NS  100000000u /* a link lost sooner than this after opening does not reset the backoff */
#define RETRY_LOG_NS   10000000000u /* redis_retry at most this often */

static const char *kind_name(const struct redis_link *l)
{
	static const char *const names[] = {[REDIS_LINK_SUB] = "sub",
					    [REDIS_LINK_PUB] = "pub",
					    [REDIS_LINK_CMD] = "cmd",
					    [REDIS_LINK_WATCH] = "watch"};

	return names[l->kind];
}

void redis_link_log(struct redis_link *l, enum log_level level, const char *event, const char *reason,
		    const char *msg)
{
	struct log_quoted qa, qr;
	char addr[REDIS_HOST_MAX + 16];

	redis_link_address(l, addr, sizeof(addr));
	log_event(level, event, "link=%s address=%s%s%s msg=\"%s\"", kind_name(l),
		  log_quote(&qa, addr, strlen(addr)), reason == NULL ? "" : " reason=",
		  reason == NULL ? "" : log_quote(&qr, reason, strlen(reason)), msg);
}

/* ---- state, timer, descriptor ---- */

void redis_link_move(struct redis_link *l, enum state to)
{
	static const uint8_t from[] = {
		[WAIT] = 1 << WAIT | 1 << DIAL | 1 << HELLO | 1 << OPEN,
		[DIAL] = 1 << WAIT,
		[HELLO] = 1 << DIAL,
		[OPEN] = 1 << HELLO,
	};

	assert(from[to] & 1 << l->state);
	l->state = to;
}

void redis_link_timer(struct redis_link *l, double seconds)
{
	ev_timer_stop(l->loop, &l->timer);
	ev_now_update(l->loop); /* the loop's idea of now may be old by what this turn did */
	ev_timer_set(&l->timer, seconds > 0 ? seconds : 0., 0.);
	ev_timer_start(l->loop, &l->timer);
}

static void watch(struct redis_link *l, int mask)
{
	if (mask == l->watched)
		return;
	ev_io_stop(l->loop, &l->io);
	l->watched = mask;
	if (mask == 0)
		return;
	ev_io_set(&l->io, l->fd, mask);
	ev_io_start(l->loop, &l->io);
}

void redis_link_watch(struct redis_link *l)
{
	bool write = redis_link_queued(l) > 0 && !l->out_dead;

	if (l->fd == -1)
		return;
	if (l->dial.tls != NULL && redis_tls_wants_write(l->dial.tls))
		write = true;
	watch(l, (l->paused && l->state == OPEN ? 0 : EV_READ) | (write ? EV_WRITE : 0));
}

static void close_socket(struct redis_link *l)
{
	if (l->fd == -1)
		return;
	watch(l, 0);
	redis_tls_stop(l->dial.tls);
	close(l->fd);
	l->fd = -1;
}

static uint64_t random_below(struct redis_link *l, uint64_t n)
{
	l->jitter ^= l->jitter << 13;
	l->jitter ^= l->jitter >> 7;
	l->jitter ^= l->jitter << 17;
	return n == 0 ? 0 : l->jitter % n;
}

/* Doubling from backoff_min to backoff_max, each somewhere in the upper half, so that replicas which lost the
 * same Redis do not come back in step. */
static uint64_t backoff_us(struct redis_link *l)
{
	uint64_t ms = l->cfg->backoff_min;

	for (unsigned i = 1; i < l->attempts && ms < l->cfg->backoff_max; i++)
		ms = ms == 0 ? 1 : ms * 2;
	ms = u64_min(ms, l->cfg->backoff_max);
	if (l->attempts <= 1)
		ms = u64_min(ms, FIRST_RETRY_MS);
	return ms * 500 + random_below(l, ms * 500);
}

static void log_failed_attempt(struct redis_link *l, const char *reason)
{
	uint64_t now = clock_mono_ns();

	if (l->retry_logged_ns != 0 && now - l->retry_logged_ns < RETRY_LOG_NS)
		return;
	l->retry_logged_ns = now;
	redis_link_log(l, LOG_WARN, "redis_retry", reason, "could not connect to Redis, trying on");
}

void redis_link_fail(struct redis_link *l, const char *reason)
{
	bool was_open = l->state == OPEN;

	assert(l->in == NULL || !redis_reply_is_parsing(l->in));
	redis_route_stop(&l->route);
	redis_dial_stop(&l->dial);
	close_socket(l);
	redis_reply_free(l->in);
	l->in = NULL;
	if (l->state == HELLO)
		redis_hello_wipe(&l->out);
	buf_free(&l->out);
	l->out_off = 0;
	redis_link_move(l, WAIT);
	if (was_open && clock_mono_ns() - l->opened_ns >= QUICK_LOSS_NS)
		l->attempts = 0;
	l->attempts++;
	redis_link_timer(l, (double)backoff_us(l) / 1e6);
	if (!was_open) {
		l->stats.failed++;
		log_failed_attempt(l, reason);
		return;
	}
	redis_link_log(l, LOG_WARN, "redis_lost", reason, "lost Redis, reconnecting");
	l->ev.lost(l->ev.arg, reason);
}

void redis_link_drop(struct redis_link *l, const char *reason)
{
	if (l->state != OPEN)
		return;
	if (redis_reply_is_parsing(l->in))
		redis_reply_end(l->in, reason);
	else
		redis_link_fail(l, reason);
}

/* ---- output ---- */

size_t redis_link_queued(const struct redis_link *l)
{
	return l->out.len - l->out_off;
}

int redis_link_put(struct redis_link *l, const void *p, size_t len, unsigned commands)
{
	if (l->out_dead)
		return 0; /* the link is about to be lost, and all that was queued with it */
	if (l->out_off > 0 && l->out.cap - l->out.len < len) {
		buf_shift(&l->out, l->out_off);
		l->out_off = 0;
	}
	if (buf_put(&l->out, p, len) == -1)
		return -1;
	l->put_bytes += len;
	l->owed += commands;
	return 0;
}

static ssize_t send_some(struct redis_link *l)
{
	const char *p = l->out.p + l->out_off;
	size_t len = u64_min(redis_link_queued(l), WRITE_PER_TURN);

	if (l->dial.tls != NULL)
		return redis_tls_write(l->dial.tls, p, len);
	return send(l->fd, p, len, MSG_NOSIGNAL);
}

static void note_sent(struct redis_link *l, size_t n)
{
	uint64_t before = l->sent_bytes;

	l->out_off += n;
	l->sent_bytes += n;
	if (l->pinging && before < l->ping_end) {
		/* The PING is, or was until now, behind bytes of ours: the deadline counts from its leaving.
		 */
		l->progress_ns = clock_mono_ns();
		if (l->sent_bytes >= l->ping_end)
			l->ping_ns = l->progress_ns;
	}
	if (l->out_off < l->out.len)
		return;
	l->out_off = l->out.len = 0;
	if (l->out.cap > OUT_KEEP)
		buf_free(&l->out);
}

/* Whether the socket may take more. */
static bool write_once(struct redis_link *l)
{
	ssize_t n = send_some(l);

	if (n > 0) {
		note_sent(l, (size_t)n);
		return true;
	}
	if (n == -1 && errno == EINTR)
		return true;
	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	/* Broken. What Redis said before is still to be read, and reading ends in the same error. */
	l->out_dead = true;
	l->out_off = l->out.len = 0;
	return false;
}

void redis_link_flush(struct redis_link *l)
{
	size_t start = l->sent_bytes;

	if (l->state != OPEN && l->state != HELLO)
		return;
	while (redis_link_queued(l) > 0 && !l->out_dead && l->sent_bytes - start < WRITE_PER_TURN) {
		if (!write_once(l))
			break;
		if (l->state == OPEN && redis_link_queued(l) < OUT_LOW && l->ev.drained != NULL)
			l->ev.drained(l->ev.arg);
	}
	redis_link_watch(l);
}

/* ---- the attempt ---- */

static void say_hello(struct redis_link *l)
{
	redis_link_move(l, HELLO);
	l->out_dead = l->pinging = l->role_due = false;
	l->owed = l->ping_owed = 0;
	l->put_bytes = l->sent_bytes = l->ping_end = 0;
	l->in = redis_link_reader(l);
	if (l->in == NULL || redis_hello_put(&l->hello, l->cfg, l->kind == REDIS_LINK_WATCH, &l->out) == -1) {
		redis_link_fail(l, "memory");
		return;
	}
	redis_reply_set_max_bulk(l->in, l->max_bulk);
	redis_link_flush(l);
}

static void on_dialled(void *arg, int fd, const char *why)
{
	struct redis_link *l = arg;

	if (fd == -1) {
		redis_link_fail(l, why);
		return;
	}
	l->fd = fd;
	say_hello(l);
}

static void on_route(void *arg, bool found, const char *why)
{
	struct redis_link *l = arg;

	if (!found) {
		redis_link_fail(l, why);
		return;
	}
	redis_dial_to(&l->dial, l->route.host, l->route.port);
	redis_dial_start(&l->dial);
}

static void attempt(struct redis_link *l)
{
	redis_link_move(l, DIAL);
	redis_link_timer(l, l->cfg->timeout / 1e3);
	if (l->cfg->n_sentinels == 0) {
		redis_dial_start(&l->dial);
	} else if (l->kind == REDIS_LINK_WATCH) {
		unsigned i = l->next_sentinel++ % l->cfg->n_sentinels;

		redis_dial_to(&l->dial, l->cfg->sentinels[i].host, l->cfg->sentinels[i].port);
		redis_dial_start(&l->dial);
	} else {
		redis_route_start(&l->route);
	}
}

void redis_link_follow(struct redis_link *l, const char *host, uint16_t port)
{
	if (l->cfg->n_sentinels == 0 || l->kind == REDIS_LINK_WATCH)
		return;
	if (l->state != WAIT && l->dial.port == port && strcmp(l->dial.host, host) == 0)
		return;
	redis_route_tell(&l->route, host, port);
	if (l->state == OPEN)
		redis_link_drop(l, "switched");
	else if (l->state != WAIT)
		redis_link_fail(l, "switched");
}

const char *redis_link_address(const struct redis_link *l, char *dst, size_t size)
{
	if (l->cfg->n_sentinels > 0 && l->dial.host[0] == '\0')
		snprintf(dst, size, "sentinel:%s", l->cfg->sentinel_name);
	else
		redis_dial_address(&l->dial, dst, size);
	return dst;
}

/* ---- watchers ---- */

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_link *l = w->data;

	(void)loop;
	if (revents & EV_WRITE)
		redis_link_flush(l);
	if ((revents & EV_READ) || l->dial.tls != NULL)
		redis_link_read(l);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct redis_link *l = w->data;

	(void)loop;
	(void)revents;
	if (l->state == WAIT) {
		attempt(l);
		return;
	}
	if (l->state == HELLO)
		redis_link_read(l); /* a loop that was held up finds the answer here */
	if (l->state == OPEN)
		redis_link_check(l);
	else if (l->state != WAIT)
		redis_link_fail(l, "timeout");
}

/* ---- life ---- */

struct redis_link *redis_link_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				  enum redis_link_kind kind, const struct redis_link_events *ev)
{
	struct redis_link *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->loop = loop;
	l->cfg = cfg;
	l->kind = kind;
	l->ev = *ev;
	l->fd = -1;
	redis_dial_init(&l->dial, loop, cfg, on_dialled, l);
	if (cfg->n_sentinels > 0)
		redis_dial_to(&l->dial, "", 0);
	redis_route_init(&l->route, loop, cfg, on_route, l);
	l->max_bulk = MAX_BULK;
	l->jitter = (clock_mono_ns() ^ (uintptr_t)l) | 1;
	ev_init(&l->io, on_io);
	l->io.data = l;
	ev_init(&l->timer, on_timer);
	l->timer.data = l;
	redis_link_timer(l, 0.);
	return l;
}

void redis_link_free(struct redis_link *l)
{
	if (l == NULL)
		return;
	ev_timer_stop(l->loop, &l->timer);
	close_socket(l);
	redis_route_free(&l->route);
	redis_dial_free(&l->dial);
	redis_reply_free(l->in);
	buf_free(&l->out);
	free(l);
}

long long redis_link_integer(const struct redis_link *l)
{
	return l->integer;
}

bool redis_link_is_open(const struct redis_link *l)
{
	return l->state == OPEN;
}

void redis_link_set_max_bulk(struct redis_link *l, size_t bytes)
{
	l->max_bulk = bytes;
	if (l->in != NULL)
		redis_reply_set_max_bulk(l->in, bytes);
}

uint64_t redis_link_read_ns(const struct redis_link *l)
{
	return l->read_ns;
}

void redis_link_get_stats(const struct redis_link *l, struct redis_link_stats *out)
{
	*out = l->stats;
}
