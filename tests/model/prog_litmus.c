/* prog_litmus.c - the memory machine on trial: litmus tests, with exactly the outcomes that C11 allows.
 *
 * One exception is stated where it stands: load buffering (machine.h).
 */
#include <stdatomic.h>
#include <string.h>

#include "common/base.h"
#include "tests/model/hooks.h"
#include "tests/model/programs.h"

#define RLX memory_order_relaxed
#define REL memory_order_release
#define ACQ memory_order_acquire
#define SC  memory_order_seq_cst

/* The bit of an outcome: values 0 to 2 each. */
#define O(a, b, c) (UINT64_C(1) << ((a) + 3 * (b) + 9 * (c)))

uint64_t litmus_seen;

static uint64_t x, y, r[3];

static void put(uint64_t *p, uint64_t v, int order)
{
	model_store(p, 8, v, order, "");
}

static uint64_t get(const uint64_t *p, int order)
{
	return model_load(p, 8, order, "");
}

static void setup(void)
{
	x = y = 0;
	memset(r, 0, sizeof(r));
	model_name(&x, "x");
	model_name(&y, "y");
}

static void end(void)
{
	litmus_seen |= O(r[0], r[1], r[2]);
}

/* r0, r1, and which store to y is the last. */
static void end_final_y(void)
{
	litmus_seen |= O(r[0], r[1], model_final(&y));
}

static void end_final_xy(void)
{
	litmus_seen |= O(model_final(&x), model_final(&y), 0);
}

/* store buffering */
static void sb0(void)
{
	put(&x, 1, RLX);
	r[0] = get(&y, RLX);
}

static void sb1(void)
{
	put(&y, 1, RLX);
	r[1] = get(&x, RLX);
}

static void sb0_fence(void)
{
	put(&x, 1, RLX);
	model_fence(SC, "");
	r[0] = get(&y, RLX);
}

static void sb1_fence(void)
{
	put(&y, 1, RLX);
	model_fence(SC, "");
	r[1] = get(&x, RLX);
}

/* message passing */
static void mp0(void)
{
	put(&x, 1, RLX);
	put(&y, 1, RLX);
}

static void mp0_release(void)
{
	put(&x, 1, RLX);
	put(&y, 1, REL);
}

static void mp0_fence(void)
{
	put(&x, 1, RLX);
	model_fence(REL, "");
	put(&y, 1, RLX);
}

static void mp1(void)
{
	r[0] = get(&y, RLX);
	r[1] = get(&x, RLX);
}

static void mp1_acquire(void)
{
	r[0] = get(&y, ACQ);
	r[1] = get(&x, RLX);
}

static void mp1_fence(void)
{
	r[0] = get(&y, RLX);
	model_fence(ACQ, "");
	r[1] = get(&x, RLX);
}

/* coherence of one location */
static void co0(void)
{
	put(&x, 1, RLX);
	put(&x, 2, RLX);
}

static void co1(void)
{
	r[0] = get(&x, RLX);
	r[1] = get(&x, RLX);
}

/* load buffering */
static void lb0(void)
{
	r[0] = get(&y, RLX);
	put(&x, 1, RLX);
}

static void lb1(void)
{
	r[1] = get(&x, RLX);
	put(&y, 1, RLX);
}

/* through a third thread */
static void wrc0(void)
{
	put(&x, 1, RLX);
}

static void wrc1(void)
{
	r[0] = get(&x, ACQ);
	put(&y, 1, REL);
}

static void wrc2(void)
{
	r[1] = get(&y, ACQ);
	r[2] = get(&x, RLX);
}

/* two stores each, crossed */
static void w0(void)
{
	put(&x, 1, RLX);
	put(&y, 2, RLX);
}

static void w1(void)
{
	put(&y, 1, RLX);
	put(&x, 2, RLX);
}

static void w0_fence(void)
{
	put(&x, 1, RLX);
	model_fence(SC, "");
	put(&y, 2, RLX);
}

static void w1_fence(void)
{
	put(&y, 1, RLX);
	model_fence(SC, "");
	put(&x, 2, RLX);
}

/* a store, and a store against a load */
static void r0_fence(void)
{
	put(&x, 1, RLX);
	model_fence(SC, "");
	put(&y, 1, RLX);
}

static void r1_fence(void)
{
	put(&y, 2, RLX);
	model_fence(SC, "");
	r[0] = get(&x, RLX);
}

#define ALL4 (O(0, 0, 0) | O(0, 1, 0) | O(1, 0, 0) | O(1, 1, 0))

const struct litmus litmus[] = {
	{{"litmus/sb", "both loads may miss both stores", 2, setup, {sb0, sb1}, end}, ALL4},
	{{"litmus/sb-fences", "not with seq_cst fences", 2, setup, {sb0_fence, sb1_fence}, end},
	 ALL4 & ~O(0, 0, 0)},
	{{"litmus/sb-one", "one fence is none", 2, setup, {sb0_fence, sb1}, end}, ALL4},
	{{"litmus/mp", "a flag may come before its data", 2, setup, {mp0, mp1}, end}, ALL4},
	{{"litmus/mp-ra", "not by release and acquire", 2, setup, {mp0_release, mp1_acquire}, end},
	 ALL4 & ~O(1, 0, 0)},
	{{"litmus/mp-r", "release alone is not enough", 2, setup, {mp0_release, mp1}, end}, ALL4},
	{{"litmus/mp-a", "acquire alone is not enough", 2, setup, {mp0, mp1_acquire}, end}, ALL4},
	{{"litmus/mp-fences", "not with fences", 2, setup, {mp0_fence, mp1_fence}, end}, ALL4 & ~O(1, 0, 0)},
	{{"litmus/mp-mixed", "nor with a fence and an acquire", 2, setup, {mp0_fence, mp1_acquire}, end},
	 ALL4 & ~O(1, 0, 0)},
	{{"litmus/mp-late", "the other thread first", 2, setup, {mp1_acquire, mp0_release}, end},
	 ALL4 & ~O(1, 0, 0)},
	{{"litmus/corr", "loads of one location do not go back", 2, setup, {co0, co1}, end},
	 O(0, 0, 0) | O(0, 1, 0) | O(0, 2, 0) | O(1, 1, 0) | O(1, 2, 0) | O(2, 2, 0)},
	/* C11 allows O(1, 1, 0), too: the machine has no promises. */
	{{"litmus/lb", "loads do not see stores of their future", 2, setup, {lb0, lb1}, end},
	 ALL4 & ~O(1, 1, 0)},
	{{"litmus/wrc", "knowledge is passed on", 3, setup, {wrc0, wrc1, wrc2}, end},
	 O(0, 0, 0) | O(0, 0, 1) | O(0, 1, 0) | O(0, 1, 1) | O(1, 0, 0) | O(1, 0, 1) | O(1, 1, 1)},
	{{"litmus/2+2w", "stores may cross", 2, setup, {w0, w1}, end_final_xy},
	 O(1, 1, 0) | O(1, 2, 0) | O(2, 1, 0) | O(2, 2, 0)},
	{{"litmus/2+2w-fences", "not with seq_cst fences", 2, setup, {w0_fence, w1_fence}, end_final_xy},
	 O(1, 2, 0) | O(2, 1, 0) | O(2, 2, 0)},
	{{"litmus/r-fences",
	  "a store that is overwritten was there for the load",
	  2,
	  setup,
	  {r0_fence, r1_fence},
	  end_final_y},
	 O(0, 0, 1) | O(1, 0, 1) | O(1, 0, 2)},
};
const unsigned n_litmus = ARRAY_LEN(litmus);
