/* boot.h - what a worker inherits over the fork, and its entry point: the one call from master/ into worker/. */
#ifndef RC_BOOT_H
#define RC_BOOT_H

#include "common/config.h"
#include "shm/slot.h"

struct worker_boot {
	const struct config *config;
	uint16_t slot;
	uint32_t incarnation, generation;
	unsigned position; /* 0 .. workers - 1: which listeners are its own */
	uint64_t start;    /* ring position */

	int ring_fd;     /* read-only */
	int slot_fd;     /* writable, this worker's */
	int counters_fd; /* writable; mapped for its own block, then closed */
	int globals_fd;  /* read-only */
	int wake_fd;     /* this worker's eventfd */
	int master_wake_fd;
	int master_pipe_fd; /* read end: EOF = the master is gone */

	const int *listen_fds; /* n_listens of config, in its order: SO_REUSEPORT socket of this position, or the
				* shared unix socket */
	const int *admin_fds;  /* n_admins, shared by all workers */
};

/* Run until told to stop; returns the exit status. Signals are blocked at entry; the caller has closed every
 * other descriptor and destroyed the master's loop. */
int worker_main(const struct worker_boot *boot);

#endif
