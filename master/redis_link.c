#include "master/redis_link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/redis_resolve.h"
#include "master/redis_tls.h"

#define READ_BYTES     16384u /* one read; also the most that is fed before it is parsed */
#define FEED_BYTES     4096u  /* the reader moves its rest after each reply: small pieces move less */
#define READS_PER_TURN 16     /* then other watchers have their turn */
#define WRITE_PER_TURN (1024u * 1024u)
#define OUT_LOW        (64u * 1024u)  /* drained() is called below it */
#define OUT_KEEP       (256u * 1024u) /* an empty output buffer larger than this is given back */
#define LINE_MAX_BYTES 1024u          /* no line of RESP that is meant for us comes near it */
#define READER_KEEP    (128u * 1024u) /* the reader gives back an empty buffer larger than this */
#define MAX_BULK       (16u << 20)
#define FIRST_RETRY_MS 100u       /* the first attempt after a loss is not later than this */
#define QUICK_LOSS_NS  100000000u /* a link lost sooner than this after opening does not reset the backoff */
#define RETRY_LOG_NS   10000000000u /* redis_retry at most this often */
#define NS_PER_MS      1000000u

enum state { WAIT, RESOLVE, CONNECT, TLS, HELLO, OPEN };

struct redis_link {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	struct redis_link_events ev;
	enum redis_link_kind kind;
	enum state state;
	struct redis_tls *tls; /* NULL until a rediss: link first needs it */
	ev_io io;
	ev_timer timer; /* what for: see the picture in the header */
	int fd;         /* -1: none */
	int watched;    /* mask that io runs with; 0 = stopped */

	struct redis_resolve *query; /* may outlive the attempt that asked: never two at once */
	struct redis_addrs addrs;
	unsigned addr_next; /* index of the next address to try */
	unsigned addr_left; /* how many this attempt may still try */
	bool addrs_fresh;   /* an answer that came after its attempt had ended */

	redisReader *reader;
	struct buf out;
	size_t out_off; /* bytes of out already written */
	bool out_dead;  /* a write failed: the reading side will tell how the link ended */
	size_t max_bulk;
	bool paused;
	bool parsing;       /* inside the reader: it must not be freed */
	const char *doomed; /* why the link is to be dropped after parsing; NULL = it is not */
	char word[32];      /* first word of the last error reply */

	uint8_t hello[3]; /* enum hello, in order of sending */
	unsigned hello_n, hello_at;

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

enum hello { HELLO_AUTH, HELLO_SELECT, HELLO_PING };

static void attempt(struct redis_link *l);
static void try_next_address(struct redis_link *l);
static void on_connected(struct redis_link *l);
static void say_hello(struct redis_link *l);

static const char *kind_name(const struct redis_link *l)
{
	return l->kind == REDIS_LINK_SUB ? "sub" : "pub";
}

const char *redis_link_address(const struct cfg_redis *cfg, char *dst, size_t size)
{
	const char *host = cfg->host == NULL ? "" : cfg->host;

	if (cfg->is_unix)
		snprintf(dst, size, "unix:%s", cfg->path == NULL ? "" : cfg->path);
	else
		snprintf(dst, size, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, cfg->port);
	return dst;
}

static void log_link(struct redis_link *l, enum log_level level, const char *event, const char *reason,
		     const char *msg)
{
	struct log_quoted qa, qr;
	char addr[192];

	redis_link_address(l->cfg, addr, sizeof(addr));
	log_event(level, event, "link=%s address=%s%s%s msg=\"%s\"", kind_name(l),
		  log_quote(&qa, addr, strlen(addr)), reason == NULL ? "" : " reason=",
		  reason == NULL ? "" : log_quote(&qr, reason, strlen(reason)), msg);
}

/* ---- state, timer, descriptor ---- */

static void link_move(struct redis_link *l, enum state to)
{
	static const uint8_t from[] = {
		[WAIT] = 1 << WAIT | 1 << RESOLVE | 1 << CONNECT | 1 << TLS | 1 << HELLO | 1 << OPEN,
		[RESOLVE] = 1 << WAIT,
		[CONNECT] = 1 << WAIT | 1 << RESOLVE | 1 << CONNECT,
		[TLS] = 1 << CONNECT,
		[HELLO] = 1 << CONNECT | 1 << TLS,
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
	if (l->tls != NULL && redis_tls_wants_write(l->tls))
		write = true;
	watch(l, (l->paused && l->state == OPEN ? 0 : EV_READ) | (write ? EV_WRITE : 0));
}

static void close_socket(struct redis_link *l)
{
	if (l->fd == -1)
		return;
	watch(l, 0);
	redis_tls_stop(l->tls);
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

	assert(!l->parsing);
	close_socket(l);
	redisReaderFree(l->reader);
	l->reader = NULL;
	buf_free(&l->out);
	l->out_off = 0;
	l->doomed = NULL;
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
	if (l->parsing)
		l->doomed = reason;
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

static int put_command(struct redis_link *l, int argc, const char **argv)
{
	char *cmd = NULL;
	int len = redisFormatCommandArgv(&cmd, argc, argv, NULL), rc;

	if (len < 0)
		return -1;
	rc = redis_link_put(l, cmd, (size_t)len, 0);
	explicit_bzero(cmd, (size_t)len); /* it may hold a password */
	redisFreeCommand(cmd);
	return rc;
}

static ssize_t send_some(struct redis_link *l)
{
	const char *p = l->out.p + l->out_off;
	size_t len = u64_min(redis_link_queued(l), WRITE_PER_TURN);

	if (l->tls != NULL)
		return redis_tls_write(l->tls, p, len);
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
		if (l->state == OPEN && redis_link_queued(l) < OUT_LOW)
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

/* ---- input: what the reader calls ---- */

static char token; /* what every reply object is: its content was handed on when it was seen */

/* The first word of an error, which says all that may be logged. */
static void take_word(struct redis_link *l, const char *p, size_t len)
{
	size_t n = 0;

	while (n < len && n < sizeof(l->word) - 1 && p[n] > ' ' && p[n] < 0x7f)
		n++;
	memcpy(l->word, p, n);
	l->word[n] = '\0';
}

static void *refuse(struct redis_link *l, const char *reason)
{
	l->doomed = reason;
	return NULL; /* stops the reader */
}

static void *hello_failed(struct redis_link *l, const char *p, size_t len)
{
	take_word(l, p, len);
	return refuse(l, l->word);
}

static void hello_done(struct redis_link *l)
{
	link_move(l, OPEN);
	l->opened_ns = clock_mono_ns();
	l->retry_logged_ns = 0;
	l->stats.opened++;
	l->next_ping_ns = l->opened_ns + ms_ns(l->cfg->ping_interval);
	log_link(l, LOG_INFO, "redis_connected", NULL, "connected to Redis");
	arm_liveness(l);
	l->ev.open(l->ev.arg);
}

static void *hello_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	enum hello step = l->hello[l->hello_at++];

	if (type == REDIS_REPLY_ERROR) {
		/* A user that may only publish and subscribe has no SELECT, and does not need it. */
		if (step != HELLO_SELECT)
			return hello_failed(l, p, len);
		take_word(l, p, len);
		log_link(l, LOG_WARN, "redis_select", l->word,
			 "Redis refused SELECT; publishing works without");
	} else if (type != REDIS_REPLY_STATUS) {
		return refuse(l, "protocol");
	}
	if (l->hello_at == l->hello_n)
		hello_done(l);
	return &token;
}

/* Errors that say "not now" or "not you": the link is of no use until they pass. */
static bool is_no_service(const char *word)
{
	static const char *const words[] = {"LOADING",     "NOAUTH",   "READONLY",  "MASTERDOWN", "BUSY",
					    "CLUSTERDOWN", "TRYAGAIN", "WRONGPASS", "MOVED"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	return false;
}

/* A reply that is no array, on an open link. */
static void *plain_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	bool is_ping = l->kind == REDIS_LINK_SUB || (l->pinging && l->ping_owed == 0);

	if (type == REDIS_REPLY_ERROR) {
		take_word(l, p, len);
		if (is_ping || is_no_service(l->word))
			return refuse(l, l->word);
		p = l->word;
		len = strlen(l->word);
	} else if (is_ping) {
		if (type != REDIS_REPLY_STATUS || len != 4 || memcmp(p, "PONG", 4) != 0)
			return refuse(l, "protocol");
		redis_link_pong(l);
		return &token;
	}
	if (l->owed == 0 || type == REDIS_REPLY_STATUS || type == REDIS_REPLY_STRING)
		return refuse(l, "protocol");
	l->owed--;
	l->ping_owed -= l->ping_owed > 0;
	return l->ev.reply(l->ev.arg, type, p, len) ? &token : refuse(l, "protocol");
}

static void *take(const redisReadTask *t, const char *p, size_t len)
{
	struct redis_link *l = t->privdata;
	struct redis_item item;

	if (l->doomed != NULL)
		return NULL;
	if (t->parent != NULL) {
		item = (struct redis_item){p, len, t->type, t->idx, t->parent->elements};
		return likely(l->ev.item(l->ev.arg, &item)) ? &token : refuse(l, "protocol");
	}
	if (l->state == HELLO)
		return hello_reply(l, t->type, p, len);
	return plain_reply(l, t->type, p, len);
}

static void *take_string(const redisReadTask *t, char *p, size_t len)
{
	return take(t, p, len);
}

static void *take_integer(const redisReadTask *t, long long value)
{
	(void)value;
	return take(t, NULL, 0);
}

static void *take_nil(const redisReadTask *t)
{
	/* hiredis leaves the type that was announced: a nil array says ARRAY. */
	redisReadTask nil = *t;

	nil.type = REDIS_REPLY_NIL;
	return take(&nil, NULL, 0);
}

static void *take_array(const redisReadTask *t, int elements)
{
	struct redis_link *l = t->privdata;

	if (l->kind != REDIS_LINK_SUB || l->state != OPEN || t->parent != NULL || elements == 0)
		return refuse(l, "protocol");
	return &token;
}

static void drop_nothing(void *obj)
{
	(void)obj;
}

static redisReplyObjectFunctions reply_functions = {
	.createString = take_string,
	.createArray = take_array,
	.createInteger = take_integer,
	.createNil = take_nil,
	.freeObject = drop_nothing,
};

/* ---- input: feeding the reader ---- */

/* Bulks must be complete in the reader's memory, lines too: look at the head of what it still waits for. */
static bool is_bounded(const struct redis_link *l)
{
	const redisReader *r = l->reader;
	size_t have = r->len - r->pos;
	uint64_t announced = 0;

	if (r->ridx < 0 || have == 0)
		return true;
	if (r->rstack[r->ridx].type != REDIS_REPLY_STRING)
		return have <= LINE_MAX_BYTES;
	for (size_t i = 0; i < have && r->buf[r->pos + i] != '\r'; i++) {
		if (i == 20)
			return false;
		announced = announced * 10 + (uint64_t)(r->buf[r->pos + i] - '0') % 10;
		if (announced > l->max_bulk)
			return false;
	}
	return true;
}

static bool parse(struct redis_link *l)
{
	void *reply;

	l->parsing = true;
	do {
		if (redisReaderGetReply(l->reader, &reply) == REDIS_ERR && l->doomed == NULL)
			l->doomed = "protocol";
	} while (reply != NULL && !l->paused && l->doomed == NULL);
	l->parsing = false;
	if (l->doomed == NULL && !l->paused && !is_bounded(l))
		l->doomed = "oversized";
	return l->doomed == NULL;
}

static bool feed(struct redis_link *l, const char *p, size_t len)
{
	while (len > 0) {
		/* Paused half-way: the rest is kept by the reader, at most READ_BYTES of it. */
		size_t n = l->paused && l->state == OPEN ? len : u64_min(len, FEED_BYTES);

		if (redisReaderFeed(l->reader, p, n) != REDIS_OK) {
			l->doomed = "memory";
			return false;
		}
		p += n;
		len -= n;
		if ((!l->paused || l->state != OPEN) && !parse(l))
			return false;
	}
	return true;
}

static void fail_doomed(struct redis_link *l)
{
	const char *reason = l->doomed;

	if (strcmp(reason, "protocol") == 0 || strcmp(reason, "oversized") == 0)
		l->stats.bad_form++;
	fail(l, reason);
}

static ssize_t receive(struct redis_link *l, char *p, size_t len)
{
	if (l->tls != NULL)
		return redis_tls_read(l->tls, p, len);
	return recv(l->fd, p, len, 0);
}

static const char *errno_word(const struct redis_link *l, int err)
{
	if (err == EPROTO && l->tls != NULL)
		return redis_tls_reason(l->tls);
	switch (err) {
	case ECONNRESET:
		return "reset";
	case ECONNREFUSED:
		return "refused";
	case ETIMEDOUT:
		return "timeout";
	case ENOENT:
		return "no_socket";
	case EHOSTUNREACH:
	case ENETUNREACH:
		return "unreachable";
	case EACCES:
	case EPERM:
		return "permission";
	default:
		return "io";
	}
}

/* Whether more may be read now. */
static bool read_once(struct redis_link *l)
{
	char bytes[READ_BYTES];
	ssize_t n = receive(l, bytes, sizeof(bytes));

	if (n == -1 && errno == EINTR)
		return true;
	if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return false;
	if (n <= 0) {
		fail(l, n == 0 ? "eof" : errno_word(l, errno));
		return false;
	}
	l->read_ns = l->progress_ns = clock_mono_ns();
	l->stats.bytes_in += (uint64_t)n;
	if (!feed(l, bytes, (size_t)n)) {
		fail_doomed(l);
		return false;
	}
	if (l->paused && l->state == OPEN)
		return false;
	return l->tls != NULL || (size_t)n == sizeof(bytes);
}

static void read_some(struct redis_link *l)
{
	int i = 0;

	if (l->state != HELLO && l->state != OPEN)
		return;
	while (i < READS_PER_TURN && read_once(l))
		i++;
	if (l->fd == -1)
		return;
	watch_as_needed(l);
	/* Decrypted bytes do not make the socket readable: come back by ourselves. */
	if (l->tls != NULL && redis_tls_has_input(l->tls) && (l->watched & EV_READ))
		ev_feed_event(l->loop, &l->io, EV_READ);
}

void redis_link_pause(struct redis_link *l)
{
	if (l->paused)
		return;
	l->paused = true;
	if (l->state != OPEN)
		return;
	arm_liveness(l);
	watch_as_needed(l);
}

void redis_link_resume(struct redis_link *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	if (l->state != OPEN || l->parsing)
		return;
	l->progress_ns = clock_mono_ns(); /* the clocks stood still */
	if (!parse(l)) {
		fail_doomed(l);
		return;
	}
	if (l->paused)
		return;
	arm_liveness(l);
	watch_as_needed(l);
	if (l->tls != NULL)
		ev_feed_event(l->loop, &l->io, EV_READ);
}

/* ---- the attempt ---- */

static int socket_options(struct redis_link *l, int family)
{
	unsigned user_timeout = l->cfg->ping_interval + 2 * l->cfg->timeout;
	int one = 1;

	if (family == AF_UNIX)
		return 0;
	/* TCP_USER_TIMEOUT: a path that is dead in our direction only, while a busy channel keeps coming in.
	 */
	if (setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == -1 ||
	    setsockopt(l->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) == -1 ||
	    setsockopt(l->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout)) == -1)
		return -1;
	return 0;
}

/* 0 = connected or under way. */
static int connect_to(struct redis_link *l, const struct sockaddr *sa, socklen_t len)
{
	l->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd == -1)
		return -1;
	if (socket_options(l, sa->sa_family) == -1)
		return -1;
	if (connect(l->fd, sa, len) == -1 && errno != EINPROGRESS)
		return -1; /* EAGAIN of a unix socket with a full backlog is a failure too */
	link_move(l, CONNECT);
	watch(l, EV_WRITE);
	return 0;
}

static void connect_unix(struct redis_link *l)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t len = l->cfg->path == NULL ? 0 : strlen(l->cfg->path);

	if (len == 0 || len >= sizeof(un.sun_path)) {
		fail(l, "bad_path");
		return;
	}
	memcpy(un.sun_path, l->cfg->path, len + 1);
	if (connect_to(l, (struct sockaddr *)&un, sizeof(un)) == -1)
		fail(l, errno_word(l, errno));
}

/* A name with several addresses: a refused one costs nothing, a silent one the attempt; the next goes on
 * after it. */
static void try_next_address(struct redis_link *l)
{
	int err = 0;

	while (l->addr_left > 0) {
		struct redis_addr *a = &l->addrs.addr[l->addr_next++ % l->addrs.n];

		l->addr_left--;
		close_socket(l);
		if (connect_to(l, &a->sa, a->len) == 0)
			return;
		err = errno;
	}
	fail(l, errno_word(l, err));
}

static void connect_addrs(struct redis_link *l)
{
	if (l->addrs.n == 0) {
		fail(l, "no_address");
		return;
	}
	l->addr_left = l->addrs.n;
	try_next_address(l);
}

static void on_resolved(void *arg, const struct redis_addrs *addrs)
{
	struct redis_link *l = arg;

	l->query = NULL;
	l->addrs = *addrs;
	if (l->state == RESOLVE)
		connect_addrs(l);
	else
		l->addrs_fresh = true; /* for the next attempt */
}

static void resolve(struct redis_link *l)
{
	if (redis_resolve_numeric(l->cfg->host, l->cfg->port, &l->addrs) || l->addrs_fresh) {
		l->addrs_fresh = false;
		connect_addrs(l);
		return;
	}
	link_move(l, RESOLVE);
	if (l->query == NULL)
		l->query = redis_resolve_start(l->loop, l->cfg->host, l->cfg->port, on_resolved, l);
	if (l->query == NULL)
		fail(l, "resolver");
}

static void attempt(struct redis_link *l)
{
	set_timer(l, l->cfg->timeout / 1e3);
	if (l->cfg->tls && l->tls == NULL && (l->tls = redis_tls_new(l->cfg)) == NULL)
		fail(l, "tls_setup");
	else if (l->cfg->is_unix)
		connect_unix(l);
	else
		resolve(l);
}

static int queue_hello(struct redis_link *l)
{
	const struct cfg_redis *c = l->cfg;
	bool has_user = c->user != NULL && c->user[0] != '\0';
	const char *auth[3] = {"AUTH", has_user ? c->user : c->password, c->password};
	const char *ping[1] = {"PING"}, *select_db[2] = {"SELECT", NULL};
	char db[12];

	l->hello_n = l->hello_at = 0;
	if (c->password != NULL && c->password[0] != '\0') {
		l->hello[l->hello_n++] = HELLO_AUTH;
		if (put_command(l, has_user ? 3 : 2, auth) == -1)
			return -1;
	}
	if (c->db != 0) {
		snprintf(db, sizeof(db), "%u", c->db);
		select_db[1] = db;
		l->hello[l->hello_n++] = HELLO_SELECT;
		if (put_command(l, 2, select_db) == -1)
			return -1;
	}
	l->hello[l->hello_n++] = HELLO_PING;
	return put_command(l, 1, ping);
}

static void say_hello(struct redis_link *l)
{
	link_move(l, HELLO);
	l->out_dead = l->pinging = false;
	l->owed = l->ping_owed = 0;
	l->put_bytes = l->sent_bytes = l->ping_end = 0;
	l->reader = redisReaderCreateWithFunctions(&reply_functions);
	if (l->reader == NULL || queue_hello(l) == -1) {
		fail(l, "memory");
		return;
	}
	l->reader->privdata = l;
	l->reader->maxbuf = READER_KEEP;
	redis_link_flush(l);
}

static void tls_step(struct redis_link *l)
{
	int rc = redis_tls_handshake(l->tls);

	if (rc == 1)
		say_hello(l);
	else if (rc == -1 && errno == EAGAIN)
		watch(l, redis_tls_wants_write(l->tls) ? EV_WRITE : EV_READ);
	else
		fail(l, rc == 0 ? "eof" : errno_word(l, errno));
}

static void on_connected(struct redis_link *l)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		err = errno;
	if (err != 0) {
		if (l->cfg->is_unix || l->addr_left == 0)
			fail(l, errno_word(l, err));
		else
			try_next_address(l);
		return;
	}
	if (l->tls == NULL) {
		say_hello(l);
		return;
	}
	if (redis_tls_start(l->tls, l->fd, l->cfg) == -1) {
		fail(l, "memory");
		return;
	}
	link_move(l, TLS);
	tls_step(l);
}

/* ---- watchers ---- */

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_link *l = w->data;

	(void)loop;
	if (l->state == CONNECT) {
		on_connected(l);
	} else if (l->state == TLS) {
		tls_step(l);
	} else {
		if (revents & EV_WRITE)
			redis_link_flush(l);
		if ((revents & EV_READ) || l->tls != NULL)
			read_some(l);
	}
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
	redis_resolve_cancel(l->query);
	redis_tls_free(l->tls);
	redisReaderFree(l->reader);
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
}

uint64_t redis_link_read_ns(const struct redis_link *l)
{
	return l->read_ns;
}

void redis_link_get_stats(const struct redis_link *l, struct redis_link_stats *out)
{
	*out = l->stats;
}
