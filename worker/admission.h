/* admission.h - from a good handshake to membership, in steps of which each may wait.
 *
 *   begin -> rate -> room -> session -> user -> auth -------> limits -----> prepare, kept -> join --------->
 * OPEN |      |                  |       | AUTHORIZING  | JOINING     | JOINING        | JOINING |      | |
 * | (a hook)     | (REC_ADMIT) | (user_prepare, | (channel_join) |      |                  |       | | |
 * kept.c)       |
 *              +------+------------------+-------+--------------+-------------+----------------+--> refused
 *
 * A step is done, waits, or has refused. While one waits, what the rest of the way needs of the request is in
 * one heap block (conn_ext.admission); bytes that the client sends meanwhile are in conn_ext.in. Once only
 * the channel is waited for, even the block is gone: the 101 is in conn_ext.out. A connection that waits for
 * nothing allocates no block.
 *
 * The connection may vanish, time out or be refused by a drain in every state: conn.c forgets the wait
 * (auth_forget, user_leave, channel_leave) and frees the block with the rest of conn_ext.
 *
 * Refusals are as the namespace says: an HTTP status before the upgrade, or the 101 and then a Close.
 *
 * Worker; one thread; never blocks.
 */
#ifndef RC_ADMISSION_H
#define RC_ADMISSION_H

#include "common/buf.h"
#include "shm/counters.h"
#include "shm/uplink.h"
#include "worker/address.h"
#include "worker/handshake.h"

struct worker;
struct conn;
struct identity;

/* What waits. */
struct admission {
	struct handshake h;
	struct address from; /* admission_begin(): who is at the other end, by a PROXY header or not known
				yet; then the client */
	uint8_t step;        /* the next one to take */
	uint8_t user_len;    /* of user_query, canonical; 0: the namespace has none */
	char user[CFG_ROOM_MAX];
};

/* The head is complete and good: begin. `a->h` is the verdict of handshake_check(), `a->from` what a PROXY
 * header said; p and head are borrowed for the call. `rest` is what came behind the head. `c` may be gone
 * afterwards. */
void admission_begin(struct worker *w, struct conn *c, struct admission *a, const struct http_parser *p,
		     const char *head, struct slice rest);

/* The verdict about an AUTHORIZING connection has come (auth.c); `who` is taken over. NULL: none could be
 * had. */
void admission_verdict(struct worker *w, struct conn *c, struct identity *who);

/* What a step has waited for is there: on with the next one. */
void admission_go_on(struct worker *w, struct conn *c);
/* The master's answer to limits_ask(). */
void admission_admitted(struct worker *w, struct conn *c, enum up_limit what, bool may_come);

/* handshake_timeout has passed. */
void admission_expired(struct worker *w, struct conn *c);

/* Free what waits, if anything does. */
void admission_free(struct admission *a);

/* How a client is refused whose handshake was good. */
struct admission_refusal {
	enum count_refused why;
	int status;    /* HTTP, with refuse = "403" */
	uint16_t code; /* of the Close, with accept-then-close */
	struct slice reason;
	bool is_quiet; /* has been logged, or is not to be */
};
void admission_refuse(struct worker *w, struct conn *c, const struct admission *a,
		      const struct admission_refusal *r);

/* The client's address without a port, into dst ("" for a unix socket), of a connection that has a session.
 */
#define ADMISSION_ADDRESS_SIZE ADDRESS_TEXT_SIZE
void admission_address(const struct worker *w, const struct conn *c, char dst[ADMISSION_ADDRESS_SIZE]);

#endif
