#include "worker/auth_http.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "common/curl_lib.h"

#define POOL_MAX 64u /* idle handles of a client that are kept */

static const struct curl_lib *lib; /* loaded before there is an engine */

struct http_engine {
	struct ev_loop *loop;
	CURLM *multi;
	ev_timer timer;
};

/* A socket of libcurl's that is watched. */
struct socket_watch {
	ev_io io;
	struct http_engine *engine;
};

struct http_client {
	struct http_engine *engine;
	char *url, *socket_path; /* socket_path NULL: TCP */
	struct curl_slist *headers;
	struct http_call *active, *idle; /* lists */
	unsigned n_idle;
	struct curl_blob ca; /* len 0: the system's */
};

struct http_call {
	struct http_call *next, *prev;
	struct http_client *client;
	CURL *easy;
	struct buf request, answer;
	size_t head; /* bytes of headers so far */
	void (*done)(void *arg, const struct http_answer *answer);
	void *arg;
};

/* ---------------------------------------------------------------- calls */

static void link_call(struct http_call **list, struct http_call *call)
{
	call->prev = NULL;
	call->next = *list;
	if (*list != NULL)
		(*list)->prev = call;
	*list = call;
}

static void unlink_call(struct http_call **list, struct http_call *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		*list = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
}

static void free_call(struct http_call *call)
{
	if (call->easy != NULL)
		lib->easy_cleanup(call->easy);
	buf_free(&call->request);
	buf_free(&call->answer);
	free(call);
}

/* Out of the multi handle; the easy handle is kept for the next request, it carries all options. */
static void retire(struct http_call *call)
{
	struct http_client *c = call->client;

	(void)lib->multi_remove_handle(c->engine->multi, call->easy);
	unlink_call(&c->active, call);
	buf_free(&call->request);
	buf_free(&call->answer);
	if (c->n_idle == POOL_MAX) {
		free_call(call);
		return;
	}
	link_call(&c->idle, call);
	c->n_idle++;
}

/* Returning less than it was given ends the transfer with an error. */
static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * n;

	if (call->answer.len + len > HTTP_ANSWER_MAX || buf_put(&call->answer, p, len) == -1)
		return 0;
	return len;
}

static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * n;

	(void)p;
	call->head += len;
	return call->head > HTTP_HEAD_ANSWER_MAX ? 0 : len;
}

static int set_options(struct http_call *call)
{
	const struct http_client *c = call->client;
	CURL *e = call->easy;
	CURLcode bad = CURLE_OK;

#define SET(option, value)                                                                                   \
	if (bad == CURLE_OK)                                                                                 \
	bad = lib->easy_setopt(e, option, value)
	SET(CURLOPT_URL, c->url);
	SET(CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
	SET(CURLOPT_HTTPHEADER, c->headers);
	if (c->ca.len > 0) { /* and nobody else */
		SET(CURLOPT_CAINFO_BLOB, &c->ca);
		SET(CURLOPT_CAPATH, NULL);
	}
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, ""); /* none, whatever the environment says */
	SET(CURLOPT_NOSIGNAL, 1L);
	/* A request that ends while its host name is being looked up must not wait for the resolver's thread.
	 */
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, (void *)call);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, (void *)call);
	SET(CURLOPT_PRIVATE, (void *)call);
#undef SET
	return bad == CURLE_OK ? 0 : -1;
}

static struct http_call *new_call(struct http_client *c)
{
	struct http_call *call = c->idle;

	if (call != NULL) {
		unlink_call(&c->idle, call);
		c->n_idle--;
		return call;
	}
	call = calloc(1, sizeof(*call));
	if (call == NULL)
		return NULL;
	call->client = c;
	call->easy = lib->easy_init();
	if (call->easy == NULL || set_options(call) == -1) {
		free_call(call);
		return NULL;
	}
	return call;
}

struct http_call *http_post(struct http_client *c, struct buf *body, uint32_t timeout_ms,
			    void (*done)(void *arg, const struct http_answer *answer), void *arg)
{
	struct http_call *call = new_call(c);

	if (call == NULL)
		return NULL;
	call->request = *body;
	*body = (struct buf){0};
	call->head = 0;
	call->done = done;
	call->arg = arg;
	if (lib->easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->request.len) !=
		    CURLE_OK ||
	    lib->easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->request.p) != CURLE_OK ||
	    lib->easy_setopt(call->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms) != CURLE_OK ||
	    lib->multi_add_handle(c->engine->multi, call->easy) != CURLM_OK) {
		free_call(call);
		return NULL;
	}
	link_call(&c->active, call);
	return call;
}

void http_cancel(struct http_call *call)
{
	retire(call);
}

static const char *failure_of(CURLcode code, const struct http_call *call)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return "timeout";
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return "connect";
	case CURLE_WRITE_ERROR:
		return call->answer.len + call->head > 0 ? "too_large" : "no_memory";
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
		return "tls";
	default:
		return "broken"; /* cut short, or no HTTP */
	}
}

static void finish(struct http_call *call, CURLcode code)
{
	void (*done)(void *, const struct http_answer *) = call->done;
	void *arg = call->arg;
	struct http_answer answer = {.failure = "broken"};
	struct buf body;
	long status = 0;

	if (code != CURLE_OK)
		answer.failure = failure_of(code, call);
	else if (lib->easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status > 0)
		answer = (struct http_answer){.status = (int)status};
	/* The handle goes back first: `done` may start the next request, or free the client. */
	body = call->answer;
	call->answer = (struct buf){0};
	retire(call);
	answer.body = (struct slice){body.p, body.len};
	done(arg, &answer);
	buf_free(&body);
}

/* ---------------------------------------------------------------- the loop */

static void collect(struct http_engine *e)
{
	CURLMsg *m;
	int left;
	char *call;

	while ((m = lib->multi_info_read(e->multi, &left)) != NULL) {
		CURLcode code = m->data.result; /* `m` is gone with its handle */

		if (m->msg == CURLMSG_DONE &&
		    lib->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &call) == CURLE_OK)
			finish((struct http_call *)(void *)call, code);
	}
}

static void act(struct http_engine *e, curl_socket_t fd, int events)
{
	int running;

	(void)lib->multi_socket_action(e->multi, fd, events, &running);
	collect(e);
}

static void on_socket_ready(struct ev_loop *loop, ev_io *io, int events)
{
	const struct socket_watch *s = io->data;

	(void)loop;
	act(s->engine, io->fd,
	    (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* libcurl tells what it wants to know of a socket. The watcher stops before libcurl closes the descriptor. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct http_engine *e = arg;
	struct socket_watch *s = socket_arg;
	int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (s != NULL)
			ev_io_stop(e->loop, &s->io);
		free(s);
		return 0;
	}
	if (s == NULL) {
		s = calloc(1, sizeof(*s));
		if (s == NULL || lib->multi_assign(e->multi, fd, s) != CURLM_OK) {
			free(s);
			return -1;
		}
		s->engine = e;
		ev_io_init(&s->io, on_socket_ready, fd, events);
		s->io.data = s;
	} else {
		ev_io_stop(e->loop, &s->io);
		ev_io_set(&s->io, fd, events);
	}
	ev_io_start(e->loop, &s->io);
	return 0;
}

static int watch_timer(CURLM *multi, long ms, void *arg)
{
	struct http_engine *e = arg;

	(void)multi;
	ev_timer_stop(e->loop, &e->timer);
	if (ms >= 0) {
		ev_timer_set(&e->timer, (double)ms / 1000, 0);
		ev_timer_start(e->loop, &e->timer);
	}
	return 0;
}

struct http_engine *http_engine_new(struct ev_loop *loop, unsigned connections)
{
	struct http_engine *e;
	const char *why;

	/* The master has it loaded; a second time costs nothing. */
	if (curl_lib_load(&why) == -1) {
		errno = ENOENT;
		return NULL;
	}
	lib = curl_lib();
	e = calloc(1, sizeof(*e));
	if (e == NULL || lib->global_init(CURL_GLOBAL_ALL) != CURLE_OK) {
		free(e);
		errno = ENOMEM;
		return NULL;
	}
	e->loop = loop;
	e->multi = lib->multi_init();
	ev_timer_init(&e->timer, on_timer, 0, 0);
	e->timer.data = e;
	if (e->multi == NULL ||
	    lib->multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
	    lib->multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e) != CURLM_OK ||
	    lib->multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, watch_timer) != CURLM_OK ||
	    lib->multi_setopt(e->multi, CURLMOPT_TIMERDATA, e) != CURLM_OK ||
	    lib->multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, (long)connections) != CURLM_OK ||
	    lib->multi_setopt(e->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING) != CURLM_OK) {
		http_engine_free(e);
		errno = ENOMEM;
		return NULL;
	}
	return e;
}

void http_engine_free(struct http_engine *e)
{
	if (e == NULL)
		return;
	(void)lib->multi_cleanup(e->multi);
	ev_timer_stop(e->loop, &e->timer);
	lib->global_cleanup();
	free(e);
}

/* ---------------------------------------------------------------- clients */

/* "unix:/path:/uri" is a socket's path and a URI behind it. */
static int set_address(struct http_client *c, const char *url)
{
	const char *path, *colon;
	size_t len;

	if (strncmp(url, "unix:", 5) != 0) {
		c->url = strdup(url);
		return c->url == NULL ? -1 : 0;
	}
	path = url + 5;
	colon = strstr(path, ":/");
	if (path[0] != '/' || colon == NULL)
		return -1;
	c->socket_path = strndup(path, (size_t)(colon - path));
	len = strlen(colon + 1) + sizeof("http://localhost");
	c->url = malloc(len);
	if (c->socket_path == NULL || c->url == NULL)
		return -1;
	memcpy(c->url, "http://localhost", sizeof("http://localhost") - 1);
	memcpy(c->url + sizeof("http://localhost") - 1, colon + 1, strlen(colon + 1) + 1);
	return 0;
}

static int add_header(struct http_client *c, const char *line)
{
	struct curl_slist *more = lib->slist_append(c->headers, line);

	if (more == NULL)
		return -1;
	c->headers = more;
	return 0;
}

static int set_headers(struct http_client *c, const char *bearer)
{
	struct buf line = {0};
	int rc = -1;

	/* "Expect:" alone: none; a round trip less. */
	if (add_header(c, "Content-Type: application/json") == -1 ||
	    add_header(c, "Accept: application/json") == -1 || add_header(c, "Expect:") == -1 ||
	    add_header(c, "User-Agent: ringcast/" RC_VERSION) == -1)
		return -1;
	if (bearer == NULL)
		return 0;
	if (buf_printf(&line, "Authorization: Bearer %s", bearer) == 0 && buf_put(&line, "", 1) == 0)
		rc = add_header(c, line.p);
	buf_free(&line);
	return rc;
}

struct http_client *http_client_new(struct http_engine *e, const char *url, const char *bearer,
				    struct slice ca)
{
	struct http_client *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->engine = e;
	c->ca = (struct curl_blob){(void *)(uintptr_t)ca.p, ca.len, CURL_BLOB_NOCOPY};
	if (set_address(c, url) == -1 || set_headers(c, bearer) == -1) {
		http_client_free(c);
		return NULL;
	}
	return c;
}

void http_client_free(struct http_client *c)
{
	if (c == NULL)
		return;
	while (c->active != NULL)
		retire(c->active);
	while (c->idle != NULL) {
		struct http_call *call = c->idle;

		unlink_call(&c->idle, call);
		free_call(call);
	}
	lib->slist_free_all(c->headers);
	free(c->url);
	free(c->socket_path);
	free(c);
}
