/* Sections "auth": who may connect. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/curl_lib.h"
#include "common/jwks.h"
#include "master/config_build.h"
#include "master/config_file.h"
#include "master/config_value.h"

/* ---- places of a request ---- */

static bool is_token(const char *s)
{
	static const char also[] = "!#$%&'*+-.^_`|~"; /* RFC 9110, 5.6.2 */

	if (*s == '\0' || strlen(s) > 255)
		return false;
	for (; *s != '\0'; s++)
		if (!((*s >= '0' && *s <= '9') || ((*s | 0x20) >= 'a' && (*s | 0x20) <= 'z') ||
		      strchr(also, *s) != NULL))
			return false;
	return true;
}

static void lower(char *s)
{
	for (; s != NULL && *s != '\0'; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s | 0x20);
}

/* "cookie:NAME" and so on. `is_token_place`: also what may hold a token without a name. False: it is none. */
static bool parse_source(struct scan_doc *doc, const char *text, bool is_token_place,
			 struct cfg_source_of *out)
{
	static const struct {
		const char *prefix;
		enum cfg_place place;
	} named[] = {
		{"header:", CFG_PLACE_HEADER}, {"cookie:", CFG_PLACE_COOKIE}, {"query:", CFG_PLACE_QUERY}};

	if (is_token_place && (strcmp(text, "header") == 0 || strcmp(text, "subprotocol") == 0)) {
		*out = (struct cfg_source_of){*text == 'h' ? CFG_PLACE_HEADER : CFG_PLACE_SUBPROTOCOL, NULL};
		return true;
	}
	for (size_t i = 0; i < ARRAY_LEN(named); i++) {
		size_t len = strlen(named[i].prefix);

		if (strncmp(text, named[i].prefix, len) != 0)
			continue;
		if (!is_token(text + len))
			return false;
		*out = (struct cfg_source_of){named[i].place, build_strdup(doc, text + len)};
		if (out->place == CFG_PLACE_HEADER)
			lower(out->name);
		return true;
	}
	return false;
}

static struct cfg_source_of *build_sources(struct scan_doc *doc, const struct scan_section *sec,
					   const char *key, bool is_token_place, size_t *n)
{
	const struct scan_entry *e = scan_find(sec, key);
	struct cfg_source_of *list;

	*n = 0;
	if (e == NULL || e->bad || e->n_values == 0)
		return NULL;
	list = calloc(e->n_values, sizeof(*list));
	if (list == NULL) {
		doc->oom = true;
		return NULL;
	}
	for (size_t i = 0; i < e->n_values; i++) {
		if (parse_source(doc, e->values[i], is_token_place, &list[*n]))
			(*n)++;
		else
			build_problem(doc, sec, key,
				      "\"%.60s\" is none of: %sheader:NAME, query:NAME, cookie:NAME%s",
				      e->values[i], is_token_place ? "header, " : "",
				      is_token_place ? ", subprotocol" : "");
	}
	return list;
}

/* ---- one section ---- */

static void must_be_given(struct scan_doc *doc, const struct scan_section *sec, const char *key,
			  const char *kind)
{
	if (scan_find(sec, key) == NULL)
		build_problem(doc, sec, key, "is missing: \"%s\" needs it", kind);
}

/* Does it hold certificates, and nothing that is damaged? */
static bool has_certificates(const struct cfg_auth *a)
{
	BIO *bio = BIO_new_mem_buf(a->ca_text, (int)a->ca_len);
	X509 *x;
	size_t n = 0;
	bool is_whole;

	ERR_clear_error();
	while (bio != NULL && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
		X509_free(x);
		n++;
	}
	is_whole = jwks_is_end_of_pem();
	BIO_free(bio);
	ERR_clear_error();
	return n > 0 && is_whole;
}

/* Read here, since a worker may have no right to. */
static void read_ca(struct scan_doc *doc, const struct scan_section *sec, struct cfg_auth *a)
{
	if (a->ca_file == NULL || *a->ca_file == '\0')
		return;
	a->ca_text = file_read(a->ca_file, CFG_KEYS_MAX, &a->ca_len);
	if (a->ca_text == NULL && errno == ENOMEM)
		doc->oom = true;
	else if (a->ca_text == NULL)
		build_problem(doc, sec, "ca_file", "%s: %s", a->ca_file, file_error(errno));
	else if (!has_certificates(a))
		build_problem(doc, sec, "ca_file", "%s: has no certificate, or a damaged one", a->ca_file);
}

static void build_hook(struct scan_doc *doc, const struct scan_section *sec, struct cfg_auth *a)
{
	struct value_error err = {""};
	const char *why;

	/* Here, and not in each worker: they inherit it. */
	if (curl_lib_load(&why) == -1)
		build_problem(doc, sec, "type", "\"hook\" needs libcurl: %s", why);
	must_be_given(doc, sec, "url", "hook");
	if (build_value(sec, "url") != NULL && value_hook_url(build_value(sec, "url"), &err) == -1)
		build_problem(doc, sec, "url", "%s", err.s);
	build_check_secret(doc, sec, "secret", "send none");
	read_ca(doc, sec, a);
	a->cache_key = build_sources(doc, sec, "cache_key", false, &a->n_cache_key);
}

static void read_keys(struct scan_doc *doc, const struct scan_section *sec, struct cfg_auth *a)
{
	struct jwks keys = {0};
	const char *wrong;

	if (a->keys == NULL)
		return;
	a->keys_text = file_read(a->keys, CFG_KEYS_MAX, &a->keys_len);
	if (a->keys_text == NULL && errno == ENOMEM)
		doc->oom = true;
	else if (a->keys_text == NULL)
		build_problem(doc, sec, "keys", "%s: %s", a->keys, file_error(errno));
	else if (a->keys_len == 0)
		build_problem(doc, sec, "keys", "%s: is empty", a->keys);
	else if (a->algorithms != 0 &&
		 jwks_parse(&keys, (struct slice){a->keys_text, a->keys_len}, a->algorithms, &wrong) == -1)
		build_problem(doc, sec, "keys", "%s: %s", a->keys, wrong);
	jwks_free(&keys); /* workers make their own */
}

static void build_jwt(struct scan_doc *doc, const struct scan_section *sec, struct cfg_auth *a)
{
	must_be_given(doc, sec, "algorithms", "jwt");
	must_be_given(doc, sec, "keys", "jwt");
	if (build_given(sec, "algorithms") && a->algorithms == 0)
		build_problem(doc, sec, "algorithms", "is empty: no token would be accepted");
	if ((a->algorithms & CFG_ALG_HS256) && a->algorithms != CFG_ALG_HS256)
		build_problem(
			doc, sec, "algorithms",
			"HS256 stands alone: whoever knows a public key could sign with it as the secret");
	if (build_given(sec, "keys") && a->keys == NULL)
		build_problem(doc, sec, "keys", "is empty");
	read_keys(doc, sec, a);
	a->from = build_sources(doc, sec, "from", true, &a->n_from);
	if (build_given(sec, "from") && scan_find(sec, "from")->n_values == 0)
		build_problem(doc, sec, "from", "is empty: no token would be found");
	if (scan_find(sec, "from") == NULL) {
		a->from = calloc(1, sizeof(*a->from)); /* CFG_PLACE_HEADER, no name */
		a->n_from = a->from != NULL;
		doc->oom |= a->from == NULL;
	}
	if (build_given(sec, "user_claim") && *a->user_claim == '\0')
		build_problem(doc, sec, "user_claim", "is empty: nobody would have a name");
	if (a->groups_claim != NULL && *a->groups_claim == '\0') {
		free(a->groups_claim);
		a->groups_claim = NULL;
	}
}

static void build_auth(struct scan_doc *doc, const struct scan_section *sec, const struct config *c,
		       struct cfg_auth *a)
{
	static const char *const kinds[] = {
		[CFG_AUTH_HOOK] = "hook", [CFG_AUTH_JWT] = "jwt", [CFG_AUTH_QUERY] = "query"};
	const char *title = build_title(doc, sec);

	if (title != NULL && (*title == '\0' || strlen(title) > CFG_NAME_MAX))
		build_problem(doc, sec, "", "a name has 1 to 63 bytes");
	else if (title != NULL && config_find_auth(c, (struct slice){title, strlen(title)}) != NULL)
		build_problem(doc, sec, "", "\"%s\" is there twice", title);
	else
		a->name = build_strdup(doc, title);
	build_keys(doc, sec, a);
	if (doc->broken)
		return; /* what is missing may stand behind the error */
	if (scan_find(sec, "type") == NULL)
		build_problem(doc, sec, "type", "is missing: hook, jwt or query");
	if (!build_given(sec, "type"))
		return;
	build_only(doc, sec, kinds[a->type], a);
	if (a->type == CFG_AUTH_HOOK)
		build_hook(doc, sec, a);
	else if (a->type == CFG_AUTH_JWT)
		build_jwt(doc, sec, a);
}

void build_auths(struct scan_doc *doc, struct config *c)
{
	size_t n = scan_count(doc, "auth");

	c->auths = calloc(u64_min(n, CFG_MAX_AUTHS) + 1, sizeof(*c->auths));
	if (c->auths == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 1; i < doc->n_sections && c->n_auths < CFG_MAX_AUTHS; i++) {
		struct cfg_auth *a = &c->auths[c->n_auths];

		if (strcmp(doc->sections[i]->spec->name, "auth") != 0)
			continue;
		build_auth(doc, doc->sections[i], c, a);
		c->n_auths++;
	}
	if (n > CFG_MAX_AUTHS)
		build_problem(doc, doc->sections[0], "auth", "there are %zu of them, %d are possible", n,
			      CFG_MAX_AUTHS);
}
