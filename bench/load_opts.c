/* load_opts.c - the command line of the load client. */
#include <getopt.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/load.h"
#include "bench/payload.h"
#include "common/clock.h"

static const char usage_text[] =
	"ringcast-bench: WebSocket clients that check every message, and publishers to feed them\n"
	"\n"
	"clients\n"
	"  --target ADDR      where they connect: 127.0.0.1:8080 or unix:/path (127.0.0.1:8080)\n"
	"  --path TEMPLATE    URL path, %d = channel number (/ws/room%d)\n"
	"  --header LINE      one more request header, e.g. 'Origin: http://x'\n"
	"  --conns N          steady clients: must get every message once, in order (1000)\n"
	"  --channels H       client i sits in channel i % H; 0 = a channel for each (1)\n"
	"  --stall N          N more that never read\n"
	"  --pause N:MS       N more that stop reading for MS and then read for MS, again and again\n"
	"  --churn N[:MS]     N more that join, stay MS on average (200) and leave, again and again\n"
	"  --rcvbuf BYTES     SO_RCVBUF of stalled and pausing clients, 0 = the kernel's (4096)\n"
	"  --procs P          receiver processes (one for each 19000 clients)\n"
	"  --sources S        source addresses 127.0.1.1.. (one for each 5000 clients, at least 4)\n"
	"  --concurrency C    handshakes under way at once (64)\n"
	"  --conn-rate R      handshakes a second, 0 = as fast as it goes (0)\n"
	"  --may-close        a client that the server closes is counted, but no error\n"
	"  --reconnect        ... and comes back (implies --may-close)\n"
	"  --no-check         only count messages\n"
	"publishers\n"
	"  --publish KIND     redis, http, ws or none (none)\n"
	"  --redis ADDR       127.0.0.1:6379 or unix:/path (127.0.0.1:6379)\n"
	"  --http ADDR        of POST /api/publish (127.0.0.1:8081)\n"
	"  --api-key KEY      its X-API-Key\n"
	"  --pipeline N       up to N requests before their answers are waited for (1)\n"
	"  --channel TEMPLATE channel name for redis and http (demo:room%d)\n"
	"  --publishers P     processes, each with an order of its own (1)\n"
	"  --size S[-T]       payload bytes, at least 48; a range mixes sizes (128)\n"
	"  --binary           binary messages, never valid UTF-8\n"
	"  --rate R           messages a second of each publisher, open loop; 0 = flat out (100)\n"
	"  --burst B          ... in groups of B at once (1)\n"
	"  --inflight K       messages under way at most; 0 = no limit (0 with a rate, else 64)\n"
	"  --messages M       messages of each publisher, instead of a duration\n"
	"  --duration S       seconds of publishing (5)\n"
	"  --run ID           1..65535, marks our messages (random); the publisher's with --publish none\n"
	"measuring\n"
	"  --pid PID          the server: CPU and memory of it and all its descendants\n"
	"  --redis-pid PID    the Redis it is fed by: CPU while publishing\n"
	"  --idle S           hold all connections still for S seconds before publishing, then read memory "
	"(0)\n"
	"  --drain S          how long the last messages may take (5)\n"
	"  --max-seconds S    everything together (60)\n"
	"reporting\n"
	"  --json             one line of JSON instead of the table\n"
	"  --report FILE      a page of plots and tables (HTML) that needs nothing else\n"
	"  --title TEXT       its heading: what was measured\n"
	"  --hdr FILE         latencies second by second, as HdrHistogram's log\n"
	"  --hgrm FILE        latency by percentile, as HdrHistogram's plotter takes it\n"
	"  --progress         rates on stderr once a second, also when it is no terminal\n"
	"  --quiet            nothing on stderr but errors\n"
	"  --help             this text\n"
	"\n"
	"Status 0: all well. 1: anything lost, repeated, out of order, corrupt, closed, refused or timed "
	"out. 2: usage.\n";

/* Every option: where its value goes, and what it may be. Durations and rates are fractional numbers. */
enum opt_kind { OPT_TEXT, OPT_FLAG, OPT_WHOLE, OPT_NUMBER, OPT_PAIR, OPT_SOURCE };

#define OPT_CODE  256 /* getopt's name of table[0] */
#define AT(field) offsetof(struct load_opts, field)

static const struct opt {
	const char *name;
	enum opt_kind kind;
	size_t at, second; /* second: of a pair; the other flag that a flag implies */
	double min, max;
	char between; /* the two of a pair */
} table[] = {
	{"target", OPT_TEXT, AT(target), 0, 0, 0, 0},
	{"path", OPT_TEXT, AT(path), 0, 0, 0, 0},
	{"header", OPT_TEXT, AT(header), 0, 0, 0, 0},
	{"conns", OPT_WHOLE, AT(conns), 0, 0, 2e6, 0},
	{"channels", OPT_WHOLE, AT(channels), 0, 0, 2e6, 0},
	{"stall", OPT_WHOLE, AT(stall), 0, 0, 1e6, 0},
	{"pause", OPT_PAIR, AT(pause), AT(pause_ms), 1, 1e6, ':'},
	{"churn", OPT_PAIR, AT(churn), AT(churn_ms), 1, 1e6, ':'},
	{"rcvbuf", OPT_WHOLE, AT(rcvbuf), 0, 0, 1e9, 0},
	{"procs", OPT_WHOLE, AT(procs), 0, 1, LOAD_PROCS, 0},
	{"sources", OPT_WHOLE, AT(sources), 0, 1, 250, 0},
	{"concurrency", OPT_WHOLE, AT(concurrency), 0, 1, 1e5, 0},
	{"conn-rate", OPT_WHOLE, AT(conn_rate), 0, 0, 1e6, 0},
	{"may-close", OPT_FLAG, AT(may_close), AT(may_close), 0, 0, 0},
	{"reconnect", OPT_FLAG, AT(reconnect), AT(may_close), 0, 0, 0},
	{"no-check", OPT_FLAG, AT(no_check), AT(no_check), 0, 0, 0},
	{"publish", OPT_SOURCE, AT(source), 0, 0, 0, 0},
	{"redis", OPT_TEXT, AT(redis), 0, 0, 0, 0},
	{"http", OPT_TEXT, AT(http), 0, 0, 0, 0},
	{"api-key", OPT_TEXT, AT(api_key), 0, 0, 0, 0},
	{"channel", OPT_TEXT, AT(channel), 0, 0, 0, 0},
	{"pipeline", OPT_WHOLE, AT(pipeline), 0, 1, 64, 0},
	{"publishers", OPT_WHOLE, AT(publishers), 0, 1, LOAD_PUBLISHERS, 0},
	{"size", OPT_PAIR, AT(size_min), AT(size_max), PAYLOAD_MIN, 64 << 20, '-'},
	{"binary", OPT_FLAG, AT(binary), AT(binary), 0, 0, 0},
	{"rate", OPT_NUMBER, AT(rate), 0, 0, 1e7, 0},
	{"burst", OPT_WHOLE, AT(burst), 0, 1, 1e5, 0},
	{"inflight", OPT_WHOLE, AT(inflight), 0, 0, LOAD_WINDOW - 64, 0},
	{"messages", OPT_WHOLE, AT(messages), 0, 1, 4e9, 0},
	{"duration", OPT_NUMBER, AT(duration_s), 0, 0.001, 3600, 0},
	{"run", OPT_WHOLE, AT(run), 0, 1, 65535, 0},
	{"pid", OPT_WHOLE, AT(pid), 0, 1, 4194304, 0},
	{"redis-pid", OPT_WHOLE, AT(redis_pid), 0, 1, 4194304, 0},
	{"idle", OPT_NUMBER, AT(idle_s), 0, 0, 3600, 0},
	{"drain", OPT_NUMBER, AT(drain_s), 0, 0, 3600, 0},
	{"max-seconds", OPT_NUMBER, AT(max_s), 0, 0.1, 7200, 0},
	{"json", OPT_FLAG, AT(json), AT(json), 0, 0, 0},
	{"report", OPT_TEXT, AT(report), 0, 0, 0, 0},
	{"title", OPT_TEXT, AT(title), 0, 0, 0, 0},
	{"hdr", OPT_TEXT, AT(hdr), 0, 0, 0, 0},
	{"hgrm", OPT_TEXT, AT(hgrm), 0, 0, 0, 0},
	{"progress", OPT_FLAG, AT(progress), AT(progress), 0, 0, 0},
	{"quiet", OPT_FLAG, AT(quiet), AT(quiet), 0, 0, 0},
};

static _Noreturn void usage_error(const char *what, const char *value)
{
	fprintf(stderr, "ringcast-bench: %s%s%s (--help lists the options)\n", what, value ? ": " : "",
		value ? value : "");
	exit(2);
}

static double number(const char *text, double min, double max)
{
	char *end;
	double v;

	errno = 0;
	v = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || !(v >= min && v <= max))
		usage_error("not a number in range", text);
	return v;
}

static uint32_t whole(const char *text, double min, double max)
{
	return (uint32_t)number(text, min, max);
}

/* "A:B" or "A": the second keeps its value when absent. */
static void pair(char *text, const struct opt *t, uint32_t *a, uint32_t *b)
{
	char *at = strchr(text, t->between);

	if (at) {
		*at = '\0';
		*b = whole(at + 1, t->min, t->max);
	}
	*a = whole(text, 0, t->max);
}

static enum load_source source(const char *text)
{
	static const char *const names[] = {"none", "redis", "http", "ws"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(text, names[i]) == 0)
			return (enum load_source)i;
	usage_error("unknown kind of publisher", text);
}

static void set(struct load_opts *o, const struct opt *t, char *arg)
{
	char *base = (char *)o;
	void *at = base + t->at, *second = base + t->second;

	switch (t->kind) {
	case OPT_TEXT:
		*(const char **)at = arg;
		break;
	case OPT_FLAG:
		*(bool *)at = *(bool *)second = true;
		break;
	case OPT_WHOLE:
		*(uint32_t *)at = whole(arg, t->min, t->max);
		break;
	case OPT_NUMBER:
		*(double *)at = number(arg, t->min, t->max);
		break;
	case OPT_PAIR:
		pair(arg, t, at, second);
		break;
	case OPT_SOURCE:
		o->source = source(arg);
		break;
	}
}

static void finish(struct load_opts *o)
{
	const uint32_t total = o->conns + o->stall + o->pause + o->churn;

	if (total == 0)
		usage_error("no clients", NULL);
	if (o->channels == 0)
		o->channels = total;
	if (o->size_max == 0)
		o->size_max = o->size_min;
	if (o->size_min < PAYLOAD_MIN || o->size_max < o->size_min)
		usage_error("payloads hold at least 48 bytes", NULL);
	if (o->rate <= 0 && o->inflight == 0)
		o->inflight = 64;
	if (o->procs == 0)
		o->procs = (total + LOAD_PER_PROC - 1) / LOAD_PER_PROC;
	if (o->procs > LOAD_PROCS || total / o->procs > LOAD_PER_PROC)
		usage_error("too many clients", NULL);
	if (o->sources == 0)
		o->sources = total / 5000 + 4;
	if (o->sources > 250)
		o->sources = 250;
	if (strpbrk(o->channel, "\"\\\r\n"))
		usage_error("a channel name that JSON would have to escape", o->channel);
	if (o->run == 0)
		o->run = (uint32_t)(1 + (clock_mono_ns() >> 10 ^ (uint64_t)getpid() << 7) % 65535);
}

void load_opts_parse(struct load_opts *o, int argc, char **argv)
{
	static struct option longopts[ARRAY_LEN(table) + 2] = {{"help", no_argument, NULL, 'h'}};
	int code;

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		longopts[i + 1] =
			(struct option){table[i].name, table[i].kind != OPT_FLAG, NULL, OPT_CODE + (int)i};
	*o = (struct load_opts){
		.target = "127.0.0.1:8080",
		.path = "/ws/room%d",
		.channel = "demo:room%d",
		.channels = 1,
		.conns = 1000,
		.churn_ms = 200,
		.pause_ms = 2000,
		.rcvbuf = 4096,
		.concurrency = 64,
		.redis = "127.0.0.1:6379",
		.http = "127.0.0.1:8081",
		.publishers = 1,
		.pipeline = 1,
		.size_min = 128,
		.rate = 100,
		.burst = 1,
		.duration_s = 5,
		.drain_s = 5,
		.max_s = 60,
	};
	while ((code = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		if (code == 'h') {
			fputs(usage_text, stdout);
			exit(0);
		}
		if (code == '?')
			exit(2);
		set(o, &table[code - OPT_CODE], optarg);
	}
	if (optind < argc)
		usage_error("what is that", argv[optind]);
	finish(o);
}

size_t load_expand(char *dst, size_t size, const char *tmpl, uint32_t n)
{
	const char *at = strstr(tmpl, "%d");
	int len;

	if (at)
		len = snprintf(dst, size, "%.*s%u%s", (int)(at - tmpl), tmpl, n, at + 2);
	else
		len = snprintf(dst, size, "%s", tmpl);
	return len > 0 && (size_t)len < size ? (size_t)len : 0;
}

int load_addr_parse(const char *text, struct load_addr *a)
{
	struct sockaddr_in *in = (void *)&a->ss;
	struct sockaddr_un *un = (void *)&a->ss;
	const char *colon = strrchr(text, ':');
	char host[64];

	memset(a, 0, sizeof(*a));
	if (strncmp(text, "unix:", 5) == 0) {
		size_t n = strlen(text + 5);

		if (n == 0 || n >= sizeof(un->sun_path))
			return -1;
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, text + 5, n);
		a->len = sizeof(*un);
		return 0;
	}
	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return -1;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	a->len = sizeof(*in);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : -1;
}
