/* shm_rig.h - a ring in fresh memory, mapped as the server maps it. For the unit tests of shm/. */
#ifndef TEST_SHM_RIG_H
#define TEST_SHM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/record.h"
#include "shm/seg.h"

struct shm_rig {
	struct ring producer, reader;
	uint8_t *data;
	uint64_t size;
	int fd;
};

/* A header page and `size` bytes of region, as the broadcast ring has them; positions begin at `start`. */
static inline void rig_open(struct shm_rig *g, uint64_t size, uint64_t start)
{
	g->size = size;
	g->fd = seg_create("test-ring", SEG_PAGE + size);
	assert_int_not_equal(g->fd, -1);
	g->data = seg_map_twice(g->fd, SEG_PAGE, size, SEG_PAGE, PROT_READ | PROT_WRITE);
	assert_non_null(g->data);
	ring_init(&g->producer, (struct ring_hdr *)(g->data - SEG_PAGE), g->data, size, start);
	assert_int_equal(ring_attach(&g->reader, (struct ring_hdr *)(g->data - SEG_PAGE), g->data, size), 0);
}

static inline void rig_close(struct shm_rig *g)
{
	seg_unmap_twice(g->data, g->size, SEG_PAGE);
	close(g->fd);
}

/* `len` bytes of `fill` at head, whatever they mean. */
static inline uint64_t rig_put(struct shm_rig *g, uint32_t len, uint8_t fill, uint64_t gate)
{
	uint8_t bytes[65536];

	assert_true(len <= sizeof(bytes));
	memset(bytes, fill, len);
	ring_store(ring_reserve(&g->producer, len, gate), bytes, len);
	return ring_commit(&g->producer, len);
}

#endif
