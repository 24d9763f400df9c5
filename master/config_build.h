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

/* The title of a section, or NULL if it is not to be looked at. */
const char *build_title(struct scan_doc *doc, const struct scan_section *sec);

/* A secret that travels in a header: printable ASCII, not empty; `none` says what an absent one means. */
void build_check_secret(struct scan_doc *doc, const struct scan_section *sec, const char *key,
			const char *none);

/* Keys of the section that its kind ("hook", "reply") does not have: a problem where they are given, without
 * effect where they have a default. */
void build_only(struct scan_doc *doc, const struct scan_section *sec, const char *kind, void *base);
/* Does a section of that kind have the key? Pure. */
bool build_has(const struct config_key *k, const char *kind);

/* A copy that the config owns; NULL (ENOMEM is noted) only for NULL or without memory. */
char *build_strdup(struct scan_doc *doc, const char *s);
char *build_strndup(struct scan_doc *doc, const char *s, size_t len);

/* All auth sections, into c->auths. */
void build_auths(struct scan_doc *doc, struct config *c);

/* What a namespace does for its clients beyond passing messages on: identity, first and idle frames, rates,
 * rules. Its path and channel have been built (name and path may be NULL after a problem). */
void build_feed(struct scan_doc *doc, const struct scan_section *sec, const struct config *c,
		struct cfg_namespace *ns);

/* The sections `rule` inside `sec`, into ns->rules; all else of the namespace is there. */
void build_rules(struct scan_doc *doc, const struct scan_section *sec, struct cfg_namespace *ns);

/* The text of a key as a template; NULL if it is not given or empty. */
struct template *build_template(struct scan_doc *doc, const struct scan_section *sec, const char *key,
				const struct template_scope *scope);

/* What a frame of the namespace may look like at worst, into `out`; the values that it is rendered with are
 * strings with a quote inside wherever a string is possible. False: no memory. */
bool build_worst_case(const struct cfg_namespace *ns, const struct cfg_rule *rule, const struct template *t,
		      struct buf *out) MUST_CHECK;

/* A frame that begins like JSON must be JSON, whatever its values are. */
void build_check_frame(struct scan_doc *doc, const struct scan_section *sec, const char *key,
		       const struct cfg_namespace *ns, const struct cfg_rule *rule, const struct template *t);

/* A Redis key begins with text of its own, not with what clients say, and not like the server's own keys. */
void build_check_redis_key(struct scan_doc *doc, const struct scan_section *sec, const char *key,
			   const struct template *t);

/* All namespaces, into c->namespaces; limits, ring and auths must be there. */
void build_namespaces(struct scan_doc *doc, struct config *c);

/* max_message and max_publication of a section: at most a quarter of the ring. Given ones beyond it are a
 * problem, others are made to fit. */
void build_message_limits(struct scan_doc *doc, const struct scan_section *sec, uint64_t ring_size,
			  uint32_t *max_message, uint32_t *max_publication);

#endif
