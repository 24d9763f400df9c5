/* message.h - the messages of the ring programs: each is a record of 128 bytes whose every field follows from
 * its number, on a ring of two. */
#ifndef MODEL_MESSAGE_H
#define MODEL_MESSAGE_H

#include "shm/record.h"
#include "tests/model/model.h"

#define MESSAGE_BYTES 128u
#define MESSAGE_WORDS 2u /* of payload */
#define RING_BYTES    (2 * MESSAGE_BYTES)
#define RING_START    RING_BYTES
#define PAYLOAD_OFF   112u /* header 96, room 0, frame header 16 */

extern struct ring_hdr message_ring_hdr;
extern _Atomic uint64_t message_region[RING_BYTES / 8];

/* Fresh memory, the producer's view, and names for the traces. */
void message_ring_init(struct ring *producer);

/* A reader's view. */
struct ring message_ring_view(void);

static inline uint64_t message_pos(unsigned i)
{
	return RING_START + (uint64_t)i * MESSAGE_BYTES;
}

/* Append message i, with room for it. prev: rec_commit()'s. Returns its position. */
uint64_t message_commit(struct ring *r, uint64_t gate, unsigned i, uint64_t prev);

/* Is `h` the whole header of the record at `pos`? */
void message_check_header(uint64_t pos, const struct rec *h);

/* Read the payload at `pos` plainly, as protected memory, and check it. */
void message_check_protected(const struct ring *r, uint64_t pos);

/* Check a copied payload. */
void message_check_payload(uint64_t pos, const uint64_t *payload);

#endif
