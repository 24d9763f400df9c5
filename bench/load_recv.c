/* load_recv.c - one receiver process: its loop, its timers and what each phase asks of it. */
#include "bench/load_conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "common/clock.h"

#define EVENTS_MAX 512
#define TICK_NS    5000000ull   /* churn and pauses */
#define SWEEP_NS   100000000ull /* deadlines of all connections: a walk over the whole table */
#define STALLED_NS 2000000000ull

uint32_t receiver_random(struct receiver *r, uint32_t below)
{
	r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(((r->random >> 32) * below) >> 32);
}

void receiver_why(struct receiver *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (r->res->why[0] != '\0')
		return;
	va_start(ap, fmt);
	n = vsnprintf(r->res->why, sizeof(r->res->why), fmt, ap);
	va_end(ap);
	(void)n; /* cut is fine */
}

static uint64_t own_cpu_ns(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) == -1)
		return 0;
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static enum conn_role role_of(const struct load_opts *o, uint32_t index)
{
	if (index < o->conns)
		return ROLE_STEADY;
	index -= o->conns;
	if (index < o->stall)
		return ROLE_STALL;
	return index < o->stall + o->pause ? ROLE_PAUSE : ROLE_CHURN;
}

/* Connection i belongs to receiver i % procs; churn, which joins later, is at the end of every table. */
static int table_make(struct receiver *r)
{
	const struct load_opts *o = r->o;
	const uint32_t total = o->conns + o->stall + o->pause + o->churn;
	uint32_t n = 0;

	r->stride = ALIGN_UP(sizeof(struct conn) + o->publishers * sizeof(struct conn_pub), 64u);
	r->conns = calloc(total / o->procs + 1, r->stride);
	r->gone = calloc(total / o->procs + 1, sizeof(*r->gone));
	if (!r->conns || !r->gone)
		return -1;
	for (uint32_t i = r->proc; i < total; i += o->procs, n++) {
		struct conn *c = receiver_conn(r, n);

		c->fd = -1;
		c->index = i;
		c->place = n;
		c->role = role_of(o, i);
		c->channel = i % o->channels;
		c->members = load_members(o, c->channel);
	}
	r->n_conns = n;
	return 0;
}

/* Begin first handshakes, as many as concurrency and rate allow. */
static void start_some(struct receiver *r)
{
	const uint32_t at_once = r->o->concurrency / r->o->procs + 1;
	const double rate = (double)r->o->conn_rate / r->o->procs;

	while (r->next_start < r->n_conns && r->underway < at_once) {
		struct conn *c = receiver_conn(r, r->next_start);
		double due = (double)(r->now_ns - r->started_ns) * 1e-9 * rate;

		if (c->role == ROLE_CHURN || (rate > 0 && r->next_start >= due))
			return;
		r->next_start++;
		conn_start(r, c);
	}
}

static void tick_churn(struct receiver *r, struct conn *c)
{
	const bool idle = c->state == CONN_NONE || c->state == CONN_GONE;

	if (idle && r->want_churn && r->now_ns >= c->since_ns) {
		conn_start(r, c);
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

/* The special roles stand behind all steady ones. */
static void tick(struct receiver *r)
{
	for (uint32_t i = r->n_conns; i-- > 0;) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_STEADY)
			break;
		if (c->role == ROLE_CHURN)
			tick_churn(r, c);
		else if (c->role == ROLE_PAUSE)
			tick_pause(r, c);
	}
}

/* A steady client that is gone must not hold up the publishers: what it misses counts as had. */
static void credit_gone(struct receiver *r)
{
	if (r->phase < PHASE_PUBLISH)
		return;
	for (uint32_t i = 0; i < r->n_gone; i++) {
		struct conn *c = receiver_conn(r, r->gone[i]);

		for (uint32_t p = 0; p < r->o->publishers; p++)
			check_credit(r, c, p,
				     load_in_channel(atomic_load(&r->sh->pub[p].next), c->channel,
						     r->o->channels));
	}
}

static void sweep_gone(struct receiver *r, struct conn *c)
{
	if (r->o->reconnect && r->phase == PHASE_PUBLISH && c->began && r->now_ns >= c->since_ns)
		conn_start(r, c);
}

static void sweep(struct receiver *r)
{
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->state == CONN_GONE && c->role != ROLE_CHURN && c->role != ROLE_STALL)
			sweep_gone(r, c);
		if ((c->state == CONN_CONNECT || c->state == CONN_UPGRADE) &&
		    r->now_ns > c->since_ns + HANDSHAKE_NS) {
			receiver_why(r, "connection %u: handshake timed out", c->index);
			conn_gone(r, c, END_RESET);
		}
	}
}

/* PUBLISH is over: everybody reads, churn leaves. */
static void begin_drain(struct receiver *r)
{
	r->want_churn = false;
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_PAUSE && c->state == CONN_OPEN)
			conn_resume(r, c);
	}
}

static void begin_publish(struct receiver *r)
{
	r->want_churn = true;
	r->cpu_start_ns = own_cpu_ns();
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_PAUSE)
			c->since_ns = r->now_ns + receiver_random(r, r->o->pause_ms) * 1000000ull;
	}
}

/* Has everybody all? Those that the server dropped are counted elsewhere. */
static bool all_drained(const struct receiver *r)
{
	for (uint32_t i = 0; i < r->n_conns; i++) {
		const struct conn *c = receiver_conn(r, i);
		uint64_t missing;

		if (c->role == ROLE_CHURN && (c->state == CONN_OPEN || c->state == CONN_LEAVING))
			return false;
		if (c->state == CONN_CONNECT || c->state == CONN_UPGRADE)
			return false;
		if (c->role != ROLE_STALL && c->role != ROLE_CHURN && c->state == CONN_OPEN &&
		    !check_complete(r, c, &missing))
			return false;
	}
	return true;
}

static void begin_stalled(struct receiver *r)
{
	r->stall_deadline_ns = r->now_ns + STALLED_NS;
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->role == ROLE_STALL && c->state == CONN_OPEN)
			conn_resume(r, c);
	}
}

static bool stalled_over(const struct receiver *r)
{
	if (r->now_ns >= r->stall_deadline_ns)
		return true;
	for (uint32_t i = 0; i < r->n_conns; i++) {
		const struct conn *c = receiver_conn(r, i);
		uint64_t missing;

		if (c->role == ROLE_STALL && c->state == CONN_OPEN && !check_complete(r, c, &missing))
			return false;
	}
	return true;
}

static void enter_phase(struct receiver *r, int phase)
{
	r->phase = phase;
	if (phase == PHASE_PUBLISH)
		begin_publish(r);
	if (phase == PHASE_DRAIN)
		begin_drain(r);
	if (phase == PHASE_STALLED)
		begin_stalled(r);
}

static void check_phase_end(struct receiver *r)
{
	if (r->phase == PHASE_DRAIN && !atomic_load(&r->res->drained) && all_drained(r)) {
		r->res->cpu_ns = own_cpu_ns() - r->cpu_start_ns;
		atomic_store(&r->res->drained, 1);
	}
	if (r->phase == PHASE_STALLED && !atomic_load(&r->res->finished) && stalled_over(r))
		atomic_store(&r->res->finished, 1);
}

/* What is still missing at the very end is lost. */
static void final_count(struct receiver *r)
{
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);
		uint64_t missing = 0;

		if (c->state == CONN_OPEN && c->role == ROLE_STALL)
			r->res->stalled_open++;
		if (c->state != CONN_OPEN || c->role == ROLE_STALL || check_complete(r, c, &missing))
			continue;
		r->res->lost += missing;
		r->res->never_came += missing;
		receiver_why(r, "connection %u: the last %u never came", c->index, (unsigned)missing);
	}
}

/* For whoever watches; here, so that nothing of it is done for each message. */
static void show(struct receiver *r)
{
	struct load_result *res = r->res;
	uint64_t errors = res->failed + res->lost + res->repeated + res->late + res->corrupt + res->misrouted;

	for (int i = 0; i < END_COUNT && !r->o->may_close; i++)
		errors += res->ends[i];
	atomic_store(&res->seen_errors, errors);
	atomic_store(&res->seen_bytes, res->bytes);
}

static void loop(struct receiver *r)
{
	static struct epoll_event ev[EVENTS_MAX];
	uint64_t next_tick = 0, next_sweep = 0;
	int phase;

	while ((phase = atomic_load(&r->sh->phase)) != PHASE_STOP) {
		const int timeout = r->phase == PHASE_CONNECT || r->n_gone ? 1 : 5;
		int n = epoll_wait(r->epfd, ev, EVENTS_MAX, timeout);

		r->now_ns = clock_mono_ns();
		if (phase != r->phase)
			enter_phase(r, phase);
		for (int i = 0; i < n; i++)
			conn_event(r, ev[i].data.ptr, ev[i].events);
		start_some(r);
		credit_gone(r);
		if (r->now_ns >= next_tick) {
			next_tick = r->now_ns + TICK_NS;
			tick(r);
			show(r);
			check_phase_end(r);
		}
		if (r->now_ns >= next_sweep) {
			next_sweep = r->now_ns + SWEEP_NS;
			sweep(r);
		}
	}
	final_count(r);
	show(r);
}

int load_receiver(const struct load_opts *o, struct load_shared *sh, uint32_t proc)
{
	struct receiver r = {.o = o, .sh = sh, .res = &sh->res[proc], .proc = proc, .epfd = -1};
	int rc = 1;

	r.now_ns = r.started_ns = clock_mono_ns();
	r.random = r.started_ns ^ proc;
	r.run = (uint16_t)o->run;
	r.run_known = o->source != SOURCE_NONE;
	r.room = malloc(WSIN_STASH + READ_SIZE);
	r.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (r.room && r.epfd != -1 && load_addr_parse(o->target, &r.target) == 0 && table_make(&r) == 0) {
		loop(&r);
		rc = 0;
	} else {
		fprintf(stderr, "receiver %u: %s\n", proc, strerror(errno));
	}
	free(r.conns);
	free(r.gone);
	free(r.room);
	return rc;
}
