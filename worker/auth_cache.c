#include "worker/auth_cache.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 4096u /* a power of two */
#define NONE    UINT32_MAX

/* In a bucket, by `next`; in order of age, by position in the array: entries are overwritten in turn. */
struct entry {
	uint8_t key[AUTH_KEY_LEN];
	struct identity *who; /* NULL: free */
	uint64_t until_ms;
	uint32_t next;
};

struct auth_cache {
	struct entry entry[AUTH_CACHE_MAX];
	uint32_t bucket[BUCKETS];
	uint32_t turn; /* the next one to be overwritten */
};

struct auth_cache *auth_cache_new(void)
{
	struct auth_cache *c = calloc(1, sizeof(*c));

	if (c != NULL)
		memset(c->bucket, 0xff, sizeof(c->bucket));
	return c;
}

/* Digests spread by themselves. */
static uint32_t *bucket_of(struct auth_cache *c, const uint8_t *key)
{
	return &c->bucket[(key[0] | (uint32_t)key[1] << 8) % BUCKETS];
}

static void drop(struct auth_cache *c, uint32_t i)
{
	struct entry *e = &c->entry[i];
	uint32_t *link;

	if (e->who == NULL)
		return;
	for (link = bucket_of(c, e->key); *link != i;)
		link = &c->entry[*link].next;
	*link = e->next;
	identity_free(e->who);
	e->who = NULL;
}

void auth_cache_free(struct auth_cache *c)
{
	if (c == NULL)
		return;
	for (uint32_t i = 0; i < AUTH_CACHE_MAX; i++)
		drop(c, i);
	free(c);
}

bool auth_cache_key(struct slice text, uint8_t key[AUTH_KEY_LEN])
{
	size_t len;

	return EVP_Q_digest(NULL, "SHA256", NULL, text.p, text.len, key, &len) == 1 && len == AUTH_KEY_LEN;
}

static uint32_t find(struct auth_cache *c, const uint8_t *key)
{
	uint32_t i = *bucket_of(c, key);

	while (i != NONE && memcmp(c->entry[i].key, key, AUTH_KEY_LEN) != 0)
		i = c->entry[i].next;
	return i;
}

struct identity *auth_cache_get(struct auth_cache *c, const uint8_t key[AUTH_KEY_LEN], uint64_t now_ms,
				uint64_t now_s)
{
	uint32_t i = find(c, key);
	const struct entry *e;

	if (i == NONE)
		return NULL;
	e = &c->entry[i];
	if (now_ms < e->until_ms && (e->who->expires_at == 0 || now_s < e->who->expires_at))
		return identity_clone(e->who);
	drop(c, i);
	return NULL;
}

void auth_cache_put(struct auth_cache *c, const uint8_t key[AUTH_KEY_LEN], const struct identity *who,
		    uint64_t until_ms)
{
	uint32_t i = find(c, key), *bucket;
	struct identity *copy = identity_clone(who);

	if (i != NONE)
		drop(c, i);
	if (copy == NULL)
		return;
	i = c->turn;
	c->turn = (c->turn + 1) % AUTH_CACHE_MAX;
	drop(c, i);
	bucket = bucket_of(c, key);
	c->entry[i] = (struct entry){.who = copy, .until_ms = until_ms, .next = *bucket};
	memcpy(c->entry[i].key, key, AUTH_KEY_LEN);
	*bucket = i;
}

void auth_cache_drop_user(struct auth_cache *c, struct slice user)
{
	for (uint32_t i = 0; i < AUTH_CACHE_MAX; i++) {
		const struct identity *who = c->entry[i].who;

		if (who != NULL && who->user.len == user.len && memcmp(who->user.p, user.p, user.len) == 0)
			drop(c, i);
	}
}
