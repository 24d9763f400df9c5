/* ring.c - the ring without sockets, between processes.
 *
 *   throughput   one producer, 1, 2 and 4 consumers that read every header and the frame's first bytes
 *   wake         from the commit of a record to the moment when a worker that slept has read it, against the least that any
 *                design with a sleeping reader must do: write an eventfd, come out of epoll_wait, read it. Both in turn, in
 *                blocks, in one run; one way, by a time stamp in shared memory.
 *
 * Producer on one CPU, consumers on the others, as far as there are any.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "shm/record.h"
#include "shm/seg.h"
#include "shm/slot.h"

#define RING_BYTES    (UINT64_C(64) << 20)
#define CONSUMERS_MAX 4
#define PAUSES        256 /* a few microseconds */
#define WAKES         20000u
#define WAKE_BLOCK    500u

struct bench {
	struct ring ring;
	struct slot slot[CONSUMERS_MAX];
	pid_t pid[CONSUMERS_MAX];
	unsigned n;
};

/* Between the processes, beside the ring. */
struct shared {
	_Atomic uint64_t stamp; /* ns: when the bare ping was sent */
	_Atomic uint32_t is_over, ready, answered;
	_Atomic uint64_t sum; /* what consumers read, so that the reading is real */
	uint32_t ping_ns[WAKES], wake_ns[WAKES];
};

static struct shared *sh;

static void die(const char *what)
{
	fprintf(stderr, "bench-ring: %s: %s\n", what, strerror(errno));
	exit(1);
}

static inline void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (sched_setaffinity(0, sizeof(set), &set) == -1)
		die("sched_setaffinity");
}

static void begin(struct bench *b, unsigned consumers)
{
	int fd = seg_create("bench-ring", SEG_PAGE + RING_BYTES);
	uint8_t *data = fd == -1 ? NULL : seg_map_twice(fd, SEG_PAGE, RING_BYTES, SEG_PAGE, PROT_READ | PROT_WRITE);

	if (data == NULL)
		die("the ring's memory");
	close(fd);
	ring_init(&b->ring, (struct ring_hdr *)(data - SEG_PAGE), data, RING_BYTES, RING_BYTES);
	memset(data, 1, RING_BYTES); /* no page faults while we measure */
	b->n = consumers;
	for (unsigned i = 0; i < consumers; i++) {
		if (slot_create(&b->slot[i], (uint16_t)i, 1, RING_BYTES, 1u << 20) == -1 ||
		    madvise(b->slot[i].sh, SEG_PAGE, MADV_DOFORK) == -1)
			die("a slot");
	}
}

static void end(struct bench *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		if (waitpid(b->pid[i], NULL, 0) == -1)
			die("waitpid");
		slot_close(&b->slot[i]);
	}
	seg_unmap_twice(b->ring.data, RING_BYTES, SEG_PAGE);
}

static uint64_t smallest_gate(const struct bench *b)
{
	uint64_t gate = UINT64_MAX;

	for (unsigned i = 0; i < b->n; i++)
		gate = u64_min(gate, slot_cursor(&b->slot[i]));
	return gate;
}

/* ---------------------------------------------------------------- throughput */

static void consume(struct bench *b, unsigned me)
{
	uint64_t pos = RING_BYTES, sum = 0;
	struct rec h;

	pin(1 + me);
	atomic_fetch_add(&sh->ready, 1);
	for (;;) {
		uint64_t head = ring_head(&b->ring);

		if (pos == head) {
			if (atomic_load(&sh->is_over) != 0 && ring_head(&b->ring) == pos)
				break;
			/* Like a worker between two turns of its loop: it does not hammer on the line of `head`. */
			for (int i = 0; i < PAUSES; i++)
				relax();
			if (b->n > 1)
				sched_yield();
			continue;
		}
		while (pos < head) {
			if (!rec_peek(&b->ring, pos, &h))
				_exit(2); /* protected memory was reclaimed */
			sum += ring_at(&b->ring, pos)[h.frame_off] + h.seq;
			pos += h.len;
		}
		slot_set_cursor(&b->slot[me], pos);
	}
	atomic_fetch_add(&sh->sum, sum);
	_exit(0);
}

/* Records a second. */
static double throughput(unsigned consumers, size_t payload_len, double seconds)
{
	static uint8_t payload[65536];
	struct slice room = {"a", 1};
	struct bench b = {0};
	uint64_t n = 0, start, stop, prev = 0, gate;

	begin(&b, consumers);
	atomic_store(&sh->ready, 0);
	atomic_store(&sh->is_over, 0);
	for (unsigned i = 0; i < consumers; i++) {
		b.pid[i] = fork();
		if (b.pid[i] == -1)
			die("fork");
		if (b.pid[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			consume(&b, i);
		}
	}
	pin(0);
	while (atomic_load(&sh->ready) < consumers)
		sched_yield();
	gate = smallest_gate(&b);
	start = clock_mono_ns();
	stop = start + (uint64_t)(seconds * 1e9);
	while (n % 1024 != 0 || clock_mono_ns() < stop) {
		struct rec h = {.type = REC_PUBLICATION, .opcode = 2, .seq = n, .slot = REC_ALL};

		while (ring_space(&b.ring, gate) < rec_size(room.len, payload_len)) {
			gate = smallest_gate(&b);
			if (consumers > 1)
				sched_yield();
		}
		prev = rec_commit(&b.ring, gate, &h, room, (struct slice){(char *)payload, payload_len}, prev);
		n++;
	}
	stop = clock_mono_ns();
	atomic_store(&sh->is_over, 1);
	end(&b);
	return (double)n / ((double)(stop - start) / 1e9);
}

/* ---------------------------------------------------------------- wake */

/* The sleeper: in epoll_wait on `fd`; reads the ring once it is woken, or takes the stamp of a bare ping. */
static void sleeper(struct bench *b, int fd)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t pos = RING_BYTES, n;
	uint32_t pings = 0, wakes = 0;
	struct rec h;

	pin(1);
	if (ep == -1 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1)
		die("epoll");
	while (pings + wakes < 2 * WAKES) {
		slot_sleep(&b->slot[0]);
		if (ring_head(&b->ring) == pos && epoll_wait(ep, &ev, 1, 1000) == 1 && read(fd, &n, sizeof(n)) != sizeof(n))
			die("read");
		slot_awake(&b->slot[0]);
		if (ring_head(&b->ring) > pos) {
			if (!rec_peek(&b->ring, pos, &h))
				_exit(2);
			sh->wake_ns[wakes++] = (uint32_t)(clock_mono_ns() - h.time_ns);
			pos += h.len;
			slot_set_cursor(&b->slot[0], pos);
		} else if (atomic_load(&sh->stamp) != 0) {
			sh->ping_ns[pings++] = (uint32_t)(clock_mono_ns() - atomic_exchange(&sh->stamp, 0));
		} else {
			continue;
		}
		atomic_fetch_add(&sh->answered, 1);
	}
	_exit(0);
}

/* Long enough for the other side to be inside epoll_wait, not only on its way. */
static void let_it_sleep(const struct bench *b)
{
	uint64_t until;

	while (SHM_LOAD_RLX(S2, &b->slot[0].sh->sleeping) == 0)
		;
	until = clock_mono_ns() + 20000;
	while (clock_mono_ns() < until)
		;
}

static void wake_by_ring(struct bench *b, int fd)
{
	static const char payload[128];
	struct rec h = {.type = REC_PUBLICATION, .opcode = 2, .slot = REC_ALL, .time_ns = clock_mono_ns()};
	uint64_t one = 1;

	rec_commit(&b->ring, slot_cursor(&b->slot[0]), &h, (struct slice){"a", 1}, (struct slice){payload, sizeof(payload)}, 0);
	slot_fence();
	if (slot_take_sleeping(&b->slot[0]) && write(fd, &one, sizeof(one)) == -1)
		die("write");
}

static void wake_bare(int fd)
{
	uint64_t one = 1;

	atomic_store(&sh->stamp, clock_mono_ns());
	if (write(fd, &one, sizeof(one)) == -1)
		die("write");
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void wake(uint32_t *ping_p50, uint32_t *wake_p50)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct bench b = {0};

	if (fd == -1)
		die("eventfd");
	begin(&b, 1);
	b.pid[0] = fork();
	if (b.pid[0] == -1)
		die("fork");
	if (b.pid[0] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sleeper(&b, fd);
	}
	pin(0);
	for (uint32_t i = 0; i < 2 * WAKES; i++) {
		let_it_sleep(&b);
		if (i / WAKE_BLOCK % 2 == 0)
			wake_bare(fd);
		else
			wake_by_ring(&b, fd);
		while (atomic_load(&sh->answered) <= i)
			;
	}
	end(&b);
	close(fd);
	qsort(sh->ping_ns, WAKES, sizeof(uint32_t), compare);
	qsort(sh->wake_ns, WAKES, sizeof(uint32_t), compare);
	*ping_p50 = sh->ping_ns[WAKES / 2];
	*wake_p50 = sh->wake_ns[WAKES / 2];
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = {64, 128, 1024, 16384, 65536};
	static const unsigned consumers[] = {1, 2, 4};
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"seconds", required_argument, NULL, 's'}, {0}};
	uint32_t ping_p50, wake_p50;
	bool is_json = false;
	double seconds = 1;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's' && strtod(optarg, NULL) > 0) {
			seconds = strtod(optarg, NULL);
		} else if (opt == 'j') {
			is_json = true;
		} else {
			fprintf(stderr, "usage: bench-ring [--json] [--seconds N]\n");
			return 2;
		}
	}
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED)
		die("mmap");
	wake(&ping_p50, &wake_p50);
	if (is_json) {
		printf("{\"pingpong_p50_ns\":%" PRIu32 ",\"wake_p50_ns\":%" PRIu32 ",\"records_per_s\":%.0f,\"records_per_s_2\":%.0f}\n",
		       ping_p50, wake_p50, throughput(1, 128, seconds), throughput(2, 128, seconds));
		return 0;
	}
	printf("commit to read by a woken worker  p50 %" PRIu32 " ns\nbare eventfd and epoll_wait       p50 %" PRIu32
	       " ns\nratio                             %.2f\n\nmillion records a second\npayload ",
	       wake_p50, ping_p50, (double)wake_p50 / ping_p50);
	for (size_t c = 0; c < ARRAY_LEN(consumers); c++)
		printf("%10u readers", consumers[c]);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		printf("\n%7zu ", sizes[s]);
		for (size_t c = 0; c < ARRAY_LEN(consumers); c++)
			printf("%18.2f", throughput(consumers[c], sizes[s], seconds) / 1e6);
		fflush(stdout);
	}
	printf("\n");
	return 0;
}
