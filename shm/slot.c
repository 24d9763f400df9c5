#include "shm/slot.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/seg.h"
#include "shm/uplink.h"

#define UPLINK_START_LAPS 1 /* positions start one lap in: none is ever 0 */

static size_t data_offset(void)
{
	return SEG_PAGE + UPLINK_CONTROL_BYTES;
}

/* Page 0 together with the control uplink, and the data uplink, as two mappings. */
static int map_all(struct slot *s, uint8_t **control, uint8_t **data, uint64_t uplink_size)
{
	*control = seg_map_twice(s->fd, SEG_PAGE, UPLINK_CONTROL_BYTES, SEG_PAGE, PROT_READ | PROT_WRITE);
	if (*control == NULL)
		return -1;
	*data = seg_map_twice(s->fd, data_offset(), uplink_size, 0, PROT_READ | PROT_WRITE);
	if (*data == NULL) {
		int saved = errno;

		seg_unmap_twice(*control, UPLINK_CONTROL_BYTES, SEG_PAGE);
		errno = saved;
		return -1;
	}
	s->sh = (struct slot_shared *)(*control - SEG_PAGE);
	return 0;
}

int slot_create(struct slot *s, uint16_t index, uint32_t incarnation, uint64_t start, uint64_t uplink_size)
{
	uint8_t *control, *data;

	*s = (struct slot){.fd = seg_create("ringcast-slot", data_offset() + uplink_size)};
	if (s->fd == -1)
		return -1;
	if (map_all(s, &control, &data, uplink_size) == -1) {
		slot_close(s);
		return -1;
	}
	ring_init(&s->control, &s->sh->control, control, UPLINK_CONTROL_BYTES, UPLINK_START_LAPS * UPLINK_CONTROL_BYTES);
	ring_init(&s->data, &s->sh->data, data, uplink_size, UPLINK_START_LAPS * uplink_size);
	if (seg_keep_from_children(s->sh, SEG_PAGE + 2 * UPLINK_CONTROL_BYTES) == -1 ||
	    seg_keep_from_children(data, 2 * uplink_size) == -1) {
		slot_close(s);
		return -1;
	}
	s->sh->layout = SLOT_LAYOUT;
	s->sh->index = index;
	s->sh->incarnation = incarnation;
	s->sh->start = start;
	SHM_STORE_RLX(G1, &s->sh->cursor, start);
	SHM_STORE_RLX(K1, &s->sh->skip_to, start);
	s->sh->magic = SLOT_MAGIC;
	return 0;
}

int slot_attach(struct slot *s, int fd, uint64_t uplink_size)
{
	uint8_t *control, *data;

	*s = (struct slot){.fd = fd};
	if (map_all(s, &control, &data, uplink_size) == -1) {
		s->fd = -1;
		return -1;
	}
	/* The header pages first: of a segment made with another uplink size the rest may not exist. */
	if (s->sh->magic != SLOT_MAGIC || s->sh->layout != SLOT_LAYOUT ||
	    ring_attach(&s->control, &s->sh->control, control, UPLINK_CONTROL_BYTES) == -1 ||
	    ring_attach(&s->data, &s->sh->data, data, uplink_size) == -1) {
		seg_unmap_twice(control, UPLINK_CONTROL_BYTES, SEG_PAGE);
		seg_unmap_twice(data, uplink_size, 0);
		*s = (struct slot){.fd = -1};
		errno = EPROTO;
		return -1;
	}
	close(fd);
	s->fd = -1;
	return 0;
}

void slot_close(struct slot *s)
{
	int saved = errno;

	if (s->control.data != NULL)
		seg_unmap_twice(s->control.data, s->control.size, SEG_PAGE);
	if (s->data.data != NULL)
		seg_unmap_twice(s->data.data, s->data.size, 0);
	if (s->fd != -1)
		close(s->fd);
	*s = (struct slot){.fd = -1};
	errno = saved;
}
