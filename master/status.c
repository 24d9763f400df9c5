#include "master/status.h"

#include <string.h>
#ifdef RC_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "common/clock.h"
#include "common/log.h"
#include "common/resident.h"

#define RING_FULL_LOG_MS 10000u
#define MEMORY_MS        1000u /* between two looks at what is allocated */

/* Numbers in the globals stand for themselves: relaxed. */
#define SET(field, value) atomic_store_explicit(&m->globals->field, (value), memory_order_relaxed)

void status_worker(struct master *m, const struct child *c)
{
	bool is_alive = c->state != WORKER_EMPTY && c->pid != 0;

	SET(worker[c->slot].pid, is_alive ? (uint32_t)c->pid : 0);
	SET(worker[c->slot].generation, is_alive ? c->generation->number : 0);
	SET(worker[c->slot].gate, seq_head(&m->seq));
	SET(worker[c->slot].state, is_alive ? c->state : WORKER_EMPTY);
}

void status_slot(struct master *m, uint16_t slot)
{
	if (slot >= globals_slots(m->globals))
		SET(n_slots, slot + 1u);
}

void status_restarted(struct master *m, uint16_t slot)
{
	SET(worker[slot].restarts,
	    atomic_load_explicit(&m->globals->worker[slot].restarts, memory_order_relaxed) + 1);
}

void status_master(struct master *m)
{
	SET(generation, m->generation->number);
	SET(workers, m->generation->config->workers);
	SET(is_stopping, m->phase != MASTER_SERVE);
}

void status_redis(struct master *m, const struct redis_stats *s, bool is_subscribed)
{
	SET(is_redis, m->redis != NULL);
	SET(is_subscribed, is_subscribed);
	if (m->redis == NULL)
		return;
	SET(redis_up, s->up);
	SET(redis_state, (s->sub_up ? 1u : 0u) | (s->pub_up ? 2u : 0u));
	SET(redis_channels, s->channels);
	SET(redis_rtt_us, s->rtt_us);
	SET(redis_pending_messages, s->pending_messages);
	SET(redis_pending_bytes, s->pending_bytes);
	globals_set_address(m->globals, s->address);
	count_set(&m->count->redis_reconnects, s->reconnects);
	count_set(&m->count->redis_gaps, s->gaps);
	count_set(&m->count->redis_given_up, s->given_up);
	count_set(&m->count->redis_duplicates, s->duplicates);
}

void status_ring_full(struct master *m)
{
	uint64_t now = clock_mono_ms();

	if (m->ring_full_logged_ms != 0 && now - m->ring_full_logged_ms < RING_FULL_LOG_MS)
		return;
	m->ring_full_logged_ms = now;
	log_event(LOG_WARN, "ring_full", "total=%llu msg=\"publications wait for the slowest worker\"",
		  (unsigned long long)m->seq.n_full);
}

/* jemalloc adds up all its arenas for an answer: not with each tick. */
static void count_memory(struct master *m)
{
#ifdef RC_JEMALLOC
	uint64_t epoch = 1, now = clock_mono_ms();
	size_t allocated, size = sizeof(allocated);

	if (now - m->memory_ms < MEMORY_MS)
		return;
	m->memory_ms = now;
	if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) == 0 &&
	    mallctl("stats.allocated", &allocated, &size, NULL, 0) == 0)
		count_set(&m->count->jemalloc_allocated, allocated);
#else
	(void)m;
#endif
}

void status_tick(struct master *m)
{
	struct retained_stats kept;

	for (unsigned i = 0; i < m->seq.n_live; i++) {
		const struct seq_reader *r = &m->seq.reader[m->seq.live[i]];

		SET(worker[r->index].gate, u64_max(slot_cursor(r->slot), r->skip_to));
	}
	count_memory(m);
	if (m->generation->config->memory_limit != 0)
		count_set(&m->count->memory, resident_private());
	if (m->seq.retained != NULL) {
		retained_get_stats(m->seq.retained, &kept);
		count_set(&m->count->retained_evicted, kept.evicted);
	}
}
