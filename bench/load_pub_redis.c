/* load_pub_redis.c - publish by PUBLISH, pipelined: one write and one read of the replies for each batch. */
#include "bench/load_pub.h"
#include "bench/load_text.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#define PIPE_BYTES (1u << 20) /* flushed when so much waits: hiredis holds it all in one string */

struct redis_state {
	redisContext *ctx;
	uint32_t waiting;
	size_t bytes;
};

static redisContext *dial(const char *addr)
{
	const struct timeval tv = {.tv_sec = PUB_IO_MS / 1000};
	const char *colon = strrchr(addr, ':');
	char host[64];

	if (strncmp(addr, "unix:", 5) == 0)
		return redisConnectUnixWithTimeout(addr + 5, tv);
	if (!colon || (size_t)(colon - addr) >= sizeof(host))
		return NULL;
	memcpy(host, addr, (size_t)(colon - addr));
	host[colon - addr] = '\0';
	return redisConnectWithTimeout(host, (int)strtol(colon + 1, NULL, 10), tv);
}

static int redis_open(struct pub *p)
{
	const struct timeval tv = {.tv_sec = PUB_IO_MS / 1000};
	struct redis_state *s = calloc(1, sizeof(*s));

	p->state = s;
	if (!s)
		return pub_fail(p, "out of memory");
	s->ctx = dial(p->o->redis);
	if (!s->ctx || s->ctx->err)
		return pub_fail(p, "redis %s: %s", p->o->redis, s->ctx ? s->ctx->errstr : "bad address");
	if (redisSetTimeout(s->ctx, tv) != REDIS_OK)
		return pub_fail(p, "redis: timeout not set");
	return 0;
}

static int redis_flush(struct pub *p)
{
	struct redis_state *s = p->state;

	for (; s->waiting > 0; s->waiting--) {
		redisReply *reply = NULL;

		if (redisGetReply(s->ctx, (void **)&reply) != REDIS_OK)
			return pub_fail(p, "redis: %s", s->ctx->errstr);
		if (reply->type == REDIS_REPLY_INTEGER)
			p->ps->nobody += reply->integer == 0;
		else
			pub_fail(p, "redis: %.*s", (int)reply->len, reply->str ? reply->str : "odd reply");
		freeReplyObject(reply);
	}
	s->bytes = 0;
	return 0;
}

static int redis_send(struct pub *p, uint32_t channel, const uint8_t *payload, size_t len)
{
	struct redis_state *s = p->state;
	char name[512];
	const char *argv[3] = {"PUBLISH", name, (const char *)payload};
	size_t lens[3] = {
		7, load_expand(name, sizeof(name), p->o->channel, channel, pub_conn_number(p, channel)), len};

	if (lens[1] == 0)
		return pub_fail(p, "channel name too long");
	if (redisAppendCommandArgv(s->ctx, 3, argv, lens) != REDIS_OK)
		return pub_fail(p, "redis: %s", s->ctx->errstr);
	s->waiting++;
	s->bytes += len;
	return s->bytes > PIPE_BYTES ? redis_flush(p) : 0;
}

static void redis_close(struct pub *p)
{
	struct redis_state *s = p->state;

	if (s && s->ctx)
		redisFree(s->ctx);
	free(s);
}

const struct pub_way pub_redis = {redis_open, redis_send, redis_flush, NULL, redis_close};
