/* What a scanned document knows, apart from how it is read: its problems, its entries, and its end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "master/config_scan.h"

/* Room for one more problem; they come in steps of 16. */
static bool has_room(struct scan_doc *doc)
{
	struct scan_problem *bigger;

	if (doc->n_problems % 16 != 0)
		return true;
	bigger = reallocarray(doc->problems, doc->n_problems + 16, sizeof(*bigger));
	if (bigger == NULL) {
		doc->oom = true;
		return false;
	}
	doc->problems = bigger;
	return true;
}

void scan_problem(struct scan_doc *doc, const struct scan_pos *pos, const char *key, const char *fmt, ...)
{
	struct buf b = {0};
	char what[512];
	va_list ap;
	int rc = 0;

	if (doc->n_problems >= SCAN_PROBLEMS_MAX || !has_room(doc))
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (pos != NULL && pos->line > 0)
		rc = buf_printf(&b, "%s:%u: ", pos->file, pos->line);
	else if (pos != NULL)
		rc = buf_printf(&b, "%s: ", pos->file);
	if (rc == -1 || buf_printf(&b, "%s%s%s", key ? key : "", key ? ": " : "", what) == -1 ||
	    buf_put(&b, "", 1) == -1) {
		doc->oom = true;
		buf_free(&b);
		return;
	}
	for (char *p = b.p; *p != '\0'; p++) /* one line, and nothing that a terminal obeys */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	doc->problems[doc->n_problems].order = pos == NULL ? 0 : pos->order;
	doc->problems[doc->n_problems++].text = b.p;
}

/* By place; the sort is stable, so problems of one place stay in the order they were found. */
static void sort_problems(struct scan_doc *doc)
{
	for (size_t i = 1; i < doc->n_problems; i++) {
		struct scan_problem p = doc->problems[i];
		size_t j = i;

		for (; j > 0 && doc->problems[j - 1].order > p.order; j--)
			doc->problems[j] = doc->problems[j - 1];
		doc->problems[j] = p;
	}
}

size_t scan_report(struct scan_doc *doc, struct buf *out)
{
	sort_problems(doc);
	for (size_t i = 0; i < doc->n_problems; i++)
		if (buf_printf(out, "%s\n", doc->problems[i].text) == -1)
			doc->oom = true;
	return doc->n_problems;
}

struct scan_entry *scan_find(const struct scan_section *sec, const char *key)
{
	for (size_t i = 0; i < sec->n_entries; i++)
		if (strcmp(sec->entries[i]->key->name, key) == 0)
			return sec->entries[i];
	return NULL;
}

const char *scan_key_name(const struct config_key *k, struct scan_name *dst)
{
	snprintf(dst->s, sizeof(dst->s), "%s%s%s", k->section, *k->section ? "." : "", k->name);
	return dst->s;
}

size_t scan_count(const struct scan_doc *doc, const char *section)
{
	size_t n = 0;

	for (size_t i = 1; i < doc->n_sections; i++)
		n += strcmp(doc->sections[i]->spec->name, section) == 0;
	return n;
}

static void section_free(struct scan_section *sec)
{
	for (size_t i = 0; i < sec->n_entries; i++) {
		for (size_t j = 0; j < sec->entries[i]->n_values; j++)
			free(sec->entries[i]->values[j]);
		free(sec->entries[i]->values);
		free(sec->entries[i]);
	}
	free(sec->entries);
	free(sec);
}

void scan_close(struct scan_doc *doc)
{
	if (doc == NULL)
		return;
	for (size_t i = 0; i < doc->n_sections; i++)
		section_free(doc->sections[i]);
	for (size_t i = 0; i < doc->n_files; i++)
		free(doc->files[i]);
	for (size_t i = 0; i < doc->n_problems; i++)
		free(doc->problems[i].text);
	/* May hold secrets from the file. */
	if (doc->text.p != NULL)
		explicit_bzero(doc->text.p, doc->text.cap);
	buf_free(&doc->text);
	free(doc->sections);
	free(doc->expected);
	free(doc->files);
	free(doc->problems);
	free(doc);
}
