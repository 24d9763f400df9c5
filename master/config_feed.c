/* What a namespace does for its clients beyond passing messages on: identity, first and idle frames, rates.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "master/config_build.h"

/* ---- templates ---- */

struct template *build_template(struct scan_doc *doc, const struct scan_section *sec, const char *key,
				const struct template_scope *scope)
{
	const char *text = build_value(sec, key), *wrong;
	struct template *t;

	if (text == NULL || *text == '\0')
		return NULL;
	errno = 0;
	t = template_compile(text, scope, &wrong);
	if (t == NULL && errno == ENOMEM)
		doc->oom = true;
	else if (t == NULL)
		build_problem(doc, sec, key, "%s", wrong);
	return t;
}

bool build_worst_case(const struct cfg_namespace *ns, const struct cfg_rule *rule, const struct template *t,
		      struct buf *out)
{
	static const struct slice raw[] = {[CFG_COERCE_BOOL] = {"true", 4},
					   [CFG_COERCE_INT] = {"-1", 2},
					   [CFG_COERCE_STRING] = {"\"a\\\"b\"", 6}};
	const struct slice text = {"a\"b", 3}, integer = {"1", 1}, name = {ns->name, strlen(ns->name)};
	struct slice msg[CFG_MAX_FIELDS];
	struct template_values v = {
		.room = ns->room_is_int ? integer : text,
		.user = ns->user_query_is_int ? integer : text,
		.conn = {"1-1", 3},
		.session = text,
		.ns = name,
		.node = {"n", 1},
		.msg = msg,
	};

	for (size_t i = 0; rule != NULL && i < rule->n_coerce; i++)
		msg[i] = raw[rule->coerce[i].as];
	return template_render(t, &v, TEMPLATE_AS_JSON, out) == 0;
}

void build_check_frame(struct scan_doc *doc, const struct scan_section *sec, const char *key,
		       const struct cfg_namespace *ns, const struct cfg_rule *rule, const struct template *t)
{
	struct buf out = {0};

	if (t == NULL || ns->name == NULL)
		return;
	if (!build_worst_case(ns, rule, t, &out))
		doc->oom = true;
	else if (out.len > 0 && (out.p[0] == '{' || out.p[0] == '[') &&
		 !json_validate((struct slice){out.p, out.len}, NULL))
		build_problem(
			doc, sec, key,
			"begins like JSON, but is none; what may be text needs quotes around it, what may be "
			"absent :int or :raw");
	buf_free(&out);
}

void build_check_redis_key(struct scan_doc *doc, const struct scan_section *sec, const char *key,
			   const struct template *t)
{
	const char *text = t == NULL ? "x" : template_text(t);

	if (!((*text >= '0' && *text <= '9') || ((*text | 0x20) >= 'a' && (*text | 0x20) <= 'z')))
		build_problem(
			doc, sec, key,
			"a Redis key begins with a letter or digit of its own: else clients could name any");
	else if (strncmp(text, CFG_OWN_PREFIX, strlen(CFG_OWN_PREFIX)) == 0)
		build_problem(doc, sec, key, "may not begin with " CFG_OWN_PREFIX);
}

/* ---- identity ---- */

static void build_identity(struct scan_doc *doc, const struct scan_section *sec, const struct config *c,
			   struct cfg_namespace *ns)
{
	const char *name = build_value(sec, "auth");

	if (name == NULL || *name == '\0')
		return;
	ns->auth = config_find_auth(c, (struct slice){name, strlen(name)});
	if (ns->auth == NULL)
		build_problem(doc, sec, "auth", "there is no section auth \"%.60s\"", name);
}

/* NAME or NAME:int. */
static void build_user_query(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	const char *text = build_value(sec, "user_query"), *colon;
	size_t len;

	if (text == NULL || *text == '\0')
		return;
	colon = strchrnul(text, ':');
	len = (size_t)(colon - text);
	if (len == 0 || len > CFG_NAME_MAX ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != len ||
	    (*colon == ':' && strcmp(colon, ":int") != 0)) {
		build_problem(doc, sec, "user_query",
			      "\"NAME\" or \"NAME:int\" is expected, a name has letters, digits, _, . and -");
		return;
	}
	ns->user_query = build_strndup(doc, text, len);
	ns->user_query_is_int = *colon == ':';
}

static void check_identity(struct scan_doc *doc, const struct scan_section *sec,
			   const struct cfg_namespace *ns)
{
	static const char *const need_name[] = {"presence", "receipts", "offline_max"};
	const bool wants_name[] = {ns->presence, ns->receipts, ns->offline_max > 0};
	const struct scan_entry *auth = scan_find(sec, "auth");
	bool is_hook = ns->auth != NULL && ns->auth->type == CFG_AUTH_HOOK;

	if (auth != NULL &&
	    (auth->bad || (ns->auth == NULL && auth->n_values == 1 && *auth->values[0] != '\0')))
		return; /* reported */
	if (ns->auth != NULL && ns->auth->type == CFG_AUTH_QUERY && ns->user_query == NULL)
		build_problem(doc, sec, "user_query", "is missing: auth \"%s\" believes what it says",
			      ns->auth->name);
	if (ns->auth == NULL && ns->user_query != NULL)
		build_problem(doc, sec, "user_query",
			      "nothing says that it is true: auth is missing (a section of type query "
			      "believes it)");
	if (ns->hook_first_frames && !is_hook)
		build_problem(doc, sec, "hook_first_frames", "needs an auth section of type hook");
	for (size_t i = 0; i < ARRAY_LEN(need_name); i++)
		if (wants_name[i] && ns->auth == NULL)
			build_problem(doc, sec, need_name[i], "nobody has a name here: auth is missing");
}

/* ---- frames ---- */

static void build_greeting(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	const struct template_scope scope = {.has_info = ns->auth != NULL};

	ns->greeting = build_template(doc, sec, "greeting", &scope);
	build_check_frame(doc, sec, "greeting", ns, NULL, ns->greeting);
}

static void build_retain(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	static const char *const names[] = {"retain_key", "retain_unless", "retain_frame"};
	struct template **const places[] = {&ns->retain_key, &ns->retain_unless, &ns->retain_frame};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct template_scope scope = {.has_info = ns->auth != NULL, .has_value = i > 0};

		if (ns->retain != CFG_RETAIN_REDIS) {
			if (scan_find(sec, names[i]) != NULL)
				build_problem(doc, sec, names[i], "needs retain = redis");
			continue;
		}
		*places[i] = build_template(doc, sec, names[i], &scope);
		if (i == 0 && *places[i] == NULL && !doc->oom && build_value(sec, names[i]) == NULL)
			build_problem(doc, sec, names[i], "is missing: retain = redis needs it");
		else if (i != 1 && build_value(sec, names[i]) != NULL && *build_value(sec, names[i]) == '\0')
			build_problem(doc, sec, names[i], "is empty");
	}
	build_check_redis_key(doc, sec, "retain_key", ns->retain_key);
	build_check_redis_key(doc, sec, "retain_unless", ns->retain_unless);
	build_check_frame(doc, sec, "retain_frame", ns, NULL, ns->retain_frame);
}

static void build_idle(struct scan_doc *doc, const struct scan_section *ns_sec, struct cfg_namespace *ns)
{
	const struct template_scope scope = {.has_info = ns->auth != NULL};
	const struct scan_section *sec = NULL;

	for (size_t i = 1; i < doc->n_sections; i++)
		if (doc->sections[i]->parent == ns_sec && strcmp(doc->sections[i]->spec->name, "idle") == 0)
			sec = doc->sections[i];
	if (sec == NULL)
		return;
	build_keys(doc, sec, ns);
	ns->idle.frame = build_template(doc, sec, "frame", &scope);
	build_check_frame(doc, sec, "frame", ns, NULL, ns->idle.frame);
	if (ns->idle.after > 0 && (build_value(sec, "frame") == NULL || *build_value(sec, "frame") == '\0'))
		build_problem(doc, sec, "frame", "is missing");
	if (ns->idle.after == 0 && ns->idle.frame != NULL && scan_find(sec, "after") == NULL)
		build_problem(doc, sec, "after", "is missing");
}

/* ---- the whole ---- */

/* Who is away is looked up in what replicas say about who is present, by his name alone. */
static void check_offline(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns)
{
	if (ns->offline_max > 0 && !ns->presence)
		build_problem(doc, sec, "offline_max", "needs presence = on: nobody knows who is away without it");
	if (ns->offline_max > 0 && ns->room != CFG_ROOM_NONE)
		build_problem(doc, sec, "offline_max", "is not for namespaces with rooms");
}

static void build_rates(const struct scan_section *sec, const struct config *c, struct cfg_namespace *ns)
{
	if (!build_given(sec, "msg_burst"))
		ns->msg_burst = build_given(sec, "msg_rate") ? 0 : c->limits.msg_burst;
	if (!build_given(sec, "msg_rate"))
		ns->msg_rate = c->limits.msg_rate;
	if (!build_given(sec, "user_rate"))
		ns->user_rate = c->limits.user_rate;
	if (ns->msg_burst == 0)
		ns->msg_burst = ns->msg_rate;
}

static void check_json(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns)
{
	const struct scan_entry *e = scan_find(sec, "envelope");

	if (ns->envelope == CFG_ENVELOPE_JSON || (e != NULL && e->bad))
		return;
	if (ns->targeted_only)
		build_problem(doc, sec, "targeted_only",
			      "needs envelope = json: there are no targets without it");
	if (ns->offline_max > 0)
		build_problem(doc, sec, "offline_max",
			      "needs envelope = json: there are no targets without it");
}

void build_feed(struct scan_doc *doc, const struct scan_section *sec, const struct config *c,
		struct cfg_namespace *ns)
{
	build_identity(doc, sec, c, ns);
	build_user_query(doc, sec, ns);
	check_identity(doc, sec, ns);
	check_json(doc, sec, ns);
	check_offline(doc, sec, ns);
	build_rates(sec, c, ns);
	build_greeting(doc, sec, ns);
	build_retain(doc, sec, ns);
	build_idle(doc, sec, ns);
	build_rules(doc, sec, ns);
}
