/* auth_http.h - an asynchronous HTTP client for POSTs of JSON to one address: libcurl's multi interface on
 * the worker's libev loop. Worker; one thread; never blocks (names are resolved by a thread of libcurl's).
 *
 *                  done: status and body, or a failure
 *   http_post() ------------------------------------------> `done`, once, from the loop
 *        |  http_cancel(): `done` never runs
 *
 * Connections are kept and re-used; HTTP/1.1; no redirects, no proxy from the environment, no cookies, no
 * signals. An answer larger than HTTP_ANSWER_MAX, or with more than HTTP_HEAD_ANSWER_MAX of headers, is a
 * failure.
 */
#ifndef RC_AUTH_HTTP_H
#define RC_AUTH_HTTP_H

#include "common/base.h"
#include "common/buf.h"

#define HTTP_ANSWER_MAX      (256u << 10)
#define HTTP_HEAD_ANSWER_MAX (64u << 10)

struct ev_loop;
struct http_engine; /* one a worker: libcurl's multi handle and its watchers */
struct http_client; /* one address */
struct http_call;   /* one request under way */

struct http_answer {
	int status;          /* 0: there is no answer, see failure */
	struct slice body;   /* until `done` returns */
	const char *failure; /* a constant for logs: "timeout", "connect", ...; NULL if there is an answer */
};

/* connections: how many are kept open, all clients together. NULL: errno. */
struct http_engine *http_engine_new(struct ev_loop *loop, unsigned connections) MUST_CHECK;
/* After all its clients. NULL is fine. */
void http_engine_free(struct http_engine *e);

/* url: "http://...", "https://..." or "unix:/path/of/socket:/uri". bearer: sent as Authorization; NULL: none.
 * Both are borrowed for the call. ca: PEM of the certificates that https trusts, borrowed for the client's
 * life; p NULL: the system's. NULL: no memory, or no such URL. */
struct http_client *http_client_new(struct http_engine *e, const char *url, const char *bearer,
				    struct slice ca) MUST_CHECK;
/* Cancels what is under way. NULL is fine. */
void http_client_free(struct http_client *c);

/* Start a request; `body` is taken over (and empty afterwards). timeout_ms > 0 is for all of it, resolving
 * and connecting included. NULL: no memory; `done` does not run. Never calls `done` itself. */
struct http_call *http_post(struct http_client *c, struct buf *body, uint32_t timeout_ms,
			    void (*done)(void *arg, const struct http_answer *answer), void *arg) MUST_CHECK;
/* The call is over, and the pointer dead; likewise once `done` has been entered. */
void http_cancel(struct http_call *call);

#endif
