/* resident.h - how much memory this process takes for itself. Any process; blocks as a read of /proc does. */
#ifndef RC_RESIDENT_H
#define RC_RESIDENT_H

#include <stdint.h>

/* Bytes that are resident and not shared (of /proc/self/statm, proc(5)): heap, stacks, written data. 0 if
 * that can't be read. */
uint64_t resident_private(void);

#endif
