/* prog_uplink.c - a worker and the master on one uplink.
 *
 * nap: the worker pushes and wakes the master if its nap word says so; the master looks once more before it
 * blocks. starving: the ring is full all the time; the worker asks to be woken when there is space; the
 * master releases. Checked: every record arrives once, whole, in order; memory is not overwritten while the
 * master reads it; nobody sleeps over what is there for him.
 */
#include <string.h>

#include "shm/globals.h"
#include "shm/uplink.h"
#include "tests/model/programs.h"

#define REGION_MAX  256u
#define LARGE_WORDS 11u

static struct plan {
	unsigned n_records,
		large; /* records have 48 bytes, but number `large` 128: as many as the smallest ring */
	uint64_t size;
	bool naps; /* the master sleeps, else it spins */
} plan;

static struct ring_hdr hdr;
static _Atomic uint64_t region[REGION_MAX / 8] __attribute__((aligned(64)));
static struct globals globals;
static struct model_event wake_master, wake_worker;
static struct ring worker_ring, master_ring;
static unsigned got;

static void setup(void)
{
	memset(&hdr, 0, sizeof(hdr));
	memset(region, 0, sizeof(region));
	memset(&wake_master, 0, sizeof(wake_master));
	memset(&wake_worker, 0, sizeof(wake_worker));
	globals.nap = 0;
	got = 0;
	ring_init(&worker_ring, &hdr, (uint8_t *)region, plan.size, plan.size);
	model_check(ring_attach(&master_ring, &hdr, (uint8_t *)region, plan.size) == 0, "ring_attach");
	model_name(&hdr.head, "head");
	model_name(&hdr.reclaim, "reclaim");
	model_name(&hdr.tail, "tail");
	model_name(&hdr.starving, "starving");
	model_name(&globals.nap, "nap");
	model_name(region, "region");
	model_name(&wake_master.count, "eventfd-m");
	model_name(&wake_worker.count, "eventfd-w");
}

static void checkpoint(unsigned tag, uint64_t a, uint64_t b)
{
	uint64_t values[] = {a, b, worker_ring.head, worker_ring.reclaim};

	model_checkpoint(tag, 4, values);
}

/* ---- the worker */

/* Words of payload. */
static unsigned words(unsigned i)
{
	return i == plan.large ? LARGE_WORDS : 1;
}

static uint64_t word(unsigned i, unsigned k)
{
	return 0x1000 * (i + 1) + k;
}

static bool push(unsigned i)
{
	struct up_rec h = {
		.type = UP_PUBLISH, .ns = (uint16_t)(i + 1), .total = 0x100 + i, .request = 0x200 + i};
	uint64_t payload[LARGE_WORDS];

	for (unsigned k = 0; k < words(i); k++)
		payload[k] = word(i, k);
	return uplink_push(&worker_ring, &h, (struct slice){0},
			   (struct slice){(const char *)payload, 8 * words(i)}, true);
}

static void worker(void)
{
	uint32_t last_nap = 0;

	for (unsigned i = 0; i < plan.n_records; i++) {
		checkpoint(30, i, last_nap);
		while (!push(i)) {
			if (plan.naps && globals_must_wake(&globals, &last_nap))
				model_event_write(&wake_master);
			checkpoint(31, i, last_nap);
			model_event_wait(&wake_worker);
			checkpoint(30, i, last_nap);
		}
		if (plan.naps && globals_must_wake(&globals, &last_nap))
			model_event_write(&wake_master);
	}
}

/* ---- the master */

static void master_checkpoint(unsigned tag, uint64_t pos)
{
	uint64_t values[] = {pos, got};

	model_checkpoint(tag, 2, values);
}

static uint64_t drain(uint64_t pos)
{
	struct up_view view;
	enum up_peek p;

	while ((p = uplink_peek(&master_ring, pos, &view)) != UP_NONE) {
		model_check(p == UP_RECORD, "a good record was taken for broken");
		model_check(view.h.ns == got + 1 && view.h.total == 0x100 + got &&
				    view.h.request == 0x200 + got && view.h.payload == 8 * words(got) &&
				    view.h.type == UP_PUBLISH,
			    "record %u is not whole", got);
		if (model_is_broken("release_first") && uplink_release(&master_ring, view.end))
			model_event_write(&wake_worker);
		for (unsigned k = 0; k < words(got); k++)
			model_check(model_plain(view.payload.p + 8 * k) == word(got, k),
				    "payload %u is not whole", got);
		got++;
		pos = view.end;
		if (uplink_release(&master_ring, pos)) /* G1, S2 */
			model_event_write(&wake_worker);
		master_checkpoint(40, pos);
	}
	return pos;
}

static void spinning_master(void)
{
	uint64_t pos = plan.size;

	for (;;) {
		master_checkpoint(41, pos);
		pos = drain(pos);
		if (got == plan.n_records)
			return;
		model_await(&hdr.head);
	}
}

static void napping_master(void)
{
	uint64_t pos = plan.size;

	for (;;) {
		pos = drain(pos);
		globals_nap(&globals); /* S1 */
		if (ring_head(&master_ring) == pos)
			model_event_wait(&wake_master);
		else
			(void)model_event_poll(&wake_master);
		globals_awake(&globals);
	}
}

static void master(void)
{
	if (plan.naps)
		napping_master();
	else
		spinning_master();
}

static void end(void)
{
	model_check(got == plan.n_records, "somebody sleeps: %u of %u records came", got, plan.n_records);
}

static void setup_nap(void)
{
	plan = (struct plan){.n_records = 3, .large = 2, .size = 256, .naps = true};
	setup();
}

static void setup_starving(void)
{
	plan = (struct plan){.n_records = 4, .large = 2, .size = 128};
	setup();
}

static void setup_both(void)
{
	plan = (struct plan){.n_records = 2, .large = 1, .size = 128, .naps = true};
	setup();
}

const struct model_program programs_uplink[] = {
	{"uplink/nap", "three records, the master naps", 2, setup_nap, {worker, master}, end},
	{"uplink/starving",
	 "four records, the third as large as the ring",
	 2,
	 setup_starving,
	 {worker, master},
	 end},
	{"uplink/both",
	 "two records, the second as large as the ring, the master naps",
	 2,
	 setup_both,
	 {worker, master},
	 end},
};
const unsigned n_programs_uplink = ARRAY_LEN(programs_uplink);
