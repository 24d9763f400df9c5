/* Namespaces: templates, and that no two of them can mean the same path or the same Redis channel. */
#include <stdlib.h>
#include <string.h>

#include "master/config_build.h"

#define CHANNEL_MAX 512 /* bytes of a redis_channel template */
#define ORIGIN_MAX  512

/* "a{room}b" taken apart. */
struct pattern {
	struct slice prefix, suffix;
	const char *var; /* "{room}", "{conn}", "{room:int}" or NULL */
};

static struct slice slice_of(const char *s)
{
	return (struct slice){s, strlen(s)};
}

static bool slice_eq(struct slice a, struct slice b)
{
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

/* NULL, or what is wrong with it. */
static const char *split_pattern(const char *text, struct pattern *t)
{
	static const char *const vars[] = {"{room}", "{conn}", "{room:int}"};
	const char *open = strchr(text, '{');

	*t = (struct pattern){.prefix = slice_of(text), .suffix = slice_of("")};
	for (size_t i = 0; open != NULL && i < ARRAY_LEN(vars); i++)
		if (strncmp(open, vars[i], strlen(vars[i])) == 0)
			t->var = vars[i];
	if (t->var != NULL) {
		t->prefix.len = (size_t)(open - text);
		t->suffix = slice_of(open + strlen(t->var));
	} else if (open != NULL) {
		return "only {room}, {room:int} and {conn} are known in braces";
	}
	if (strchr(t->suffix.p, '{') != NULL)
		return "at most one {...} may stand in it";
	if (memchr(t->prefix.p, '}', t->prefix.len) != NULL || strchr(t->suffix.p, '}') != NULL)
		return "a } without its {";
	return NULL;
}

/* ---- one namespace ---- */

static const char *check_name(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > CFG_NAME_MAX)
		return "a name has 1 to 63 bytes";
	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != len)
		return "letters, digits, _, . and - are expected in a name";
	return NULL;
}

static const char *check_path(const char *path, const struct pattern *t)
{
	if (path[0] != '/')
		return "a path begins with /";
	if (strlen(path) > CFG_PATH_MAX)
		return "a path has at most 1024 bytes";
	for (const char *p = path; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '?' || *p == '#' ||
		    *p == '"' || *p == '\\')
			return "a path has no blanks, quotes, ?, # or non-ASCII (write these as %XX)";
	if (t->var == NULL)
		return NULL;
	if (strcmp(t->var, "{conn}") == 0)
		return "only {room} may stand in a path";
	if (t->prefix.p[t->prefix.len - 1] != '/' || (t->suffix.len > 0 && t->suffix.p[0] != '/'))
		return "{room} must be one whole segment of the path";
	return NULL;
}

static void build_path(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	const char *path = build_value(sec, "path"), *room = build_value(sec, "room"), *wrong;
	struct pattern t;

	if (room != NULL && strcmp(room, "{conn}") != 0)
		build_problem(doc, sec, "room",
			      "only \"{conn}\" is known here; a room in the path needs no key");
	if (path == NULL) {
		if (scan_find(sec, "path") == NULL)
			build_problem(doc, sec, "path", "is missing");
		return;
	}
	wrong = split_pattern(path, &t);
	if (wrong == NULL)
		wrong = check_path(path, &t);
	if (wrong != NULL) {
		build_problem(doc, sec, "path", "%s", wrong);
		return;
	}
	ns->room = t.var != NULL ? CFG_ROOM_PATH : room != NULL ? CFG_ROOM_CONN : CFG_ROOM_NONE;
	if (t.var != NULL && room != NULL)
		build_problem(doc, sec, "room", "the path has a {room} already");
	ns->room_is_int = t.var != NULL && strcmp(t.var, "{room:int}") == 0;
	ns->path = build_strdup(doc, path);
	ns->path_prefix = build_strndup(doc, t.prefix.p, t.prefix.len);
	ns->path_suffix = build_strndup(doc, t.suffix.p, t.suffix.len);
}

static const char *check_channel(const char *text, const struct pattern *t, enum cfg_room room)
{
	if (*text == '\0')
		return "is empty";
	if (strlen(text) > CHANNEL_MAX)
		return "has at most 512 bytes";
	if (t->var != NULL && room == CFG_ROOM_NONE)
		return "has a {...}, but the namespace has no rooms: the path has no {room}, and room is not "
		       "\"{conn}\"";
	if (t->var != NULL && strcmp(t->var, "{room:int}") == 0)
		return "{room:int} belongs in the path; {room} is its canonical text";
	if (t->var != NULL && strcmp(t->var, "{conn}") == 0 && room != CFG_ROOM_CONN)
		return "{conn} needs room = \"{conn}\"";
	/* A room that would make it so (redis_channel = "{room}") is refused by config_redis_channel(). */
	if (strncmp(text, CFG_OWN_PREFIX, strlen(CFG_OWN_PREFIX)) == 0)
		return "may not begin with " CFG_OWN_PREFIX;
	return NULL;
}

static void build_channel(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	const char *text = build_value(sec, "redis_channel"), *wrong;
	struct pattern t;

	if (ns->path == NULL || ns->name == NULL || (text == NULL && scan_find(sec, "redis_channel") != NULL))
		return;
	if (text == NULL) {
		struct buf b = {0};

		ns->redis_has_room = ns->room != CFG_ROOM_NONE;
		if (buf_printf(&b, "%s%s", ns->name, ns->redis_has_room ? ":" : "") == -1)
			doc->oom = true;
		else
			ns->redis_prefix = build_strndup(doc, b.p, b.len);
		buf_free(&b);
		ns->redis_suffix = build_strdup(doc, "");
		return;
	}
	wrong = split_pattern(text, &t);
	if (wrong == NULL)
		wrong = check_channel(text, &t, ns->room);
	if (wrong != NULL) {
		build_problem(doc, sec, "redis_channel", "%s", wrong);
		return;
	}
	ns->redis_has_room = t.var != NULL;
	ns->redis_prefix = build_strndup(doc, t.prefix.p, t.prefix.len);
	ns->redis_suffix = build_strndup(doc, t.suffix.p, t.suffix.len);
}

static void check_family(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	bool shares = ns->room != CFG_ROOM_NONE && !ns->redis_has_room;
	bool eager_given = build_given(sec, "eager");

	if (ns->redis_prefix == NULL)
		return;
	if (shares && scan_find(sec, "route_key") == NULL)
		build_problem(doc, sec, "route_key",
			      "is missing: all rooms share the Redis channel \"%.60s\", something must name "
			      "the room",
			      ns->redis_prefix);
	else if (shares && ns->route_key == NULL)
		build_problem(doc, sec, "route_key", "is empty");
	else if (!shares && ns->route_key != NULL)
		build_problem(doc, sec, "route_key", "only where all rooms share one Redis channel");
	if (eager_given && ns->eager && ns->redis_has_room)
		build_problem(doc, sec, "eager",
			      "rooms have Redis channels of their own here: they are subscribed when "
			      "somebody comes");
	if (eager_given && !ns->eager && !ns->redis_has_room)
		build_problem(doc, sec, "eager",
			      "a Redis channel without {room} is always subscribed from the start");
	ns->eager = !ns->redis_has_room;
}

static void build_origins(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	const struct scan_entry *e = scan_find(sec, "origins");
	char norm[ORIGIN_MAX];

	if (e == NULL || e->bad || e->n_values == 0)
		return;
	ns->origins = calloc(e->n_values, sizeof(*ns->origins));
	if (ns->origins == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 0; i < e->n_values; i++) {
		const char *v = e->values[i];

		if (strcmp(v, "*") != 0) {
			if (!config_origin_normalise(slice_of(v), norm, sizeof(norm))) {
				build_problem(doc, sec, "origins",
					      "\"%.100s\" is not an origin: scheme://host[:port] or \"*\" is "
					      "expected",
					      v);
				continue;
			}
			v = norm;
		}
		ns->origins[ns->n_origins] = build_strdup(doc, v);
		if (ns->origins[ns->n_origins] == NULL)
			return;
		ns->n_origins++;
	}
}

static void build_namespace(struct scan_doc *doc, const struct scan_section *sec, const struct config *c,
			    struct cfg_namespace *ns)
{
	const char *wrong = NULL;

	if (sec->title != NULL && !sec->title->bad && sec->title->n_values == 1) {
		wrong = check_name(sec->title->values[0]);
		if (wrong != NULL)
			build_problem(doc, sec, "", "%s", wrong);
		else
			ns->name = build_strdup(doc, sec->title->values[0]);
	}
	build_keys(doc, sec, ns);
	if (doc->broken)
		return; /* what is missing may stand behind the error */
	if (!build_given(sec, "max_message"))
		ns->max_message = c->limits.max_message;
	if (!build_given(sec, "max_publication"))
		ns->max_publication = c->limits.max_publication;
	build_message_limits(doc, sec, c->ring.size, &ns->max_message, &ns->max_publication);
	build_path(doc, sec, ns);
	build_channel(doc, sec, ns);
	check_family(doc, sec, ns);
	build_origins(doc, sec, ns);
	build_feed(doc, sec, c, ns);
}

/* ---- pairs ---- */

/* The segment of a path at *at; *at goes to the next one, NULL after the last. */
static struct slice segment(const char **at)
{
	const char *p = *at, *end = strchrnul(p, '/');

	*at = *end == '/' ? end + 1 : NULL;
	return (struct slice){p, (size_t)(end - p)};
}

static bool is_variable(struct slice s)
{
	return slice_eq(s, slice_of("{room}")) || slice_eq(s, slice_of("{room:int}"));
}

/* Is there a path that both templates match, and that neither has literally? (A literal one wins over
 * {room}.) */
static bool paths_overlap(const struct cfg_namespace *a, const struct cfg_namespace *b)
{
	const char *p = a->path, *q = b->path;

	if (a->room != CFG_ROOM_PATH || b->room != CFG_ROOM_PATH)
		return strcmp(p, q) == 0;
	while (p != NULL && q != NULL) {
		struct slice s = segment(&p), t = segment(&q);
		bool s_var = is_variable(s), t_var = is_variable(t);

		if (s_var || t_var ? s.len == 0 || t.len == 0 : !slice_eq(s, t))
			return false; /* a room is never empty */
	}
	return p == NULL && q == NULL;
}

static bool starts_with(struct slice s, struct slice with)
{
	return s.len >= with.len && memcmp(s.p, with.p, with.len) == 0;
}

static bool ends_with(struct slice s, struct slice with)
{
	return s.len >= with.len && memcmp(s.p + s.len - with.len, with.p, with.len) == 0;
}

/* Can `literal` be what the template gives for some room? */
static bool channel_matches(const struct cfg_namespace *t, struct slice literal)
{
	struct slice prefix = slice_of(t->redis_prefix), suffix = slice_of(t->redis_suffix), room;

	if (literal.len <= prefix.len + suffix.len || !starts_with(literal, prefix) ||
	    !ends_with(literal, suffix))
		return false;
	room = (struct slice){literal.p + prefix.len, literal.len - prefix.len - suffix.len};
	return room.len <= CFG_ROOM_MAX && memchr(room.p, '/', room.len) == NULL;
}

/* Of two prefixes, one continues the other by something that can begin a room. */
static bool heads_agree(struct slice a, struct slice b)
{
	if (a.len < b.len)
		return heads_agree(b, a);
	return starts_with(a, b) && memchr(a.p + b.len, '/', a.len - b.len) == NULL;
}

static bool tails_agree(struct slice a, struct slice b)
{
	if (a.len < b.len)
		return tails_agree(b, a);
	return ends_with(a, b) && memchr(a.p, '/', a.len - b.len) == NULL;
}

static bool channels_overlap(const struct cfg_namespace *a, const struct cfg_namespace *b)
{
	if (!a->redis_has_room && !b->redis_has_room)
		return strcmp(a->redis_prefix, b->redis_prefix) == 0;
	if (!a->redis_has_room)
		return channel_matches(b, slice_of(a->redis_prefix));
	if (!b->redis_has_room)
		return channel_matches(a, slice_of(b->redis_prefix));
	return heads_agree(slice_of(a->redis_prefix), slice_of(b->redis_prefix)) &&
	       tails_agree(slice_of(a->redis_suffix), slice_of(b->redis_suffix));
}

static void check_pair(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns,
		       const struct scan_section *other_sec, const struct cfg_namespace *other)
{
	if (ns->name == NULL || other->name == NULL)
		return;
	if (strcmp(ns->name, other->name) == 0)
		build_problem(doc, sec, "", "\"%s\" is there twice, first at %s:%u", ns->name,
			      other_sec->pos.file, other_sec->pos.line);
	if (ns->path == NULL || other->path == NULL)
		return;
	if (paths_overlap(ns, other))
		build_problem(doc, sec, "path", "matches the same paths as that of \"%s\" (%s)", other->name,
			      other->path);
	if (ns->redis_prefix != NULL && other->redis_prefix != NULL && channels_overlap(ns, other))
		build_problem(doc, sec, "redis_channel", "can be the same Redis channel as one of \"%s\"",
			      other->name);
}

void build_namespaces(struct scan_doc *doc, struct config *c)
{
	size_t n = scan_count(doc, "namespace"), at = 0;
	const struct scan_section **secs = calloc(n + 1, sizeof(struct scan_section *));

	c->namespaces = calloc(n + 1, sizeof(*c->namespaces));
	if (secs == NULL || c->namespaces == NULL) {
		doc->oom = true;
		free(secs);
		return;
	}
	for (size_t i = 1; i < doc->n_sections && at < CFG_MAX_NAMESPACES; i++) {
		if (strcmp(doc->sections[i]->spec->name, "namespace") != 0)
			continue;
		secs[at] = doc->sections[i];
		c->n_namespaces = at + 1;
		build_namespace(doc, secs[at], c, &c->namespaces[at]);
		at++;
	}
	if (n > CFG_MAX_NAMESPACES)
		scan_problem(doc, &secs[0]->pos, "namespace", "there are %zu of them, %d are possible", n,
			     CFG_MAX_NAMESPACES);
	for (size_t i = 0; i < at && !doc->broken; i++)
		for (size_t j = 0; j < i; j++)
			check_pair(doc, secs[i], &c->namespaces[i], secs[j], &c->namespaces[j]);
	free(secs);
}
