#include "common/template.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/integer.h"
#include "common/json.h"
#include "common/utf8.h"

#define INTEGER_MAX 255 /* bytes of an integer's text; a longer one is none */
#define MEMBER_MAX  63  /* bytes of a member's name */

enum form { FORM_TEXT, FORM_INT, FORM_RAW };

struct part {
	bool is_literal;
	enum template_var var;
	enum form form;
	uint32_t field;     /* TEMPLATE_MSG: index in the fields */
	struct slice words; /* of the template's own text: the literal, or the member's name */
};

struct template
{
	char *text;
	unsigned uses; /* bit set of enum template_var */
	size_t n;
	struct part part[];
};

/* ---- compile ---- */

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
	       c == '.';
}

/* The placeholder at `p`, which is a '{': its name, its form, and its length. False: it is text. */
static bool placeholder(const char *p, struct slice *name, enum form *form, size_t *len)
{
	const char *q = p + 1;

	if (*q < 'a' || *q > 'z')
		return false;
	while (is_name_byte(*q))
		q++;
	*name = (struct slice){p + 1, (size_t)(q - p - 1)};
	*form = FORM_TEXT;
	if (strncmp(q, ":int", 4) == 0)
		*form = FORM_INT;
	else if (strncmp(q, ":raw", 4) == 0)
		*form = FORM_RAW;
	q += *form == FORM_TEXT ? 0 : 4;
	if (*q != '}')
		return false;
	*len = (size_t)(q + 1 - p);
	return true;
}

static bool is_word(struct slice s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.p, word, s.len) == 0;
}

/* Take "msg." off the name. */
static bool take_prefix(struct slice *name, const char *prefix)
{
	size_t len = strlen(prefix);

	if (name->len < len || memcmp(name->p, prefix, len) != 0)
		return false;
	name->p += len;
	name->len -= len;
	return true;
}

static const char *find_field(struct part *part, struct slice name, const struct template_scope *scope)
{
	for (size_t i = 0; scope != NULL && i < scope->n_fields; i++) {
		if (is_word(name, scope->fields[i])) {
			part->var = TEMPLATE_MSG;
			part->field = (uint32_t)i;
			return NULL;
		}
	}
	return "{msg....} names a field that is not coerced";
}

static const char *find_member(struct part *part, struct slice name, enum template_var var, bool is_there)
{
	if (!is_there)
		return var == TEMPLATE_INFO ? "there is no {info....} here: nobody is authorized"
					    : "there is no {value....} here: no Redis value is looked at";
	if (name.len == 0)
		return "a name is missing behind the dot of a placeholder";
	if (name.len > MEMBER_MAX)
		return "a name behind the dot of a placeholder has at most 63 bytes";
	part->var = var;
	part->words = name;
	return NULL;
}

/* What the placeholder means, into *part. NULL, or what is wrong with it. */
static const char *resolve(struct part *part, struct slice name, const struct template_scope *scope)
{
	static const char *const vars[] = {
		[TEMPLATE_ROOM] = "room", [TEMPLATE_USER] = "user",
		[TEMPLATE_CONN] = "conn", [TEMPLATE_SESSION] = "session",
		[TEMPLATE_NS] = "ns",     [TEMPLATE_NODE] = "node",
		[TEMPLATE_TIME] = "time", [TEMPLATE_MONOTONIC] = "monotonic",
	};

	if (take_prefix(&name, "msg."))
		return find_field(part, name, scope);
	if (take_prefix(&name, "info."))
		return find_member(part, name, TEMPLATE_INFO, scope != NULL && scope->has_info);
	if (take_prefix(&name, "value."))
		return find_member(part, name, TEMPLATE_VALUE, scope != NULL && scope->has_value);
	for (size_t i = 0; i < ARRAY_LEN(vars); i++) {
		if (!is_word(name, vars[i]))
			continue;
		part->var = (enum template_var)i;
		if (part->form == FORM_RAW)
			return ":raw is for members: {info....:raw} and {value....:raw}";
		if (part->form == FORM_INT && part->var == TEMPLATE_MONOTONIC)
			return "{monotonic} is no integer";
		return NULL;
	}
	return "a placeholder names no variable: room, user, conn, session, ns, node, time, monotonic, "
	       "msg.*, "
	       "info.* and value.* are known";
}

static void add_literal(struct template *t, const char *p, const char *end)
{
	if (end > p)
		t->part[t->n++] = (struct part){.is_literal = true, .words = {p, (size_t)(end - p)}};
}

static const char *take_apart(struct template *t, const struct template_scope *scope)
{
	const char *literal = t->text, *p = t->text;
	struct slice name;
	enum form form;
	size_t len;

	while ((p = strchr(p, '{')) != NULL) {
		struct part part = {0};
		const char *wrong;

		if (!placeholder(p, &name, &form, &len)) {
			p++;
			continue;
		}
		part.form = form;
		wrong = resolve(&part, name, scope);
		if (wrong != NULL)
			return wrong;
		add_literal(t, literal, p);
		t->part[t->n++] = part;
		t->uses |= 1u << part.var;
		literal = p += len;
	}
	add_literal(t, literal, literal + strlen(literal));
	return NULL;
}

struct template *template_compile(const char *text, const struct template_scope *scope, const char **wrong)
{
	size_t braces = 0;
	struct template *t;

	*wrong = "is not UTF-8";
	if (!utf8_is_valid(text, strlen(text)))
		return NULL;
	for (const char *p = text; (p = strchr(p, '{')) != NULL; p++)
		braces++;
	*wrong = "out of memory";
	t = calloc(1, sizeof(*t) + (2 * braces + 1) * sizeof(t->part[0]));
	if (t == NULL)
		return NULL;
	t->text = strdup(text);
	if (t->text != NULL)
		*wrong = take_apart(t, scope);
	if (*wrong == NULL)
		return t;
	template_free(t);
	return NULL;
}

void template_free(struct template *t)
{
	if (t == NULL)
		return;
	free(t->text);
	free(t);
}

const char *template_text(const struct template *t)
{
	return t->text;
}

bool template_uses(const struct template *t, enum template_var var)
{
	return t->uses >> var & 1;
}

/* ---- render ---- */

/* The last top-level member of that name, raw; p == NULL: none, or `object` is none. */
static struct slice member(struct slice object, struct slice name)
{
	struct slice found = {NULL, 0};
	struct json_member m;
	struct json_iter it;
	char key[MEMBER_MAX + 1];
	int rc;

	if (object.p == NULL || json_object_begin(&it, object) == -1)
		return found;
	memcpy(key, name.p, name.len);
	key[name.len] = '\0';
	while ((rc = json_object_next(&it, &m)) == 1)
		if (json_is(m.key, key))
			found = m.value;
	return rc == 0 ? found : (struct slice){NULL, 0};
}

static bool is_null(struct slice raw)
{
	return raw.p == NULL || raw.len == 0 || is_word(raw, "null");
}

static int put_text(struct slice s, enum template_as as, struct buf *out)
{
	return as == TEMPLATE_AS_JSON ? json_escape(out, s) : buf_put(out, s.p, s.len);
}

static int put_integer(struct slice s, struct buf *out)
{
	char text[INTEGER_MAX];
	size_t n = s.p == NULL ? 0 : integer_canonical(s, text, sizeof(text));

	return n > 0 ? buf_put(out, text, n) : buf_puts(out, "null");
}

/* The text that a raw JSON value stands for: a string's own, the JSON text of others. A string that has none
 * in UTF-8 (half a surrogate pair) is as absent as null. */
static int value_text(struct slice raw, struct buf *decoded, struct slice *text)
{
	*text = (struct slice){NULL, 0};
	if (is_null(raw))
		return 0;
	*text = raw;
	if (raw.p[0] != '"')
		return 0;
	if (json_string_decode(raw, decoded) == 0)
		*text = (struct slice){decoded->p, decoded->len};
	else if (errno == EILSEQ)
		*text = (struct slice){NULL, 0};
	else
		return -1;
	return 0;
}

static int put_value(struct slice raw, enum form form, enum template_as as, struct buf *out)
{
	struct buf decoded = {0};
	struct slice text;
	int rc;

	if (form == FORM_RAW)
		return is_null(raw) ? buf_puts(out, "null") : buf_put(out, raw.p, raw.len);
	rc = value_text(raw, &decoded, &text);
	if (rc == 0)
		rc = form == FORM_INT ? put_integer(text, out) : put_text(text, as, out);
	buf_free(&decoded);
	return rc;
}

static int put_variable(const struct part *part, const struct template_values *v, enum template_as as,
			struct buf *out)
{
	const struct slice texts[] = {
		[TEMPLATE_ROOM] = v->room,       [TEMPLATE_USER] = v->user, [TEMPLATE_CONN] = v->conn,
		[TEMPLATE_SESSION] = v->session, [TEMPLATE_NS] = v->ns,     [TEMPLATE_NODE] = v->node,
	};

	switch (part->var) {
	case TEMPLATE_TIME:
		return buf_printf(out, "%" PRIu64, v->time_s);
	case TEMPLATE_MONOTONIC:
		return buf_printf(out, "%" PRIu64 ".%06" PRIu64, v->monotonic_us / 1000000,
				  v->monotonic_us % 1000000);
	case TEMPLATE_MSG:
		return put_value(v->msg == NULL ? (struct slice){NULL, 0} : v->msg[part->field], part->form,
				 as, out);
	case TEMPLATE_INFO:
		return put_value(member(v->info, part->words), part->form, as, out);
	case TEMPLATE_VALUE:
		return put_value(member(v->value, part->words), part->form, as, out);
	default:
		return part->form == FORM_INT ? put_integer(texts[part->var], out)
					      : put_text(texts[part->var], as, out);
	}
}

int template_render(const struct template *t, const struct template_values *v, enum template_as as,
		    struct buf *out)
{
	size_t before = out->len;

	for (size_t i = 0; i < t->n; i++) {
		const struct part *part = &t->part[i];
		int rc = part->is_literal ? buf_put(out, part->words.p, part->words.len)
					  : put_variable(part, v, as, out);

		if (rc == -1) {
			out->len = before;
			return -1;
		}
	}
	return 0;
}

/* What a placeholder added: nothing, or the null of a form that must not be empty. */
static bool says_nothing(const struct buf *out, size_t before)
{
	return out->len == before ||
	       (out->len - before == 4 && memcmp(out->p + before, "null", 4) == 0);
}

int template_render_name(const struct template *t, const struct template_values *v, struct buf *out)
{
	size_t start = out->len;

	for (size_t i = 0; i < t->n; i++) {
		const struct part *part = &t->part[i];
		size_t before = out->len;
		int rc = part->is_literal ? buf_put(out, part->words.p, part->words.len)
					  : put_variable(part, v, TEMPLATE_AS_PLAIN, out);

		if (rc == 0 && (part->is_literal || !says_nothing(out, before)) &&
		    memchr(out->p + before, '\0', out->len - before) == NULL)
			continue;
		out->len = start;
		return rc;
	}
	return 1;
}
