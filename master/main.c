/* main.c - ringcast: one master, its workers. Start and end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/admit.h"
#include "master/config_load.h"
#include "master/control.h"
#include "master/delivered.h"
#include "master/drain.h"
#include "master/master.h"
#include "master/nodes.h"
#include "master/notify.h"
#include "master/presence.h"
#include "master/reached.h"
#include "master/relay.h"
#include "master/reload.h"
#include "master/signals.h"
#include "master/status.h"
#include "master/store.h"
#include "master/survey.h"
#include "master/supervise.h"

#define BIND_RETRY_MS 1000u /* workers of a master that was killed may take that long to notice */

static int print_errors(struct buf *errors)
{
	if (errors->len == 0)
		fputs("ringcast: out of memory\n", stderr);
	else
		fwrite(errors->p, 1, errors->len, stderr);
	buf_free(errors);
	return 1;
}

/* Each connection is a file. What the hard limit allows we may have. */
static void raise_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == -1)
		return;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) == -1)
		log_event(LOG_WARN, "limit", "errno=%d msg=\"cannot raise the number of open files\"", errno);
	else
		log_event(LOG_INFO, "limit", "total=%llu msg=\"open files per process\"",
			  (unsigned long long)l.rlim_cur);
}

static int start(struct master *m, struct config *c, struct buf *errors)
{
	const char *mode = c->redis.url == NULL || *c->redis.url == '\0' ? "local" : "redis";

	if (c->pid_file != NULL && *c->pid_file != '\0' && start_pid_file(m, c->pid_file, errors) == -1)
		return -1;
	if (listen_open(&m->listeners, c, BIND_RETRY_MS, errors) == -1 || start_segments(m, c, errors) == -1)
		return -1;
	log_event(LOG_INFO, "start", "version=%s mode=%s workers=%u ring=%llu", RC_VERSION, mode, c->workers,
		  (unsigned long long)c->ring.size);
	if (start_register_namespaces(m, c) == -1) {
		errno = ENOSPC;
		return -1;
	}
	for (size_t i = 0; i < c->n_namespaces; i++)
		m->seq.ns[c->namespaces[i].id] = &c->namespaces[i];
	m->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (m->loop == NULL)
		return -1;
	master_watch(m);
	if (presence_start(m) == -1 || store_start(m) == -1 || admit_start(m) == -1 || nodes_start(m) == -1 ||
	    reached_start(m) == -1 || survey_start(m) == -1 || control_start(m) == -1 || relay_start(m) == -1)
		return -1;
	signals_start(m);
	status_master(m);
	relay_tick(m, clock_mono_ms());
	supervise_fill(m);
	return 0;
}

static void finish(struct master *m)
{
	supervise_kill_all(m, NULL, KILL_STOP);
	listen_close(&m->listeners, LISTEN_CLIENT);
	listen_close(&m->listeners, LISTEN_ADMIN);
	start_remove_pid_file(m);
	if (m->loop != NULL) {
		nodes_leave(m);
		relay_stop(m);
		survey_stop(m);
		reached_stop(m);
		delivered_stop(m);
		nodes_stop(m);
		presence_stop(m);
		store_stop(m);
		admit_stop(m);
		signals_stop(m);
		master_unwatch(m);
		ev_loop_destroy(m->loop);
	}
	for (unsigned i = 0; i < m->n_active; i++) {
		struct child *c = &m->child[m->active[i]];

		drain_forget(m, c);
		slot_close(&c->seg);
		close(c->wake_fd);
	}
	throttle_free(&m->throttle);
	start_free_segments(m);
	reload_free_generation(m->old);
	reload_free_generation(m->next);
	reload_free_generation(m->generation);
}

/* Serve with this configuration, which is owned from here on. Returns the exit status. */
static int run(const struct cli *cli, struct config *c)
{
	static struct master m = {
		.ring_fd = -1,
		.globals_fd = -1,
		.counters_fd = -1,
		.wake_fd = -1,
		.life_read = -1,
		.life_write = -1,
		.pid_fd = -1,
	};
	struct buf errors = {0};
	int status;

	if (log_open(c->log_file) == -1) {
		fprintf(stderr, "%s: %s\n", c->log_file, strerror(errno));
		config_free(c);
		return 1;
	}
	log_set_level((enum log_level)c->log_level);
	raise_files();
	notify_start();
	m.cli = cli;
	m.generation = supervise_generation(&m, c);
	if (m.generation == NULL || start(&m, c, &errors) == -1) {
		status = print_errors(&errors);
	} else {
		ev_run(m.loop, 0);
		status = m.exit_status;
		log_event(LOG_INFO, "exit", "status=%d", status);
	}
	finish(&m);
	notify_stop();
	return status;
}

/* -t and -T. */
static int check(const struct cli *cli)
{
	struct buf errors = {0};
	struct config *c = config_load(cli->config_file, cli, &errors);
	int status = 0;

	if (c == NULL)
		return print_errors(&errors);
	if (cli->action == CLI_DUMP && config_print(c, stdout) == -1)
		status = 1;
	else if (cli->action == CLI_TEST)
		fprintf(stderr, "ringcast: the configuration is good\n");
	config_free(c);
	buf_free(&errors);
	return fflush(stdout) == 0 ? status : 1;
}

static int send_signal(const struct cli *cli)
{
	struct buf errors = {0};
	struct config *c;
	int status;

	/* --pid names it: then the configuration may be as broken as it likes. */
	if (cli->pid_file != NULL)
		return cli_send_signal(cli->pid_file, cli->signal, stderr);
	c = config_load(cli->config_file, cli, &errors);
	if (c == NULL)
		return print_errors(&errors);
	status = cli_send_signal(c->pid_file, cli->signal, stderr);
	config_free(c);
	buf_free(&errors);
	return status;
}

static int serve(const struct cli *cli)
{
	struct buf errors = {0};
	struct config *c = config_load(cli->config_file, cli, &errors);
	int status;

	if (c == NULL)
		return print_errors(&errors);
	buf_free(&errors);
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
		config_free(c);
		return 1;
	}
	status = run(cli, c);
	return status;
}

int main(int argc, char **argv)
{
	struct cli cli;

	if (cli_parse(argc, argv, &cli, stderr) == -1)
		return 2;
	switch (cli.action) {
	case CLI_VERSION:
		cli_print_version(stdout);
		return 0;
	case CLI_HELP:
		cli_print_help(stdout);
		return 0;
	case CLI_TEST:
	case CLI_DUMP:
		return check(&cli);
	case CLI_SIGNAL:
		return send_signal(&cli);
	case CLI_RUN:
		break;
	}
	return serve(&cli);
}
