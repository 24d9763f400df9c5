/* URLs of Redis and its sentinels, and of authorization hooks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/config_value.h"

#define REDIS_PORT    6379
#define SENTINEL_PORT 26379

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Percent-decode into a fresh string. NULL: malformed, a NUL, or no memory. */
static char *decode(const char *p, size_t len)
{
	char *out = malloc(len + 1), *q = out;

	for (size_t i = 0; out != NULL && i < len; i++) {
		int v = (unsigned char)p[i];

		if (p[i] == '%') {
			if (i + 2 >= len || hex(p[i + 1]) < 0 || hex(p[i + 2]) < 0)
				v = 0;
			else
				v = hex(p[i + 1]) << 4 | hex(p[i + 2]);
			i += 2;
		}
		if (v == 0) {
			free(out);
			return NULL;
		}
		*q++ = (char)v;
	}
	if (out != NULL)
		*q = '\0';
	return out;
}

/* "user:password", what stands before the @. Messages don't show it. */
static int redis_credentials(struct slice s, struct cfg_redis *out, struct value_error *err)
{
	const char *colon = memchr(s.p, ':', s.len);

	if (colon == NULL)
		return value_fail(
			err, "the URL has a user but no password: user:password@ or :password@ is expected");
	if (colon > s.p && (out->user = decode(s.p, (size_t)(colon - s.p))) == NULL)
		return value_fail(err, "malformed user in the URL");
	out->password = decode(colon + 1, (size_t)(s.p + s.len - colon - 1));
	if (out->password == NULL)
		return value_fail(err, "malformed password in the URL (%% is written %%25, @ %%40, / %%2F)");
	if (*out->password == '\0')
		return value_fail(err, "the password in the URL is empty");
	return 0;
}

static int redis_db(const char *text, struct cfg_redis *out, struct value_error *err)
{
	const char *rest;
	uint64_t v;

	if (!value_digits(text, &v, &rest) || *rest != '\0' || v > INT32_MAX)
		return value_fail(err, "\"%.40s\" is not the number of a database", text);
	out->db = (uint32_t)v;
	return 0;
}

static bool is_host_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
	       c == '.' || c == '_';
}

/* host, host:port or [v6]:port; *port is the default at first. On failure *host may still be set. */
static int host_port(const char *p, size_t len, char **host, uint16_t *out_port, struct value_error *err)
{
	const char *end = p + len, *host_end, *rest;
	bool bracketed = len > 0 && *p == '[';
	uint64_t port = *out_port;

	if (bracketed) {
		p++;
		host_end = memchr(p, ']', (size_t)(end - p));
		if (host_end == NULL)
			return value_fail(err, "the bracket around the address is not closed");
		rest = host_end + 1;
	} else {
		for (host_end = p; host_end < end && is_host_char(*host_end);)
			host_end++;
		rest = host_end;
	}
	if (host_end == p)
		return value_fail(err, "the URL has no host (a / in a password is written %%2F)");
	if (rest < end && (*rest != ':' || !value_digits(rest + 1, &port, &rest) || rest != end || port < 1 ||
			   port > 65535))
		return value_fail(err, "host or host:port is expected in the URL, port 1 to 65535");
	*host = strndup(p, (size_t)(host_end - p));
	if (*host == NULL)
		return value_fail(err, "out of memory");
	if (bracketed && !value_is_numeric(*host, true))
		return value_fail(err, "\"%.60s\" is not an IPv6 address", *host);
	*out_port = (uint16_t)port;
	return 0;
}

static int redis_tcp(const char *p, struct cfg_redis *out, struct value_error *err)
{
	const char *end = p + strcspn(p, "/?#"), *at = memrchr(p, '@', (size_t)(end - p));

	if (at != NULL) {
		if (redis_credentials((struct slice){p, (size_t)(at - p)}, out, err) == -1)
			return -1;
		p = at + 1;
	}
	out->port = REDIS_PORT;
	if (host_port(p, (size_t)(end - p), &out->host, &out->port, err) == -1)
		return -1;
	if (*end == '\0' || strcmp(end, "/") == 0)
		return 0;
	if (*end != '/')
		return value_fail(err, "?options and #fragments are not known in a redis:// URL");
	return redis_db(end + 1, out, err);
}

/* h1[:port],h2[:port] */
static int sentinel_hosts(const char *p, const char *end, struct cfg_redis *out, struct value_error *err)
{
	for (;;) {
		const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma != NULL ? comma : end;
		unsigned n = out->n_sentinels;

		if (n == ARRAY_LEN(out->sentinels))
			return value_fail(err, "at most %zu sentinels are possible",
					  ARRAY_LEN(out->sentinels));
		out->n_sentinels++; /* so that a host that is no address is freed, too */
		out->sentinels[n].port = SENTINEL_PORT;
		if (host_port(p, (size_t)(stop - p), &out->sentinels[n].host, &out->sentinels[n].port, err) ==
		    -1)
			return -1;
		if (comma == NULL)
			break;
		p = comma + 1;
	}
	out->host = strdup(out->sentinels[0].host);
	out->port = out->sentinels[0].port;
	return out->host != NULL ? 0 : value_fail(err, "out of memory");
}

/* [user:password@]hosts/name[/db] */
static int redis_sentinel(const char *p, struct cfg_redis *out, struct value_error *err)
{
	const char *end = p + strcspn(p, "/?#"), *at = memrchr(p, '@', (size_t)(end - p)), *name, *name_end;

	if (at != NULL && redis_credentials((struct slice){p, (size_t)(at - p)}, out, err) == -1)
		return -1;
	if (sentinel_hosts(at != NULL ? at + 1 : p, end, out, err) == -1)
		return -1;
	name = *end == '/' ? end + 1 : end;
	for (name_end = name; is_host_char(*name_end);)
		name_end++;
	if (name_end == name || (*name_end != '\0' && *name_end != '/'))
		return value_fail(err, "/NAME is expected behind the sentinels: letters, digits, -, . and _");
	out->sentinel_name = strndup(name, (size_t)(name_end - name));
	if (out->sentinel_name == NULL)
		return value_fail(err, "out of memory");
	return name_end[0] == '\0' || name_end[1] == '\0' ? 0 : redis_db(name_end + 1, out, err);
}

static int redis_unix(const char *p, struct cfg_redis *out, struct value_error *err)
{
	const char *query = strchrnul(p, '?');

	if (*p != '/')
		return value_fail(err, "unix:///path is expected");
	out->is_unix = true;
	out->path = strndup(p, (size_t)(query - p));
	if (out->path == NULL)
		return value_fail(err, "out of memory");
	if (value_unix_path(out->path, err) == -1)
		return -1;
	if (*query == '\0')
		return 0;
	if (strncmp(query, "?db=", 4) != 0)
		return value_fail(err, "only ?db=N may follow the path");
	return redis_db(query + 4, out, err);
}

static int redis_scheme(const char *text, struct cfg_redis *out, struct value_error *err)
{
	if (strncmp(text, "redis://", 8) == 0)
		return redis_tcp(text + 8, out, err);
	if (strncmp(text, "rediss://", 9) == 0) {
		out->tls = true;
		return redis_tcp(text + 9, out, err);
	}
	if (strncmp(text, "unix://", 7) == 0)
		return redis_unix(text + 7, out, err);
	if (strncmp(text, "sentinel://", 11) == 0)
		return redis_sentinel(text + 11, out, err);
	return value_fail(err, "redis://, rediss://, unix:/// or sentinel:// is expected");
}

int value_redis_url(const char *text, struct cfg_redis *out, struct value_error *err)
{
	config_redis_clear(out);
	out->tls = out->is_unix = false;
	out->port = 0;
	out->db = 0;
	if (text == NULL || *text == '\0')
		return 0;
	for (const char *p = text; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return value_fail(err, "white space or a control character in the URL");
	if (redis_scheme(text, out, err) == -1) {
		config_redis_clear(out);
		return -1;
	}
	out->url = strdup(text);
	return out->url != NULL ? 0 : value_fail(err, "out of memory");
}

char *value_redis_masked(const struct cfg_redis *r)
{
	const char *start, *colon, *at;
	char *out = NULL;

	if (r->url == NULL)
		return strdup("");
	if (r->password == NULL)
		return strdup(r->url);
	start = strstr(r->url, "://") + 3;
	at = memrchr(start, '@', strcspn(start, "/?#"));
	colon = strchr(start, ':');
	if (asprintf(&out, "%.*s***%s", (int)(colon + 1 - r->url), r->url, at) == -1)
		return NULL;
	return out;
}

/* ---- hooks ---- */

/* unix:/path:/uri */
static int hook_unix(const char *p, struct value_error *err)
{
	const char *uri = strstr(p, ":/");
	char path[256];

	if (*p != '/' || uri == NULL)
		return value_fail(err, "unix:/path:/uri is expected");
	snprintf(path, sizeof(path), "%.*s", (int)u64_min((uint64_t)(uri - p), sizeof(path) - 1), p);
	return value_unix_path(path, err);
}

int value_hook_url(const char *text, struct value_error *err)
{
	const char *p, *end;
	char *host = NULL;
	uint16_t port = 80;
	int rc;

	for (p = text; *p != '\0'; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			return value_fail(err, "white space, a control character or non-ASCII in the URL");
	if (strchr(text, '#') != NULL)
		return value_fail(err, "a #fragment in the URL");
	if (strncmp(text, "unix:", 5) == 0)
		return hook_unix(text + 5, err);
	if (strncmp(text, "http://", 7) != 0 && strncmp(text, "https://", 8) != 0)
		return value_fail(err, "http://, https:// or unix:/path:/uri is expected");
	p = strchr(text, '/') + 2;
	end = p + strcspn(p, "/?");
	if (memchr(p, '@', (size_t)(end - p)) != NULL)
		return value_fail(err, "credentials in the URL: write them as secret");
	rc = host_port(p, (size_t)(end - p), &host, &port, err);
	free(host);
	return rc;
}
