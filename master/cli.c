#include "master/cli.h"

#include <confuse.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wslay/wslay.h>
#include <xxhash.h>
#ifdef RC_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "common/config.h"
#include "common/log.h"
#include "master/config_value.h"

enum { OPT_LISTEN = 256, OPT_ADMIN, OPT_WORKERS, OPT_REDIS, OPT_LOG_LEVEL, OPT_PID };

static const struct option options[] = {
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"admin", required_argument, NULL, OPT_ADMIN},
	{"workers", required_argument, NULL, OPT_WORKERS},
	{"redis", required_argument, NULL, OPT_REDIS},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"pid", required_argument, NULL, OPT_PID},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int usage(FILE *err, const char *what, const char *detail)
{
	fprintf(err, "ringcast: %s%s%s\nringcast: try ringcast -h\n", what, *detail ? ": " : "", detail);
	return -1;
}

static int add_address(const char **list, size_t *n, const char *option, const char *addr, FILE *err)
{
	struct cfg_listener l = {0};
	struct value_error why = {""};

	if (value_listener(addr, &l, &why) == -1)
		return usage(err, option, why.s);
	config_listener_clear(&l);
	if (*n >= CLI_MAX_ADDRESSES)
		return usage(err, option, "given too often");
	list[(*n)++] = addr;
	return 0;
}

static int set_workers(struct cli *cli, const char *arg, FILE *err)
{
	const struct config_key *k = config_key_find("", (struct slice){"workers", 7});
	struct value_error why = {""};
	uint64_t v;

	if (value_number(k, arg, &v, &why) == -1)
		return usage(err, "--workers", why.s);
	cli->workers = (uint32_t)v;
	cli->has_workers = true;
	return 0;
}

static int set_redis(struct cli *cli, const char *arg, FILE *err)
{
	struct cfg_redis r = {0};
	struct value_error why = {""};

	if (value_redis_url(arg, &r, &why) == -1)
		return usage(err, "--redis", why.s);
	config_redis_clear(&r);
	cli->redis = arg;
	return 0;
}

static int set_log_level(struct cli *cli, const char *arg, FILE *err)
{
	cli->log_level = log_level_parse(arg);
	cli->has_log_level = true;
	return cli->log_level < 0 ? usage(err, "--log-level", "error, warn, info or debug is expected") : 0;
}

static int set_action(struct cli *cli, enum cli_action action, FILE *err)
{
	if (cli->action != CLI_RUN && cli->action != action)
		return usage(err, "only one of -t, -T, -s, -V and -h is possible", "");
	cli->action = action;
	return 0;
}

static int set_signal(struct cli *cli, const char *arg, FILE *err)
{
	static const struct {
		const char *name;
		int signal;
	} known[] = {
		{"reload", SIGHUP}, {"upgrade", SIGUSR2}, {"reopen", SIGUSR1},
		{"stop", SIGTERM},  {"quit", SIGQUIT},
	};

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (strcmp(arg, known[i].name) == 0) {
			cli->signal = known[i].signal;
			return set_action(cli, CLI_SIGNAL, err);
		}
	}
	return usage(err, "-s", "reload, upgrade, reopen, stop or quit is expected");
}

static int set_option(struct cli *cli, int opt, char *arg, FILE *err)
{
	switch (opt) {
	case 'c':
		cli->config_file = arg;
		return *arg == '\0' ? usage(err, "-c", "a file is expected") : 0;
	case 't':
		return set_action(cli, CLI_TEST, err);
	case 'T':
		return set_action(cli, CLI_DUMP, err);
	case 's':
		return set_signal(cli, arg, err);
	case 'V':
		return set_action(cli, CLI_VERSION, err);
	case 'h':
		return set_action(cli, CLI_HELP, err);
	case OPT_LISTEN:
		return add_address(cli->listens, &cli->n_listens, "--listen", arg, err);
	case OPT_ADMIN:
		return add_address(cli->admins, &cli->n_admins, "--admin", arg, err);
	case OPT_WORKERS:
		return set_workers(cli, arg, err);
	case OPT_REDIS:
		return set_redis(cli, arg, err);
	case OPT_LOG_LEVEL:
		return set_log_level(cli, arg, err);
	case OPT_PID:
		cli->pid_file = arg;
		return 0;
	}
	return -1;
}

int cli_parse(int argc, char **argv, struct cli *cli, FILE *err)
{
	char unknown[2] = "";
	int opt;

	*cli = (struct cli){.action = CLI_RUN};
	opterr = 0;
	optind = 0; /* glibc: begin anew */
	while ((opt = getopt_long(argc, argv, "+:c:tTs:Vh", options, NULL)) != -1) {
		if (opt == '?' || opt == ':') {
			unknown[0] = (char)optopt;
			return usage(err,
				     opt == ':' ? "the option needs a value" : "unknown or ambiguous option",
				     optopt > 0 && optopt < 256 ? unknown : argv[optind - 1]);
		}
		if (set_option(cli, opt, optarg, err) == -1)
			return -1;
	}
	if (optind < argc)
		return usage(err, "unexpected argument", argv[optind]);
	return 0;
}

void cli_print_help(FILE *out)
{
	fputs("usage: ringcast [options]\n"
	      "  -c FILE              the configuration; without it: local mode, 127.0.0.1:8080\n"
	      "  -t                   check the configuration, print every problem, exit 0 or 1\n"
	      "  -T                   check it and print the effective one, secrets masked\n"
	      "  -s ACTION            tell the running server: reload, upgrade, reopen, stop, quit\n"
	      "  -V, --version        versions of the server and its libraries\n"
	      "  -h, --help           this text\n"
	      "Options win over the file, also at a reload:\n"
	      "  --listen ADDRESS     HOST:PORT or unix:PATH for clients; may repeat; replaces the file's\n"
	      "  --admin ADDRESS      the same for HTTP; an api_key of the file goes on being asked for\n"
	      "  --workers N|auto     worker processes, 1 to 64\n"
	      "  --redis URL          redis://, rediss:// or unix:///; \"\" is local mode\n"
	      "  --log-level LEVEL    error, warn, info, debug\n"
	      "  --pid FILE           where the process id is written\n",
	      out);
}

void cli_print_version(FILE *out)
{
	fprintf(out, "ringcast %s\n", RC_VERSION);
	fprintf(out, "hiredis %d.%d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
	fprintf(out, "libev %d.%d\n", ev_version_major(), ev_version_minor());
	fprintf(out, "wslay %s (as its header says)\n", WSLAY_VERSION);
#ifdef RC_JEMALLOC
	const char *version = NULL;
	size_t len = sizeof(version);

	if (mallctl("version", &version, &len, NULL, 0) == 0)
		fprintf(out, "jemalloc %.*s\n", (int)strcspn(version, "-"), version);
#endif
	fprintf(out, "libconfuse %s\n", confuse_version);
	fprintf(out, "openssl %s\n", OpenSSL_version(OPENSSL_FULL_VERSION_STRING));
	fprintf(out, "llhttp %d.%d.%d\n", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
	fprintf(out, "xxhash %d.%d.%d\n", XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE);
}

/* The process id in the file; 0 with the reason written. */
static pid_t read_pid(const char *path, FILE *err)
{
	char text[32], *end;
	ssize_t n;
	long pid;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd == -1) {
		fprintf(err, "ringcast: %s: %s\n", path, strerror(errno));
		return 0;
	}
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	errno = 0;
	pid = strtol(text, &end, 10);
	if (errno != 0 || end == text || (*end != '\0' && *end != '\n') || pid <= 1 || pid > INT32_MAX) {
		fprintf(err, "ringcast: %s: no process id\n", path);
		return 0;
	}
	return (pid_t)pid;
}

int cli_send_signal(const char *pid_file, int signal, FILE *err)
{
	pid_t pid;

	if (pid_file == NULL || *pid_file == '\0') {
		fprintf(err, "ringcast: -s needs a pid file: --pid, or pid_file in the configuration\n");
		return 2;
	}
	pid = read_pid(pid_file, err);
	if (pid == 0)
		return 2;
	if (kill(pid, signal) == -1) {
		fprintf(err, "ringcast: process %d of %s: %s\n", (int)pid, pid_file,
			errno == ESRCH ? "is not running" : strerror(errno));
		return 2;
	}
	return 0;
}
