/* master.h - the master process: what its rooms share. Nobody outside of master/ includes it.
 *
 *    main.c        start and end
 *    start.c       pid file, shared segments, ids of namespaces
 *    loop.c        the turn of the loop
 *    listen.c      listening sockets
 *    spawn.c       fork, and what the child does before worker_main()
 *    supervise.c   the life of worker processes: slots, posts, deaths, stuck ones
 *    reload.c      HUP: a new generation beside the old one
 *    signals.c     signals to actions
 *    notify.c      what the service manager is told
 *    interest.c    the channel table
 *    sequencer.c   commit to the ring, gates, wake-ups
 *    drain.c       uplinks to actions
 *    reached.c     how many a publication reached
 *    relay.c       between Redis and the sequencer: publications, answers
 *    subscribe.c   interest of the workers, subscriptions in Redis
 *    ask.c         what workers ask for
 *    presence*.c   who is online, here and on the other replicas
 *    nodes.c       what the replicas know of each other
 *    sketch.c kmv.c how many users all replicas have together
 *    control.c     orders to all workers of all replicas
 *    survey.c      questions to all workers
 *    delivered.c   how many have taken a message that its publisher named
 *    crowd.c       how many users a namespace has
 *    admit*.c      limits by user and address
 *    status.c      what the workers show about the master
 *    redis*.c      the Redis links
 *    store.c       what Redis keeps for clients: values, receipts, messages for who is away
 *    retained.c    the last message of each channel
 *
 * One thread, one libev loop, nothing blocks. A turn of the loop:
 *
 *      I/O and timers -> drain the uplinks (prepare, first) -> Redis' output (prepare, last but one)
 *                     -> wake workers, nap, look at the uplinks once more (prepare, last) -> block
 */
#ifndef RC_MASTER_H
#define RC_MASTER_H

#include <ev.h>

#include "common/buf.h"
#include "common/config.h"
#include "master/cli.h"
#include "master/listen.h"
#include "master/redis.h"
#include "master/sequencer.h"
#include "master/throttle.h"
#include "shm/boot.h"
#include "shm/counters.h"
#include "shm/globals.h"

/* A message on its way up in chunks. */
struct assembly {
	struct buf payload;
	uint64_t total;    /* what it will have; reserved in master.assembly_bytes. 0 = none under way */
	uint64_t quiet_ms; /* since when its uplink has been empty, 0 = not */
	uint16_t ns;
	uint8_t opcode, source, room_len;
	uint16_t flags; /* enum up_flag */
	uint32_t request;
	char room[CFG_ROOM_MAX];
};

enum child_kill {
	KILL_NONE,   /* nobody here did it */
	KILL_STUCK,  /* its heartbeat stood still */
	KILL_HOLD,   /* it alone kept the ring full */
	KILL_BROKEN, /* it broke the rules of shared memory */
	KILL_BOOT,   /* no HELLO in time */
	KILL_DRAIN,  /* not gone in time after REC_DRAIN */
	KILL_STOP,   /* the second TERM; a reload that failed */
};

/* One worker process, or the remains of one. The state machine is drawn in supervise.h. */
struct child {
	enum worker_state state;
	pid_t pid; /* 0: dead; its uplinks may still hold something */
	uint16_t slot;
	uint8_t reader; /* sequencer.h; meaningless once dead */
	unsigned position;
	uint32_t incarnation;
	struct generation *generation;
	struct slot seg;
	int wake_fd;

	uint16_t presence_reader;   /* presence.c: its number there + 1; 0 = none */
	struct admit_reader *admit; /* admit.c; NULL: nothing is counted for it */

	uint64_t control_pos, data_pos; /* read so far */
	struct assembly assembly;
	bool is_blocked; /* its next publication waits for memory of others' assemblies */

	enum child_kill kill;
	uint64_t born_ms, hello_ms, deadline_ms; /* deadline: of BOOT and DRAIN, 0 = none */
	uint64_t heartbeat;
	uint32_t quiet_ms; /* how long the heartbeat has been standing, in ticks of the master */
	uint32_t hold_ms;  /* how long it has kept others waiting */
};

/* One worker position of a generation. */
struct post {
	struct child *child; /* NULL: vacant */
	uint32_t backoff_ms; /* of the next failure */
	uint64_t due_ms;     /* vacant: when to try again */
};

/* The workers of one configuration. */
struct generation {
	uint32_t number;
	struct config *config; /* owned */
	struct post *posts;    /* config->workers */
	unsigned n_children;   /* processes and remains */
	bool is_ready;         /* all have said HELLO once */
};

enum master_phase {
	MASTER_SERVE,
	MASTER_QUIT, /* waiting for the clients to leave */
	MASTER_STOP, /* closing them */
};

enum reload_phase {
	RELOAD_NONE,
	RELOAD_BOOT,  /* the next generation starts */
	RELOAD_DRAIN, /* the old one leaves */
};

struct subscribe_timer {
	struct interest_entry *entry;
	uint64_t due_ms;
};

/* First in, first due. */
struct subscribe_queue {
	struct subscribe_timer *v;
	size_t cap, at, n; /* a ring of cap (a power of two) */
};

struct master {
	struct ev_loop *loop;
	const struct cli *cli;
	enum master_phase phase;
	int exit_status;
	bool is_paused;  /* WINCH */
	bool is_hurried; /* the second TERM: nothing is waited for any more */

	/* Shared memory. */
	int ring_fd, globals_fd; /* read-only, for workers */
	int counters_fd;
	struct globals *globals;
	struct counters *count;    /* the master's block */
	int wake_fd;               /* workers write it */
	int life_read, life_write; /* the pipe whose end tells workers that the master is gone */

	struct listen_set listeners;
	struct child child[SLOT_MAX]; /* by slot */
	uint16_t active[SLOT_MAX];    /* slots that are not EMPTY */
	unsigned n_active;
	struct generation *generation, *next, *old;
	uint32_t generations, incarnations;
	enum reload_phase reload;
	bool reload_again; /* a HUP came meanwhile */
	uint64_t reload_due_ms;

	struct sequencer seq;
	struct envelope inbound;  /* json: what a worker publishes, as it was read */
	struct buf unsigned_text; /* ... and the text without the keys that are ours alone */
	uint64_t assembly_bytes;  /* of all unfinished messages */
	struct throttle throttle; /* of rules */
	unsigned drain_turn;      /* round robin over slots */
	uint64_t swept;           /* interest.created when last swept */
	uint64_t ring_full_logged_ms;
	uint64_t memory_ms; /* when the allocator was asked last */

	struct redis *redis;        /* NULL: local mode */
	struct redis_cmd *cmd;      /* the command link; NULL: local mode */
	struct store *store;        /* store.h */
	struct relay_table *relay;  /* relay.c: who listens to what; NULL: nobody yet */
	struct cfg_redis redis_cfg; /* what it borrows: the first configuration's, copied */
	struct interest_entry *family[CFG_MAX_NAMESPACES]; /* subscriptions of family channels */
	bool was_subscribed[CFG_MAX_NAMESPACES];           /* confirmed at least once */
	bool was_synced;                                   /* the subscriber link has been up */
	bool is_redis_full;                                /* the pending list is full: no data is drained */
	uint64_t redis_down_ms; /* since when the subscriber link is down; 0 = up */
	struct subscribe_queue waits, lingers;
	struct presence *presence;
	struct nodes *nodes;
	struct surveys *surveys;
	struct reached *reached;
	struct delivered *delivered; /* NULL until a publisher names a message */
	struct admit_table *admit;

	char *pid_file;            /* NULL: none written */
	int pid_fd;                /* locked while we live */
	uint64_t tick_ms, full_ms; /* when these timers fired last */
	bool has_more;             /* drain_turn() was not done */

	ev_io wake_io;
	ev_prepare prepare_drain, prepare_sleep;
	ev_check check;
	ev_idle idle;
	ev_timer tick, full_timer, respawn_timer, subscribe_timer;
	ev_signal signals[8];
};

/* loop.c: leave the loop with this exit status. */
void master_exit(struct master *m, int status);

/* loop.c: the watchers of the picture above. master_watch() before the Redis links are made: of two prepare
 * watchers with the same priority libev runs the one that was started later first. */
void master_watch(struct master *m);
void master_unwatch(struct master *m);

/* start.c: lay out ring, counters, globals, the life pipe. 0, or -1 with a line in `error`. */
int start_segments(struct master *m, const struct config *c, struct buf *error) MUST_CHECK;
void start_free_segments(struct master *m);

/* start.c: names of namespaces get an id for the life of the master. 0, or -1: more than CFG_MAX_NAMESPACES
 * of them. */
int start_register_namespaces(struct master *m, struct config *c) MUST_CHECK;

/* start.c: write the pid file, refusing if a living master holds it. 0, or -1 with a line in `error`. */
int start_pid_file(struct master *m, const char *path, struct buf *error) MUST_CHECK;
void start_remove_pid_file(struct master *m);

#endif
