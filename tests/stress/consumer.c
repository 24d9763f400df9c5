#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "shm/seg.h"
#include "tests/stress/stress.h"

#define LOST_NS                                                                                              \
	UINT64_C(2000000000) /* a record that waits longer while its consumer sleeps: a lost wake-up */

struct self {
	const struct consumer *c;
	struct ring ring;
	struct slot slot;
	uint64_t done, cursor, rng, last_up;
	uint64_t seq[CHANNELS];
	uint32_t nap;
	bool is_timed_out; /* it was not woken, but gave up waiting */
	bool is_end;
};

static enum consumer_end failed(const struct self *s, uint64_t pos, const struct rec *h, const char *what)
{
	printf("# worker %u (incarnation %u): %s at %#llx: channel %u seq %llu, expected %llu\n", s->c->w,
	       s->c->incarnation, what, (unsigned long long)pos, h == NULL ? 0u : h->ns,
	       h == NULL ? 0ull : (unsigned long long)h->seq,
	       h == NULL || h->ns >= CHANNELS ? 0ull : (unsigned long long)s->seq[h->ns] + 1);
	fflush(stdout);
	return CONSUMER_FAILED;
}

static int map(struct self *s)
{
	const struct consumer *c = s->c;
	uint8_t *data;

	if (c->ring != NULL) {
		s->ring = *c->ring;
		if (c->master_slot == NULL)
			return 0;
		s->slot = *c->master_slot;
		return ring_attach(&s->slot.data, s->slot.data.hdr, s->slot.data.data, s->slot.data.size);
	}
	data = seg_map_twice(c->ring_fd, SEG_PAGE, stress.ring_size, SEG_PAGE, PROT_READ);
	if (data == NULL ||
	    ring_attach(&s->ring, (struct ring_hdr *)(data - SEG_PAGE), data, stress.ring_size) == -1)
		return -1;
	return c->master_slot == NULL ? 0 : slot_attach(&s->slot, c->master_slot->fd, UPLINK_CONTROL_BYTES);
}

static bool must_die(const struct self *s)
{
	return s->c->must_die != NULL && atomic_load_explicit(s->c->must_die, memory_order_relaxed);
}

/* ---- what it sends up: numbers, each one more than the last */

static void push_up(struct self *s, bool want)
{
	struct up_rec h = {.type = UP_PUBLISH, .ns = 1, .total = (uint32_t)(s->last_up + 1)};
	uint64_t payload[UP_WORDS] = {s->last_up + 1, 0, s->last_up + 1}, one = 1;

	if (!uplink_push(&s->slot.data, &h, (struct slice){0},
			 (struct slice){(const char *)payload, sizeof(payload)}, want))
		return;
	s->last_up++;
	if (globals_must_wake(s->c->globals, &s->nap) && write(s->c->master_wake_fd, &one, sizeof(one)) == -1)
		perror("# write to the master's eventfd");
}

/* ---- what comes down */

static enum consumer_end take(struct self *s, uint64_t pos, const struct rec *h)
{
	const char *wrong;

	if (h->type == REC_FILLER || (h->type == REC_PUBLICATION && !content_concerns(s->c->w, h->ns)))
		return CONSUMER_DONE;
	if (h->type == REC_END) {
		for (unsigned i = 0; i < CHANNELS; i++) {
			if (content_concerns(s->c->w, i) &&
			    s->seq[i] != (uint32_t)(h->arg[i / 2] >> (i % 2 * 32)))
				return failed(s, pos, h, "messages missing at the end");
		}
		s->is_end = true;
		return CONSUMER_DONE;
	}
	/* Protected: read it in place. */
	wrong = content_check(pos, h, ring_at(&s->ring, pos));
	if (wrong != NULL)
		return failed(s, pos, h, wrong);
	if (h->seq != ++s->seq[h->ns])
		return s->seq[h->ns]--, failed(s, pos, h, "lost or repeated");
	if (s->is_timed_out && clock_mono_ns() - h->time_ns > LOST_NS)
		return failed(s, pos, h, "slept over a record");
	return CONSUMER_DONE;
}

static void set_cursor(struct self *s)
{
	if (s->done > s->cursor) {
		s->cursor = s->done;
		slot_set_cursor(&s->slot, s->cursor);
	}
}

static void pace(struct self *s)
{
	uint64_t r = random_next(&s->rng);

	if (r % 1024 < s->c->w)
		usleep((useconds_t)(r >> 32) % (500 * s->c->w));
	if (s->c->w % 2 == 0 || r % 4 == 0)
		set_cursor(s);
	if (r >> 10 & 1)
		push_up(s, false);
}

static enum consumer_end walk(struct self *s)
{
	uint64_t head, skip = slot_skip_to(&s->slot);

	head = ring_head(&s->ring);
	s->done = u64_max(s->done, skip);
	if (s->done > head)
		return failed(s, s->done, NULL, "skip_to beyond head");
	while (s->done < head && !s->is_end && !must_die(s)) {
		struct rec h;

		if (!rec_peek(&s->ring, s->done, &h)) {
			skip = slot_skip_to(&s->slot);
			if (skip <= s->done)
				return failed(s, s->done, NULL, "a header was lost, and nowhere to go");
			s->done = skip;
			head = ring_head(&s->ring);
			continue;
		}
		if (take(s, s->done, &h) == CONSUMER_FAILED)
			return CONSUMER_FAILED;
		s->done += h.len;
		pace(s);
	}
	set_cursor(s);
	return CONSUMER_DONE;
}

static bool is_idle(const struct self *s)
{
	uint64_t skip = slot_skip_to(&s->slot);

	return u64_max(s->done, skip) == ring_head(&s->ring);
}

static void sleep_once(struct self *s)
{
	struct pollfd p = {.fd = s->c->wake_fd, .events = POLLIN};
	uint64_t n;

	s->is_timed_out = false;
	slot_sleep(&s->slot);
	if (is_idle(s)) {
		s->is_timed_out = poll(&p, 1, s->c->must_die == NULL ? 4000 : 100) == 0;
		if (!s->is_timed_out && read(s->c->wake_fd, &n, sizeof(n)) == -1 && errno != EAGAIN)
			perror("# read of an eventfd");
	}
	slot_awake(&s->slot);
}

enum consumer_end consumer_run(const struct consumer *c)
{
	struct self s = {.c = c, .done = c->start, .cursor = c->start, .rng = c->seed};

	memcpy(s.seq, c->seq, sizeof(s.seq));
	if (map(&s) == -1)
		return failed(&s, 0, NULL, "cannot map");
	while (!must_die(&s)) {
		if (walk(&s) == CONSUMER_FAILED)
			return CONSUMER_FAILED;
		if (s.is_end)
			return CONSUMER_DONE;
		push_up(&s, true);
		sleep_once(&s);
		slot_beat(&s.slot);
	}
	return CONSUMER_KILLED;
}

/* ---- history */

/* Copy one record. 0: reclaimed; else its length, *wrong: what is wrong with it. */
static uint32_t copy(const struct self *s, uint64_t pos, uint8_t *to, struct rec *h, const char **wrong)
{
	*wrong = NULL;
	if (!rec_peek(&s->ring, pos, h))
		return 0;
	if (h->len > 2 * PAYLOAD_MAX || h->len % RING_ALIGN != 0 || h->len < sizeof(*h)) {
		*wrong = "a wrong length in a header proved whole";
		return 1;
	}
	if (!rec_copy(&s->ring, pos, 0, to, h->len))
		return 0;
	if (h->type == REC_PUBLICATION)
		*wrong = content_check(pos, h, to);
	else if (h->type != REC_FILLER && h->type != REC_END)
		*wrong = "a wrong type";
	return h->len;
}

/* From a record that was there, to the next by length or by chain, until it is lapped or has caught up. */
static enum consumer_end history_once(struct self *s, uint64_t *visits)
{
	static _Thread_local uint8_t to[2 * PAYLOAD_MAX + 8];
	uint64_t pos = s->done, next;
	const char *wrong;
	struct rec h;

	while (pos < ring_head(&s->ring) && !must_die(s)) {
		uint32_t len = copy(s, pos, to, &h, &wrong);

		if (wrong != NULL)
			return failed(s, pos, &h, wrong);
		if (len == 0)
			break;
		++*visits;
		if (h.type == REC_END) {
			s->is_end = true;
			return CONSUMER_DONE;
		}
		if (random_next(&s->rng) % 4 == 0 && h.type == REC_PUBLICATION) {
			if (!rec_next(&s->ring, pos, &next))
				break;
			if (next != 0 && (next <= pos || next >= pos + 4 * stress.ring_size))
				return failed(s, pos, &h, "a wrong next");
			pos = next != 0 ? next : pos + len;
		} else {
			pos += len;
		}
		if (random_next(&s->rng) % 256 == 0)
			usleep(200);
	}
	/* Begin again where the producer is now; sometimes a good way behind, at a start that is remembered.
	 */
	if (random_next(&s->rng) % 2 == 0)
		s->done = ring_head(&s->ring);
	return CONSUMER_DONE;
}

enum consumer_end historian_run(const struct consumer *c)
{
	struct self s = {.c = c, .done = c->start, .rng = c->seed};
	uint64_t visits = 0;

	if (map(&s) == -1)
		return failed(&s, 0, NULL, "cannot map");
	while (!s.is_end && !must_die(&s)) {
		if (history_once(&s, &visits) == CONSUMER_FAILED)
			return CONSUMER_FAILED;
		if (s.done < ring_reclaim(&s.ring))
			s.done = ring_head(&s.ring);
		usleep(20);
	}
	printf("# historian: %llu records copied and found right\n", (unsigned long long)visits);
	fflush(stdout);
	return CONSUMER_DONE;
}
