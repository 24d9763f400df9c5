/* stress.c - the producer, and the life and death of the others.
 *
 *     stress [--threads] [--seconds S] [--seed N] [--consumers N]
 *
 * One TAP line (no plan: `make stress` runs it twice). Exit status 1 if anything was wrong.
 */
#include "tests/stress/stress.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/wsframe.h"
#include "shm/seg.h"

#define CONSUMERS_MAX 16
#define KILL_EVERY_MS 40 /* on average */

struct stress_options stress = {.seconds = 5, .consumers = 4, .historians = 1, .ring_size = 65536};

struct worker {
	struct consumer c;
	struct slot slot;
	_Atomic bool must_die;
	pthread_t thread;
	pid_t pid;
	bool is_historian;
	enum consumer_end end; /* threads */
	uint64_t cursor, skip_to, concern_end, first, up_pos, up_seen;
	bool is_marked;
};

static struct worker worker[CONSUMERS_MAX];
static unsigned n_workers;
static struct ring ring;
static struct ring ring_view; /* threads: what consumers copy */
static int ring_fd = -1, ring_ro_fd = -1, master_wake_fd;
static struct globals *globals;
static uint64_t rng, seq[CHANNELS], last[CHANNELS];
static uint64_t n_records, n_kills, n_wakes, n_full, n_up;
static bool is_wrong;

static void wrong(const char *what, unsigned w)
{
	printf("# master: %s (worker %u)\n", what, w);
	fflush(stdout);
	is_wrong = true;
}

static _Noreturn void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the memory */

static void make_ring(void)
{
	struct ring_hdr *hdr;
	uint8_t *data;
	uint64_t start = (UINT64_C(1) << 32) - 4 * stress.ring_size; /* 2^32 is crossed early */

	if (stress.threads) {
		/* One mapping. TSan must see every byte under one address. */
		hdr = aligned_alloc(RING_LINE, sizeof(*hdr));
		data = aligned_alloc(4096, stress.ring_size);
		globals = calloc(1, GLOBALS_BYTES);
	} else {
		ring_fd = seg_create("stress-ring", SEG_PAGE + stress.ring_size);
		ring_ro_fd = ring_fd == -1 ? -1 : seg_reopen_readonly(ring_fd);
		data = ring_ro_fd == -1 ? NULL
					: seg_map_twice(ring_fd, SEG_PAGE, stress.ring_size, SEG_PAGE,
							PROT_READ | PROT_WRITE);
		hdr = data == NULL ? NULL : (struct ring_hdr *)(data - SEG_PAGE);
		globals =
			mmap(NULL, GLOBALS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (hdr != NULL && seg_keep_from_children(hdr, SEG_PAGE + 2 * stress.ring_size) == -1)
			die("madvise");
	}
	if (hdr == NULL || data == NULL || globals == NULL || globals == MAP_FAILED)
		die("ring");
	if (stress.threads) {
		memset(hdr, 0, sizeof(*hdr));
		memset(data, 0, stress.ring_size);
	}
	ring_init(&ring, hdr, data, stress.ring_size, start);
	if (ring_attach(&ring_view, hdr, data, stress.ring_size) == -1)
		die("ring_attach");
}

/* A slot of one thread: plain memory, no second mapping. */
static void make_plain_slot(struct slot *s, uint64_t start)
{
	uint8_t *page = aligned_alloc(4096, 4096), *data = aligned_alloc(4096, 4096);

	if (page == NULL || data == NULL)
		die("slot");
	memset(page, 0, 4096);
	memset(data, 0, 4096);
	*s = (struct slot){.sh = (struct slot_shared *)page, .fd = -1};
	ring_init(&s->data, &s->sh->data, data, 4096, 4096);
	slot_set_cursor(s, start);
	slot_set_skip_to(s, start);
}

static void free_slot(struct worker *w)
{
	if (w->is_historian)
		return;
	if (stress.threads) {
		free(w->slot.sh);
		free(w->slot.data.data);
	} else {
		slot_close(&w->slot);
	}
}

/* ---- consumers */

static enum consumer_end run(const struct worker *w)
{
	return w->is_historian ? historian_run(&w->c) : consumer_run(&w->c);
}

static void *thread_main(void *arg)
{
	struct worker *w = arg;

	w->end = run(w);
	return NULL;
}

static void start_worker(unsigned i, uint32_t incarnation)
{
	struct worker *w = &worker[i];

	w->is_historian = i >= stress.consumers;
	if (w->is_historian)
		;
	else if (stress.threads)
		make_plain_slot(&w->slot, ring.head);
	else if (slot_create(&w->slot, (uint16_t)i, incarnation, ring.head, UPLINK_CONTROL_BYTES) == -1)
		die("slot_create");
	w->c = (struct consumer){.w = i,
				 .incarnation = incarnation,
				 .start = ring.head,
				 .seed = random_next(&rng),
				 .ring_fd = ring_ro_fd,
				 .wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
				 .master_wake_fd = master_wake_fd,
				 .master_slot = w->is_historian ? NULL : &w->slot,
				 .globals = globals,
				 .ring = stress.threads ? &ring_view : NULL,
				 .must_die = stress.threads ? &w->must_die : NULL};
	memcpy(w->c.seq, seq, sizeof(seq));
	w->cursor = w->skip_to = w->concern_end = ring.head;
	w->first = w->up_seen = 0;
	w->up_pos = w->is_historian ? 0 : w->slot.data.head;
	atomic_store(&w->must_die, false);
	if (w->c.wake_fd == -1)
		die("eventfd");
	if (stress.threads) {
		if (pthread_create(&w->thread, NULL, thread_main, w) != 0)
			die("pthread_create");
		return;
	}
	fflush(stdout);
	w->pid = fork();
	if (w->pid == -1)
		die("fork");
	if (w->pid == 0)
		_exit(run(w) == CONSUMER_FAILED ? 1 : 0);
}

static void drain_uplink(unsigned i);

/* Wait for its end; killed: it did not end by itself. */
static void reap(unsigned i, bool killed)
{
	struct worker *w = &worker[i];
	int status;

	if (stress.threads) {
		pthread_join(w->thread, NULL);
		if (w->end == CONSUMER_FAILED)
			wrong("failed", i);
	} else {
		if (waitpid(w->pid, &status, 0) != w->pid)
			die("waitpid");
		if (killed ? WIFEXITED(status) && WEXITSTATUS(status) != 0 : status != 0)
			wrong("failed", i);
	}
	/* What it committed before it died still counts. */
	if (!w->is_historian)
		drain_uplink(i);
	close(w->c.wake_fd);
	free_slot(w);
}

static void kill_worker(unsigned i)
{
	if (stress.threads)
		atomic_store(&worker[i].must_die, true);
	else
		kill(worker[i].pid, SIGKILL);
	reap(i, true);
	n_kills++;
	start_worker(i, worker[i].c.incarnation + 1);
}

/* ---- the master's half of the protocol (the rule of slot.h) */

static void write_event(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) == -1)
		die("eventfd");
}

static void drain_uplink(unsigned i)
{
	struct worker *w = &worker[i];
	struct up_view v;
	enum up_peek p;
	bool is_starving = false;

	while ((p = uplink_peek(&w->slot.data, w->up_pos, &v)) == UP_RECORD) {
		uint64_t payload[UP_WORDS];

		memcpy(payload, v.payload.p, sizeof(payload));
		if (v.payload.len != sizeof(payload) || payload[0] != ++w->up_seen ||
		    payload[UP_WORDS - 1] != payload[0] || v.h.total != (uint32_t)payload[0])
			wrong("an uplink record is lost, repeated or torn", i);
		w->up_pos = v.end;
		n_up++;
		is_starving |= uplink_release(&w->slot.data, w->up_pos);
	}
	if (p == UP_BROKEN)
		wrong("an uplink is broken", i);
	if (is_starving)
		write_event(w->c.wake_fd);
}

static bool is_caught_up(unsigned i)
{
	struct worker *w = &worker[i];
	uint64_t cursor = slot_cursor(&w->slot);

	if (cursor < w->cursor || cursor > ring.head)
		wrong("a cursor out of bounds", i);
	w->cursor = cursor;
	return cursor >= w->concern_end;
}

static void store_skip(struct worker *w, uint64_t to)
{
	if (to > w->skip_to) {
		w->skip_to = to;
		slot_set_skip_to(&w->slot, to);
	}
}

static void move_skip(unsigned i)
{
	struct worker *w = &worker[i];

	if (w->first != 0 && is_caught_up(i))
		w->first = 0;
	store_skip(w, w->first == 0 ? ring.head : w->first);
}

static uint64_t gates(void)
{
	uint64_t gate = ring.head;

	for (unsigned i = 0; i < stress.consumers; i++) {
		move_skip(i);
		gate = u64_min(gate, u64_max(worker[i].cursor, worker[i].skip_to));
	}
	return gate;
}

static void mark(unsigned i, uint64_t pos)
{
	struct worker *w = &worker[i];

	if (w->first == 0 || (!w->is_marked && is_caught_up(i)))
		w->first = pos;
	w->is_marked = true;
	w->concern_end = ring.head;
}

static void flush(void)
{
	slot_fence();
	for (unsigned i = 0; i < stress.consumers; i++) {
		struct worker *w = &worker[i];

		if (w->is_marked)
			store_skip(w, w->first);
		else
			move_skip(i);
		if (w->is_marked && slot_take_sleeping(&w->slot)) {
			write_event(w->c.wake_fd);
			n_wakes++;
		}
		w->is_marked = false;
	}
}

static void nap(void)
{
	struct pollfd p = {.fd = master_wake_fd, .events = POLLIN};
	bool has_more = false;
	uint64_t n;

	globals_nap(globals);
	for (unsigned i = 0; i < stress.consumers; i++)
		has_more |= ring_head(&worker[i].slot.data) != worker[i].up_pos;
	if (!has_more && poll(&p, 1, 1) == 1 && read(master_wake_fd, &n, sizeof(n)) == -1 && errno != EAGAIN)
		die("read");
	globals_awake(globals);
}

static uint64_t wait_for_space(uint32_t len)
{
	uint64_t gate = gates(), began = clock_mono_ms();

	if (ring_space(&ring, gate) < len)
		n_full++;
	while (ring_space(&ring, gate) < len && !is_wrong) {
		flush();
		for (unsigned i = 0; i < stress.consumers; i++)
			drain_uplink(i);
		nap();
		gate = gates();
		if (clock_mono_ms() - began > 30000)
			wrong("the ring is full for 30 s", 0);
	}
	return gate;
}

/* ---- records */

static void commit(uint8_t type, unsigned channel, uint64_t arg0, uint64_t arg1)
{
	static uint8_t payload[PAYLOAD_MAX + STEP_BYTES];
	uint32_t len = type == REC_PUBLICATION ? content_len(channel, seq[channel] + 1) : 0;
	char room[32];
	struct slice name = content_room(channel, room, sizeof(room));
	uint64_t gate = wait_for_space(rec_size(name.len, len)), pos = ring.head;
	struct rec h = {.type = type,
			.opcode = WS_BINARY,
			.ns = (uint16_t)channel,
			.hash = channel + 1,
			.time_ns = clock_mono_ns(),
			.slot = REC_ALL,
			.arg = {arg0, arg1}};

	if (is_wrong)
		return;
	if (type != REC_PUBLICATION) {
		rec_commit(&ring, gate, &h, name, (struct slice){0}, 0);
	} else {
		h.seq = ++seq[channel];
		h.arg[0] = pos;
		content_fill(channel, h.seq, payload, len);
		last[channel] = rec_commit(&ring, gate, &h, name, (struct slice){(const char *)payload, len},
					   last[channel]);
	}
	for (unsigned i = 0; i < stress.consumers; i++) {
		if (type == REC_END || (type == REC_PUBLICATION && content_concerns(i, channel)))
			mark(i, pos);
	}
	n_records++;
}

static void publish(void)
{
	unsigned channel = (unsigned)random_next(&rng) % CHANNELS;
	uint32_t len = (uint32_t)(HEAD_BYTES + content_len(channel, seq[channel] + 1));

	while (stress.threads && (ring.head & ring.mask) + len > ring.size && !is_wrong)
		commit(REC_FILLER, channel, 0, 0);
	commit(REC_PUBLICATION, channel, 0, 0);
}

/* In bursts, with pauses in which all fall asleep. */
static void produce(uint64_t until_ms)
{
	uint64_t next_kill = clock_mono_ms() + KILL_EVERY_MS;

	while (clock_mono_ms() < until_ms && !is_wrong) {
		uint64_t r = random_next(&rng);

		for (unsigned i = 0; i < 1 + r % 64; i++)
			publish();
		flush();
		for (unsigned i = 0; i < stress.consumers; i++)
			drain_uplink(i);
		if (r >> 8 & 1)
			nap();
		if (r >> 9 & 1)
			usleep((useconds_t)(r >> 32) % 300);
		if (clock_mono_ms() >= next_kill) {
			/* Worker 0 lives to the end: it must see everything. */
			kill_worker(1 + (unsigned)(r >> 16) % (n_workers - 1));
			next_kill = clock_mono_ms() + 1 + (r >> 24) % (2 * KILL_EVERY_MS);
		}
	}
}

static void finish(void)
{
	commit(REC_END, 0, seq[0] | seq[1] << 32, seq[2] | seq[3] << 32);
	flush();
	for (unsigned i = 0; i < n_workers; i++) {
		if (is_wrong || worker[i].is_historian) {
			/* A failed run may leave sleepers; a historian may stand anywhere. */
			atomic_store(&worker[i].must_die, true);
			if (!stress.threads)
				kill(worker[i].pid, SIGKILL);
			reap(i, true);
		} else {
			reap(i, false);
		}
	}
}

static bool parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--threads") == 0)
			stress.threads = true;
		else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
			stress.seconds = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
			stress.seed = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--consumers") == 0 && i + 1 < argc)
			stress.consumers = (unsigned)strtoul(argv[++i], NULL, 10);
		else
			return false;
	}
	return stress.consumers > 0 && stress.consumers + stress.historians <= CONSUMERS_MAX;
}

int main(int argc, char **argv)
{
	stress.seed = clock_mono_ns() % 1000000;
	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: stress [--threads] [--seconds S] [--seed N] [--consumers N]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# seed %llu\n", (unsigned long long)stress.seed);
	rng = stress.seed;
	n_workers = stress.consumers + stress.historians;
	master_wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (master_wake_fd == -1)
		die("eventfd");
	make_ring();
	for (unsigned i = 0; i < n_workers; i++)
		start_worker(i, 1);
	produce(clock_mono_ms() + UINT64_C(1000) * stress.seconds);
	finish();
	printf("%sok 1 - %s: %llu records, %llu laps, %llu killed and replaced, %llu woken, %llu times full, "
	       "%llu sent up\n",
	       is_wrong ? "not " : "", stress.threads ? "threads" : "processes",
	       (unsigned long long)n_records, (unsigned long long)((ring.head - ring.hdr->start) / ring.size),
	       (unsigned long long)n_kills, (unsigned long long)n_wakes, (unsigned long long)n_full,
	       (unsigned long long)n_up);
	return is_wrong;
}
