#include "master/redis_route.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "master/redis_hello.h"
#include "master/redis_resp.h"

#define ANSWER_MAX 4096u /* bytes of one answer */

static void ask_next(struct redis_route *r, const char *why);

/* It is shown in logs and in JSON. */
static bool is_host(struct slice host)
{
	if (host.len == 0 || host.len > REDIS_HOST_MAX)
		return false;
	for (size_t i = 0; i < host.len; i++) {
		char c = host.p[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      (c != '\0' && strchr(".:-_%", c) != NULL)))
			return false;
	}
	return true;
}

bool redis_route_read(struct slice host, struct slice port, char *host_out, uint16_t *port_out)
{
	uint32_t n = 0;

	if (!is_host(host) || port.len == 0 || port.len > 5)
		return false;
	for (size_t i = 0; i < port.len; i++) {
		if (port.p[i] < '0' || port.p[i] > '9')
			return false;
		n = n * 10 + (uint32_t)(port.p[i] - '0');
	}
	if (n == 0 || n > UINT16_MAX)
		return false;
	memcpy(host_out, host.p, host.len);
	host_out[host.len] = '\0';
	*port_out = (uint16_t)n;
	return true;
}

int redis_route_put_question(struct buf *out, const struct cfg_redis *cfg)
{
	static const struct slice none = {"", 0}, sentinel = {"SENTINEL", 8},
				  get = {"GET-MASTER-ADDR-BY-NAME", 23};
	struct slice name = {cfg->sentinel_name, strlen(cfg->sentinel_name)};

	if (resp_put_array(out, 3) == -1 || resp_put_bulk(out, none, sentinel) == -1 ||
	    resp_put_bulk(out, none, get) == -1 || resp_put_bulk(out, none, name) == -1)
		return -1;
	return 0;
}

static void hang_up(struct redis_route *r)
{
	redis_dial_stop(&r->dial);
	ev_timer_stop(r->loop, &r->timer);
	if (r->fd != -1) {
		ev_io_stop(r->loop, &r->io);
		close(r->fd);
		r->fd = -1;
	}
	redis_reply_free(r->in);
	r->in = NULL;
}

/* ---- the answer */

static const char *judge(struct redis_route *r, const redisReply *a)
{
	struct slice host, port;

	if (a->type == REDIS_REPLY_NIL)
		return "unknown_master";
	if (a->type == REDIS_REPLY_ERROR)
		return "sentinel_refused";
	if (a->type != REDIS_REPLY_ARRAY || a->elements != 2 || a->element[0]->type != REDIS_REPLY_STRING ||
	    a->element[1]->type != REDIS_REPLY_STRING)
		return "protocol";
	host = (struct slice){a->element[0]->str, a->element[0]->len};
	port = (struct slice){a->element[1]->str, a->element[1]->len};
	return redis_route_read(host, port, r->host, &r->port) ? "" : "protocol";
}

/* What AUTH says does not matter: a sentinel without a password refuses it, one with another says so to the
 * question. */
static bool on_tree(void *arg, const redisReply *reply)
{
	struct redis_route *r = arg;

	if (r->answers > 0)
		r->answers--;
	else if (r->verdict == NULL)
		r->verdict = judge(r, reply);
	return true;
}

/* The parser has returned: it may go. */
static void act(struct redis_route *r)
{
	const char *why = r->verdict;

	if (why == NULL)
		return;
	if (*why != '\0') {
		ask_next(r, why);
		return;
	}
	hang_up(r);
	r->done(r->arg, true, NULL);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct redis_route *r = w->data;
	char bytes[ANSWER_MAX];
	ssize_t n = recv(r->fd, bytes, sizeof(bytes), 0);

	(void)loop;
	(void)revents;
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		ask_next(r, n == 0 ? "eof" : redis_dial_word(&r->dial, errno));
	else if (!redis_reply_feed(r->in, bytes, (size_t)n))
		ask_next(r, redis_reply_why(r->in));
	else
		act(r);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)revents;
	ask_next(w->data, "timeout");
}

/* ---- the question */

static int put_all(struct redis_route *r, struct buf *out)
{
	int auth = redis_hello_put_auth(r->cfg, out);

	if (auth == -1)
		return -1;
	r->answers = (unsigned)auth;
	return redis_route_put_question(out, r->cfg);
}

/* Into a fresh socket: all of it fits, or the connection is none. */
static bool send_question(struct redis_route *r)
{
	struct buf out = {0};
	bool ok = put_all(r, &out) == 0 && send(r->fd, out.p, out.len, MSG_NOSIGNAL) == (ssize_t)out.len;

	redis_hello_wipe(&out);
	buf_free(&out);
	return ok;
}

static void on_dialled(void *arg, int fd, const char *why)
{
	const struct redis_reply_events ev = {.arg = arg, .tree = on_tree};
	struct redis_route *r = arg;

	if (fd == -1) {
		ask_next(r, why);
		return;
	}
	r->fd = fd;
	ev_io_set(&r->io, fd, EV_READ);
	ev_io_start(r->loop, &r->io);
	r->verdict = NULL;
	r->in = redis_reply_new(&ev);
	if (r->in == NULL) {
		ask_next(r, "memory");
		return;
	}
	redis_reply_set_max_bulk(r->in, ANSWER_MAX);
	if (!send_question(r))
		ask_next(r, "io");
}

/* why: what came of the one before. */
static void ask_next(struct redis_route *r, const char *why)
{
	unsigned i = r->next;

	hang_up(r);
	if (r->left == 0) {
		r->done(r->arg, false, why);
		return;
	}
	r->left--;
	r->next = (i + 1) % r->cfg->n_sentinels;
	ev_now_update(r->loop);
	ev_timer_set(&r->timer, r->cfg->timeout / 1e3 / (r->cfg->n_sentinels + 1), 0.);
	ev_timer_start(r->loop, &r->timer);
	redis_dial_to(&r->dial, r->cfg->sentinels[i].host, r->cfg->sentinels[i].port);
	redis_dial_start(&r->dial);
}

/* ---- the interface */

void redis_route_start(struct redis_route *r)
{
	if (r->is_told) {
		r->is_told = false;
		r->done(r->arg, true, NULL);
		return;
	}
	r->left = r->cfg->n_sentinels;
	ask_next(r, "no_sentinel");
}

void redis_route_tell(struct redis_route *r, const char *host, uint16_t port)
{
	size_t len = strnlen(host, REDIS_HOST_MAX);

	memcpy(r->host, host, len);
	r->host[len] = '\0';
	r->port = port;
	r->is_told = true;
}

void redis_route_stop(struct redis_route *r)
{
	hang_up(r);
}

void redis_route_init(struct redis_route *r, struct ev_loop *loop, const struct cfg_redis *cfg,
		      void (*done)(void *arg, bool found, const char *why), void *arg)
{
	*r = (struct redis_route){.loop = loop, .cfg = cfg, .done = done, .arg = arg, .fd = -1};
	redis_dial_init(&r->dial, loop, cfg, on_dialled, r);
	ev_init(&r->io, on_io);
	r->io.data = r;
	ev_init(&r->timer, on_timer);
	r->timer.data = r;
}

void redis_route_free(struct redis_route *r)
{
	hang_up(r);
	redis_dial_free(&r->dial);
}
