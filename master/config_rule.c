/* Sections "rule" of a namespace: what a client's message does. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"
#include "master/config_build.h"

static const char *const kinds[] = {
	[CFG_ACTION_REPLY] = "reply",       [CFG_ACTION_PUBLISH] = "publish",
	[CFG_ACTION_FORWARD] = "forward",   [CFG_ACTION_IGNORE] = "ignore",
	[CFG_ACTION_RETAINED] = "retained", [CFG_ACTION_STORE] = "store",
	[CFG_ACTION_RECEIPT] = "receipt",
};

/* ---- coerce ---- */

/* NAME:bool, NAME:int or NAME:string. */
static bool parse_field(struct scan_doc *doc, const char *text, struct cfg_field *out)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon == NULL ? 0 : (size_t)(colon - text);
	int as = colon == NULL ? -1 : config_choice("bool|int|string", colon + 1);

	if (as < 0 || len == 0 || len > CFG_NAME_MAX ||
	    strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != len)
		return false;
	out->name = build_strndup(doc, text, len);
	out->as = (enum cfg_coerce)as;
	return out->name != NULL;
}

static bool has_field(const struct cfg_rule *r, const char *name)
{
	for (size_t i = 0; i < r->n_coerce; i++)
		if (strcmp(r->coerce[i].name, name) == 0)
			return true;
	return false;
}

static void build_coerce(struct scan_doc *doc, const struct scan_section *sec, struct cfg_rule *r)
{
	const struct scan_entry *e = scan_find(sec, "coerce");

	if (e == NULL || e->bad || e->n_values == 0)
		return;
	if (e->n_values > CFG_MAX_FIELDS) {
		build_problem(doc, sec, "coerce", "there are %zu fields, %d are possible", e->n_values,
			      CFG_MAX_FIELDS);
		return;
	}
	if (r->match == CFG_MATCH_TEXT) {
		build_problem(doc, sec, "coerce", "a plain text has no fields");
		return;
	}
	r->coerce = calloc(e->n_values, sizeof(*r->coerce));
	if (r->coerce == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 0; i < e->n_values && !doc->oom; i++) {
		struct cfg_field f = {NULL, CFG_COERCE_BOOL};

		if (!parse_field(doc, e->values[i], &f)) {
			build_problem(
				doc, sec, "coerce",
				"\"%.60s\" is not NAME:bool, NAME:int or NAME:string, a name of letters, "
				"digits, _ and .",
				e->values[i]);
		} else if (has_field(r, f.name)) {
			build_problem(doc, sec, "coerce", "\"%s\" is there twice", f.name);
			free(f.name);
		} else {
			r->coerce[r->n_coerce++] = f;
		}
	}
}

/* ---- templates ---- */

static void build_templates(struct scan_doc *doc, const struct scan_section *sec,
			    const struct cfg_namespace *ns, struct cfg_rule *r)
{
	static const char *const names[] = {"frame", "key", "value"};
	struct template **const places[] = {&r->frame, &r->key, &r->value};
	const char *fields[CFG_MAX_FIELDS];
	struct template_scope scope = {
		.fields = fields, .n_fields = r->n_coerce, .has_info = ns->auth != NULL};

	for (size_t i = 0; i < r->n_coerce; i++)
		fields[i] = r->coerce[i].name;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const struct config_key *k =
			config_key_find("rule", (struct slice){names[i], strlen(names[i])});
		const char *text = build_value(sec, names[i]);

		if (!build_has(k, kinds[r->action]))
			continue;
		*places[i] = build_template(doc, sec, names[i], &scope);
		if (scan_find(sec, names[i]) == NULL)
			build_problem(doc, sec, names[i], "is missing: \"%s\" needs it", kinds[r->action]);
		else if (text != NULL && *text == '\0')
			build_problem(doc, sec, names[i], "is empty");
	}
	build_check_frame(doc, sec, "frame", ns, r, r->frame);
}

/* ---- what a published frame must be, so that every replica can route it ---- */

static bool has_target(struct slice object)
{
	struct json_member m;
	struct json_iter it;
	bool found = false;
	int rc;

	if (json_object_begin(&it, object) == -1)
		return false;
	while ((rc = json_object_next(&it, &m)) == 1)
		found |= json_is(m.key, "_target_users") || json_is(m.key, "_target_groups");
	return rc == 0 && found;
}

static const char *check_published(const struct cfg_namespace *ns, struct slice frame)
{
	const char *room = ns->room_is_int ? "1" : "a\"b"; /* as build_worst_case() has it */
	char got[CFG_ROOM_MAX];
	enum json_type type;
	size_t len;

	if (ns->envelope == CFG_ENVELOPE_JSON && (!json_validate(frame, &type) || type != JSON_TYPE_OBJECT))
		return "what is published with envelope = json is a JSON object";
	if (ns->route_key != NULL &&
	    (json_route_value(frame, ns->route_key, got, sizeof(got), &len) != JSON_ROUTE_OK ||
	     len != strlen(room) || memcmp(got, room, len) != 0))
		return "must name the room under the namespace's route_key: else no replica knows whom it is "
		       "for";
	if (ns->targeted_only && !has_target(frame))
		return "reaches nobody: targeted_only is on, and there are no _target_users and no "
		       "_target_groups";
	return NULL;
}

static void check_publish(struct scan_doc *doc, const struct scan_section *sec,
			  const struct cfg_namespace *ns, const struct cfg_rule *r)
{
	struct buf out = {0};
	const char *wrong;

	if (r->frame == NULL || ns->name == NULL || ns->path == NULL)
		return;
	if (!build_worst_case(ns, r, r->frame, &out)) {
		doc->oom = true;
	} else {
		wrong = check_published(ns, (struct slice){out.p, out.len});
		if (wrong != NULL)
			build_problem(doc, sec, "frame", "%s", wrong);
	}
	buf_free(&out);
}

/* ---- one rule ---- */

static void check_action(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns,
			 const struct cfg_rule *r)
{
	switch (r->action) {
	case CFG_ACTION_PUBLISH:
		check_publish(doc, sec, ns, r);
		break;
	case CFG_ACTION_FORWARD:
		if (ns->auth == NULL || ns->auth->type != CFG_AUTH_HOOK)
			build_problem(doc, sec, "action", "forward needs an auth section of type hook");
		break;
	case CFG_ACTION_RETAINED:
		if (ns->retain == CFG_RETAIN_OFF)
			build_problem(doc, sec, "action", "retained needs the namespace's retain");
		break;
	case CFG_ACTION_STORE:
		build_check_redis_key(doc, sec, "key", r->key);
		break;
	case CFG_ACTION_RECEIPT:
		if (!ns->receipts)
			build_problem(doc, sec, "action", "receipt needs receipts = on");
		break;
	default:
		break;
	}
}

static void build_rule(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns,
		       struct cfg_rule *r)
{
	const char *title = build_title(doc, sec);

	if (title != NULL && (*title == '\0' || strlen(title) > 255 || !utf8_is_valid(title, strlen(title))))
		build_problem(doc, sec, "", "a title of 1 to 255 bytes of UTF-8 is expected");
	else
		r->name = build_strdup(doc, title);
	build_keys(doc, sec, r);
	if (scan_find(sec, "action") == NULL)
		build_problem(doc, sec, "action", "is missing");
	if (!build_given(sec, "action"))
		return;
	build_only(doc, sec, kinds[r->action], r);
	if (build_has(config_key_find("rule", (struct slice){"coerce", 6}), kinds[r->action]))
		build_coerce(doc, sec, r);
	build_templates(doc, sec, ns, r);
	check_action(doc, sec, ns, r);
}

static void check_twice(struct scan_doc *doc, const struct scan_section *sec, const struct cfg_namespace *ns,
			const struct cfg_rule *r)
{
	for (const struct cfg_rule *o = ns->rules; o < r; o++)
		if (r->name != NULL && o->name != NULL && o->match == r->match &&
		    strcmp(o->name, r->name) == 0)
			build_problem(doc, sec, "", "\"%s\" is there twice", r->name);
}

void build_rules(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns)
{
	size_t n = 0;

	for (size_t i = 1; i < doc->n_sections; i++)
		n += doc->sections[i]->parent == sec && strcmp(doc->sections[i]->spec->name, "rule") == 0;
	if (n == 0)
		return;
	if (n > CFG_MAX_RULES) {
		build_problem(doc, sec, "", "there are %zu rules, %d are possible", n, CFG_MAX_RULES);
		return;
	}
	ns->rules = calloc(n, sizeof(*ns->rules));
	if (ns->rules == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 1; i < doc->n_sections; i++) {
		struct cfg_rule *r = &ns->rules[ns->n_rules];

		if (doc->sections[i]->parent != sec || strcmp(doc->sections[i]->spec->name, "rule") != 0)
			continue;
		ns->n_rules++;
		build_rule(doc, doc->sections[i], ns, r);
		check_twice(doc, doc->sections[i], ns, r);
	}
}
