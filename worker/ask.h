/* ask.h - questions to the master: who is online, what Redis keeps, orders to all workers. Worker; one
 * thread; never blocks.
 *
 *      ask_master()        pushed                REC_REPLY, or ASK_DEADLINE_MS after ask_master()
 *   FREE ---------> WAITING ------> SENT ---------------------------------------------------------> fn, FREE
 *                      |   (no space in the data uplink: later, in order)                 ^
 *                      +------------------------------------------------------------------+
 *
 * Each question gets exactly one answer: the master's, or REC_REPLY_UNAVAILABLE when none came in time.
 * Whoever goes before that calls ask_forget(), or hands in an `arg` that names itself without being a pointer
 * (conn_tag()).
 *
 * Bounds: ASK_MAX questions of a worker at a time; of those that wait for the uplink, ASK_WAIT_BYTES
 * together.
 */
#ifndef RC_ASK_H
#define RC_ASK_H

#include "common/base.h"
#include "shm/record.h"
#include "shm/uplink.h"

struct worker;

#define ASK_DEADLINE_MS 2000u
#define ASK_INDEX_BITS  12u
#define ASK_MAX         (1u << ASK_INDEX_BITS)
#define ASK_WAIT_BYTES  (UINT32_C(1) << 20)
#define ASK_PAYLOAD_MAX UPLINK_CHUNK

/* The answer. `payload` is borrowed for the call. Any function here may be called inside. */
typedef void ask_fn(struct worker *w, void *arg, enum rec_reply reply, struct slice payload);

struct ask {
	enum up_ask what;
	uint16_t ns;                /* id */
	struct slice room, payload; /* copied; payload at most ASK_PAYLOAD_MAX bytes */
	uint32_t total;             /* UP_ASK_STORE: its ttl */
};

struct ask_entry; /* ask.c */

struct ask_table {
	struct ask_entry *v; /* ASK_MAX of them, made at the first question */
	uint32_t n;          /* of these, ever used */
	uint32_t free;
	uint32_t oldest, newest; /* all that are not answered, by age */
	uint32_t waiting_bytes, n_waiting;
};

void ask_init(struct ask_table *t);
/* Calls nobody back. */
void ask_free(struct ask_table *t);

/* Ask. fn (NULL: nobody wants to know) is called later, never from within. Returns the question's number, or
 * 0 if it was not taken: bounds, no memory, payload too long; fn is then not called. */
uint32_t ask_master(struct worker *w, const struct ask *q, ask_fn *fn, void *arg) MUST_CHECK;

/* fn of this question is not to be called any more. Nothing if it has been. */
void ask_forget(struct worker *w, uint32_t number);

/* control.c: REC_REPLY came. */
void ask_reply(struct worker *w, uint32_t number, enum rec_reply reply, struct slice payload);

/* The uplink has space: push what waits. Returns false if not all of it went. */
bool ask_resume(struct worker *w) MUST_CHECK;
bool ask_is_waiting(const struct worker *w);

/* Deadlines. */
void ask_tick(struct worker *w);

#endif
