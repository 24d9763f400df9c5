/* config_keys.h - THE table of configuration keys: what exists, its type, range, default, unit, and where the
 * value goes. The loader checks files against it, `ringcast -T` prints by it, and a unit test compares it
 * with docs/configuration.md and etc/ringcast.conf. Pure data; any process.
 */
#ifndef RC_CONFIG_KEYS_H
#define RC_CONFIG_KEYS_H

#include "common/base.h"

enum ckey_type {
	CKEY_UINT,     /* decimal digits */
	CKEY_SIZE,     /* digits and k, m or g (x1024); bytes */
	CKEY_DURATION, /* digits and ms, s, m or h; milliseconds. A bare 0 needs no unit */
	CKEY_BOOL,     /* on | off */
	CKEY_ENUM,     /* one of `choices`; its index there is the value */
	CKEY_OCTAL,    /* file mode */
	CKEY_WORKERS,  /* a number, or "auto": the CPUs this process may use */
	CKEY_STRING,
	CKEY_LIST,     /* { "a", "b" }, or one string */
	CKEY_TEMPLATE, /* common/template.h */
};

enum ckey_when {
	CKEY_NOW,
	CKEY_LATER, /* known, but of a later version: refused unless neutral (off, 0, "", {}, the first
		       choice) */
	CKEY_PARAM, /* parameter of something later: checked, and without effect */
};

/* Where a value goes, as an offset into the struct of its section. */
enum ckey_base { CKEY_CONFIG, CKEY_LISTENER, CKEY_NAMESPACE, CKEY_AUTH, CKEY_RULE };

struct config_section {
	const char *name; /* "" = outside of any section */
	const char *parent;
	bool has_title;
	enum ckey_when when;
	enum ckey_base base;
	const char *help;
};

struct config_key {
	const char *section, *name;
	enum ckey_type type;
	enum ckey_when when;
	uint64_t min, max;
	bool zero_ok; /* 0 is allowed besides min..max; `zero` says what it means */
	const char *zero;
	const char *def;     /* as written in a file; NULL: none, or computed (the help says how) */
	const char *choices; /* CKEY_ENUM, and CKEY_LIST of choices: "a|b|c" */
	const char *only; /* "hook|jwt": the kinds of its section (auth.type, rule.action) that have it; NULL:
			     all */
	uint16_t offset;  /* where the value goes */
	uint8_t size; /* bytes there; 0 = not stored by the table (the loader's own code does, or nobody) */
	bool reloadable; /* takes effect at HUP; else at the next start */
	const char *help;
};

extern const struct config_section config_sections[];
extern const size_t config_n_sections;
extern const struct config_key config_keys[];
extern const size_t config_n_keys;

/* The section called `name` inside `parent` ("" = top), or NULL. Pure. */
const struct config_section *config_section_find(const char *parent, struct slice name);

/* The key of a section, or NULL. Pure. */
const struct config_key *config_key_find(const char *section, struct slice name);

/* Position of `word` in "a|b|c", or -1. Pure. */
int config_choice(const char *choices, const char *word);

/* Read or write a number key in the struct of its section. Pure. */
uint64_t config_key_get(const struct config_key *k, const void *base);
void config_key_set(const struct config_key *k, void *base, uint64_t value);

/* A value as it would be written in a file ("64k", "10s", "on"), exact. For all types but string, list and
 * template. Pure. */
struct config_text {
	char s[48];
};
const char *config_key_format(const struct config_key *k, uint64_t value, struct config_text *dst);

/* Its range in words: "1k to 1m", "0 (no limit), 1 to 1000"; "" if it has none. Pure. */
struct config_range {
	char s[160];
};
const char *config_key_range(const struct config_key *k, struct config_range *dst);

#endif
