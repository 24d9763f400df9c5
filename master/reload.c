#include "master/reload.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/config_load.h"
#include "master/notify.h"
#include "master/relay.h"
#include "master/status.h"
#include "master/subscribe.h"
#include "master/supervise.h"

#define CODE_RESTART 1012
#define GRACE_MS     2000u

/* One line of the log for each problem. */
static void log_problems(const struct buf *errors)
{
	const char *p = errors->p, *end = errors->p == NULL ? NULL : errors->p + errors->len;
	struct log_quoted q;

	while (p != end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		const char *stop = newline == NULL ? end : newline;

		log_event(LOG_ERROR, "reload_failed", "msg=%s", log_quote(&q, p, (size_t)(stop - p)));
		p = newline == NULL ? end : newline + 1;
	}
}

/* What was laid out at the start stays as it is until the next one. */
static int keep_fixed(const struct config *now, struct config *next)
{
	struct buf names = {0};
	size_t n = config_needs_restart(now, next, &names);
	char *user = now->user == NULL ? NULL : strdup(now->user);

	if (now->user != NULL && user == NULL) {
		buf_free(&names);
		return -1;
	}
	if (n > 0)
		log_event(LOG_WARN, "reload", "msg=\"these keys take effect at the next start: %.*s\"",
			  (int)names.len, names.p);
	buf_free(&names);
	free(next->user);
	next->user = user;
	next->ring.size = now->ring.size;
	next->ring.uplink_size = now->ring.uplink_size;
	for (size_t i = 0; i < next->n_namespaces; i++) {
		struct cfg_namespace *ns = &next->namespaces[i];

		ns->max_message = (uint32_t)u64_min(ns->max_message, now->ring.size / 4);
		ns->max_publication = (uint32_t)u64_min(ns->max_publication, now->ring.size / 4);
	}
	return 0;
}

/* Everything that can fail, before anything changes. NULL with the reasons in `errors`. */
static struct generation *prepare(struct master *m, struct buf *errors)
{
	struct config *next = config_load(m->cli->config_file, m->cli, errors);
	struct generation *g = NULL;

	if (next == NULL)
		return NULL;
	if (keep_fixed(m->generation->config, next) == -1 ||
	    listen_open(&m->listeners, next, 0, errors) == -1)
		goto out;
	if (start_register_namespaces(m, next) == -1) {
		if (buf_puts(errors, "more namespaces than ids: a restart is needed\n") == -1)
			errors->len = 0;
		goto out;
	}
	g = supervise_generation(m, next);
out:
	if (g == NULL) {
		listen_keep(&m->listeners, m->generation->config);
		config_free(next);
	}
	return g;
}

void reload_begin(struct master *m)
{
	struct buf errors = {0};

	if (m->phase != MASTER_SERVE)
		return;
	if (m->reload != RELOAD_NONE) {
		m->reload_again = true;
		log_event(LOG_INFO, "reload", "msg=\"one is under way; this one comes after it\"");
		return;
	}
	notify_reloading();
	m->next = prepare(m, &errors);
	if (m->next == NULL) {
		notify_ready(); /* as before */
		log_problems(&errors);
		if (errors.len == 0)
			log_event(LOG_ERROR, "reload_failed", "msg=\"out of memory\"");
		buf_free(&errors);
		return;
	}
	buf_free(&errors);
	log_event(LOG_INFO, "reload", "generation=%u workers=%u msg=\"starting new workers\"",
		  m->next->number, m->next->config->workers);
	m->reload = RELOAD_BOOT;
	m->reload_due_ms = clock_mono_ms() + RELOAD_BOOT_MS;
	/* Namespaces that are new: the new workers may ask for them before the switch. */
	for (size_t i = 0; i < m->next->config->n_namespaces; i++) {
		const struct cfg_namespace *ns = &m->next->config->namespaces[i];

		if (m->seq.ns[ns->id] == NULL)
			subscribe_set_namespace(m, ns->id, ns);
	}
	supervise_fill(m);
}

static void apply_log(const struct config *before, const struct config *now)
{
	const char *a = before->log_file == NULL ? "" : before->log_file,
		   *b = now->log_file == NULL ? "" : now->log_file;

	log_set_level((enum log_level)now->log_level);
	if (strcmp(a, b) != 0 && log_open(b) == -1)
		log_event(LOG_ERROR, "reopen",
			  "msg=\"cannot open the new log file; the old one stays in use\"");
}

/* A position that is no more: its worker takes what is queued, then leaves the reuseport group. */
static void retire_positions(struct master *m)
{
	const struct rec h = {.type = REC_ACCEPT, .arg = {0}};

	for (unsigned i = 0; i < m->n_active; i++) {
		const struct child *c = &m->child[m->active[i]];

		if (c->pid != 0 && c->generation == m->old && c->position >= m->generation->config->workers)
			seq_control(&m->seq, c->reader, &h, (struct slice){0});
	}
}

void reload_switch(struct master *m)
{
	const struct config *now;
	uint64_t due;

	m->old = m->generation;
	m->generation = m->next;
	m->next = NULL;
	m->is_paused = false;
	now = m->generation->config;
	for (size_t i = 0; i < now->n_namespaces; i++)
		subscribe_set_namespace(m, now->namespaces[i].id, &now->namespaces[i]);
	apply_log(m->old->config, now);
	status_master(m);
	m->reload = RELOAD_DRAIN;
	retire_positions(m);
	due = clock_mono_ms() + m->old->config->limits.handshake_timeout + GRACE_MS;
	supervise_drain(m, m->old, CODE_RESTART, 0, due);
	if (m->old->n_children == 0)
		reload_generation_empty(m, m->old);
}

void reload_free_generation(struct generation *g)
{
	if (g == NULL)
		return;
	config_free(g->config);
	free(g->posts);
	free(g);
}

void reload_generation_empty(struct master *m, struct generation *g)
{
	const struct config *now = m->generation->config;

	if (g != m->old)
		return;
	for (uint16_t i = 0; i < CFG_MAX_NAMESPACES; i++) {
		if (m->seq.ns[i] != NULL && config_find_id(now, i) == NULL)
			subscribe_set_namespace(m, i, NULL);
	}
	relay_rebind(m);
	m->old = NULL;
	m->reload = RELOAD_NONE;
	if (m->phase == MASTER_SERVE)
		listen_keep(&m->listeners, now);
	if (g->number < m->generation->number) /* else: of a reload that failed */
		log_event(LOG_INFO, "reloaded", "generation=%u msg=\"generation %u is gone\"",
			  m->generation->number, g->number);
	reload_free_generation(g);
	if (m->reload_again) {
		m->reload_again = false;
		reload_begin(m);
	}
}

void reload_tick(struct master *m, uint64_t now_ms)
{
	struct generation *g = m->next;

	if (m->reload != RELOAD_BOOT || now_ms < m->reload_due_ms || m->phase != MASTER_SERVE)
		return;
	log_event(LOG_ERROR, "reload_failed",
		  "generation=%u msg=\"the new workers do not come up; the old ones stay\"", g->number);
	notify_ready();
	m->next = NULL;
	m->old = g;
	m->reload = RELOAD_DRAIN;
	supervise_kill_all(m, g, KILL_STOP);
	if (g->n_children == 0)
		reload_generation_empty(m, g);
}
