#include "master/config_confuse.h"

#include <confuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libconfuse's callbacks carry no argument of ours. */
static struct scan_doc *reading;
static size_t next_value;

/* The entry that libconfuse is at. */
static struct scan_entry *current(void)
{
	return next_value < reading->n_expected ? reading->expected[next_value] : NULL;
}

/* Every value passes here, in the order of the text. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt, const char *value, void *result)
{
	struct scan_entry *e = current();
	char **values, *copy;

	(void)cfg;
	if (e == NULL || strcmp(e->key->name, opt->name) != 0 || e->n_values >= e->n_expected) {
		scan_problem(reading, e ? &e->pos : NULL, opt->name,
			     "internal error: libconfuse reads the file differently");
		return -1;
	}
	values = reallocarray(e->values, e->n_values + 1, sizeof(*values));
	if (values != NULL)
		e->values = values;
	copy = strdup(value);
	if (values == NULL || copy == NULL) {
		free(copy);
		reading->oom = true;
		return -1;
	}
	e->values[e->n_values++] = copy;
	next_value++;
	*(const char **)result = ""; /* our copy is the one that counts */
	return 0;
}

static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
	struct scan_entry *e = current();
	struct scan_name name = {""};
	char what[256];

	(void)cfg;
	vsnprintf(what, sizeof(what), fmt, ap);
	scan_problem(reading, e ? &e->pos : NULL, e ? scan_key_name(e->key, &name) : NULL, "%s", what);
}

/* The options of one section, and of those inside it, as libconfuse wants them: every value is a string. All
 * arrays are noted in `made`, by the section's number, and are the caller's to free. NULL: ENOMEM. Sections
 * may repeat there; the scanner has had its say on that. */
static cfg_opt_t *section_options(const struct config_section *spec, cfg_opt_t **made)
{
	cfg_opt_t *opts = calloc(config_n_keys + config_n_sections + 2, sizeof(*opts));
	size_t n = 0;

	made[spec - config_sections] = opts;
	if (opts == NULL)
		return NULL;
	if (spec->has_title)
		opts[n++] = (cfg_opt_t)CFG_STR_CB(scan_title_key.name, NULL, CFGF_NODEFAULT, on_value);
	for (size_t i = 0; i < config_n_keys; i++) {
		const char *name = config_keys[i].name;

		if (strcmp(config_keys[i].section, spec->name) != 0)
			continue;
		if (config_keys[i].type == CKEY_LIST)
			opts[n++] = (cfg_opt_t)CFG_STR_LIST_CB(name, NULL, CFGF_NODEFAULT, on_value);
		else
			opts[n++] = (cfg_opt_t)CFG_STR_CB(name, NULL, CFGF_NODEFAULT, on_value);
	}
	for (size_t i = 1; i < config_n_sections; i++) {
		const struct config_section *sub = &config_sections[i];
		cfg_opt_t *sub_opts;

		if (sub->when == CKEY_LATER || strcmp(sub->parent, spec->name) != 0)
			continue;
		sub_opts = section_options(sub, made);
		if (sub_opts == NULL)
			return NULL;
		opts[n++] = (cfg_opt_t)CFG_SEC(sub->name, sub_opts, CFGF_MULTI);
	}
	opts[n] = (cfg_opt_t)CFG_END();
	return opts;
}

static cfg_t *new_parser(void)
{
	cfg_opt_t **made = calloc(config_n_sections, sizeof(cfg_opt_t *));
	cfg_opt_t *opts = made == NULL ? NULL : section_options(&config_sections[0], made);
	cfg_t *cfg = opts == NULL ? NULL : cfg_init(opts, CFGF_NONE); /* copies */

	for (size_t i = 0; made != NULL && i < config_n_sections; i++)
		free(made[i]);
	free(made);
	return cfg;
}

void confuse_read(struct scan_doc *doc)
{
	size_t before = doc->n_problems;
	cfg_t *cfg;

	if (doc->oom || doc->text.len == 0)
		return;
	if (buf_put(&doc->text, "", 1) == -1 || (cfg = new_parser()) == NULL) {
		doc->oom = true;
		return;
	}
	reading = doc;
	next_value = 0;
	cfg_set_error_function(cfg, on_error);
	if (cfg_parse_buf(cfg, doc->text.p) != CFG_SUCCESS && doc->n_problems == before && !doc->oom)
		scan_problem(doc, NULL, NULL, "internal error: libconfuse refuses the file");
	if (next_value != doc->n_expected && doc->n_problems == before && !doc->oom)
		scan_problem(doc, NULL, NULL, "internal error: libconfuse did not read the whole file");
	cfg_free(cfg);
	reading = NULL;
}
