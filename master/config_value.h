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

/* A Redis URL into `out` (url, tls, is_unix, host, port, user, password, path, db); what was there is freed.
 * "" or NULL: local mode. -1 with `err` set: `out` then is in local mode. */
int value_redis_url(const char *text, struct cfg_redis *out, struct value_error *err) MUST_CHECK;

/* The URL with the password masked, in a fresh string; NULL: ENOMEM. */
char *value_redis_masked(const struct cfg_redis *r) MUST_CHECK;

#endif
