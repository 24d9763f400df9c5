#include "worker/memory.h"

#ifdef RC_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "common/resident.h"

#define FRESH_MS 50u
#define PURGE_MS 1000u

void memory_tick(struct worker *w)
{
	if (w->config->memory_limit == 0)
		return;
	count_set(&w->count->memory, resident_private());
	w->resident_ms = w->now_ms;
}

static uint64_t memory_of_all(const struct worker *w)
{
	uint64_t n = w->config->ring.size +
		     count_get(&counters_block(w->all_counters, COUNTERS_MASTER_BLOCK)->memory);

	for (unsigned i = 0; i < globals_slots(w->globals); i++)
		n += count_get(&counters_block(w->all_counters, i)->memory);
	return n;
}

/* jemalloc gives back what was freed while others allocate: with nobody let in, that would be never. */
static void give_back(struct worker *w)
{
#ifdef RC_JEMALLOC
#define ARENAS_(n) "arena." #n ".purge"
#define ARENAS(n)  ARENAS_(n)
	if (w->now_ms - w->purged_ms < PURGE_MS)
		return;
	w->purged_ms = w->now_ms;
	if (mallctl(ARENAS(MALLCTL_ARENAS_ALL), NULL, NULL, NULL, 0) == 0)
		memory_tick(w);
#else
	(void)w;
#endif
}

bool memory_is_short(struct worker *w)
{
	uint64_t limit = w->config->memory_limit;

	if (limit == 0)
		return false;
	if (w->now_ms - w->resident_ms >= FRESH_MS) {
		memory_tick(w);
		if (memory_of_all(w) >= limit - limit / 32)
			give_back(w);
		w->is_memory_short = memory_of_all(w) >= limit - limit / 32;
	}
	return w->is_memory_short;
}
