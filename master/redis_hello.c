#include "master/redis_hello.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

enum redis_hello_step { STEP_AUTH, STEP_SELECT, STEP_PING };

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

static int put_step(struct redis_hello *h, struct buf *out, uint8_t step, int argc, const char **argv)
{
	char *cmd = NULL;
	int len = redisFormatCommandArgv(&cmd, argc, argv, NULL), rc;

	if (len < 0)
		return -1;
	rc = buf_put(out, cmd, (size_t)len);
	explicit_bzero(cmd, (size_t)len);
	redisFreeCommand(cmd);
	h->step[h->n++] = step;
	return rc;
}

static bool is_set(const char *s)
{
	return s != NULL && s[0] != '\0';
}

int redis_hello_put(struct redis_hello *h, const struct cfg_redis *cfg, struct buf *out)
{
	const char *auth[3] = {"AUTH"}, *select_db[2] = {"SELECT"}, *ping[1] = {"PING"};
	char db[12];
	int argc = 1;

	*h = (struct redis_hello){0};
	if (is_set(cfg->password)) {
		if (is_set(cfg->user))
			auth[argc++] = cfg->user;
		auth[argc++] = cfg->password;
		if (put_step(h, out, STEP_AUTH, argc, auth) == -1)
			return -1;
	}
	if (cfg->db != 0) {
		snprintf(db, sizeof(db), "%u", cfg->db);
		select_db[1] = db;
		if (put_step(h, out, STEP_SELECT, 2, select_db) == -1)
			return -1;
	}
	return put_step(h, out, STEP_PING, 1, ping);
}

void redis_hello_wipe(struct buf *out)
{
	if (out->p != NULL)
		explicit_bzero(out->p, out->cap);
}

enum redis_hello_result redis_hello_answer(struct redis_hello *h, int type, const char *p, size_t len,
					   struct redis_word *word)
{
	struct log_quoted q;
	uint8_t step;

	if (h->at >= h->n)
		return HELLO_NONSENSE;
	step = h->step[h->at++];
	if (type == REDIS_REPLY_ERROR) {
		redis_word_take(word, p, len);
		/* A user that may only publish and subscribe has no SELECT, and does not need it. */
		if (step != STEP_SELECT)
			return HELLO_REFUSED;
		log_event(LOG_WARN, "redis_select",
			  "reason=%s msg=\"Redis refused SELECT; publishing works without\"",
			  log_quote(&q, word->s, strlen(word->s)));
	} else if (type != REDIS_REPLY_STATUS) {
		return HELLO_NONSENSE;
	}
	return h->at == h->n ? HELLO_DONE : HELLO_MORE;
}
