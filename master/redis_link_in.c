/* redis_link_in.c - a link to Redis: what comes in, and the PING that proves that something would. */
#include "master/redis_link_int.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"

#define READS_PER_TURN 16 /* then other watchers have their turn */
#define NS_PER_MS      1000000u

/* ---- liveness ---- */

static uint64_t ms_ns(uint32_t ms)
{
	return (uint64_t)ms * NS_PER_MS;
}

static uint64_t ping_deadline(const struct redis_link *l)
{
	return u64_max(l->ping_ns, l->progress_ns) + ms_ns(l->cfg->timeout);
}

static void arm(struct redis_link *l)
{
	uint64_t now = clock_mono_ns(), at = l->pinging ? ping_deadline(l) : l->next_ping_ns;

	if (l->paused)
		ev_timer_stop(l->loop, &l->timer);
	else
		redis_link_timer(l, at <= now ? 0. : (double)(at - now) / 1e9);
}

/* Asked again and again of links that commands travel on, if it could be seen at first: a subscriber has no
 * INFO, and finds out when it is told that the publisher did. */
static bool asks_for_role(const struct redis_link *l)
{
	return (l->kind == REDIS_LINK_PUB || l->kind == REDIS_LINK_CMD) &&
	       l->hello.role == REDIS_ROLE_MASTER && !l->hello.is_cluster;
}

static void send_ping(struct redis_link *l)
{
	static const char both[] = REDIS_INFO_ROLE "*1\r\n$4\r\nPING\r\n";
	bool role = asks_for_role(l);
	size_t skip = role ? 0 : sizeof(REDIS_INFO_ROLE) - 1;

	if (redis_link_put(l, both + skip, sizeof(both) - 1 - skip, 0) == -1) {
		l->next_ping_ns = clock_mono_ns() + ms_ns(l->cfg->ping_interval);
		return;
	}
	l->pinging = true;
	l->has_grace = false;
	l->role_due = role;
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
		arm(l);
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
	redis_link_move(l, OPEN);
	l->opened_ns = clock_mono_ns();
	l->retry_logged_ns = 0;
	l->stats.opened++;
	l->next_ping_ns = l->opened_ns + ms_ns(l->cfg->ping_interval);
	redis_link_log(l, LOG_INFO, "redis_connected", NULL, "connected to Redis");
	if (l->paused)
		redis_reply_pause(l->in);
	arm(l);
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
	case HELLO_REPLICA:
		redis_reply_end(l->in, "replica");
		return false;
	default:
		return false;
	}
}

static bool role_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	l->role_due = false;
	if (type == REDIS_REPLY_STRING && redis_role_read(p, len) == REDIS_ROLE_REPLICA) {
		redis_reply_end(l->in, "replica");
		return false;
	}
	return type == REDIS_REPLY_STRING || type == REDIS_REPLY_ERROR; /* PING says what is the matter */
}

static bool ping_reply(struct redis_link *l, int type, const char *p, size_t len)
{
	if (l->role_due)
		return role_reply(l, type, p, len);
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
	if (type == REDIS_REPLY_INTEGER)
		memcpy(&l->integer, p, sizeof(l->integer));
	if (l->kind == REDIS_LINK_WATCH && type == REDIS_REPLY_NIL) {
		redis_reply_end(l->in, "unknown_master");
		return false;
	}
	if (l->kind == REDIS_LINK_SUB || l->kind == REDIS_LINK_WATCH || (l->pinging && l->ping_owed == 0))
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

	return (l->kind == REDIS_LINK_SUB || l->kind == REDIS_LINK_WATCH) && l->state == OPEN;
}

struct redis_reply *redis_link_reader(struct redis_link *l)
{
	struct redis_reply_events ev = {.arg = l, .array = on_array, .item = on_item, .plain = on_plain};

	if (l->kind == REDIS_LINK_CMD)
		ev = (struct redis_reply_events){.arg = l, .tree = on_tree};
	return redis_reply_new(&ev);
}

/* ---- input: reading ---- */

static void fail_by_input(struct redis_link *l)
{
	const char *why = redis_reply_why(l->in);

	if (strcmp(why, "protocol") == 0 || strcmp(why, "oversized") == 0)
		l->stats.bad_form++;
	redis_link_fail(l, why);
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
		redis_link_fail(l, n == 0 ? "eof" : redis_dial_word(&l->dial, errno));
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

void redis_link_read(struct redis_link *l)
{
	int i = 0;

	if (l->fd == -1)
		return;
	while (i < READS_PER_TURN && read_once(l))
		i++;
	if (l->fd == -1)
		return;
	redis_link_watch(l);
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
	arm(l);
	redis_link_watch(l);
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
	arm(l);
	redis_link_watch(l);
	if (l->dial.tls != NULL)
		ev_feed_event(l->loop, &l->io, EV_READ);
}

/* The timer came much too late: this process stood still, and perhaps the other end with it (one machine, or one
 * virtual host). Once for each PING, half of the time again before anybody is blamed. */
static bool give_grace(struct redis_link *l, uint64_t now)
{
	uint64_t half = ms_ns(l->cfg->timeout) / 2;

	if (l->has_grace || now - ping_deadline(l) < half / 2)
		return false;
	l->has_grace = true;
	l->progress_ns = now - half;
	return true;
}

void redis_link_check(struct redis_link *l)
{
	uint64_t now;

	if (l->pinging)
		redis_link_read(l); /* may answer the PING, or end the link */
	if (l->state != OPEN || l->paused)
		return;
	now = clock_mono_ns();
	if (l->pinging && now >= ping_deadline(l) && !give_grace(l, now)) {
		redis_link_fail(l, "timeout");
		return;
	}
	if (!l->pinging && now >= l->next_ping_ns)
		send_ping(l);
	if (l->state == OPEN)
		arm(l);
}
