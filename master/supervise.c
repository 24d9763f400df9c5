#include "master/supervise.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/admit.h"
#include "master/drain.h"
#include "master/notify.h"
#include "master/reached.h"
#include "master/presence.h"
#include "master/reload.h"
#include "master/spawn.h"
#include "master/status.h"
#include "master/survey.h"

#define TICK_MAX_MS 500u /* a longer tick is the master's own sleep */

static const char *const kill_names[] = {
	[KILL_NONE] = "none",     [KILL_STUCK] = "stuck",   [KILL_HOLD] = "hold",
	[KILL_BROKEN] = "broken", [KILL_BOOT] = "no_hello", [KILL_DRAIN] = "drain_timeout",
	[KILL_STOP] = "stop",
};

/* ---- states */

static bool is_edge(enum worker_state from, enum worker_state to)
{
	switch (to) {
	case WORKER_EMPTY:
		return true;
	case WORKER_BOOT:
		return from == WORKER_EMPTY;
	case WORKER_SERVE:
		return from == WORKER_BOOT;
	case WORKER_DRAIN:
		return from == WORKER_BOOT || from == WORKER_SERVE || from == WORKER_DRAIN;
	}
	return false;
}

static void child_move(struct master *m, struct child *c, enum worker_state to)
{
	assert(is_edge(c->state, to));
	c->state = to;
	status_worker(m, c);
}

static void active_add(struct master *m, uint16_t slot)
{
	m->active[m->n_active++] = slot;
}

static void active_remove(struct master *m, uint16_t slot)
{
	for (unsigned i = 0; i < m->n_active; i++) {
		if (m->active[i] == slot) {
			m->active[i] = m->active[--m->n_active];
			return;
		}
	}
}

/* ---- birth */

struct generation *supervise_generation(struct master *m, struct config *config)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	g->posts = calloc(config->workers, sizeof(*g->posts));
	if (g->posts == NULL) {
		free(g);
		return NULL;
	}
	g->number = ++m->generations;
	g->config = config;
	return g;
}

static struct child *empty_slot(struct master *m)
{
	for (uint16_t i = 0; i < SLOT_MAX; i++) {
		if (m->child[i].state == WORKER_EMPTY) {
			m->child[i].slot = i;
			return &m->child[i];
		}
	}
	return NULL;
}

static uint32_t next_backoff(uint32_t ms)
{
	return ms == 0 ? SUPERVISE_BACKOFF_MIN_MS
		       : (uint32_t)u64_min(2 * (uint64_t)ms, SUPERVISE_BACKOFF_MAX_MS);
}

static void fill_post(struct master *m, struct generation *g, unsigned position)
{
	const struct rec pause = {.type = REC_ACCEPT, .arg = {0}};
	struct post *p = &g->posts[position];
	struct child *c = empty_slot(m);

	if (c == NULL || spawn_worker(m, c, g, position) == -1) {
		p->backoff_ms = next_backoff(p->backoff_ms);
		p->due_ms = clock_mono_ms() + p->backoff_ms;
		log_event(LOG_ERROR, "spawn_failed",
			  "errno=%d msg=\"cannot start a worker; next try in %u ms\"",
			  c == NULL ? ENOSPC : errno, p->backoff_ms);
		return;
	}
	p->child = c;
	g->n_children++;
	active_add(m, c->slot);
	c->born_ms = clock_mono_ms();
	c->deadline_ms = c->born_ms + SUPERVISE_BOOT_MS;
	child_move(m, c, WORKER_BOOT);
	log_event(LOG_INFO, "worker_start", "slot=%u worker_pid=%ld worker=%u generation=%u", c->slot,
		  (long)c->pid, position, g->number);
	if (m->is_paused && g == m->generation)
		seq_control(&m->seq, c->reader, &pause,
			    (struct slice){0}); /* read before its first accept() */
}

static void fill_generation(struct master *m, struct generation *g)
{
	uint64_t now = clock_mono_ms();

	for (unsigned i = 0; g != NULL && i < g->config->workers; i++) {
		if (g->posts[i].child == NULL && g->posts[i].due_ms <= now)
			fill_post(m, g, i);
	}
}

void supervise_fill(struct master *m)
{
	if (m->phase == MASTER_SERVE) {
		fill_generation(m, m->generation);
		fill_generation(m, m->next);
	}
	supervise_arm(m);
}

static uint64_t first_due(const struct generation *g)
{
	uint64_t due = UINT64_MAX;

	for (unsigned i = 0; g != NULL && i < g->config->workers; i++) {
		if (g->posts[i].child == NULL)
			due = u64_min(due, g->posts[i].due_ms);
	}
	return due;
}

void supervise_arm(struct master *m)
{
	uint64_t due = u64_min(first_due(m->generation), first_due(m->next)), now = clock_mono_ms();

	ev_timer_stop(m->loop, &m->respawn_timer);
	if (m->phase != MASTER_SERVE || due == UINT64_MAX)
		return;
	ev_timer_set(&m->respawn_timer, due <= now ? 0.001 : (double)(due - now) / 1e3, 0.);
	ev_timer_start(m->loop, &m->respawn_timer);
}

static bool all_serve(const struct generation *g)
{
	for (unsigned i = 0; i < g->config->workers; i++) {
		if (g->posts[i].child == NULL || g->posts[i].child->state != WORKER_SERVE)
			return false;
	}
	return true;
}

static void log_ready(struct master *m, const struct generation *g)
{
	struct buf listens = {0}, admins = {0};

	if (listen_addresses(&m->listeners, g->config, LISTEN_CLIENT, &listens) == -1 ||
	    listen_addresses(&m->listeners, g->config, LISTEN_ADMIN, &admins) == -1)
		log_event(LOG_ERROR, "no_memory", NULL);
	log_event(LOG_INFO, "ready", "listen=%.*s admin=%.*s workers=%u generation=%u", (int)listens.len,
		  listens.p == NULL ? "" : listens.p, (int)admins.len, admins.p == NULL ? "" : admins.p,
		  g->config->workers, g->number);
	buf_free(&listens);
	buf_free(&admins);
}

void supervise_hello(struct master *m, struct child *c)
{
	struct generation *g = c->generation;

	if (c->state != WORKER_BOOT)
		return; /* it was told to leave meanwhile */
	c->hello_ms = clock_mono_ms();
	c->deadline_ms = 0;
	c->quiet_ms = 0;
	child_move(m, c, WORKER_SERVE);
	if (g->is_ready || !all_serve(g))
		return;
	g->is_ready = true;
	if (g == m->next)
		reload_switch(m);
	log_ready(m, g);
	notify_ready();
}

/* ---- death */

void supervise_kill(struct master *m, struct child *c, enum child_kill why)
{
	if (c->pid == 0 || c->kill != KILL_NONE)
		return;
	c->kill = why;
	if (why == KILL_STUCK || why == KILL_HOLD) {
		count_add(&m->count->stuck_kills, 1);
		log_event(LOG_ERROR, "worker_stuck",
			  "slot=%u worker_pid=%ld reason=%s total=%llu msg=\"killed\"", c->slot, (long)c->pid,
			  kill_names[why],
			  (unsigned long long)(seq_head(&m->seq) - m->seq.reader[c->reader].cursor));
	} else if (why == KILL_BROKEN) {
		count_add(&m->count->broken_uplinks, 1);
	}
	if (kill(c->pid, SIGKILL) == -1)
		log_event(LOG_ERROR, "kill", "worker_pid=%ld errno=%d", (long)c->pid, errno);
}

void supervise_kill_all(struct master *m, const struct generation *g, enum child_kill why)
{
	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];

		if (g == NULL || c->generation == g)
			supervise_kill(m, c, why);
	}
}

static void zero_gauges(const struct master *m, const struct child *c)
{
	struct counters *block = counters_map_block(m->counters_fd, c->slot);

	if (block == NULL) {
		log_event(LOG_ERROR, "no_memory", "slot=%u msg=\"its gauges keep their last values\"",
			  c->slot);
		return;
	}
	counters_zero_gauges(block);
	(void)munmap(block, COUNTERS_BLOCK); /* a mapping of our own, of that size */
}

/* Somebody outside ended it: no reason to think that its successor would fail. */
static bool is_outside_kill(const struct child *c, int status)
{
	int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	return c->kill == KILL_NONE &&
	       (sig == SIGKILL || sig == SIGTERM || sig == SIGINT || sig == SIGQUIT || sig == SIGHUP);
}

static bool is_failed_start(const struct child *c, int status, uint64_t now)
{
	if (is_outside_kill(c, status))
		return false;
	return c->hello_ms == 0 || now - c->hello_ms < SUPERVISE_EARLY_MS;
}

static void count_restart(struct master *m, struct child *c, int status)
{
	counter *which = &m->count->restarts_exit;

	if (c->kill == KILL_STUCK || c->kill == KILL_HOLD)
		which = &m->count->restarts_stuck;
	else if (WIFSIGNALED(status))
		which = &m->count->restarts_crash;
	count_add(which, 1);
	status_restarted(m, c->slot);
}

static void log_exit(const struct child *c, int status, bool is_expected)
{
	const char *reason = c->kill != KILL_NONE       ? kill_names[c->kill]
			     : WIFSIGNALED(status)      ? "signal"
			     : c->state == WORKER_DRAIN ? "drained"
							: "exit";
	int number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);

	log_event(is_expected ? LOG_INFO : LOG_ERROR, "worker_exit",
		  "slot=%u worker_pid=%ld reason=%s status=%d", c->slot, (long)c->pid, reason, number);
}

/* Its post is vacant. Does somebody have to take it? */
static void vacate(struct master *m, struct child *c, int status)
{
	struct generation *g = c->generation;
	struct post *p = &g->posts[c->position];
	uint64_t now = clock_mono_ms();
	bool is_wanted = m->phase == MASTER_SERVE && (g == m->generation || g == m->next) && p->child == c;

	log_exit(c, status, !is_wanted);
	if (p->child == c)
		p->child = NULL;
	if (!is_wanted)
		return;
	count_restart(m, c, status);
	p->backoff_ms = is_failed_start(c, status, now) ? next_backoff(p->backoff_ms) : 0;
	p->due_ms = now + p->backoff_ms;
}

static void reap(struct master *m, struct child *c, int status)
{
	vacate(m, c, status);
	c->pid = 0;
	seq_reader_remove(&m->seq, c->reader);
	presence_worker_died(m, c);
	survey_worker_died(m, c);
	reached_worker_died(m, c);
	admit_worker_died(m, c);
	zero_gauges(m, c);
	child_move(m, c, WORKER_DRAIN);
	supervise_bury(m, c);
}

void supervise_bury(struct master *m, struct child *c)
{
	struct generation *g = c->generation;

	if (c->pid != 0 || c->state == WORKER_EMPTY || !drain_remains(m, c))
		return;
	drain_forget(m, c);
	slot_close(&c->seg);
	close(c->wake_fd);
	active_remove(m, c->slot);
	child_move(m, c, WORKER_EMPTY);
	g->n_children--;
	if (g->n_children == 0)
		reload_generation_empty(m, g);
}

void supervise_reap(struct master *m)
{
	bool any = false;

	for (unsigned i = m->n_active; i-- > 0;) {
		struct child *c = &m->child[m->active[i]];
		int status;

		if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
			continue;
		reap(m, c, status);
		any = true;
	}
	if (any)
		supervise_fill(m);
	if (m->n_active == 0 && m->phase != MASTER_SERVE)
		master_exit(m, 0);
}

void supervise_drain(struct master *m, const struct generation *g, uint16_t code, uint32_t spread_ms,
		     uint64_t due_ms)
{
	const struct rec h = {.type = REC_DRAIN, .arg = {code, spread_ms}};

	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];

		if (c->pid == 0 || (g != NULL && c->generation != g))
			continue;
		seq_control(&m->seq, c->reader, &h, (struct slice){0});
		c->deadline_ms = due_ms;
		child_move(m, c, WORKER_DRAIN);
	}
}

/* ---- those that live on without living */

static void check_heartbeat(struct master *m, struct child *c, uint32_t elapsed_ms)
{
	uint64_t beat = slot_heartbeat(&c->seg);

	if (beat != c->heartbeat) {
		c->heartbeat = beat;
		c->quiet_ms = 0;
		return;
	}
	c->quiet_ms += elapsed_ms;
	/* In BOOT there is a deadline instead: a worker that has nothing mapped yet beats nothing. */
	if (c->hello_ms != 0 && c->quiet_ms >= c->generation->config->ring.stuck_time)
		supervise_kill(m, c, KILL_STUCK);
}

static void check_child(struct master *m, struct child *c, uint32_t elapsed_ms, uint64_t now)
{
	if (m->seq.reader[c->reader].is_broken && c->kill == KILL_NONE) {
		log_event(LOG_ERROR, "cursor_broken",
			  "slot=%u worker_pid=%ld msg=\"a worker wrote a cursor that cannot be\"", c->slot,
			  (long)c->pid);
		supervise_kill(m, c, KILL_BROKEN);
	}
	check_heartbeat(m, c, elapsed_ms);
	if (c->deadline_ms != 0 && now >= c->deadline_ms)
		supervise_kill(m, c, c->state == WORKER_BOOT ? KILL_BOOT : KILL_DRAIN);
}

void supervise_tick(struct master *m, uint32_t elapsed_ms)
{
	uint64_t now = clock_mono_ms();

	elapsed_ms = (uint32_t)u64_min(elapsed_ms, TICK_MAX_MS);
	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];

		if (c->pid != 0)
			check_child(m, c, elapsed_ms, now);
	}
	supervise_reap(m);
}

void supervise_hold(struct master *m, uint32_t elapsed_ms)
{
	int blamed = seq_blame(&m->seq);

	elapsed_ms = (uint32_t)u64_min(elapsed_ms, TICK_MAX_MS);
	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];

		if (c->pid == 0)
			continue;
		if (c->reader != blamed) {
			c->hold_ms -= (uint32_t)u64_min(c->hold_ms, elapsed_ms);
			continue;
		}
		c->hold_ms += elapsed_ms;
		if (c->hold_ms >= c->generation->config->ring.hold_max)
			supervise_kill(m, c, KILL_HOLD);
	}
}
