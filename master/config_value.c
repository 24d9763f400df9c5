#include "master/config_value.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define REDIS_PORT 6379

static int fail(struct value_error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int fail(struct value_error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->s, sizeof(err->s), fmt, ap);
	va_end(ap);
	return -1;
}

/* ---- numbers ---- */

/* Decimal digits; *rest is what follows them. False if there are none or they exceed 64 bits. */
static bool digits(const char *p, uint64_t *v, const char **rest)
{
	if (*p < '0' || *p > '9')
		return false;
	for (*v = 0; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(*v, (uint64_t)10, v) ||
		    __builtin_add_overflow(*v, (uint64_t)(*p - '0'), v))
			return false;
	*rest = p;
	return true;
}

static bool scale(const struct config_key *k, const char *unit, uint64_t *v)
{
	static const struct {
		enum ckey_type type;
		const char *name;
		uint64_t factor;
	} units[] = {
		{CKEY_SIZE, "", 1},
		{CKEY_SIZE, "k", 1024},
		{CKEY_SIZE, "m", 1024 * 1024},
		{CKEY_SIZE, "g", 1024u * 1024 * 1024},
		{CKEY_DURATION, "ms", 1},
		{CKEY_DURATION, "s", 1000},
		{CKEY_DURATION, "m", 60000},
		{CKEY_DURATION, "h", 3600000},
	};

	if (k->type == CKEY_DURATION && *unit == '\0')
		return *v == 0;
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (units[i].type == k->type && strcmp(units[i].name, unit) == 0)
			return !__builtin_mul_overflow(*v, units[i].factor, v);
	return *unit == '\0';
}

static int octal(const char *text, uint64_t *v)
{
	size_t n = strspn(text, "01234567");

	if (n == 0 || n > 8 || text[n] != '\0')
		return -1;
	*v = strtoul(text, NULL, 8);
	return 0;
}

static int enumerated(const struct config_key *k, const char *text, uint64_t *v, struct value_error *err)
{
	struct config_range range = {""};
	int i = config_choice(k->choices, text);

	if (i < 0 && k->later != NULL && config_choice(k->later, text) >= 0)
		return fail(err, "\"%.60s\": not in this version", text);
	if (i < 0)
		return fail(err, "\"%.60s\" is not one of: %s", text, config_key_range(k, &range));
	*v = (uint64_t)i;
	return 0;
}

static int in_range(const struct config_key *k, const char *text, uint64_t v, struct value_error *err)
{
	struct config_range range = {""};

	if ((v >= k->min && v <= k->max) || (v == 0 && k->zero_ok))
		return 0;
	return fail(err, "\"%.60s\" is out of range: %s", text, config_key_range(k, &range));
}

uint32_t value_auto_workers(void)
{
	cpu_set_t set;
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > CFG_MAX_WORKERS ? CFG_MAX_WORKERS : (uint32_t)n;
}

int value_number(const struct config_key *k, const char *text, uint64_t *out, struct value_error *err)
{
	static const char *const what[] = {
		[CKEY_UINT] = "a number",
		[CKEY_SIZE] = "a size: digits and k, m, g or nothing",
		[CKEY_DURATION] = "a duration: digits and ms, s, m or h",
		[CKEY_OCTAL] = "a file mode like 0660",
		[CKEY_WORKERS] = "a number or \"auto\"",
	};
	const char *rest;

	switch (k->type) {
	case CKEY_BOOL:
		*out = strcmp(text, "on") == 0;
		return *out || strcmp(text, "off") == 0 ? 0
							: fail(err, "\"%.60s\" is neither on nor off", text);
	case CKEY_ENUM:
		return enumerated(k, text, out, err);
	case CKEY_OCTAL:
		if (octal(text, out) == -1)
			return fail(err, "\"%.60s\" is not %s", text, what[k->type]);
		break;
	case CKEY_WORKERS:
		if (strcmp(text, "auto") == 0) {
			*out = value_auto_workers();
			return 0;
		}
		/* fall through */
	default:
		if (!digits(text, out, &rest) || !scale(k, rest, out))
			return fail(err, "\"%.60s\" is not %s", text, what[k->type]);
	}
	return in_range(k, text, *out, err);
}

/* ---- addresses ---- */

static int unix_path(const char *path, struct value_error *err)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (*path == '\0')
		return fail(err, "no path after unix:");
	if (*path == '@')
		return fail(
			err,
			"abstract unix sockets are not supported: anybody on the host could take the name");
	if (strlen(path) > max)
		return fail(err, "the path of a unix socket has at most %zu bytes, this one %zu", max,
			    strlen(path));
	return 0;
}

/* Is the host a numeric address, of the family that its spelling says? */
static bool is_numeric(const char *host, bool bracketed)
{
	struct in6_addr a;

	return inet_pton(bracketed ? AF_INET6 : AF_INET, host, &a) == 1;
}

/* Split "host:port" at `colon`. The host without brackets into a fresh string: NULL with `err` set. */
static char *tcp_host(const char *text, const char *colon, struct value_error *err)
{
	size_t len = (size_t)(colon - text);
	bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
	char *host;

	if (len == 0 || (len == 1 && text[0] == '*'))
		host = strdup("*");
	else if (len == 9 && strncmp(text, "localhost", 9) == 0)
		host = strdup("127.0.0.1");
	else
		host = strndup(text + bracketed, len - 2 * bracketed);
	if (host == NULL) {
		fail(err, "out of memory");
		return NULL;
	}
	if (strcmp(host, "*") == 0 || is_numeric(host, bracketed))
		return host;
	if (!bracketed && strchr(host, ':') != NULL)
		fail(err, "\"%.100s\": an IPv6 address stands in brackets: [::1]:8080", text);
	else
		fail(err, "\"%.100s\" is not a numeric address (names are not looked up)", host);
	free(host);
	return NULL;
}

int value_listener(const char *text, struct cfg_listener *out, struct value_error *err)
{
	struct cfg_listener l = {0};
	const char *colon, *rest;
	uint64_t port;

	l.is_unix = strncmp(text, "unix:", 5) == 0;
	if (l.is_unix) {
		if (unix_path(text + 5, err) == -1)
			return -1;
		l.path = strdup(text + 5);
	} else {
		colon = strrchr(text, ':');
		if (colon == NULL || (text[0] == '[' && text[strlen(text) - 1] == ']'))
			return fail(err, "\"%.100s\" has no port: ADDRESS:PORT or unix:PATH is expected",
				    text);
		if (!digits(colon + 1, &port, &rest) || *rest != '\0' || port > 65535)
			return fail(err, "\"%.100s\" is not a port (0 to 65535)", colon + 1);
		l.host = tcp_host(text, colon, err);
		if (l.host == NULL)
			return -1;
		l.port = (uint16_t)port;
	}
	l.addr = strdup(text);
	if (l.addr == NULL || (l.is_unix && l.path == NULL)) {
		config_listener_clear(&l);
		return fail(err, "out of memory");
	}
	out->addr = l.addr;
	out->is_unix = l.is_unix;
	out->path = l.path;
	out->host = l.host;
	out->port = l.port;
	return 0;
}

/* ---- Redis URLs ---- */

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
		return fail(err,
			    "the URL has a user but no password: user:password@ or :password@ is expected");
	if (colon > s.p && (out->user = decode(s.p, (size_t)(colon - s.p))) == NULL)
		return fail(err, "malformed user in the URL");
	out->password = decode(colon + 1, (size_t)(s.p + s.len - colon - 1));
	if (out->password == NULL)
		return fail(err, "malformed password in the URL (%% is written %%25, @ %%40, / %%2F)");
	if (*out->password == '\0')
		return fail(err, "the password in the URL is empty");
	return 0;
}

static int redis_db(const char *text, struct cfg_redis *out, struct value_error *err)
{
	const char *rest;
	uint64_t v;

	if (!digits(text, &v, &rest) || *rest != '\0' || v > INT32_MAX)
		return fail(err, "\"%.40s\" is not the number of a database", text);
	out->db = (uint32_t)v;
	return 0;
}

static bool is_host_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
	       c == '.' || c == '_';
}

/* host, host:port or [v6]:port */
static int redis_host(const char *p, size_t len, struct cfg_redis *out, struct value_error *err)
{
	const char *end = p + len, *host_end, *rest;
	bool bracketed = len > 0 && *p == '[';
	uint64_t port = REDIS_PORT;

	if (bracketed) {
		p++;
		host_end = memchr(p, ']', (size_t)(end - p));
		if (host_end == NULL)
			return fail(err, "the bracket around the address is not closed");
		rest = host_end + 1;
	} else {
		for (host_end = p; host_end < end && is_host_char(*host_end);)
			host_end++;
		rest = host_end;
	}
	if (host_end == p)
		return fail(err, "the URL has no host (a / in a password is written %%2F)");
	if (rest < end &&
	    (*rest != ':' || !digits(rest + 1, &port, &rest) || rest != end || port < 1 || port > 65535))
		return fail(err, "host or host:port is expected in the URL, port 1 to 65535");
	out->host = strndup(p, (size_t)(host_end - p));
	if (out->host == NULL)
		return fail(err, "out of memory");
	if (bracketed && !is_numeric(out->host, true))
		return fail(err, "\"%.60s\" is not an IPv6 address", out->host);
	out->port = (uint16_t)port;
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
	if (redis_host(p, (size_t)(end - p), out, err) == -1)
		return -1;
	if (*end == '\0' || strcmp(end, "/") == 0)
		return 0;
	if (*end != '/')
		return fail(err, "?options and #fragments are not known in a redis:// URL");
	return redis_db(end + 1, out, err);
}

static int redis_unix(const char *p, struct cfg_redis *out, struct value_error *err)
{
	const char *query = strchrnul(p, '?');

	if (*p != '/')
		return fail(err, "unix:///path is expected");
	out->is_unix = true;
	out->path = strndup(p, (size_t)(query - p));
	if (out->path == NULL)
		return fail(err, "out of memory");
	if (unix_path(out->path, err) == -1)
		return -1;
	if (*query == '\0')
		return 0;
	if (strncmp(query, "?db=", 4) != 0)
		return fail(err, "only ?db=N may follow the path");
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
	if (strncmp(text, "sentinel://", 11) == 0 || strncmp(text, "redis+sentinel://", 17) == 0)
		return fail(err, "sentinel:// is not in this version");
	return fail(err, "redis://, rediss:// or unix:/// is expected");
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
			return fail(err, "white space or a control character in the URL");
	if (redis_scheme(text, out, err) == -1) {
		config_redis_clear(out);
		return -1;
	}
	out->url = strdup(text);
	return out->url != NULL ? 0 : fail(err, "out of memory");
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
