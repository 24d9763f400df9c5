#include "master/config_load.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/config_build.h"
#include "master/config_confuse.h"
#include "master/config_value.h"

/* What there is without a section of that kind. Written as a file, so that it is checked like one. */
static const char default_listen[] = "listen '127.0.0.1:8080' { }\n";
static const char default_admin[] = "admin '127.0.0.1:8081' { }\n";
static const char default_namespaces[] =
	"namespace 'demo' { path = '/ws/{room}' redis_channel = 'demo:{room}'\n"
	"                   publish = { 'client', 'api', 'redis' } origins = { '*' } }\n"
	"namespace 'echo' { path = '/echo' room = '{conn}' redis_channel = 'echo:{conn}'\n"
	"                   publish = { 'client' } origins = { '*' } }\n";

/* ---- helpers that config_ns.c shares ---- */

char *build_strndup(struct scan_doc *doc, const char *s, size_t len)
{
	char *c = s == NULL ? NULL : strndup(s, len);

	if (s != NULL && c == NULL)
		doc->oom = true;
	return c;
}

char *build_strdup(struct scan_doc *doc, const char *s)
{
	return build_strndup(doc, s, s == NULL ? 0 : strlen(s));
}

bool build_given(const struct scan_section *sec, const char *key)
{
	const struct scan_entry *e = scan_find(sec, key);

	return e != NULL && !e->bad;
}

const char *build_value(const struct scan_section *sec, const char *key)
{
	const struct scan_entry *e = scan_find(sec, key);

	return e != NULL && !e->bad && e->n_values == 1 ? e->values[0] : NULL;
}

void build_problem(struct scan_doc *doc, const struct scan_section *sec, const char *key, const char *fmt,
		   ...)
{
	const struct scan_entry *e = scan_find(sec, key);
	struct scan_name name = {""};
	char what[400];
	va_list ap;

	if (e != NULL && e->bad)
		return; /* it has been reported, and this may follow from that */
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(name.s, sizeof(name.s), "%s%s%s", sec->spec->name, *sec->spec->name && *key ? "." : "", key);
	scan_problem(doc, e != NULL ? &e->pos : &sec->pos, name.s, "%s", what);
}

/* ---- one key ---- */

static void bad_value(struct scan_doc *doc, struct scan_entry *e, const char *what)
{
	struct scan_name name = {""};

	scan_problem(doc, &e->pos, scan_key_name(e->key, &name), "%s",
		     e->has_secret_ref && strchr(what, '"') == what
			     ? "the value of the environment variable is not valid here"
			     : what);
	e->bad = true;
}

static bool has_control(const char *s)
{
	for (; *s != '\0'; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

static void set_number(struct scan_doc *doc, struct scan_entry *e, void *base)
{
	const struct config_key *k = e->key;
	struct value_error err = {""};
	uint64_t v;

	if (value_number(k, e->values[0], &v, &err) == -1)
		bad_value(doc, e, err.s);
	else if (k->when == CKEY_LATER && v != 0)
		bad_value(doc, e, "not in this version");
	else if (k->size > 0)
		config_key_set(k, base, v);
}

static void set_string(struct scan_doc *doc, struct scan_entry *e, void *base)
{
	const struct config_key *k = e->key;
	const char *v = e->values[0];
	char *copy;

	if (k->when == CKEY_LATER && *v != '\0') {
		bad_value(doc, e, "not in this version");
		return;
	}
	if (k->size == 0)
		return;
	copy = *v == '\0' && k->def == NULL ? NULL : build_strdup(doc, v);
	free(*(char **)((char *)base + k->offset));
	*(char **)((char *)base + k->offset) = copy;
}

static void set_list(struct scan_doc *doc, struct scan_entry *e, void *base)
{
	const struct config_key *k = e->key;
	struct config_range range = {""};
	char what[300];
	uint64_t bits = 0;

	if (k->when == CKEY_LATER && e->n_values > 0) {
		bad_value(doc, e, "not in this version");
		return;
	}
	for (size_t i = 0; k->choices != NULL && i < e->n_values; i++) {
		int bit = config_choice(k->choices, e->values[i]);

		if (bit < 0) {
			snprintf(what, sizeof(what), "\"%.60s\" is not one of: %s", e->values[i],
				 config_key_range(k, &range));
			bad_value(doc, e, what);
			return;
		}
		bits |= 1ull << bit;
	}
	if (k->size > 0)
		config_key_set(k, base, bits);
}

static bool is_text(const struct config_key *k)
{
	return k->type == CKEY_STRING || k->type == CKEY_TEMPLATE;
}

static void set_entry(struct scan_doc *doc, struct scan_entry *e, void *base)
{
	for (size_t i = 0; !e->bad && i < e->n_values; i++)
		if (has_control(e->values[i]))
			bad_value(doc, e, "control character in the value");
	if (e->bad)
		return;
	if (e->key->type == CKEY_LIST)
		set_list(doc, e, base);
	else if (e->n_values != 1)
		bad_value(doc, e, "one value is expected");
	else if (e->key->type == CKEY_STRING)
		set_string(doc, e, base);
	else if (e->key->type != CKEY_TEMPLATE) /* these come later, when it is known what they may name */
		set_number(doc, e, base);
}

/* The bits of a default like { "api", "redis" }. */
static uint64_t default_bits(const struct config_key *k)
{
	uint64_t bits = 0;
	char word[32];

	for (const char *p = strchr(k->def, '"'); p != NULL; p = strchr(p, '"')) {
		size_t len = strcspn(++p, "\"");

		snprintf(word, sizeof(word), "%.*s", (int)len, p);
		bits |= 1ull << config_choice(k->choices, word);
		p += len + 1;
	}
	return bits;
}

static void set_default(struct scan_doc *doc, const struct config_key *k, void *base)
{
	struct value_error err = {""};
	uint64_t v;

	if (k->size == 0 || k->def == NULL)
		return;
	if (k->type == CKEY_STRING) /* in double quotes, nothing escaped */
		*(char **)((char *)base + k->offset) = build_strndup(doc, k->def + 1, strlen(k->def) - 2);
	else if (k->type == CKEY_LIST)
		config_key_set(k, base, default_bits(k));
	else if (value_number(k, k->def, &v, &err) == 0)
		config_key_set(k, base, v);
	else
		abort(); /* our own table is wrong; a unit test goes through all of it */
}

void build_keys(struct scan_doc *doc, const struct scan_section *sec, void *base)
{
	for (size_t i = 0; i < config_n_keys; i++)
		if (strcmp(config_keys[i].section, sec->spec->name) == 0)
			set_default(doc, &config_keys[i], base);
	for (size_t i = 0; i < sec->n_entries; i++)
		if (sec->entries[i]->key != &scan_title_key)
			set_entry(doc, sec->entries[i], base);
}

bool build_has(const struct config_key *k, const char *kind)
{
	return k->only == NULL || config_choice(k->only, kind) >= 0;
}

void build_only(struct scan_doc *doc, const struct scan_section *sec, const char *kind, void *base)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		if (strcmp(k->section, sec->spec->name) != 0 || build_has(k, kind))
			continue;
		if (scan_find(sec, k->name) != NULL)
			build_problem(doc, sec, k->name, "there is none for \"%s\"", kind);
		if (k->size == 0)
			continue;
		if (is_text(k)) {
			free(*(char **)((char *)base + k->offset));
			*(char **)((char *)base + k->offset) = NULL;
		} else {
			config_key_set(k, base, 0);
		}
	}
}

/* ---- sections of the process ---- */

/* Sections that a file may leave out still have defaults. */
static const struct scan_section *section_or_empty(const struct scan_doc *doc,
						   const struct config_section *spec)
{
	static struct scan_section empty;

	for (size_t i = 0; i < doc->n_sections; i++)
		if (doc->sections[i]->spec == spec)
			return doc->sections[i];
	empty = (struct scan_section){.spec = spec, .pos = doc->sections[0]->pos};
	return &empty;
}

static const struct scan_section *find_section(const struct scan_doc *doc, const char *name)
{
	return section_or_empty(doc, config_section_find("", (struct slice){name, strlen(name)}));
}

static void build_process(struct scan_doc *doc, struct config *c)
{
	for (size_t i = 0; i < config_n_sections; i++) {
		const struct config_section *spec = &config_sections[i];

		if (spec->base == CKEY_CONFIG && !spec->has_title && spec->when != CKEY_LATER)
			build_keys(doc, i == 0 ? doc->sections[0] : section_or_empty(doc, spec), c);
	}
}

static void build_proxies(struct scan_doc *doc, struct config *c)
{
	const struct scan_entry *e = scan_find(doc->sections[0], "trusted_proxies");
	struct value_error err = {""};

	if (e == NULL || e->bad || e->n_values == 0)
		return;
	c->trusted_proxies = calloc(e->n_values, sizeof(*c->trusted_proxies));
	if (c->trusted_proxies == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 0; i < e->n_values; i++) {
		if (strcmp(e->values[i], "unix:") == 0)
			c->trusts_unix = true;
		else if (value_network(e->values[i], &c->trusted_proxies[c->n_trusted_proxies], &err) == 0)
			c->n_trusted_proxies++;
		else
			build_problem(doc, doc->sections[0], "trusted_proxies", "%s", err.s);
	}
}

/* ---- listeners ---- */

const char *build_title(struct scan_doc *doc, const struct scan_section *sec)
{
	if (sec->title == NULL || sec->title->bad || sec->title->n_values != 1)
		return NULL;
	if (has_control(sec->title->values[0])) {
		build_problem(doc, sec, "", "control character in the title");
		sec->title->bad = true;
		return NULL;
	}
	return sec->title->values[0];
}

void build_check_secret(struct scan_doc *doc, const struct scan_section *sec, const char *key,
			const char *none)
{
	const char *p = build_value(sec, key);

	if (p != NULL && *p == '\0')
		build_problem(doc, sec, key, "is empty; leave the key out to %s", none);
	for (; p != NULL && *p != '\0'; p++) {
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f) {
			build_problem(doc, sec, key,
				      "printable ASCII without blanks is expected: it travels in a header");
			break;
		}
	}
}

static void build_listener(struct scan_doc *doc, const struct scan_section *sec, struct cfg_listener *l)
{
	const char *title = build_title(doc, sec);
	struct value_error err = {""};

	build_keys(doc, sec, l);
	if (title != NULL && value_listener(title, l, &err) == -1)
		build_problem(doc, sec, "", "%s", err.s);
	build_check_secret(doc, sec, "api_key", "ask for none");
	if (l->addr != NULL && !l->is_unix && build_given(sec, "mode"))
		build_problem(doc, sec, "mode", "only a unix socket has one");
}

static struct cfg_listener *build_listeners(struct scan_doc *doc, const char *kind, size_t *n)
{
	struct cfg_listener *l = calloc(scan_count(doc, kind) + 1, sizeof(*l));

	*n = 0;
	if (l == NULL) {
		doc->oom = true;
		return NULL;
	}
	for (size_t i = 1; i < doc->n_sections; i++)
		if (strcmp(doc->sections[i]->spec->name, kind) == 0)
			build_listener(doc, doc->sections[i], &l[(*n)++]);
	return l;
}

static bool same_address(const struct cfg_listener *a, const struct cfg_listener *b)
{
	if (a->addr == NULL || b->addr == NULL || a->is_unix != b->is_unix)
		return false;
	if (a->is_unix)
		return strcmp(a->path, b->path) == 0;
	return a->port == b->port && a->port != 0 && strcmp(a->host, b->host) == 0;
}

/* Listeners from options take the place of the file's. An API key of the file goes on being asked for. */
static void override_listeners(struct scan_doc *doc, const char *const *addrs, size_t n, const char *kind,
			       struct cfg_listener **list, size_t *len)
{
	const struct scan_section empty = {
		.spec = config_section_find("", (struct slice){kind, strlen(kind)})};
	struct cfg_listener *l;
	struct value_error err = {""};
	const char *key = NULL;

	if (n == 0)
		return;
	l = calloc(n, sizeof(*l));
	if (l == NULL) {
		doc->oom = true;
		return;
	}
	for (size_t i = 0; i < *len && key == NULL; i++)
		key = (*list)[i].api_key;
	for (size_t i = 0; i < n; i++) {
		build_keys(doc, &empty, &l[i]);
		if (value_listener(addrs[i], &l[i], &err) == -1)
			scan_problem(doc, NULL, kind, "%s", err.s);
		l[i].api_key = build_strdup(doc, key);
	}
	for (size_t i = 0; i < *len; i++)
		config_listener_clear(&(*list)[i]);
	free(*list);
	*list = l;
	*len = n;
}

/* The place of the i-th listener, over both kinds: admins after listens. */
static const struct cfg_listener *nth_listener(const struct config *c, size_t i)
{
	return i < c->n_listens ? &c->listens[i] : &c->admins[i - c->n_listens];
}

/* Where the i-th section of a kind stands; NULL if options took its place. */
static const struct scan_pos *listener_pos(const struct scan_doc *doc, const char *kind, size_t i,
					   bool overridden)
{
	for (size_t j = 1; j < doc->n_sections && !overridden; j++)
		if (strcmp(doc->sections[j]->spec->name, kind) == 0 && i-- == 0)
			return &doc->sections[j]->pos;
	return NULL;
}

static void check_listeners(struct scan_doc *doc, const struct cli *cli, const struct config *c)
{
	size_t n = c->n_listens + c->n_admins;

	for (size_t i = 0; i < n; i++) {
		const struct cfg_listener *l = nth_listener(c, i);
		bool is_admin = i >= c->n_listens;
		bool overridden = cli != NULL && (is_admin ? cli->n_admins : cli->n_listens) > 0;
		const char *kind = is_admin ? "admin" : "listen";
		size_t j = 0;

		while (j < i && !same_address(l, nth_listener(c, j)))
			j++;
		if (j < i)
			scan_problem(doc,
				     listener_pos(doc, kind, is_admin ? i - c->n_listens : i, overridden),
				     kind, "%s is taken by another listener", l->addr);
	}
}

/* ---- checks over several keys ---- */

static bool is_power_of_two(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static void check_power(struct scan_doc *doc, const struct scan_section *sec, const char *name, uint64_t v)
{
	const struct config_key *k = config_key_find("ring", (struct slice){name, strlen(name)});
	struct config_text below = {""}, above = {""};
	uint64_t p = 1;

	if (is_power_of_two(v))
		return;
	while (p * 2 < v)
		p *= 2;
	build_problem(doc, sec, name, "must be a power of two: the nearest are %s and %s",
		      config_key_format(k, p, &below), config_key_format(k, p * 2, &above));
}

/* Was the key given with a value that has been reported? What follows from its default then says nothing. */
static bool is_bad(const struct scan_section *sec, const char *key)
{
	const struct scan_entry *e = scan_find(sec, key);

	return e != NULL && e->bad;
}

static void build_ring(struct scan_doc *doc, const struct config *c)
{
	const struct scan_section *sec = find_section(doc, "ring");

	check_power(doc, sec, "size", c->ring.size);
	check_power(doc, sec, "uplink_size", c->ring.uplink_size);
	if (c->ring.uplink_size > c->ring.size && is_power_of_two(c->ring.size) &&
	    is_power_of_two(c->ring.uplink_size) && !is_bad(sec, "size"))
		build_problem(doc, sec, "uplink_size", "must not exceed ring.size");
}

static void build_redis(struct scan_doc *doc, const struct cli *cli, struct config *c)
{
	const struct scan_section *sec = find_section(doc, "redis");
	const char *url = build_value(sec, "url");
	struct value_error err = {""};

	if (url != NULL && value_redis_url(url, &c->redis, &err) == -1)
		build_problem(doc, sec, "url", "%s", err.s);
	if (cli != NULL && cli->redis != NULL && value_redis_url(cli->redis, &c->redis, &err) == -1)
		scan_problem(doc, NULL, "--redis", "%s", err.s);
	if (c->redis.backoff_max < c->redis.backoff_min)
		build_problem(doc, sec, "backoff_max", "must be at least backoff_min");
	if (!build_given(sec, "resend_delay"))
		c->redis.resend_delay = 2 * c->redis.backoff_max;
	if (c->redis.ca_file != NULL && access(c->redis.ca_file, R_OK) == -1)
		build_problem(doc, sec, "ca_file", "%s: %s", c->redis.ca_file, strerror(errno));
}

void build_message_limits(struct scan_doc *doc, const struct scan_section *sec, uint64_t ring_size,
			  uint32_t *max_message, uint32_t *max_publication)
{
	static const char *const names[] = {"max_message", "max_publication"};
	uint32_t *const values[] = {max_message, max_publication};
	const struct config_key *k = config_key_find("ring", (struct slice){"size", 4});
	struct config_text quarter = {""}, ring = {""};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (*values[i] <= ring_size / 4)
			continue;
		if (build_given(sec, names[i]))
			build_problem(doc, sec, names[i], "must not exceed a quarter of ring.size: %s of %s",
				      config_key_format(k, ring_size / 4, &quarter),
				      config_key_format(k, ring_size, &ring));
		*values[i] = (uint32_t)(ring_size / 4);
	}
}

static void check_user(struct scan_doc *doc, const struct config *c)
{
	if (c->user != NULL && *c->user != '\0' && getpwnam(c->user) == NULL)
		build_problem(doc, doc->sections[0], "user", "there is no account \"%.60s\"", c->user);
}

static void check_close_code(struct scan_doc *doc, const struct config *c)
{
	uint16_t code = c->stop.close_code;

	if (code != 1001 && code != 1012 && code != 1013 && code < 3000)
		build_problem(doc, find_section(doc, "stop"), "close_code",
			      "must be 1001, 1012, 1013 or 3000 to 4999");
}

/* Room for the processes themselves beside the ring: else nobody would ever come in. */
static void check_memory(struct scan_doc *doc, const struct config *c)
{
	uint64_t least = c->ring.size + c->workers * (8ull << 20) + (16ull << 20);

	if (c->memory_limit != 0 && c->memory_limit < least)
		build_problem(doc, doc->sections[0], "memory_limit",
			      "must leave 16m and 8m a worker beside ring.size: at least %llum",
			      (unsigned long long)((least + (1 << 20) - 1) >> 20));
}

/* A burst of 0 stands for the rate, so that whoever uses it need not know. */
static void build_rates(struct config *c)
{
	struct cfg_limits *l = &c->limits;

	if (l->msg_burst == 0)
		l->msg_burst = l->msg_rate;
	if (l->connect_burst == 0)
		l->connect_burst = l->connect_rate;
}

static void check_all(struct scan_doc *doc, const struct cli *cli, struct config *c)
{
	build_ring(doc, c);
	build_redis(doc, cli, c);
	build_message_limits(doc, find_section(doc, "limits"), c->ring.size, &c->limits.max_message,
			     &c->limits.max_publication);
	check_user(doc, c);
	check_close_code(doc, c);
	check_memory(doc, c);
	check_listeners(doc, cli, c);
}

/* ---- the whole ---- */

static void override_scalars(struct scan_doc *doc, const struct cli *cli, struct config *c)
{
	if (cli->has_workers)
		c->workers = cli->workers;
	if (cli->has_log_level)
		c->log_level = cli->log_level;
	if (cli->pid_file != NULL) {
		free(c->pid_file);
		c->pid_file = build_strdup(doc, cli->pid_file);
	}
}

static void build(struct scan_doc *doc, const struct cli *cli, struct config *c)
{
	build_process(doc, c);
	build_rates(c);
	build_proxies(doc, c);
	c->listens = build_listeners(doc, "listen", &c->n_listens);
	c->admins = build_listeners(doc, "admin", &c->n_admins);
	if (cli != NULL) {
		override_scalars(doc, cli, c);
		override_listeners(doc, cli->listens, cli->n_listens, "listen", &c->listens, &c->n_listens);
		override_listeners(doc, cli->admins, cli->n_admins, "admin", &c->admins, &c->n_admins);
	}
	if (doc->oom)
		return;
	if (!doc->broken)
		check_all(doc, cli, c);
	build_auths(doc, c);
	build_namespaces(doc, c);
}

static void add_built_in(struct scan_doc *doc, const struct cli *cli)
{
	if (doc->broken)
		return;
	if (scan_count(doc, "listen") == 0 && (cli == NULL || cli->n_listens == 0))
		scan_append(doc, default_listen);
	if (scan_count(doc, "admin") == 0 && (cli == NULL || cli->n_admins == 0))
		scan_append(doc, default_admin);
	if (scan_count(doc, "namespace") == 0)
		scan_append(doc, default_namespaces);
}

struct config *config_load(const char *file, const struct cli *overrides, struct buf *errors)
{
	struct scan_doc *doc = scan_open(file);
	struct config *c = calloc(1, sizeof(*c));
	bool ok = false;

	if (doc != NULL && c != NULL) {
		c->file = build_strdup(doc, file);
		add_built_in(doc, overrides);
		confuse_read(doc);
		build(doc, overrides, c);
		if (doc->oom)
			scan_problem(doc, NULL, NULL, "out of memory");
		ok = scan_report(doc, errors) == 0 && !doc->oom;
	}
	scan_close(doc);
	if (ok)
		return c;
	config_free(c);
	if (errors->len == 0 && buf_puts(errors, "out of memory\n") == -1)
		errors->len = 0; /* nothing more can be said */
	return NULL;
}
