/* conn.h - a client connection: plain data in slab segments, named by a 32-bit index.
 *
 * An idle one is struct conn (64 bytes), its place in its channel's member array (4 bytes) and nothing else.
 * All that is unfinished lives in struct conn_ext, which comes and goes.
 *
 *            accept           upgrade read            allowed          SUBSCRIBED
 *      FREE --------> HANDSHAKE ----------> AUTHORIZING -------> JOINING ------------> OPEN
 *        ^                | refused, 408        | refused           | peer gone         | Close from the
 * peer, |                v                     v                   v                   v or one of ours
 *        +----------------+<--------------------+<------------------+<---------------- CLOSING
 *
 *   HANDSHAKE    bounded by handshake_timeout (from accept, no byte resets it)
 *   AUTHORIZING  the hook has been asked (admission.h); bounded by handshake_timeout. Refused: ended as in
 * HANDSHAKE, or (accept-then-close) 101 and Close, hence CLOSING JOINING      the 101 waits for the master's
 * REC_SUBSCRIBED; bounded by handshake_timeout OPEN       member of a channel; ping_interval / pong_timeout,
 * idle_timeout CLOSING    no member any more; a Close is on its way or answered; bounded by close_linger,
 * then RST
 *
 * Worker; one thread. Pointers are valid until the connection is freed: segments never move.
 */
#ifndef RC_CONN_H
#define RC_CONN_H

#include "common/buf.h"
#include "common/config.h"
#include "worker/address.h"
#include "worker/session.h"
#include "worker/wheel.h"

struct worker;
struct ws_in;
struct http_parser;
struct partial;
struct admission;

#define CONN_NONE         UINT32_MAX
#define CONN_SEGMENT_BITS 10u
#define CONN_SEGMENT      (1u << CONN_SEGMENT_BITS)
#define CONN_SEGMENTS_MAX 1024u /* a million connections a worker */

enum conn_state { CONN_FREE, CONN_HANDSHAKE, CONN_AUTHORIZING, CONN_JOINING, CONN_OPEN, CONN_CLOSING };

enum conn_flag {
	CONN_BLOCKED = 1,     /* the socket does not take everything: out, or a half-sent frame, or behind.
				 EPOLLOUT is armed */
	CONN_BEHIND = 2,      /* ext->pos says where it stands; outside the channel's live members */
	CONN_PAUSED = 4,      /* not read: waits for the uplink */
	CONN_PINGED = 8,      /* a ping is out, no answer yet */
	CONN_CLOSE_SENT = 16, /* our Close is queued or sent */
	CONN_CLOSE_SEEN = 32, /* the peer's Close came, or it shut down its side */
	CONN_CLOSE_WAIT = 64, /* the peer's Close is answered when its own publications are back */
	CONN_SHUT = 128,      /* our side is shut down: only waiting for the peer's FIN */
	CONN_MATCHED = 256,   /* fanout.c: has targeted records in the batch under way */
	CONN_HELD = 512,      /* not read for a while: its rate (rate.h) */
	CONN_PROXY = 1024,    /* HANDSHAKE: a PROXY header comes first */
};

struct conn {
	int32_t fd;
	uint32_t gen;     /* grows at each re-use of the index: stale events and tags are recognised */
	uint32_t index;   /* its own; with gen unique in this worker process */
	uint32_t session; /* session.h: index; SESSION_NONE if it has none */
	struct conn_ext *ext;
	uint32_t channel; /* index; CONN_NONE if none */
	uint32_t member;  /* OPEN: place in the channel's member array; JOINING: next in its waiting list;
			     FREE: next free */
	struct wheel_link timer;
	uint32_t last_in;    /* ms of the worker's clock (low 32 bits) at the last byte from the peer */
	uint32_t ping_due;   /* OPEN: the same clock: when a ping is due; CONN_PINGED: when the answer is
				overdue */
	uint16_t ns;         /* index in config->namespaces */
	uint16_t in_flight;  /* own publications not seen in the ring yet */
	uint16_t flags;      /* enum conn_flag */
	uint16_t close_code; /* what our Close says or said */
	uint8_t state;
	uint8_t armed; /* what epoll reports now (conn_arm) */
};

_Static_assert(sizeof(struct conn) == 64, "conn: one cache line");

/* What a connection needs only while something is unfinished. */
struct conn_ext {
	struct ws_in *ws;            /* unfinished input (ws.h) */
	uint32_t ws_since;           /* ms when it began */
	struct http_parser *http;    /* HANDSHAKE; NULL while a PROXY header is awaited */
	struct address from;         /* HANDSHAKE: what the PROXY header said */
	struct admission *admission; /* AUTHORIZING, and JOINING before the channel is asked for */
	struct buf first;            /* JOINING: first frames that were asked for (kept.h) */
	struct buf in;               /* HANDSHAKE: the head so far. Later: bytes behind a held message */
	struct buf out;              /* control frames and replies not yet taken */
	size_t out_off;

	/* CONN_BEHIND (behind.h): the next record of its channel, and of the namespace's own channel if that
	 * is another one (0: there is none); the first of the two is sent first, of its frame `off` bytes
	 * are. */
	uint64_t pos, direct_pos;
	uint64_t
		direct_last; /* the newest targeted record that it waits for; behind that nothing is for it */
	uint64_t seq; /* of its channel's records that are not targeted, the number of the first that it lacks
		       */
	uint32_t owed; /* targeted records that it waits for */
	uint32_t off;
	bool is_direct;          /* the frame that was begun is a targeted record's */
	uint32_t took;           /* ms when the socket last took a byte */
	bool is_skipping;        /* slow = skip: after the frame under way it goes on at the newest */
	struct partial *partial; /* shared copy of, or claim on, the half-sent frame (off > 0) */
	uint32_t behind_prev, behind_next;   /* all that are behind */
	uint32_t partial_prev, partial_next; /* all inside the same frame */

	uint32_t starving_next, starving_prev; /* CONN_PAUSED */
	uint8_t pong_len;                      /* a pong that waits for the socket: the latest only */
	bool has_pong;
	bool has_idle; /* an idle frame (rules.h) is in `out` */
	uint8_t pong[125];
};

struct conn_table {
	struct conn *segment[CONN_SEGMENTS_MAX];
	uint32_t n_segments;
	uint32_t free; /* head of the free list */
	uint32_t n;    /* in use */
	uint32_t n_handshaking, n_open;
	uint32_t max; /* never more than these (fd limit) */
	int epoll;    /* the clients' own set */
};

static inline struct conn *conn_at(const struct conn_table *t, uint32_t index)
{
	return &t->segment[index >> CONN_SEGMENT_BITS][index & (CONN_SEGMENT - 1)];
}

/* Names the connection over all hosts and restarts, in hex: origin, slot, incarnation, generation and index.
 */
#define CONN_ID_SIZE 48
void conn_id(const struct worker *w, const struct conn *c, char dst[CONN_ID_SIZE]);

/* The connection of that name; NULL: not of this worker, or gone. */
struct conn *conn_by_id(struct worker *w, struct slice id);

/* Make w->conns and w->wheel; opens the epoll set. 0, or -1 with errno. */
int conn_table_init(struct worker *w, uint32_t max) MUST_CHECK;

/* After the last connection has gone. */
void conn_table_free(struct conn_table *t);

/* Take over an accepted descriptor. Its handshake deadline starts. On failure the descriptor is closed. */
struct conn *conn_open(struct worker *w, int fd);

/* The lazily made part. NULL: no memory (the caller drops the connection). */
struct conn_ext *conn_ext(struct conn *c);
/* Give it back if nothing in it is needed any more. */
void conn_ext_trim(struct conn *c);

/* What epoll shall report: computed from flags and state. Idempotent, one syscall only if it changed. */
void conn_arm(struct worker *w, struct conn *c);

/* Handshake done: OPEN, counted, timers. The caller has made it a member. */
void conn_opened(struct worker *w, struct conn *c);

/* Begin to close with `code` (one of the fixed table): leaves its channel, sends Close, lingers at most
 * close_linger. In HANDSHAKE and JOINING: the connection is dropped. Idempotent. */
void conn_close(struct worker *w, struct conn *c, uint16_t code, const char *reason);

/* Gone at once: leave everything, close the descriptor (rst: with RST), free the index. `code` is counted if
 * the connection was open and no Close of ours had been decided before (1006 = the peer vanished). */
void conn_drop(struct worker *w, struct conn *c, bool rst, uint16_t code);

/* A refused handshake: the answer is sent and our side shut down. What still comes is thrown away until the
 * peer ends too, for a second at most: input left unread would make close() send a RST that overtakes the
 * answer. */
void conn_linger(struct worker *w, struct conn *c);

/* Refused, but after the upgrade: `answer` is the 101, a Close with `code` and `reason` follows. Never a
 * member; then as in conn_close(). */
void conn_reject(struct worker *w, struct conn *c, struct slice answer, uint16_t code, const char *reason);

/* Bytes came from the peer. */
void conn_heard(struct worker *w, struct conn *c);

/* Something may be due sooner than the timer says. Nothing unless OPEN. */
void conn_retime(struct worker *w, struct conn *c);

/* Its timer fired. */
void conn_expired(struct worker *w, struct conn *c);

/* Events of the clients' epoll set: bounded work. Returns how many there were. */
int conn_poll(struct worker *w);

/* A number that names (index, generation) in an uplink request; never 0, never with UP_REQUEST_ANSWER's bit.
 */
uint32_t conn_tag(const struct conn *c);
struct conn *conn_by_tag(struct worker *w, uint32_t tag);

#endif
