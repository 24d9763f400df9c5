#include "worker/latest.h"

#include <stdlib.h>
#include <string.h>

#include "common/wsframe.h"
#include "worker/worker.h"

#define INDEX_MIN 64u

struct latest_frame {
	uint32_t len, cap;
	uint8_t bytes[];
};

static int reserve_index(struct latest_table *t, uint32_t index)
{
	uint32_t n = t->n == 0 ? INDEX_MIN : t->n;
	struct latest_frame **v;

	if (index < t->n)
		return 0;
	while (n <= index)
		n *= 2;
	v = realloc(t->v, n * sizeof(struct latest_frame *));
	if (v == NULL)
		return -1;
	memset(v + t->n, 0, (n - t->n) * sizeof(struct latest_frame *));
	t->v = v;
	t->n = n;
	return 0;
}

void latest_drop(struct worker *w, uint32_t channel)
{
	struct latest_table *t = &w->latest;

	if (channel >= t->n || t->v[channel] == NULL)
		return;
	t->bytes -= sizeof(*t->v[channel]) + t->v[channel]->cap;
	free(t->v[channel]);
	t->v[channel] = NULL;
}

/* A busy channel's messages are much of a size: the memory of the one before does. */
static struct latest_frame *room_for(struct worker *w, uint32_t channel, uint32_t len)
{
	struct latest_table *t = &w->latest;
	struct latest_frame *f = channel < t->n ? t->v[channel] : NULL;

	if (f != NULL && f->cap >= len && f->cap <= 2 * len + 64)
		return f;
	latest_drop(w, channel);
	if (t->bytes + sizeof(*f) + len > LATEST_BYTES || reserve_index(t, channel) == -1 ||
	    (f = malloc(sizeof(*f) + len)) == NULL)
		return NULL;
	f->cap = len;
	t->v[channel] = f;
	t->bytes += sizeof(*f) + len;
	return f;
}

void latest_set(struct worker *w, uint32_t channel, uint8_t opcode, struct slice payload)
{
	const struct channel *ch = channel_at(&w->channels, channel);
	struct latest_frame *f;
	size_t header;

	if (w->config->namespaces[ch->ns].retain != CFG_RETAIN_LAST)
		return;
	header = ws_header_size(payload.len);
	f = room_for(w, channel, (uint32_t)(header + payload.len));
	if (f == NULL) {
		count_add(&w->count->retained_evicted, 1);
		return;
	}
	ws_header_put(f->bytes, opcode, payload.len);
	if (payload.len > 0)
		memcpy(f->bytes + header, payload.p, payload.len);
	f->len = (uint32_t)(header + payload.len);
}

struct slice latest_get(const struct worker *w, uint32_t channel)
{
	const struct latest_table *t = &w->latest;

	if (channel >= t->n || t->v[channel] == NULL)
		return (struct slice){0};
	return (struct slice){(const char *)t->v[channel]->bytes, t->v[channel]->len};
}

void latest_free(struct worker *w)
{
	for (uint32_t i = 0; i < w->latest.n; i++)
		free(w->latest.v[i]);
	free(w->latest.v);
	w->latest = (struct latest_table){0};
}
