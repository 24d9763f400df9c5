#include "master/redis_link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/redis_dial.h"
#include "master/redis_hello.h"

#define READS_PER_TURN 16 /* then other watchers have their turn */
#define WRITE_PER_TURN (1024u * 1024u)
#define OUT_LOW        (64u * 1024u)  /* drained() is called below it */
#define OUT_KEEP       (256u * 1024u) /* an empty output buffer larger than this is given back */
#define MAX_BULK       (16u << 20)
#define FIRST_RETRY_MS 100u       /* the first attempt after a loss is not later than this */
#define QUICK_LOSS_NS  100000000u /* a link lost sooner than this after opening does not reset the backoff */
#define RETRY_LOG_NS   10000000000u /* redis_retry at most this often */
#define NS_PER_MS      1000000u

enum state { WAIT, DIAL, HELLO, OPEN };

struct redis_link {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	struct redis_link_events ev;
	enum redis_link_kind kind;
	enum state state;
	struct redis_dial dial;
	ev_io io;
	ev_timer timer; /* what for: see the picture in the header */
	int fd;         /* -1: none */
	int watched;    /* mask that io runs with; 0 = stopped */

	struct redis_reply *in;
	size_t max_bulk;
	bool paused;
	struct redis_word word; /* of the last error reply */

	struct buf out;
	size_t out_off; /* bytes of out already written */
	bool out_dead;  /* a write failed: the reading side will tell how the link ended */

	struct redis_hello hello;

	uint64_t owed;      /* answers that own commands still get (publisher) */
	uint64_t ping_owed; /* of these, how many come before the PING's */
	bool pinging;
	uint64_t put_bytes, sent_bytes; /* totals of this connection */
	uint64_t ping_end;              /* value of sent_bytes when the PING has left */
	uint64_t ping_ns;               /* when it was queued, or left: from then the deadline counts */
	uint64_t progress_ns;           /* last byte in, or out while the PING has not left */
	uint64_t next_ping_ns, read_ns, opened_ns;

	unsigned attempts; /* since the link was last good */
	uint64_t retry_logged_ns;
	uint64_t jitter;
	struct redis_link_stats stats;
};

static const char *kind_name(const struct redis_link *l)
{
	static const char *const names[] = {
		[REDIS_LINK_SUB] = "sub", [REDIS_LINK_PUB] = "pub", [REDIS_LINK_CMD] = "cmd"};

	return names[l->kind];
}

static void log_link(struct redis_link *l, enum log_level level, const char *event, const char *reason,
		     const char *msg)
{
	struct log_quoted qa, qr;
	char addr[192];

	redis_dial_address(l->cfg, addr, sizeof(addr));
	log_event(level, event, "link=%s address=%s%s%s msg=\"%s\"", kind_name(l),
		  log_quote(&qa, addr, strlen(addr)), reason == NULL ? "" : " reason=",
		  reason == NULL ? "" : log_quote(&qr, reason, strlen(reason)), msg);
}

/* ---- state, timer, descriptor ---- */

static void link_move(struct redis_link *l, enum state to)
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

static void set_timer(struct redis_link *l, double seconds)
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

static void watch_as_needed(struct redis_link *l)
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
	log_link(l, LOG_WARN, "redis_retry", reason, "could not connect to Redis, trying on");
}

/* End of an attempt or of an open link. */
static void fail(struct redis_link *l, const char *reason)
{
	bool was_open = l->state == OPEN;

	assert(l->in == NULL || !redis_reply_is_parsing(l->in));
	redis_dial_stop(&l->dial);
	close_socket(l);
	redis_reply_free(l->in);
	l->in = NULL;
	if (l->state == HELLO)
		redis_hello_wipe(&l->out);
	buf_free(&l->out);
	l->out_off = 0;
	link_move(l, WAIT);
	if (was_open && clock_mono_ns() - l->opened_ns >= QUICK_LOSS_NS)
		l->attempts = 0;
	l->attempts++;
	set_timer(l, (double)backoff_us(l) / 1e6);
	if (!was_open) {
		l->stats.failed++;
		log_failed_attempt(l, reason);
		return;
	}
	log_link(l, LOG_WARN, "redis_lost", reason, "lost Redis, reconnecting");
	l->ev.lost(l->ev.arg, reason);
}

void redis_link_drop(struct redis_link *l, const char *reason)
{
	if (l->state != OPEN)
		return;
	if (redis_reply_is_parsing(l->in))
		redis_reply_end(l->in, reason);
	else
		fail(l, reason);
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
	watch_as_needed(l);
}

/* ---- liveness ---- */

static uint64_t ms_ns(uint32_t ms)
{
	return (uint64_t)ms * NS_PER_MS;
}

static uint64_t ping_deadline(const struct redis_link *l)
{
	return u64_max(l->ping_ns, l->progress_ns) + ms_ns(l->cfg->timeout);
}

static void arm_liveness(struct redis_link *l)
{
	uint64_t now = clock_mono_ns(), at = l->pinging ? ping_deadline(l) : l->next_ping_ns;

	if (l->paused)
		ev_timer_stop(l->loop, &l->timer);
	else
		set_timer(l, at <= now ? 0. : (double)(at - now) / 1e9);
}

static void send_ping(struct redis_link *l)
{
	static const char ping[] = "*1\r\n$4\r\nPING\r\n";

	if (redis_link_put(l, ping, sizeof(ping) - 1, 0) == -1) {
		l->next_ping_ns = clock_mono_ns() + ms_ns(l->cfg->ping_interval);
		return;
	}
	l->pinging = true;
	l->ping_owed = l->owed;
	l->ping_end = l->put_bytes;
	l->ping_ns = clock_mono_ns();
	l->next_ping_ns = l->ping_ns + ms_ns(l->cfg->ping_interval);
	if (l->ev.ping != NULL)
		l->ev.ping(l->ev.arg);
	redis_link_flush(l);
}

void redis_link_pong(struct redis_link *l)
{
	if (!l->pinging)
		return;
	l->pinging = false;
	l->stats.rtt_us = l->read_ns > l->ping_ns ? (l->read_ns - l->ping_ns) / 1000u : 0;
	if (l->ev.pong != NULL)
		l->ev.pong(l->ev.arg);
	if (l->state == OPEN)
		arm_liveness(l);
}

/* ---- input: what the reader finds ---- */

/* The error ends the link, by its own word. */
static bool end_by_word(struct redis_link *l)
{
	redis_reply_end(l->in, l->word.s);
	return false;
}

static void hello_done(struct redis_link *l)
{
	redis_hello_wipe(&l->out); /* empty by now: all of it was answered */
	link_move(l, OPEN);
	l->opened_ns = clock_mono_ns();
	l->retry_logged_ns = 0;
	l->stats.opened++;
	l->next_ping_ns = l->opened_ns + ms_ns(l->cfg->ping_interval);
	log_link(l, LOG_INFO, "redis_connected", NULL, "connected to Redis");
	if (l->paused)
		redis_reply_pause(l->in);
	arm_liveness(l);
	l->ev.open(l->ev.arg);
}

static bool hello_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	switch (redis_hello_answer(&l->hello, type, p, len, &l->word)) {
	case HELLO_MORE:
		return true;
	case HELLO_DONE:
		hello_done(l);
		return true;
	case HELLO_REFUSED:
		return end_by_word(l);
	default:
		return false;
	}
}

static bool ping_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	if (type == REDIS_REPLY_ERROR)
		return end_by_word(l);
	if (type != REDIS_REPLY_STATUS || len != 4 || memcmp(p, "PONG", 4) != 0)
		return false;
	redis_link_pong(l);
	return true;
}

/* One answer to an own command has come. false: none is owed. */
static bool settle_one(struct redis_link *l)
{
	if (l->owed == 0)
		return false;
	l->owed--;
	l->ping_owed -= l->ping_owed > 0;
	return true;
}

static bool command_reply(struct redis_link *l, int type)
{
	bool is_error = type == REDIS_REPLY_ERROR;

	if (is_error && redis_word_denies_service(&l->word))
		return end_by_word(l);
	if (!(is_error || type == REDIS_REPLY_INTEGER) || !settle_one(l))
		return false;
	return l->ev.reply(l->ev.arg, type, is_error ? l->word.s : NULL);
}

/* A reply that is no array. Answers come in the order of what was asked; a subscriber asks nothing but PING.
 */
static bool on_plain(void *arg, int type, const char *p, size_t len)
{
	struct redis_link *l = arg;

	if (l->state == HELLO)
		return hello_reply(l, type, p, len);
	if (type == REDIS_REPLY_ERROR)
		redis_word_take(&l->word, p, len);
	if (l->kind == REDIS_LINK_SUB || (l->pinging && l->ping_owed == 0))
		return ping_reply(l, type, p, len);
	return command_reply(l, type);
}

/* The command link: any answer at all, but for those of HELLO and PING. */
static bool on_tree(void *arg, const redisReply *reply)
{
	struct redis_link *l = arg;

	if (l->state == HELLO)
		return hello_reply(l, reply->type, reply->str, reply->len);
	if (reply->type == REDIS_REPLY_ERROR)
		redis_word_take(&l->word, reply->str, reply->len);
	if (l->pinging && l->ping_owed == 0)
		return ping_reply(l, reply->type, reply->str, reply->len);
	if (reply->type == REDIS_REPLY_ERROR && redis_word_denies_link(&l->word))
		return end_by_word(l);
	return settle_one(l) && l->ev.tree(l->ev.arg, reply);
}

static bool on_item(void *arg, const struct redis_item *item)
{
	struct redis_link *l = arg;

	return l->ev.item(l->ev.arg, item);
}

static bool on_array(void *arg)
{
	struct redis_link *l = arg;

	return l->kind == REDIS_LINK_SUB && l->state == OPEN;
}

/* ---- input: reading ---- */

static void fail_by_input(struct redis_link *l)
{
	const char *why = redis_reply_why(l->in);

	if (strcmp(why, "protocol") == 0 || strcmp(why, "oversized") == 0)
		l->stats.bad_form++;
	fail(l, why);
}

static ssize_t receive(struct redis_link *l, char *p, size_t len)
{
	if (l->dial.tls != NULL)
		return redis_tls_read(l->dial.tls, p, len);
	return recv(l->fd, p, len, 0);
}

/* Whether more may be read now. */
static bool read_once(struct redis_link *l)
{
	char bytes[REDIS_FEED_MAX];
	ssize_t n = receive(l, bytes, sizeof(bytes));

	if (n == -1 && errno == EINTR)
		return true;
	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	if (n <= 0) {
		fail(l, n == 0 ? "eof" : redis_dial_word(&l->dial, errno));
		return false;
	}
	l->read_ns = l->progress_ns = clock_mono_ns();
	l->stats.bytes_in += (uint64_t)n;
	if (!redis_reply_feed(l->in, bytes, (size_t)n)) {
		fail_by_input(l);
		return false;
	}
	if (l->paused && l->state == OPEN)
		return false;
	return l->dial.tls != NULL || (size_t)n == sizeof(bytes);
}

static void read_some(struct redis_link *l)
{
	int i = 0;

	if (l->fd == -1)
		return;
	while (i < READS_PER_TURN && read_once(l))
		i++;
	if (l->fd == -1)
		return;
	watch_as_needed(l);
	/* Decrypted bytes do not make the socket readable: come back by ourselves. */
	if (l->dial.tls != NULL && redis_tls_has_input(l->dial.tls) && (l->watched & EV_READ))
		ev_feed_event(l->loop, &l->io, EV_READ);
}

void redis_link_pause(struct redis_link *l)
{
	if (l->paused)
		return;
	l->paused = true;
	if (l->state != OPEN)
		return;
	redis_reply_pause(l->in);
	arm_liveness(l);
	watch_as_needed(l);
}

void redis_link_resume(struct redis_link *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	if (l->state != OPEN)
		return;
	l->progress_ns = clock_mono_ns(); /* the clocks stood still */
	if (!redis_reply_resume(l->in)) {
		fail_by_input(l);
		return;
	}
	if (l->paused)
		return;
	arm_liveness(l);
	watch_as_needed(l);
	if (l->dial.tls != NULL)
		ev_feed_event(l->loop, &l->io, EV_READ);
}

/* ---- the attempt ---- */

static void say_hello(struct redis_link *l)
{
	struct redis_reply_events ev = {.arg = l, .array = on_array, .item = on_item, .plain = on_plain};

	if (l->kind == REDIS_LINK_CMD)
		ev = (struct redis_reply_events){.arg = l, .tree = on_tree};
	link_move(l, HELLO);
	l->out_dead = l->pinging = false;
	l->owed = l->ping_owed = 0;
	l->put_bytes = l->sent_bytes = l->ping_end = 0;
	l->in = redis_reply_new(&ev);
	if (l->in == NULL || redis_hello_put(&l->hello, l->cfg, &l->out) == -1) {
		fail(l, "memory");
		return;
	}
	redis_reply_set_max_bulk(l->in, l->max_bulk);
	redis_link_flush(l);
}

static void on_dialled(void *arg, int fd, const char *why)
{
	struct redis_link *l = arg;

	if (fd == -1) {
		fail(l, why);
		return;
	}
	l->fd = fd;
	say_hello(l);
}

static void attempt(struct redis_link *l)
{
	link_move(l, DIAL);
	set_timer(l, l->cfg->timeout / 1e3);
	redis_dial_start(&l->dial);
}

/* ---- watchers ---- */

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_link *l = w->data;

	(void)loop;
	if (revents & EV_WRITE)
		redis_link_flush(l);
	if ((revents & EV_READ) || l->dial.tls != NULL)
		read_some(l);
}

static void check_liveness(struct redis_link *l)
{
	uint64_t now;

	if (l->pinging)
		read_some(l); /* may answer the PING, or end the link */
	if (l->state != OPEN || l->paused)
		return;
	now = clock_mono_ns();
	if (l->pinging && now >= ping_deadline(l)) {
		fail(l, "timeout");
		return;
	}
	if (!l->pinging && now >= l->next_ping_ns)
		send_ping(l);
	if (l->state == OPEN)
		arm_liveness(l);
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
		read_some(l); /* a loop that was held up finds the answer here */
	if (l->state == OPEN)
		check_liveness(l);
	else if (l->state != WAIT)
		fail(l, "timeout");
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
	l->max_bulk = MAX_BULK;
	l->jitter = (clock_mono_ns() ^ (uintptr_t)l) | 1;
	ev_init(&l->io, on_io);
	l->io.data = l;
	ev_init(&l->timer, on_timer);
	l->timer.data = l;
	set_timer(l, 0.);
	return l;
}

void redis_link_free(struct redis_link *l)
{
	if (l == NULL)
		return;
	ev_timer_stop(l->loop, &l->timer);
	close_socket(l);
	redis_dial_free(&l->dial);
	redis_reply_free(l->in);
	buf_free(&l->out);
	free(l);
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
