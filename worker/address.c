#include "worker/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

bool address_is_ip4(const struct address *a)
{
	return memcmp(a->ip, mapped, sizeof(mapped)) == 0;
}

void address_set_ip4(struct address *a, const void *ip4)
{
	memcpy(a->ip, mapped, sizeof(mapped));
	memcpy(a->ip + sizeof(mapped), ip4, 4);
}

struct address address_peer(int fd)
{
	struct sockaddr_storage s;
	struct address a = {false, {0}};
	socklen_t len = sizeof(s);

	if (getpeername(fd, (struct sockaddr *)&s, &len) == -1)
		return a;
	if (s.ss_family == AF_INET) {
		address_set_ip4(&a, &((struct sockaddr_in *)&s)->sin_addr);
		a.is_known = true;
	} else if (s.ss_family == AF_INET6) {
		memcpy(a.ip, &((struct sockaddr_in6 *)&s)->sin6_addr, 16);
		a.is_known = true;
	}
	return a;
}

/* The part of `text` that is an address, without brackets and port. */
static struct slice without_port(struct slice text)
{
	const char *colon, *end = text.p + text.len;

	if (text.len > 0 && text.p[0] == '[') {
		const char *close = memchr(text.p, ']', text.len);

		if (close == NULL || (close + 1 < end && close[1] != ':'))
			return (struct slice){text.p, 0};
		return (struct slice){text.p + 1, (size_t)(close - text.p - 1)};
	}
	colon = text.len == 0 ? NULL : memchr(text.p, ':', text.len);
	if (colon == NULL || memchr(colon + 1, ':', (size_t)(end - colon - 1)) != NULL)
		return text; /* IPv4 alone, or IPv6 */
	return (struct slice){text.p, (size_t)(colon - text.p)};
}

bool address_parse(struct slice text, struct address *out)
{
	struct slice bare = without_port(text);
	bool is_bracketed = text.len > 0 && text.p[0] == '[';
	char buf[ADDRESS_TEXT_SIZE];
	struct address a = {true, {0}};

	if (bare.len == 0 || bare.len >= sizeof(buf) || memchr(bare.p, '\0', bare.len) != NULL)
		return false;
	memcpy(buf, bare.p, bare.len);
	buf[bare.len] = '\0';
	if (!is_bracketed && inet_pton(AF_INET, buf, a.ip + 12) == 1)
		memcpy(a.ip, mapped, sizeof(mapped));
	else if (inet_pton(AF_INET6, buf, a.ip) != 1)
		return false;
	*out = a;
	return true;
}

void address_text(const struct address *a, char dst[ADDRESS_TEXT_SIZE])
{
	bool is_4 = address_is_ip4(a);

	dst[0] = '\0';
	if (a->is_known &&
	    inet_ntop(is_4 ? AF_INET : AF_INET6, a->ip + (is_4 ? 12 : 0), dst, ADDRESS_TEXT_SIZE) == NULL)
		dst[0] = '\0';
}

bool address_is_trusted(const struct config *c, const struct address *a)
{
	if (!a->is_known)
		return c->trusts_unix;
	for (size_t i = 0; i < c->n_trusted_proxies; i++)
		if (config_network_has(&c->trusted_proxies[i], a->ip))
			return true;
	return false;
}

static struct slice trim(struct slice s)
{
	while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = (struct slice){s.p + 1, s.len - 1};
	while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
		s.len--;
	return s;
}

/* Where the walk stands: the list of one line, from its end. */
struct walk {
	struct address at;
	unsigned hops;
};

/* Walk through one line. True: go on with the line before it. */
static bool walk_line(const struct config *c, struct walk *walk, struct slice line)
{
	for (;;) {
		const char *comma = line.len == 0 ? NULL : memrchr(line.p, ',', line.len);
		const char *begin = comma == NULL ? line.p : comma + 1;
		struct slice last = trim((struct slice){begin, line.len - (size_t)(begin - line.p)});
		struct address next;

		if (walk->hops == ADDRESS_HOPS_MAX || !address_is_trusted(c, &walk->at) ||
		    !address_parse(last, &next))
			return false;
		walk->at = next;
		walk->hops++;
		if (comma == NULL)
			return true;
		line.len = (size_t)(comma - line.p);
	}
}

struct address address_client(const struct config *c, const struct address *from, const struct http_parser *p,
			      const char *head)
{
	struct walk walk = {*from, 0};

	if ((c->n_trusted_proxies == 0 && !c->trusts_unix) || !address_is_trusted(c, from))
		return *from;
	for (unsigned i = p->n_headers; i-- > 0;) {
		const struct http_line *h = &p->headers[i];
		struct slice value = {head + h->name + h->name_len + 1 + h->value_gap, h->value_len};

		if (http_equals((struct slice){head + h->name, h->name_len}, "x-forwarded-for") &&
		    !walk_line(c, &walk, value))
			break;
	}
	return walk.at;
}

void address_key(const struct address *a, uint8_t key[16])
{
	memcpy(key, a->ip, 16);
	if (!address_is_ip4(a))
		memset(key + 8, 0, 8);
}
