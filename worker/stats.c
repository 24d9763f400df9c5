/* stats.c - GET /stats and /ready: sums over all counter blocks, and what the master says in the globals. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/admin.h"
#include "worker/stats.h"

uint64_t stats_sum(const struct worker *w, size_t offset)
{
	uint64_t n = count_get(
		(const counter *)(w->all_counters + (size_t)COUNTERS_MASTER_BLOCK * COUNTERS_BLOCK + offset));

	for (unsigned i = 0; i < globals_slots(w->globals); i++)
		n += count_get((const counter *)(w->all_counters + (size_t)i * COUNTERS_BLOCK + offset));
	return n;
}

uint32_t stats_u32(const _Atomic uint32_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

uint64_t stats_u64(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

unsigned stats_namespaces(const struct worker *w)
{
	/* pairs with the master's release store behind the names */
	return atomic_load_explicit(&w->globals->n_namespaces, memory_order_acquire);
}

uint64_t stats_lag(const struct worker *w, unsigned slot)
{
	uint64_t head = ring_head(&w->ring), gate = stats_u64(&w->globals->worker[slot].gate);

	return head > gate && gate != 0 ? head - gate : 0;
}

/* Proportional set size of one process, in bytes; 0 if it cannot be read. */
static uint64_t pss_of(uint32_t pid)
{
	char path[64], text[2048];
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/smaps_rollup", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	at = strstr(text, "\nPss:");
	return at == NULL ? 0 : strtoull(at + 5, NULL, 10) * 1024;
}

static uint64_t pss_of_all(const struct worker *w)
{
	uint64_t n = pss_of(w->globals->master_pid);

	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		if (stats_u32(&w->globals->worker[i].state) != WORKER_EMPTY)
			n += pss_of(stats_u32(&w->globals->worker[i].pid));
	}
	return n;
}

const char *stats_redis_state(const struct worker *w)
{
	static const char *const names[] = {"down", "subscriber_only", "publisher_only", "up"};

	if (stats_u32(&w->globals->is_redis) == 0)
		return "off";
	return names[stats_u32(&w->globals->redis_state) & 3u];
}

/* ---------------------------------------------------------------- /ready */

static unsigned serving(const struct worker *w)
{
	uint32_t generation = stats_u32(&w->globals->generation);
	unsigned n = 0;

	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		const struct globals_worker *g = &w->globals->worker[i];

		n += stats_u32(&g->state) == WORKER_SERVE && stats_u32(&g->generation) == generation;
	}
	return n;
}

static unsigned find_reasons(const struct worker *w, const char *reasons[3])
{
	unsigned n = 0;

	if (stats_u32(&w->globals->is_stopping) != 0)
		reasons[n++] = "stopping";
	if (serving(w) < stats_u32(&w->globals->workers))
		reasons[n++] = "workers_starting";
	if (stats_u32(&w->globals->is_subscribed) == 0)
		reasons[n++] = "redis_not_subscribed";
	return n;
}

int stats_ready(struct worker *w, struct buf *out, bool *is_ready)
{
	const char *reasons[3];
	unsigned n = find_reasons(w, reasons);

	*is_ready = n == 0;
	if (buf_printf(out, "{\"status\":\"%s\",\"reasons\":[", n == 0 ? "ok" : "not_ready") == -1)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		if (buf_printf(out, "%s\"%s\"", i == 0 ? "" : ",", reasons[i]) == -1)
			return -1;
	}
	return buf_puts(out, "]}");
}

/* ---------------------------------------------------------------- /stats */

/* {"name":n,...} of those that are not 0. `base`: offset of the first counter in a block. */
static int put_named(struct worker *w, struct buf *out, const char *key, const char *const *names, size_t n,
		     size_t base)
{
	bool is_first = true;

	if (buf_printf(out, "\"%s\":{", key) == -1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		uint64_t v = stats_sum(w, base + i * sizeof(counter));

		if (v == 0)
			continue;
		if (buf_printf(out, "%s\"%s\":%" PRIu64, is_first ? "" : ",", names[i], v) == -1)
			return -1;
		is_first = false;
	}
	return buf_puts(out, "}");
}

/* A per-namespace counter, summed over namespaces too. */
static uint64_t sum_ns(const struct worker *w, size_t offset_in_ns)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < stats_namespaces(w); i++)
		n += stats_sum(w, stats_ns_offset(i) + offset_in_ns);
	return n;
}

static uint64_t publications(const struct worker *w, size_t ns_offset)
{
	return stats_sum(w, ns_offset + offsetof(struct counters_ns, pub_client)) +
	       stats_sum(w, ns_offset + offsetof(struct counters_ns, pub_api)) +
	       stats_sum(w, ns_offset + offsetof(struct counters_ns, pub_redis));
}

static int put_head(struct worker *w, struct buf *out)
{
	const struct globals *g = w->globals;
	const char *reasons[3];

	return buf_printf(out,
			  "{\"version\":\"" RC_VERSION "\",\"node\":\"%016" PRIx64 "\",\"pid\":%" PRIu32
			  ",\"uptime_s\":%" PRIu64 ",\"generation\":%" PRIu32
			  ",\"ready\":%s,\"mode\":\"%s\",",
			  g->origin, g->master_pid, (clock_mono_ms() - g->start_ms) / 1000,
			  stats_u32(&g->generation), find_reasons(w, reasons) == 0 ? "true" : "false",
			  stats_u32(&g->is_redis) != 0 ? "redis" : "local");
}

static int put_redis(struct worker *w, struct buf *out)
{
	const struct globals *g = w->globals;
	char address[GLOBALS_ADDRESS_MAX];

	return buf_printf(
		out,
		"\"redis\":{\"state\":\"%s\",\"address\":\"%s\",\"channels\":%" PRIu32 ",\"rtt_us\":%" PRIu64
		",\"reconnects\":%" PRIu64 ",\"pending_messages\":%" PRIu64 ",\"pending_bytes\":%" PRIu64
		",\"gaps\":%" PRIu64 ",\"given_up\":%" PRIu64 ",\"duplicates\":%" PRIu64 "},",
		stats_redis_state(w), globals_address(g, address), stats_u32(&g->redis_channels),
		stats_u64(&g->redis_rtt_us), STATS_SUM(w, redis_reconnects),
		stats_u64(&g->redis_pending_messages), stats_u64(&g->redis_pending_bytes),
		STATS_SUM(w, redis_gaps), STATS_SUM(w, redis_given_up), STATS_SUM(w, redis_duplicates));
}

static int put_ring(struct worker *w, struct buf *out)
{
	uint64_t lag = 0;

	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		if (stats_u32(&w->globals->worker[i].state) != WORKER_EMPTY)
			lag = u64_max(lag, stats_lag(w, i));
	}
	return buf_printf(out,
			  "\"ring\":{\"size_bytes\":%" PRIu64 ",\"head_bytes\":%" PRIu64
			  ",\"lag_bytes\":%" PRIu64 ",\"records\":%" PRIu64 ",\"full\":%" PRIu64
			  ",\"stuck_kills\":%" PRIu64 "},",
			  w->ring.size, ring_head(&w->ring), lag, STATS_SUM(w, ring_records),
			  STATS_SUM(w, ring_full), STATS_SUM(w, stuck_kills));
}

/* `dropped` over all namespaces. */
static int put_dropped_total(struct worker *w, struct buf *out)
{
	bool is_first = true;

	if (buf_puts(out, "\"dropped\":{") == -1)
		return -1;
	for (size_t i = 0; i < COUNT_DROPPED_N; i++) {
		uint64_t v = sum_ns(w, offsetof(struct counters_ns, dropped) + i * sizeof(counter));

		if (v == 0)
			continue;
		if (buf_printf(out, "%s\"%s\":%" PRIu64, is_first ? "" : ",", count_dropped_names[i], v) ==
		    -1)
			return -1;
		is_first = false;
	}
	return buf_puts(out, "}");
}

static int put_totals(struct worker *w, struct buf *out)
{
	uint64_t pubs = 0;

	for (unsigned i = 0; i < stats_namespaces(w); i++)
		pubs += publications(w, stats_ns_offset(i));
	if (buf_printf(out,
		       "\"totals\":{\"connections\":%" PRIu64 ",\"users\":%" PRIu64 ",\"opened\":%" PRIu64
		       ",",
		       STATS_SUM(w, connections), sum_ns(w, offsetof(struct counters_ns, users)),
		       sum_ns(w, offsetof(struct counters_ns, opened))) == -1 ||
	    put_named(w, out, "closed", count_closed_names, COUNT_CLOSED_N,
		      offsetof(struct counters, closed)) == -1 ||
	    buf_puts(out, ",") == -1 ||
	    put_named(w, out, "refused", count_refused_names, COUNT_REFUSED_N,
		      offsetof(struct counters, refused)) == -1 ||
	    buf_printf(out,
		       ",\"publications\":%" PRIu64 ",\"deliveries\":%" PRIu64 ",\"bytes_out\":%" PRIu64
		       ",\"uplink_full\":%" PRIu64 ",\"subscribe_timeouts\":%" PRIu64
		       ",\"slow_copies\":%" PRIu64 ",\"catchup_reads\":%" PRIu64
		       ",\"client_messages\":%" PRIu64 ",\"bad_frames\":%" PRIu64 ",\"rate_limited\":%" PRIu64
		       ",\"evicted\":%" PRIu64 ",\"targets_skipped\":%" PRIu64 ",\"counts_partial\":%" PRIu64
		       ",",
		       pubs, sum_ns(w, offsetof(struct counters_ns, deliveries)),
		       sum_ns(w, offsetof(struct counters_ns, bytes_out)), STATS_SUM(w, uplink_full),
		       STATS_SUM(w, subscribe_timeouts), STATS_SUM(w, slow_copies),
		       STATS_SUM(w, catchup_reads), sum_ns(w, offsetof(struct counters_ns, client_messages)),
		       sum_ns(w, offsetof(struct counters_ns, bad_frames)),
		       sum_ns(w, offsetof(struct counters_ns, rate_limited)), STATS_SUM(w, evicted),
		       STATS_SUM(w, targets_skipped), STATS_SUM(w, counts_partial)) == -1 ||
	    put_dropped_total(w, out) == -1)
		return -1;
	return buf_puts(out, "},");
}

static int put_workers(struct worker *w, struct buf *out)
{
	static const char *const states[] = {"empty", "boot", "serve", "drain"};
	bool is_first = true;

	if (buf_puts(out, "\"workers\":[") == -1)
		return -1;
	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		const struct globals_worker *g = &w->globals->worker[i];
		const struct counters *c = counters_block(w->all_counters, i);
		uint32_t state = stats_u32(&g->state);

		if (state == WORKER_EMPTY)
			continue;
		if (buf_printf(out,
			       "%s{\"slot\":%u,\"pid\":%" PRIu32 ",\"generation\":%" PRIu32
			       ",\"state\":\"%s\",\"connections\":%" PRIu64 ",\"lag_bytes\":%" PRIu64
			       ",\"restarts\":%" PRIu32 ",\"wakes\":%" PRIu64 ",\"records\":%" PRIu64 "}",
			       is_first ? "" : ",", i, stats_u32(&g->pid), stats_u32(&g->generation),
			       states[state & 3u], count_get(&c->connections), stats_lag(w, i),
			       stats_u32(&g->restarts), count_get(&c->wakes), count_get(&c->records)) == -1)
			return -1;
		is_first = false;
	}
	return buf_puts(out, "],");
}

static int put_namespaces(struct worker *w, struct buf *out)
{
	if (buf_puts(out, "\"namespaces\":{") == -1)
		return -1;
	for (unsigned i = 0; i < stats_namespaces(w); i++) {
		size_t at = stats_ns_offset(i);

		if (buf_printf(out,
			       "%s\"%s\":{\"connections\":%" PRIu64 ",\"users\":%" PRIu64
			       ",\"channels\":%" PRIu64 ",\"publications\":%" PRIu64
			       ",\"deliveries\":%" PRIu64 ",\"bytes_out\":%" PRIu64
			       ",\"client_messages\":%" PRIu64 ",\"bad_frames\":%" PRIu64
			       ",\"rate_limited\":%" PRIu64 ",",
			       i == 0 ? "" : ",", w->globals->namespaces[i],
			       stats_sum(w, at + offsetof(struct counters_ns, connections)),
			       stats_sum(w, at + offsetof(struct counters_ns, users)),
			       stats_sum(w, at + offsetof(struct counters_ns, channels)), publications(w, at),
			       stats_sum(w, at + offsetof(struct counters_ns, deliveries)),
			       stats_sum(w, at + offsetof(struct counters_ns, bytes_out)),
			       stats_sum(w, at + offsetof(struct counters_ns, client_messages)),
			       stats_sum(w, at + offsetof(struct counters_ns, bad_frames)),
			       stats_sum(w, at + offsetof(struct counters_ns, rate_limited))) == -1 ||
		    put_named(w, out, "dropped", count_dropped_names, COUNT_DROPPED_N,
			      at + offsetof(struct counters_ns, dropped)) == -1 ||
		    buf_puts(out, "}") == -1)
			return -1;
	}
	return buf_puts(out, "},");
}

/* All replicas, as they last said. */
static int put_cluster(struct worker *w, struct buf *out)
{
	const struct globals *g = w->globals;

	if (buf_printf(out, "\"cluster\":{\"nodes\":%" PRIu32 ",\"connections\":%" PRIu64 ",\"users\":{",
		       stats_u32(&g->cluster_nodes), stats_u64(&g->cluster_connections)) == -1)
		return -1;
	for (unsigned i = 0; i < stats_namespaces(w); i++) {
		if (buf_printf(out, "%s\"%s\":%" PRIu64, i == 0 ? "" : ",", g->namespaces[i],
			       stats_u64(&g->cluster_users[i])) == -1)
			return -1;
	}
	return buf_puts(out, "}},");
}

static int put_hooks(struct worker *w, struct buf *out)
{
	return buf_printf(out,
			  "\"hooks\":{\"requests\":%" PRIu64 ",\"failures\":%" PRIu64 ",\"cached\":%" PRIu64
			  ",\"open\":%" PRIu64 "},",
			  STATS_SUM(w, hook_requests), STATS_SUM(w, hook_failures), STATS_SUM(w, hook_cached),
			  STATS_SUM(w, hook_open));
}

int stats_json(struct worker *w, struct buf *out)
{
	if (put_head(w, out) == -1 || put_redis(w, out) == -1 || put_ring(w, out) == -1 ||
	    put_totals(w, out) == -1 || put_workers(w, out) == -1 || put_namespaces(w, out) == -1 ||
	    put_cluster(w, out) == -1 || put_hooks(w, out) == -1)
		return -1;
	return buf_printf(out,
			  "\"memory\":{\"pss_bytes\":%" PRIu64 ",\"jemalloc_allocated_bytes\":%" PRIu64 "}}",
			  pss_of_all(w), STATS_SUM(w, jemalloc_allocated));
}
