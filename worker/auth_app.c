#include "worker/auth_app.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "worker/admission.h"
#include "worker/auth_hook.h"
#include "worker/output.h"
#include "worker/place.h"
#include "worker/worker.h"

#define KEY_VALUE_MAX 8192u /* a cache key's value that is longer is not there */

/* A request about a connection that is under way. */
struct pending {
	struct pending *prev, *next; /* of its connection */
	struct worker *worker;
	struct conn *conn;
	struct hook_request *request;
	uint64_t change; /* number of the last change when it was asked */
	bool is_repeated;
};

enum part { PART_URI, PART_QUERY, PART_COOKIE, PART_ORIGIN, PARTS };

/* What a hook is asked with, and what is being asked. In session_more.request. There is one for each
 * connection that is asked for again: lengths are those of a request's head. */
struct auth_request {
	struct pending *pending;
	uint32_t len[PARTS];
	bool is_cached; /* the verdict goes into the cache, under the key */
	char text[];    /* the key, if it is cached; the parts in order */
};

static const struct cfg_namespace *ns_of(const struct worker *w, const struct conn *c)
{
	return &w->config->namespaces[c->ns];
}

/* ---------------------------------------------------------------- what is asked */

static struct auth_request *request_of(const struct worker *w, const struct conn *c)
{
	const struct session *s = session_of(w, c);

	return s == NULL || s->more == NULL ? NULL : s->more->request;
}

static struct auth_hook *hook_of(const struct worker *w, const struct conn *c)
{
	return w->auth->hooks[ns_of(w, c)->auth - w->config->auths];
}

static struct slice header_of(const struct auth_ask *ask, const char *name)
{
	struct slice value;

	return http_header(ask->parser, ask->head, name, &value) > 0 ? value : (struct slice){NULL, 0};
}

/* key: NULL if the verdict is not cached. */
static struct auth_request *new_request(const struct auth_ask *ask, const uint8_t *key)
{
	const struct slice part[PARTS] = {
		[PART_URI] = http_slice(ask->head, ask->parser->path),
		[PART_QUERY] = http_slice(ask->head, ask->parser->query),
		[PART_COOKIE] = header_of(ask, "cookie"),
		[PART_ORIGIN] = header_of(ask, "origin"),
	};
	size_t len = key == NULL ? 0 : AUTH_KEY_LEN;
	struct auth_request *q;
	char *at;

	for (int i = 0; i < PARTS; i++)
		len += part[i].len;
	q = malloc(offsetof(struct auth_request, text) + len);
	if (q == NULL)
		return NULL;
	q->pending = NULL;
	q->is_cached = key != NULL;
	at = key == NULL ? q->text : mempcpy(q->text, key, AUTH_KEY_LEN);
	for (int i = 0; i < PARTS; i++) {
		q->len[i] = (uint32_t)part[i].len;
		if (part[i].len > 0)
			at = mempcpy(at, part[i].p, part[i].len);
	}
	return q;
}

static const uint8_t *key_of(const struct auth_request *q)
{
	return (const uint8_t *)q->text;
}

static struct slice part_of(const struct auth_request *q, enum part part)
{
	size_t off = q->is_cached ? AUTH_KEY_LEN : 0;

	for (unsigned i = 0; i < part; i++)
		off += q->len[i];
	return (struct slice){q->text + off, q->len[part]};
}

static int put_member(struct buf *out, const char *name, struct slice value)
{
	return buf_printf(out, ",\"%s\":", name) == -1 ? -1 : json_put_string(out, value);
}

static struct slice text_slice(const char *s)
{
	return (struct slice){s, strlen(s)};
}

/* docs/protocol.md, authorization hook. message.p == NULL: none. */
static int put_body(struct worker *w, const struct conn *c, const char *event, struct slice room,
		    struct slice message, struct buf *out)
{
	const struct auth_request *q = request_of(w, c);
	char id[CONN_ID_SIZE], address[ADMISSION_ADDRESS_SIZE];

	conn_id(w, c, id);
	admission_address(w, c, address);
	if (buf_printf(out, "{\"event\":\"%s\"", event) == -1 ||
	    put_member(out, "conn", text_slice(id)) == -1 ||
	    put_member(out, "namespace", text_slice(ns_of(w, c)->name)) == -1 ||
	    put_member(out, "room", room) == -1 || buf_puts(out, ",\"method\":\"GET\"") == -1 ||
	    put_member(out, "uri", part_of(q, PART_URI)) == -1 ||
	    put_member(out, "query", part_of(q, PART_QUERY)) == -1 ||
	    buf_puts(out, ",\"headers\":{\"cookie\":") == -1 ||
	    json_put_string(out, part_of(q, PART_COOKIE)) == -1 ||
	    put_member(out, "origin", part_of(q, PART_ORIGIN)) == -1 || buf_puts(out, "}") == -1 ||
	    put_member(out, "address", text_slice(address)) == -1 ||
	    (message.p != NULL && put_member(out, "message", message) == -1))
		return -1;
	return buf_puts(out, "}");
}

/* ---------------------------------------------------------------- asking */

static void unlink_pending(struct pending *p)
{
	struct auth_request *q = request_of(p->worker, p->conn);

	if (p->prev != NULL)
		p->prev->next = p->next;
	else
		q->pending = p->next;
	if (p->next != NULL)
		p->next->prev = p->prev;
}

/* Send what is in `body`. 0, or -1: it can't be asked now. */
static int send_request(struct pending *p, struct buf *body, bool is_message,
			void (*done)(void *arg, struct identity *who))
{
	p->change = p->worker->auth->changes.n;
	p->request = hook_ask(hook_of(p->worker, p->conn), body, is_message, done, p);
	return p->request == NULL ? -1 : 0;
}

static int ask(struct worker *w, struct conn *c, const char *event, struct slice room, struct slice message,
	       void (*done)(void *arg, struct identity *who))
{
	struct auth_request *q = request_of(w, c);
	struct pending *p = calloc(1, sizeof(*p));
	struct buf body = {0};

	if (p == NULL)
		return -1;
	p->worker = w;
	p->conn = c;
	if (put_body(w, c, event, room, message, &body) == -1 ||
	    send_request(p, &body, message.p != NULL, done) == -1) {
		buf_free(&body);
		free(p);
		return -1;
	}
	p->next = q->pending;
	if (q->pending != NULL)
		q->pending->prev = p;
	q->pending = p;
	return 0;
}

void app_forget(struct worker *w, struct conn *c)
{
	struct session *s = session_of(w, c);
	struct auth_request *q = request_of(w, c);

	if (q == NULL)
		return;
	while (q->pending != NULL) {
		struct pending *p = q->pending;

		hook_cancel(p->request);
		unlink_pending(p);
		free(p);
	}
	free(q);
	s->more->request = NULL;
	s->forwards = 0;
	s->is_rechecking = false;
}

/* ---------------------------------------------------------------- the verdict of a hook */

static struct slice room_of(const struct worker *w, const struct conn *c)
{
	const struct channel *ch;

	if (c->channel == CHANNEL_NONE)
		return (struct slice){c->ext->admission->h.room, c->ext->admission->h.room_len};
	ch = channel_at(&w->channels, c->channel);
	return channel_room(ch);
}

/* More groups have changed meanwhile than can be told apart: what the application says now counts. */
static int repeat(struct pending *p, const char *event, void (*done)(void *arg, struct identity *who))
{
	struct buf body = {0};

	if (p->is_repeated)
		return -1;
	p->is_repeated = true;
	if (put_body(p->worker, p->conn, event, room_of(p->worker, p->conn), (struct slice){0}, &body) ==
		    -1 ||
	    send_request(p, &body, false, done) == -1) {
		buf_free(&body);
		return -1;
	}
	return 0;
}

/* Bring a verdict up to date with what happened while the hook thought about it. NULL: none. False: asked
 * again. */
static bool settle(struct pending *p, const char *event, void (*done)(void *arg, struct identity *who),
		   struct identity **who)
{
	struct worker *w = p->worker;
	const struct auth_request *q = request_of(w, p->conn);
	enum auth_apply r;

	if (*who == NULL)
		return true;
	r = auth_changes_apply(&w->auth->changes, p->change, *who);
	if (r == AUTH_UNKNOWN) {
		identity_free(*who);
		*who = NULL;
		return repeat(p, event, done) == -1;
	}
	if (q->is_cached && r == AUTH_UNCHANGED && w->auth->cache != NULL)
		auth_cache_put(w->auth->cache, key_of(q), *who,
			       w->now_ms + ns_of(w, p->conn)->auth->cache_ttl);
	return true;
}

static void connect_done(void *arg, struct identity *who)
{
	struct pending *p = arg;
	struct worker *w = p->worker;
	struct conn *c = p->conn;

	if (!settle(p, "connect", connect_done, &who))
		return;
	unlink_pending(p);
	free(p);
	admission_verdict(w, c, auth_unless_expired(who));
}

/* ---------------------------------------------------------------- cache */

static int put_part(struct buf *out, struct slice s)
{
	uint32_t len = s.p == NULL ? UINT32_MAX : (uint32_t)s.len;

	return buf_put(out, &len, sizeof(len)) == -1 ? -1 : buf_put(out, s.p, s.len);
}

/* Everything that the verdict may depend on. Who shows none of the credentials is not cached: nothing tells
 * him from others. */
static bool make_key(const struct auth_ask *ask, uint8_t key[AUTH_KEY_LEN])
{
	const struct cfg_auth *a = ask->ns->auth;
	char value[KEY_VALUE_MAX];
	struct buf text = {0};
	bool is_known = false, is_made = false;

	if (put_part(&text, text_slice(a->name)) == -1 || put_part(&text, text_slice(ask->ns->name)) == -1 ||
	    put_part(&text, ask->room) == -1 || put_part(&text, ask->user) == -1)
		goto out;
	for (size_t i = 0; i < a->n_cache_key; i++) {
		struct slice v = place_find(&a->cache_key[i], ask->parser, ask->head, value, sizeof(value));

		is_known |= v.p != NULL;
		if (put_part(&text, v) == -1)
			goto out;
	}
	is_made = is_known && auth_cache_key((struct slice){text.p, text.len}, key);
out:
	explicit_bzero(value, sizeof(value));
	if (text.p != NULL)
		explicit_bzero(text.p, text.len);
	buf_free(&text);
	return is_made;
}

static bool is_cacheable(const struct worker *w, const struct cfg_namespace *ns)
{
	/* First frames are never cached, so who needs them has to ask. */
	return w->auth->cache != NULL && ns->auth->n_cache_key > 0 && ns->auth->cache_ttl > 0 &&
	       !ns->hook_first_frames;
}

/* ---------------------------------------------------------------- handshakes */

enum auth_result app_connect(struct worker *w, struct conn *c, const struct auth_ask *what,
			     struct identity **who)
{
	struct session_more *more = session_more(session_of(w, c));
	uint8_t key[AUTH_KEY_LEN];
	bool is_cached = is_cacheable(w, what->ns) && make_key(what, key);

	if (more == NULL || (more->request = new_request(what, is_cached ? key : NULL)) == NULL)
		return AUTH_FAILED;
	if (is_cached &&
	    (*who = auth_cache_get(w->auth->cache, key, w->now_ms, clock_wall_ms() / 1000)) != NULL) {
		count_add(&w->count->hook_cached, 1);
		return AUTH_DONE;
	}
	return ask(w, c, "connect", what->room, (struct slice){0}, connect_done) == -1 ? AUTH_FAILED
										       : AUTH_WAIT;
}

/* ---------------------------------------------------------------- rechecks and messages */

static void recheck_done(void *arg, struct identity *who)
{
	struct pending *p = arg;
	struct worker *w = p->worker;
	struct conn *c = p->conn;

	if (!settle(p, "recheck", recheck_done, &who))
		return;
	unlink_pending(p);
	free(p);
	auth_rechecked(w, c, auth_unless_expired(who));
}

bool app_recheck(struct worker *w, struct conn *c)
{
	return ask(w, c, "recheck", room_of(w, c), (struct slice){0}, recheck_done) == 0;
}

static void forward_done(void *arg, struct identity *who)
{
	struct pending *p = arg;
	struct worker *w = p->worker;
	struct conn *c = p->conn;
	struct buf out = {0};

	session_of(w, c)->forwards--;
	unlink_pending(p);
	free(p);
	if (who == NULL) {
		count_add(&w->count->forwards_dropped, 1);
		return;
	}
	if (identity_put_frames(who, &out) == -1)
		conn_close(w, c, 1011, NULL);
	else if (out.len > 0)
		(void)output_bytes(w, c, out.p, out.len);
	buf_free(&out);
	identity_free(who);
}

bool auth_forward(struct worker *w, struct conn *c, struct slice message)
{
	struct session *s = session_of(w, c);

	if (message.p == NULL)
		message.p = "";
	if (request_of(w, c) == NULL || s->forwards >= AUTH_FORWARDS_MAX ||
	    ask(w, c, "message", room_of(w, c), message, forward_done) == -1) {
		count_add(&w->count->forwards_dropped, 1);
		return false;
	}
	s->forwards++;
	return true;
}
