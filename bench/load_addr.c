/* load_addr.c - addresses of servers and of clients (load_addr.h). */
#include "bench/load_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static int parse_unix(const char *path, struct load_addr *a)
{
	struct sockaddr_un *un = (void *)&a->ss;
	const size_t n = strlen(path);

	if (n == 0 || n >= sizeof(un->sun_path))
		return -1;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, n);
	a->len = sizeof(*un);
	return 0;
}

/* An address of IPv4 or IPv6 without brackets. */
static int parse_ip(const char *text, size_t n, uint16_t port, struct load_addr *a)
{
	struct sockaddr_in *in = (void *)&a->ss;
	struct sockaddr_in6 *in6 = (void *)&a->ss;
	char host[INET6_ADDRSTRLEN];

	memset(a, 0, sizeof(*a));
	if (n >= sizeof(host))
		return -1;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		a->len = sizeof(*in);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
		return -1;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	a->len = sizeof(*in6);
	return 0;
}

static int parse_port(const char *text, uint16_t *port)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || v == 0 || v > 65535)
		return -1;
	*port = (uint16_t)v;
	return 0;
}

int load_addr_parse(const char *text, struct load_addr *a)
{
	const char *colon = strrchr(text, ':');
	uint16_t port;

	memset(a, 0, sizeof(*a));
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, a);
	if (!colon || parse_port(colon + 1, &port) == -1)
		return -1;
	if (text[0] == '[') {
		if (colon < text + 2 || colon[-1] != ']' ||
		    parse_ip(text + 1, (size_t)(colon - text - 2), port, a) == -1)
			return -1;
		return a->ss.ss_family == AF_INET6 ? 0 : -1;
	}
	if (parse_ip(text, (size_t)(colon - text), port, a) == -1)
		return -1;
	return a->ss.ss_family == AF_INET ? 0 : -1;
}

bool load_addr_is_loopback4(const struct load_addr *a)
{
	const struct sockaddr_in *in = (const void *)&a->ss;

	return a->ss.ss_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

/* The last 32 bits: the part in which ranges count. */
static uint8_t *tail_of(struct load_addr *a)
{
	struct sockaddr_in *in = (void *)&a->ss;
	struct sockaddr_in6 *in6 = (void *)&a->ss;

	return a->ss.ss_family == AF_INET ? (uint8_t *)&in->sin_addr : in6->sin6_addr.s6_addr + 12;
}

static uint32_t tail_get(struct load_addr *a)
{
	uint32_t v;

	memcpy(&v, tail_of(a), 4);
	return ntohl(v);
}

static void tail_put(struct load_addr *a, uint32_t v)
{
	v = htonl(v);
	memcpy(tail_of(a), &v, 4);
}

/* "A" or "A-B", n bytes. */
static int parse_range(const char *text, size_t n, int family, struct load_range *r)
{
	const char *dash = memchr(text, '-', n);
	struct load_addr last;
	uint32_t from, to;

	if (parse_ip(text, dash ? (size_t)(dash - text) : n, 0, &r->first) == -1 ||
	    r->first.ss.ss_family != family)
		return -1;
	r->n = 1;
	if (!dash)
		return 0;
	if (parse_ip(dash + 1, (size_t)(text + n - dash - 1), 0, &last) == -1 || last.ss.ss_family != family)
		return -1;
	from = tail_get(&r->first);
	to = tail_get(&last);
	tail_put(&last, from);
	if (to < from || to - from == UINT32_MAX || memcmp(&last, &r->first, sizeof(last)) != 0)
		return -1; /* backwards, or not the same but for the last 32 bits */
	r->n = to - from + 1;
	return 0;
}

int load_sources_parse(const char *text, int family, struct load_sources *s)
{
	memset(s, 0, sizeof(*s));
	for (;;) {
		const size_t n = strcspn(text, ",");

		if (s->n_ranges == LOAD_RANGES || parse_range(text, n, family, &s->range[s->n_ranges]) == -1)
			return -1;
		s->total += s->range[s->n_ranges++].n;
		if (text[n] == '\0')
			return 0;
		text += n + 1;
	}
}

void load_sources_loopback(struct load_sources *s, uint32_t n)
{
	struct sockaddr_in *in = (void *)&s->range[0].first.ss;

	memset(s, 0, sizeof(*s));
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(0x7f000101u);
	s->range[0].first.len = sizeof(*in);
	s->range[0].n = n;
	s->n_ranges = 1;
	s->total = n;
}

struct load_addr load_source(const struct load_sources *s, uint32_t i)
{
	uint64_t at = i % s->total;
	uint32_t k = 0;
	struct load_addr a;

	while (at >= s->range[k].n)
		at -= s->range[k++].n;
	a = s->range[k].first;
	tail_put(&a, tail_get(&a) + (uint32_t)at);
	return a;
}

uint32_t load_ports(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	char line[64] = "";
	char *end;
	unsigned long from, to;

	if (!f)
		return 28232; /* Linux' own default: 32768 to 60999 */
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	from = strtoul(line, &end, 10);
	to = strtoul(end, NULL, 10);
	return from > 0 && to >= from && to <= 65535 ? (uint32_t)(to - from + 1) : 28232;
}
