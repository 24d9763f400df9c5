/* config_load.h - a configuration file and the command line become a struct config.
 * Master process, at start and at HUP; blocks as reading small files and looking up an account do.
 */
#ifndef RC_CONFIG_LOAD_H
#define RC_CONFIG_LOAD_H

#include <stdio.h>

#include "common/buf.h"
#include "common/config.h"
#include "master/cli.h"

/* Load `file` (NULL: none, the built-in defaults: local mode) with what the command line says on top (NULL:
 * nothing). Returns a fresh config that the caller frees with config_free(), or NULL with every problem
 * appended to `errors`, one a line: "file:line: key: what". A syntax error ends the list. */
struct config *config_load(const char *file, const struct cli *overrides, struct buf *errors) MUST_CHECK;

/* Print the effective configuration in the file's own syntax, secrets masked. 0, or -1 with errno. */
int config_print(const struct config *c, FILE *out) MUST_CHECK;

/* Names of the keys that differ between two configurations and take effect only at the next start ("ring.size
 * redis.url"), appended to `out`. Returns how many. For the log line after a HUP. */
size_t config_needs_restart(const struct config *before, const struct config *after, struct buf *out);

#endif
