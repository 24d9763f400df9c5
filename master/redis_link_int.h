/* redis_link_int.h - what redis_link.c (states, attempts, output) and redis_link_in.c (input, liveness)
 * share. Nobody else includes it. Master process only, on its loop.
 */
#ifndef RC_REDIS_LINK_INT_H
#define RC_REDIS_LINK_INT_H

#include "common/buf.h"
#include "common/log.h"
#include "master/redis_dial.h"
#include "master/redis_hello.h"
#include "master/redis_link.h"
#include "master/redis_route.h"

enum state { WAIT, DIAL, HELLO, OPEN };

struct redis_link {
	struct ev_loop *loop;
	const struct cfg_redis *cfg;
	struct redis_link_events ev;
	enum redis_link_kind kind;
	enum state state;
	struct redis_dial dial;
	struct redis_route route;
	unsigned next_sentinel; /* to watch */
	ev_io io;
	ev_timer timer; /* what for: see the picture in the header */
	int fd;         /* -1: none */
	int watched;    /* mask that io runs with; 0 = stopped */

	struct redis_reply *in;
	size_t max_bulk;
	bool paused;
	struct redis_word word; /* of the last error reply */
	long long integer;      /* of the last integer reply */

	struct buf out;
	size_t out_off; /* bytes of out already written */
	bool out_dead;  /* a write failed: the reading side will tell how the link ended */

	struct redis_hello hello;

	uint64_t owed;      /* answers that own commands still get (publisher) */
	uint64_t ping_owed; /* of these, how many come before the PING's */
	bool pinging;
	bool has_grace; /* given for the PING that is out */
	bool role_due;                  /* the answer to INFO comes before the PING's */
	uint64_t put_bytes, sent_bytes; /* totals of this connection */
	uint64_t ping_end;              /* value of sent_bytes when the PING has left */
	uint64_t ping_ns;               /* when it was queued, or left: from then the deadline counts */
	uint64_t progress_ns;           /* last byte in, or out while the PING has not left */
	uint64_t next_ping_ns, read_ns, opened_ns;

	unsigned attempts; /* since the link was last good */
	uint64_t retry_logged_ns;
	uint64_t jitter;
	struct redis_link_stats stats;
};

/* redis_link.c */
void redis_link_move(struct redis_link *l, enum state to);
void redis_link_timer(struct redis_link *l, double seconds);
void redis_link_watch(struct redis_link *l); /* the socket, for what it is wanted for now */
void redis_link_fail(struct redis_link *l, const char *reason); /* end of an attempt or of an open link */
void redis_link_log(struct redis_link *l, enum log_level level, const char *event, const char *reason,
		    const char *msg);

/* redis_link_in.c */
struct redis_reply *redis_link_reader(struct redis_link *l) MUST_CHECK; /* NULL: ENOMEM */
void redis_link_read(struct redis_link *l);  /* what the socket has; the link may end by it */
void redis_link_check(struct redis_link *l); /* the liveness timer fired, or may have */

#endif
