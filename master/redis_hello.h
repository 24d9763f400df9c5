/* redis_hello.h - the first words on a connection: AUTH, SELECT, INFO and PING in one write, and what the
 * answers mean.
 *
 * INFO says what the server is. What is published to a replica reaches nobody else (but in a cluster, where
 * any node tells all), and nothing can be stored there: a replica is refused. A server whose role can't be
 * seen (a user without INFO) is taken as it is, with a word in the log.
 *
 * Master process only. Pure but for the log lines of a refused SELECT or INFO.
 */
#ifndef RC_REDIS_HELLO_H
#define RC_REDIS_HELLO_H

#include "common/base.h"
#include "common/buf.h"
#include "common/config.h"

/* The first word of an error reply: all of it that may be logged. */
struct redis_word {
	char s[32];
};

void redis_word_take(struct redis_word *w, const char *p, size_t len);

/* Errors that say "not now" or "not you": the link is of no use until they pass. */
bool redis_word_denies_service(const struct redis_word *w) MUST_CHECK;
/* Of these, the ones that hold for any command: MOVED or BUSY may be said to one and not to the next. */
bool redis_word_denies_link(const struct redis_word *w) MUST_CHECK;

enum redis_role { REDIS_ROLE_UNKNOWN, REDIS_ROLE_MASTER, REDIS_ROLE_REPLICA };

struct redis_hello {
	uint8_t step[5]; /* enum redis_hello_step, in order of sending */
	uint8_t n, at;
	bool is_sentinel; /* that is who listens: AUTH may fail, it is no master and has no databases */
	bool is_cluster;
	enum redis_role role;
};

enum redis_hello_result { HELLO_MORE, HELLO_DONE, HELLO_REFUSED, HELLO_REPLICA, HELLO_NONSENSE };

/* Append the commands to `out` (which then may hold a password: see redis_hello_wipe). Returns 0, or -1
 * (ENOMEM). */
int redis_hello_put(struct redis_hello *h, const struct cfg_redis *cfg, bool is_sentinel,
		    struct buf *out) MUST_CHECK;

/* Append AUTH alone, if there is a password. Returns how many commands that were, or -1 (ENOMEM). */
int redis_hello_put_auth(const struct cfg_redis *cfg, struct buf *out) MUST_CHECK;

/* "INFO replication", and what its answer says. */
#define REDIS_INFO_ROLE "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"
enum redis_role redis_role_read(const char *p, size_t len);

/* Overwrite what was put: before the memory is given back. */
void redis_hello_wipe(struct buf *out);

/* Judge the next answer. `word` is set if it is an error. */
enum redis_hello_result redis_hello_answer(struct redis_hello *h, int type, const char *p, size_t len,
					   struct redis_word *word) MUST_CHECK;

#endif
