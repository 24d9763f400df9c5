/* config_value.h - what single values mean: numbers with units, listener addresses, Redis URLs. Pure but for
 * memory. Master process and tests.
 */
#ifndef RC_CONFIG_VALUE_H
#define RC_CONFIG_VALUE_H

#include "common/config.h"
#include "common/config_keys.h"

/* Why a value was refused, for the message behind "file:line: key: ". Never shows a credential. */
struct value_error {
	char s[256];
};

/* A value of any type but string and list, range included. -1 with `err` set if it is none. */
int value_number(const struct config_key *k, const char *text, uint64_t *out,
		 struct value_error *err) MUST_CHECK;

/* CPUs that this process may use, 1 to CFG_MAX_WORKERS. */
uint32_t value_auto_workers(void);

/* "127.0.0.1:8080", "[::1]:80", "*:80", ":80", "localhost:80", "unix:/path" into a zeroed `out`: sets addr,
 * is_unix, path or host and port; the rest is left. -1 with `err` set and `out` untouched. */
int value_listener(const char *text, struct cfg_listener *out, struct value_error *err) MUST_CHECK;

/* What values are made of: for config_url.c. Decimal digits, *rest is what follows them; false if there are
 * none or they exceed 64 bits. The path of a unix socket, not too long. Is a host a numeric address of the
 * family that its spelling says? */
int value_fail(struct value_error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool value_digits(const char *p, uint64_t *v, const char **rest) MUST_CHECK;
int value_unix_path(const char *path, struct value_error *err) MUST_CHECK;
bool value_is_numeric(const char *host, bool is_bracketed) MUST_CHECK;

/* "10.0.0.0/8", "::1". -1 with `err` set and `out` untouched. And back: at most 48 bytes with its NUL. */
int value_network(const char *text, struct cfg_network *out, struct value_error *err) MUST_CHECK;
void value_network_text(const struct cfg_network *n, char *dst, size_t size);

/* Is it the URL of a hook? -1 with `err` set if not. */
int value_hook_url(const char *text, struct value_error *err) MUST_CHECK;

/* A Redis URL into `out` (url, tls, is_unix, host, port, user, password, path, db, sentinels); what was there
 * is freed.
 * "" or NULL: local mode. -1 with `err` set: `out` then is in local mode. */
int value_redis_url(const char *text, struct cfg_redis *out, struct value_error *err) MUST_CHECK;

/* The URL with the password masked, in a fresh string; NULL: ENOMEM. */
char *value_redis_masked(const struct cfg_redis *r) MUST_CHECK;

#endif
