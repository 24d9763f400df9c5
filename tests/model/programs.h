/* programs.h - the model programs: drivers as small as they can be around the shipped code, and their
 * properties. */
#ifndef MODEL_PROGRAMS_H
#define MODEL_PROGRAMS_H

#include "tests/model/model.h"

extern const struct model_program programs_ring[]; /* prog_ring.c: master and workers on the broadcast ring */
extern const struct model_program programs_history[]; /* prog_history.c: readers behind the gates */
extern const struct model_program programs_uplink[];  /* prog_uplink.c: worker to master, naps and starving */
extern const unsigned n_programs_ring, n_programs_history, n_programs_uplink;

/* prog_litmus.c: is the memory machine itself right? Small programs whose outcomes are known. */
struct litmus {
	struct model_program program;
	uint64_t outcomes; /* bits: all of them must be seen, and no other */
};

extern const struct litmus litmus[];
extern const unsigned n_litmus;
extern uint64_t litmus_seen;

#endif
