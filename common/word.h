/* word.h - look at eight bytes at once. Any process; pure.
 *
 * The tests return a mask with the top bit set of bytes that pass. Its LOWEST bit set is exact (borrows may
 * raise false alarms above it, never below), so word_first() of one mask, or of several joined by |, is the
 * first byte that passes one of them. */
#ifndef RC_WORD_H
#define RC_WORD_H

#include <endian.h>
#include <string.h>

#include "common/base.h"

#define WORD_ONES  0x0101010101010101u
#define WORD_HIGHS 0x8080808080808080u

/* Eight bytes from anywhere, the first one lowest. */
static inline uint64_t word_load(const void *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return le64toh(w);
}

/* Bytes below n, n <= 128. */
static inline uint64_t word_below(uint64_t w, uint8_t n)
{
	return (w - WORD_ONES * n) & ~w & WORD_HIGHS;
}

/* Bytes equal to c, c < 128. */
static inline uint64_t word_equal(uint64_t w, char c)
{
	return word_below(w ^ WORD_ONES * (uint8_t)c, 1);
}

/* Index (0..7) of the first byte of a mask that is not 0. */
static inline size_t word_first(uint64_t mask)
{
	return (size_t)__builtin_ctzll(mask) >> 3;
}

#endif
