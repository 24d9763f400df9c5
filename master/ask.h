/* ask.h - what workers ask of the master (UP_REQUEST), and its answers (REC_REPLY).
 *
 * Master process, on its loop; never blocks. What is known at once is answered at once; what others have to
 * say (Redis, all workers) is answered later, to a worker that may be gone by then. A worker waits two
 * seconds (worker/ask.h): whoever answers later than ASK_ANSWER_MS works for nobody.
 */
#ifndef RC_MASTER_ASK_H
#define RC_MASTER_ASK_H

#include "master/master.h"
#include "shm/uplink.h"

#define ASK_ANSWER_MS 1500u

/* Who asked: copied by those that answer later. */
struct ask_from {
	uint16_t slot;
	uint32_t incarnation, request;
};

struct ask_question {
	uint8_t what;               /* enum up_ask, or nonsense */
	uint16_t ns;                /* as the worker wrote it: look it up before use */
	struct slice room, payload; /* private memory; valid for the call */
	uint32_t total;
	struct ask_from from;
};

/* Answer, or see to it that it will be answered. False: there is no such kind of question. */
bool ask_take(struct master *m, const struct ask_question *q) MUST_CHECK;

/* Answer. A worker that has gone is passed over; a long payload while too much waits for the ring already
 * becomes REC_REPLY_UNAVAILABLE. A payload of more than ask_reply_max() bytes becomes REC_REPLY_BAD
 * "too_large". */
void ask_answer(struct master *m, const struct ask_from *to, enum rec_reply reply, struct slice payload);

/* Why not, as a code of the API: REC_REPLY_BAD with its text. */
void ask_answer_bad(struct master *m, const struct ask_from *to, const char *code);

/* Bytes of an answer at most: a mebibyte, or a sixteenth of a small ring. */
size_t ask_reply_max(const struct master *m);

/* The namespace of a question, or NULL. */
const struct cfg_namespace *ask_namespace(const struct master *m, const struct ask_question *q);

#endif
