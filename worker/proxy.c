#include "worker/proxy.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
static const char v1_start[] = "PROXY ";

/* ---- version 1 */

/* Take the word before the next blank, or the last one, off *rest. Its length is 0 for two blanks in a row.
 */
static struct slice word(struct slice *rest)
{
	const char *blank = rest->len == 0 ? NULL : memchr(rest->p, ' ', rest->len);
	struct slice w = {rest->p, blank == NULL ? rest->len : (size_t)(blank - rest->p)};

	*rest = blank == NULL ? (struct slice){rest->p + rest->len, 0}
			      : (struct slice){blank + 1, rest->len - w.len - 1};
	return w;
}

static bool is(struct slice s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.p, text, s.len) == 0;
}

static bool is_port(struct slice s)
{
	unsigned v = 0;

	if (s.len == 0 || s.len > 5 || (s.len > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (unsigned)(s.p[i] - '0');
	}
	return v <= 65535;
}

/* An address of this family and no other spelling. */
static bool v1_address(struct slice s, bool is_6, struct address *out)
{
	return s.len > 0 && s.p[0] != '[' && (memchr(s.p, ':', s.len) != NULL) == is_6 &&
	       address_parse(s, out);
}

/* The line without "PROXY " and CRLF. */
static enum proxy_result v1_line(struct slice line, struct address *source)
{
	struct address destination;
	struct slice family, from, to, from_port;
	size_t len = line.len;
	bool is_6;

	family = word(&line);
	if (is(family, "UNKNOWN"))
		return PROXY_DONE; /* whatever follows is to be ignored */
	is_6 = is(family, "TCP6");
	if ((!is_6 && !is(family, "TCP4")) || len == family.len)
		return PROXY_BAD;
	from = word(&line);
	to = word(&line);
	from_port = word(&line);
	/* The rest is the last word: one with a blank inside is no port. */
	if (!v1_address(from, is_6, source) || !v1_address(to, is_6, &destination) || !is_port(from_port) ||
	    !is_port(line))
		return PROXY_BAD;
	return PROXY_DONE;
}

static enum proxy_result v1(const char *p, size_t len, struct proxy_header *out)
{
	size_t start = strlen(v1_start), most = len < PROXY_V1_MAX ? len : PROXY_V1_MAX;
	const char *end;
	enum proxy_result r;

	if (memcmp(p, v1_start, len < start ? len : start) != 0)
		return PROXY_BAD;
	if (len <= start)
		return PROXY_MORE;
	for (end = p + start; end < p + most; end++)
		if ((uint8_t)*end < 0x20 || (uint8_t)*end >= 0x7f)
			break;
	if (end == p + most)
		return most == PROXY_V1_MAX ? PROXY_BAD : PROXY_MORE;
	if (*end != '\r')
		return PROXY_BAD;
	if (end + 1 == p + most)
		return most == PROXY_V1_MAX ? PROXY_BAD : PROXY_MORE;
	if (end[1] != '\n')
		return PROXY_BAD;
	r = v1_line((struct slice){p + start, (size_t)(end - p) - start}, &out->source);
	out->len = (size_t)(end - p) + 2;
	return r;
}

/* ---- version 2 */

/* Type, length (16 bits), value; they fill the rest. */
static bool vectors_fit(const uint8_t *p, size_t len)
{
	while (len > 0) {
		size_t n;

		if (len < 3)
			return false;
		n = (size_t)p[1] << 8 | p[2];
		if (n > len - 3)
			return false;
		p += 3 + n;
		len -= 3 + n;
	}
	return true;
}

/* Bytes of the addresses of a family; SIZE_MAX: not one that a stream can have. */
static size_t addresses_size(uint8_t family)
{
	switch (family) {
	case 0x00: /* UNSPEC: nothing is known of what follows */
		return 0;
	case 0x11: /* TCP over IPv4 */
		return 12;
	case 0x21: /* TCP over IPv6 */
		return 36;
	case 0x31: /* unix stream */
		return 216;
	}
	return SIZE_MAX;
}

static bool v2_source(uint8_t family, const uint8_t *p, size_t len, struct address *source)
{
	size_t size = addresses_size(family);

	if (size == SIZE_MAX || size > len)
		return false;
	if (family == 0x00)
		return true;
	if (!vectors_fit(p + size, len - size))
		return false;
	if (family == 0x11) {
		*source = (struct address){true, {[10] = 0xff, [11] = 0xff}};
		memcpy(source->ip + 12, p, 4);
	} else if (family == 0x21) {
		source->is_known = true;
		memcpy(source->ip, p, 16);
	}
	return true;
}

static enum proxy_result v2(const uint8_t *p, size_t len, struct proxy_header *out)
{
	size_t most = len < sizeof(signature) ? len : sizeof(signature), rest;

	if (memcmp(p, signature, most) != 0 || (len > 12 && p[12] != 0x20 && p[12] != 0x21) ||
	    (len > 13 && p[12] == 0x21 && addresses_size(p[13]) == SIZE_MAX))
		return PROXY_BAD;
	if (len < PROXY_V2_FIXED)
		return PROXY_MORE;
	rest = (size_t)p[14] << 8 | p[15];
	if (rest > PROXY_V2_MAX - PROXY_V2_FIXED)
		return PROXY_BAD;
	if (len < PROXY_V2_FIXED + rest)
		return PROXY_MORE;
	out->len = PROXY_V2_FIXED + rest;
	if (p[12] == 0x20)
		return PROXY_DONE; /* LOCAL: of the rest only the length counts */
	return v2_source(p[13], p + PROXY_V2_FIXED, rest, &out->source) ? PROXY_DONE : PROXY_BAD;
}

enum proxy_result proxy_parse(const void *bytes, size_t len, struct proxy_header *out)
{
	*out = (struct proxy_header){0};
	if (len == 0)
		return PROXY_MORE;
	return *(const uint8_t *)bytes == signature[0] ? v2(bytes, len, out) : v1(bytes, len, out);
}
