/* load_opts.c - the command line of the load client. */
#include <getopt.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load.h"
#include "bench/payload.h"
#include "common/clock.h"

/* Every option: where its value goes, and what it may be. Durations and rates are fractional numbers. */
enum opt_kind { OPT_TEXT, OPT_FLAG, OPT_WHOLE, OPT_NUMBER, OPT_PAIR, OPT_SOURCE, OPT_LIST };

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
	{"header", OPT_LIST, AT(headers), 0, 0, 0, 0},
	{"subprotocol", OPT_TEXT, AT(subprotocol), 0, 0, 0, 0},
	{"first-frame", OPT_LIST, AT(first_frames), 0, 0, 0, 0},
	{"ignore", OPT_LIST, AT(ignore), 0, 0, 0, 0},
	{"conns", OPT_WHOLE, AT(conns), 0, 0, 2e6, 0},
	{"channels", OPT_WHOLE, AT(channels), 0, 0, 2e6, 0},
	{"stall", OPT_WHOLE, AT(stall), 0, 0, 1e6, 0},
	{"pause", OPT_PAIR, AT(pause), AT(pause_ms), 1, 1e6, ':'},
	{"churn", OPT_PAIR, AT(churn), AT(churn_ms), 1, 1e6, ':'},
	{"slow", OPT_PAIR, AT(slow), AT(slow_bytes), 1, 1e9, ':'},
	{"storm", OPT_PAIR, AT(storm), AT(storm_ms), 1, 1e6, ':'},
	{"rcvbuf", OPT_WHOLE, AT(rcvbuf), 0, 0, 1e9, 0},
	{"procs", OPT_WHOLE, AT(procs), 0, 1, LOAD_PROCS, 0},
	{"sources", OPT_WHOLE, AT(sources), 0, 1, 65000, 0},
	{"source-list", OPT_TEXT, AT(source_list), 0, 0, 0, 0},
	{"concurrency", OPT_WHOLE, AT(concurrency), 0, 1, 1e5, 0},
	{"conn-rate", OPT_WHOLE, AT(conn_rate), 0, 0, 1e6, 0},
	{"may-close", OPT_FLAG, AT(may_close), AT(may_close), 0, 0, 0},
	{"may-skip", OPT_FLAG, AT(may_skip), AT(may_skip), 0, 0, 0},
	{"reconnect", OPT_FLAG, AT(reconnect), AT(may_close), 0, 0, 0},
	{"no-check", OPT_FLAG, AT(no_check), AT(no_check), 0, 0, 0},
	{"publish", OPT_SOURCE, AT(source), 0, 0, 0, 0},
	{"redis", OPT_TEXT, AT(redis), 0, 0, 0, 0},
	{"http", OPT_TEXT, AT(http), 0, 0, 0, 0},
	{"api-key", OPT_TEXT, AT(api_key), 0, 0, 0, 0},
	{"channel", OPT_TEXT, AT(channel), 0, 0, 0, 0},
	{"pipeline", OPT_WHOLE, AT(pipeline), 0, 1, 64, 0},
	{"publish-path", OPT_TEXT, AT(publish_path), 0, 0, 0, 0},
	{"raw", OPT_FLAG, AT(raw), AT(raw), 0, 0, 0},
	{"wrap", OPT_TEXT, AT(wrap_text), 0, 0, 0, 0},
	{"unwrap", OPT_TEXT, AT(unwrap_text), 0, 0, 0, 0},
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

static _Noreturn void usage_errorf(const char *fmt, ...) PRINTF_LIKE(1, 2);

static _Noreturn void usage_errorf(const char *fmt, ...)
{
	char text[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)n; /* cut is fine */
	usage_error(text, NULL);
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

static void append(struct load_list *list, const char *name, const char *text)
{
	if (list->n == LOAD_LIST)
		usage_errorf("--%s: at most %d", name, LOAD_LIST);
	if (*text == '\0' || strpbrk(text, "\r\n"))
		usage_errorf("--%s: empty, or more than one line", name);
	list->text[list->n++] = text;
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
	case OPT_LIST:
		append(at, t->name, arg);
		break;
	}
}

/* Enough receivers for all clients, none with more connections than it may open files. */
static void finish_procs(struct load_opts *o)
{
	const uint32_t total = load_total(o);
	struct rlimit lim;
	uint64_t most;

	if (getrlimit(RLIMIT_NOFILE, &lim) == -1)
		usage_error("getrlimit", strerror(errno));
	most = lim.rlim_max == RLIM_INFINITY ? UINT32_MAX : lim.rlim_max;
	if (most <= LOAD_FDS_OTHER)
		usage_errorf("the limit on open files (ulimit -Hn) is %u", (unsigned)most);
	most -= LOAD_FDS_OTHER;
	if (o->procs == 0) {
		uint64_t each = u64_min(most, LOAD_PER_PROC), want = (total + each - 1) / each;

		if (want > LOAD_PROCS)
			usage_errorf("%u clients need more than %d processes of %u each (ulimit -Hn)", total,
				     LOAD_PROCS, (unsigned)each);
		o->procs = (uint32_t)want;
	}
	if ((total + o->procs - 1) / o->procs > most)
		usage_errorf("%u clients in %u processes: one may open %u (ulimit -Hn); more --procs", total,
			     o->procs, (unsigned)most);
}

/* Where clients come from. */
static void finish_sources(struct load_opts *o)
{
	const uint32_t total = load_total(o);
	struct load_addr to;
	uint64_t room;

	if (load_addr_parse(o->target, &to) == -1)
		usage_error("no address (1.2.3.4:80, [::1]:80 or unix:/path; no names)", o->target);
	if (o->source_list) {
		if (load_sources_parse(o->source_list, to.ss.ss_family, &o->from) == -1)
			usage_error("no list of addresses of the target's kind", o->source_list);
	} else if (load_addr_is_loopback4(&to)) {
		load_sources_loopback(&o->from, o->sources                 ? o->sources
						: total / 5000 + 4 < 65000 ? total / 5000 + 4
									   : 65000);
	} else if (o->sources) {
		usage_error("--sources are addresses of 127.0.0.0/8; this target wants a --source-list",
			    o->target);
	}
	room = u64_max(o->from.total, 1) * load_ports();
	if (to.ss.ss_family != AF_UNIX && total > room)
		usage_errorf("%u clients from %u addresses: one has %u ports (net.ipv4.ip_local_port_range); "
			     "more sources",
			     total, (unsigned)u64_max(o->from.total, 1), load_ports());
}

static void split_wrap(const char *text, struct load_wrap *w)
{
	const char *at = text ? strstr(text, "%s") : NULL;

	if (!text)
		return;
	if (!at || strstr(at + 2, "%s"))
		usage_error("a wrap has %s once, where the message stands", text);
	*w = (struct load_wrap){text, at + 2, (uint32_t)(at - text), (uint32_t)strlen(at + 2)};
	if (w->head_len > LOAD_WRAP_MAX || w->tail_len > LOAD_WRAP_MAX)
		usage_errorf("a wrap has at most %d bytes on either side", LOAD_WRAP_MAX);
}

static void finish_text(struct load_opts *o)
{
	if (strpbrk(o->channel, "\"\\\r\n"))
		usage_error("a channel name that JSON would have to escape", o->channel);
	if (o->path[0] != '/' || strpbrk(o->path, " \r\n"))
		usage_error("a path begins with / and has no blanks", o->path);
	if (o->publish_path && (o->publish_path[0] != '/' || strpbrk(o->publish_path, " \r\n")))
		usage_error("a path begins with / and has no blanks", o->publish_path);
	for (uint32_t i = 0; i < o->headers.n; i++)
		if (!strchr(o->headers.text[i], ':'))
			usage_error("a header is Name: value", o->headers.text[i]);
	for (uint32_t i = 0; i < o->ignore.n; i++)
		if (strlen(o->ignore.text[i]) > PAYLOAD_MIN)
			usage_error("too long to be ignored", o->ignore.text[i]);
	if (o->raw && o->source != SOURCE_HTTP)
		usage_error("--raw is for --publish http", NULL);
	split_wrap(o->wrap_text, &o->wrap);
	split_wrap(o->unwrap_text ? o->unwrap_text : o->wrap_text, &o->unwrap);
}

static void finish(struct load_opts *o)
{
	const uint32_t total = load_total(o);

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
	if (o->concurrency == 0)
		o->concurrency = o->conn_rate ? UINT32_MAX / 2 : 64;
	finish_procs(o);
	finish_sources(o);
	finish_text(o);
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
		.slow_bytes = 10000,
		.storm_ms = 1000,
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
			fputs(load_usage, stdout);
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
