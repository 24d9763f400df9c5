/* output.h - what goes to one socket besides ring records, in the order of docs/design.md: the rest of a
 * frame begun, control frames, replies, then records. Worker.
 */
#ifndef RC_OUTPUT_H
#define RC_OUTPUT_H

#include "common/base.h"
#include "common/buf.h"

struct worker;
struct conn;

/* Bytes that follow what is queued, at a frame boundary (the 101, a Close, a ping). False: the connection is
 * gone. */
bool output_bytes(struct worker *w, struct conn *c, const void *p, size_t len);

/* The first bytes of a fresh connection, the 101 with what follows it: however much of them the socket does
 * not take waits, for their number is bounded by whoever made them. `first` is taken over. False: the
 * connection is gone. */
bool output_first(struct worker *w, struct conn *c, struct buf *first);

/* Answer a ping: at once while the socket takes it, else the latest replaces what waits. */
void output_pong(struct worker *w, struct conn *c, const uint8_t *p, size_t len);

/* Queue a Close frame; code 1005: an empty one. */
void output_close(struct worker *w, struct conn *c, uint16_t code, const char *reason);

/* The peer's Close has come after ours: end our side when everything is sent. */
void output_peer_closed(struct worker *w, struct conn *c);

/* EPOLLOUT: go on where the socket was full. May drop the connection. */
void output_ready(struct worker *w, struct conn *c);

#endif
