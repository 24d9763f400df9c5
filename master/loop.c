/* loop.c - one turn of the master's loop (master.h has the picture). */
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/admit.h"
#include "master/drain.h"
#include "master/master.h"
#include "master/nodes.h"
#include "master/notify.h"
#include "master/presence.h"
#include "master/relay.h"
#include "master/reload.h"
#include "master/status.h"
#include "master/store.h"
#include "master/subscribe.h"
#include "master/supervise.h"

#define TICK_S          0.25
#define FULL_S          0.001 /* workers do not signal that they have read on: look */
#define SWEEP_MIN       64u   /* buckets of the channel table in a tick */
#define SWEEP_IDLE_PART 64u   /* of the table in a tick: round in 16 s */
#define SWEEP_DEAD_PART 8u    /* with dead readers in the lists: round in 2 s */

void master_exit(struct master *m, int status)
{
	m->exit_status = status;
	ev_break(m->loop, EVBREAK_ALL);
}

static void on_wake(struct ev_loop *loop, ev_io *io, int events)
{
	struct master *m = io->data;
	uint64_t n;

	(void)loop;
	(void)events;
	if (read(m->wake_fd, &n, sizeof(n)) == -1)
		return; /* EAGAIN; the work is found by looking, not by counting */
}

static void on_check(struct ev_loop *loop, ev_check *check, int events)
{
	struct master *m = check->data;

	(void)loop;
	(void)events;
	globals_awake(m->globals);
}

/* Without Redis every publication may make a channel; forgetting keeps pace with making. */
static void sweep_created(struct master *m)
{
	uint64_t made = m->seq.interest.created - m->swept;

	if (made == 0)
		return;
	m->swept = m->seq.interest.created;
	subscribe_sweep(m, 2 * made);
}

static void on_prepare_drain(struct ev_loop *loop, ev_prepare *prepare, int events)
{
	struct master *m = prepare->data;

	(void)loop;
	(void)events;
	m->has_more = drain_turn(m);
	m->has_more = presence_turn(m) || m->has_more;
	m->has_more = admit_turn(m) || m->has_more;
	sweep_created(m);
}

static void on_prepare_sleep(struct ev_loop *loop, ev_prepare *prepare, int events)
{
	struct master *m = prepare->data;

	(void)events;
	seq_flush(&m->seq);
	if (m->seq.is_full && !ev_is_active(&m->full_timer)) {
		m->full_ms = clock_mono_ms();
		ev_timer_again(loop, &m->full_timer);
	}
	if (!m->has_more) {
		globals_nap(m->globals); /* S1, pairs with S2 of globals_must_wake() */
		if (drain_has_work(m)) {
			globals_awake(m->globals);
			m->has_more = true;
		}
	}
	if (m->has_more)
		ev_idle_start(loop, &m->idle);
	else
		ev_idle_stop(loop, &m->idle);
}

static void on_idle(struct ev_loop *loop, ev_idle *idle, int events)
{
	(void)loop;
	(void)idle;
	(void)events; /* its being active keeps the loop from blocking */
}

static uint32_t since(uint64_t *last, uint64_t now)
{
	uint32_t elapsed = (uint32_t)u64_min(now - *last, UINT32_MAX);

	*last = now;
	return elapsed;
}

static void on_full(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct master *m = timer->data;

	(void)events;
	supervise_hold(m, since(&m->full_ms, clock_mono_ms()));
	if (m->seq.is_full && !seq_poll(&m->seq))
		return;
	ev_timer_stop(loop, timer);
	relay_resume(m);
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct master *m = timer->data;
	uint64_t now = clock_mono_ms(), n = m->seq.interest.n_buckets;
	uint32_t elapsed = since(&m->tick_ms, now);

	(void)loop;
	(void)events;
	if (!m->seq.is_full)
		supervise_hold(m, elapsed);
	supervise_tick(m, elapsed);
	reload_tick(m, now);
	drain_tick(m, now);
	relay_tick(m, now);
	presence_tick(m, now);
	nodes_tick(m, now);
	store_tick(m, now);
	status_tick(m);
	notify_tick(now);
	log_tick();
	subscribe_sweep(m,
		    u64_max(SWEEP_MIN, n / (m->seq.interest.n_dead > 0 ? SWEEP_DEAD_PART : SWEEP_IDLE_PART)));
}

static void on_respawn(struct ev_loop *loop, ev_timer *timer, int events)
{
	(void)loop;
	(void)events;
	supervise_fill(timer->data);
}

void master_watch(struct master *m)
{
	ev_io_init(&m->wake_io, on_wake, m->wake_fd, EV_READ);
	ev_prepare_init(&m->prepare_drain, on_prepare_drain);
	ev_prepare_init(&m->prepare_sleep, on_prepare_sleep);
	ev_check_init(&m->check, on_check);
	ev_idle_init(&m->idle, on_idle);
	ev_timer_init(&m->tick, on_tick, TICK_S, TICK_S);
	ev_timer_init(&m->full_timer, on_full, FULL_S, FULL_S);
	ev_timer_init(&m->respawn_timer, on_respawn, 0., 0.);
	m->wake_io.data = m->prepare_drain.data = m->prepare_sleep.data = m->check.data = m->idle.data = m;
	m->tick.data = m->full_timer.data = m->respawn_timer.data = m;
	ev_set_priority(&m->check, EV_MAXPRI);
	ev_set_priority(&m->prepare_drain, EV_MAXPRI);
	ev_set_priority(&m->prepare_sleep, EV_MINPRI);
	m->tick_ms = clock_mono_ms();
	ev_io_start(m->loop, &m->wake_io);
	ev_prepare_start(m->loop, &m->prepare_sleep);
	ev_prepare_start(m->loop, &m->prepare_drain);
	ev_check_start(m->loop, &m->check);
	ev_timer_start(m->loop, &m->tick);
}

void master_unwatch(struct master *m)
{
	ev_io_stop(m->loop, &m->wake_io);
	ev_prepare_stop(m->loop, &m->prepare_drain);
	ev_prepare_stop(m->loop, &m->prepare_sleep);
	ev_check_stop(m->loop, &m->check);
	ev_idle_stop(m->loop, &m->idle);
	ev_timer_stop(m->loop, &m->tick);
	ev_timer_stop(m->loop, &m->full_timer);
	ev_timer_stop(m->loop, &m->respawn_timer);
}
