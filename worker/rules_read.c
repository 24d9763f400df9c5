#include "worker/rules_read.h"

#include <stdlib.h>
#include <string.h>

#include "common/integer.h"
#include "common/json.h"
#include "common/utf8.h"

#define KEEP_BYTES 65536u /* a larger scratch is given back */

void rules_read_free(struct rules_read *r)
{
	free(r->msg);
	buf_free(&r->text);
	buf_free(&r->scratch);
	*r = (struct rules_read){0};
}

/* ---- which rule */

static bool take_text(struct rules_read *r, const struct cfg_namespace *ns, struct slice message)
{
	for (size_t i = 0; i < ns->n_rules; i++) {
		const struct cfg_rule *rule = &ns->rules[i];

		if (rule->match == CFG_MATCH_TEXT && strlen(rule->name) == message.len &&
		    memcmp(rule->name, message.p, message.len) == 0) {
			r->rule = rule;
			r->index = i;
			return true;
		}
	}
	return false;
}

/* The raw text of the last top-level string "type"; p == NULL: there is none. -1: this is no object. */
static int find_type(struct slice message, struct slice *type)
{
	struct json_member m;
	struct json_iter it;
	int rc;

	*type = (struct slice){0};
	if (json_object_begin(&it, message) == -1)
		return -1;
	while ((rc = json_object_next(&it, &m)) == 1) {
		if (json_is(m.key, "type"))
			*type = m.type == JSON_TYPE_STRING ? m.value : (struct slice){0};
	}
	return rc;
}

static bool take_type(struct rules_read *r, const struct cfg_namespace *ns, struct slice type)
{
	for (size_t i = 0; i < ns->n_rules; i++) {
		const struct cfg_rule *rule = &ns->rules[i];

		if (rule->match == CFG_MATCH_TYPE && json_is(type, rule->name)) {
			r->rule = rule;
			r->index = i;
			return true;
		}
	}
	return false;
}

/* ---- what it may say: every function below gets a raw value that json.h has accepted, or none (p == NULL)
 */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_true(struct slice raw)
{
	if (raw.p == NULL)
		return false;
	switch (*raw.p) {
	case '"':
		return raw.len > 2;
	case '[':
	case '{':
		for (size_t i = 1; i < raw.len - 1; i++) {
			if (!is_blank(raw.p[i]))
				return true;
		}
		return false;
	case 't':
		return true;
	case 'f':
	case 'n':
		return false;
	default:
		/* A number is 0 if no digit before its exponent is another. */
		for (size_t i = 0; i < raw.len && (raw.p[i] | 0x20) != 'e'; i++) {
			if (raw.p[i] >= '1' && raw.p[i] <= '9')
				return true;
		}
		return false;
	}
}

/* A string's text, decoded, of at most RULES_STRING_MAX bytes; "" for what is no string or has no UTF-8 form.
 * False: no memory. */
static bool string(struct rules_read *r, struct slice raw, struct slice *out)
{
	size_t n = 0, step;

	*out = (struct slice){"", 0};
	if (raw.p == NULL || *raw.p != '"')
		return true;
	r->scratch.len = 0;
	if (buf_reserve(&r->scratch, raw.len) == -1)
		return false;
	if (json_string_decode(raw, &r->scratch) == -1)
		return true;
	if (r->scratch.len <= RULES_STRING_MAX) {
		*out = (struct slice){r->scratch.p, r->scratch.len};
		return true;
	}
	while ((step = utf8_sequence(r->scratch.p + n, r->scratch.len - n)) != 0 &&
	       n + step <= RULES_STRING_MAX)
		n += step;
	*out = (struct slice){r->scratch.p, n};
	return true;
}

static int put_field(struct rules_read *r, enum cfg_coerce as, struct slice raw)
{
	char digits[RULES_INT_MAX];
	struct slice s;
	size_t n;

	switch (as) {
	case CFG_COERCE_BOOL:
		return buf_puts(&r->text, is_true(raw) ? "true" : "false");
	case CFG_COERCE_INT:
		if (!string(r, raw, &s))
			return -1;
		if (raw.p != NULL && *raw.p != '"')
			s = raw;
		n = integer_canonical(s, digits, sizeof(digits));
		return n > 0 ? buf_put(&r->text, digits, n) : buf_puts(&r->text, "0");
	case CFG_COERCE_STRING:
		break;
	}
	/* 7 and "7" name the same thing, as they do among targets; no other number is a name. */
	if (raw.p != NULL && (*raw.p == '-' || (*raw.p >= '0' && *raw.p <= '9'))) {
		n = integer_canonical(raw, digits, sizeof(digits));
		return json_put_string(&r->text, (struct slice){digits, n});
	}
	return string(r, raw, &s) ? json_put_string(&r->text, s) : -1;
}

/* The raw values of the fields, the last of each. */
static void find_fields(struct rules_read *r, struct slice message)
{
	const struct cfg_rule *rule = r->rule;
	struct json_member m;
	struct json_iter it;

	memset(r->msg, 0, rule->n_coerce * sizeof(*r->msg));
	if (rule->match == CFG_MATCH_TEXT || json_object_begin(&it, message) == -1)
		return;
	while (json_object_next(&it, &m) == 1) {
		for (size_t i = 0; i < rule->n_coerce; i++) {
			if (json_is(m.key, rule->coerce[i].name))
				r->msg[i] = m.value;
		}
	}
}

/* False: no memory. */
static bool coerce(struct rules_read *r, struct slice message)
{
	const struct cfg_rule *rule = r->rule;
	size_t at = 0;

	r->text.len = 0;
	if (rule->n_coerce > r->cap) {
		struct slice *msg = realloc(r->msg, rule->n_coerce * sizeof(*msg));

		if (msg == NULL)
			return false;
		r->msg = msg;
		r->cap = rule->n_coerce;
	}
	if (rule->n_coerce == 0)
		return true;
	find_fields(r, message);
	for (size_t i = 0; i < rule->n_coerce; i++) {
		size_t start = r->text.len;

		if (put_field(r, rule->coerce[i].as, r->msg[i]) == -1)
			return false;
		r->msg[i].len = r->text.len - start;
		if (buf_put(&r->text, ",", 1) == -1)
			return false;
	}
	/* Only now, for the text has moved while it grew. */
	for (size_t i = 0; i < rule->n_coerce; i++) {
		r->msg[i].p = r->text.p + at;
		at += r->msg[i].len + 1;
	}
	if (r->scratch.cap > KEEP_BYTES)
		buf_free(&r->scratch);
	return true;
}

enum rules_found rules_read(struct rules_read *r, const struct cfg_namespace *ns, struct slice message)
{
	struct slice type;

	r->rule = NULL;
	if (!take_text(r, ns, message)) {
		if (find_type(message, &type) == -1)
			return RULES_BAD;
		if (type.p == NULL || !take_type(r, ns, type))
			return RULES_OTHER;
	}
	return coerce(r, message) ? RULES_RULE : RULES_NO_MEMORY;
}
