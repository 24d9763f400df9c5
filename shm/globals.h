/* globals.h - what the master tells all workers about itself: one segment, written by the master alone, read-only in
 * the workers. Numbers are relaxed atomics unless a label stands beside them. Strings are written before the workers
 * that read them are forked, or published by the count in front of them.
 */
#ifndef RC_GLOBALS_H
#define RC_GLOBALS_H

#include <string.h>

#include "common/config.h"
#include "shm/slot.h"

#define GLOBALS_MAGIC  UINT64_C(0x31626f6c67637272)
#define GLOBALS_LAYOUT 1u

enum worker_state { WORKER_EMPTY, WORKER_BOOT, WORKER_SERVE, WORKER_DRAIN };

struct globals_worker {
	_Atomic uint32_t pid, generation, state /* enum worker_state */, restarts;
	_Atomic uint64_t gate; /* ring position, as of the master's last tick: lag = head - gate */
};

struct globals {
	uint64_t magic;
	uint32_t layout;
	uint32_t master_pid;
	uint64_t origin;   /* random per master start; also "node" and the epoch's base */
	uint64_t hash_key; /* rec_channel_hash() */
	uint64_t start_ms; /* CLOCK_MONOTONIC at start */
	uint8_t pad0[RING_LINE - 40];

	/* Odd while the master sleeps in its loop. A worker that has pushed to an uplink and finds it odd writes the
	 * master's eventfd, once per value (S1/S2 of slot.h with the roles exchanged). */
	_Atomic uint32_t nap;
	uint8_t pad1[RING_LINE - 4];

	_Atomic uint32_t generation;
	_Atomic uint32_t workers;       /* positions configured */
	_Atomic uint32_t is_subscribed; /* configured Redis channels are subscribed; 1 in local mode */
	_Atomic uint32_t is_redis;      /* mode: 1 = Redis configured */
	_Atomic uint32_t redis_up;      /* both links */
	_Atomic uint32_t redis_state;   /* bit 0: subscriber link up, bit 1: publisher link up */
	_Atomic uint32_t redis_channels;
	_Atomic uint32_t is_stopping;
	_Atomic uint32_t n_slots; /* globals_slots(): slots before it have had a worker, for those who read all counters: those of
				    * the others are pages that even a look would make */
	_Atomic uint64_t redis_rtt_us, redis_pending_messages, redis_pending_bytes;
	_Atomic uint64_t redis_address[20]; /* globals_address() */
	_Atomic uint32_t cluster_nodes; /* live replicas, this one included */
	_Atomic uint64_t cluster_connections, cluster_users[CFG_MAX_NAMESPACES]; /* sums of what they say */

	_Atomic uint32_t n_namespaces; /* release / acquire: the names below it are written */
	char namespaces[CFG_MAX_NAMESPACES][CFG_NAME_MAX + 1];

	struct globals_worker worker[SLOT_MAX]; /* by slot */
};

#define GLOBALS_ADDRESS_MAX 160u

/* The address of the Redis server as text, for people: it changes at a fail-over, and who reads it in that very moment may
 * see some of both. Relaxed, in words; the last byte is always 0. */
static inline void globals_set_address(struct globals *g, const char *text)
{
	char bytes[GLOBALS_ADDRESS_MAX] = {0};
	uint64_t word;

	memcpy(bytes, text, strnlen(text, sizeof(bytes) - 1));
	for (size_t i = 0; i < ARRAY_LEN(g->redis_address); i++) {
		memcpy(&word, bytes + i * sizeof(word), sizeof(word));
		atomic_store_explicit(&g->redis_address[i], word, memory_order_relaxed);
	}
}

static inline const char *globals_address(const struct globals *g, char dst[GLOBALS_ADDRESS_MAX])
{
	uint64_t word;

	for (size_t i = 0; i < ARRAY_LEN(g->redis_address); i++) {
		word = atomic_load_explicit(&g->redis_address[i], memory_order_relaxed);
		memcpy(dst + i * sizeof(word), &word, sizeof(word));
	}
	return dst;
}

static inline unsigned globals_slots(const struct globals *g)
{
	return (unsigned)u64_min(atomic_load_explicit(&g->n_slots, memory_order_relaxed), SLOT_MAX);
}

#define GLOBALS_BYTES ALIGN_UP(sizeof(struct globals), 4096u)

/* S1 with the master as sleeper: called before it blocks; it then looks at all uplinks once more. */
static inline void globals_nap(struct globals *g)
{
	SHM_STORE_RLX(S1, &g->nap, (SHM_LOAD_RLX(S1, &g->nap) + 1) | 1);
	SHM_FENCE(S1);
}

static inline void globals_awake(struct globals *g)
{
	SHM_STORE_RLX(S1, &g->nap, (SHM_LOAD_RLX(S1, &g->nap) + 1) & ~1u);
}

/* Worker, after uplink pushes: does the master's eventfd have to be written? *last: the caller's memory of the nap
 * that it has ended already. */
static inline bool globals_must_wake(const struct globals *g, uint32_t *last)
{
	uint32_t nap;

	SHM_FENCE(S2); /* S2, pairs with S1 of globals_nap */
	nap = SHM_LOAD_RLX(S2, &g->nap);
	if ((nap & 1) == 0 || nap == *last)
		return false;
	*last = nap;
	return true;
}

#endif
