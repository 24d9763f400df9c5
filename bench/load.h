/* load.h - the load client's processes and what they share.
 *
 *     parent            options, phases, /proc of the server, report          load.c load_report.c
 *      +- receiver 0..  connections, checks                                   load_recv.c load_conn.c
 * load_check.c
 *      +- publisher 0.. one order of messages each, paced or K in flight      load_publish.c load_pub_*.c
 *
 *     CONNECT --all open--> HOLD --idle over--> PUBLISH --all sent--> DRAIN --all read--> STALLED --> STOP
 *
 * Only the parent writes `phase`; every phase is bounded by --max-seconds. Publisher p numbers its messages
 * g = 0, 1, 2...; message g goes to channel g % channels with the sequence number g / channels, and
 * connection i sits in channel i % channels. So each side knows what the other must see without asking.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdatomic.h>

#include "bench/hist.h"
#include "bench/load_addr.h"
#include "common/base.h"

#define LOAD_PUBLISHERS 64
#define LOAD_PROCS      128
#define LOAD_PER_PROC   19000u /* connections of one receiver, unless --procs says otherwise */
#define LOAD_FDS_OTHER  100u   /* descriptors of a receiver that are no connections, generously */
#define LOAD_LIST       16     /* values of an option that may be given again and again */
#define LOAD_WRAP_MAX   64     /* bytes on either side of a wrapped payload */
#define LOAD_WINDOW     65536u /* messages of one publisher that may be under way; a power of two */
#define LOAD_KEY        "dGhlIHNhbXBsZSBub25jZQ=="     /* the sample of RFC 6455, so that */
#define LOAD_ACCEPT     "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" /* ... the answer is known without a hash */

enum load_source { SOURCE_NONE, SOURCE_REDIS, SOURCE_HTTP, SOURCE_WS };

struct load_list {
	const char *text[LOAD_LIST];
	uint32_t n;
};

/* What stands around each payload, for servers that want an envelope. */
struct load_wrap {
	const char *head, *tail; /* not terminated */
	uint32_t head_len, tail_len;
};

struct load_opts {
	const char *target, *path, *channel, *subprotocol;
	struct load_list headers, first_frames, ignore;
	uint32_t channels;
	uint32_t conns; /* steady ones: without all these */
	uint32_t stall, pause, pause_ms, churn, churn_ms, slow, slow_bytes, storm, storm_ms;
	uint32_t procs, sources, concurrency, conn_rate, rcvbuf;
	const char *source_list;
	struct load_sources from; /* out of the two above */
	enum load_source source;
	const char *redis, *http, *api_key, *publish_path;
	const char *wrap_text, *unwrap_text;
	struct load_wrap wrap, unwrap; /* as sent, and as it must come */
	bool raw;                      /* HTTP: the body is the message, not the API's JSON */
	uint32_t publishers;
	uint32_t size_min, size_max;
	bool binary;
	double rate; /* messages a second of one publisher; 0 = as fast as inflight allows */
	uint32_t burst, inflight;
	uint32_t pipeline; /* HTTP requests before their answers are waited for */
	uint32_t messages; /* of one publisher; 0 = by duration */
	double duration_s, idle_s, drain_s, max_s;
	uint32_t pid;       /* the server; 0 = not measured */
	uint32_t redis_pid; /* the Redis it is fed by; 0 = not measured */
	bool may_close, may_skip, reconnect, no_check, json;
	bool progress, quiet;                    /* the line on stderr: always; never, as little else */
	const char *hdr, *hgrm, *report, *title; /* files to write; NULL = not */
	const char *command;                     /* as it was given, without its secrets */
	uint32_t run;                            /* 16 bits */
};

enum load_phase { PHASE_CONNECT, PHASE_HOLD, PHASE_PUBLISH, PHASE_DRAIN, PHASE_STALLED, PHASE_STOP };

/* How a connection ended without us wanting it. */
enum load_end {
	END_1000,
	END_1001,
	END_1002,
	END_1007,
	END_1008,
	END_1009,
	END_1011,
	END_1012,
	END_1013,
	END_OTHER,
	END_EOF,
	END_RESET,
	END_PROTOCOL,
	END_COUNT
};

/* What has a histogram: the time from connect to 101, from due to read, and from due to the last client's
 * read. */
enum load_hist { LOAD_HANDSHAKE, LOAD_LATENCY, LOAD_LAST, LOAD_HISTS };

/* One receiver's results: written by it alone; the parent reads `opened`, `failed`, `open`, `deliveries`, the
 * `seen_` ones and the histograms (hist_interval) at any time, the rest once `drained` or `finished` is set
 * (release, acquire). */
struct load_result {
	_Atomic uint32_t opened, failed; /* first handshakes */
	_Atomic uint32_t drained, finished;
	_Atomic uint64_t deliveries;
	_Atomic uint64_t seen_bytes, seen_errors; /* of the fields below; a few ms old */
	_Atomic uint32_t open;                    /* connections, now */
	uint64_t bytes;
	uint64_t lost, repeated, late, corrupt, misrouted, foreign;
	uint64_t never_came; /* of `lost`: the tail, still missing at the end */
	uint64_t skipped;    /* missing in stalled clients, and in slow ones that may miss some; no error */
	uint64_t stalled_got, slow_got;
	uint64_t ignored;       /* messages that --ignore names */
	uint64_t joins, leaves; /* of churn and storms, and reconnects */
	uint64_t storm_refused; /* handshakes of a storm that failed and were tried again */
	uint64_t recvs;
	uint64_t ends[END_COUNT], stalled_ends[END_COUNT], slow_ends[END_COUNT];
	uint32_t stalled_open;
	uint64_t cpu_ns, user_ns; /* own CPU from PUBLISH to drained, and its share in user space */
	uint64_t first_start_ns, last_start_ns; /* of first handshakes; 0: none */
	char why[160];                          /* the first thing that went wrong */
	union {
		struct {
			struct hist handshake, latency, last;
		};
		struct hist hists[LOAD_HISTS];
	};
	struct hist behind; /* --conn-rate: how far first attempts were behind their time */
	struct hist storm;  /* cut to all back, by the receiver whose client came last */
};

struct load_pub_shared {
	_Alignas(64) _Atomic uint32_t next;   /* messages begun; stored before the message is sent */
	_Alignas(64) _Atomic uint32_t asleep; /* waits for a completion, wake_fd wants a write */
	int wake_fd;
	_Atomic uint32_t opened, sent; /* connected, or given up; all messages handed over, or given up */
	_Atomic uint64_t errors;       /* read at any time, for the series */
	uint64_t retries, nobody, throttled;
	uint64_t late_max_ns; /* behind the schedule, at worst */
	char why[160];
};

struct load_shared {
	_Atomic int phase;
	_Atomic uint64_t start_ns; /* when publishers begin */
	/* Storms: the parent sets back = 0, then the time, then the number (release); a receiver that reads a
	 * new number (acquire) cuts and reconnects its share and adds to back (relaxed: only the count
	 * matters). */
	_Atomic uint64_t storm_ns;
	_Atomic uint32_t storm_seq, storm_back;
	struct load_pub_shared pub[LOAD_PUBLISHERS];
	struct load_result res[LOAD_PROCS];
	/* How many of the steady clients have had message g: [publisher][g % LOAD_WINDOW]. */
	_Atomic uint32_t got[LOAD_PUBLISHERS][LOAD_WINDOW];
};

/* How many messages of a channel are among the first `next` of a publisher. */
static inline uint32_t load_in_channel(uint32_t next, uint32_t channel, uint32_t channels)
{
	return next > channel ? (next - channel - 1) / channels + 1 : 0;
}

/* How many of the steady clients sit in a channel. */
static inline uint32_t load_members(const struct load_opts *o, uint32_t channel)
{
	return o->conns / o->channels + (channel < o->conns % o->channels);
}

/* Clients that stay, each with a first handshake to wait for; and all of them. */
static inline uint32_t load_lasting(const struct load_opts *o)
{
	return o->conns + o->stall + o->pause + o->slow + o->storm;
}

static inline uint32_t load_total(const struct load_opts *o)
{
	return load_lasting(o) + o->churn;
}

extern const char load_usage[];

/* Fill in options from the command line; prints what is wrong and exits with 2. */
void load_opts_parse(struct load_opts *o, int argc, char **argv);

/* The life of one receiver or publisher process; they return its exit status. */
int load_receiver(const struct load_opts *o, struct load_shared *sh, uint32_t proc);
int load_publisher(const struct load_opts *o, struct load_shared *sh, uint32_t number);

/* Can the files be written that the options name? Says which not. */
bool load_report_ready(const struct load_opts *o);

/* What the parent measured, and the report on stdout and in files. Returns whether all is well. */
struct load_series;
struct load_measured {
	bool has_server, timed_out;
	double connect_s, publish_s; /* wall time of the two phases, draining included */
	uint64_t connect_cpu_ns, cpu_ns, user_ns, sys_ns, softirq_ns;
	uint64_t pss_before, pss_after;
	uint64_t redis_cpu_ns; /* while publishing */
	uint32_t server_processes;
	uint64_t published;
};
bool load_report(const struct load_opts *o, struct load_shared *sh, const struct load_measured *m,
		 const struct load_series *series);

#endif
