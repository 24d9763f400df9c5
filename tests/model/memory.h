/* memory.h - the memory of the model: locations, their histories of messages, views. See machine.h. */
#ifndef MODEL_MEMORY_H
#define MODEL_MEMORY_H

#include "tests/model/model.h"

#define LOCS     56
#define CLOCKS   LOCS /* view slots behind the locations: how much each thread's plain reads are known */
#define VIEW     (LOCS + 8)
#define MESSAGES 28   /* of one location */
#define TS_STEP  1024 /* room for stores that come between */

struct view {
	uint16_t t[VIEW];
} __attribute__((aligned(16)));

struct message {
	uint64_t value;
	struct view view;
	uint16_t ts;
	uint8_t lap;
	int8_t thread; /* who stored it; -1: the initial value */
};

struct loc {
	const volatile void *p;
	const char *name;
	unsigned size;
	unsigned n; /* messages; 0: not touched in this execution */
	/* Threads that store here: as known when the search began, and as met so far. */
	uint32_t known, met;
	bool is_awaited;               /* somebody spins for it */
	uint16_t plain[MODEL_THREADS]; /* clock of each thread's last plain read */
	struct message m[MESSAGES];    /* in the order of execution */
};

extern struct loc locs[LOCS];
extern unsigned n_locs;      /* kept over executions: a location has the same number in each */
extern uint64_t memory_hash; /* of all messages and plain reads, whatever the order they came in */

uint64_t memory_get(const volatile void *p, unsigned size);
uint64_t hash_mix(uint64_t h, uint64_t v);
uint64_t hash_view(uint64_t h, const struct view *v);
void view_join(struct view *to, const struct view *from);

/* The number of a location. size 0: it is only named, not touched yet. */
unsigned loc_of(const volatile void *p, unsigned size);
const char *loc_name(unsigned l, char *buf, unsigned size);

/* A location's next message; view_hash: of the view, without the message's own place in it. */
void memory_add(unsigned l, uint64_t value, const struct view *view, uint64_t view_hash, uint16_t ts,
		unsigned lap, int thread);

void memory_reset(void);  /* before an execution */
void memory_forget(void); /* before a program */

/* A limit of the model was passed: not a failed check. */
_Noreturn void give_up(const char *why, unsigned l);

#endif
