/* redis_cmd.h - a third link to Redis, for commands that are no publications: presence, retained values,
 * receipts.
 *
 * Master process only, on its loop; never blocks. Answers are hiredis' reply trees: this is no path of
 * messages. Commands are sent in order and answered in order; nothing is queued while the link is down,
 * nothing is sent twice.
 *
 * The link is one of redis_link.h, with its backoff and its PING. Bounds: 16 MiB of output wait, 65,536
 * commands are under way, a reply has 16 MiB (its elements counted with 64 bytes each): one that is larger
 * ends the link. The errors LOADING, NOAUTH, READONLY, MASTERDOWN and WRONGPASS end it too; any other is an
 * answer.
 *
 * Inside a callback every function below may be called but redis_cmd_free().
 */
#ifndef RC_REDIS_CMD_H
#define RC_REDIS_CMD_H

#include <ev.h>
#include <hiredis/hiredis.h>

#include "common/base.h"
#include "common/config.h"

struct redis_cmd;

/* `reply` is borrowed for the call; NULL: the link was lost before it came (whether Redis has executed the
 * command is not known). A reply may be of type REDIS_REPLY_ERROR. */
typedef void redis_cmd_fn(void *arg, const redisReply *reply);

struct redis_cmd_events {
	void *arg;
	void (*open)(void *arg); /* commands are taken from now on; whatever Redis should hold for us may be
				    gone */
	void (*lost)(void *arg);
};

struct redis_cmd *redis_cmd_new(struct ev_loop *loop, const struct cfg_redis *cfg,
				const struct redis_cmd_events *ev) MUST_CHECK;
/* Calls back what is under way with NULL; what was queued is written as far as the socket takes it. NULL is
 * fine. */
void redis_cmd_free(struct redis_cmd *c);
bool redis_cmd_is_open(const struct redis_cmd *c);

/* Send a command. fn NULL: nobody wants the answer. Returns 0, or -1: not open (ENOTCONN), no memory
 * (ENOMEM), or too much is under way (EAGAIN); fn is then not called. The arguments are copied. */
int redis_cmd_call(struct redis_cmd *c, size_t argc, const struct slice *argv, redis_cmd_fn *fn,
		   void *arg) MUST_CHECK;

/* PUBLISH as it is, to whoever has redis_listen()ed to it: best effort, lost without a word while the link is
 * down. */
void redis_tell(struct redis_cmd *c, const char *channel, struct slice payload);

/* Sentinel named the master (redis.h, on_master). */
void redis_cmd_follow(struct redis_cmd *c, const char *host, uint16_t port);

struct redis_cmd_stats {
	bool is_open;
	uint64_t reconnects;
	uint64_t under_way; /* commands without an answer yet */
	uint64_t refused;   /* by redis_cmd_call(), while open */
};
void redis_cmd_get_stats(const struct redis_cmd *c, struct redis_cmd_stats *out);

#endif
