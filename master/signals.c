#include "master/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/notify.h"
#include "master/reload.h"
#include "master/status.h"
#include "master/supervise.h"

static const int watched[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD};
_Static_assert(ARRAY_LEN(watched) == ARRAY_LEN(((struct master *)0)->signals), "one watcher each");

static bool has_terminal(void)
{
	int fd = isatty(STDIN_FILENO) ? STDIN_FILENO : open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);

	if (fd > STDIN_FILENO)
		close(fd);
	return fd != -1;
}

/* No new clients: the listeners go at once; queued connections are the workers' to accept. */
static void leave_service(struct master *m, enum master_phase phase)
{
	m->phase = phase;
	notify_stopping();
	status_master(m);
	listen_close(&m->listeners, LISTEN_CLIENT);
	supervise_arm(m);
}

static void stop(struct master *m, int sig)
{
	const struct config *c = m->generation->config;
	uint64_t due = clock_mono_ms() + c->stop.drain_time + c->limits.close_linger + SUPERVISE_STOP_MS;

	if (m->phase == MASTER_STOP) {
		log_event(LOG_WARN, "stop", "reason=%s msg=\"the second signal: at once\"",
			  sig == SIGINT ? "INT" : "TERM");
		m->is_hurried = true;
		supervise_kill_all(m, NULL, KILL_STOP);
		master_exit(m, 0);
		return;
	}
	log_event(LOG_INFO, "stop", "reason=%s code=%u total=%u msg=\"closing clients over %u ms\"",
		  sig == SIGINT ? "INT" : "TERM", c->stop.close_code, m->n_active, c->stop.drain_time);
	leave_service(m, MASTER_STOP);
	supervise_drain(m, NULL, c->stop.close_code, c->stop.drain_time, due);
	supervise_reap(m); /* nobody there: done */
}

static void quit(struct master *m)
{
	if (m->phase != MASTER_SERVE)
		return;
	log_event(LOG_INFO, "stop", "reason=QUIT total=%u msg=\"waiting for the clients to leave\"",
		  m->n_active);
	leave_service(m, MASTER_QUIT);
	supervise_drain(m, NULL, 0, 0, 0);
	supervise_reap(m);
}

static void reopen(struct master *m)
{
	const struct rec h = {.type = REC_REOPEN};

	if (log_reopen() == -1)
		log_event(LOG_ERROR, "reopen", "errno=%d msg=\"cannot open the log file anew\"", errno);
	else
		log_event(LOG_INFO, "reopen", NULL);
	seq_control_all(&m->seq, &h);
}

static void pause_accepting(struct master *m)
{
	const struct rec h = {.type = REC_ACCEPT, .arg = {0}};

	if (m->phase != MASTER_SERVE || m->is_paused || has_terminal())
		return;
	m->is_paused = true;
	log_event(LOG_INFO, "pause", "msg=\"no new connections until HUP\"");
	seq_control_all(&m->seq, &h);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
	struct master *m = w->data;

	(void)loop;
	(void)events;
	switch (w->signum) {
	case SIGTERM:
	case SIGINT:
		stop(m, w->signum);
		break;
	case SIGQUIT:
		quit(m);
		break;
	case SIGHUP:
		reload_begin(m);
		break;
	case SIGUSR1:
		reopen(m);
		break;
	case SIGUSR2:
		log_event(LOG_ERROR, "upgrade", "msg=\"not in this version\"");
		break;
	case SIGWINCH:
		pause_accepting(m);
		break;
	case SIGCHLD:
		supervise_reap(m);
		break;
	}
}

void signals_start(struct master *m)
{
	for (size_t i = 0; i < ARRAY_LEN(watched); i++) {
		ev_signal_init(&m->signals[i], on_signal, watched[i]);
		m->signals[i].data = m;
		ev_signal_start(m->loop, &m->signals[i]);
	}
}

void signals_stop(struct master *m)
{
	for (size_t i = 0; i < ARRAY_LEN(watched); i++)
		ev_signal_stop(m->loop, &m->signals[i]);
}
