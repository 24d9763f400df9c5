/* LINK: worker/proxy.c worker/address.c worker/http.c */
/* proxy: both versions of the PROXY header, whole and cut at each byte, and what is none. address: what is
 * one, who is believed, and where the walk through X-Forwarded-For ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/proxy.h"

/* From memory of exactly that size, so that a sanitizer sees a byte too many. */
static enum proxy_result parse(const void *bytes, size_t len, struct proxy_header *h)
{
	void *copy = malloc(len > 0 ? len : 1);
	enum proxy_result r;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	r = proxy_parse(copy, len, h);
	free(copy);
	return r;
}

static const char *text_of(const struct address *a)
{
	static char text[ADDRESS_TEXT_SIZE];

	address_text(a, text);
	return text;
}

/* Each beginning is one, the whole is a header, and what follows is not touched. */
static void is_header(const void *bytes, size_t len, const char *source)
{
	char longer[PROXY_V2_MAX + 32];
	struct proxy_header h;

	for (size_t i = 0; i < len; i++)
		assert_int_equal(parse(bytes, i, &h), PROXY_MORE);
	memcpy(longer, bytes, len);
	memcpy(longer + len, "GET / HTTP/1.1\r\n", 16);
	for (size_t more = 0; more <= 16; more += 8) {
		assert_int_equal(parse(longer, len + more, &h), PROXY_DONE);
		assert_int_equal(h.len, len);
		assert_int_equal(h.source.is_known, *source != '\0');
		assert_string_equal(text_of(&h.source), source);
	}
}

/* Never a header, however many bytes have come: bad at once, or first a beginning and then bad. */
static void is_bad(const void *bytes, size_t len)
{
	struct proxy_header h;
	bool was_bad = false;

	for (size_t i = 1; i <= len; i++) {
		enum proxy_result r = parse(bytes, i, &h);

		assert_int_not_equal(r, PROXY_DONE);
		assert_true(r == PROXY_BAD || !was_bad);
		was_bad = r == PROXY_BAD;
	}
	if (!was_bad)
		fail_msg("taken: %.*s", (int)len, (const char *)bytes);
}

static void version_1(void **state)
{
	static const char *const good[][2] = {
		{"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", "192.0.2.1"},
		{"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"},
		{"PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", "1.2.3.4"},
		{"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "2001:db8::1"},
		{"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		 "65535 65535\r\n",
		 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1"},
		{"PROXY UNKNOWN\r\n", ""},
		{"PROXY UNKNOWN ffff::1 what ever  65535\r\n", ""},
	};
	static const char *const bad[] = {
		"GET / HTTP/1.1\r\n",
		"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY \r\n",
		"PROXY TCP4\r\n",
		"PROXY TCP4 \r\n",
		"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY UNKNOWNX\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n",
		"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 100000\r\n",
		"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4:5 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 example.com 1 2\r\n",
		"PROXY TCP4 ::1 ::1 1 2\r\n",
		"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP6 [::1] ::1 1 2\r\n",
		"PROXY TCP6 ::g ::1 1 2\r\n",
		"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
		/* 108 bytes and more */
		"PROXY UNKNOWN "
		"90123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
		"\r\n",
		"PROXY UNKNOWN "
		"90123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
		"1"
		"2345678901234567890",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		is_header(good[i][0], strlen(good[i][0]), good[i][1]);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		is_bad(bad[i], strlen(bad[i]));
	is_bad("PROXY UNKNOWN \0\r\n", 17);
}

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define H4  "\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"

static void version_2(void **state)
{
	static const char ip4[] = SIG "\x21\x11\x00\x0c" H4, local[] = SIG "\x20\x00\x00\x00",
			  local_more[] = SIG "\x20\x99\x00\x03xyz", unspec[] = SIG "\x21\x00\x00\x05hello",
			  tlv[] = SIG "\x21\x11\x00\x15" H4 "\x04\x00\x00\x02\x00\x03"
				      "abc",
			  ip6[] = SIG "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
				      "destination-16-b\0\1\0\2";
	char buf[PROXY_V2_MAX + 1] = SIG "\x21\x31\x00\xd8";

	(void)state;
	is_header(ip4, sizeof(ip4) - 1, "192.0.2.1");
	is_header(tlv, sizeof(tlv) - 1, "192.0.2.1");
	is_header(ip6, sizeof(ip6) - 1, "2001:db8::1");
	is_header(local, sizeof(local) - 1, "");
	is_header(local_more, sizeof(local_more) - 1, "");
	is_header(unspec, sizeof(unspec) - 1, "");
	is_header(buf, 16 + 216, "");            /* a unix socket */
	memcpy(buf + 12, "\x21\x11\x10\x00", 4); /* 4096 bytes, the most */
	memcpy(buf + 16, H4, 12);
	memcpy(buf + 28, "\x05\x0f\xf1", 3);
	is_header(buf, PROXY_V2_MAX, "192.0.2.1");
	buf[15] = 1;
	is_bad(buf, 16);
}

static void not_version_2(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{"\r\n\r\nGET / ", 10},
		{SIG "\x11\x11\x00\x0c" H4, 28}, /* version 1 in version 2's clothes */
		{SIG "\x22\x11\x00\x0c" H4, 28}, /* no such command */
		{SIG "\x21\x12\x00\x0c" H4, 28}, /* UDP */
		{SIG "\x21\x41\x00\x0c" H4, 28}, /* no such family */
		{SIG "\x21\x11\x00\x0b" H4, 28}, /* too short for its family */
		{SIG "\x21\x21\x00\x0c" H4, 28},
		{SIG "\x21\x11\x00\x0e" H4 "\x04\x00", 30},     /* half a vector */
		{SIG "\x21\x11\x00\x0f" H4 "\x04\x00\x01", 31}, /* a vector beyond the end */
		{SIG "\x21\x11\xff\xff", 16},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		is_bad(bad[i].bytes, bad[i].len);
}

/* ---- address ---- */

static struct address parsed(const char *text)
{
	struct address a;

	if (!address_parse((struct slice){text, strlen(text)}, &a))
		fail_msg("no address: %s", text);
	return a;
}

static void addresses(void **state)
{
	static const char *const good[][2] = {
		{"192.0.2.1", "192.0.2.1"},
		{"192.0.2.1:80", "192.0.2.1"},
		{"::1", "::1"},
		{"[::1]", "::1"},
		{"[::1]:65535", "::1"},
		{"2001:DB8:0::1", "2001:db8::1"},
		{"::ffff:1.2.3.4", "1.2.3.4"},
		{"[::ffff:1.2.3.4]:1", "1.2.3.4"},
		{"0.0.0.0", "0.0.0.0"},
	};
	static const char *const bad[] = {
		"",          "unknown",   "_hidden",      "1.2.3",
		"1.2.3.4.5", "1.2.3.4 ",  "01.2.3.4",     "[::1",
		"[::1]x",    "[1.2.3.4]", "::g",          "a:1",
		":80",       "[]:80",     "fe80::1%eth0", "1111:2222:3333:4444:5555:6666:7777:8888:9999",
	};
	struct address a;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		a = parsed(good[i][0]);
		assert_string_equal(text_of(&a), good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (address_parse((struct slice){bad[i], strlen(bad[i])}, &a))
			fail_msg("taken: %s", bad[i]);
	assert_false(address_parse((struct slice){"1.2.3.4\0", 8}, &a));
}

static void keys_of_addresses(void **state)
{
	struct address a = parsed("192.0.2.1"), b = parsed("192.0.2.2"), c = parsed("2001:db8:0:1::1"),
		       d = parsed("2001:db8:0:1:ffff::2"), e = parsed("2001:db8:0:2::1");
	uint8_t ka[16], kb[16], kc[16], kd[16], ke[16];

	(void)state;
	address_key(&a, ka);
	address_key(&b, kb);
	address_key(&c, kc);
	address_key(&d, kd);
	address_key(&e, ke);
	assert_memory_not_equal(ka, kb, 16);
	assert_memory_equal(kc, kd, 16); /* one network */
	assert_memory_not_equal(kc, ke, 16);
}

static void peers(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int lfd = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0), pair[2];
	struct address a;

	(void)state;
	assert_int_equal(bind(lfd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(lfd, 1), 0);
	assert_int_equal(getsockname(lfd, (struct sockaddr *)&at, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	a = address_peer(fd);
	assert_string_equal(text_of(&a), "127.0.0.1");
	close(fd);
	close(lfd);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	a = address_peer(pair[0]);
	assert_false(a.is_known);
	assert_string_equal(text_of(&a), "");
	close(pair[0]);
	close(pair[1]);
}

/* ---- X-Forwarded-For ---- */

static struct cfg_network networks[] = {
	{{[10] = 0xff, [11] = 0xff, 10}, 104},                               /* 10.0.0.0/8 */
	{{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128}, /* 2001:db8::1 */
};
static struct config config = {.trusted_proxies = networks,
			       .n_trusted_proxies = 2,
			       .limits = {.max_head = 16384, .max_headers = 100}};

static const char *client(const char *from, const char *headers)
{
	struct address peer = {false, {0}}, a;
	struct http_parser p;
	char head[8192];
	int len = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", headers);

	assert_true(len > 0 && (size_t)len < sizeof(head));
	http_init(&p, &config.limits);
	assert_int_equal(http_parse(&p, head, (size_t)len), HTTP_DONE);
	if (*from != '\0')
		peer = parsed(from);
	a = address_client(&config, &peer, &p, head);
	return text_of(&a);
}

#define XFF "X-Forwarded-For: "

static void only_trusted_proxies_are_believed(void **state)
{
	(void)state;
	assert_string_equal(client("192.0.2.9", XFF "1.1.1.1\r\n"), "192.0.2.9");
	assert_string_equal(client("10.0.0.1", ""), "10.0.0.1");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1\r\n"), "1.1.1.1");
	assert_string_equal(client("2001:db8::1", XFF "2001:db8::2\r\n"), "2001:db8::2");
	assert_string_equal(client("2001:db8::2", XFF "1.1.1.1\r\n"), "2001:db8::2");
	/* what the client has written stands left of what our proxies have */
	assert_string_equal(client("10.0.0.1", XFF "6.6.6.6, 1.1.1.1\r\n"), "1.1.1.1");
	assert_string_equal(client("10.0.0.1", XFF "6.6.6.6, 1.1.1.1, 10.0.0.2,10.0.0.3\r\n"), "1.1.1.1");
	assert_string_equal(
		client("10.0.0.1", XFF "6.6.6.6\r\nA: b\r\nx-forwarded-for: 1.1.1.1 , 10.2.2.2\r\n"),
		"1.1.1.1");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1\r\n" XFF "10.0.0.2\r\n"), "1.1.1.1");
	/* nothing but proxies: the first of them */
	assert_string_equal(client("10.0.0.1", XFF "10.0.0.3, 10.0.0.2\r\n"), "10.0.0.3");
}

static void malformed_ends_the_walk(void **state)
{
	(void)state;
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1, junk\r\n"), "10.0.0.1");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1, junk, 10.0.0.2\r\n"), "10.0.0.2");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1, , 10.0.0.2\r\n"), "10.0.0.2");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1,\r\n"), "10.0.0.1");
	assert_string_equal(client("10.0.0.1", XFF "\r\n"), "10.0.0.1");
	assert_string_equal(client("10.0.0.1", XFF "1.1.1.1\r\n" XFF "unknown\r\n"), "10.0.0.1");
	assert_string_equal(client("10.0.0.1", XFF "[2001:db8::7]:443\r\n"), "2001:db8::7");
}

static void the_walk_is_bounded(void **state)
{
	char headers[4096];
	int len;

	(void)state;
	for (int first = 1; first <= 2; first++) { /* 31 or 32 proxies behind the client's address */
		len = snprintf(headers, sizeof(headers), XFF "1.1.1.1");
		for (int i = first; i <= ADDRESS_HOPS_MAX; i++)
			len += snprintf(headers + len, sizeof(headers) - (size_t)len, ", 10.9.0.%d", i);
		snprintf(headers + len, sizeof(headers) - (size_t)len, "\r\n");
		assert_string_equal(client("10.0.0.1", headers), first == 1 ? "10.9.0.1" : "1.1.1.1");
	}
}

static void unix_sockets_are_trusted_when_said_so(void **state)
{
	(void)state;
	assert_string_equal(client("", XFF "1.1.1.1\r\n"), "");
	config.trusts_unix = true;
	assert_string_equal(client("", XFF "1.1.1.1\r\n"), "1.1.1.1");
	assert_string_equal(client("", ""), "");
	assert_string_equal(client("192.0.2.9", XFF "1.1.1.1\r\n"), "192.0.2.9");
	config.n_trusted_proxies = 0;
	assert_string_equal(client("", XFF "6.6.6.6, 1.1.1.1\r\n"), "1.1.1.1");
	config.n_trusted_proxies = 2;
	config.trusts_unix = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(version_1),
		cmocka_unit_test(version_2),
		cmocka_unit_test(not_version_2),
		cmocka_unit_test(addresses),
		cmocka_unit_test(keys_of_addresses),
		cmocka_unit_test(peers),
		cmocka_unit_test(only_trusted_proxies_are_believed),
		cmocka_unit_test(malformed_ends_the_walk),
		cmocka_unit_test(the_walk_is_bounded),
		cmocka_unit_test(unix_sockets_are_trusted_when_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
