/* behind.h - members that could not take everything. They cost a position in the ring, not memory.
 *
 *            send was short, or the socket is full          position == newest, all sent
 *     LIVE ------------------------------------> BEHIND ---------------------------------> LIVE
 *                                                  | the ring passed its position, or
 *                                                  | slow_timeout without a byte taken
 *                                                  v
 *                            slow = disconnect: finish the frame, Close 1013, close_linger, RST
 *                            slow = skip:       finish the frame, go on at the newest record, count what was
 * missed
 *
 * Two chains. Targeted records travel in the namespace's own channel. Where the namespace has rooms that is
 * another chain than the member's, so it keeps a place in both (pos, direct_pos; 0: it lacks nothing there)
 * and follows them in the order of positions; where it has none, one chain has it all. Either way it asks of
 * each targeted record in its way whether it is for it, by the identity and groups of now. A place that is 0
 * is set when the next record comes that is for it: a targeted one has been matched when it was read
 * (behind_owe), and one of the room finds those members by a count (behind_arrived). Targeted records behind
 * the last that was matched so are not looked at: they are for others.
 *
 * A `partial` is a frame that some clients have got a piece of, so it must stay readable whatever the ring
 * does. It holds the worker's cursor (so the frame stays protected) for at most a quarter of the ring; then
 * ONE private copy is made for all its clients. Past slow_memory the clients of the oldest copy are reset.
 *
 * Reading: at or after the published cursor memory is protected and goes to the socket as it is; before it,
 * it is copied and validated first (ring.h).
 */
#ifndef RC_BEHIND_H
#define RC_BEHIND_H

#include "common/base.h"

struct worker;
struct conn;
struct channel;

struct partial {
	uint64_t pos;
	uint8_t *copy;                 /* has the whole frame; NULL while the ring holds it */
	uint32_t frame_len, frame_off; /* frame_off: from the start of the copy, or of the record */
	uint32_t first;                /* connections inside it */
	struct partial *prev, *next;   /* in its list: held ones by position, copied ones by age */
};

struct partial_list {
	struct partial *first, *last;
};

struct behind {
	uint32_t first; /* all that are behind */
	uint32_t n;
	struct partial_list held;   /* frames that the ring keeps for us */
	struct partial_list copied; /* frames that we keep */
	uint64_t copy_bytes;
	uint8_t *scratch; /* for copy-and-validate */
	uint8_t *targets; /* the same, of targets blocks piece by piece */
};

int behind_init(struct worker *w) MUST_CHECK;
/* After the last connection has gone. */
void behind_free(struct behind *b);

/* Where a live member stands that could not take everything: see struct conn_ext. */
struct behind_start {
	uint64_t pos, direct_pos, direct_last, seq;
	uint32_t owed;
	uint32_t
		off; /* bytes that it has of the frame at the first of pos and direct_pos; nothing after it */
	bool is_direct;
};

/* It falls behind. Arms EPOLLOUT. */
void behind_begin(struct worker *w, struct conn *c, const struct behind_start *at);

/* Of members that are behind, while a record is read: the targeted one at `pos` is for `c`; the one at `pos`,
 * which is not targeted, is of channel `ch`. */
void behind_owe(struct worker *w, struct conn *c, uint64_t pos);
void behind_arrived(struct worker *w, struct channel *ch, uint64_t pos);

enum behind_result { BEHIND_CAUGHT_UP, BEHIND_BLOCKED, BEHIND_MORE, BEHIND_GONE };

/* The socket takes bytes: finish the frame that was begun. CAUGHT_UP: it is complete, or there was none. */
enum behind_result behind_finish_frame(struct worker *w, struct conn *c);

/* Catch up from a clean boundary, bounded (64 frames or 256 KiB a turn, and 256 records looked at: MORE).
 * CAUGHT_UP: it is live again. GONE: the slow-client policy closed it, or the socket failed: do not touch it.
 */
enum behind_result behind_run(struct worker *w, struct conn *c);

/* It leaves its channel (close). keep_frame: a half-sent frame will still be finished. */
void behind_leave(struct worker *w, struct conn *c, bool keep_frame);

/* Once a tick: whom did the ring pass, who has not taken a byte for slow_timeout? */
void behind_sweep(struct worker *w);

/* The position at which the cursor must stay for half-sent frames; UINT64_MAX if none. Copies those before
 * `keep_from` out of the ring. */
uint64_t behind_hold(struct worker *w, uint64_t keep_from);

#endif
