#include "master/redis_hello.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

enum redis_hello_step { STEP_AUTH, STEP_SELECT, STEP_ROLE, STEP_CLUSTER, STEP_PING };

#define INFO_CLUSTER "*2\r\n$4\r\nINFO\r\n$7\r\ncluster\r\n"

void redis_word_take(struct redis_word *w, const char *p, size_t len)
{
	size_t n = 0;

	while (n < len && n < sizeof(w->s) - 1 && p[n] > ' ' && p[n] < 0x7f)
		n++;
	memcpy(w->s, p, n);
	w->s[n] = '\0';
}

static bool is_one_of(const struct redis_word *w, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(w->s, words[i]) == 0)
			return true;
	return false;
}

bool redis_word_denies_link(const struct redis_word *w)
{
	static const char *const words[] = {"LOADING", "NOAUTH", "READONLY", "MASTERDOWN", "WRONGPASS"};

	return is_one_of(w, words, ARRAY_LEN(words));
}

bool redis_word_denies_service(const struct redis_word *w)
{
	static const char *const words[] = {"BUSY", "CLUSTERDOWN", "TRYAGAIN", "MOVED"};

	return redis_word_denies_link(w) || is_one_of(w, words, ARRAY_LEN(words));
}

static int put_command(struct buf *out, int argc, const char **argv)
{
	char *cmd = NULL;
	int len = redisFormatCommandArgv(&cmd, argc, argv, NULL), rc;

	if (len < 0)
		return -1;
	rc = buf_put(out, cmd, (size_t)len);
	explicit_bzero(cmd, (size_t)len);
	redisFreeCommand(cmd);
	return rc;
}

static bool is_set(const char *s)
{
	return s != NULL && s[0] != '\0';
}

int redis_hello_put_auth(const struct cfg_redis *cfg, struct buf *out)
{
	const char *auth[3] = {"AUTH"};
	int argc = 1;

	if (!is_set(cfg->password))
		return 0;
	if (is_set(cfg->user))
		auth[argc++] = cfg->user;
	auth[argc++] = cfg->password;
	return put_command(out, argc, auth) == -1 ? -1 : 1;
}

static int put_select(const struct cfg_redis *cfg, struct buf *out)
{
	const char *select_db[2] = {"SELECT"};
	char db[12];

	snprintf(db, sizeof(db), "%u", cfg->db);
	select_db[1] = db;
	return put_command(out, 2, select_db);
}

int redis_hello_put(struct redis_hello *h, const struct cfg_redis *cfg, bool is_sentinel, struct buf *out)
{
	const char *ping[1] = {"PING"};
	int auth = redis_hello_put_auth(cfg, out);

	*h = (struct redis_hello){.is_sentinel = is_sentinel};
	if (auth == -1)
		return -1;
	if (auth > 0)
		h->step[h->n++] = STEP_AUTH;
	if (cfg->db != 0 && !is_sentinel) {
		h->step[h->n++] = STEP_SELECT;
		if (put_select(cfg, out) == -1)
			return -1;
	}
	if (!is_sentinel) {
		h->step[h->n++] = STEP_ROLE;
		h->step[h->n++] = STEP_CLUSTER;
		if (buf_puts(out, REDIS_INFO_ROLE INFO_CLUSTER) == -1)
			return -1;
	}
	h->step[h->n++] = STEP_PING;
	return put_command(out, 1, ping);
}

void redis_hello_wipe(struct buf *out)
{
	if (out->p != NULL)
		explicit_bzero(out->p, out->cap);
}

static bool has_line(const char *p, size_t len, const char *line)
{
	const char *at = memmem(p, len, line, strlen(line));

	return at != NULL && (at == p || at[-1] == '\n');
}

enum redis_role redis_role_read(const char *p, size_t len)
{
	if (has_line(p, len, "role:master\r\n"))
		return REDIS_ROLE_MASTER;
	return has_line(p, len, "role:slave\r\n") ? REDIS_ROLE_REPLICA : REDIS_ROLE_UNKNOWN;
}

static void take_info(struct redis_hello *h, uint8_t step, int type, const char *p, size_t len)
{
	if (type != REDIS_REPLY_STRING)
		return;
	if (step == STEP_ROLE)
		h->role = redis_role_read(p, len);
	else
		h->is_cluster = has_line(p, len, "cluster_enabled:1\r\n");
}

/* Errors that are none of ours. True: go on. */
static bool is_bearable(const struct redis_hello *h, uint8_t step, const struct redis_word *word)
{
	struct log_quoted q;

	/* A user that may only publish and subscribe has neither, and does not need them. */
	if (step == STEP_SELECT)
		log_event(LOG_WARN, "redis_select",
			  "reason=%s msg=\"Redis refused SELECT; publishing works without\"",
			  log_quote(&q, word->s, strlen(word->s)));
	if (step == STEP_ROLE && strcmp(word->s, "NOPERM") == 0)
		log_event(LOG_WARN, "redis_role",
			  "reason=%s msg=\"Redis refused INFO; whether it is a replica can't be seen\"",
			  log_quote(&q, word->s, strlen(word->s)));
	/* What else is the matter PING says. */
	return step == STEP_SELECT || step == STEP_ROLE || step == STEP_CLUSTER ||
	       (step == STEP_AUTH && h->is_sentinel);
}

enum redis_hello_result redis_hello_answer(struct redis_hello *h, int type, const char *p, size_t len,
					   struct redis_word *word)
{
	uint8_t step;

	if (h->at >= h->n)
		return HELLO_NONSENSE;
	step = h->step[h->at++];
	if (type == REDIS_REPLY_ERROR) {
		redis_word_take(word, p, len);
		if (!is_bearable(h, step, word))
			return HELLO_REFUSED;
	} else if (step == STEP_ROLE || step == STEP_CLUSTER) {
		take_info(h, step, type, p, len);
	} else if (type != REDIS_REPLY_STATUS) {
		return HELLO_NONSENSE;
	}
	if (h->at < h->n)
		return HELLO_MORE;
	return h->role == REDIS_ROLE_REPLICA && !h->is_cluster ? HELLO_REPLICA : HELLO_DONE;
}
