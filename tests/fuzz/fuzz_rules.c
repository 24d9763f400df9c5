/* LINK: worker/rules_read.c */
/* fuzz_rules - clients' messages against rules: which one takes them, and what gets into a frame.
 *
 * Must hold beyond not crashing: a message is bad if and only if it is no JSON object and no rule's text;
 * what a rule takes has all its fields, each one JSON value of its kind and within its bound; the same
 * message says the same twice. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/utf8.h"
#include "worker/rules_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char b[] = "b", i[] = "i", s[] = "s";
static struct cfg_field fields[] = {{b, CFG_COERCE_BOOL}, {i, CFG_COERCE_INT}, {s, CFG_COERCE_STRING}};
static char ping[] = "ping", typing[] = "typing", plain[] = "plain";
static struct cfg_rule rules[] = {
	{.name = ping, .match = CFG_MATCH_TEXT, .coerce = fields, .n_coerce = 1},
	{.name = typing, .match = CFG_MATCH_TYPE, .coerce = fields, .n_coerce = ARRAY_LEN(fields)},
	{.name = plain, .match = CFG_MATCH_TYPE},
};
static const struct cfg_namespace ns = {.rules = rules, .n_rules = ARRAY_LEN(rules)};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool is(struct slice a, const char *text)
{
	return a.len == strlen(text) && memcmp(a.p, text, a.len) == 0;
}

#ifdef FUZZ_PLANT_BUG
/* What a careless caller would do. The volatile pointer keeps the compiler from dropping it. */
static void plant(struct slice text)
{
	char *volatile copy = malloc(8);

	if (copy != NULL && text.len > 0)
		memcpy(copy, text.p, text.len);
	free(copy);
}
#endif

static void check_field(struct slice raw, enum cfg_coerce as)
{
	char text[RULES_STRING_MAX];
	enum json_type type;
	ssize_t n;

	must(json_validate(raw, &type));
	switch (as) {
	case CFG_COERCE_BOOL:
		must(is(raw, "true") || is(raw, "false"));
		break;
	case CFG_COERCE_INT:
		must(type == JSON_TYPE_NUMBER && raw.len <= RULES_INT_MAX);
		for (size_t k = 0; k < raw.len; k++)
			must((raw.p[k] >= '0' && raw.p[k] <= '9') || (k == 0 && raw.p[k] == '-'));
		break;
	case CFG_COERCE_STRING:
		must(type == JSON_TYPE_STRING);
		n = json_string_copy(raw, text, sizeof(text));
		must(n >= 0 && utf8_is_valid(text, (size_t)n));
#ifdef FUZZ_PLANT_BUG
		plant((struct slice){text, (size_t)n});
#endif
		break;
	}
}

static enum rules_found check(struct rules_read *r, struct slice message)
{
	enum json_type type = JSON_TYPE_NULL;
	bool is_object = json_validate(message, &type) && type == JSON_TYPE_OBJECT;
	enum rules_found found = rules_read(r, &ns, message);
	size_t len = 0;

	must(found != RULES_NO_MEMORY);
	must((found == RULES_BAD) == (!is_object && !is(message, "ping")));
	if (found != RULES_RULE)
		return found;
	must(r->rule == &rules[r->index] && (r->rule->match == CFG_MATCH_TYPE) == is_object);
	for (size_t k = 0; k < r->rule->n_coerce; k++) {
		check_field(r->msg[k], fields[k].as);
		must(r->msg[k].p == r->text.p + len && r->msg[k].p[r->msg[k].len] == ',');
		len += r->msg[k].len + 1;
	}
	must(len == r->text.len);
	return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice message = {(const char *)data, size};
	static const char other[] = "{\"type\":\"typing\",\"s\":\"x\",\"i\":\"3\",\"b\":1}";
	struct rules_read first = {0}, second = {0};

	if (check(&first, message) == RULES_RULE) {
		/* What an earlier message left behind must not show. */
		must(check(&second, (struct slice){other, sizeof(other) - 1}) == RULES_RULE);
		must(check(&second, message) == RULES_RULE && second.rule == first.rule);
		must(second.text.len == first.text.len &&
		     (first.text.len == 0 || memcmp(second.text.p, first.text.p, first.text.len) == 0));
	}
	rules_read_free(&first);
	rules_read_free(&second);
	return 0;
}
