/* The effective configuration as a file, for -T; and what two configurations differ in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_keys.h"
#include "master/config_load.h"
#include "master/config_value.h"

#define MASK "***"

/* The inside of '...', where \ and ' alone are special. */
static void print_escaped(FILE *out, const char *s)
{
	for (; *s != '\0'; s++) {
		if (*s == '\\' || *s == '\'')
			fputc('\\', out);
		fputc(*s, out);
	}
}

static void print_quoted(FILE *out, const char *s)
{
	fputc('\'', out);
	print_escaped(out, s);
	fputc('\'', out);
}

static void print_string(FILE *out, const char *indent, const char *name, const char *value)
{
	fprintf(out, "%s%s = ", indent, name);
	print_quoted(out, value);
	fputc('\n', out);
}

/* A bit set as { 'client', 'api' }. */
static void print_bits(FILE *out, const struct config_key *k, uint64_t bits)
{
	const char *sep = " ";

	fputc('{', out);
	for (const char *p = k->choices; p != NULL; bits >>= 1) {
		const char *end = strchrnul(p, '|');

		if (bits & 1) {
			fprintf(out, "%s'%.*s'", sep, (int)(end - p), p);
			sep = ", ";
		}
		p = *end == '|' ? end + 1 : NULL;
	}
	fputs(" }", out);
}

static bool is_secret(const struct config_key *k)
{
	return strcmp(k->name, "api_key") == 0 || strcmp(k->name, "secret") == 0;
}

static void print_key(FILE *out, const char *indent, const struct config_key *k, const void *base)
{
	struct config_text text = {""};
	const struct template *t;
	const char *s;

	if (k->type == CKEY_TEMPLATE) {
		t = *(struct template *const *)((const char *)base + k->offset);
		if (t != NULL)
			print_string(out, indent, k->name, template_text(t));
		return;
	}
	if (k->type == CKEY_STRING) {
		s = *(char *const *)((const char *)base + k->offset);
		if (s != NULL || k->def != NULL) /* one that is switched off is not at its default */
			print_string(out, indent, k->name, s == NULL ? "" : is_secret(k) ? MASK : s);
		return;
	}
	fprintf(out, "%s%s = ", indent, k->name);
	if (k->type == CKEY_LIST)
		print_bits(out, k, config_key_get(k, base));
	else
		fputs(config_key_format(k, config_key_get(k, base), &text), out);
	fputc('\n', out);
}

/* The keys of a section; of those that only some kinds of it have, those of `kind`. */
static void print_keys_of(FILE *out, const char *indent, const char *section, const char *kind,
			  const void *base)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		if (k->size > 0 && strcmp(k->section, section) == 0 &&
		    (k->only == NULL || config_choice(k->only, kind) >= 0))
			print_key(out, indent, k, base);
	}
}

static void print_keys(FILE *out, const char *indent, const char *section, const void *base)
{
	print_keys_of(out, indent, section, "", base);
}

static void print_listener(FILE *out, const char *kind, const struct cfg_listener *l)
{
	fprintf(out, "\n%s ", kind);
	print_quoted(out, l->addr);
	fputs(" {\n", out);
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		if (k->size > 0 && strcmp(k->section, kind) == 0 &&
		    (l->is_unix || strcmp(k->name, "mode") != 0))
			print_key(out, "\t", k, l);
	}
	fputs("}\n", out);
}

static int print_redis_url(FILE *out, const struct cfg_redis *r)
{
	char *masked = value_redis_masked(r);

	if (masked == NULL)
		return -1;
	print_string(out, "\t", "url", masked);
	free(masked);
	return 0;
}

static void print_proxies(FILE *out, const struct config *c)
{
	const char *sep = " ";
	char text[64];

	fputs("trusted_proxies = {", out);
	for (size_t i = 0; i < c->n_trusted_proxies; i++, sep = ", ") {
		value_network_text(&c->trusted_proxies[i], text, sizeof(text));
		fputs(sep, out);
		print_quoted(out, text);
	}
	fprintf(out, "%s%s }\n", c->trusts_unix ? sep : "", c->trusts_unix ? "'unix:'" : "");
}

static void print_sources(FILE *out, const char *key, const struct cfg_source_of *s, size_t n)
{
	static const char *const places[] = {
		[CFG_PLACE_HEADER] = "header",
		[CFG_PLACE_COOKIE] = "cookie",
		[CFG_PLACE_QUERY] = "query",
		[CFG_PLACE_SUBPROTOCOL] = "subprotocol",
	};

	fprintf(out, "\t%s = {", key);
	for (size_t i = 0; i < n;
	     i++) /* names are tokens: nothing in them is special between double quotes but $ before { */
		fprintf(out, "%s\"%s%s%s\"", i > 0 ? ", " : " ", places[s[i].place],
			s[i].name != NULL ? ":" : "", s[i].name != NULL ? s[i].name : "");
	fputs(" }\n", out);
}

static void print_auth(FILE *out, const struct cfg_auth *a)
{
	static const char *const kinds[] = {
		[CFG_AUTH_HOOK] = "hook", [CFG_AUTH_JWT] = "jwt", [CFG_AUTH_QUERY] = "query"};

	fputs("\nauth ", out);
	print_quoted(out, a->name);
	fputs(" {\n", out);
	print_keys_of(out, "\t", "auth", kinds[a->type], a);
	if (a->type == CFG_AUTH_HOOK)
		print_sources(out, "cache_key", a->cache_key, a->n_cache_key);
	if (a->type == CFG_AUTH_JWT)
		print_sources(out, "from", a->from, a->n_from);
	fputs("}\n", out);
}

static void print_rule(FILE *out, const struct cfg_rule *r)
{
	static const char *const types[] = {
		[CFG_COERCE_BOOL] = "bool", [CFG_COERCE_INT] = "int", [CFG_COERCE_STRING] = "string"};
	const struct config_key *action = config_key_find("rule", (struct slice){"action", 6});
	struct config_text kind = {""};

	fputs("\trule ", out);
	print_quoted(out, r->name);
	fputs(" {\n", out);
	print_keys_of(out, "\t\t", "rule", config_key_format(action, r->action, &kind), r);
	for (size_t i = 0; i < r->n_coerce; i++)
		fprintf(out, "%s\"%s:%s\"%s", i == 0 ? "\t\tcoerce = { " : ", ", r->coerce[i].name,
			types[r->coerce[i].as], i + 1 == r->n_coerce ? " }\n" : "");
	fputs("\t}\n", out);
}

static void print_feed(FILE *out, const struct cfg_namespace *ns)
{
	if (ns->auth != NULL)
		print_string(out, "\t", "auth", ns->auth->name);
	if (ns->user_query != NULL)
		fprintf(out, "\tuser_query = \"%s%s\"\n", ns->user_query,
			ns->user_query_is_int ? ":int" : "");
	if (ns->idle.after > 0) {
		fputs("\tidle {\n", out);
		print_keys(out, "\t\t", "idle", ns);
		fputs("\t}\n", out);
	}
	for (size_t i = 0; i < ns->n_rules; i++)
		print_rule(out, &ns->rules[i]);
}

static void print_namespace(FILE *out, const struct cfg_namespace *ns)
{
	static const char *const vars[] = {
		[CFG_ROOM_NONE] = "", [CFG_ROOM_PATH] = "{room}", [CFG_ROOM_CONN] = "{conn}"};
	const char *var = ns->redis_has_room ? vars[ns->room] : "";

	fputs("\nnamespace ", out);
	print_quoted(out, ns->name);
	fputs(" {\n", out);
	print_string(out, "\t", "path", ns->path);
	if (ns->room == CFG_ROOM_CONN)
		print_string(out, "\t", "room", "{conn}");
	fputs("\tredis_channel = '", out);
	print_escaped(out, ns->redis_prefix);
	print_escaped(out, var);
	print_escaped(out, ns->redis_suffix);
	fputs("'\n", out);
	print_keys(out, "\t", "namespace", ns);
	fputs("\torigins = {", out);
	for (size_t i = 0; i < ns->n_origins; i++) {
		fputs(i > 0 ? ", " : " ", out);
		print_quoted(out, ns->origins[i]);
	}
	fputs(" }\n", out);
	print_feed(out, ns);
	fputs("}\n", out);
}

int config_print(const struct config *c, FILE *out)
{
	fprintf(out, "# ringcast " RC_VERSION ", the effective configuration of %s; secrets are masked\n",
		c->file ? c->file : "the defaults");
	print_keys(out, "", "", c);
	print_proxies(out, c);
	for (size_t i = 0; i < c->n_listens; i++)
		print_listener(out, "listen", &c->listens[i]);
	for (size_t i = 0; i < c->n_admins; i++)
		print_listener(out, "admin", &c->admins[i]);
	for (size_t i = 1; i < config_n_sections; i++) {
		const struct config_section *sec = &config_sections[i];

		if (sec->base != CKEY_CONFIG || sec->has_title || sec->when != CKEY_NOW ||
		    strcmp(sec->name, "reload") == 0)
			continue;
		fprintf(out, "\n%s {\n", sec->name);
		if (strcmp(sec->name, "redis") == 0 && print_redis_url(out, &c->redis) == -1)
			return -1;
		print_keys(out, "\t", sec->name, c);
		fputs("}\n", out);
	}
	for (size_t i = 0; i < c->n_auths; i++)
		print_auth(out, &c->auths[i]);
	for (size_t i = 0; i < c->n_namespaces; i++)
		print_namespace(out, &c->namespaces[i]);
	if (fflush(out) == EOF || ferror(out))
		return -1;
	return 0;
}

/* ---- what a HUP can't change ---- */

static bool same_string(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_value(const struct config_key *k, const struct config *a, const struct config *b)
{
	if (k->type != CKEY_STRING)
		return config_key_get(k, a) == config_key_get(k, b);
	return same_string(*(char *const *)((const char *)a + k->offset),
			   *(char *const *)((const char *)b + k->offset));
}

/* Keys of listeners, namespaces and so on: these sections may come and go at a HUP. */
static bool is_titled(const struct config_key *k)
{
	for (size_t i = 1; i < config_n_sections; i++)
		if (strcmp(config_sections[i].name, k->section) == 0)
			return config_sections[i].base != CKEY_CONFIG;
	return false;
}

size_t config_needs_restart(const struct config *before, const struct config *after, struct buf *out)
{
	size_t n = 0;

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		bool is_url = strcmp(k->section, "redis") == 0 && strcmp(k->name, "url") == 0;
		bool differs;

		if (k->reloadable || is_titled(k) || (k->size == 0 && !is_url))
			continue;
		differs = is_url ? !same_string(before->redis.url, after->redis.url)
				 : !same_value(k, before, after);
		if (differs && buf_printf(out, "%s%s%s%s", n > 0 ? " " : "", k->section,
					  *k->section ? "." : "", k->name) == 0)
			n++;
	}
	return n;
}
