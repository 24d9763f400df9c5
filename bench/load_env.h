/* load_env.h - on what machine, with what command, when. The parent only; reads a few files of /proc and
 * /etc. */
#ifndef BENCH_LOAD_ENV_H
#define BENCH_LOAD_ENV_H

#include "common/base.h"

struct load_env {
	char date[40]; /* with its offset from UTC */
	char host[72];
	char system[128]; /* the distribution */
	char kernel[200];
	char machine[72]; /* x86_64 */
	char cpu[128];
	char build[128]; /* this program's version and compiler */
	uint32_t cpus;   /* on line */
	uint64_t memory_bytes;
};

/* What cannot be found out is empty or 0. */
void load_env_read(struct load_env *env);

/* The command line as a shell would take it, with the value of --api-key and of headers and URL parameters
 * that carry secrets left out. Call before anything changes argv. The text is the program's for good; ""
 * without memory. */
const char *load_env_command(int argc, char **argv);

#endif
