#include "master/redis_pending.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "master/redis_form.h"
#include "master/redis_resp.h"

#define PAYLOAD_MAX (512u << 20)

static const char publish[] = "*3\r\n$7\r\nPUBLISH\r\n";

/* Upper bound of the command's length: the two heads are counted at their longest. */
static size_t cmd_room(const struct redis_entry_spec *spec)
{
	return sizeof(publish) - 1 + RESP_HEAD_MAX + REDIS_META_PREFIX_LEN + strlen(spec->channel) + 2 +
	       RESP_HEAD_MAX + REDIS_FORM_HEADER + spec->payload.len + 2;
}

size_t redis_entry_cost(const struct redis_entry_spec *spec)
{
	return sizeof(struct redis_entry) + cmd_room(spec) + spec->room.len;
}

static char *put(char *at, const void *p, size_t len)
{
	if (len > 0)
		memcpy(at, p, len);
	return at + len;
}

static void write_command(struct redis_entry *e, const struct redis_entry_spec *spec)
{
	size_t channel_len = strlen(spec->channel);
	size_t prefix_len = spec->is_bare ? 0 : REDIS_META_PREFIX_LEN;
	size_t header_len = spec->is_bare ? 0 : REDIS_FORM_HEADER;
	char *at = e->cmd;

	at = put(at, publish, sizeof(publish) - 1);
	at += resp_head(at, '$', prefix_len + channel_len);
	at = put(at, REDIS_META_PREFIX, prefix_len);
	e->channel_at = (uint16_t)(at - e->cmd);
	e->channel_len = (uint16_t)channel_len;
	at = put(at, spec->channel, channel_len);
	at = put(at, "\r\n", 2);
	at += resp_head(at, '$', header_len + spec->payload.len);
	if (!spec->is_bare)
		redis_form_put((uint8_t *)at, spec->opcode | (spec->token.asks ? REDIS_FORM_ASKS : 0),
			       spec->origin, spec->id);
	at += header_len;
	e->payload_at = (uint32_t)(at - e->cmd);
	e->payload_len = (uint32_t)spec->payload.len;
	at = put(at, spec->payload.p, spec->payload.len);
	at = put(at, "\r\n", 2);
	e->cmd_len = (uint32_t)(at - e->cmd);
	(void)put(at, spec->room.p, spec->room.len);
	e->room_len = (uint16_t)spec->room.len;
}

static uint64_t cost_of(const struct redis_entry *e)
{
	return sizeof(*e) + e->cmd_len + e->room_len;
}

static void append(struct redis_pending *p, struct redis_entry *e)
{
	e->next = NULL;
	e->prev = p->tail;
	*(p->tail == NULL ? &p->head : &p->tail->next) = e;
	p->tail = e;
	if (p->next_send == NULL)
		p->next_send = e;
	if (p->next_echo == NULL)
		p->next_echo = e;
	p->count++;
	p->bytes += cost_of(e);
}

struct redis_entry *redis_pending_add(struct redis_pending *p, const struct redis_entry_spec *spec)
{
	struct redis_entry *e;

	assert(spec->payload.len <= PAYLOAD_MAX && spec->room.len <= UINT16_MAX);
	e = malloc(redis_entry_cost(spec));
	if (e == NULL)
		return NULL;
	e->id = spec->id;
	e->time_ns = spec->time_ns;
	e->sub = spec->sub;
	e->token = spec->token;
	e->ns = spec->ns;
	e->opcode = spec->opcode;
	e->flags = 0;
	write_command(e, spec);
	if (e->sub != NULL)
		e->sub->pending++;
	append(p, e);
	return e;
}

void redis_pending_sent(struct redis_pending *p)
{
	struct redis_entry *e = p->next_send;

	if (p->inflight++ == 0)
		p->next_reply = e;
	e->flags = (uint8_t)((e->flags | ENTRY_INFLIGHT) & ~(ENTRY_REPLIED | ENTRY_RESEND));
	p->next_send = e->next;
}

struct redis_entry *redis_pending_replied(struct redis_pending *p)
{
	struct redis_entry *e = p->next_reply;

	if (p->inflight == 0)
		return NULL;
	p->inflight--;
	p->next_reply = e->next;
	e->flags = (uint8_t)((e->flags | ENTRY_REPLIED) & ~ENTRY_INFLIGHT);
	return e;
}

struct redis_entry *redis_pending_find(struct redis_pending *p, uint64_t id, struct redis_entry **missed)
{
	struct redis_entry *e;

	*missed = NULL;
	for (e = p->next_echo; e != NULL && e->id < id; e = e->next)
		if (*missed == NULL && (e->flags & (ENTRY_WANTED | ENTRY_ECHOED)) == ENTRY_WANTED)
			*missed = e;
	/* Those passed over may be looked at again when they were missed; p->next_echo moves on all the same,
	 * for their echoes can only come after a rewind. */
	p->next_echo = e;
	return e != NULL && e->id == id ? e : NULL;
}

bool redis_entry_is_done(const struct redis_entry *e)
{
	if (e->flags & ENTRY_INFLIGHT)
		return false;
	if (e->flags & ENTRY_ECHOED)
		return true;
	return (e->flags & (ENTRY_REPLIED | ENTRY_RESEND | ENTRY_WANTED)) == ENTRY_REPLIED;
}

static void step_over(struct redis_entry **at, const struct redis_entry *e)
{
	if (*at == e)
		*at = e->next;
}

void redis_pending_remove(struct redis_pending *p, struct redis_entry *e)
{
	assert(!(e->flags & ENTRY_INFLIGHT));
	step_over(&p->next_send, e);
	step_over(&p->next_echo, e);
	step_over(&p->next_local, e);
	*(e->prev == NULL ? &p->head : &e->prev->next) = e->next;
	*(e->next == NULL ? &p->tail : &e->next->prev) = e->prev;
	p->count--;
	p->bytes -= cost_of(e);
	if (e->sub != NULL)
		e->sub->pending--;
	free(e);
}

void redis_pending_mark(struct redis_pending *p)
{
	for (struct redis_entry *e = p->head; e != NULL; e = e->next)
		if (!(e->flags & ENTRY_ECHOED))
			e->flags |= ENTRY_RESEND;
}

void redis_pending_unsend(struct redis_pending *p)
{
	for (struct redis_entry *e = p->head; e != NULL; e = e->next)
		e->flags &= (uint8_t)~ENTRY_INFLIGHT;
	p->inflight = 0;
	p->next_reply = NULL;
	p->next_send = p->next_echo = p->head;
}

void redis_pending_rewind(struct redis_pending *p)
{
	assert(p->inflight == 0);
	for (struct redis_entry *e = p->head; e != NULL; e = e->next)
		e->flags &= (uint8_t) ~(ENTRY_REPLIED | ENTRY_RESEND);
	p->next_send = p->next_echo = p->head;
}

void redis_pending_free(struct redis_pending *p)
{
	struct redis_entry *e = p->head, *next;

	for (; e != NULL; e = next) {
		next = e->next;
		free(e);
	}
	*p = (struct redis_pending){0};
}
