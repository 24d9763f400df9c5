/* stress.h - the ring under load: one producer, consumers of different paces that are killed and replaced,
 * readers of the history; every byte is computed from channel and sequence number, so that what is torn, lost
 * or repeated shows.
 *
 * As processes: memfds, kill -9, the server's mappings. As threads (for TSan): one plain mapping, since TSan
 * cannot see races through a second one; so no record may wrap, and fillers take the rest of a lap; a
 * "killed" thread leaves at a random place between two steps.
 */
#ifndef STRESS_STRESS_H
#define STRESS_STRESS_H

#include <stdatomic.h>

#include "shm/globals.h"
#include "shm/record.h"
#include "shm/slot.h"
#include "shm/uplink.h"

#define CHANNELS    4u
#define PAYLOAD_MAX 6000u
#define REC_FILLER  100u /* a record for nobody: fills up a lap in the thread build */
#define REC_END     101u /* for all: no more comes. arg: messages of channels 0 | 1, 2 | 3, as 32-bit halves */
#define HEAD_BYTES  128u /* before the payload: header 96, room padded to 16, frame header 16 */
#define STEP_BYTES  128u /* the thread build's records are multiples of it */
#define UP_WORDS    3u   /* payload of an uplink record, which then has 64 bytes: none wraps */

struct stress_options {
	bool threads;
	unsigned seconds, consumers, historians;
	uint64_t seed, ring_size;
};

extern struct stress_options stress;

/* ---- content.c */

uint64_t random_next(uint64_t *state);

/* Bytes of message `seq` of `channel`. */
uint32_t content_len(unsigned channel, uint64_t seq);
void content_fill(unsigned channel, uint64_t seq, uint8_t *dst, uint32_t len);
struct slice content_room(unsigned channel, char *buf, size_t size);

/* Does worker `w` care for `channel`? */
bool content_concerns(unsigned w, unsigned channel);

/* Is this the record that was committed at `pos`? `at`: the whole record, readable. NULL, or what is wrong.
 */
const char *content_check(uint64_t pos, const struct rec *h, const uint8_t *at);

/* ---- consumer.c */

enum consumer_end { CONSUMER_DONE, CONSUMER_KILLED, CONSUMER_FAILED };

struct consumer {
	unsigned w;
	uint32_t incarnation;
	uint64_t start, seed;
	uint64_t seq[CHANNELS]; /* the last committed before it began */
	int ring_fd, wake_fd, master_wake_fd;
	struct slot *master_slot; /* threads: use this memory; processes: attach its descriptor */
	struct globals *globals;
	struct ring *ring;      /* threads: the view to use; processes: NULL */
	_Atomic bool *must_die; /* threads */
};

/* Run until REC_END, or for ever. Prints what is wrong. */
enum consumer_end consumer_run(const struct consumer *c);

/* Copy and validate behind the gates until REC_END, or what must_die says. */
enum consumer_end historian_run(const struct consumer *c);

#endif
