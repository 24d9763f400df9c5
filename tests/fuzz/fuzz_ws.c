/* LINK: worker/ws.c worker/ws_gate.c worker/ws_pool.c
 *
 * Two connections over one pool. The input is a plan: eight bytes of settings, then the bytes of both
 * streams, cut at places drawn from the settings. What each connection reports must not depend on the cuts,
 * on the other one, nor on which parser it borrowed; and at the end nothing may be held or counted. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/wsframe.h"
#include "worker/ws.h"
#include "worker/ws_gate.h"
#include "worker/ws_pool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct peer {
	struct ws_in *in;
	const uint8_t *p; /* what it sends */
	size_t len, at;
	uint64_t digest; /* of all that was reported */
	unsigned holds;  /* bit i: refuse the messages whose number is i modulo 8 */
	unsigned messages;
	bool is_over;
};

static void mix(struct peer *peer, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		peer->digest = (peer->digest ^ b[i]) * 0x100000001b3u;
}

static void report(struct peer *peer, uint64_t what, const void *p, size_t len)
{
	assert(!peer->is_over);
	mix(peer, &what, sizeof(what));
	mix(peer, &len, sizeof(len));
	mix(peer, p, len);
}

static void report_message(struct peer *peer, uint8_t opcode, const void *p, size_t len)
{
	peer->messages++;
	report(peer, opcode, p, len);
}

static enum ws_take on_message(void *arg, uint8_t opcode, const uint8_t *p, size_t len)
{
	struct peer *peer = arg;

	assert(opcode == WS_TEXT || opcode == WS_BINARY);
	assert(p != NULL && len <= 200000);
	if (peer->holds >> (peer->messages % 8) & 1)
		return WS_HOLD;
	report_message(peer, opcode, p, len);
	return WS_TAKEN;
}

static void on_ping(void *arg, const uint8_t *p, size_t len)
{
	assert(len <= WS_CONTROL_PAYLOAD_MAX);
	report(arg, WS_PING, p, len);
}

static void on_pong(void *arg)
{
	report(arg, WS_PONG, "", 0);
}

static void on_close(void *arg, uint16_t code)
{
	struct peer *peer = arg;

	assert(code >= 1000 && code <= 4999 && code != 1004 && code != 1006 && code != 1015);
	report(peer, 0x10000u + code, "", 0);
	peer->is_over = true;
}

static const struct ws_handler handler = {on_message, on_ping, on_pong, on_close};

static void feed(struct ws_pool *pool, struct peer *peer, const struct ws_limits *limits, size_t n)
{
	size_t end = peer->at + (n < peer->len - peer->at ? n : peer->len - peer->at), used = 0;
	uint8_t *copy; /* a block of just the right size lets the sanitizer see a read behind it */

	while (!peer->is_over && peer->at < end) {
		struct slice held;
		uint8_t opcode;
		int code;

		copy = malloc(end - peer->at);
		assert(copy != NULL);
		memcpy(copy, peer->p + peer->at, end - peer->at);
		code = ws_feed(pool, &peer->in, limits, &handler, peer, copy, end - peer->at, &used);
		free(copy);
		assert(used <= end - peer->at && (used > 0 || code != 0));
		peer->at += used;
#ifdef FUZZ_PLANT_BUG
		/* As if the stash lost its byte: a cut inside the header of a frame with a 16-bit length. */
		if (peer->at < peer->len && ws_is_mid_message(peer->in) && peer->p[peer->at - 1] == 0x82 &&
		    peer->p[peer->at] == 0xfe)
			peer->p++, peer->len--;
#endif
		if (code != 0) {
			assert(code == 1002 || code == 1007 || code == 1009);
			report(peer, 0x20000u + (unsigned)code, "", 0);
			peer->is_over = true;
		} else if (peer->is_over) {
			mix(peer, &peer->at, sizeof(peer->at)); /* a Close is consumed, nothing behind it */
		}
		held = ws_held(peer->in, &opcode);
		if (held.p != NULL) {
			assert(!ws_is_mid_message(peer->in));
			report_message(peer, opcode, held.p, held.len);
			ws_held_done(pool, &peer->in);
		}
		assert(peer->is_over ? peer->in == NULL : held.p != NULL || peer->at == end);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ws_pool *pool, *fresh;
	struct ws_limits limits;
	struct peer peer[2] = {{0}}, whole[2];
	uint32_t seed;
	size_t half;

	if (size < 8)
		return 0;
	memcpy(&seed, data, sizeof(seed));
	seed |= 1;
	limits = (struct ws_limits){.max_message = data[4] % 2 ? 1000u : 200000u,
				    .max_fragments = data[5] % 16};
	half = (size - 8) * data[6] / 255;
	peer[0].p = data + 8;
	peer[0].len = half;
	peer[1].p = data + 8 + half;
	peer[1].len = size - 8 - half;
	peer[0].holds = data[7] & 0xf;
	peer[1].holds = data[7] >> 4;
	memcpy(whole, peer, sizeof(whole));

	pool = ws_pool_new(data[4] / 2 % 3, 0);
	fresh = ws_pool_new(0, 0);
	assert(pool != NULL && fresh != NULL);
	for (int i = 0; i < 2; i++) {
		whole[i].holds = 0;
		feed(fresh, &whole[i], &limits, SIZE_MAX);
		ws_reset(fresh, &whole[i].in);
	}
	for (int turn = 0;
	     (peer[0].at < peer[0].len && !peer[0].is_over) || (peer[1].at < peer[1].len && !peer[1].is_over);
	     turn ^= 1) {
		seed = seed * 1664525u + 1013904223u;
		feed(pool, &peer[turn], &limits, 1 + (seed >> 8) % (seed >> 30 ? 12 : 300));
		assert(ws_pool_borrowed(pool) <= 2);
		assert(ws_pool_memory(pool) <= 2 * (WS_PARSER_BYTES + 512) + 2 * size);
	}
	for (int i = 0; i < 2; i++) {
		ws_reset(pool, &peer[i].in);
		assert(peer[i].digest == whole[i].digest && peer[i].is_over == whole[i].is_over);
	}
	assert(ws_pool_memory(pool) == 0 && ws_pool_borrowed(pool) == 0);
	ws_pool_free(pool);
	ws_pool_free(fresh);
	return 0;
}
