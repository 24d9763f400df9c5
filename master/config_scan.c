#include "master/config_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/config_file.h"
#include "master/config_lex.h"

#define DEPTH_MAX 16 /* sections inside each other; the language has two */

const struct config_key scan_title_key = {.section = "", .name = "__title", .type = CKEY_STRING};

/* One file that is being read. */
struct scan {
	struct scan_doc *doc;
	struct lexer lx;
	const char *file;
	struct lex_token tok;
	struct scan_pos pos; /* of tok */
	unsigned includes;   /* files around this one */
};

static void statements(struct scan *s, struct scan_section *sec, const struct scan_pos *opened,
		       unsigned depth);

/* ---- the document ---- */

static char *keep_string(struct scan_doc *doc, const char *p, size_t len)
{
	char *c = strndup(p, len);

	if (c == NULL)
		doc->oom = true;
	return c;
}

/* Room for one more item in the array that `array` points to; it grows by doubling. */
static bool grow(struct scan_doc *doc, void *array, size_t n, size_t item)
{
	void *p, *bigger;

	if (n != 0 && (n < 8 || (n & (n - 1)) != 0))
		return true;
	memcpy(&p, array, sizeof(p));
	bigger = reallocarray(p, n < 8 ? 8 : n * 2, item);
	if (bigger == NULL) {
		doc->oom = true;
		return false;
	}
	memcpy(array, &bigger, sizeof(bigger)); /* the array's own type is not known here */
	return true;                            /* cppcheck-suppress memleak */
}

static void emit(struct scan_doc *doc, const char *p, size_t len)
{
	if (buf_put(&doc->text, p, len) == -1)
		doc->oom = true;
}

static void emits(struct scan_doc *doc, const char *s)
{
	emit(doc, s, strlen(s));
}

/* ---- tokens ---- */

static void advance(struct scan *s)
{
	s->tok = lex_next(&s->lx);
	s->pos = (struct scan_pos){s->file, s->tok.line, ++s->doc->order};
}

static bool at(const struct scan *s, char punct)
{
	return s->tok.type == LEX_PUNCT && s->tok.punct == punct;
}

/* A syntax error: the file is not read any further. */
static void broken(struct scan *s, const char *expected)
{
	const struct lex_token *t = &s->tok;

	if (s->doc->broken)
		return;
	if (t->type == LEX_BAD)
		scan_problem(s->doc, &s->pos, NULL, "%s", t->what);
	else if (t->type == LEX_END)
		scan_problem(s->doc, &s->pos, NULL, "the file ends where %s is expected", expected);
	else if (t->type == LEX_PUNCT)
		scan_problem(s->doc, &s->pos, NULL, "%c%s stands where %s is expected", t->punct,
			     t->punct == '+' ? "=" : "", expected);
	else
		scan_problem(s->doc, &s->pos, NULL, "\"%.*s\" stands where %s is expected",
			     (int)u64_min(t->raw.len, 40), t->raw.p, expected);
	s->doc->broken = true;
}

/* ---- values ---- */

/* An unset variable reads as an empty one in libconfuse; here it is a mistake. */
static void check_env(struct scan *s, struct scan_entry *e, const char *name)
{
	struct slice var;
	bool has_default;
	size_t from = 0;

	while (lex_next_env(&s->tok, &from, &var, &has_default)) {
		char *v = keep_string(s->doc, var.p, var.len);

		if (v != NULL && getenv(v) == NULL && !has_default) {
			scan_problem(s->doc, &s->pos, name, "the environment variable %s is not set", v);
			if (e != NULL)
				e->bad = true;
		}
		if (e != NULL)
			e->has_secret_ref = true;
		free(v);
	}
}

/* Write the current word so that libconfuse reads it as we did, and expect its value. */
static void emit_word(struct scan *s, struct scan_entry *e)
{
	const char *quote = s->tok.quote == LEX_BARE || s->tok.quote == LEX_SINGLE ? "'" : "\"";
	struct scan_doc *doc = s->doc;

	if (!grow(doc, &doc->expected, doc->n_expected, sizeof(struct scan_entry *)))
		return;
	emits(doc, quote);
	emit(doc, s->tok.raw.p, s->tok.raw.len);
	emits(doc, quote);
	doc->expected[doc->n_expected++] = e;
	e->n_expected++;
}

static struct scan_entry *new_entry(struct scan_doc *doc, struct scan_section *sec,
				    const struct config_key *key, struct scan_pos pos)
{
	struct scan_entry *e;

	if (!grow(doc, &sec->entries, sec->n_entries, sizeof(struct scan_entry *)) ||
	    (e = calloc(1, sizeof(*e))) == NULL) {
		doc->oom = true;
		return NULL;
	}
	e->key = key;
	e->sec = sec;
	e->pos = pos;
	sec->entries[sec->n_entries++] = e;
	return e;
}

/* { "a", "b" }: the opening brace is the current token; leaves at the closing one. */
static size_t list(struct scan *s, struct scan_entry *e, const char *name)
{
	size_t n = 0;

	for (advance(s); !at(s, '}'); advance(s)) {
		if (s->tok.type != LEX_WORD) {
			broken(s, n == 0 ? "a value or }" : "a value");
			return n;
		}
		check_env(s, e, name);
		if (e != NULL) {
			emits(s->doc, n > 0 ? ", " : "");
			emit_word(s, e);
		}
		n++;
		advance(s);
		if (at(s, '}'))
			break;
		if (!at(s, ',')) {
			broken(s, ", or }");
			return n;
		}
	}
	return n;
}

/* What stands after the equal sign. `e` NULL: read it, but keep nothing. The text of a statement that turns
 * out broken is taken back, so that libconfuse sees whole statements only. */
static void value(struct scan *s, struct scan_entry *e, const char *name)
{
	struct scan_doc *doc = s->doc;
	size_t text_len = doc->text.len, n_expected = doc->n_expected;
	bool wants_list = e != NULL && e->key->type == CKEY_LIST;

	if (e != NULL) {
		emits(doc, e->key->name);
		emits(doc, wants_list ? " = { " : " = ");
	}
	advance(s);
	if (s->tok.type == LEX_WORD) {
		check_env(s, e, name);
		if (e != NULL)
			emit_word(s, e);
	} else if (at(s, '{')) {
		list(s, e, name);
		if (e != NULL && !wants_list && !doc->broken) {
			scan_problem(doc, &e->pos, name, "takes one value, not a list");
			e->bad = true;
		}
	} else {
		broken(s, "a value");
	}
	if (e == NULL)
		return;
	emits(doc, wants_list ? " }\n" : "\n");
	if (e->bad || doc->broken) {
		e->bad = true;
		e->n_expected = 0;
		doc->text.len = text_len;
		doc->n_expected = n_expected;
	}
}

/* ---- statements ---- */

static void given_twice(struct scan_doc *doc, const struct scan_pos *pos, const char *name,
			const struct scan_pos *first)
{
	scan_problem(doc, pos, name, "given twice, first at %s:%u", first->file, first->line);
}

/* The name and its position were read; the equal sign is the current token. */
static void assignment(struct scan *s, struct scan_section *sec, struct slice name, struct scan_pos pos)
{
	const struct config_key *key = NULL;
	struct scan_entry *e = NULL, *first;
	struct scan_name full = {""};
	bool append = at(s, '+');

	if (sec != NULL) {
		key = config_key_find(sec->spec->name, name);
		snprintf(full.s, sizeof(full.s), "%s%s%.*s", sec->spec->name, *sec->spec->name ? "." : "",
			 (int)u64_min(name.len, 40), name.p);
		first = key == NULL ? NULL : scan_find(sec, key->name);
		if (key == NULL)
			scan_problem(s->doc, &pos, full.s, "%s",
				     config_section_find(sec->spec->name, name)
					     ? "is a section: { is expected after it"
					     : "no such key");
		else if (first != NULL)
			given_twice(s->doc, &pos, full.s, &first->pos);
		else if (append)
			scan_problem(s->doc, &pos, full.s, "write one list with =, there is no +=");
		else
			e = new_entry(s->doc, sec, key, pos);
	}
	value(s, e, sec == NULL ? NULL : full.s);
}

/* Note the section and its title (the current token, unless NULL). NULL: its contents are not to be looked
 * at. */
static struct scan_section *new_section(struct scan *s, struct scan_section *parent, struct slice name,
					struct scan_pos pos, bool has_title)
{
	struct scan_doc *doc = s->doc;
	const struct config_section *spec = config_section_find(parent->spec->name, name);
	struct scan_section *sec;
	char full[64];

	snprintf(full, sizeof(full), "%s%s%.*s", parent->spec->name, *parent->spec->name ? "." : "",
		 (int)u64_min(name.len, 40), name.p);
	if (spec == NULL) {
		scan_problem(doc, &pos, full, "%s",
			     config_key_find(parent->spec->name, name) ? "is a key: = is expected after it"
								       : "no such section");
		return NULL;
	}
	if (spec->when == CKEY_LATER) {
		scan_problem(doc, &pos, full, "not in this version");
		return NULL;
	}
	if (spec->has_title != has_title) {
		scan_problem(doc, &pos, full,
			     spec->has_title ? "needs a title: %s \"...\" { }" : "takes no title: %s { }",
			     spec->name);
		return NULL;
	}
	for (size_t i = 0; !spec->has_title && i < doc->n_sections; i++) {
		if (doc->sections[i]->spec == spec && doc->sections[i]->parent == parent) {
			given_twice(doc, &pos, full, &doc->sections[i]->pos);
			return NULL;
		}
	}
	if (!grow(doc, &doc->sections, doc->n_sections, sizeof(struct scan_section *)) ||
	    (sec = calloc(1, sizeof(*sec))) == NULL) {
		doc->oom = true;
		return NULL;
	}
	sec->spec = spec;
	sec->parent = parent;
	sec->pos = pos;
	doc->sections[doc->n_sections++] = sec;
	emits(doc, spec->name);
	emits(doc, " {\n");
	if (has_title && (sec->title = new_entry(doc, sec, &scan_title_key, pos)) != NULL) {
		check_env(s, sec->title, full);
		emits(doc, "__title = ");
		emit_word(s, sec->title);
		emits(doc, "\n");
	}
	return sec;
}

/* A section: its title or its brace is the current token; leaves at the closing brace. */
static void section(struct scan *s, struct scan_section *parent, struct slice name, struct scan_pos pos,
		    unsigned depth)
{
	bool has_title = s->tok.type == LEX_WORD;
	struct scan_section *sec = NULL;

	if (depth >= DEPTH_MAX) {
		scan_problem(s->doc, &pos, NULL, "sections are nested too deeply");
		s->doc->broken = true;
		return;
	}
	if (has_title) {
		struct scan peek = *s;

		peek.tok = lex_next(&peek.lx); /* make sure of the brace before the section is noted */
		if (!at(&peek, '{')) {
			bool is_section =
				parent != NULL && config_section_find(parent->spec->name, name) != NULL;

			if (is_section)
				advance(s);
			broken(s, is_section ? "{" : "=");
			return;
		}
	}
	if (parent != NULL)
		sec = new_section(s, parent, name, pos, has_title);
	if (has_title)
		advance(s);
	statements(s, sec, &pos, depth + 1);
	if (sec != NULL)
		emits(s->doc, "}\n");
}

/* ---- files ---- */

/* Read one file's statements into `sec`. `from`: the include statement, NULL for the first file. */
static void read_into(struct scan_doc *doc, char *path, unsigned includes, const struct scan_pos *from,
		      struct scan_section *sec, unsigned depth)
{
	struct scan s = {.doc = doc, .file = path, .includes = includes};
	struct scan_pos whole = {path, 0, doc->order};
	size_t len;
	char *text;

	if (!grow(doc, &doc->files, doc->n_files, sizeof(char *))) {
		free(path);
		return;
	}
	doc->files[doc->n_files++] = path;
	text = file_read(path, SCAN_FILE_MAX, &len);
	doc->total += len;
	if (text == NULL) {
		if (from != NULL)
			scan_problem(doc, from, "include", "%s: %s", path, file_error(errno));
		else
			scan_problem(doc, &whole, NULL, "%s", file_error(errno));
		doc->broken = true;
		return;
	}
	if (doc->total > SCAN_TOTAL_MAX) {
		scan_problem(doc, from ? from : &whole, NULL, "the files are larger than %d bytes together",
			     SCAN_TOTAL_MAX);
		doc->broken = true;
	} else {
		s.lx = (struct lexer){text, text + len, 1};
		statements(&s, sec, NULL, depth);
	}
	free(text);
}

/* A path in include() is relative to the file that it stands in. */
static char *include_path(const char *file, struct slice name)
{
	const char *slash = strrchr(file, '/');
	char *path = NULL;

	if (name.p[0] == '/' || slash == NULL)
		return strndup(name.p, name.len);
	if (asprintf(&path, "%.*s%.*s", (int)(slash - file + 1), file, (int)name.len, name.p) == -1)
		return NULL;
	return path;
}

/* include("path"): the opening parenthesis is the current token; leaves at the closing one. */
static void include(struct scan *s, struct scan_section *sec, struct scan_pos pos, unsigned depth)
{
	struct slice name;
	char *path;

	advance(s);
	if (s->tok.type != LEX_WORD) {
		broken(s, "the path of a file");
		return;
	}
	name = s->tok.raw;
	advance(s);
	if (!at(s, ')')) {
		broken(s, ")");
		return;
	}
	if (sec == NULL)
		return;
	if (s->includes >= SCAN_INCLUDE_MAX || name.len == 0 || name.len > 4000 ||
	    memchr(name.p, '\\', name.len) != NULL || memmem(name.p, name.len, "${", 2) != NULL) {
		scan_problem(s->doc, &pos, "include",
			     s->includes >= SCAN_INCLUDE_MAX
				     ? "files are included too deeply"
				     : "a plain path is expected, without \\ and ${}");
		s->doc->broken = true;
		return;
	}
	path = include_path(s->file, name);
	if (path == NULL)
		s->doc->oom = true;
	else
		read_into(s->doc, path, s->includes + 1, &pos, sec, depth);
}

/* Read statements up to the end of the file, or to the brace that closes the section opened at `opened`.
 * sec NULL: check the form only. */
static void statements(struct scan *s, struct scan_section *sec, const struct scan_pos *opened,
		       unsigned depth)
{
	while (!s->doc->broken && !s->doc->oom) {
		struct scan_pos pos;
		struct slice name;

		advance(s);
		if (s->tok.type == LEX_END && opened == NULL)
			return;
		if (s->tok.type == LEX_END) {
			scan_problem(s->doc, &s->pos, NULL,
				     "the file ends inside the section opened at line %u", opened->line);
			s->doc->broken = true;
			return;
		}
		if (at(s, '}') && opened != NULL)
			return;
		if (s->tok.type != LEX_WORD || s->tok.quote != LEX_BARE) {
			broken(s, opened == NULL ? "a key or a section" : "a key or }");
			return;
		}
		name = s->tok.raw;
		pos = s->pos;
		advance(s);
		if (at(s, '=') || at(s, '+'))
			assignment(s, sec, name, pos);
		else if (at(s, '(') && name.len == 7 && memcmp(name.p, "include", 7) == 0)
			include(s, sec, pos, depth);
		else if (at(s, '{') || s->tok.type == LEX_WORD)
			section(s, sec, name, pos, depth);
		else
			broken(s, "= or {");
	}
}

static struct scan_doc *new_doc(void)
{
	struct scan_doc *doc = calloc(1, sizeof(*doc));
	struct scan_section *top = calloc(1, sizeof(*top));

	if (doc == NULL || top == NULL || !grow(doc, &doc->sections, 0, sizeof(struct scan_section *))) {
		free(doc);
		free(top);
		return NULL;
	}
	top->spec = &config_sections[0];
	top->pos.file = "built-in";
	doc->sections[doc->n_sections++] = top;
	return doc;
}

struct scan_doc *scan_open(const char *file)
{
	struct scan_doc *doc = new_doc();
	char *path;

	if (doc == NULL || file == NULL)
		return doc;
	path = strdup(file);
	if (path == NULL) {
		scan_close(doc);
		return NULL;
	}
	doc->sections[0]->pos.file = path;
	read_into(doc, path, 0, NULL, doc->sections[0], 0);
	return doc;
}

void scan_append(struct scan_doc *doc, const char *text)
{
	struct scan s = {.doc = doc, .file = "built-in", .lx = {text, text + strlen(text), 1}};

	statements(&s, doc->sections[0], NULL, 0);
}
