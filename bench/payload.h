/* payload.h - what a bench message holds, and how a receiver proves that it is whole.
 *
 *   byte  0  run (16 bits), publisher (16 bits)     8 letters
 *         8  channel                                8 letters
 *        16  sequence, from 0 per publisher+channel 8 letters
 *        24  send time, CLOCK_MONOTONIC ns         16 letters
 *        40  checksum of all above and the length   8 letters
 *        48  fill, computed from the checksum
 *
 * A letter carries four bits as 0x40 | v ("@ABC...O"): one step to write and to check, strict (no two
 * letters mean the same), valid UTF-8, and nothing that JSON would escape. In a binary message it is
 * 0xf0 | v, which is never valid UTF-8, so a server that guesses the opcode by content must say binary.
 *
 * Pure functions; payload_init() once per process before any other.
 */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include "common/base.h"

#define PAYLOAD_MIN 48

struct payload_id {
	uint16_t run, publisher;
	uint32_t channel, seq;
	uint64_t time_ns;
};

void payload_init(void);

/* Write a payload of `len` bytes (>= PAYLOAD_MIN) to dst. */
void payload_put(uint8_t *dst, uint64_t len, const struct payload_id *id, bool binary);

/* Read the first PAYLOAD_MIN bytes of a payload of `len` bytes. Returns false if they are no such head,
 * or not of this length; else fills in `id` and the seed for payload_fill_ok(). */
bool payload_get(const uint8_t *p, uint64_t len, bool binary, struct payload_id *id,
		 uint32_t *seed) MUST_CHECK;

/* Whether the n bytes at p are the fill from byte `off` on (counted from the end of the head). */
bool payload_fill_ok(uint32_t seed, uint64_t off, const uint8_t *p, uint64_t n) MUST_CHECK;

#endif
