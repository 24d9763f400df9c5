/* proc.h - what a process and its descendants have used, out of /proc. Linux; reads files, else never blocks.
 */
#ifndef BENCH_PROC_H
#define BENCH_PROC_H

#include "common/base.h"

struct proc_use {
	uint64_t cpu_ns;  /* all threads of all processes, exact (schedstat) */
	uint64_t user_ns; /* of that in user space and ... */
	uint64_t sys_ns;  /* ... in the kernel; in steps of a clock tick */
	uint64_t
		softirq_ns; /* ksoftirqd of the host: work that io_uring and others move out of the account */
	uint64_t pss_bytes; /* proportional memory, smaps_rollup */
	uint32_t processes;
};

/* Sum up `pid` and all its descendants, as they are now. Memory is read only if `with_memory` (the kernel
 * walks the page tables for it). Returns 0, or -1 if there is no such process. */
int proc_use(pid_t pid, bool with_memory, struct proc_use *use) MUST_CHECK;

#endif
