/* auth_cache.h - verdicts of hooks, for a few seconds: a page that opens five sockets asks once. Worker; pure
 * but for malloc.
 *
 * Keys are SHA-256 digests, so that no credential lies in it. At most AUTH_CACHE_MAX entries; the oldest goes
 * when it is full.
 */
#ifndef RC_AUTH_CACHE_H
#define RC_AUTH_CACHE_H

#include "worker/identity.h"

#define AUTH_CACHE_MAX 4096u
#define AUTH_KEY_LEN   32u

struct auth_cache;

struct auth_cache *auth_cache_new(void) MUST_CHECK;
void auth_cache_free(struct auth_cache *c); /* NULL is fine */

/* The digest of a key's text. False: it can't be made; then nothing is cached. */
bool auth_cache_key(struct slice text, uint8_t key[AUTH_KEY_LEN]) MUST_CHECK;

/* A copy of the verdict, the caller's; NULL: none that still counts, or no memory. now_s: wall clock, for
 * expires_at. */
struct identity *auth_cache_get(struct auth_cache *c, const uint8_t key[AUTH_KEY_LEN], uint64_t now_ms,
				uint64_t now_s) MUST_CHECK;
/* Keep a copy until `until_ms`. Without memory nothing is kept. */
void auth_cache_put(struct auth_cache *c, const uint8_t key[AUTH_KEY_LEN], const struct identity *who,
		    uint64_t until_ms);
/* Drop what is known about this user, in whatever namespace. */
void auth_cache_drop_user(struct auth_cache *c, struct slice user);

#endif
