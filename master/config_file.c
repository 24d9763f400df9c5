#include "master/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *file_read(const char *path, size_t max, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char *p = NULL;
	ssize_t n = 0;
	int err;

	*len = 0;
	if (fd == -1)
		return NULL;
	if (fstat(fd, &st) == -1)
		goto fail;
	if (!S_ISREG(st.st_mode)) {
		errno = ENOTSUP;
		goto fail;
	}
	p = malloc(max + 1);
	if (p == NULL)
		goto fail;
	while (*len <= max && (n = read(fd, p + *len, max + 1 - *len)) > 0)
		*len += (size_t)n;
	if (n == -1)
		goto fail;
	if (*len > max) {
		errno = EFBIG;
		goto fail;
	}
	close(fd);
	p[*len] = '\0';
	return p;
fail:
	err = errno;
	close(fd);
	free(p);
	errno = err;
	return NULL;
}

const char *file_error(int err)
{
	return err == ENOTSUP ? "not a regular file" : strerror(err);
}
