/* floor.c - the floor's start: options, listeners, workers. See floor.h for what it is. */
#include "bench/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/payload.h"

#define CHANNELS_MAX 10000000u

volatile int floor_stop;

static const char usage_text[] =
	"bench-floor: the least that a prefork WebSocket fan-out server must do\n"
	"  --listen ADDR:PORT   clients; port 0 is chosen and printed as 'listen PORT' (127.0.0.1:0)\n"
	"  --workers N          (2)\n"
	"  --batch K            up to K messages in one send when several are due (1)\n"
	"  --io-uring           send by io_uring\n"
	"  --channels N         channel names and paths end in a number below N: one client for each\n"
	"messages come from one of\n"
	"  --rate R             R a second of its own; --size BYTES (128), --messages M, --run ID (1)\n"
	"  --publish ADDR:PORT  POST with {\"text\":\"...\"}; 'publish PORT' is printed\n"
	"  --redis ADDR         SUBSCRIBE --channel NAME (demo:room0); ADDR:PORT or unix:/path;\n"
	"                       with --channels PSUBSCRIBE, and the name is a pattern (demo:room*)\n"
	"  --binary             they are sent as binary\n"
	"At the end, 'sends N deliveries M' is printed: calls, and messages to clients.\n";

static void on_signal(int sig)
{
	floor_stop = sig;
}

static _Noreturn void usage_error(const char *what)
{
	fprintf(stderr, "bench-floor: %s (--help lists the options)\n", what);
	exit(2);
}

static void set(struct floor_opts *o, int code, char *arg)
{
	switch (code) {
	case 'l':
		o->listen = arg;
		break;
	case 'w':
		o->workers = (uint32_t)strtoul(arg, NULL, 10);
		break;
	case 'k':
		o->batch = (uint32_t)strtoul(arg, NULL, 10);
		break;
	case 'u':
		o->uring = true;
		break;
	case 'n':
		o->channels = (uint32_t)strtoul(arg, NULL, 10);
		break;
	case 'r':
		o->rate = strtod(arg, NULL);
		break;
	case 's':
		o->size = (uint32_t)strtoul(arg, NULL, 10);
		break;
	case 'm':
		o->messages = strtoull(arg, NULL, 10);
		break;
	case 'i':
		o->run = (uint16_t)strtoul(arg, NULL, 10);
		break;
	case 'p':
		o->publish = arg;
		break;
	case 'R':
		o->redis = arg;
		break;
	case 'c':
		o->channel = arg;
		break;
	case 'b':
		o->binary = true;
		break;
	case 'h':
		fputs(usage_text, stdout);
		exit(0);
	default:
		exit(2);
	}
}

static void options(struct floor_opts *o, int argc, char **argv)
{
	static const struct option longopts[] = {
		{"listen", 1, 0, 'l'},   {"workers", 1, 0, 'w'}, {"batch", 1, 0, 'k'},
		{"io-uring", 0, 0, 'u'}, {"rate", 1, 0, 'r'},    {"size", 1, 0, 's'},
		{"messages", 1, 0, 'm'}, {"run", 1, 0, 'i'},     {"publish", 1, 0, 'p'},
		{"redis", 1, 0, 'R'},    {"channel", 1, 0, 'c'}, {"binary", 0, 0, 'b'},
		{"channels", 1, 0, 'n'}, {"help", 0, 0, 'h'},    {0},
	};
	int code;

	*o = (struct floor_opts){.listen = "127.0.0.1:0", .workers = 2, .batch = 1, .size = 128, .run = 1};
	while ((code = getopt_long(argc, argv, "h", longopts, NULL)) != -1)
		set(o, code, optarg);
	if (optind < argc)
		usage_error("what is that");
	if (o->workers < 1 || o->workers > FLOOR_WORKERS || o->batch < 1 || o->channels > CHANNELS_MAX ||
	    o->size < PAYLOAD_MIN)
		usage_error("out of range");
	if (!o->channel)
		o->channel = o->channels ? "demo:room*" : "demo:room0";
	if ((o->rate > 0) + !!o->publish + !!o->redis != 1)
		usage_error("one of --rate, --publish, --redis");
}

static int prepare(void)
{
	const struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == -1)
		return -1;
	lim.rlim_cur = lim.rlim_max < 20000 ? lim.rlim_max : 20000;
	if (setrlimit(RLIMIT_NOFILE, &lim) == -1 || sigaction(SIGPIPE, &ignore, NULL) == -1)
		return -1;
	return sigaction(SIGTERM, &stop, NULL) == -1 || sigaction(SIGINT, &stop, NULL) == -1 ? -1 : 0;
}

static int start_workers(const struct floor_opts *o, struct floor_shared *sh, pid_t *pids)
{
	const struct sigaction standard = {.sa_handler = SIG_DFL};
	struct sockaddr_in bound = {0};
	int listeners[FLOOR_WORKERS];

	for (uint32_t i = 0; i < o->workers; i++) {
		sh->slot[i].wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		listeners[i] = floor_listen(o->listen, true, &bound);
		if (sh->slot[i].wake_fd == -1 || listeners[i] == -1)
			return -1;
	}
	for (uint32_t i = 0; i < o->workers; i++) {
		pids[i] = fork();
		if (pids[i] == -1)
			return -1;
		if (pids[i] > 0)
			continue;
		for (uint32_t j = 0; j < o->workers; j++)
			if (j != i)
				close(listeners[j]);
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1 || sigaction(SIGTERM, &standard, NULL) == -1)
			_exit(1);
		_exit(floor_worker(o, sh, i, listeners[i]));
	}
	for (uint32_t i = 0; i < o->workers; i++)
		close(listeners[i]);
	printf("listen %d\n", ntohs(bound.sin_port));
	fflush(stdout);
	return 0;
}

static void print_counts(const struct floor_opts *o, struct floor_shared *sh)
{
	uint64_t sends = 0, deliveries = 0;

	for (uint32_t i = 0; i < o->workers; i++) {
		sends += atomic_load_explicit(&sh->slot[i].sends, memory_order_relaxed);
		deliveries += atomic_load_explicit(&sh->slot[i].deliveries, memory_order_relaxed);
	}
	printf("sends %" PRIu64 " deliveries %" PRIu64 "\n", sends, deliveries);
}

int main(int argc, char **argv)
{
	static struct floor_opts o;
	struct floor_shared *sh;
	pid_t pids[FLOOR_WORKERS];
	int rc;

	options(&o, argc, argv);
	payload_init();
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sh == MAP_FAILED || prepare() == -1 || start_workers(&o, sh, pids) == -1) {
		fprintf(stderr, "bench-floor: %s\n", strerror(errno));
		return 1;
	}
	if (o.rate > 0)
		rc = floor_feed_rate(&o, sh);
	else
		rc = o.publish ? floor_feed_http(&o, sh) : floor_feed_redis(&o, sh);
	for (uint32_t i = 0; i < o.workers; i++)
		if (kill(pids[i], SIGKILL) == 0)
			waitpid(pids[i], NULL, 0);
	print_counts(&o, sh);
	return rc;
}
