#include "worker/command.h"

#include <stdlib.h>
#include <string.h>

#include "common/integer.h"
#include "common/json.h"
#include "common/log.h"
#include "worker/admission.h"
#include "worker/auth.h"
#include "worker/input.h"
#include "worker/worker.h"

#define BEAT_EVERY 64 /* closes between heartbeats */
#define LOG_MS     1000

enum key {
	KEY_METHOD,
	KEY_USER,
	KEY_SESSION,
	KEY_CONN,
	KEY_CHANNEL,
	KEY_NAMESPACE,
	KEY_CODE,
	KEY_REASON,
	KEY_GROUP,
	KEY_ADD,
	KEY_REMOVE,
	KEYS
};
static const char *const key_names[KEYS] = {"method", "user",   "session", "conn", "channel", "namespace",
					    "code",   "reason", "group",   "add",  "remove"};

/* The last of each key; p == NULL: not there. */
struct order {
	struct {
		struct slice raw;
		enum json_type type;
	} key[KEYS];
};

/* A decoded string, or an integer's digits. */
struct text {
	char s[CFG_NAME_MAX + 1 + CFG_ROOM_MAX + 1];
	size_t len;
};

static struct slice slice_of(const struct text *t)
{
	return (struct slice){t->s, t->len};
}

/* ---------------------------------------------------------------- reading */

static bool read_order(struct slice json, struct order *o)
{
	struct json_iter it;
	struct json_member m;
	int more;

	*o = (struct order){0};
	if (json_object_begin(&it, json) == -1)
		return false;
	while ((more = json_object_next(&it, &m)) == 1) {
		for (int k = 0; k < KEYS; k++) {
			if (!json_is(m.key, key_names[k]))
				continue;
			o->key[k].raw = m.value;
			o->key[k].type = m.type;
		}
	}
	return more == 0;
}

/* A value as text: a string, or (is_id) an integer. At most `max` bytes, and one at least. */
static bool text_of(struct slice raw, enum json_type type, bool is_id, size_t max, struct text *t)
{
	ssize_t n = -1;

	if (type == JSON_TYPE_STRING)
		n = json_string_copy(raw, t->s, max);
	else if (type == JSON_TYPE_NUMBER && is_id)
		n = (ssize_t)integer_canonical(raw, t->s, max);
	t->len = n > 0 ? (size_t)n : 0;
	t->s[t->len] = '\0';
	return n > 0;
}

static bool key_text(const struct order *o, enum key k, size_t max, struct text *t)
{
	bool is_id = k == KEY_USER || k == KEY_SESSION || k == KEY_GROUP;

	return o->key[k].raw.p != NULL && text_of(o->key[k].raw, o->key[k].type, is_id, max, t);
}

/* What a server may send to say why; 1000 would mean that all is well (RFC 6455, section 7.4). */
static uint16_t close_code(const struct order *o)
{
	struct text t;
	unsigned long code = 0;

	if (o->key[KEY_CODE].raw.p != NULL && o->key[KEY_CODE].type == JSON_TYPE_NUMBER &&
	    text_of(o->key[KEY_CODE].raw, JSON_TYPE_NUMBER, true, 4, &t))
		code = strtoul(t.s, NULL, 10);
	if ((code >= 1001 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	    (code >= 3000 && code <= 4999))
		return (uint16_t)code;
	return 1008;
}

/* ---------------------------------------------------------------- disconnect */

struct eviction {
	uint16_t code;
	char reason[IDENTITY_REASON_MAX + 1];
	uint32_t n;
};

static void evicted(struct worker *w, struct eviction *e)
{
	count_add(&w->count->evicted, 1);
	if (++e->n % BEAT_EVERY == 0)
		slot_beat(&w->slot);
}

static void evict(struct worker *w, struct conn *c, struct eviction *e)
{
	conn_close(w, c, e->code, e->reason);
	evicted(w, e);
}

/* It has been authorized, but is no member yet: it comes no further. */
static void turn_away(struct worker *w, struct conn *c, struct eviction *e)
{
	const struct admission_refusal r = {.why = COUNT_REFUSED_auth,
					    .status = 403,
					    .code = e->code,
					    .reason = {e->reason, strlen(e->reason)}};
	struct buf answer = {0};

	if (c->ext != NULL && c->ext->admission != NULL) {
		admission_refuse(w, c, c->ext->admission, &r);
	} else if (w->config->namespaces[c->ns].refuse == CFG_REFUSE_CLOSE && c->ext != NULL) {
		answer = c->ext->out; /* the 101, which waited for the channel */
		c->ext->out = (struct buf){0};
		count_add(&w->count->refused[r.why], 1);
		conn_reject(w, c, (struct slice){answer.p, answer.len}, e->code, e->reason);
	} else {
		input_refuse(w, c, 403, "auth");
	}
	buf_free(&answer);
	evicted(w, e);
}

static bool is_pending(const struct conn *c)
{
	return c->state == CONN_AUTHORIZING || c->state == CONN_JOINING;
}

/* Which of a connection's strings is compared. */
enum whose { WHOSE_USER, WHOSE_SESSION };

static bool is_of(const struct worker *w, const struct conn *c, enum whose whose, struct slice id)
{
	const struct session *s = session_of(w, c);
	struct slice own;

	if (s == NULL)
		return false;
	own = whose == WHOSE_USER ? session_user(w, s) : session_tag(s);
	return own.len > 0 && own.len == id.len && memcmp(own.p, id.p, id.len) == 0;
}

/* Look at every connection: those that are open (if so wanted), and those that are about to be. ns:
 * CFG_MAX_NAMESPACES for all. */
static void evict_scanned(struct worker *w, enum whose whose, struct slice id, uint16_t ns, bool also_open,
			  struct eviction *e)
{
	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		struct conn *c = conn_at(&w->conns, i);

		if (c->state == CONN_FREE || (ns != CFG_MAX_NAMESPACES && c->ns != ns) ||
		    !is_of(w, c, whose, id))
			continue;
		if (is_pending(c))
			turn_away(w, c, e);
		else if (also_open && c->state == CONN_OPEN)
			evict(w, c, e);
	}
}

static void evict_user(struct worker *w, struct slice id, uint16_t only_ns, struct eviction *e)
{
	auth_uncache_user(w, id);
	for (uint16_t ns = 0; ns < w->config->n_namespaces; ns++) {
		uint32_t index;

		/* Each close takes one of his sockets away, the last one himself. */
		while ((only_ns == CFG_MAX_NAMESPACES || only_ns == ns) &&
		       (index = user_find(w, ns, id)) != USER_NONE)
			evict(w, conn_at(&w->conns, user_sockets(user_at(w, index))[0]), e);
	}
	if (w->conns.n_handshaking > 0)
		evict_scanned(w, WHOSE_USER, id, only_ns, false, e);
}

static void evict_conn(struct worker *w, struct slice id, struct eviction *e)
{
	struct conn *c = conn_by_id(w, id);

	if (c == NULL)
		return;
	if (c->state == CONN_OPEN)
		evict(w, c, e);
	else if (is_pending(c))
		turn_away(w, c, e);
}

/* "ns" or "ns:room": all members, and those that wait to be. */
static void evict_channel(struct worker *w, struct slice name, struct eviction *e)
{
	const char *colon = memchr(name.p, ':', name.len);
	size_t ns_len = colon == NULL ? name.len : (size_t)(colon - name.p);
	const struct cfg_namespace *ns = config_find(w->config, (struct slice){name.p, ns_len});
	struct slice room = {0};
	uint32_t index;
	uint64_t hash;

	if (ns == NULL)
		return;
	if (colon != NULL)
		room = (struct slice){colon + 1, name.len - ns_len - 1};
	hash = rec_channel_hash(w->globals->hash_key, ns->id, room);
	while ((index = channel_find(w, hash, ns->id, room)) != CHANNEL_NONE) {
		struct channel *ch = channel_at(&w->channels, index);

		if (ch->n > 0)
			evict(w, conn_at(&w->conns, channel_members(ch)[ch->n - 1]), e);
		else if (ch->waiting != CONN_NONE)
			turn_away(w, conn_at(&w->conns, ch->waiting), e);
		else
			break;
	}
}

static bool disconnect(struct worker *w, const struct order *o)
{
	static const enum key whom[] = {KEY_USER, KEY_SESSION, KEY_CONN, KEY_CHANNEL};
	struct eviction e = {.code = close_code(o)};
	struct text id, name;
	uint16_t ns = CFG_MAX_NAMESPACES;
	enum key by = KEYS;

	for (size_t i = 0; i < ARRAY_LEN(whom); i++) {
		if (o->key[whom[i]].raw.p == NULL)
			continue;
		if (by != KEYS)
			return false; /* one of them: two would be a guess */
		by = whom[i];
	}
	if (by == KEYS || !key_text(o, by, by == KEY_CHANNEL ? sizeof(id.s) - 1 : IDENTITY_USER_MAX, &id))
		return false;
	if (key_text(o, KEY_REASON, IDENTITY_REASON_MAX, &name))
		memcpy(e.reason, name.s, name.len);
	if (o->key[KEY_NAMESPACE].raw.p != NULL) {
		const struct cfg_namespace *n;

		if (!key_text(o, KEY_NAMESPACE, CFG_NAME_MAX, &name))
			return false;
		n = config_find(w->config, slice_of(&name));
		if (n == NULL)
			return true; /* nobody here is in it */
		ns = (uint16_t)(n - w->config->namespaces);
	}
	if (by == KEY_USER)
		evict_user(w, slice_of(&id), ns, &e);
	else if (by == KEY_SESSION)
		evict_scanned(w, WHOSE_SESSION, slice_of(&id), ns, true, &e);
	else if (by == KEY_CONN)
		evict_conn(w, slice_of(&id), &e);
	else
		evict_channel(w, slice_of(&id), &e);
	if (e.n > 0)
		log_event(LOG_INFO, "evicted", "code=%u total=%u", e.code, e.n);
	return true;
}

/* ---------------------------------------------------------------- groups */

struct names {
	struct slice *list;
	size_t n, cap;
	struct buf text;
};

static void names_free(struct names *n)
{
	free(n->list);
	buf_free(&n->text);
}

static int names_put(struct names *n, const struct text *t)
{
	if (n->n == n->cap) {
		size_t cap = n->cap == 0 ? 16 : n->cap * 2;
		struct slice *list = realloc(n->list, cap * sizeof(*list));

		if (list == NULL)
			return -1;
		n->list = list;
		n->cap = cap;
	}
	/* The buffer moves while it grows: pointers are set when it is complete. */
	n->list[n->n++] = (struct slice){NULL, t->len};
	return buf_put(&n->text, t->s, t->len);
}

/* Users of an array; what is neither string nor integer, or too long, is nobody. 0, or -1: no array, no
 * memory. */
static int read_names(const struct order *o, enum key k, struct names *n)
{
	struct json_iter it;
	enum json_type type;
	struct slice value;
	const char *p;

	if (o->key[k].raw.p == NULL)
		return 0;
	if (o->key[k].type != JSON_TYPE_ARRAY || json_array_begin(&it, o->key[k].raw) == -1)
		return -1;
	while (json_array_next(&it, &value, &type) == 1) {
		struct text t;

		if (text_of(value, type, true, IDENTITY_USER_MAX, &t) && names_put(n, &t) == -1)
			return -1;
	}
	p = n->text.p;
	for (size_t i = 0; i < n->n; p += n->list[i].len, i++)
		n->list[i].p = p;
	return 0;
}

static bool change_groups(struct worker *w, const struct order *o)
{
	struct names add = {0}, remove = {0};
	struct text group;
	bool is_good = key_text(o, KEY_GROUP, IDENTITY_USER_MAX, &group) &&
		       read_names(o, KEY_ADD, &add) == 0 && read_names(o, KEY_REMOVE, &remove) == 0;

	if (is_good) {
		for (size_t i = 0; i < add.n; i++)
			auth_note_group_change(w, slice_of(&group), add.list[i], true);
		for (size_t i = 0; i < remove.n; i++)
			auth_note_group_change(w, slice_of(&group), remove.list[i], false);
		user_change_group(w, slice_of(&group), add.list, add.n, remove.list, remove.n);
	}
	names_free(&add);
	names_free(&remove);
	return is_good;
}

/* ---------------------------------------------------------------- */

static void log_malformed(const struct worker *w)
{
	static uint64_t next_ms;

	if (w->now_ms < next_ms)
		return;
	next_ms = w->now_ms + LOG_MS;
	log_event(LOG_WARN, "bad_command", "msg=\"a control message that is none\"");
}

void command_handle(struct worker *w, struct slice json)
{
	struct order o;
	struct text method;
	bool is_good = read_order(json, &o) && key_text(&o, KEY_METHOD, 32, &method);

	if (is_good && strcmp(method.s, "disconnect") == 0)
		is_good = disconnect(w, &o);
	else if (is_good && strcmp(method.s, "groups") == 0)
		is_good = change_groups(w, &o);
	else
		is_good = false;
	if (!is_good)
		log_malformed(w);
}
