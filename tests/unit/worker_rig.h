/* worker_rig.h - one real worker in this process, with real segments and a ring; the test plays the master
 * and turns the worker's loop by hand, under a clock of its own.
 *
 *    client end <--- socketpair ---> worker <--- ring ---- rig (master)
 *                                           ---- uplinks -->
 *
 * Sockets are unix stream pairs with a small send buffer on the worker's side, so that what "full" means does
 * not depend on timing. Nothing sleeps; a test that waits for something turns the loop until it has come, at
 * most RIG_TURNS times.
 */
#ifndef RC_WORKER_RIG_H
#define RC_WORKER_RIG_H

#include "worker/worker.h"

#define RIG_TURNS    100000
#define RIG_CHANNELS 4096
#define RIG_LISTENS  1

/* Namespaces of the rig's configuration, by index; ids are index + 3, so that a mix-up shows. */
enum { RIG_DEMO, RIG_SKIP, RIG_ECHO, RIG_FAMILY, RIG_READONLY, RIG_NAMESPACES };

struct rig_channel {
	uint16_t ns; /* index */
	char room[CFG_ROOM_MAX];
	size_t room_len;
	uint64_t last, seq;
	bool is_wanted; /* UP_ADD without UP_DROP */
	unsigned adds, drops;
};

struct rig_frame {
	uint8_t opcode;
	const uint8_t *payload; /* in the client's buffer: valid until the next rig_read() */
	size_t len;
};

struct rig_client {
	int fd;
	struct buf in;
	size_t used; /* of `in`, frames already given out */
	bool is_eof, is_reset;
	uint16_t close_code; /* of a Close that came; 0 = none */
	uint32_t index, gen; /* of the worker's connection, as it was made */
};

struct rig {
	struct config config;
	struct cfg_namespace namespaces[RIG_NAMESPACES];
	struct cfg_listener listens[RIG_LISTENS], admins[1];
	int listen_fds[RIG_LISTENS], admin_fds[1];
	uint16_t listen_port, admin_port;

	struct worker_boot boot;
	struct worker *w;
	uint64_t now_ms; /* the worker's clock */

	/* the master's side */
	struct ring ring;
	struct slot slot;
	struct globals *globals;
	struct counters *blocks[2]; /* slots 0 and 1, writable */
	int fds[6];                 /* counters, globals, wake, master wake, pipe read, pipe write */
	uint64_t control_pos, data_pos;
	struct rig_channel *channels; /* RIG_CHANNELS */
	size_t n_channels;
	unsigned hellos, drained;
	bool hold_control;         /* do not look at the control uplink: nobody is subscribed */
	bool hold_data;            /* do not look at the data uplink: it fills up */
	size_t data_records;       /* at most so many records of the data uplink a turn; 0 = all */
	unsigned publications;     /* taken from the data uplink */
	struct up_rec publication; /* the header of the last of them */
	uint8_t *assembly;
	struct up_rec assembly_first;
	char assembly_room[CFG_ROOM_MAX];
	size_t assembly_len;
	unsigned abandoned; /* unfinished ones that a new one ended */
	/* Called for each publication that comes up the data uplink, before it is committed. */
	void (*on_publish)(struct rig *r, struct rig_channel *ch, uint8_t opcode, struct slice payload);
	/* Called for each question (UP_REQUEST); without it nobody answers. */
	void (*on_request)(struct rig *r, const struct up_view *v);
	unsigned requests;
	void *arg;
	/* Called for each record of the control uplink, before the rig acts on it. */
	void (*on_control)(struct rig *r, const struct up_view *v);
	uint16_t rec_flags; /* of all publications, besides */
	bool auto_answer;   /* REC_ANSWER to requests that want one */
};

/* Defaults, which the test may change before rig_start(): ring 1 MiB, uplink 256 KiB, no timeouts at all. */
void rig_init(struct rig *r);
void rig_start(struct rig *r);
void rig_stop(struct rig *r);

/* ---- the master */

struct rig_channel *rig_channel(struct rig *r, unsigned ns, const char *room);
/* Is there room for a record of that size? */
bool rig_has_space(const struct rig *r, size_t room_len, size_t payload_len);
/* Commit a publication; fails the test when it does not fit. Returns its position. */
uint64_t rig_publish(struct rig *r, struct rig_channel *ch, const void *p, size_t len);
/* Its publisher asks how many it reaches (rec.arg[1]). */
uint64_t rig_publish_counted(struct rig *r, struct rig_channel *ch, const void *p, size_t len,
			     uint64_t matched);
uint64_t rig_publish_binary(struct rig *r, struct rig_channel *ch, const void *p, size_t len);
/* A targeted one, in the namespace's own channel. users, groups: names, NULL behind the last; either may be
 * NULL. `matched`: the publisher asks how many (rec.arg[1]); 0 = it does not. */
uint64_t rig_publish_to(struct rig *r, unsigned ns, uint8_t opcode, const char *const *users,
			const char *const *groups, const void *p, size_t len, uint64_t matched);
/* The block of such a record, into `out`. */
void rig_targets(struct rig *r, unsigned ns, const char *const *users, const char *const *groups,
		 struct buf *out);
/* A control record for this worker. */
void rig_control(struct rig *r, const struct rec *h, struct slice room);
void rig_control_payload(struct rig *r, const struct rec *h, struct slice room, struct slice payload);
/* The answer to a question. */
void rig_reply(struct rig *r, uint32_t request, enum rec_reply reply, const char *text);
/* Take what came up. Returns true if there was something. */
bool rig_uplinks(struct rig *r);

/* ---- the worker's loop */

/* One turn: uplinks, records, clients. Returns true if something happened. */
bool rig_turn(struct rig *r);
/* Turns until nothing happens any more. */
void rig_settle(struct rig *r);
/* Let time pass: ticks of 50 ms, with a turn after each. */
void rig_pass(struct rig *r, uint64_t ms);

/* ---- clients */

/* From now on the open connection's identity has this session tag and info, as if a recheck had said so. */
void rig_tell(struct rig *r, struct rig_client *c, struct slice tag, struct slice info);

/* A connected pair whose worker end is in the worker, nothing sent yet. send_buffer: SO_SNDBUF of that end, 0
 * = default. */
void rig_dial(struct rig *r, struct rig_client *c, int send_buffer);
/* The request for `path`, as it goes over the wire. */
void rig_request(struct rig_client *c, const char *path);
/* rig_dial(), request, and the 101 has come. */
void rig_connect(struct rig *r, struct rig_client *c, const char *path, int send_buffer);
/* Between rig_dial() and rig_request(): who it will be found to be. groups: NULL behind the last, or NULL. */
void rig_identify(struct rig *r, struct rig_client *c, const char *user, const char *const *groups);
/* rig_connect() with an identity. */
void rig_connect_as(struct rig *r, struct rig_client *c, const char *path, int send_buffer, const char *user,
		    const char *const *groups);
/* Read what is there, up to `max` bytes (0: all). Returns the number of bytes. */
size_t rig_read(struct rig_client *c, size_t max);
/* Take the 101 off the input; false: not complete yet. Fails the test if it is another answer. */
bool rig_take_101(struct rig_client *c);
/* The next frame of what was read; false: none complete. Close frames set close_code too. */
bool rig_frame(struct rig_client *c, struct rig_frame *f);
/* Bytes of an unfinished frame in the input. */
size_t rig_rest(const struct rig_client *c);
/* A masked frame to the worker; the test's own end takes it or the test fails. */
void rig_send(struct rig_client *c, uint8_t opcode, const void *p, size_t len);
void rig_send_close(struct rig_client *c, uint16_t code);
void rig_hang_up(struct rig_client *c);
/* The worker's connection; NULL if it is gone. */
struct conn *rig_conn(struct rig *r, const struct rig_client *c);

/* Settle and expect: a frame with just this payload; no frame; a Close with this code and then the end. */
void rig_expect(struct rig *r, struct rig_client *c, const char *payload);
void rig_expect_nothing(struct rig *r, struct rig_client *c);
void rig_expect_close(struct rig *r, struct rig_client *c, uint16_t code);

/* ---- the admin listener: its watchers are libev's, under the real clock */

/* A connected admin client. */
int rig_admin(struct rig *r);
/* One turn of the libev loop, then of everything else. */
void rig_admin_turn(struct rig *r);
void rig_admin_send(struct rig *r, int fd, const void *p, size_t len);
/* Turn until one whole answer (by its Content-Length) or the end has come; the text, NUL-terminated, into
 * `dst`. Returns its length, 0 if the end came first. */
size_t rig_admin_answer(struct rig *r, int fd, char *dst, size_t size);

#define RIG_COUNT(r, field)        count_get(&(r)->w->count->field)
#define RIG_NS(r, ns_index, field) count_get(&(r)->w->count->ns[(ns_index) + 3].field)

/* Every link, list and counter of the worker's connections and channels agrees with every other; fails the
 * test if not. */
void rig_check(const struct rig *r);

#endif
