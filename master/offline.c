#include "master/offline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "master/nodes.h"
#include "master/presence.h"
#include "master/presence_redis.h"
#include "master/redis_cmd.h"
#include "master/store.h"

/* KEYS: the users' streams, their online marks, the other replicas' lists of who is present. ARGV: how many
 * users, how many lists, the message, how many are kept, for how long; the users. Returns for how many it was
 * kept. */
static const char script[] =
	"local n,k,kept=tonumber(ARGV[1]),tonumber(ARGV[2]),0 "
	"for i=1,n do "
	"local on=redis.call('EXISTS',KEYS[n+i])==1 "
	"local from='[\\0'..ARGV[5+i]..'\\0' "
	"for j=1,k do "
	"if not on then on=#redis.call('ZRANGEBYLEX',KEYS[2*n+j],from,from..'\\255','LIMIT',0,1)>0 end "
	"end "
	"if not on then "
	"redis.call('XADD',KEYS[i],'MAXLEN',ARGV[4],'*','m',ARGV[3]) "
	"redis.call('PEXPIRE',KEYS[i],ARGV[5]) "
	"kept=kept+1 "
	"end "
	"end "
	"return kept";

#define FIXED_ARGS 8u /* EVAL, the script, the number of keys, five of ARGV */

struct batch {
	struct slice user[OFFLINE_BATCH];
	unsigned n;
};

static void lost(struct master *m, uint64_t n)
{
	count_add(&m->count->offline_lost, n);
}

static void on_kept(void *arg, const redisReply *reply)
{
	struct master *m = arg;

	if (reply != NULL && reply->type == REDIS_REPLY_INTEGER)
		count_add(&m->count->offline_queued, (uint64_t)reply->integer);
	else
		lost(m, 1); /* of how many users is not known */
}

/* Keys stand one behind the other in `text`, which must not move: its size is reserved before. */
static int put_key(struct buf *text, struct slice *key, const char *prefix, const struct cfg_namespace *ns,
		   struct slice user)
{
	size_t start = text->len;

	if (store_key(text, prefix, ns->name, (struct slice){0}, user) == -1)
		return -1;
	*key = (struct slice){text->p + start, text->len - start};
	return 0;
}

static int put_keys(struct buf *text, struct slice *key, const struct cfg_namespace *ns,
		    const struct batch *b, const uint64_t *node, unsigned n_nodes)
{
	if (buf_reserve(text, (2 * b->n + n_nodes) * STORE_KEY_MAX) == -1)
		return -1;
	for (unsigned i = 0; i < b->n; i++)
		if (put_key(text, key++, STORE_OFFLINE_PREFIX, ns, b->user[i]) == -1)
			return -1;
	for (unsigned i = 0; i < b->n; i++)
		if (put_key(text, key++, OFFLINE_ONLINE_PREFIX, ns, b->user[i]) == -1)
			return -1;
	for (unsigned i = 0; i < n_nodes; i++, key++) {
		char *p = text->p + text->len;

		presence_redis_key(p, node[i], ns->name);
		*key = (struct slice){p, strlen(p)};
		text->len += key->len + 1;
	}
	return 0;
}

static struct slice number(char *dst, size_t size, uint64_t n)
{
	return (struct slice){dst, (size_t)snprintf(dst, size, "%" PRIu64, n)};
}

static int send_batch(struct master *m, const struct cfg_namespace *ns, const struct batch *b,
		      struct slice message, const uint64_t *node, unsigned n_nodes)
{
	struct slice argv[FIXED_ARGS + 3 * OFFLINE_BATCH + NODES_MAX];
	unsigned n_keys = 2 * b->n + n_nodes, n = 3 + n_keys;
	char digits[5][24];
	struct buf text = {0};
	int rc;

	argv[0] = (struct slice){"EVAL", 4};
	argv[1] = (struct slice){script, sizeof(script) - 1};
	argv[2] = number(digits[0], sizeof(digits[0]), n_keys);
	argv[n++] = number(digits[1], sizeof(digits[1]), b->n);
	argv[n++] = number(digits[2], sizeof(digits[2]), n_nodes);
	argv[n++] = message;
	argv[n++] = number(digits[3], sizeof(digits[3]), u64_min(ns->offline_max, OFFLINE_TAKE_MAX));
	argv[n++] = number(digits[4], sizeof(digits[4]), ns->offline_ttl);
	memcpy(argv + n, b->user, b->n * sizeof(*argv));
	rc = put_keys(&text, argv + 3, ns, b, node, n_nodes);
	if (rc == 0)
		rc = redis_cmd_call(m->cmd, n + b->n, argv, on_kept, m);
	buf_free(&text);
	return rc;
}

/* Is it ours to look after this message? Without knowing the others nobody can say. */
static bool is_ours(const struct master *m, uint64_t origin, const uint64_t *node, unsigned n)
{
	if (origin != 0)
		return origin == m->seq.origin;
	for (unsigned i = 0; i < n; i++)
		if (node[i] < m->seq.origin)
			return false;
	return true;
}

static bool is_here(const struct master *m, const struct cfg_namespace *ns, struct slice user)
{
	return crowd_has(&m->presence->table.crowd, ns->id, presence_hash(ns->name, user));
}

void offline_publication(struct master *m, const struct cfg_namespace *ns, uint64_t origin,
			 const struct envelope *e)
{
	unsigned n_nodes, seen = 0;
	bool is_known, is_open = m->cmd != NULL && redis_cmd_is_open(m->cmd);
	const uint64_t *node;
	struct batch b = {.n = 0};
	size_t at = 0;

	if (ns->offline_max == 0 || !ns->presence || e->n_users == 0 || m->cmd == NULL)
		return;
	node = nodes_others(m, &n_nodes, &is_known);
	if (!is_ours(m, origin, node, n_nodes))
		return;
	for (uint32_t i = 0; i < e->n_users; i++) {
		struct slice user = envelope_id(e, &at);

		if (is_here(m, ns, user))
			continue;
		if (!is_open || !is_known || ++seen > OFFLINE_USERS_MAX ||
		    e->payload.len > OFFLINE_MESSAGE_MAX) {
			lost(m, 1);
			continue;
		}
		b.user[b.n++] = user;
		if (b.n < OFFLINE_BATCH)
			continue;
		if (send_batch(m, ns, &b, e->payload, node, n_nodes) == -1)
			lost(m, b.n);
		b.n = 0;
	}
	if (b.n > 0 && send_batch(m, ns, &b, e->payload, node, n_nodes) == -1)
		lost(m, b.n);
}
