/* ring.c - the ring without sockets, between processes: options and report (ring_bench.h has the parts).
 *
 * Producer on one CPU, consumers on the others, as far as there are any; with more processes than CPUs they
 * share them in turn, so that on two CPUs a second consumer runs where the producer does. Then a rate alone
 * says little: with p ns of CPU a record in the producer and c in a consumer, no ring can pass more than CPUs
 * / (p + n * c) records a second, and that limit stands beside it.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/ring_bench.h"
#include "shm/seg.h"

#define REPEATS_MAX 99u

static const size_t sizes[] = {128, 64, 1024, 4096, 16384, 65536};
static const unsigned consumers[] = {1, 2, 4};
#define N_COUNTS ARRAY_LEN(consumers)

struct options {
	bool is_json;
	double seconds;
	unsigned repeats, size; /* size: bytes of payload, 0 = all */
	uint64_t ring_bytes;
};

void ring_die(const char *what)
{
	fprintf(stderr, "bench-ring: %s: %s\n", what, strerror(errno));
	exit(1);
}

void ring_pin(unsigned n)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(n % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (sched_setaffinity(0, sizeof(set), &set) == -1)
		ring_die("sched_setaffinity");
}

void *ring_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		ring_die("mmap");
	return p;
}

void ring_begin(struct bench *b, uint64_t bytes, unsigned n)
{
	int fd = seg_create("bench-ring", SEG_PAGE + bytes);
	uint8_t *data =
		fd == -1 ? NULL : seg_map_twice(fd, SEG_PAGE, bytes, SEG_PAGE, PROT_READ | PROT_WRITE);

	if (data == NULL)
		ring_die("the ring's memory");
	close(fd);
	b->bytes = bytes;
	ring_init(&b->ring, (struct ring_hdr *)(data - SEG_PAGE), data, bytes, bytes);
	memset(data, 1,
	       bytes + 65536); /* no page faults while we measure; a record may begin in the last bytes */
	b->n = n;
	for (unsigned i = 0; i < n; i++) {
		if (slot_create(&b->slot[i], (uint16_t)i, 1, bytes, 1u << 20) == -1 ||
		    madvise(b->slot[i].sh, SEG_PAGE, MADV_DOFORK) == -1)
			ring_die("a slot");
	}
}

void ring_end(struct bench *b)
{
	int status;

	for (unsigned i = 0; i < b->n; i++) {
		if (waitpid(b->pid[i], &status, 0) == -1)
			ring_die("waitpid");
		if (status != 0) {
			fprintf(stderr, "bench-ring: a consumer ended with status %d\n", status);
			exit(1);
		}
		slot_close(&b->slot[i]);
	}
	seg_unmap_twice(b->ring.data, b->bytes, SEG_PAGE);
}

/* ---- medians */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Of n values the one with a share `q` of them below it. */
static double quantile(const double *v, unsigned n, double q)
{
	double sorted[REPEATS_MAX];
	unsigned i = (unsigned)(q * (n - 1) + 0.5);

	memcpy(sorted, v, n * sizeof(*v));
	qsort(sorted, n, sizeof(*v), compare);
	return sorted[i];
}

/* Of the repeats of one measurement. */
struct figures {
	struct flow median;
	double low, high; /* quartiles of per_s */
	double share;     /* median of per_s / that of one consumer in the same turn */
	double limit;     /* what these CPUs could pass at most at these costs, a second */
};

/* What so many CPUs could pass at most at these costs. */
static double limit(const struct flow *f, unsigned n)
{
	double cpus = (double)u64_min((uint64_t)sysconf(_SC_NPROCESSORS_ONLN), n + 1);
	double all = cpus / (f->ns_out + n * f->ns_in);

	/* One process can't use two CPUs. */
	all = all < 1 / f->ns_out ? all : 1 / f->ns_out;
	return 1e9 * (all < 1 / f->ns_in ? all : 1 / f->ns_in);
}

struct repeated {
	double per_s[REPEATS_MAX], ns_out[REPEATS_MAX], ns_in[REPEATS_MAX], share[REPEATS_MAX];
};

static struct figures sum_up(const struct repeated *r, unsigned n, unsigned n_consumers)
{
	struct figures f = {
		.median = {quantile(r->per_s, n, 0.5), quantile(r->ns_out, n, 0.5),
			   quantile(r->ns_in, n, 0.5)},
		.low = quantile(r->per_s, n, 0.25),
		.high = quantile(r->per_s, n, 0.75),
		.share = quantile(r->share, n, 0.5),
	};

	f.limit = limit(&f.median, n_consumers);
	return f;
}

/* One size with each number of consumers in turn, again and again: what drifts, drifts for all. */
static void measure(const struct options *o, size_t size, struct figures *f)
{
	static struct repeated r[N_COUNTS];

	for (unsigned i = 0; i < o->repeats; i++) {
		for (size_t c = 0; c < N_COUNTS; c++) {
			struct flow one = ring_flow(o->ring_bytes, consumers[c], size, o->seconds);

			r[c].per_s[i] = one.per_s;
			r[c].ns_out[i] = one.ns_out;
			r[c].ns_in[i] = one.ns_in;
			r[c].share[i] = one.per_s / r[0].per_s[i];
		}
	}
	for (size_t c = 0; c < N_COUNTS; c++)
		f[c] = sum_up(&r[c], o->repeats, consumers[c]);
}

/* ---- the report */

static void print_table(const struct options *o)
{
	struct wakes w = ring_wake();

	printf("%-36s%10s%10s\n", "one way, microseconds", "p50", "p99");
	printf("%-36s%10.1f%10.1f\n", "eventfd and epoll_wait alone", w.bare_p50 / 1e3, w.bare_p99 / 1e3);
	printf("%-36s%10.1f%10.1f\n", "commit to read by a woken worker", w.ring_p50 / 1e3, w.ring_p99 / 1e3);
	printf("%-36s%10.2f%10.2f\n\n", "ratio", (double)w.ring_p50 / w.bare_p50,
	       (double)w.ring_p99 / w.bare_p99);
	printf("%u CPUs, %u runs of %.1f s, medians [quartiles]. M/s: million records a second, to each "
	       "consumer; share: of\n"
	       "that to one. ns: CPU a record, waiting left out. limit: what these CPUs could pass at these "
	       "costs.\n\n",
	       (unsigned)sysconf(_SC_NPROCESSORS_ONLN), o->repeats, o->seconds);
	printf("%8s %10s %8s %15s %6s %12s %12s %10s\n", "payload", "consumers", "M/s", "", "share",
	       "producer ns", "consumer ns", "limit M/s");
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		struct figures f[N_COUNTS];

		if (o->size != 0 && o->size != sizes[s])
			continue;
		measure(o, sizes[s], f);
		for (size_t c = 0; c < N_COUNTS; c++)
			printf("%8zu %10u %8.2f [%6.2f-%6.2f] %6.2f %12.1f %12.1f %10.2f\n", sizes[s],
			       consumers[c], f[c].median.per_s / 1e6, f[c].low / 1e6, f[c].high / 1e6,
			       f[c].share, f[c].median.ns_out, f[c].median.ns_in, f[c].limit / 1e6);
		fflush(stdout);
	}
}

static void print_json(const struct options *o)
{
	struct wakes w = ring_wake();

	printf("{\"pingpong_p50_ns\":%u,\"pingpong_p99_ns\":%u,\"wake_p50_ns\":%u,\"wake_p99_ns\":%u",
	       w.bare_p50, w.bare_p99, w.ring_p50, w.ring_p99);
	for (size_t s = 0, shown = 0; s < ARRAY_LEN(sizes); s++) {
		struct figures f[N_COUNTS];

		if (o->size != 0 && o->size != sizes[s])
			continue;
		measure(o, sizes[s], f);
		if (sizes[s] == 128 &&
		    shown == 0) /* short names for the size of the budgets; before the rest */
			printf(",\"records_per_s\":%.0f,\"records_per_s_2\":%.0f,\"share_2\":%.3f",
			       f[0].median.per_s, f[1].median.per_s, f[1].share);
		printf("%s\"%zu\":{", shown++ == 0 ? ",\"payload\":{" : ",", sizes[s]);
		for (size_t c = 0; c < N_COUNTS; c++)
			printf("%s\"%u\":{\"per_s\":%.0f,\"per_s_low\":%.0f,\"per_s_high\":%.0f,\"share\":%."
			       "3f,"
			       "\"producer_ns\":%.2f,\"consumer_ns\":%.2f,\"limit_per_s\":%.0f}",
			       c == 0 ? "" : ",", consumers[c], f[c].median.per_s, f[c].low, f[c].high,
			       f[c].share, f[c].median.ns_out, f[c].median.ns_in, f[c].limit);
		printf("}");
	}
	printf("}}\n");
}

static _Noreturn void usage(void)
{
	fprintf(stderr,
		"usage: bench-ring [--json] [--seconds N] [--repeats 1-%u] [--ring MB] [--size BYTES]\n"
		"  --size  one of 64, 128, 1024, 4096, 16384, 65536; all of them unless given\n",
		REPEATS_MAX);
	exit(2);
}

static double number(const char *text, double least, double most)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end != '\0' || !(v >= least && v <= most))
		usage();
	return v;
}

static void read_option(struct options *o, int opt, const char *value)
{
	switch (opt) {
	case 'j':
		o->is_json = true;
		break;
	case 's':
		o->seconds = number(value, 0.01, 60);
		break;
	case 'r':
		o->repeats = (unsigned)number(value, 1, REPEATS_MAX);
		break;
	case 'm':
		o->ring_bytes = UINT64_C(1) << 20;
		while (o->ring_bytes < number(value, 1, 4096) * (1 << 20))
			o->ring_bytes *= 2;
		break;
	case 'b':
		o->size = (unsigned)number(value, 1, 65536);
		for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
			if (sizes[s] == o->size)
				return;
		usage();
	default:
		usage();
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},          {"seconds", required_argument, NULL, 's'},
		{"repeats", required_argument, NULL, 'r'}, {"ring", required_argument, NULL, 'm'},
		{"size", required_argument, NULL, 'b'},    {0},
	};
	struct options o = {.seconds = 0.5, .repeats = 3, .ring_bytes = UINT64_C(64) << 20};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		read_option(&o, opt, optarg);
	if (optind != argc)
		usage();
	if (o.is_json)
		print_json(&o);
	else
		print_table(&o);
	return 0;
}
