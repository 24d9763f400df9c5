/* seg.h - memory segments: memfd, seals, mappings.
 *
 * The master creates a segment and holds it writable. What a worker may only read it gets as a descriptor that was
 * reopened O_RDONLY through /proc/self/fd: a writable mmap or mprotect on that fails. F_SEAL_FUTURE_WRITE is not used
 * (it would bind an exec'ed master too). Seals: SHRINK, GROW, SEAL.
 *
 * Any process; may block only as mmap and memfd_create do. All return -1 or NULL with errno.
 */
#ifndef RC_SEG_H
#define RC_SEG_H

#include "common/base.h"

/* The page size that the layouts are built on. seg_create() fails with ENOTSUP where the kernel's differs. */
#define SEG_PAGE 4096u

/* A sealed memfd of `size` bytes (a multiple of SEG_PAGE), zero-filled, close-on-exec. Returns the descriptor. */
int seg_create(const char *name, size_t size) MUST_CHECK;

/* Another descriptor of the same segment that cannot write. Needs /proc. */
int seg_reopen_readonly(int fd) MUST_CHECK;

/* Map [offset, offset + size) shared. `prot` as for mmap. Returns NULL on error. */
void *seg_map(int fd, size_t offset, size_t size, int prot) MUST_CHECK;

/* Map the same range twice back to back, so that what runs over its end is contiguous: a ring's record never
 * wraps. `head` bytes before it (offset - head, may be 0) are mapped once in front. Returns the address of the
 * range's first copy; release with seg_unmap_twice(). */
void *seg_map_twice(int fd, size_t offset, size_t size, size_t head, int prot) MUST_CHECK;

void seg_unmap(void *p, size_t size);
void seg_unmap_twice(void *p, size_t size, size_t head);

/* A forked child shall not inherit this mapping (the master's writable view of the ring). */
int seg_keep_from_children(void *p, size_t size) MUST_CHECK;

#endif
