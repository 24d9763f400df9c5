/* ring_flow.c - records a second without sockets.
 *
 * Each consumer checks each record: that it is whole (rec_peek), that its sequence number is the next one,
 * and all bytes of its payload, whose words xor to a number that the sequence gives. A record that is not the
 * next one ends the run, and at the end each consumer must have had as many as were committed.
 *
 * A consumer that has read everything lets a few microseconds pass, as a worker does between two turns of its
 * loop. With more processes than CPUs, those who wait give way. CPU per record leaves out the waiting: each
 * wait is timed by the process' own CPU clock.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench/ring_bench.h"
#include "common/clock.h"
#include "shm/record.h"
#include "shm/seg.h"

#define PAUSES 256 /* a few microseconds */
#define FILL   UINT64_C(0x9e3779b97f4a7c15)

/* Between the processes, beside the ring. */
struct shared {
	_Atomic uint32_t is_over, ready;
	uint64_t records[FLOW_MAX], busy_ns[FLOW_MAX]; /* a consumer writes its own when it leaves */
};

static struct shared *sh;
static bool is_crowded; /* more processes than CPUs */

static inline void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	atomic_signal_fence(memory_order_seq_cst);
#endif
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == -1)
		ring_die("clock_gettime");
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_a_little(void)
{
	if (is_crowded)
		sched_yield();
	else
		for (int i = 0; i < PAUSES; i++)
			relax();
}

/* ---- a consumer */

static uint64_t fold(const uint8_t *p, size_t len)
{
	uint64_t sum = 0, w;

	for (size_t i = 0; i < len; i += sizeof(w)) {
		memcpy(&w, p + i, sizeof(w));
		sum ^= w;
	}
	return sum;
}

/* The next head, once there is something before it; 0: the producer has gone and everything was read. */
static uint64_t wait_for_head(const struct ring *r, uint64_t pos, uint64_t *waited_ns)
{
	uint64_t head = ring_head(r), start;

	if (head != pos)
		return head;
	start = cpu_ns();
	while ((head = ring_head(r)) == pos) {
		if (atomic_load(&sh->is_over) != 0 && ring_head(r) == pos)
			return 0;
		pause_a_little();
	}
	*waited_ns += cpu_ns() - start;
	return head;
}

static void take(const struct ring *r, uint64_t *pos, uint64_t *seq, uint64_t expected)
{
	struct rec h;
	struct slice payload;

	if (!rec_peek(r, *pos, &h) || h.seq != *seq + 1) {
		fprintf(stderr, "bench-ring: after record %llu comes another than the next\n",
			(unsigned long long)*seq);
		_exit(1);
	}
	payload = rec_payload(&h, ring_at(r, *pos));
	if (fold((const uint8_t *)payload.p, payload.len) != (expected ^ h.seq)) {
		fprintf(stderr, "bench-ring: record %llu is not what was written\n",
			(unsigned long long)h.seq);
		_exit(1);
	}
	*pos += h.len;
	*seq = h.seq;
}

/* A child has the mapping but none of its pages: a worker pays for these faults once in its life, in the
 * first lap. */
static void touch(const struct bench *b)
{
	volatile const uint8_t *p = b->ring.data;

	for (uint64_t i = 0; i < b->bytes + 65536; i += SEG_PAGE)
		(void)p[i];
}

_Noreturn static void consume(struct bench *b, unsigned me, uint64_t expected)
{
	uint64_t pos = b->bytes, seq = 0, head, waited_ns = 0, start;

	ring_pin(1 + me);
	touch(b);
	atomic_fetch_add(&sh->ready, 1);
	head = wait_for_head(&b->ring, pos, &waited_ns);
	waited_ns = 0;
	for (start = cpu_ns(); head != 0; head = wait_for_head(&b->ring, pos, &waited_ns)) {
		while (pos < head)
			take(&b->ring, &pos, &seq, expected);
		slot_set_cursor(&b->slot[me], pos);
	}
	sh->busy_ns[me] = cpu_ns() - start - waited_ns;
	sh->records[me] = seq;
	_exit(0);
}

/* ---- the producer */

static uint64_t smallest_gate(const struct bench *b)
{
	uint64_t gate = UINT64_MAX;

	for (unsigned i = 0; i < b->n; i++)
		gate = u64_min(gate, slot_cursor(&b->slot[i]));
	return gate;
}

static uint64_t wait_for_space(const struct bench *b, uint64_t need, uint64_t gate, uint64_t *waited_ns)
{
	uint64_t start;

	if (ring_space(&b->ring, gate) >= need)
		return gate;
	gate = smallest_gate(b);
	if (ring_space(&b->ring, gate) >= need)
		return gate;
	start = cpu_ns();
	while (ring_space(&b->ring, gate = smallest_gate(b)) < need)
		pause_a_little();
	*waited_ns += cpu_ns() - start;
	return gate;
}

/* Until the time is over. Returns how many. */
static uint64_t produce(struct bench *b, uint8_t *payload, size_t len, double seconds, struct flow *f)
{
	struct slice room = {"a", 1};
	uint64_t seq = 0, prev = 0, gate = smallest_gate(b), need = rec_size(room.len, len), waited_ns = 0;
	uint64_t start = clock_mono_ns(), stop = start + (uint64_t)(seconds * 1e9), cpu = cpu_ns();
	uint64_t first;

	memcpy(&first, payload, sizeof(first));
	while (seq % 1024 != 0 || clock_mono_ns() < stop) {
		struct rec h = {.type = REC_PUBLICATION, .opcode = 2, .seq = ++seq, .slot = REC_ALL};
		uint64_t stamp = first ^ seq;

		memcpy(payload, &stamp, sizeof(stamp));
		gate = wait_for_space(b, need, gate, &waited_ns);
		prev = rec_commit(&b->ring, gate, &h, room, (struct slice){(char *)payload, len}, prev);
	}
	f->per_s = (double)seq / ((double)(clock_mono_ns() - start) / 1e9);
	f->ns_out = (double)(cpu_ns() - cpu - waited_ns) / (double)seq;
	return seq;
}

static void fork_consumers(struct bench *b, uint64_t expected)
{
	for (unsigned i = 0; i < b->n; i++) {
		b->pid[i] = fork();
		if (b->pid[i] == -1)
			ring_die("fork");
		if (b->pid[i] == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			consume(b, i, expected);
		}
	}
	ring_pin(0);
	while (atomic_load(&sh->ready) < b->n)
		sched_yield();
}

struct flow ring_flow(uint64_t ring_bytes, unsigned consumers, size_t payload_len, double seconds)
{
	uint8_t *payload = ring_shared(payload_len);
	struct bench b = {0};
	struct flow f = {0};
	uint64_t n;

	if (sh == NULL)
		sh = ring_shared(sizeof(*sh));
	memset(sh, 0, sizeof(*sh));
	is_crowded = consumers + 1 > (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	for (size_t i = 0; i < payload_len; i += 8)
		memcpy(payload + i, &(uint64_t){FILL * (i + 1)}, 8);
	ring_begin(&b, ring_bytes, consumers);
	fork_consumers(&b, fold(payload, payload_len));
	n = produce(&b, payload, payload_len, seconds, &f);
	atomic_store(&sh->is_over, 1);
	ring_end(&b);
	for (unsigned i = 0; i < consumers; i++) {
		if (sh->records[i] != n) {
			fprintf(stderr, "bench-ring: %llu records, a consumer had %llu\n",
				(unsigned long long)n, (unsigned long long)sh->records[i]);
			exit(1);
		}
		f.ns_in += (double)sh->busy_ns[i] / (double)n / consumers;
	}
	munmap(payload, payload_len);
	return f;
}
