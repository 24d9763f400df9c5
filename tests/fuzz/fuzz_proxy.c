/* LINK: worker/proxy.c worker/address.c worker/http.c */
/* COVER: worker/proxy.c */
/* fuzz_proxy - the header that a proxy puts in front of a connection.
 *
 * Input: the connection's first bytes. The outcome must not depend on how they are cut: a beginning asks for
 * more until the header is whole or can't become one, which no further byte changes; a header lies inside the
 * input and inside its bounds, and what follows it changes nothing. */
#include <stdlib.h>
#include <string.h>

#include "worker/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* From memory of exactly that size. */
static enum proxy_result parse(const uint8_t *data, size_t size, struct proxy_header *h)
{
	uint8_t *copy = malloc(size > 0 ? size : 1);
	enum proxy_result r;

	must(copy != NULL);
	memcpy(copy, data, size);
	r = proxy_parse(copy, size, h);
	free(copy);
	return r;
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do: a line of text for a log. */
static void plant(const uint8_t *data, const struct proxy_header *h)
{
	char *volatile line = malloc(80);

	if (line != NULL)
		memcpy(line, data, h->len);
	free(line);
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole, part;
	enum proxy_result r = parse(data, size, &whole);
	char text[ADDRESS_TEXT_SIZE];
	size_t step = size < 300 ? 1 : size / 100;

	for (size_t i = 0; i < size; i += step) {
		enum proxy_result before = parse(data, i, &part);

		if (before == PROXY_DONE)
			must(r == PROXY_DONE && part.len == whole.len && part.len <= i &&
			     memcmp(&part.source, &whole.source, sizeof(part.source)) == 0);
		if (before == PROXY_BAD)
			must(r == PROXY_BAD);
	}
	if (r == PROXY_MORE)
		must(size < PROXY_V2_MAX);
	if (r == PROXY_DONE) {
		must(whole.len > 0 && whole.len <= size && whole.len <= PROXY_V2_MAX);
		must(data[0] != 'P' || whole.len <= PROXY_V1_MAX);
		must(parse(data, whole.len, &part) == PROXY_DONE &&
		     parse(data, whole.len - 1, &part) == PROXY_MORE);
		address_text(&whole.source, text);
		must((text[0] != '\0') == whole.source.is_known);
#ifdef FUZZ_PLANT_BUG
		plant(data, &whole);
#endif
	}
	return 0;
}
