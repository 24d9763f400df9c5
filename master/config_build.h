/* config_build.h - from a read document to a struct config: inside of config_load*.c only. */
#ifndef RC_CONFIG_BUILD_H
#define RC_CONFIG_BUILD_H

#include "common/config.h"
#include "master/config_scan.h"

/* Set every stored key of `sec` in the struct at `base`: its default, then what the file says. */
void build_keys(struct scan_doc *doc, const struct scan_section *sec, void *base);

/* A problem with a key of a section: at the key where it stands, else at the section. */
void build_problem(struct scan_doc *doc, const struct scan_section *sec, const char *key, const char *fmt,
		   ...) PRINTF_LIKE(4, 5);

/* The single value of a key, or NULL if it is not given or not to be looked at. */
const char *build_value(const struct scan_section *sec, const char *key);

/* Was the key given, with a usable value? */
bool build_given(const struct scan_section *sec, const char *key);

/* A copy that the config owns; NULL (ENOMEM is noted) only for NULL or without memory. */
char *build_strdup(struct scan_doc *doc, const char *s);
char *build_strndup(struct scan_doc *doc, const char *s, size_t len);

/* All namespaces, into c->namespaces; limits and ring must be there. */
void build_namespaces(struct scan_doc *doc, struct config *c);

/* max_message and max_publication of a section: at most a quarter of the ring. Given ones beyond it are a
 * problem, others are made to fit. */
void build_message_limits(struct scan_doc *doc, const struct scan_section *sec, uint64_t ring_size,
			  uint32_t *max_message, uint32_t *max_publication);

#endif
