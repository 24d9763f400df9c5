/* load.c - the load client's parent: phases, measuring the server, report. See load.h for the picture. */
#include "bench/load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/load_env.h"
#include "bench/load_series.h"
#include "bench/payload.h"
#include "bench/proc.h"
#include "common/clock.h"

#define POLL_NS    2000000
#define STALLED_NS 3000000000ull /* a little more than receivers give themselves */

struct parent {
	const struct load_opts *o;
	struct load_shared *sh;
	struct load_measured m;
	struct load_series series;
	uint64_t deadline_ns;
	pid_t child[LOAD_PROCS + LOAD_PUBLISHERS];
	uint32_t n_children;
	uint64_t next_storm_ns; /* 0: none now */
	bool failed;            /* a child died, or no client got in */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

static void fork_one(struct parent *p, int (*run)(const struct load_opts *, struct load_shared *, uint32_t),
		     uint32_t n)
{
	const pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == -1) {
		perror("ringcast-bench: fork");
		p->failed = true;
		return;
	}
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || getppid() != parent)
			_exit(1);
		_exit(run(p->o, p->sh, n));
	}
	p->child[p->n_children++] = pid;
}

static bool over(const struct parent *p)
{
	return interrupted || p->failed || clock_mono_ns() >= p->deadline_ns;
}

/* A child that ended before its time has left the run without a result. */
static void watch_children(struct parent *p)
{
	for (uint32_t i = 0; i < p->n_children; i++) {
		int status;

		if (p->child[i] <= 0 || waitpid(p->child[i], &status, WNOHANG) != p->child[i])
			continue;
		p->child[i] = 0;
		p->failed |= i < p->o->procs || !WIFEXITED(status);
	}
}

/* Begin a storm when one is due and the last one is over: a storm that takes longer than its interval moves
 * the next one back. Receivers look every millisecond. */
static void storm(struct parent *p)
{
	struct load_shared *sh = p->sh;
	const uint64_t now = clock_mono_ns();
	const uint32_t seq = atomic_load_explicit(&sh->storm_seq, memory_order_relaxed);

	if (p->next_storm_ns == 0 || now < p->next_storm_ns)
		return;
	if (seq > 0 && atomic_load_explicit(&sh->storm_back, memory_order_relaxed) < p->o->storm)
		return;
	atomic_store_explicit(&sh->storm_back, 0, memory_order_relaxed);
	atomic_store_explicit(&sh->storm_ns, now, memory_order_relaxed);
	atomic_store_explicit(&sh->storm_seq, seq + 1, memory_order_release); /* pairs with roles_storm() */
	p->next_storm_ns = now + p->o->storm_ms * 1000000ull;
}

/* Wait until `done` says so; false when time is over. */
static bool wait_for(struct parent *p, bool (*done)(const struct parent *), uint64_t until_ns)
{
	const struct timespec nap = {.tv_nsec = POLL_NS};

	while (!done(p)) {
		watch_children(p);
		load_series_tick(&p->series);
		storm(p);
		if (over(p) || clock_mono_ns() >= until_ns)
			return done(p);
		nanosleep(&nap, NULL);
	}
	return true;
}

static bool all_open(const struct parent *p)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < p->o->procs; i++)
		n += atomic_load(&p->sh->res[i].opened) + atomic_load(&p->sh->res[i].failed);
	return n >= load_lasting(p->o);
}

static bool nobody_open(const struct parent *p)
{
	for (uint32_t i = 0; i < p->o->procs; i++)
		if (atomic_load(&p->sh->res[i].opened) > 0)
			return false;
	return load_lasting(p->o) > 0;
}

static bool all_dialled(const struct parent *p)
{
	for (uint32_t i = 0; i < p->o->publishers; i++)
		if (!atomic_load(&p->sh->pub[i].opened))
			return false;
	return true;
}

static bool all_sent(const struct parent *p)
{
	for (uint32_t i = 0; i < p->o->publishers; i++)
		if (!atomic_load(&p->sh->pub[i].sent))
			return false;
	return true;
}

static bool all_drained(const struct parent *p)
{
	for (uint32_t i = 0; i < p->o->procs; i++)
		if (!atomic_load(&p->sh->res[i].drained))
			return false;
	return true;
}

static bool all_finished(const struct parent *p)
{
	for (uint32_t i = 0; i < p->o->procs; i++)
		if (!atomic_load(&p->sh->res[i].finished))
			return false;
	return true;
}

static bool never(const struct parent *p)
{
	(void)p;
	return false;
}

static struct proc_use sample(struct parent *p, bool with_memory)
{
	struct proc_use u = {0};

	if (p->o->pid)
		p->m.has_server = proc_use((pid_t)p->o->pid, with_memory, &u) == 0;
	return u;
}

static uint64_t redis_cpu(const struct parent *p)
{
	struct proc_use u;

	return p->o->redis_pid && proc_use((pid_t)p->o->redis_pid, false, &u) == 0 ? u.cpu_ns : 0;
}

static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* a process that ended takes its share along */
}

static uint64_t seconds(double s)
{
	return clock_mono_ns() + (uint64_t)(s * 1e9);
}

static void phase_connect(struct parent *p)
{
	const uint64_t began = clock_mono_ns();
	struct proc_use before = sample(p, true), after;

	p->m.pss_before = before.pss_bytes;
	for (uint32_t i = 0; i < p->o->procs; i++)
		fork_one(p, load_receiver, i);
	p->m.timed_out |= !wait_for(p, all_open, p->deadline_ns);
	p->m.connect_s = (double)(clock_mono_ns() - began) * 1e-9;
	after = sample(p, false);
	p->m.connect_cpu_ns = since(after.cpu_ns, before.cpu_ns);
}

static void enter(struct parent *p, enum load_phase phase)
{
	atomic_store(&p->sh->phase, phase);
	load_series_phase(&p->series, phase);
}

static void phase_hold(struct parent *p)
{
	enter(p, PHASE_HOLD);
	if (p->o->idle_s > 0)
		(void)wait_for(p, never, seconds(p->o->idle_s));
	p->m.pss_after = sample(p, true).pss_bytes;
}

/* Send everything, and wait until everybody has it. */
static void phase_publish(struct parent *p)
{
	const bool ours = p->o->source != SOURCE_NONE;
	struct proc_use before, after;
	uint64_t began, redis;

	for (uint32_t i = 0; ours && i < p->o->publishers; i++)
		fork_one(p, load_publisher, i);
	p->m.timed_out |= ours && !wait_for(p, all_dialled, p->deadline_ns);
	load_series_phase(&p->series, PHASE_PUBLISH);
	redis = redis_cpu(p);
	before = sample(p, false);
	began = clock_mono_ns() + 20000000;
	atomic_store(&p->sh->start_ns, began);
	atomic_store(&p->sh->phase, PHASE_PUBLISH);
	p->next_storm_ns = p->o->storm ? began + p->o->storm_ms * 1000000ull : 0;
	if (ours)
		p->m.timed_out |= !wait_for(p, all_sent, p->deadline_ns);
	else
		(void)wait_for(p, never, seconds(p->o->duration_s));
	p->next_storm_ns = 0;
	enter(p, PHASE_DRAIN);
	p->m.timed_out |= !wait_for(p, all_drained, seconds(p->o->drain_s));
	p->m.publish_s = (double)(clock_mono_ns() - began) * 1e-9;
	after = sample(p, false);
	p->m.redis_cpu_ns = since(redis_cpu(p), redis);
	p->m.server_processes = after.processes;
	p->m.cpu_ns = since(after.cpu_ns, before.cpu_ns);
	p->m.user_ns = since(after.user_ns, before.user_ns);
	p->m.sys_ns = since(after.sys_ns, before.sys_ns);
	p->m.softirq_ns = since(after.softirq_ns, before.softirq_ns);
}

static void phase_stalled(struct parent *p)
{
	if (p->o->stall == 0)
		return;
	enter(p, PHASE_STALLED);
	(void)wait_for(p, all_finished, clock_mono_ns() + STALLED_NS);
}

/* Children see STOP within 20 ms; one that does not is killed. */
static void stop_children(struct parent *p)
{
	const uint64_t until = clock_mono_ns() + 3000000000ull;
	const struct timespec nap = {.tv_nsec = POLL_NS};

	atomic_store(&p->sh->phase, PHASE_STOP);
	for (uint32_t i = 0; i < p->n_children; i++) {
		while (p->child[i] > 0 && waitpid(p->child[i], NULL, WNOHANG) == 0) {
			if (clock_mono_ns() > until && kill(p->child[i], SIGKILL) == -1)
				break;
			nanosleep(&nap, NULL);
		}
	}
	for (uint32_t i = 0; i < p->o->publishers; i++)
		p->m.published += atomic_load(&p->sh->pub[i].next);
}

static struct load_shared *shared_make(void)
{
	struct load_shared *sh =
		mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (sh == MAP_FAILED)
		return NULL;
	for (int i = 0; i < LOAD_PUBLISHERS; i++) {
		sh->pub[i].wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (sh->pub[i].wake_fd == -1)
			return NULL;
	}
	return sh;
}

static int prepare(void)
{
	const struct sigaction sa = {.sa_handler = on_signal};
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == -1)
		return -1;
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &lim) == -1)
		return -1;
	return sigaction(SIGINT, &sa, NULL) == -1 || sigaction(SIGTERM, &sa, NULL) == -1 ? -1 : 0;
}

int main(int argc, char **argv)
{
	static struct parent p;
	static struct load_opts opts;
	const char *command = load_env_command(argc, argv); /* before the options are taken apart */
	bool ok;

	load_opts_parse(&opts, argc, argv);
	opts.command = command;
	if (!load_report_ready(&opts))
		return 1;
	payload_init();
	p.o = &opts;
	p.sh = shared_make();
	p.deadline_ns = seconds(opts.max_s);
	if (!p.sh || prepare() == -1 || load_series_open(&p.series, &opts, p.sh) == -1) {
		fprintf(stderr, "ringcast-bench: %s\n", strerror(errno));
		return 1;
	}
	phase_connect(&p);
	p.failed |= nobody_open(&p); /* the rest would measure nothing */
	if (!over(&p))
		phase_hold(&p);
	if (!over(&p))
		phase_publish(&p);
	if (!over(&p))
		phase_stalled(&p);
	p.m.timed_out |= over(&p);
	stop_children(&p);
	ok = load_series_close(&p.series) == 0;
	ok &= load_report(&opts, p.sh, &p.m, &p.series);
	return ok ? 0 : 1;
}
