#include "master/receipts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "master/store.h"

struct message {
	char *key; /* NULL: free */
	size_t key_len;
	uint64_t stamp;
	struct buf users; /* entries: 8 bytes ms, 1 byte length, the user */
	uint32_t n_users;
};

struct receipts {
	uint32_t max, n;
	uint64_t stamps;
	struct message message[];
};

struct receipts *receipts_new(uint32_t max)
{
	struct receipts *r = calloc(1, sizeof(*r) + max * sizeof(r->message[0]));

	if (r != NULL)
		r->max = max;
	return r;
}

static void clear(struct message *m)
{
	free(m->key);
	buf_free(&m->users);
	*m = (struct message){0};
}

void receipts_free(struct receipts *r)
{
	if (r == NULL)
		return;
	for (uint32_t i = 0; i < r->n; i++)
		clear(&r->message[i]);
	free(r);
}

/* A thousand comparisons of lengths and first bytes: no table is needed for what people do by hand. */
static struct message *find(const struct receipts *r, struct slice key)
{
	for (uint32_t i = 0; i < r->n; i++) {
		const struct message *m = &r->message[i];

		if (m->key != NULL && m->key_len == key.len && memcmp(m->key, key.p, key.len) == 0)
			return (struct message *)(uintptr_t)m;
	}
	return NULL;
}

static struct message *take(struct receipts *r, struct slice key)
{
	struct message *m = &r->message[0];
	char *copy = malloc(key.len == 0 ? 1 : key.len);

	if (copy == NULL)
		return NULL;
	if (r->n < r->max) {
		m = &r->message[r->n++];
	} else {
		for (uint32_t i = 1; i < r->n; i++)
			if (r->message[i].stamp < m->stamp)
				m = &r->message[i];
		clear(m);
	}
	if (key.len > 0)
		memcpy(copy, key.p, key.len);
	m->key = copy;
	m->key_len = key.len;
	return m;
}

struct entry {
	uint64_t ms;
	struct slice user;
};

static bool next_entry(const struct message *m, size_t *at, struct entry *e)
{
	const char *p = m->users.p + *at;

	if (*at >= m->users.len)
		return false;
	memcpy(&e->ms, p, sizeof(e->ms));
	e->user = (struct slice){p + sizeof(e->ms) + 1, (uint8_t)p[sizeof(e->ms)]};
	*at += sizeof(e->ms) + 1 + e->user.len;
	return true;
}

static bool has_user(const struct message *m, struct slice user)
{
	struct entry e;
	size_t at = 0;

	while (next_entry(m, &at, &e))
		if (e.user.len == user.len && memcmp(e.user.p, user.p, user.len) == 0)
			return true;
	return false;
}

int receipts_add(struct receipts *r, struct slice key, struct slice user, uint64_t ms)
{
	struct message *m = find(r, key);
	uint8_t len = (uint8_t)user.len;

	if (m == NULL)
		m = take(r, key);
	if (m == NULL)
		return -1;
	m->stamp = ++r->stamps;
	if (has_user(m, user))
		return 0;
	if (m->n_users >= RECEIPTS_USERS_MAX || user.len > UINT8_MAX) {
		errno = ENOSPC;
		return -1;
	}
	if (buf_reserve(&m->users, sizeof(ms) + 1 + user.len) == -1)
		return -1;
	memcpy(m->users.p + m->users.len, &ms, sizeof(ms));
	memcpy(m->users.p + m->users.len + sizeof(ms), &len, 1);
	if (user.len > 0)
		memcpy(m->users.p + m->users.len + sizeof(ms) + 1, user.p, user.len);
	m->users.len += sizeof(ms) + 1 + user.len;
	m->n_users++;
	return 0;
}

void receipts_each(const struct receipts *r, struct slice key,
		   void (*fn)(void *arg, struct slice user, uint64_t ms), void *arg)
{
	const struct message *m = find(r, key);
	struct entry e;
	size_t at = 0;

	while (m != NULL && next_entry(m, &at, &e))
		fn(arg, e.user, e.ms);
}
