/* payload.c - bench messages: written once, checked by every receiver, so checking must cost next to nothing.
 */
#include "bench/payload.h"

#include <endian.h>
#include <string.h>

#define FILL_SIZE   8192u /* fits the first-level cache; the seed says where a message starts in it */
#define LOW_NIBBLES 0x0f0f0f0f0f0f0f0full

static uint8_t fill[FILL_SIZE];

static inline uint64_t hi_bits(bool binary)
{
	return binary ? 0xf0f0f0f0f0f0f0f0ull : 0x4040404040404040ull;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

void payload_init(void)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	for (uint32_t i = 0; i < FILL_SIZE; i++)
		fill[i] = (uint8_t)letters[mix(i + 1) & 63];
}

/* 32 bits to 8 letters, the highest four bits first. */
static inline void letters_put(uint8_t *dst, uint32_t v, uint64_t hi)
{
	uint64_t x = v;

	x = (x | x << 16) & 0x0000ffff0000ffffull;
	x = (x | x << 8) & 0x00ff00ff00ff00ffull;
	x = (x | x << 4) & LOW_NIBBLES;
	x = htobe64(x | hi);
	memcpy(dst, &x, 8);
}

static inline bool letters_get(const uint8_t *p, uint32_t *v, uint64_t hi)
{
	uint64_t x;

	memcpy(&x, p, 8);
	x = be64toh(x) ^ hi;
	if (x & ~LOW_NIBBLES)
		return false;
	x = (x | x >> 4) & 0x00ff00ff00ff00ffull;
	x = (x | x >> 8) & 0x0000ffff0000ffffull;
	*v = (uint32_t)(x | x >> 16);
	return true;
}

static inline uint32_t checksum(const struct payload_id *id, uint64_t len)
{
	uint64_t x = mix(id->time_ns ^ len << 40);

	x ^= (uint64_t)id->channel << 32 | id->seq;
	x = mix(x) ^ ((uint64_t)id->run << 16 | id->publisher);
	return (uint32_t)mix(x);
}

void payload_put(uint8_t *dst, uint64_t len, const struct payload_id *id, bool binary)
{
	const uint64_t hi = hi_bits(binary);
	const uint32_t sum = checksum(id, len);
	uint32_t at = sum % FILL_SIZE;

	letters_put(dst, (uint32_t)id->run << 16 | id->publisher, hi);
	letters_put(dst + 8, id->channel, hi);
	letters_put(dst + 16, id->seq, hi);
	letters_put(dst + 24, (uint32_t)(id->time_ns >> 32), hi);
	letters_put(dst + 32, (uint32_t)id->time_ns, hi);
	letters_put(dst + 40, sum, hi);
	dst += PAYLOAD_MIN;
	for (uint64_t left = len - PAYLOAD_MIN; left > 0; at = 0) {
		uint64_t n = u64_min(left, FILL_SIZE - at);

		memcpy(dst, fill + at, n);
		dst += n;
		left -= n;
	}
}

bool payload_get(const uint8_t *p, uint64_t len, bool binary, struct payload_id *id, uint32_t *seed)
{
	const uint64_t hi = hi_bits(binary);
	uint32_t who, time_hi, time_lo;

	if (!letters_get(p, &who, hi) || !letters_get(p + 8, &id->channel, hi) ||
	    !letters_get(p + 16, &id->seq, hi) || !letters_get(p + 24, &time_hi, hi) ||
	    !letters_get(p + 32, &time_lo, hi) || !letters_get(p + 40, seed, hi))
		return false;
	id->run = (uint16_t)(who >> 16);
	id->publisher = (uint16_t)who;
	id->time_ns = (uint64_t)time_hi << 32 | time_lo;
	return *seed == checksum(id, len);
}

bool payload_fill_ok(uint32_t seed, uint64_t off, const uint8_t *p, uint64_t n)
{
	uint32_t at = (uint32_t)((seed % FILL_SIZE + off) % FILL_SIZE);

	while (n > 0) {
		uint64_t part = u64_min(n, FILL_SIZE - at);

		if (memcmp(p, fill + at, part) != 0)
			return false;
		p += part;
		n -= part;
		at = 0;
	}
	return true;
}
