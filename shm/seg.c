#include "shm/seg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void close_keep_errno(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
}

int seg_create(const char *name, size_t size)
{
	int fd;

	if (sysconf(_SC_PAGESIZE) != SEG_PAGE) {
		errno = ENOTSUP;
		return -1;
	}
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd == -1)
		return -1;
	if (ftruncate(fd, (off_t)size) == -1 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1) {
		close_keep_errno(fd);
		return -1;
	}
	return fd;
}

int seg_reopen_readonly(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void *seg_map(int fd, size_t offset, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)offset);

	return p == MAP_FAILED ? NULL : p;
}

void *seg_map_twice(int fd, size_t offset, size_t size, size_t head, int prot)
{
	uint8_t *base = mmap(NULL, head + 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	if (mmap(base, head + size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)(offset - head)) == MAP_FAILED ||
	    mmap(base + head + size, size, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
		int saved = errno;

		munmap(base, head + 2 * size);
		errno = saved;
		return NULL;
	}
	return base + head;
}

void seg_unmap(void *p, size_t size)
{
	if (p != NULL)
		munmap(p, size);
}

void seg_unmap_twice(void *p, size_t size, size_t head)
{
	if (p != NULL)
		munmap((uint8_t *)p - head, head + 2 * size);
}

int seg_keep_from_children(void *p, size_t size)
{
	return madvise(p, size, MADV_DONTFORK);
}
