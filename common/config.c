#include "common/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where one normalised origin is being written; `len` counts on when it no longer fits. */
struct sink {
	char *dst;
	size_t size, len;
};

static void sink_put(struct sink *s, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++, s->len++)
		if (s->len < s->size)
			s->dst[s->len] = (char)tolower((unsigned char)p[i]);
}

static bool is_scheme(const char *p, size_t n)
{
	if (n == 0 || !isalpha((unsigned char)p[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!isalnum((unsigned char)p[i]) && strchr("+-.", p[i]) == NULL)
			return false;
	return memchr(p, '\0', n) == NULL;
}

static bool is_host_name(const char *p, size_t n)
{
	if (n == 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)p[i]) && p[i] != '-' && p[i] != '.' && p[i] != '_')
			return false;
	return true;
}

/* "[::1]" in its one canonical spelling, so that two spellings of an address compare equal. */
static bool put_ip6(struct sink *s, const char *p, size_t n)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr a;

	if (n < 4 || n - 2 >= sizeof(text))
		return false;
	memcpy(text, p + 1, n - 2);
	text[n - 2] = '\0';
	if (strlen(text) != n - 2 || inet_pton(AF_INET6, text, &a) != 1)
		return false;
	if (inet_ntop(AF_INET6, &a, text, sizeof(text)) == NULL)
		return false;
	sink_put(s, "[", 1);
	sink_put(s, text, strlen(text));
	sink_put(s, "]", 1);
	return true;
}

static unsigned default_port(const char *scheme, size_t n)
{
	static const struct {
		const char *name;
		unsigned port;
	} known[] = {{"http", 80}, {"https", 443}, {"ws", 80}, {"wss", 443}};

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (n == strlen(known[i].name) && strncasecmp(scheme, known[i].name, n) == 0)
			return known[i].port;
	return 0;
}

/* 1 to 65535, or 0 if it is no port. */
static unsigned parse_port(const char *p, size_t n)
{
	unsigned v = 0;

	if (n == 0 || n > 5)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return 0;
		v = v * 10 + (unsigned)(p[i] - '0');
	}
	return v <= 65535 ? v : 0;
}

bool config_origin_normalise(struct slice origin, char *dst, size_t size)
{
	const char *end = origin.p + origin.len;
	const char *sep, *host, *host_end;
	struct sink s = {dst, size, 0};
	char port[8];
	unsigned num;

	if (origin.len == 0 || size == 0)
		return false;
	sep = memmem(origin.p, origin.len, "://", 3);
	if (sep == NULL || !is_scheme(origin.p, (size_t)(sep - origin.p)))
		return false;
	sink_put(&s, origin.p, (size_t)(sep - origin.p) + 3);
	host = sep + 3;
	if (host < end && *host == '[') {
		host_end = memchr(host, ']', (size_t)(end - host));
		if (host_end == NULL || !put_ip6(&s, host, (size_t)(++host_end - host)))
			return false;
	} else {
		host_end = memchr(host, ':', (size_t)(end - host));
		if (host_end == NULL)
			host_end = end;
		if (!is_host_name(host, (size_t)(host_end - host)))
			return false;
		sink_put(&s, host, (size_t)(host_end - host));
	}
	if (host_end < end) {
		num = *host_end == ':' ? parse_port(host_end + 1, (size_t)(end - host_end - 1)) : 0;
		if (num == 0)
			return false;
		if (num != default_port(origin.p, (size_t)(sep - origin.p)))
			sink_put(&s, port, (size_t)snprintf(port, sizeof(port), ":%u", num));
	}
	if (s.len >= size)
		return false;
	dst[s.len] = '\0';
	return true;
}

size_t config_redis_channel(const struct cfg_namespace *ns, struct slice room, char *dst, size_t size)
{
	size_t a = strlen(ns->redis_prefix), b = 0, c = 0;

	if (ns->redis_has_room) {
		b = room.len;
		c = strlen(ns->redis_suffix);
	}
	if (a >= size || b >= size - a || c >= size - a - b)
		return 0;
	memcpy(dst, ns->redis_prefix, a);
	if (b > 0)
		memcpy(dst + a, room.p, b);
	if (c > 0)
		memcpy(dst + a + b, ns->redis_suffix, c);
	dst[a + b + c] = '\0';
	if (strncmp(dst, CFG_OWN_PREFIX, strlen(CFG_OWN_PREFIX)) == 0)
		return 0;
	return a + b + c;
}

const struct cfg_namespace *config_find(const struct config *c, struct slice name)
{
	for (size_t i = 0; i < c->n_namespaces; i++) {
		const struct cfg_namespace *ns = &c->namespaces[i];

		if (strlen(ns->name) == name.len && memcmp(ns->name, name.p, name.len) == 0)
			return ns;
	}
	return NULL;
}

const struct cfg_namespace *config_find_id(const struct config *c, uint16_t id)
{
	for (size_t i = 0; i < c->n_namespaces; i++)
		if (c->namespaces[i].id == id)
			return &c->namespaces[i];
	return NULL;
}

struct cfg_auth *config_find_auth(const struct config *c, struct slice name)
{
	for (size_t i = 0; i < c->n_auths; i++) {
		struct cfg_auth *a = &c->auths[i];

		if (a->name != NULL && strlen(a->name) == name.len && memcmp(a->name, name.p, name.len) == 0)
			return a;
	}
	return NULL;
}

bool config_network_has(const struct cfg_network *n, const uint8_t address[16])
{
	size_t whole = n->bits / 8, rest = n->bits % 8;

	if (memcmp(n->address, address, whole) != 0)
		return false;
	return rest == 0 || ((n->address[whole] ^ address[whole]) & (0xff00u >> rest & 0xffu)) == 0;
}

static void listeners_free(struct cfg_listener *l, size_t n)
{
	for (size_t i = 0; i < n; i++)
		config_listener_clear(&l[i]);
	free(l);
}

void config_listener_clear(struct cfg_listener *l)
{
	free(l->addr);
	free(l->path);
	free(l->host);
	free(l->api_key);
	*l = (struct cfg_listener){0};
}

static void rule_clear(struct cfg_rule *r)
{
	free(r->name);
	template_free(r->frame);
	template_free(r->key);
	template_free(r->value);
	for (size_t i = 0; i < r->n_coerce; i++)
		free(r->coerce[i].name);
	free(r->coerce);
}

/* What it says of auth belongs to config->auths. */
static void namespace_clear(struct cfg_namespace *ns)
{
	for (size_t i = 0; i < ns->n_rules; i++)
		rule_clear(&ns->rules[i]);
	free(ns->rules);
	free(ns->user_query);
	template_free(ns->greeting);
	template_free(ns->idle.frame);
	template_free(ns->retain_key);
	template_free(ns->retain_unless);
	template_free(ns->retain_frame);
	free(ns->name);
	free(ns->path);
	free(ns->path_prefix);
	free(ns->path_suffix);
	free(ns->redis_prefix);
	free(ns->redis_suffix);
	free(ns->route_key);
	for (size_t i = 0; i < ns->n_origins; i++)
		free(ns->origins[i]);
	free(ns->origins);
}

static void sources_free(struct cfg_source_of *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(s[i].name);
	free(s);
}

static void auth_clear(struct cfg_auth *a)
{
	free(a->name);
	free(a->url);
	free(a->secret);
	free(a->ca_file);
	free(a->ca_text);
	sources_free(a->cache_key, a->n_cache_key);
	sources_free(a->from, a->n_from);
	free(a->keys);
	if (a->keys_text != NULL)
		explicit_bzero(a->keys_text, a->keys_len);
	free(a->keys_text);
	free(a->user_claim);
	free(a->groups_claim);
	free(a->audience);
	free(a->issuer);
}

void config_redis_clear(struct cfg_redis *r)
{
	for (unsigned i = 0; i < r->n_sentinels; i++) {
		free(r->sentinels[i].host);
		r->sentinels[i].host = NULL;
	}
	r->n_sentinels = 0;
	free(r->sentinel_name);
	r->sentinel_name = NULL;
	free(r->url);
	free(r->host);
	free(r->user);
	free(r->password);
	free(r->path);
	r->url = r->host = r->user = r->password = r->path = NULL;
}

void config_free(struct config *c)
{
	if (c == NULL)
		return;
	free(c->file);
	free(c->user);
	free(c->pid_file);
	free(c->log_file);
	listeners_free(c->listens, c->n_listens);
	listeners_free(c->admins, c->n_admins);
	config_redis_clear(&c->redis);
	free(c->redis.ca_file);
	for (size_t i = 0; i < c->n_namespaces; i++)
		namespace_clear(&c->namespaces[i]);
	free(c->namespaces);
	for (size_t i = 0; i < c->n_auths; i++)
		auth_clear(&c->auths[i]);
	free(c->auths);
	free(c->trusted_proxies);
	free(c);
}
