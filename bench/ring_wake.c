/* ring_wake.c - from the commit of a record to the moment when a worker that slept has read it, against the
 * least that any design with a sleeping reader must do: write an eventfd, come out of epoll_wait, read it.
 * Both in turn, in blocks, in one run; one way, by a time stamp in shared memory. Two processes, each pinned
 * to a CPU of its own, if there are two.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/ring_bench.h"
#include "common/clock.h"
#include "shm/record.h"

#define WAKES      20000u
#define WAKE_BLOCK 500u
#define RING_BYTES (UINT64_C(64) << 20)

/* Between the two, beside the ring. */
struct shared {
	_Atomic uint64_t stamp; /* ns: when the bare ping was sent */
	_Atomic uint32_t answered;
	uint32_t bare_ns[WAKES], ring_ns[WAKES];
};

static struct shared *sh;

/* The sleeper: in epoll_wait on `fd`; reads the ring once it is woken, or takes the stamp of a bare ping. */
_Noreturn static void sleeper(struct bench *b, int fd)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t pos = RING_BYTES, n;
	uint32_t pings = 0, wakes = 0;
	struct rec h;

	ring_pin(1);
	if (ep == -1 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1)
		ring_die("epoll");
	while (pings + wakes < 2 * WAKES) {
		slot_sleep(&b->slot[0]);
		if (ring_head(&b->ring) == pos && epoll_wait(ep, &ev, 1, 1000) == 1 &&
		    read(fd, &n, sizeof(n)) != sizeof(n))
			ring_die("read");
		slot_awake(&b->slot[0]);
		if (ring_head(&b->ring) > pos) {
			if (!rec_peek(&b->ring, pos, &h) || h.seq != wakes + 1)
				_exit(1);
			sh->ring_ns[wakes++] = (uint32_t)(clock_mono_ns() - h.time_ns);
			pos += h.len;
			slot_set_cursor(&b->slot[0], pos);
		} else if (atomic_load(&sh->stamp) != 0) {
			sh->bare_ns[pings++] = (uint32_t)(clock_mono_ns() - atomic_exchange(&sh->stamp, 0));
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

static void wake_by_ring(struct bench *b, int fd, uint64_t seq)
{
	static const char payload[128];
	struct rec h = {.type = REC_PUBLICATION,
			.opcode = 2,
			.slot = REC_ALL,
			.seq = seq,
			.time_ns = clock_mono_ns()};
	uint64_t one = 1;

	rec_commit(&b->ring, slot_cursor(&b->slot[0]), &h, (struct slice){"a", 1},
		   (struct slice){payload, sizeof(payload)}, 0);
	slot_fence();
	if (slot_take_sleeping(&b->slot[0]) && write(fd, &one, sizeof(one)) == -1)
		ring_die("write");
}

static void wake_bare(int fd)
{
	uint64_t one = 1;

	atomic_store(&sh->stamp, clock_mono_ns());
	if (write(fd, &one, sizeof(one)) == -1)
		ring_die("write");
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static struct wakes results(void)
{
	qsort(sh->bare_ns, WAKES, sizeof(uint32_t), compare);
	qsort(sh->ring_ns, WAKES, sizeof(uint32_t), compare);
	return (struct wakes){
		.bare_p50 = sh->bare_ns[WAKES / 2],
		.bare_p99 = sh->bare_ns[WAKES / 100 * 99],
		.ring_p50 = sh->ring_ns[WAKES / 2],
		.ring_p99 = sh->ring_ns[WAKES / 100 * 99],
	};
}

struct wakes ring_wake(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct bench b = {0};
	uint64_t seq = 0;

	if (fd == -1)
		ring_die("eventfd");
	sh = ring_shared(sizeof(*sh));
	ring_begin(&b, RING_BYTES, 1);
	b.pid[0] = fork();
	if (b.pid[0] == -1)
		ring_die("fork");
	if (b.pid[0] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sleeper(&b, fd);
	}
	ring_pin(0);
	for (uint32_t i = 0; i < 2 * WAKES; i++) {
		let_it_sleep(&b);
		if (i / WAKE_BLOCK % 2 == 0)
			wake_bare(fd);
		else
			wake_by_ring(&b, fd, ++seq);
		while (atomic_load(&sh->answered) <= i)
			;
	}
	ring_end(&b);
	close(fd);
	return results();
}
