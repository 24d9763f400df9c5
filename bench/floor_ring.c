/* floor_ring.c - the floor's parent hands frames to its workers. */
#include "bench/floor.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/wsframe.h"

static uint64_t slowest(const struct floor_shared *sh, uint32_t workers)
{
	uint64_t min = UINT64_MAX;

	for (uint32_t i = 0; i < workers; i++)
		min = u64_min(min, atomic_load(&sh->slot[i].cursor));
	return min;
}

/* May bytes [at, at + n) be overwritten? Not while a message in them is still to be sent. */
static bool is_free(const struct floor_shared *sh, uint64_t first, uint64_t head, uint32_t at, uint64_t n)
{
	uint32_t low, high;

	if (first == head)
		return true;
	if (head - first >= FLOOR_INDEX)
		return false;
	low = sh->begin[first % FLOOR_INDEX];
	high = sh->end[(head - 1) % FLOOR_INDEX];
	if (low < high)
		return at >= high || at + n <= low;
	return at >= high && at + n <= low;
}

int floor_wake(struct floor_shared *sh, uint32_t workers)
{
	const uint64_t one = 1;

	for (uint32_t i = 0; i < workers; i++) {
		if (!atomic_load(&sh->slot[i].asleep) || !atomic_exchange(&sh->slot[i].asleep, 0))
			continue;
		if (write(sh->slot[i].wake_fd, &one, sizeof(one)) == -1 && errno != EAGAIN)
			return -1;
	}
	return 0;
}

int floor_put(const struct floor_opts *o, struct floor_shared *sh, uint32_t channel, const void *payload,
	      size_t len)
{
	const struct timespec nap = {.tv_nsec = 50000};
	const uint64_t head = atomic_load_explicit(&sh->head, memory_order_relaxed);
	const uint64_t need = WS_HEADER_MAX + len, until = clock_mono_ms() + 2 * SEND_WAIT_MS;
	uint32_t at = head ? sh->end[(head - 1) % FLOOR_INDEX] : 0;
	size_t n;

	if (need > FLOOR_BYTES / 2)
		return -1;
	if (at + need > FLOOR_BYTES)
		at = 0;
	while (!is_free(sh, slowest(sh, o->workers), head, at, need)) {
		if (floor_wake(sh, o->workers) == -1 || clock_mono_ms() > until || floor_stop)
			return -1;
		nanosleep(&nap, NULL);
	}
	n = ws_header_put(sh->bytes + at, o->binary ? WS_BINARY : WS_TEXT, len);
	memcpy(sh->bytes + at + n, payload, len);
	sh->begin[head % FLOOR_INDEX] = at;
	sh->end[head % FLOOR_INDEX] = at + (uint32_t)(n + len);
	sh->channel[head % FLOOR_INDEX] = channel;
	atomic_store(&sh->head, head + 1); /* seq_cst: before the look at `asleep`, see worker_sleep() */
	return 0;
}
