#include "worker/input.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/wsframe.h"
#include "worker/admission.h"
#include "worker/limits.h"
#include "worker/output.h"
#include "worker/proxy.h"
#include "worker/rate.h"
#include "worker/rules.h"
#include "worker/worker.h"

#define READ_BYTES    16384 /* of one recv; wslay sees no more at a time */
#define READS_A_TURN  4     /* then the other connections have their turn: the set is level-triggered */
#define CLOSE_WAIT_MS 500   /* a peer's Close waits so long for its own publications */
#define MESSAGE_MS                                                                                           \
	10000 /* a message may take longer only while there is memory for unfinished ones in plenty */

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

/* ---------------------------------------------------------------- handshake */

static enum count_refused refused_index(const char *reason)
{
	static const struct {
		const char *reason;
		enum count_refused index;
	} table[] = {
		{"no_namespace", COUNT_REFUSED_no_namespace},
		{"bad_room", COUNT_REFUSED_no_namespace},
		{"not_get", COUNT_REFUSED_not_get},
		{"method", COUNT_REFUSED_not_get},
		{"timeout", COUNT_REFUSED_timeout},
		{"url_too_long", COUNT_REFUSED_url_too_long},
		{"no_upgrade", COUNT_REFUSED_no_upgrade},
		{"bad_version", COUNT_REFUSED_bad_version},
		{"head_too_large", COUNT_REFUSED_head_too_large},
		{"origin", COUNT_REFUSED_origin},
		{"full", COUNT_REFUSED_full},
		{"no_memory", COUNT_REFUSED_full},
		{"aborted", COUNT_REFUSED_aborted},
	};

	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (strcmp(table[i].reason, reason) == 0)
			return table[i].index;
	}
	return COUNT_REFUSED_bad_request;
}

void input_answer(struct worker *w, struct conn *c, int status)
{
	char answer[HANDSHAKE_REFUSAL_SIZE];
	size_t len = handshake_refusal(answer, sizeof(answer), status);

	/* One try: a socket that does not take 200 bytes at its very start has nobody reading. */
	if (send(c->fd, answer, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len &&
	    shutdown(c->fd, SHUT_WR) == 0)
		conn_linger(w, c);
	else
		conn_drop(w, c, false, 1006);
}

/* `from`: the real address as far as it is known, or not known: then it is the socket's other end. */
static void refuse_from(struct worker *w, struct conn *c, int status, const char *reason, struct address from)
{
	char text[ADDRESS_TEXT_SIZE];

	count_add(&w->count->refused[refused_index(reason)], 1);
	if (log_on(LOG_INFO)) {
		if (!from.is_known)
			from = address_peer(c->fd);
		address_text(&from, text);
		log_event(LOG_INFO, "refused", "addr=%s code=%d reason=%s", text, status, reason);
	}
	input_answer(w, c, status);
}

void input_refuse(struct worker *w, struct conn *c, int status, const char *reason)
{
	const struct conn_ext *x = c->ext;
	struct address from = {false, {0}};

	if (x != NULL)
		from = x->admission != NULL ? x->admission->from : x->from;
	refuse_from(w, c, status, reason, from);
}

/* What the whole head says of proxies counts, wrong as it may be in other ways: who it is must be logged. */
static void refuse_head(struct worker *w, struct conn *c, int status, const char *reason,
			const struct http_parser *parser, const char *head, const struct address *from)
{
	struct address peer = from->is_known ? *from : address_peer(c->fd);

	refuse_from(w, c, status, reason, address_client(w->config, &peer, parser, head));
}

static bool feed(struct worker *w, struct conn *c, const uint8_t *p, size_t len);

void input_early(struct worker *w, struct conn *c, struct slice bytes)
{
	if (bytes.len == 0 || feed(w, c, (const uint8_t *)bytes.p, bytes.len))
		conn_ext_trim(c);
}

/* Judge the head as far as it has come. True: more is needed; false: decided, `c` may be gone. */
static bool handshake_bytes(struct worker *w, struct conn *c, struct http_parser *parser, const char *head,
			    size_t len, const struct address *from)
{
	struct admission a;
	int status;

	switch (http_parse(parser, head, len)) {
	case HTTP_MORE:
		return true;
	case HTTP_BAD:
		refuse_from(w, c, parser->status, parser->reason, *from);
		return false;
	case HTTP_DONE:
		break;
	}
	a.from = *from;
	status = handshake_check(w->config, parser, head, &a.h);
	if (status != 0)
		refuse_head(w, c, status, a.h.reason, parser, head, from);
	else
		admission_begin(w, c, &a, parser, head,
				(struct slice){head + parser->head_len, len - parser->head_len});
	return false;
}

void input_refuse_proxy(struct worker *w, struct conn *c)
{
	const struct address peer = address_peer(c->fd);
	char text[ADDRESS_TEXT_SIZE];
	uint32_t n;

	count_add(&w->count->refused[COUNT_REFUSED_proxy], 1);
	limits_said(w, COUNT_REFUSED_proxy, (struct slice){(const char *)peer.ip, sizeof(peer.ip)}, &n);
	address_text(&peer, text);
	if (n > 0)
		log_event(LOG_INFO, "refused", "addr=%s code=0 reason=proxy total=%u", text, n);
	conn_drop(w, c, false, 1006);
}

/* A PROXY header at the beginning of what has come: *used becomes its length, *from what it says. False:
 * there is more to come, or the connection is gone (*is_gone). */
static bool proxy_bytes(struct worker *w, struct conn *c, const char *p, size_t len, size_t *used,
			struct address *from, bool *is_gone)
{
	struct proxy_header h;

	*is_gone = false;
	switch (proxy_parse(p, len, &h)) {
	case PROXY_MORE:
		return false;
	case PROXY_BAD:
		input_refuse_proxy(w, c);
		*is_gone = true;
		return false;
	case PROXY_DONE:
		break;
	}
	c->flags &= (uint16_t)~CONN_PROXY;
	*used = h.len;
	*from = h.source;
	return true;
}

/* Keep what is not enough to go on; parser NULL: not even the PROXY header is whole. */
static void handshake_keep(struct worker *w, struct conn *c, struct slice bytes,
			   const struct http_parser *parser, const struct address *from)
{
	struct conn_ext *x = conn_ext(c);

	if (x != NULL && parser != NULL) {
		x->http = malloc(sizeof(*x->http));
		if (x->http != NULL)
			*x->http = *parser;
	}
	if (x == NULL || (parser != NULL && x->http == NULL) || buf_put(&x->in, bytes.p, bytes.len) == -1)
		input_refuse(w, c, 503, "no_memory");
	else
		x->from = *from;
}

/* recv() said 0 or an error before the handshake was over. */
static void handshake_ended(struct worker *w, struct conn *c, ssize_t n)
{
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return;
	count_add(&w->count->refused[COUNT_REFUSED_aborted], 1);
	conn_drop(w, c, false, 1006);
}

/* The common head comes in one piece: it is parsed where it was read, nothing is allocated. */
static void handshake_first(struct worker *w, struct conn *c)
{
	static char head[READ_BYTES]; /* static: one thread, and too large for the stack's taste */
	static struct http_parser parser;
	ssize_t n = recv(c->fd, head, sizeof(head), MSG_DONTWAIT);
	struct address from = {false, {0}};
	bool is_gone;
	size_t used = 0;

	if (n <= 0) {
		handshake_ended(w, c, n);
		return;
	}
	if ((c->flags & CONN_PROXY) && !proxy_bytes(w, c, head, (size_t)n, &used, &from, &is_gone)) {
		if (!is_gone)
			handshake_keep(w, c, (struct slice){head, (size_t)n}, NULL, &from);
		return;
	}
	http_init(&parser, &w->config->limits);
	if (handshake_bytes(w, c, &parser, head + used, (size_t)n - used, &from))
		handshake_keep(w, c, (struct slice){head + used, (size_t)n - used}, &parser, &from);
}

/* The PROXY header has been waited for. True: it is there now, and the head's turn has come. */
static bool handshake_proxy(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	bool is_gone;
	size_t used;

	if (!proxy_bytes(w, c, x->in.p, x->in.len, &used, &x->from, &is_gone))
		return false;
	buf_shift(&x->in, used);
	x->http = malloc(sizeof(*x->http));
	if (x->http == NULL) {
		input_refuse(w, c, 503, "no_memory");
		return false;
	}
	http_init(x->http, &w->config->limits);
	return true;
}

static void handshake_more(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	struct http_parser *parser;
	struct buf head;
	ssize_t n;

	if (buf_reserve(&x->in, 2048) == -1) {
		input_refuse(w, c, 503, "no_memory");
		return;
	}
	n = recv(c->fd, x->in.p + x->in.len, x->in.cap - x->in.len, MSG_DONTWAIT);
	if (n <= 0) {
		handshake_ended(w, c, n);
		return;
	}
	x->in.len += (size_t)n;
	if ((c->flags & CONN_PROXY) && !handshake_proxy(w, c))
		return;
	/* Ours during the call: what follows the handshake uses the fields anew. */
	parser = x->http;
	head = x->in;
	x->in = (struct buf){0};
	x->http = NULL;
	if (handshake_bytes(w, c, parser, head.p, head.len, &x->from)) {
		x->in = head;
		x->http = parser;
		return;
	}
	free(parser);
	buf_free(&head);
}

/* AUTHORIZING, JOINING: what comes before our 101 is kept for later, a little of it. */
static void joining_read(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	ssize_t n;

	if (x->in.len >= READ_BYTES || buf_reserve(&x->in, 2048) == -1) {
		input_refuse(w, c, 400, "early_data");
		return;
	}
	n = recv(c->fd, x->in.p + x->in.len, x->in.cap - x->in.len, MSG_DONTWAIT);
	if (n <= 0)
		handshake_ended(w, c, n);
	else
		x->in.len += (size_t)n;
}

/* ---------------------------------------------------------------- messages */

struct feeding {
	struct worker *worker;
	struct conn *conn;
	bool has_message; /* one came to its end in these bytes */
	bool is_over;     /* the client sends faster than it may */
};

bool input_publish(struct worker *w, struct conn *c, uint8_t opcode, struct slice payload, bool is_resumed)
{
	const struct channel *ch = channel_at(&w->channels, c->channel);
	enum publish_result r;

	/* Who comes while others wait for the uplink waits behind them. */
	if (!is_resumed && w->starving_head != CONN_NONE)
		return false;
	r = publish_message(w, ns_of(w, c), channel_room(ch), opcode, payload,
			    CFG_SRC_CLIENT, conn_tag(c));
	if (r == PUBLISH_OK && c->in_flight < UINT16_MAX)
		c->in_flight++;
	return r == PUBLISH_OK;
}

/* A message of an OPEN connection. is_resumed: it has waited for the uplink. May close or drop the
 * connection. */
static enum ws_take take_message(struct worker *w, struct conn *c, uint8_t opcode, struct slice text,
				 bool is_resumed)
{
	const struct cfg_namespace *ns = ns_of(w, c);

	if (!is_resumed)
		count_add(&w->count->ns[ns->id].client_messages, 1);
	if (rules_apply(w, c))
		return rules_message(w, c, opcode, text, is_resumed);
	if ((ns->publish & CFG_SRC_CLIENT) == 0)
		return WS_TAKEN; /* a subscriber's chatter is none of ours */
	return input_publish(w, c, opcode, text, is_resumed) ? WS_TAKEN : WS_HOLD;
}

/* A message or a control frame came. False: it has no token. */
static bool is_in_time(struct feeding *f, bool is_message)
{
	if (f->conn->session == SESSION_NONE)
		return true;
	rules_heard(f->worker, f->conn, is_message);
	f->is_over = !rate_take(f->worker, f->conn);
	return !f->is_over;
}

static enum ws_take on_message(void *arg, uint8_t opcode, const uint8_t *p, size_t len)
{
	struct feeding *f = arg;
	struct conn *c = f->conn;

	f->has_message = true;
	if (c->state != CONN_OPEN)
		return WS_TAKEN;
	if (!is_in_time(f, true))
		return WS_HOLD;
	return take_message(f->worker, c, opcode, (struct slice){(const char *)p, len}, false);
}

static void on_ping(void *arg, const uint8_t *p, size_t len)
{
	struct feeding *f = arg;

	if (f->conn->state != CONN_OPEN)
		return;
	(void)is_in_time(f, false); /* it is answered all the same: one read is a bounded number of them */
	output_pong(f->worker, f->conn, p, len);
}

/* Any byte ends the wait for it (conn_heard). */
static void on_pong(void *arg)
{
	struct feeding *f = arg;

	if (f->conn->state == CONN_OPEN)
		(void)is_in_time(f, false);
}

static void on_close(void *arg, uint16_t code)
{
	struct feeding *f = arg;

	if (f->conn->state == CONN_FREE)
		return; /* dropped by an earlier frame of the same bytes */
	f->conn->flags |= CONN_CLOSE_SEEN;
	if (f->conn->state == CONN_OPEN)
		f->conn->close_code = code;
}

/* The peer's Close: answered at once, or after its own publications are back. */
static void answer_close(struct worker *w, struct conn *c)
{
	if (c->state == CONN_CLOSING) {
		output_peer_closed(w, c);
		return;
	}
	c->flags |= CONN_CLOSE_WAIT;
	wheel_set(&w->wheel, c->index, w->now_ms + CLOSE_WAIT_MS);
	conn_arm(w, c);
	input_close_if_done(w, c);
}

/* Keep what could not be looked at because a message is held: for its rate, or for the uplink. */
static bool keep_rest(struct worker *w, struct conn *c, const uint8_t *p, size_t len, bool is_over)
{
	struct conn_ext *x = conn_ext(c);

	if (x == NULL || buf_put(&x->in, p, len) == -1) {
		conn_close(w, c, 1011, NULL);
		return false;
	}
	if (is_over)
		rate_hold(w, c);
	else
		publish_wait(w, c);
	return true;
}

/* Feed bytes to the WebSocket side. False: the connection is gone, or not to be touched. */
static bool feed(struct worker *w, struct conn *c, const uint8_t *p, size_t len)
{
	static const struct ws_handler handler = {on_message, on_ping, on_pong, on_close};
	const struct cfg_namespace *ns = ns_of(w, c);
	struct ws_limits limits = {ns->max_message, w->config->limits.max_fragments};
	struct feeding f = {.worker = w, .conn = c};
	uint32_t gen = c->gen;
	struct ws_in *state = c->ext == NULL ? NULL : c->ext->ws;
	bool was_whole = state == NULL;
	size_t used;
	int code;

	/* While ws works on it the state is ours: a handler that drops the connection must not free it. */
	if (c->ext != NULL)
		c->ext->ws = NULL;
	code = ws_feed(w->ws_pool, &state, &limits, &handler, &f, p, len, &used);
	if (c->gen != gen) {
		ws_reset(w->ws_pool, &state);
		return false;
	}
	if (state != NULL) {
		struct conn_ext *x = conn_ext(c);

		if (x == NULL) {
			ws_reset(w->ws_pool, &state);
			conn_drop(w, c, true, 1011);
			return false;
		}
		x->ws = state;
		if (was_whole || f.has_message)
			x->ws_since = (uint32_t)w->now_ms;
	}
	if (code != 0) {
		bool is_closing = c->state == CONN_CLOSING;

		if (!is_closing)
			conn_close(w, c, (uint16_t)code, NULL);
		if (c->gen != gen)
			return false;
		c->flags |= CONN_CLOSE_SEEN; /* nothing more of it is looked at */
		output_peer_closed(w, c);
		return c->gen == gen;
	}
	if (c->flags & CONN_CLOSE_SEEN) {
		answer_close(w, c);
		return c->gen == gen;
	}
	if (state != NULL && ws_held(state, &(uint8_t){0}).p != NULL)
		return keep_rest(w, c, p + used, len - used, f.is_over);
	if (f.is_over && c->state == CONN_OPEN)
		rate_hold(w, c); /* control frames */
	return true;
}

/* CLOSING: only the peer's Close is of interest; after our FIN not even that. */
static void peer_is_gone(struct worker *w, struct conn *c)
{
	/* An orderly end if both Closes are through, else 1006, counted while it was OPEN. */
	conn_drop(w, c, false, 1006);
}

/* Not read now. */
static bool is_stopped(const struct conn *c)
{
	return (c->flags & (CONN_PAUSED | CONN_HELD | CONN_CLOSE_WAIT)) != 0;
}

static void messages_read(struct worker *w, struct conn *c)
{
	static uint8_t bytes[READ_BYTES];
	uint32_t gen = c->gen;
	bool is_empty = false;

	for (int i = 0; i < READS_A_TURN; i++) {
		ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
			peer_is_gone(w, c);
			return;
		}
		is_empty = n < (ssize_t)sizeof(bytes);
		if (n == -1)
			break;
		conn_heard(w, c);
		if ((c->flags & (CONN_SHUT | CONN_CLOSE_SEEN)) == 0) {
			if (!feed(w, c, bytes, (size_t)n) || c->gen != gen)
				return;
		}
		if (is_empty || is_stopped(c))
			break;
	}
	if (is_empty && c->session != SESSION_NONE)
		rate_at_rest(w, c);
	conn_ext_trim(c);
}

void input_ready(struct worker *w, struct conn *c)
{
	switch ((enum conn_state)c->state) {
	case CONN_HANDSHAKE:
		if (c->ext == NULL)
			handshake_first(w, c);
		else
			handshake_more(w, c);
		break;
	case CONN_AUTHORIZING:
	case CONN_JOINING:
		joining_read(w, c);
		break;
	case CONN_OPEN:
	case CONN_CLOSING:
		messages_read(w, c);
		break;
	case CONN_FREE:
		break;
	}
}

enum held { HELD_TAKEN, HELD_WAITS, HELD_CLOSED };

/* The message that is kept, if one is. CLOSED: the connection is gone, or closing and has forgotten it. */
static enum held take_held(struct worker *w, struct conn *c, bool is_resumed)
{
	uint32_t gen = c->gen;
	uint8_t opcode;
	struct slice held = ws_held(c->ext == NULL ? NULL : c->ext->ws, &opcode);

	if (held.p == NULL)
		return HELD_TAKEN;
	if (take_message(w, c, opcode, held, is_resumed) == WS_HOLD)
		return HELD_WAITS;
	if (c->gen != gen || c->state != CONN_OPEN)
		return HELD_CLOSED;
	ws_held_done(w->ws_pool, &c->ext->ws);
	return HELD_TAKEN;
}

/* It is read again, and first what was read behind the kept message. Not having been read was not the
 * client's doing. */
static void go_on(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;
	struct buf in = {0};
	uint32_t gen = c->gen;

	conn_heard(w, c);
	if (c->session != SESSION_NONE)
		rules_heard(w, c, true);
	conn_arm(w, c);
	if (x == NULL)
		return;
	in = x->in;
	x->in = (struct buf){0};
	if (feed(w, c, (const uint8_t *)in.p, in.len) && c->gen == gen)
		conn_ext_trim(c);
	buf_free(&in);
}

bool input_resume(struct worker *w, struct conn *c)
{
	switch (take_held(w, c, true)) {
	case HELD_WAITS:
		return false;
	case HELD_CLOSED:
		return true;
	case HELD_TAKEN:
		break;
	}
	publish_forget(w, c);
	go_on(w, c);
	return true;
}

bool input_release(struct worker *w, struct conn *c)
{
	uint32_t gen = c->gen;

	c->flags &= (uint16_t)~CONN_HELD;
	if (c->ext != NULL && ws_held(c->ext->ws, &(uint8_t){0}).p != NULL && !rate_take(w, c)) {
		rate_hold(w, c); /* another socket of the user's was faster */
		return true;
	}
	switch (take_held(w, c, false)) {
	case HELD_WAITS:
		publish_wait(w, c);
		return true;
	case HELD_CLOSED:
		return false;
	case HELD_TAKEN:
		break;
	}
	go_on(w, c);
	/* At once: what it had sent may be all, and then it is at rest (rate_at_rest). */
	if (c->gen == gen && c->state == CONN_OPEN && !is_stopped(c))
		messages_read(w, c);
	return c->gen == gen && c->state == CONN_OPEN && (c->flags & CONN_CLOSE_WAIT) == 0;
}

void input_closing(struct worker *w, struct conn *c)
{
	struct conn_ext *x = c->ext;

	if (x == NULL || ws_held(x->ws, &(uint8_t){0}).p == NULL)
		return;
	/* What was read behind it goes too, so nothing that follows can be told apart any more: read and
	 * thrown away. */
	ws_held_done(w->ws_pool, &x->ws);
	buf_free(&x->in);
	c->flags |= CONN_CLOSE_SEEN;
}

void input_sweep(struct worker *w)
{
	if (ws_pool_memory(w->ws_pool) <= w->ws_memory / 2)
		return;
	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		struct conn *c = conn_at(&w->conns, i);

		if (c->state == CONN_OPEN && c->ext != NULL && ws_is_mid_message(c->ext->ws) &&
		    (uint32_t)w->now_ms - c->ext->ws_since >= MESSAGE_MS)
			conn_close(w, c, 1008, "message takes too long");
	}
}

void input_own_seen(struct worker *w, struct conn *c)
{
	if (c->in_flight > 0)
		c->in_flight--;
	input_close_if_done(w, c);
}

void input_close_if_done(struct worker *w, struct conn *c)
{
	/* BEHIND: they are back in the ring, but not yet all with the client. */
	if (c->in_flight == 0 && (c->flags & (CONN_CLOSE_WAIT | CONN_BEHIND)) == CONN_CLOSE_WAIT)
		conn_close(w, c, c->close_code, NULL);
}
