#include "worker/auth_hook.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/auth_http.h"
#include "worker/identity.h"
#include "worker/worker.h"

#define WAITING_FACTOR 4u /* so many times `concurrency` may wait */
#define LOG_EVERY_MS                                                                                         \
	1000u /* failures are told about at most so often; each refusal has a line of its own                \
	       */

struct hook_request {
	struct hook_request *prev, *next; /* of those that wait, or of those under way */
	struct auth_hook *hook;
	struct http_call *call; /* NULL: it waits */
	struct buf body;
	uint64_t deadline_ms;
	bool is_message;
	void (*done)(void *arg, struct identity *who);
	void *arg;
};

struct request_list {
	struct hook_request *first, *last;
	unsigned n;
};

struct auth_hook {
	struct worker *worker;
	const struct cfg_auth *auth;
	struct http_client *http;
	unsigned max; /* requests under way */
	struct request_list waiting, active;
	unsigned failures;   /* in a row */
	uint64_t open_until; /* the breaker is open, and until then nothing is tried; 0: it is closed */
	struct hook_request *trial; /* open: the one that decides */
	uint64_t logged_ms;
};

/* ---------------------------------------------------------------- lists */

static void append(struct request_list *l, struct hook_request *r)
{
	r->next = NULL;
	r->prev = l->last;
	if (l->last != NULL)
		l->last->next = r;
	else
		l->first = r;
	l->last = r;
	l->n++;
}

static void take_out(struct request_list *l, struct hook_request *r)
{
	if (r->prev != NULL)
		r->prev->next = r->next;
	else
		l->first = r->next;
	if (r->next != NULL)
		r->next->prev = r->prev;
	else
		l->last = r->prev;
	l->n--;
}

/* Out of its list and gone. */
static void forget(struct hook_request *r)
{
	struct auth_hook *h = r->hook;

	take_out(r->call == NULL ? &h->waiting : &h->active, r);
	if (h->trial == r)
		h->trial = NULL; /* the next one is on trial */
	buf_free(&r->body);
	free(r);
}

static void give_up(struct hook_request *r)
{
	void (*done)(void *, struct identity *) = r->done;
	void *arg = r->arg;

	forget(r);
	done(arg, NULL);
}

/* ---------------------------------------------------------------- breaker */

static void answered(struct auth_hook *h)
{
	h->failures = 0;
	if (h->open_until == 0)
		return;
	h->open_until = 0;
	log_event(LOG_INFO, "hook_up", "auth=%s msg=\"the hook answers again\"", h->auth->name);
}

static void log_failure(struct auth_hook *h, int status, const char *reason)
{
	uint64_t now = h->worker->now_ms;
	struct log_quoted q;

	if (h->logged_ms != 0 && now - h->logged_ms < LOG_EVERY_MS)
		return;
	h->logged_ms = now;
	log_event(LOG_WARN, "hook_failed", "auth=%s code=%d reason=%s", h->auth->name, status,
		  log_quote(&q, reason, strlen(reason)));
}

static void failed(struct auth_hook *h, bool is_trial)
{
	const struct cfg_auth *a = h->auth;

	h->failures++;
	if (a->breaker_failures == 0 || h->failures < a->breaker_failures ||
	    (h->open_until != 0 && !is_trial))
		return;
	if (h->open_until == 0)
		log_event(LOG_WARN, "hook_down", "auth=%s total=%u msg=\"not asked for %u ms\"", a->name,
			  h->failures, a->breaker_pause);
	h->open_until = h->worker->now_ms + u64_max(a->breaker_pause, 1);
	/* Those that wait would each wait for their deadline in turn. */
	while (h->waiting.first != NULL) {
		count_add(&h->worker->count->hook_open, 1);
		give_up(h->waiting.first);
	}
}

/* ---------------------------------------------------------------- answers */

/* A verdict, or NULL with *failure. */
static struct identity *verdict(const struct hook_request *r, const struct http_answer *a,
				const char **failure)
{
	struct identity *who;

	*failure = a->failure;
	if (a->status == 0)
		return NULL;
	if (a->status == 401 || a->status == 403 || a->status == 404) {
		who = identity_refused((unsigned)a->status, "");
		*failure = who == NULL ? "no_memory" : NULL;
		return who;
	}
	*failure = "status";
	if (a->status != 200)
		return NULL;
	who = malloc(sizeof(*who));
	*failure = "no_memory";
	if (who == NULL || identity_read_hook(who, a->body, r->is_message, failure) == -1) {
		free(who);
		return NULL;
	}
	return who;
}

static void start_waiting(struct auth_hook *h);

static void on_answer(void *arg, const struct http_answer *a)
{
	struct hook_request *r = arg;
	struct auth_hook *h = r->hook;
	void (*done)(void *, struct identity *) = r->done;
	void *done_arg = r->arg;
	bool is_trial = h->trial == r;
	const char *failure;
	struct identity *who = verdict(r, a, &failure);

	forget(r);
	if (who != NULL) {
		answered(h);
	} else {
		count_add(&h->worker->count->hook_failures, 1);
		log_failure(h, a->status, failure);
		failed(h, is_trial);
	}
	done(done_arg, who);
	start_waiting(h);
}

/* ---------------------------------------------------------------- requests */

static int start(struct hook_request *r)
{
	struct auth_hook *h = r->hook;
	uint64_t now = h->worker->now_ms;

	r->call = http_post(h->http, &r->body, r->deadline_ms > now ? (uint32_t)(r->deadline_ms - now) : 1,
			    on_answer, r);
	if (r->call == NULL)
		return -1;
	count_add(&h->worker->count->hook_requests, 1);
	append(&h->active, r);
	return 0;
}

/* Without memory it goes on waiting: the tick tries again, its deadline ends that. */
static void start_waiting(struct auth_hook *h)
{
	while (h->active.n < h->max && h->waiting.first != NULL) {
		struct hook_request *r = h->waiting.first;

		take_out(&h->waiting, r);
		if (start(r) == -1) {
			append(&h->waiting, r);
			return;
		}
	}
}

static struct hook_request *new_request(struct auth_hook *h, struct buf *body, bool is_message,
					void (*done)(void *arg, struct identity *who), void *arg)
{
	struct hook_request *r = malloc(sizeof(*r));

	if (r == NULL)
		return NULL;
	*r = (struct hook_request){.hook = h,
				   .body = *body,
				   .deadline_ms = h->worker->now_ms + h->auth->timeout,
				   .is_message = is_message,
				   .done = done,
				   .arg = arg};
	*body = (struct buf){0};
	return r;
}

struct hook_request *hook_ask(struct auth_hook *h, struct buf *body, bool is_message,
			      void (*done)(void *arg, struct identity *who), void *arg)
{
	struct hook_request *r;

	if (h->open_until != 0 && (h->trial != NULL || h->worker->now_ms < h->open_until)) {
		count_add(&h->worker->count->hook_open, 1);
		return NULL;
	}
	if (h->active.n >= h->max && h->waiting.n >= WAITING_FACTOR * h->max) {
		log_failure(h, 0, "busy");
		return NULL;
	}
	r = new_request(h, body, is_message, done, arg);
	if (r == NULL)
		return NULL;
	if (h->active.n >= h->max) {
		append(&h->waiting, r);
	} else if (start(r) == -1) {
		buf_free(&r->body);
		free(r);
		return NULL;
	}
	if (h->open_until != 0)
		h->trial = r;
	return r;
}

void hook_cancel(struct hook_request *r)
{
	struct auth_hook *h = r->hook;

	if (r->call != NULL)
		http_cancel(r->call);
	forget(r);
	start_waiting(h);
}

void hook_tick(struct auth_hook *h)
{
	while (h->waiting.first != NULL && h->waiting.first->deadline_ms <= h->worker->now_ms) {
		log_failure(h, 0, "busy");
		give_up(h->waiting.first);
	}
	start_waiting(h);
}

unsigned hook_share(const struct config *c, const struct cfg_auth *auth)
{
	return c->workers == 0 || auth->concurrency < c->workers ? 1 : auth->concurrency / c->workers;
}

struct auth_hook *hook_new(struct worker *w, const struct cfg_auth *auth, struct http_engine *e)
{
	struct auth_hook *h = calloc(1, sizeof(*h));

	if (h == NULL)
		return NULL;
	h->worker = w;
	h->auth = auth;
	h->max = hook_share(w->config, auth);
	h->http = http_client_new(e, auth->url, auth->secret, (struct slice){auth->ca_text, auth->ca_len});
	if (h->http == NULL) {
		free(h);
		errno = EINVAL;
		return NULL;
	}
	return h;
}

void hook_free(struct auth_hook *h)
{
	if (h == NULL)
		return;
	while (h->waiting.first != NULL)
		forget(h->waiting.first);
	while (h->active.first != NULL) {
		http_cancel(h->active.first->call);
		forget(h->active.first);
	}
	http_client_free(h->http);
	free(h);
}
