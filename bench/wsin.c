/* wsin.c - frames out of a byte stream, in place. */
#include "bench/wsin.h"

#include <endian.h>
#include <string.h>

#include "common/wsframe.h"

struct head {
	uint8_t fin_op;
	uint8_t size;
	uint64_t len;
};

/* The frame header at p. Returns 1, 0 if it is not complete, -1 if it is none that a server may send. */
static int head_get(const uint8_t *p, size_t n, struct head *h)
{
	if (n < 2)
		return 0;
	h->fin_op = p[0];
	if (p[0] & 0x70 || p[1] & 0x80)
		return -1;
	h->len = p[1];
	h->size = 2;
	if (h->len == 126) {
		uint16_t v;

		if (n < 4)
			return 0;
		memcpy(&v, p + 2, 2);
		h->len = be16toh(v);
		h->size = 4;
	} else if (h->len == 127) {
		uint64_t v;

		if (n < 10)
			return 0;
		memcpy(&v, p + 2, 8);
		h->len = be64toh(v);
		h->size = 10;
	}
	if (p[0] & 0x08 && (h->len > 125 || !(p[0] & 0x80)))
		return -1;
	return h->len >> 63 ? -1 : 1;
}

/* One frame's header and as much of its payload as is there. Returns the bytes used, 0 if more are needed
 * first, -1 to give up. */
static ssize_t frame_take(struct wsin *w, const uint8_t *p, size_t n, const struct wsin_ops *ops, void *arg)
{
	uint64_t need, have;
	struct head h;
	int rc = head_get(p, n, &h);

	if (rc <= 0)
		return rc;
	need = h.fin_op & 0x08 ? h.len : u64_min(h.len, ops->head);
	if (n - h.size < need)
		return 0;
	have = u64_min(h.len, n - h.size);
	if (!ops->frame(arg, h.fin_op, p + h.size, h.len, have))
		return -1;
	w->rem = h.len - have;
	if (w->rem == 0 && !(h.fin_op & 0x08) && !ops->end(arg))
		return -1;
	return (ssize_t)(h.size + have);
}

static ssize_t body_take(struct wsin *w, const uint8_t *p, size_t n, const struct wsin_ops *ops, void *arg)
{
	uint64_t part = u64_min(w->rem, n);

	ops->more(arg, p, part);
	w->rem -= part;
	if (w->rem == 0 && !ops->end(arg))
		return -1;
	return (ssize_t)part;
}

int wsin_feed(struct wsin *w, uint8_t *p, size_t n, const struct wsin_ops *ops, void *arg)
{
	p -= w->stash_len;
	n += w->stash_len;
	memcpy(p, w->stash, w->stash_len);
	w->stash_len = 0;
	while (n > 0) {
		ssize_t used = w->rem ? body_take(w, p, n, ops, arg) : frame_take(w, p, n, ops, arg);

		if (used < 0)
			return -1;
		if (used == 0)
			break;
		p += used;
		n -= (size_t)used;
	}
	memcpy(w->stash, p, n); /* less than one header, control payload or data head: always fits */
	w->stash_len = (uint16_t)n;
	return 0;
}
