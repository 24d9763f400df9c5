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
#define TICK_NS    5000000ull   /* churn, pauses, slow readers */
#define SWEEP_NS   100000000ull /* deadlines of all connections: a walk over the whole table */
#define STALLED_NS 2000000000ull
#define STARTS_MAX 256 /* in one turn of the loop */

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

static uint64_t of_timeval(struct timeval tv)
{
	return (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
}

static struct load_cpu own_cpu(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) == -1)
		return (struct load_cpu){0, 0};
	return (struct load_cpu){of_timeval(u.ru_utime), of_timeval(u.ru_stime)};
}

static enum conn_role role_of(const struct load_opts *o, uint32_t index)
{
	if (index < o->conns)
		return ROLE_STEADY;
	index -= o->conns;
	if (index < o->stall)
		return ROLE_STALL;
	index -= o->stall;
	if (index < o->pause)
		return ROLE_PAUSE;
	index -= o->pause;
	if (index < o->slow)
		return ROLE_SLOW;
	return index < o->slow + o->storm ? ROLE_STORM : ROLE_CHURN;
}

/* Connection i belongs to receiver i % procs; churn, which joins later, is at the end of every table. */
static int table_make(struct receiver *r)
{
	const struct load_opts *o = r->o;
	const uint32_t total = load_total(o);
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
		if (c->role == ROLE_STORM) {
			r->storm_from = r->storm_to ? r->storm_from : n;
			r->storm_to = n + 1;
		}
	}
	r->storm_next = r->storm_to;
	r->n_conns = n;
	return 0;
}

/* Begin first handshakes, as many as concurrency and rate allow; not too many in a row, for answers come,
 * too. With a rate an attempt's time is the one it was due at. */
static void start_some(struct receiver *r)
{
	const uint32_t at_once = (r->o->concurrency + r->o->procs - 1) / r->o->procs;
	const double rate = (double)r->o->conn_rate / r->o->procs;

	for (int i = 0; i < STARTS_MAX && r->next_start < r->n_conns && r->underway < at_once; i++) {
		struct conn *c = receiver_conn(r, r->next_start);
		uint64_t due = r->now_ns;

		if (c->role == ROLE_CHURN)
			return;
		r->now_ns = clock_mono_ns();
		if (rate > 0) {
			due = r->started_ns + (uint64_t)(r->next_start / rate * 1e9);
			if (due > r->now_ns)
				return;
			hist_add(&r->res->behind, r->now_ns - due);
		}
		r->next_start++;
		r->res->last_start_ns = r->now_ns;
		if (r->res->first_start_ns == 0)
			r->res->first_start_ns = r->now_ns;
		conn_start(r, c, due);
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
		conn_start(r, c, r->now_ns);
}

static void sweep(struct receiver *r)
{
	for (uint32_t i = 0; i < r->n_conns; i++) {
		struct conn *c = receiver_conn(r, i);

		if (c->state == CONN_GONE && c->role != ROLE_CHURN && c->role != ROLE_STALL && !c->storming)
			sweep_gone(r, c);
		if ((c->state == CONN_CONNECT || c->state == CONN_UPGRADE) &&
		    r->now_ns > c->since_ns + HANDSHAKE_NS) {
			receiver_why(r, "connection %u: handshake timed out", c->index);
			conn_gone(r, c, END_RESET);
		}
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
		if (c->state == CONN_CONNECT || c->state == CONN_UPGRADE || c->storming)
			return false;
		if (c->role != ROLE_STALL && c->role != ROLE_CHURN && c->state == CONN_OPEN &&
		    !check_complete(r, c, &missing))
			return false;
	}
	return true;
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
	if (phase == PHASE_PUBLISH) {
		r->cpu_start = own_cpu();
		roles_publish(r);
	}
	if (phase == PHASE_DRAIN)
		roles_drain(r);
	if (phase == PHASE_STALLED) {
		r->stall_deadline_ns = r->now_ns + STALLED_NS;
		roles_read_stalled(r);
	}
}

static void check_phase_end(struct receiver *r)
{
	if (r->phase == PHASE_DRAIN && !atomic_load(&r->res->drained) && all_drained(r)) {
		const struct load_cpu cpu = own_cpu();

		r->res->user_ns = cpu.user_ns - r->cpu_start.user_ns;
		r->res->cpu_ns = r->res->user_ns + cpu.sys_ns - r->cpu_start.sys_ns;
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
		const int timeout = r->phase == PHASE_CONNECT || r->n_gone || r->o->storm ? 1 : 5;
		int n = epoll_wait(r->epfd, ev, EVENTS_MAX, timeout);

		r->now_ns = clock_mono_ns();
		if (phase != r->phase)
			enter_phase(r, phase);
		for (int i = 0; i < n; i++)
			conn_event(r, ev[i].data.ptr, ev[i].events);
		start_some(r);
		roles_storm(r);
		credit_gone(r);
		if (r->now_ns >= next_tick) {
			next_tick = r->now_ns + TICK_NS;
			roles_tick(r);
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

	r.now_ns = clock_mono_ns();
	r.random = r.now_ns ^ proc;
	r.ops = check_ops;
	r.ops.head = WSIN_HEAD + o->unwrap.head_len;
	r.run = (uint16_t)o->run;
	r.run_known = o->source != SOURCE_NONE;
	r.room = malloc(WSIN_STASH + HEAD_MAX + READ_SIZE);
	r.epfd = epoll_create1(EPOLL_CLOEXEC);
	if (r.room && r.epfd != -1 && load_addr_parse(o->target, &r.target) == 0 && table_make(&r) == 0) {
		r.started_ns = clock_mono_ns();
		loop(&r);
		rc = 0;
	} else {
		fprintf(stderr, "receiver %u: %s\n", proc, strerror(errno));
	}
	for (uint32_t i = 0; i < r.n_conns; i++)
		free(receiver_conn(&r, i)->part);
	free(r.conns);
	free(r.gone);
	free(r.room);
	return rc;
}
