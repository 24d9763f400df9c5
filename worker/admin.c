#include "worker/admin.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "worker/handshake.h"

#define REST_MS      500 /* pause when the system has no descriptor for another connection */
#define ACCEPT_BATCH 16
#define READ_BYTES   65536
#define IDLE_TIMEOUT_S                                                                                       \
	60.0 /* a kept connection without a request, or a request that does not come to its end */
#define ANSWER_TIMEOUT_S                                                                                     \
	5.0                 /* a publication that is not acknowledged; Redis is declared dead well before    \
			     */
#define BODY_OVERHEAD 65536 /* JSON around the payload */
#define LINGER_S      2.0 /* after the last answer: for the peer's end, what it still sends is thrown away */
#define QUIET_MS      250 /* a worker that leaves waits until its admin connections have been idle so long */

/* Watch the listeners, or don't: enough connections, no descriptors, or leaving. They are shared, so other
 * workers take what waits there. */
static void update_listeners(struct worker *w)
{
	struct admin *ad = w->admin;
	bool want = !ad->is_left && ad->rest_ms == 0 && ad->n < ad->max;

	for (size_t i = 0; i < ad->n_listeners; i++) {
		if (want)
			ev_io_start(w->loop, &ad->listeners[i]);
		else
			ev_io_stop(w->loop, &ad->listeners[i]);
	}
}

static void set_deadline(struct admin_conn *a, double seconds)
{
	a->deadline.repeat = seconds;
	ev_timer_again(a->worker->loop, &a->deadline);
}

static bool is_waiting(const struct admin_conn *a)
{
	return a->request != 0 || a->ask != 0 || a->broadcast != NULL;
}

/* WAITING, for nothing any more. */
static void forget(struct admin_conn *a)
{
	api_broadcast_free(a);
	if (a->is_unsent)
		publish_abandon(a->worker, a->request);
	if (a->ask != 0)
		ask_forget(a->worker, a->ask);
	a->request = a->ask = 0;
	a->is_unsent = false;
}

static void drop(struct admin_conn *a)
{
	struct admin *ad = a->worker->admin;
	struct ev_loop *loop = a->worker->loop;

	forget(a);
	ev_io_stop(loop, &a->io);
	ev_timer_stop(loop, &a->deadline);
	if (a->prev == NULL)
		ad->first = a->next;
	else
		a->prev->next = a->next;
	if (a->next != NULL)
		a->next->prev = a->prev;
	ad->n--;
	close(a->fd);
	buf_free(&a->in);
	buf_free(&a->out);
	buf_free(&a->scratch);
	update_listeners(a->worker);
	free(a);
}

static void watch(struct admin_conn *a)
{
	int events = 0;

	/* With another request read already: a socket that can be written to comes back at once, but after
	 * the others. */
	if (a->out.len > 0 || a->has_more)
		events = EV_WRITE;
	else if (a->is_lingering || (!is_waiting(a) && !a->is_closing && !a->is_eof))
		events = EV_READ;
	if (a->io.events == events && ev_is_active(&a->io))
		return;
	ev_io_stop(a->worker->loop, &a->io);
	ev_io_set(&a->io, a->fd, events);
	if (events != 0)
		ev_io_start(a->worker->loop, &a->io);
}

void admin_reply(struct admin_conn *a, int status, const char *type, const char *extra_headers,
		 struct slice body)
{
	bool keep = !a->is_closing && !a->worker->is_draining && a->has_head &&
		    http_keep_alive(&a->http, a->in.p);
	bool is_head = a->has_head && a->http.method == HTTP_HEAD;

	if (buf_printf(
		    &a->out,
		    "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
		    "Connection: %s\r\n%s\r\n",
		    status, handshake_phrase(status), type, body.len, keep ? "keep-alive" : "close",
		    extra_headers == NULL ? "" : extra_headers) == -1 ||
	    buf_put(&a->out, body.p, is_head ? 0 : body.len) == -1)
		keep = false;
	if (!keep)
		a->is_closing = true;
}

static void put_error(struct admin_conn *a, int status, const char *code, const char *message,
		      const char *extra)
{
	struct buf b = {0};

	if (buf_puts(&b, "{\"error\":{\"code\":") == -1 ||
	    json_put_string(&b, (struct slice){code, strlen(code)}) == -1 ||
	    buf_puts(&b, ",\"message\":") == -1 ||
	    json_put_string(&b, (struct slice){message, strlen(message)}) == -1 || buf_puts(&b, "}}") == -1)
		a->is_closing = true;
	else
		admin_reply(a, status, "application/json", extra, (struct slice){b.p, b.len});
	buf_free(&b);
}

void admin_error(struct admin_conn *a, int status, const char *code, const char *message)
{
	put_error(a, status, code, message,
		  status == 503   ? "Retry-After: 1\r\n"
		  : status == 401 ? "WWW-Authenticate: Bearer\r\n"
				  : NULL);
}

/* ---------------------------------------------------------------- routes */

static void get_stats(struct admin_conn *a)
{
	struct buf b = {0};

	if (stats_json(a->worker, &b) == -1)
		admin_error(a, 503, "overloaded", "no memory");
	else
		admin_reply(a, 200, "application/json", NULL, (struct slice){b.p, b.len});
	buf_free(&b);
}

static void get_metrics(struct admin_conn *a)
{
	struct buf b = {0};

	if (metrics_text(a->worker, &b) == -1)
		admin_error(a, 503, "overloaded", "no memory");
	else
		admin_reply(a, 200, "text/plain; version=0.0.4; charset=utf-8", NULL,
			    (struct slice){b.p, b.len});
	buf_free(&b);
}

static void get_ready(struct admin_conn *a)
{
	struct buf b = {0};
	bool is_ready;

	if (stats_ready(a->worker, &b, &is_ready) == -1)
		admin_error(a, 503, "overloaded", "no memory");
	else
		admin_reply(a, is_ready ? 200 : 503, "application/json", NULL, (struct slice){b.p, b.len});
	buf_free(&b);
}

/* Alive: this worker runs its loop and the master is there. */
static void get_health(struct admin_conn *a)
{
	static const char ok[] = "{\"status\":\"ok\",\"reasons\":[]}";

	admin_reply(a, 200, "application/json", NULL, (struct slice){ok, sizeof(ok) - 1});
}

static bool is_same_key(struct slice given, const char *key)
{
	size_t len = strlen(key);

	return given.len == len && CRYPTO_memcmp(given.p, key, len) == 0;
}

static bool is_authorized(const struct admin_conn *a)
{
	const char *key = a->listener->api_key;
	struct slice v;

	if (key == NULL || key[0] == '\0')
		return true;
	if (http_header(&a->http, a->in.p, "x-api-key", &v) == 1 && is_same_key(v, key))
		return true;
	if (http_header(&a->http, a->in.p, "authorization", &v) != 1 || v.len < 7 ||
	    !http_equals((struct slice){v.p, 7}, "bearer "))
		return false;
	return is_same_key((struct slice){v.p + 7, v.len - 7}, key);
}

static const struct route {
	const char *path;
	uint8_t method;
	void (*get)(struct admin_conn *a);
	void (*post)(struct admin_conn *a, struct slice body);
} routes[] = {
	{"/health", HTTP_GET, get_health, NULL},
	{"/ready", HTTP_GET, get_ready, NULL},
	{"/stats", HTTP_GET, get_stats, NULL},
	{"/metrics", HTTP_GET, get_metrics, NULL},
	{"/api/publish", HTTP_POST, NULL, api_publish},
	{"/api/broadcast", HTTP_POST, NULL, api_broadcast},
	{"/api/presence", HTTP_POST, NULL, api_presence},
	{"/api/presence_stats", HTTP_POST, NULL, api_presence_stats},
	{"/api/receipts", HTTP_POST, NULL, api_receipts},
	{"/api/channels", HTTP_POST, NULL, api_channels},
	{"/api/info", HTTP_POST, NULL, api_info},
	{"/api/disconnect", HTTP_POST, NULL, api_disconnect},
	{"/api/groups", HTTP_POST, NULL, api_groups},
};

static const struct route *find_route(struct slice path)
{
	for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
		if (strlen(routes[i].path) == path.len && memcmp(routes[i].path, path.p, path.len) == 0)
			return &routes[i];
	}
	return NULL;
}

/* Refusals that the head alone decides; true: answered, and the connection ends (its body is not read). */
static bool refuse_by_head(struct admin_conn *a, const struct route *r)
{
	struct slice path = http_slice(a->in.p, a->http.path);
	bool is_api = path.len >= 5 && memcmp(path.p, "/api/", 5) == 0;

	a->is_closing = http_has_body(&a->http);
	if (is_api && !is_authorized(a))
		admin_error(a, 401, "unauthorized",
			    "a valid key is needed in X-API-Key or Authorization: Bearer");
	else if (r == NULL)
		admin_error(a, 404, "not_found", "no such resource");
	else if (a->http.method != r->method && !(a->http.method == HTTP_HEAD && r->method == HTTP_GET))
		put_error(a, 405, "method_not_allowed", r->method == HTTP_GET ? "use GET" : "use POST",
			  r->method == HTTP_GET ? "Allow: GET, HEAD\r\n" : "Allow: POST\r\n");
	else {
		a->is_closing = false;
		return false;
	}
	return true;
}

static uint64_t max_body(const struct config *c)
{
	uint64_t max = c->limits.max_publication;

	for (size_t i = 0; i < c->n_namespaces; i++)
		max = u64_max(max, c->namespaces[i].max_publication);
	/* A payload may be written with \u escapes (6 bytes for one) or as base64. */
	return max * 6 + BODY_OVERHEAD;
}

/* ---------------------------------------------------------------- one connection */

enum step { STEP_AGAIN, STEP_MORE, STEP_STOP };

static void next_request(struct admin_conn *a)
{
	buf_shift(&a->in, a->http.end);
	if (a->in.len == 0)
		buf_free(&a->in);
	a->has_head = false;
	http_init(&a->http, &a->worker->config->limits);
	set_deadline(a, IDLE_TIMEOUT_S);
}

static void bad_request(struct admin_conn *a)
{
	int status = a->http.status;

	a->is_closing = true;
	admin_error(a, status, status == 413 ? "too_large" : "bad_request", a->http.reason);
}

static enum step read_head(struct admin_conn *a)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	switch (http_parse(&a->http, a->in.p, a->in.len)) {
	case HTTP_MORE:
		return STEP_MORE;
	case HTTP_BAD:
		bad_request(a);
		return STEP_STOP;
	case HTTP_DONE:
		break;
	}
	a->has_head = true;
	if (refuse_by_head(a, find_route(http_slice(a->in.p, a->http.path)))) {
		a->http.end = a->http.head_len;
		return a->is_closing ? STEP_STOP : STEP_AGAIN;
	}
	/* With too large a body announced: no, step() will say. */
	if (a->http.content_length <= max_body(a->worker->config) &&
	    http_expects_continue(&a->http, a->in.p) && buf_put(&a->out, go_on, sizeof(go_on) - 1) == -1)
		return STEP_STOP;
	return STEP_AGAIN;
}

/* The request under way, as far as it has come. AGAIN: answered, the next one may follow. */
static enum step step(struct admin_conn *a)
{
	const struct route *r;
	enum step s;

	if (!a->has_head) {
		size_t answered = a->out.len;

		s = read_head(a);
		if (s != STEP_AGAIN)
			return s;
		if (a->out.len != answered && a->http.end != 0) { /* refused, but the connection is kept */
			next_request(a);
			return STEP_AGAIN;
		}
	}
	switch (http_body(&a->http, a->in.p, a->in.len, max_body(a->worker->config))) {
	case HTTP_MORE:
		return STEP_MORE;
	case HTTP_BAD:
		bad_request(a);
		return STEP_STOP;
	case HTTP_DONE:
		break;
	}
	r = find_route(http_slice(a->in.p, a->http.path));
	if (r->get != NULL)
		r->get(a);
	else
		r->post(a, (struct slice){a->in.p + a->http.head_len, a->http.body_len});
	if (is_waiting(a)) {
		set_deadline(a, ANSWER_TIMEOUT_S);
		return STEP_STOP;
	}
	next_request(a);
	return a->is_closing ? STEP_STOP : STEP_AGAIN;
}

/* The last answer is out: end our side, and read on until the peer ends too. Input left unread (the body of a
 * refused request) would make close() send a RST that overtakes the answer. False: the connection is gone. */
static bool linger(struct admin_conn *a)
{
	if (a->is_lingering)
		return true;
	if (shutdown(a->fd, SHUT_WR) == -1) {
		drop(a);
		return false;
	}
	a->is_lingering = true;
	set_deadline(a, LINGER_S);
	buf_free(&a->in);
	return true;
}

static void read_and_forget(struct admin_conn *a)
{
	static char discard[READ_BYTES];
	ssize_t n = recv(a->fd, discard, sizeof(discard), MSG_DONTWAIT);

	if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR))
		drop(a);
}

/* Send what is queued. False: the connection is gone. */
static bool flush(struct admin_conn *a)
{
	while (a->out.len > a->out_off) {
		ssize_t n = send(a->fd, a->out.p + a->out_off, a->out.len - a->out_off,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n == -1) {
			if (errno == EAGAIN || errno == EINTR)
				return true;
			drop(a);
			return false;
		}
		a->out_off += (size_t)n;
	}
	a->out_off = 0;
	buf_free(&a->out);
	return true;
}

/* Everything is sent: is this the end? False: the connection is gone. */
static bool finish(struct admin_conn *a)
{
	if (a->is_closing && !a->is_eof)
		return linger(a);
	if (a->is_closing || (a->is_eof && !is_waiting(a) && !a->has_more)) {
		drop(a);
		return false;
	}
	return true;
}

/* Work through what was read: one request a turn, and none while an answer waits for its reader, so that a
 * thousand of them in one packet neither hold the fan-out up nor pile up answers. */
static void run(struct admin_conn *a)
{
	if (!flush(a))
		return;
	if (a->out.len == 0 && !is_waiting(a) && !a->is_closing) {
		a->has_more = a->in.len > 0 && step(a) == STEP_AGAIN && a->in.len > 0;
		if (!flush(a))
			return;
	}
	if (a->out.len > 0 || finish(a))
		watch(a);
}

void admin_answered(struct admin_conn *a)
{
	next_request(a);
	run(a);
}

static void on_deadline(struct ev_loop *loop, ev_timer *t, int events)
{
	struct admin_conn *a = t->data;

	(void)loop;
	(void)events;
	if (!is_waiting(a)) {
		drop(a);
		return;
	}
	if (a->broadcast != NULL) {
		api_broadcast_end(a);
	} else {
		forget(a);
		admin_error(a, 503, "overloaded", "not acknowledged in time");
	}
	admin_answered(a);
}

static void on_event(struct ev_loop *loop, ev_io *io, int events)
{
	struct admin_conn *a = io->data;
	ssize_t n;

	(void)loop;
	a->active_ms = a->worker->now_ms;
	if (a->is_lingering) {
		read_and_forget(a);
		return;
	}
	if ((events & EV_READ) != 0) {
		if (a->in.len == 0)
			set_deadline(a,
				     IDLE_TIMEOUT_S); /* a request begins; no later byte of it resets this */
		if (buf_reserve(&a->in, READ_BYTES) == -1) {
			drop(a);
			return;
		}
		n = recv(a->fd, a->in.p + a->in.len, READ_BYTES, MSG_DONTWAIT);
		if (n == -1 && errno != EAGAIN && errno != EINTR) {
			drop(a);
			return;
		}
		if (n == 0)
			a->is_eof = true;
		if (n > 0)
			a->in.len += (size_t)n;
	}
	run(a);
}

static void open_conn(struct worker *w, int fd, const struct cfg_listener *listener)
{
	struct admin *ad = w->admin;
	struct admin_conn *a = calloc(1, sizeof(*a));

	if (a == NULL) {
		close(fd);
		return;
	}
	a->worker = w;
	a->listener = listener;
	a->fd = fd;
	a->active_ms = w->now_ms;
	http_init(&a->http, &w->config->limits);
	ev_io_init(&a->io, on_event, fd, EV_READ);
	ev_timer_init(&a->deadline, on_deadline, 0., IDLE_TIMEOUT_S);
	a->io.data = a->deadline.data = a;
	a->next = ad->first;
	if (ad->first != NULL)
		ad->first->prev = a;
	ad->first = a;
	ad->n++;
	ev_io_start(w->loop, &a->io);
	set_deadline(a, IDLE_TIMEOUT_S);
}

static void on_acceptable(struct ev_loop *loop, ev_io *io, int events)
{
	struct worker *w = io->data;
	size_t index = (size_t)(io - w->admin->listeners);

	(void)loop;
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH && w->admin->n < w->admin->max; i++) {
		int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd == -1) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
				w->admin->rest_ms = w->now_ms + REST_MS; /* else its watcher would spin */
			break;
		}
		open_conn(w, fd, &w->config->admins[index]);
	}
	update_listeners(w);
}

/* ---------------------------------------------------------------- for the worker */

int admin_start(struct worker *w)
{
	struct admin *ad = calloc(1, sizeof(*ad));

	if (ad == NULL)
		return -1;
	ad->worker = w;
	ad->max = w->admin_max;
	ad->n_listeners = w->config->n_admins;
	ad->listeners = calloc(ad->n_listeners + 1, sizeof(*ad->listeners));
	if (ad->listeners == NULL) {
		free(ad);
		return -1;
	}
	w->admin = ad;
	for (size_t i = 0; i < ad->n_listeners; i++) {
		ev_io_init(&ad->listeners[i], on_acceptable, w->boot->admin_fds[i], EV_READ);
		ad->listeners[i].data = w;
	}
	update_listeners(w);
	return 0;
}

void admin_stop(struct worker *w)
{
	w->admin->is_left = true;
	while (w->admin->first != NULL)
		drop(w->admin->first);
	update_listeners(w);
	free(w->admin->listeners);
	free(w->admin);
	w->admin = NULL;
}

void admin_leave(struct worker *w)
{
	w->admin->is_left = true;
	update_listeners(w);
}

void admin_tick(struct worker *w)
{
	if (w->admin->rest_ms == 0 || w->now_ms < w->admin->rest_ms)
		return;
	w->admin->rest_ms = 0;
	update_listeners(w);
}

bool admin_is_quiet(const struct worker *w)
{
	for (const struct admin_conn *a = w->admin->first; a != NULL; a = a->next) {
		if (is_waiting(a) || a->out.len > 0 || w->now_ms - a->active_ms < QUIET_MS)
			return false;
	}
	return true;
}

static void broadcast_answered(struct admin_conn *a, uint32_t request, const struct api_answer *answer)
{
	if (!api_broadcast_answer(a, request, answer)) {
		set_deadline(a, ANSWER_TIMEOUT_S); /* it gets on */
		return;
	}
	api_broadcast_end(a);
	admin_answered(a);
}

void admin_answer(struct worker *w, uint32_t request, enum rec_answer what, uint64_t seq, uint64_t epoch,
		  const struct rec_counts *counts)
{
	const struct api_answer answer = {what, seq, epoch, *counts};

	for (struct admin_conn *a = w->admin->first; a != NULL; a = a->next) {
		if (api_broadcast_asked(a, request)) {
			broadcast_answered(a, request, &answer);
			return;
		}
		if (a->request != request)
			continue;
		a->request = 0;
		api_publish_answer(a, &answer);
		admin_answered(a);
		return;
	}
	/* Its client has gone, or was told 503. */
}

void admin_resume(struct worker *w)
{
	struct admin_conn *next;

	for (struct admin_conn *a = w->admin->first; a != NULL; a = next) {
		next = a->next;
		if (!a->is_unsent)
			continue;
		if (a->broadcast == NULL) {
			api_publish_again(a);
		} else if (api_broadcast_again(a)) {
			api_broadcast_end(a);
			admin_answered(a);
		}
	}
}
