#include "master/config_value.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

int value_fail(struct value_error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->s, sizeof(err->s), fmt, ap);
	va_end(ap);
	return -1;
}

/* ---- numbers ---- */

bool value_digits(const char *p, uint64_t *v, const char **rest)
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

	if (i < 0)
		return value_fail(err, "\"%.60s\" is not one of: %s", text, config_key_range(k, &range));
	*v = (uint64_t)i;
	return 0;
}

static int in_range(const struct config_key *k, const char *text, uint64_t v, struct value_error *err)
{
	struct config_range range = {""};

	if ((v >= k->min && v <= k->max) || (v == 0 && k->zero_ok))
		return 0;
	return value_fail(err, "\"%.60s\" is out of range: %s", text, config_key_range(k, &range));
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
		return *out || strcmp(text, "off") == 0
			       ? 0
			       : value_fail(err, "\"%.60s\" is neither on nor off", text);
	case CKEY_ENUM:
		return enumerated(k, text, out, err);
	case CKEY_OCTAL:
		if (octal(text, out) == -1)
			return value_fail(err, "\"%.60s\" is not %s", text, what[k->type]);
		break;
	case CKEY_WORKERS:
		if (strcmp(text, "auto") == 0) {
			*out = value_auto_workers();
			return 0;
		}
		/* fall through */
	default:
		if (!value_digits(text, out, &rest) || !scale(k, rest, out))
			return value_fail(err, "\"%.60s\" is not %s", text, what[k->type]);
	}
	return in_range(k, text, *out, err);
}

/* ---- addresses ---- */

int value_unix_path(const char *path, struct value_error *err)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (*path == '\0')
		return value_fail(err, "no path after unix:");
	if (*path == '@')
		return value_fail(
			err,
			"abstract unix sockets are not supported: anybody on the host could take the name");
	if (strlen(path) > max)
		return value_fail(err, "the path of a unix socket has at most %zu bytes, this one %zu", max,
				  strlen(path));
	return 0;
}

bool value_is_numeric(const char *host, bool bracketed)
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
		value_fail(err, "out of memory");
		return NULL;
	}
	if (strcmp(host, "*") == 0 || value_is_numeric(host, bracketed))
		return host;
	if (!bracketed && strchr(host, ':') != NULL)
		value_fail(err, "\"%.100s\": an IPv6 address stands in brackets: [::1]:8080", text);
	else
		value_fail(err, "\"%.100s\" is not a numeric address (names are not looked up)", host);
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
		if (value_unix_path(text + 5, err) == -1)
			return -1;
		l.path = strdup(text + 5);
	} else {
		colon = strrchr(text, ':');
		if (colon == NULL || (text[0] == '[' && text[strlen(text) - 1] == ']'))
			return value_fail(
				err, "\"%.100s\" has no port: ADDRESS:PORT or unix:PATH is expected", text);
		if (!value_digits(colon + 1, &port, &rest) || *rest != '\0' || port > 65535)
			return value_fail(err, "\"%.100s\" is not a port (0 to 65535)", colon + 1);
		l.host = tcp_host(text, colon, err);
		if (l.host == NULL)
			return -1;
		l.port = (uint16_t)port;
	}
	l.addr = strdup(text);
	if (l.addr == NULL || (l.is_unix && l.path == NULL)) {
		config_listener_clear(&l);
		return value_fail(err, "out of memory");
	}
	out->addr = l.addr;
	out->is_unix = l.is_unix;
	out->path = l.path;
	out->host = l.host;
	out->port = l.port;
	return 0;
}

/* ---- networks ---- */

/* "10.0.0.0" or "::1" as 16 bytes; *bits becomes its length in its own family, *extra what mapping adds. */
static bool parse_address(const char *text, uint8_t address[16], unsigned *bits, unsigned *extra)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	*extra = 0;
	*bits = 128;
	if (inet_pton(AF_INET6, text, address) == 1)
		return true;
	if (inet_pton(AF_INET, text, address + 12) != 1)
		return false;
	memcpy(address, mapped, sizeof(mapped));
	*extra = 96;
	*bits = 32;
	return true;
}

static bool has_host_bits(const struct cfg_network *n)
{
	for (unsigned i = n->bits; i < 128; i++)
		if (n->address[i / 8] >> (7 - i % 8) & 1)
			return true;
	return false;
}

int value_network(const char *text, struct cfg_network *out, struct value_error *err)
{
	const char *slash = strchrnul(text, '/'), *rest;
	struct cfg_network n = {{0}, 0};
	unsigned most, extra;
	char address[64];
	uint64_t bits;

	snprintf(address, sizeof(address), "%.*s",
		 (int)u64_min((uint64_t)(slash - text), sizeof(address) - 1), text);
	if (strlen(address) != (size_t)(slash - text) || !parse_address(address, n.address, &most, &extra))
		return value_fail(err, "\"%.60s\" is no address, ADDRESS/BITS or unix:", text);
	bits = most;
	if (*slash == '/' && (!value_digits(slash + 1, &bits, &rest) || *rest != '\0' || bits > most))
		return value_fail(err, "\"%.60s\": 0 to %u bits are expected behind the /", text, most);
	n.bits = (uint8_t)(bits + extra);
	if (has_host_bits(&n))
		return value_fail(err, "\"%.60s\" has bits set behind its first %u", text, (unsigned)bits);
	*out = n;
	return 0;
}

void value_network_text(const struct cfg_network *n, char *dst, size_t size)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	bool is_ip4 = n->bits >= 96 && memcmp(n->address, mapped, sizeof(mapped)) == 0;
	char text[INET6_ADDRSTRLEN] = "";

	if (inet_ntop(is_ip4 ? AF_INET : AF_INET6, n->address + (is_ip4 ? 12 : 0), text, sizeof(text)) ==
	    NULL)
		text[0] = '\0';
	snprintf(dst, size, "%s/%u", text, n->bits - (is_ip4 ? 96u : 0u));
}
