/* admin.h - the admin listener's server: what admin.c shares with what answers (api.c, stats.c, metrics.c).
 *
 * Every worker serves it: the listening sockets are shared. Few connections, so plain libev watchers and
 * buffers. HTTP/1.1 with keep-alive, one request of a connection at a time. Worker; one thread; nothing
 * blocks (stats.c reads /proc).
 *
 *            head, body complete            answer known
 *   READING ---------------------> (api) WAITING ----------> READING, or closed after the answer
 *      |  idle_timeout            (ask)   | ANSWER_TIMEOUT_S: 503
 *      +--> LINGERING after the last answer, until the peer ends too, at most LINGER_S
 */
#ifndef RC_ADMIN_H
#define RC_ADMIN_H

#include "common/buf.h"
#include "worker/api_body.h"
#include "worker/http.h"
#include "worker/worker.h"

struct admin_conn {
	ev_io io;
	ev_timer deadline;
	struct worker *worker;
	const struct cfg_listener *listener;
	struct admin_conn *prev, *next;
	int fd;
	struct buf in, out;
	size_t out_off;
	struct http_parser http;
	bool has_head;
	bool is_closing;    /* close when `out` is empty */
	bool is_eof;        /* the peer has shut down its side: answer what is complete, then close */
	bool has_more;      /* another request has been read and waits for its turn */
	bool is_lingering;  /* the last answer is out: what still comes is thrown away */
	uint64_t active_ms; /* of the last event */
	uint32_t request;   /* WAITING: number of the publish request; 0 = none */
	uint32_t ask;       /* WAITING: number of the question (ask.h); 0 = none */
	struct broadcast *broadcast; /* WAITING: for many; NULL: none */
	bool is_unsent;              /* WAITING: the uplink had no space yet */
	struct api_publish publish;
	struct buf scratch;
};

struct admin {
	struct worker *worker;
	ev_io *listeners;
	size_t n_listeners;
	struct admin_conn *first;
	unsigned n, max;
	bool is_left;     /* no new connections any more */
	uint64_t rest_ms; /* no descriptors: the listeners are looked at again then; 0 = no rest */
	uint32_t next_request;
};

/* Queue a whole answer. `type` is the content type. */
void admin_reply(struct admin_conn *a, int status, const char *type, const char *extra_headers,
		 struct slice body);

/* {"error":{"code":...,"message":...}} with `status`. */
void admin_error(struct admin_conn *a, int status, const char *code, const char *message);

/* WAITING is over: the answer has been queued. The connection may be gone afterwards. */
void admin_answered(struct admin_conn *a);

/* ---- api_ask.c: the body is complete. Answers, or makes the connection WAITING. */
void api_presence(struct admin_conn *a, struct slice body);
void api_presence_stats(struct admin_conn *a, struct slice body);
void api_receipts(struct admin_conn *a, struct slice body);
void api_channels(struct admin_conn *a, struct slice body);
void api_info(struct admin_conn *a, struct slice body);
void api_disconnect(struct admin_conn *a, struct slice body);
void api_groups(struct admin_conn *a, struct slice body);
/* A question to the master; the answer's payload is the "result" of the API's. For endpoints elsewhere, too.
 */
void api_ask(struct admin_conn *a, const struct ask *q);

/* ---- api.c */

/* The answer to one publication. */
struct api_answer {
	enum rec_answer what;
	uint64_t seq, epoch;
	struct rec_counts counts;
};

/* {"result":{...}} or {"error":{...}}. 0, or -1 (ENOMEM). The strings of an error are constants that need no
 * escapes. */
int api_put_answer(struct buf *b, struct slice channel, const struct api_answer *answer) MUST_CHECK;
int api_put_error(struct buf *b, const char *code, const char *message) MUST_CHECK;

/* `n` consecutive numbers for publish requests: the first. */
uint32_t api_take_requests(struct admin *ad, uint32_t n);

/* POST /api/publish: the body is complete. Answers, or makes the connection WAITING. */
void api_publish(struct admin_conn *a, struct slice body);
/* What a->publish says, up the uplink; the answer shall count. */
enum publish_result api_send(struct admin_conn *a, uint32_t request) MUST_CHECK;
/* Offer the message to the uplink again. */
void api_publish_again(struct admin_conn *a);
void api_publish_answer(struct admin_conn *a, const struct api_answer *answer);

/* ---- api_broadcast.c */

#define API_BROADCAST_MAX 1000u /* channels */

void api_broadcast(struct admin_conn *a, struct slice body);
/* Go on sending. Returns true if nothing more is to be waited for. */
bool api_broadcast_again(struct admin_conn *a) MUST_CHECK;
/* Is it one of ours? Then its answer: true if it was the last one. */
bool api_broadcast_asked(const struct admin_conn *a, uint32_t request) MUST_CHECK;
bool api_broadcast_answer(struct admin_conn *a, uint32_t request, const struct api_answer *answer) MUST_CHECK;
/* Answer with what there is. */
void api_broadcast_end(struct admin_conn *a);
/* Forget it. Nothing if there is none. */
void api_broadcast_free(struct admin_conn *a);

/* ---- stats.c: bodies; 0, or -1 without memory */
int stats_json(struct worker *w, struct buf *out) MUST_CHECK;
/* {"status":...,"reasons":[...]}; *is_ready says which. */
int stats_ready(struct worker *w, struct buf *out, bool *is_ready) MUST_CHECK;

/* ---- metrics.c: Prometheus text */
int metrics_text(struct worker *w, struct buf *out) MUST_CHECK;

#endif
