/* metrics.c - GET /metrics: the Prometheus text format, version 0.0.4. docs/operations.md lists every series.
 */
#include <inttypes.h>

#include "worker/admin.h"
#include "worker/stats.h"

static int head(struct buf *out, const char *name, const char *type, const char *help)
{
	return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static int plain(struct buf *out, const char *name, const char *type, const char *help, uint64_t v)
{
	return head(out, name, type, help) == -1 ? -1 : buf_printf(out, "%s %" PRIu64 "\n", name, v);
}

static bool is_used(const struct worker *w, unsigned slot)
{
	return stats_u32(&w->globals->worker[slot].state) != WORKER_EMPTY ||
	       count_get(&counters_block(w->all_counters, slot)->accepted) != 0;
}

/* One series for each worker and namespace, of the per-namespace counter at `offset`. */
static int by_worker_ns(struct worker *w, struct buf *out, const char *name, const char *type,
			const char *help, size_t offset)
{
	if (head(out, name, type, help) == -1)
		return -1;
	for (unsigned slot = 0; slot < globals_slots(w->globals); slot++) {
		const uint8_t *block = w->all_counters + (size_t)slot * COUNTERS_BLOCK;

		for (unsigned ns = 0; is_used(w, slot) && ns < stats_namespaces(w); ns++) {
			uint64_t v = count_get((const counter *)(block + stats_ns_offset(ns) + offset));

			if (buf_printf(out, "%s{worker=\"%u\",namespace=\"%s\"} %" PRIu64 "\n", name, slot,
				       w->globals->namespaces[ns], v) == -1)
				return -1;
		}
	}
	return 0;
}

static int by_name(struct worker *w, struct buf *out, const char *metric, const char *label, const char *help,
		   const char *const *names, size_t n, size_t base)
{
	if (head(out, metric, "counter", help) == -1)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (buf_printf(out, "%s{%s=\"%s\"} %" PRIu64 "\n", metric, label, names[i],
			       stats_sum(w, base + i * sizeof(counter))) == -1)
			return -1;
	}
	return 0;
}

static int connections(struct worker *w, struct buf *out)
{
	uint64_t opened = 0;

	for (unsigned i = 0; i < stats_namespaces(w); i++)
		opened += stats_sum(w, stats_ns_offset(i) + offsetof(struct counters_ns, opened));
	if (by_worker_ns(w, out, "ringcast_connections", "gauge", "Established WebSocket connections.",
			 offsetof(struct counters_ns, connections)) == -1 ||
	    plain(out, "ringcast_connections_opened_total", "counter", "Handshakes completed.", opened) ==
		    -1 ||
	    plain(out, "ringcast_accepted_total", "counter", "TCP connections accepted.",
		  STATS_SUM(w, accepted)) == -1 ||
	    by_name(w, out, "ringcast_connections_closed_total", "code", "Connections closed, by close code.",
		    count_closed_names, COUNT_CLOSED_N, offsetof(struct counters, closed)) == -1)
		return -1;
	return by_name(w, out, "ringcast_handshakes_refused_total", "reason",
		       "Handshakes refused, by reason.", count_refused_names, COUNT_REFUSED_N,
		       offsetof(struct counters, refused));
}

static int publications(struct worker *w, struct buf *out)
{
	static const struct {
		const char *source;
		size_t offset;
	} sources[] = {
		{"client", offsetof(struct counters_ns, pub_client)},
		{"api", offsetof(struct counters_ns, pub_api)},
		{"redis", offsetof(struct counters_ns, pub_redis)},
	};

	if (head(out, "ringcast_publications_total", "counter",
		 "Publications taken, by where they came from.") == -1)
		return -1;
	for (unsigned ns = 0; ns < stats_namespaces(w); ns++) {
		for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
			if (buf_printf(out,
				       "ringcast_publications_total{namespace=\"%s\",source=\"%s\"} %" PRIu64
				       "\n",
				       w->globals->namespaces[ns], sources[i].source,
				       stats_sum(w, stats_ns_offset(ns) + sources[i].offset)) == -1)
				return -1;
		}
	}
	return 0;
}

static int by_namespace(struct worker *w, struct buf *out, const char *metric, const char *type,
			const char *help, size_t offset)
{
	if (head(out, metric, type, help) == -1)
		return -1;
	for (unsigned ns = 0; ns < stats_namespaces(w); ns++) {
		if (buf_printf(out, "%s{namespace=\"%s\"} %" PRIu64 "\n", metric, w->globals->namespaces[ns],
			       stats_sum(w, stats_ns_offset(ns) + offset)) == -1)
			return -1;
	}
	return 0;
}

static int dropped(struct worker *w, struct buf *out)
{
	if (head(out, "ringcast_dropped_total", "counter",
		 "Publications, or frames of slow clients, dropped.") == -1)
		return -1;
	for (unsigned ns = 0; ns < stats_namespaces(w); ns++) {
		for (size_t i = 0; i < COUNT_DROPPED_N; i++) {
			size_t at = stats_ns_offset(ns) + offsetof(struct counters_ns, dropped) +
				    i * sizeof(counter);

			if (buf_printf(out,
				       "ringcast_dropped_total{namespace=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
				       w->globals->namespaces[ns], count_dropped_names[i],
				       stats_sum(w, at)) == -1)
				return -1;
		}
	}
	return 0;
}

static int deliveries(struct worker *w, struct buf *out)
{
	if (by_worker_ns(w, out, "ringcast_deliveries_total", "counter",
			 "Frames handed to the kernel for a client.",
			 offsetof(struct counters_ns, deliveries)) == -1)
		return -1;
	return by_namespace(w, out, "ringcast_delivered_bytes_total", "counter", "Bytes of those frames.",
			    offsetof(struct counters_ns, bytes_out));
}

static int latency(struct worker *w, struct buf *out)
{
	static const uint64_t bounds[] = COUNTERS_LATENCY_BOUNDS;
	const char *name = "ringcast_delivery_latency_seconds";
	uint64_t sum = 0;

	if (head(out, name, "histogram", "From the master taking a message to the send for a client.") == -1)
		return -1;
	for (size_t i = 0; i < COUNT_LATENCY_N; i++) {
		sum += stats_sum(w, offsetof(struct counters, latency) + i * sizeof(counter));
		if (i < ARRAY_LEN(bounds)) {
			if (buf_printf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name,
				       (double)bounds[i] / 1e6, sum) == -1)
				return -1;
		} else if (buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum) == -1) {
			return -1;
		}
	}
	return buf_printf(out, "%s_sum %.6f\n%s_count %" PRIu64 "\n", name,
			  (double)STATS_SUM(w, latency_sum_us) / 1e6, name, sum);
}

static int workers(struct worker *w, struct buf *out)
{
	if (head(out, "ringcast_ring_lag_bytes", "gauge",
		 "Bytes of the ring that the worker has before it.") == -1)
		return -1;
	for (unsigned i = 0; i < globals_slots(w->globals); i++) {
		if (stats_u32(&w->globals->worker[i].state) != WORKER_EMPTY &&
		    buf_printf(out, "ringcast_ring_lag_bytes{worker=\"%u\"} %" PRIu64 "\n", i,
			       stats_lag(w, i)) == -1)
			return -1;
	}
	if (head(out, "ringcast_worker_restarts_total", "counter", "Workers replaced, by reason.") == -1 ||
	    buf_printf(out,
		       "ringcast_worker_restarts_total{reason=\"crash\"} %" PRIu64
		       "\nringcast_worker_restarts_total{reason=\"stuck\"} %" PRIu64
		       "\nringcast_worker_restarts_total{reason=\"exit\"} %" PRIu64 "\n",
		       STATS_SUM(w, restarts_crash), STATS_SUM(w, restarts_stuck),
		       STATS_SUM(w, restarts_exit)) == -1)
		return -1;
	return 0;
}

static int redis(struct worker *w, struct buf *out)
{
	const struct globals *g = w->globals;

	if (plain(out, "ringcast_redis_up", "gauge", "1 while both Redis links are up and subscribed.",
		  stats_u32(&g->redis_up)) == -1 ||
	    plain(out, "ringcast_redis_reconnects_total", "counter", "Redis links re-established.",
		  STATS_SUM(w, redis_reconnects)) == -1 ||
	    plain(out, "ringcast_redis_gaps_total", "counter",
		  "Losses of the subscriber link while it was up.", STATS_SUM(w, redis_gaps)) == -1 ||
	    plain(out, "ringcast_redis_pending_bytes", "gauge",
		  "Own publications not yet acknowledged by Redis.",
		  stats_u64(&g->redis_pending_bytes)) == -1)
		return -1;
	return plain(out, "ringcast_redis_rtt_microseconds", "gauge", "Round trip of the last PING.",
		     stats_u64(&g->redis_rtt_us));
}

/* The plain counters of the lists in counters.h. */
static int internals(struct worker *w, struct buf *out)
{
#define X(f, help)                                                                                           \
	if (plain(out, "ringcast_" #f "_total", "counter", help ".", STATS_SUM(w, f)) == -1)                 \
		return -1;
	X(wakes, "Times a worker was woken by its eventfd")
	X(batches, "Batches of records handled")
	X(sends, "Send calls of the fan-out")
	X(catchup_reads, "Records visited for clients that were behind")
	X(slow_copies, "Half-sent frames copied out of the ring")
	X(uplink_full, "Times a publisher was paused because the uplink was full")
	X(subscribe_timeouts, "Memberships begun without confirmation by Redis")
	X(hook_requests, "Requests to authorization hooks")
	X(hook_failures, "Requests to hooks not answered as they should be")
	X(hook_cached, "Connections decided without asking the hook")
	X(hook_open, "Connections refused at once because the breaker of a hook was open")
	X(forwards_dropped, "Messages of clients for a hook that were dropped, or that it did not answer")
	X(evicted, "Connections closed by disconnect, recheck or expiry")
	X(counts_partial, "Publish answers that not all workers and replicas had a part in in time")
	X(controls, "Orders handed to the workers")
	X(controls_bad, "Messages on the control channel that are no order")
	X(controls_lost, "Orders that did not reach the workers: too much waited for a full ring")
	X(presence_refused, "Commands about who is online that Redis answered with an error")
	X(ring_records, "Records committed to the ring")
	X(ring_full, "Times a publication waited for the ring")
	X(wakeups, "Eventfd writes to workers")
	X(stuck_kills, "Workers killed because they stood still or held the ring")
	X(redis_given_up, "Publications that did not fit the pending list")
	X(redis_duplicates, "Publications dropped because their id was seen before")
	X(targets_skipped, "Elements of target lists that are no ids")
	X(retained_evicted, "Retained messages forgotten because too many bytes were kept")
	X(offline_queued, "Messages kept for users who were away")
	X(offline_lost, "Messages for users who were away that were lost")
#undef X
	return plain(out, "ringcast_jemalloc_allocated_bytes", "gauge", "Bytes allocated, all processes.",
		     STATS_SUM(w, jemalloc_allocated));
}

static int cluster(struct worker *w, struct buf *out)
{
	const struct globals *g = w->globals;

	if (plain(out, "ringcast_cluster_nodes", "gauge", "Live replicas, this one included.",
		  stats_u32(&g->cluster_nodes)) == -1 ||
	    plain(out, "ringcast_cluster_connections", "gauge", "Established connections of all replicas.",
		  stats_u64(&g->cluster_connections)) == -1 ||
	    head(out, "ringcast_cluster_users", "gauge", "Distinct users of all replicas.") == -1)
		return -1;
	for (unsigned ns = 0; ns < stats_namespaces(w); ns++) {
		if (buf_printf(out, "ringcast_cluster_users{namespace=\"%s\"} %" PRIu64 "\n",
			       g->namespaces[ns], stats_u64(&g->cluster_users[ns])) == -1)
			return -1;
	}
	return 0;
}

int metrics_text(struct worker *w, struct buf *out)
{
	if (head(out, "ringcast_build_info", "gauge", "Version of this server.") == -1 ||
	    buf_puts(out, "ringcast_build_info{version=\"" RC_VERSION "\"} 1\n") == -1 ||
	    connections(w, out) == -1 ||
	    by_namespace(w, out, "ringcast_users", "gauge", "Distinct users connected to this host.",
			 offsetof(struct counters_ns, users)) == -1 ||
	    by_namespace(w, out, "ringcast_client_messages_total", "counter", "Messages that clients sent.",
			 offsetof(struct counters_ns, client_messages)) == -1 ||
	    by_namespace(w, out, "ringcast_bad_frames_total", "counter",
			 "Client messages that are no JSON object where one is expected.",
			 offsetof(struct counters_ns, bad_frames)) == -1 ||
	    by_namespace(w, out, "ringcast_rate_limited_total", "counter",
			 "Client messages held back or dropped by a rate limit.",
			 offsetof(struct counters_ns, rate_limited)) == -1 ||
	    cluster(w, out) == -1)
		return -1;
	if (by_namespace(w, out, "ringcast_channels", "gauge", "Channels with a member, summed over workers.",
			 offsetof(struct counters_ns, channels)) == -1 ||
	    publications(w, out) == -1 || deliveries(w, out) == -1 || dropped(w, out) == -1 ||
	    workers(w, out) == -1 || redis(w, out) == -1 || latency(w, out) == -1)
		return -1;
	return internals(w, out);
}
