/* load_roles.c - clients that do other things than read: churn, pause, slow readers, storms (load_conn.h). */
#include <errno.h>

#include "bench/load_conn.h"
#include "common/clock.h"

#define SLOW_PART  2048 /* bytes for which a slow client reads: with less it waits up to 1/20 s for more */
#define STORM_PART 256  /* connections of a storm that are begun in one turn: answers come, too */

static void tick_churn(struct receiver *r, struct conn *c)
{
	const bool idle = c->state == CONN_NONE || c->state == CONN_GONE;

	if (idle && r->want_churn && r->now_ns >= c->since_ns) {
		conn_start(r, c, r->now_ns);
	} else if (c->state == CONN_OPEN && (c->aimed || r->now_ns >= c->since_ns || !r->want_churn)) {
		if (!c->aimed)
			check_aim(r, c);
		c->aimed = true; /* leaves as soon as it has all that was published by now */
		if (r->o->no_check || r->o->source == SOURCE_NONE || check_reached(r, c))
			conn_leave(r, c, receiver_random(r, 2));
	} else if (c->state == CONN_LEAVING && r->now_ns >= c->since_ns) {
		r->res->leaves++;
		receiver_why(r, "connection %u: its Close was not answered", c->index);
		conn_gone(r, c, END_RESET);
	}
}

static void tick_pause(struct receiver *r, struct conn *c)
{
	if (c->state != CONN_OPEN || r->phase != PHASE_PUBLISH || r->now_ns < c->since_ns)
		return;
	if (c->paused)
		conn_resume(r, c);
	else
		conn_pause(r, c);
	c->since_ns = r->now_ns + r->o->pause_ms * 1000000ull;
}

/* It reads what its rate allows since the last read, in small parts, since its window is small; and saves up
 * no more than a tenth of a second's worth. */
static void tick_slow(struct receiver *r, struct conn *c)
{
	const uint64_t rate = r->o->slow_bytes;
	uint64_t may;

	if (c->state != CONN_OPEN || !c->paused)
		return;
	may = (uint64_t)((double)(r->now_ns - c->since_ns) * 1e-9 * (double)rate);
	if (may < u64_max(1, u64_min(rate / 20, SLOW_PART)))
		return;
	c->since_ns = r->now_ns;
	(void)conn_read(r, c, u64_min(u64_min(may, rate / 10 + 1), READ_SIZE));
}

static void tick_storm(struct receiver *r, struct conn *c)
{
	if (c->storming && c->state == CONN_GONE && c->place < r->storm_next && r->now_ns >= c->since_ns)
		conn_start(r, c, r->now_ns); /* refused before */
}

/* The special roles stand behind all steady ones. */
void roles_tick(struct receiver *r)
{
	for (uint32_t i = r->n_conns; i-- > 0;) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_STEADY)
			break;
		if (c->role == ROLE_CHURN)
			tick_churn(r, c);
		else if (c->role == ROLE_PAUSE)
			tick_pause(r, c);
		else if (c->role == ROLE_SLOW)
			tick_slow(r, c);
		else if (c->role == ROLE_STORM)
			tick_storm(r, c);
	}
}

/* All are cut before the first comes back. */
static void cut_all(struct receiver *r)
{
	for (uint32_t i = r->storm_from; i < r->storm_to; i++) {
		struct conn *c = receiver_conn(r, i);

		r->res->leaves += c->state == CONN_OPEN;
		if (c->state != CONN_GONE && c->state != CONN_NONE)
			conn_gone(r, c, END_COUNT);
		c->storming = true;
	}
	r->storm_next = r->storm_from;
}

void roles_storm(struct receiver *r)
{
	/* pairs with the parent's store in load.c */
	const uint32_t seq = atomic_load_explicit(&r->sh->storm_seq, memory_order_acquire);

	if (seq != r->storm_seen) {
		r->storm_seen = seq;
		cut_all(r);
	}
	for (int n = 0; n < STORM_PART && r->storm_next < r->storm_to; n++) {
		r->now_ns = clock_mono_ns();
		conn_start(r, receiver_conn(r, r->storm_next++), r->now_ns);
	}
}

/* One of the storm's clients is back; the last of all stops the watch. */
static void back(struct receiver *r, struct conn *c)
{
	const uint64_t began = atomic_load_explicit(&r->sh->storm_ns, memory_order_relaxed);

	c->storming = false;
	if (atomic_fetch_add_explicit(&r->sh->storm_back, 1, memory_order_relaxed) + 1 == r->o->storm)
		hist_add(&r->res->storm, r->now_ns - began);
}

void roles_opened(struct receiver *r, struct conn *c)
{
	if (c->role == ROLE_STALL || (c->role == ROLE_SLOW && r->phase < PHASE_DRAIN))
		conn_pause(r, c);
	if (c->role == ROLE_CHURN)
		c->since_ns = r->now_ns + (1 + receiver_random(r, 2 * r->o->churn_ms)) * 1000000ull;
	if (c->storming)
		back(r, c);
}

void roles_publish(struct receiver *r)
{
	r->want_churn = true;
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_PAUSE)
			c->since_ns = r->now_ns + receiver_random(r, r->o->pause_ms) * 1000000ull;
	}
}

/* Churn leaves at its next tick. */
void roles_drain(struct receiver *r)
{
	r->want_churn = false;
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if ((c->role == ROLE_PAUSE || c->role == ROLE_SLOW) && c->state == CONN_OPEN)
			conn_resume(r, c);
	}
}

void roles_read_stalled(struct receiver *r)
{
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_STALL && c->state == CONN_OPEN)
			conn_resume(r, c);
	}
}
