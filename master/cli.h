/* cli.h - the command line. Master process, before anything else; nothing here survives a fork in need of
 * care. */
#ifndef RC_CLI_H
#define RC_CLI_H

#include <stdio.h>

#include "common/base.h"

#define CLI_MAX_ADDRESSES 64 /* of each kind */

enum cli_action {
	CLI_RUN,
	CLI_TEST,    /* -t: check the configuration */
	CLI_DUMP,    /* -T: check it and print the effective one */
	CLI_SIGNAL,  /* -s */
	CLI_VERSION, /* -V */
	CLI_HELP,    /* -h */
};

/* All zero is an empty command line. Strings are borrowed from argv, which lives as long as the process. */
struct cli {
	enum cli_action action;
	int signal;              /* CLI_SIGNAL: what to send */
	const char *config_file; /* NULL: none, built-in defaults */

	/* Options that win over the file, also at HUP. Their values have been checked. */
	const char *listens[CLI_MAX_ADDRESSES], *admins[CLI_MAX_ADDRESSES];
	size_t n_listens, n_admins;
	bool has_workers, has_log_level;
	uint32_t workers;
	int log_level;
	const char *redis;    /* NULL: not given; "": local mode */
	const char *pid_file; /* NULL: not given */
};

/* Parse into *cli (zeroed first). 0, or -1 after one line and a hint were written to `err`: exit 2 then. */
int cli_parse(int argc, char **argv, struct cli *cli, FILE *err) MUST_CHECK;

void cli_print_help(FILE *out);

/* "ringcast 0.1.0", then one line per library, with the version that runs now where it can be asked for. */
void cli_print_version(FILE *out);

/* -s: read the process id in `pid_file` and signal it. Returns the exit status: 0; 2 without a pid file, with
 * a stale one, or with one of a process that may not be signalled. The reason goes to `err`. */
int cli_send_signal(const char *pid_file, int signal, FILE *err) MUST_CHECK;

#endif
