/* redis_rig.h - what test_redis.c stands on: a real redis-server, a proxy that can go silent, a server that
 * says what it is told to, and a stand-in for the sequencer that remembers all it was given. One loop runs it
 * all. */
#ifndef RC_REDIS_RIG_H
#define RC_REDIS_RIG_H

#include <ev.h>
#include <hiredis/hiredis.h>

#include "common/base.h"
#include "common/config.h"
#include "master/redis.h"

#define RIG_NS_ID 7

/* ---- the world ---- */

struct rig {
	struct ev_loop *loop;
	ev_timer tick; /* so that waiting looks at its condition now and then */
	char dir[64];  /* temporary, with sockets, certificates and the log */
	char sock[96]; /* the real server's unix socket */
	pid_t pid;     /* of the real server; 0: none runs */
};

void rig_open(struct rig *g);
void rig_close(struct rig *g);

/* Run the loop until `cond` holds, or fail the test after `ms`. */
#define RIG_WAIT(g, cond, ms)                                                                                \
	do {                                                                                                 \
		uint64_t until_ = clock_mono_ms() + (ms);                                                    \
		while (!(cond)) {                                                                            \
			if (clock_mono_ms() > until_)                                                        \
				rig_give_up(__FILE__, __LINE__, #cond);                                      \
			ev_run((g)->loop, EVRUN_ONCE);                                                       \
		}                                                                                            \
	} while (0)
void rig_give_up(const char *file, int line, const char *cond);

/* Run the loop for a while, for what must NOT happen. */
void rig_run(struct rig *g, unsigned ms);

/* The real server, on a unix socket, with further arguments (NULL-terminated, or NULL). Waits until it
 * answers. */
void rig_redis_start(struct rig *g, const char *const *args);
void rig_redis_kill(struct rig *g); /* SIGKILL, reaped */
void rig_run_program(const char *const *argv);
uint16_t rig_free_port(void);

/* One command to the real server; the reply is checked not to be an error, and freed. Returns its integer. */
long long rig_command(struct rig *g, const char *fmt, ...);
void rig_publish(struct rig *g, const char *channel, const void *p, size_t len);

/* ---- a node: one redis object and its "sequencer" ---- */

struct rig_message {
	uint64_t origin, id, hash;
	size_t len;
	char head[32]; /* NUL-terminated beginning of the payload; json: of what clients get */
	char room[16];
	uint8_t opcode;
	bool local, is_read; /* is_read: with an envelope */
	uint32_t request;
	struct redis_sub *sub;
};

struct rig_node {
	struct rig *g;
	struct redis *r;
	struct cfg_redis cfg;
	struct cfg_namespace ns;
	uint64_t origin;
	struct rig_message *got;
	size_t n_got, cap_got;
	long room; /* publications that the "ring" still takes; -1: no limit */
	unsigned refused, subscribed, gaps, ups, downs, rooms;
	unsigned acked, acked_bad;
	uint32_t last_acked;
	bool up, flood; /* flood: do not remember, only count */
	uint64_t n_flood;
	void (*on_message)(struct rig_node *n); /* called from on_publication after remembering */
	void (*on_refused)(struct rig_node *n); /* ... and before refusing */
	void (*on_internal)(void *arg, struct slice channel, struct slice payload);
};

/* Nodes speak in a json namespace: what rig_say() says is wrapped in an object, and what clients get of it unwrapped. So a
 * test of messages need not know which it is. */
extern bool rig_is_json;

/* Times that suit tests; the caller may change cfg before rig_node_open(). */
void rig_node_init(struct rig_node *n, struct rig *g, uint64_t origin);
void rig_node_tcp(struct rig_node *n, const char *host, uint16_t port);
void rig_node_open(struct rig_node *n);
void rig_node_close(struct rig_node *n);
void rig_node_forget(struct rig_node *n);

struct redis_sub *rig_subscribe(struct rig_node *n, const char *channel);
enum redis_result rig_say(struct rig_node *n, const char *channel, struct redis_sub *sub, const char *text,
			  uint32_t request);
struct redis_stats rig_stats_of(struct rig_node *n);

/* Messages of that origin which were received; each must carry "<tag><k>" with k counting from 0 without a
 * hole. */
size_t rig_count(const struct rig_node *n, uint64_t origin);
void rig_check_run(const struct rig_node *n, uint64_t origin, const char *tag, size_t expect);

/* ---- a proxy before the real server ---- */

struct rig_pipe {
	struct rig_proxy *x;
	int fd[2];
	ev_io io[2];
	struct rig_pipe *next;
};

struct rig_proxy {
	struct rig *g;
	int fd;
	uint16_t port;
	ev_io io;
	bool silent; /* takes no byte any more; TCP stays open */
	struct rig_pipe *pipes;
};

void rig_proxy_open(struct rig_proxy *x, struct rig *g);
void rig_proxy_silence(struct rig_proxy *x, bool silent);
void rig_proxy_close(struct rig_proxy *x);

/* ---- a server that follows a script ---- */

struct rig_fake_conn {
	struct rig_fake *f;
	int fd;
	ev_io io;
	redisReader *reader;
	bool subscriber;
	struct rig_fake_conn *next;
};

struct rig_fake {
	struct rig *g;
	int fd;
	char path[96];
	uint16_t port; /* rig_fake_open_tcp() */
	ev_io io;
	struct rig_fake_conn *conns;
	unsigned accepted;
	/* Called for each command before the usual answer; true = it was dealt with. */
	bool (*script)(struct rig_fake_conn *c, size_t argc, redisReply **argv);
	unsigned step;
};

void rig_fake_open(struct rig_fake *f, struct rig *g);
void rig_fake_open_tcp(struct rig_fake *f, struct rig *g);
void rig_fake_close(struct rig_fake *f);
void rig_fake_send(struct rig_fake_conn *c, const void *p, size_t len);
void rig_fake_says(struct rig_fake_conn *c, const char *text);
struct rig_fake_conn *rig_fake_subscriber(struct rig_fake *f);
bool rig_is(redisReply *arg, const char *word);

#endif
