/* input.h - what the socket gave: the handshake, then WebSocket messages. Worker. */
#ifndef RC_INPUT_H
#define RC_INPUT_H

#include "common/base.h"
struct worker;
struct conn;

/* EPOLLIN: read a bounded amount. May drop the connection. */
void input_ready(struct worker *w, struct conn *c);

/* The uplink has space again: publish what is held, go on with what was read behind it. False: still no
 * space. */
bool input_resume(struct worker *w, struct conn *c);

/* CONN_HELD, and there is a token again (rate.h): look at the message that is kept, read on. False: the
 * connection is gone, or is closing, or its Close is being waited for. */
bool input_release(struct worker *w, struct conn *c) MUST_CHECK;

/* Send a client's message up as it is. False: no space now. */
bool input_publish(struct worker *w, struct conn *c, uint8_t opcode, struct slice payload,
		   bool is_resumed) MUST_CHECK;

/* One of the connection's own publications came back through the ring. */
void input_own_seen(struct worker *w, struct conn *c);

/* A Close of the peer's that waited (CONN_CLOSE_WAIT): answer it if everything before it has come back and
 * gone out. */
void input_close_if_done(struct worker *w, struct conn *c);

/* It begins to close: a message that waits for the uplink is dropped. */
void input_closing(struct worker *w, struct conn *c);

/* From the tick: when unfinished messages have taken half of their memory, close those that began ten seconds
 * ago and are not complete, so that senders of a byte now and then cannot lock others out. */
void input_sweep(struct worker *w);

/* Refuse a handshake: write the answer, count, drop. input_answer(): without counting and logging. */
void input_refuse(struct worker *w, struct conn *c, int status, const char *reason);
void input_answer(struct worker *w, struct conn *c, int status);

/* No PROXY header where there must be one: counted, and closed without a word. */
void input_refuse_proxy(struct worker *w, struct conn *c);

/* What an OPEN (or refused after its 101) client had sent before the 101. */
void input_early(struct worker *w, struct conn *c, struct slice bytes);

#endif
