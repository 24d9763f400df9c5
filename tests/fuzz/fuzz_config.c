/* LINK: master/config_load.c master/config_ns.c master/config_print.c master/config_scan.c master/config_doc.c
 * master/config_lex.c master/config_confuse.c master/config_value.c master/config_url.c master/config_file.c
 * master/config_auth.c master/config_feed.c master/config_rule.c
 *
 * The input is a configuration file. It loads or there are problems, never both and never neither; nothing is
 * leaked, also by libconfuse; and what -T prints of one that loads must load, and print the same. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "master/config_load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The text as a file that has a name. */
static struct config *load(const void *text, size_t size, struct buf *errors)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	struct config *c;
	char path[64];

	assert(fd >= 0 && write(fd, text, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	c = config_load(path, NULL, errors);
	close(fd);
	assert((c == NULL) == (errors->len > 0));
	return c;
}

static char *print(const struct config *c)
{
	char *text = NULL, *rest;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert(f != NULL && config_print(c, f) == 0 && fclose(f) == 0);
	rest = strdup(strchr(text, '\n') + 1); /* the first line names the file */
	assert(rest != NULL);
	free(text);
	return rest;
}

static void check_round_trip(const struct config *c)
{
	struct buf errors = {0}, keys = {0};
	char *first = print(c), *second;
	struct config *again = load(first, strlen(first), &errors);

	assert(again != NULL);
	second = print(again);
	assert(strcmp(first, second) == 0);
	/* Nothing differs but for a masked password in the URL. */
	assert(config_needs_restart(c, again, &keys) ==
	       (c->redis.password != NULL && strcmp(c->redis.url, again->redis.url) != 0));
	buf_free(&keys);
	free(first);
	free(second);
	config_free(again);
	buf_free(&errors);
}

/* Every problem is one line and names the file, or the option that it comes from. */
static void check_errors(const struct buf *errors)
{
	const char *p = errors->p, *end = p + errors->len;
	size_t lines = 0;

	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));

		assert(eol != NULL && eol > p && memchr(p, '\0', (size_t)(eol - p)) == NULL);
		assert(memmem(p, (size_t)(eol - p), ": ", 2) != NULL);
		lines++;
		p = eol + 1;
	}
	assert(lines <= 1000);
#ifdef FUZZ_PLANT_BUG
	char *planted = malloc(1);

	planted[lines == 13] = 1; /* no seed has 13 problems */
	free(planted);
#endif
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf errors = {0};
	struct config *c;

	setenv("A", "3", 1);
	setenv("PW", "p%40w'\\\"${A}", 1);
	c = load(data, size, &errors);
	if (c != NULL)
		check_round_trip(c);
	else
		check_errors(&errors);
	config_free(c);
	buf_free(&errors);
	return 0;
}
