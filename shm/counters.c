#include "shm/counters.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "shm/seg.h"

#define X(f, ...) #f,
const char *const count_closed_names[COUNT_CLOSED_N] = {COUNTERS_CLOSED(X)};
const char *const count_refused_names[COUNT_REFUSED_N] = {COUNTERS_REFUSED(X)};
const char *const count_dropped_names[COUNT_DROPPED_N] = {COUNTERS_DROPPED(X)};
#undef X

enum count_closed count_closed_index(unsigned code)
{
	for (int i = 0; i < COUNT_CLOSED_other; i++) {
		if (strtoul(count_closed_names[i], NULL, 10) == code)
			return (enum count_closed)i;
	}
	return COUNT_CLOSED_other;
}

int counters_create(void)
{
	return seg_create("ringcast-counters", COUNTERS_BYTES);
}

struct counters *counters_map_block(int fd, unsigned block)
{
	return seg_map(fd, (size_t)block * COUNTERS_BLOCK, COUNTERS_BLOCK, PROT_READ | PROT_WRITE);
}

const uint8_t *counters_map_all(int fd)
{
	return seg_map(fd, 0, COUNTERS_BYTES, PROT_READ);
}

void counters_zero_gauges(struct counters *c)
{
	count_add(&c->closed[COUNT_CLOSED_1006], count_get(&c->connections));
#define X(f, ...) count_set(&c->f, 0);
	COUNTERS_GAUGE(X)
#undef X
	for (size_t i = 0; i < ARRAY_LEN(c->ns); i++) {
#define X(f, ...) count_set(&c->ns[i].f, 0);
		COUNTERS_NS_GAUGE(X)
#undef X
	}
}
