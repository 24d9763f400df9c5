/* log.h - one line an event, key=value (docs/operations.md lists them).
 *
 *   ts=2026-11-23T20:41:02.123Z level=info proc=worker.0 pid=17 event=open ns=demo ...
 *
 * Each line is one write(2) to a descriptor opened O_APPEND (or stderr), so lines of several processes
 * never mix. Never a payload, never a credential. Any process; blocks only as write(2) to the log does.
 */
#ifndef RC_LOG_H
#define RC_LOG_H

#include "common/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Log to `path` (created 0640, appended), or to stderr when it is NULL or "". The path is copied.
 * Returns 0, or -1 with errno and the old target kept. */
int log_open(const char *path) MUST_CHECK;

/* Open the path anew (USR1). Workers call it too: each process holds its own descriptor.
 * Returns 0, or -1 with errno and the old descriptor kept. */
int log_reopen(void) MUST_CHECK;

/* The descriptor that lines go to: a forked child that closes all others keeps it. */
int log_descriptor(void);

void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* "error".."debug" to a level; -1 if it is none of them. */
int log_level_parse(const char *name) MUST_CHECK;

/* What proc= shows: "master" or "worker.3". Copied, at most 31 bytes. For a child after fork(): it begins to
 * count its lines anew. */
void log_set_proc(const char *proc);

/* Write one line if `level` passes. `fmt` makes the fields behind event=, each "key=value" with values
 * from outside passed through log_quote(); NULL for none. Lines longer than 2 KiB are cut. Keeps errno.
 * event: a literal. Of one event at most LOG_STORM lines a second are written (debug lines aside): a million
 * clients that come back at once must not fill the disk. What is left out is counted, and log_tick() tells.
 */
#define LOG_STORM 1000u
void log_event(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Write a line event=log_storm for each event of which lines were left out in a second that is over. Called
 * four times a second or so. */
void log_tick(void);

static inline bool log_on(enum log_level level)
{
	return level <= log_get_level();
}

/* Make bytes from outside safe as a value: plain words stay bare, anything else is quoted, with
 * backslash, quote and control bytes escaped (\xNN) and cut at LOG_QUOTE_MAX. Returns `dst`. */
#define LOG_QUOTE_MAX 128
struct log_quoted {
	char s[LOG_QUOTE_MAX * 4 + 8];
};
const char *log_quote(struct log_quoted *dst, const char *p, size_t len);

#endif
