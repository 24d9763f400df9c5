/* config_scan.h - the first pass over a configuration file: where everything stands.
 *
 * libconfuse reads the values, but four things it cannot tell us [libconfuse 3.3, tried]: it stops at the
 * first unknown key, counts each comment as a line more, lets a repeated key win silently, and takes an unset
 * ${ENV} for an empty one. So this pass walks the same grammar, notes file:line of each key, reports those
 * four, and writes what is left in a canonical form (comments gone, includes in place, titles as a first key)
 * which libconfuse then parses, in the same order. So the n-th value that libconfuse hands out belongs to
 * expected[n].
 *
 * Master process, at start and at HUP; blocks as reading small files does. Everything is owned by the
 * document.
 */
#ifndef RC_CONFIG_SCAN_H
#define RC_CONFIG_SCAN_H

#include "common/buf.h"
#include "common/config_keys.h"

#define SCAN_FILE_MAX     (1024 * 1024) /* bytes of a file */
#define SCAN_TOTAL_MAX    (4 * 1024 * 1024)
#define SCAN_INCLUDE_MAX  10 /* files inside each other */
#define SCAN_PROBLEMS_MAX 1000

struct scan_pos {
	const char *file;
	unsigned line;
	unsigned order; /* grows over the whole document, includes in place */
};

/* One `key = value` or the title of a section. */
struct scan_entry {
	const struct config_key *key;
	struct scan_section *sec;
	struct scan_pos pos;
	char **values; /* by libconfuse; n_values of them when the second pass is through */
	size_t n_values, n_expected;
	bool bad;            /* reported already: its value is not to be looked at */
	bool has_secret_ref; /* an ${ENV} stood in it: its value is not shown in messages */
};

/* One section as it stands in the file; sections[0] is the top level. */
struct scan_section {
	const struct config_section *spec;
	const struct scan_section *parent; /* the section that it stands in; NULL for the top level */
	struct scan_pos pos;
	struct scan_entry *title; /* NULL if it has none */
	struct scan_entry **entries;
	size_t n_entries;
};

struct scan_problem {
	unsigned order;
	char *text;
};

struct scan_doc {
	struct scan_section **sections;
	size_t n_sections;
	struct scan_entry **expected; /* one for each value, in the order of `text` */
	size_t n_expected;
	struct buf text; /* the canonical form */
	char **files;
	size_t n_files;
	unsigned order;
	size_t total; /* bytes read */
	struct scan_problem *problems;
	size_t n_problems;
	bool broken; /* a syntax error: what follows was not read */
	bool oom;
};

/* The key that titles are noted under. */
extern const struct config_key scan_title_key;

/* Read `file` and its includes into a fresh document; NULL: an empty one. Problems are noted there. NULL:
 * ENOMEM. */
struct scan_doc *scan_open(const char *file) MUST_CHECK;

/* Append statements of our own (the built-in namespaces), as if they stood in a file called "built-in". */
void scan_append(struct scan_doc *doc, const char *text);
void scan_close(struct scan_doc *doc);

/* Note a problem; `pos` NULL puts it first, without a place. `key` NULL leaves that part out. */
void scan_problem(struct scan_doc *doc, const struct scan_pos *pos, const char *key, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

/* All problems, by their place, one per line. Returns how many. */
size_t scan_report(struct scan_doc *doc, struct buf *out);

/* The entry of a key in a section, or NULL. */
struct scan_entry *scan_find(const struct scan_section *sec, const char *key);

/* How many sections of that name there are, at the top level. */
size_t scan_count(const struct scan_doc *doc, const char *section);

/* "ring.size": how a key is called in messages. */
struct scan_name {
	char s[96];
};
const char *scan_key_name(const struct config_key *k, struct scan_name *dst);

#endif
