/* config_file.h - small files that a configuration consists of: itself, and keys of tokens. Master process,
 * at start and at HUP; blocks as reading a small file does.
 */
#ifndef RC_CONFIG_FILE_H
#define RC_CONFIG_FILE_H

#include "common/base.h"

/* Read a whole regular file of at most `max` bytes into a fresh buffer, with a NUL behind. NULL with errno:
 * EFBIG when it is too large, ENOTSUP when it is no regular file. */
char *file_read(const char *path, size_t max, size_t *len) MUST_CHECK;

/* That errno in words. */
const char *file_error(int err);

#endif
