/* survey.h - questions to all workers at once: which channels have members here (/api/channels).
 *
 *      survey_ask()            all have told, or SURVEY_MS later
 *   (free) -------> ASKED ------------------------------------> answered, (free)
 *                   REC_SURVEY to all        UP_TOLD, in pieces, merged by name
 *
 * Master process, on its loop; never blocks. Bounds: SURVEYS_MAX at a time, and of each answer what a worker
 * may be told (ask_reply_max).
 */
#ifndef RC_SURVEY_H
#define RC_SURVEY_H

#include "master/ask.h"
#include "master/master.h"

#define SURVEY_MS   200u
#define SURVEYS_MAX 16u

struct surveys;

/* m->surveys. 0, or -1 with ENOMEM. */
int survey_start(struct master *m) MUST_CHECK;
void survey_stop(struct master *m);

/* UP_ASK_CHANNELS: payload: what the channels' names begin with ("" = all). Answer: the "result" of
 * /api/channels. */
void survey_ask(struct master *m, const struct ask_question *q);

/* UP_TOLD. `payload` is memory that the worker can write. */
void survey_told(struct master *m, const struct child *c, uint32_t number, bool has_more,
		 struct slice payload);

/* A worker is gone: it tells nothing any more. */
void survey_worker_died(struct master *m, const struct child *c);

#endif
