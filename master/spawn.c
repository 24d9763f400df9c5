#include "master/spawn.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "master/signals.h"
#include "master/status.h"
#include "master/subscribe.h"

#define FIXED_FDS 16

static int compare_int(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Close everything but `keep` (sorted in place): other workers' descriptors, the Redis links, and the write
 * end of the life pipe, which would keep this worker from ever noticing the master's end. */
static int close_others(int *keep, size_t n)
{
	unsigned from = 0;

	qsort(keep, n, sizeof(*keep), compare_int);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue; /* -1, or twice */
		if (keep[i] > (int)from && close_range(from, (unsigned)keep[i] - 1, 0) == -1)
			return -1;
		from = (unsigned)keep[i] + 1;
	}
	return close_range(from, ~0u, 0);
}

static int close_inherited(const struct worker_boot *b)
{
	size_t n = FIXED_FDS + b->config->n_listens + b->config->n_admins, at = 0;
	int *keep = malloc(n * sizeof(*keep)), rc;

	if (keep == NULL)
		return -1;
	const int fixed[] = {STDIN_FILENO, STDOUT_FILENO,     STDERR_FILENO,    log_descriptor(),
			     b->ring_fd,   b->slot_fd,        b->counters_fd,   b->globals_fd,
			     b->wake_fd,   b->master_wake_fd, b->master_pipe_fd};

	_Static_assert(ARRAY_LEN(fixed) <= FIXED_FDS, "room for the fixed descriptors");
	memcpy(keep, fixed, sizeof(fixed));
	at = ARRAY_LEN(fixed);
	for (size_t i = 0; i < b->config->n_listens; i++)
		keep[at++] = b->listen_fds[i];
	for (size_t i = 0; i < b->config->n_admins; i++)
		keep[at++] = b->admin_fds[i];
	rc = close_others(keep, at);
	free(keep);
	return rc;
}

/* `user`: the master keeps its rights (ports, pid file), workers give them up. */
static int become_user(const char *name)
{
	const struct passwd *pw;

	if (name == NULL || *name == '\0' || geteuid() != 0)
		return 0;
	errno = ENOENT;
	pw = getpwnam(name);
	if (pw == NULL)
		return -1;
	if (initgroups(name, pw->pw_gid) == -1 || setgid(pw->pw_gid) == -1 || setuid(pw->pw_uid) == -1)
		return -1;
	return 0;
}

static _Noreturn void run_child(struct master *m, const struct worker_boot *boot)
{
	char proc[32];

	snprintf(proc, sizeof(proc), "worker.%u", boot->position);
	log_set_proc(proc);
	/* The watchers first: libev aborts when a signal is attached to a second loop. */
	signals_stop(m);
	ev_loop_destroy(m->loop);
	if (close_inherited(boot) == -1 || become_user(boot->config->user) == -1) {
		log_event(LOG_ERROR, "start_failed", "errno=%d msg=\"worker cannot start: %s\"", errno,
			  strerror(errno));
		_exit(1);
	}
	/* _exit: atexit handlers and stdio buffers are the master's. */
	_exit(worker_main(boot));
}

static void fill_listeners(const struct master *m, const struct config *c, unsigned position, int *listens,
			   int *admins)
{
	for (size_t i = 0; i < c->n_listens; i++)
		listens[i] = listen_fd(&m->listeners, c, LISTEN_CLIENT, i, position);
	for (size_t i = 0; i < c->n_admins; i++)
		admins[i] = listen_fd(&m->listeners, c, LISTEN_ADMIN, i, position);
}

/* Fork with all signals blocked, so that none reaches the master's handlers in the child. */
static int fork_worker(struct master *m, const struct child *c, pid_t *pid)
{
	const struct config *config = c->generation->config;
	int *fds = malloc((config->n_listens + config->n_admins + 1) * sizeof(*fds));
	struct worker_boot boot = {
		.config = config,
		.slot = c->slot,
		.incarnation = c->incarnation,
		.generation = c->generation->number,
		.position = c->position,
		.start = c->seg.sh->start,
		.ring_fd = m->ring_fd,
		.slot_fd = c->seg.fd,
		.counters_fd = m->counters_fd,
		.globals_fd = m->globals_fd,
		.wake_fd = c->wake_fd,
		.master_wake_fd = m->wake_fd,
		.master_pipe_fd = m->life_read,
		.listen_fds = fds,
		.admin_fds = fds == NULL ? NULL : fds + config->n_listens,
	};
	sigset_t all, before;

	if (fds == NULL)
		return -1;
	fill_listeners(m, config, c->position, fds, fds + config->n_listens);
	sigfillset(&all);
	if (sigprocmask(SIG_BLOCK, &all, &before) == -1) {
		free(fds);
		return -1;
	}
	*pid = fork();
	if (*pid == 0)
		run_child(m, &boot);
	(void)sigprocmask(SIG_SETMASK, &before, NULL); /* fails for a bad `how` only */
	free(fds);
	return *pid == -1 ? -1 : 0;
}

static int open_slot(struct master *m, struct child *c, uint64_t start)
{
	int id;

	c->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (c->wake_fd == -1)
		return -1;
	if (slot_create(&c->seg, c->slot, c->incarnation, start, c->generation->config->ring.uplink_size) ==
	    -1) {
		close(c->wake_fd);
		return -1;
	}
	id = seq_reader_add(&m->seq, &c->seg, c->slot, c->incarnation, c->wake_fd);
	if (id == SEQ_NOBODY) {
		/* Workers die faster than the sweep goes: the whole of it at once. */
		subscribe_sweep(m, 3 * m->seq.interest.n_buckets);
		id = seq_reader_add(&m->seq, &c->seg, c->slot, c->incarnation, c->wake_fd);
	}
	if (id == SEQ_NOBODY) {
		slot_close(&c->seg);
		close(c->wake_fd);
		errno = EAGAIN;
		return -1;
	}
	c->reader = (uint8_t)id;
	c->control_pos = c->seg.control.head;
	c->data_pos = c->seg.data.head;
	return 0;
}

int spawn_worker(struct master *m, struct child *c, struct generation *g, unsigned position)
{
	pid_t pid = 0;

	*c = (struct child){.slot = c->slot,
			    .position = position,
			    .generation = g,
			    .incarnation = ++m->incarnations,
			    .wake_fd = -1};
	if (open_slot(m, c, seq_head(&m->seq)) == -1)
		return -1;
	status_slot(m, c->slot);
	if (fork_worker(m, c, &pid) == -1) {
		int saved = errno;

		seq_reader_remove(&m->seq, c->reader);
		slot_close(&c->seg);
		close(c->wake_fd);
		errno = saved;
		return -1;
	}
	c->pid = pid;
	/* Its only use was to be inherited. */
	close(c->seg.fd);
	c->seg.fd = -1;
	return 0;
}
