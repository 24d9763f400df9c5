#include "worker/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef RC_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "common/clock.h"
#include "common/log.h"
#include "shm/seg.h"
#include "shm/uplink.h"
#include "worker/auth.h"
#include "worker/input.h"
#include "worker/limits.h"
#include "worker/memory.h"
#include "worker/rules.h"

#define TICK_BUSY_S 0.1  /* while deadlines, slow clients or a drain want looking after */
#define TICK_IDLE_S 0.4  /* the heartbeat: more than twice a second */
#define MEMORY_MS   1000 /* between two looks at what is allocated */
#define FD_RESERVE  64   /* descriptors kept for everything that is no connection */
#define ADMIN_MAX                                                                                            \
	256 /* admin connections of one worker, or a sixteenth of the descriptors if they are few            \
	     */
#define WS_POOL_IDLE    64                    /* parsers kept */
#define WS_MEMORY_FLOOR (UINT64_C(256) << 20) /* of unfinished messages, all clients of a worker together */

void worker_stop(struct worker *w, int status)
{
	w->exit_status = status;
	ev_break(w->loop, EVBREAK_ALL);
}

static void turn_begin(struct worker *w)
{
	w->now_ms = clock_mono_ms();
}

/* Records first: whoever is woken is woken for them. Then clients, then records again before sleep (prepare).
 */
static void on_check(struct ev_loop *loop, ev_check *check, int events)
{
	(void)loop;
	(void)check;
	(void)events;
	turn_begin(check->data);
}

static void on_wake(struct ev_loop *loop, ev_io *io, int events)
{
	struct worker *w = io->data;
	uint64_t n;

	(void)loop;
	(void)events;
	if (read(w->boot->wake_fd, &n, sizeof(n)) == sizeof(n))
		count_add(&w->count->wakes, 1);
	publish_resume(w);
}

static void on_clients(struct ev_loop *loop, ev_io *io, int events)
{
	struct worker *w = io->data;

	(void)loop;
	(void)events;
	(void)conn_poll(w); /* level-triggered: what is left comes again */
}

static void on_idle(struct ev_loop *loop, ev_idle *idle, int events)
{
	(void)loop;
	(void)idle;
	(void)events; /* its being active keeps the loop from blocking; the work is in on_prepare */
}

bool worker_records(struct worker *w)
{
	bool has_more = false;

	slot_awake(&w->slot);
	if (!fanout_is_idle(w))
		has_more = fanout_turn(w);
	publish_flush(w);
	if (has_more)
		return true;
	slot_sleep(&w->slot); /* S1, pairs with S2 */
	if (!fanout_is_idle(w)) {
		slot_awake(&w->slot);
		return true;
	}
	/* skip_to may have moved past what uninteresting records left between. */
	fanout_skip(w);
	return false;
}

static void on_prepare(struct ev_loop *loop, ev_prepare *prepare, int events)
{
	struct worker *w = prepare->data;

	(void)events;
	turn_begin(w);
	if (worker_records(w))
		ev_idle_start(loop, &w->idle);
	else
		ev_idle_stop(loop, &w->idle);
}

/* jemalloc adds up all its arenas for an answer: as dear as a dozen deliveries. */
static void count_memory(struct worker *w)
{
#ifdef RC_JEMALLOC
	uint64_t epoch = 1;
	size_t allocated, size = sizeof(allocated);

	if (w->now_ms - w->memory_ms < MEMORY_MS)
		return;
	w->memory_ms = w->now_ms;
	if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) == 0 &&
	    mallctl("stats.allocated", &allocated, &size, NULL, 0) == 0)
		count_set(&w->count->jemalloc_allocated, allocated);
#else
	(void)w;
#endif
}

void worker_tick(struct worker *w)
{
	uint32_t index;

	slot_beat(&w->slot);
	while ((index = wheel_expire(&w->wheel, w->now_ms)) != WHEEL_NONE)
		conn_expired(w, conn_at(&w->conns, index));
	auth_tick(w);
	accept_tick(w);
	admin_tick(w);
	behind_sweep(w);
	input_sweep(w);
	ask_tick(w);
	log_tick();
	memory_tick(w);
	fanout_publish_cursor(w);
	if (w->starving_head != CONN_NONE || w->control_overflow.len > 0 || ask_is_waiting(w))
		publish_resume(w);
	delivered_tell(w);
	control_drain_step(w);
	count_memory(w);
}

static void on_tick(struct ev_loop *loop, ev_timer *timer, int events)
{
	struct worker *w = timer->data;

	(void)events;
	worker_tick(w);
	timer->repeat = w->wheel.n > 0 || w->behind.n > 0 || w->is_draining ? TICK_BUSY_S : TICK_IDLE_S;
	ev_timer_again(loop, timer);
}

/* The master is gone: nobody feeds the ring. Clients see 1001 if their socket takes it. */
static void on_master_gone(struct ev_loop *loop, ev_io *io, int events)
{
	struct worker *w = io->data;

	(void)loop;
	(void)events;
	log_event(LOG_ERROR, "master_gone", "total=%u msg=\"leaving\"", w->conns.n_open);
	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		struct conn *c = conn_at(&w->conns, i);

		if (c->state == CONN_OPEN)
			conn_close(w, c, 1001, NULL);
	}
	worker_stop(w, 1);
}

static int map_shared(struct worker *w)
{
	const struct worker_boot *b = w->boot;
	uint64_t size = w->config->ring.size;
	uint8_t *data = seg_map_twice(b->ring_fd, SEG_PAGE, size, SEG_PAGE, PROT_READ);

	if (data == NULL || ring_attach(&w->ring, (struct ring_hdr *)(data - SEG_PAGE), data, size) == -1)
		return -1;
	if (slot_attach(&w->slot, b->slot_fd, w->config->ring.uplink_size) == -1)
		return -1;
	w->count = counters_map_block(b->counters_fd, b->slot);
	w->all_counters = counters_map_all(b->counters_fd);
	w->globals = seg_map(b->globals_fd, 0, GLOBALS_BYTES, PROT_READ);
	if (w->count == NULL || w->all_counters == NULL || w->globals == NULL)
		return -1;
	close(b->counters_fd);
	if (w->globals->magic != GLOBALS_MAGIC || w->globals->layout != GLOBALS_LAYOUT) {
		errno = EPROTO;
		return -1;
	}
	return 0;
}

/* Share out the descriptors that this process may open: clients, admin connections, the rest. Returns the
 * clients'. */
static uint32_t max_connections(struct worker *w)
{
	uint64_t most = (uint64_t)CONN_SEGMENTS_MAX * CONN_SEGMENT, reserve;
	struct rlimit l;

	w->admin_max = ADMIN_MAX;
	if (getrlimit(RLIMIT_NOFILE, &l) == -1 || l.rlim_cur == RLIM_INFINITY)
		return (uint32_t)most;
	w->admin_max = (unsigned)u64_min(ADMIN_MAX, l.rlim_cur / 16 + 1);
	reserve = FD_RESERVE + w->admin_max;
	return (uint32_t)u64_min(l.rlim_cur > reserve ? l.rlim_cur - reserve : 1, most);
}

static int init_parts(struct worker *w)
{
	w->ws_memory = u64_max(WS_MEMORY_FLOOR, 4 * (uint64_t)w->config->limits.max_message);
	w->starving_head = w->starving_tail = CONN_NONE;
	session_table_init(&w->sessions);
	ask_init(&w->asks);
	w->users = user_table_new();
	w->ws_pool = ws_pool_new(WS_POOL_IDLE, w->ws_memory);
	if (w->users == NULL || w->ws_pool == NULL || conn_table_init(w, max_connections(w)) == -1 ||
	    channel_table_init(&w->channels) == -1 || fanout_init(w, w->boot->start) == -1 ||
	    behind_init(w) == -1 || auth_start(w) == -1 || limits_start(w) == -1 || rules_start(w) == -1)
		return -1;
	return 0;
}

static void start_watchers(struct worker *w)
{
	ev_io_init(&w->wake_io, on_wake, w->boot->wake_fd, EV_READ);
	ev_io_init(&w->clients_io, on_clients, w->conns.epoll, EV_READ);
	ev_io_init(&w->master_io, on_master_gone, w->boot->master_pipe_fd, EV_READ);
	ev_prepare_init(&w->prepare, on_prepare);
	ev_check_init(&w->check, on_check);
	ev_idle_init(&w->idle, on_idle);
	ev_timer_init(&w->tick, on_tick, TICK_BUSY_S, TICK_BUSY_S);
	w->wake_io.data = w->clients_io.data = w->master_io.data = w;
	w->prepare.data = w->check.data = w->idle.data = w->tick.data = w;
	ev_set_priority(&w->check, EV_MAXPRI); /* the clock first */
	ev_io_start(w->loop, &w->wake_io);
	ev_io_start(w->loop, &w->clients_io);
	ev_io_start(w->loop, &w->master_io);
	ev_prepare_start(w->loop, &w->prepare);
	ev_check_start(w->loop, &w->check);
	ev_timer_start(w->loop, &w->tick);
}

/* The master tells workers through the ring when to leave, so that clients get their Close. A signal that
 * reaches all processes at once (a terminal's ^C, a service manager's TERM to the whole group) is the
 * master's affair. */
static void set_signals(void)
{
	const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

struct worker *worker_new(const struct worker_boot *boot)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->boot = boot;
	w->config = boot->config;
	turn_begin(w);
	w->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (w->loop == NULL || map_shared(w) == -1 || init_parts(w) == -1 || accept_start(w) == -1 ||
	    admin_start(w) == -1)
		return NULL;
	start_watchers(w);
	publish_control(w, UP_HELLO, 0, (struct slice){0});
	publish_flush(w);
	return w;
}

void worker_free(struct worker *w)
{
	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++)
		conn_drop(w, conn_at(&w->conns, i), false, 1006);
	auth_stop(w);
	limits_stop(w);
	admin_stop(w);
	accept_stop(w);
	conn_table_free(&w->conns);
	channel_table_free(&w->channels);
	session_table_free(&w->sessions);
	user_table_free(w->users);
	fanout_free(&w->fanout);
	behind_free(&w->behind);
	delivered_free(w);
	latest_free(w);
	rules_stop(w);
	ws_pool_free(w->ws_pool);
	buf_free(&w->control_overflow);
	ask_free(&w->asks);
	slot_close(&w->slot);
	seg_unmap_twice(w->ring.data, w->ring.size, SEG_PAGE);
	seg_unmap(w->count, COUNTERS_BLOCK);
	seg_unmap((void *)(uintptr_t)w->all_counters, COUNTERS_BYTES);
	seg_unmap((void *)(uintptr_t)w->globals, GLOBALS_BYTES);
	ev_loop_destroy(w->loop);
	free(w);
}

int worker_main(const struct worker_boot *boot)
{
	struct worker *w;

	set_signals();
	w = worker_new(boot);
	if (w == NULL) {
		log_event(LOG_ERROR, "start_failed", "errno=%d msg=\"worker cannot start: %s\"", errno,
			  strerror(errno));
		return 1;
	}
	ev_run(w->loop, 0);
	publish_flush(w);
	return w->exit_status; /* the kernel frees faster than worker_free() */
}
