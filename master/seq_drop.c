/* seq_drop.c - what the master drops: counted always, logged now and then. */
#include "master/sequencer.h"

#include "common/clock.h"
#include "common/log.h"

/* Is a line due? They may come in masses. */
static bool is_line_due(struct sequencer *s, const struct cfg_namespace *ns, unsigned line)
{
	uint64_t now = clock_mono_ms(), *last = &s->drop_logged_ms[ns->id][line];

	if (*last != 0 && now - *last < SEQ_DROP_LOG_MS)
		return false;
	*last = now;
	return true;
}

void seq_count_drop(struct sequencer *s, const struct cfg_namespace *ns, enum count_dropped why)
{
	static const char *const text[COUNT_DROPPED_N] = {
		[COUNT_DROPPED_no_route] = "a message names no room of this namespace",
		[COUNT_DROPPED_no_target] = "a message is for targets that leave nobody",
		[COUNT_DROPPED_untargeted] = "a message names no targets in a targeted_only namespace",
		[COUNT_DROPPED_bad_json] = "a message is no valid JSON",
		[COUNT_DROPPED_not_object] = "a message is JSON, but no object",
		[COUNT_DROPPED_bad_utf8] = "a message is no UTF-8",
		[COUNT_DROPPED_too_large] = "a message is larger than allowed",
		[COUNT_DROPPED_rate] = "a client's messages come faster than its rule allows",
		[COUNT_DROPPED_shed] = "a message was dropped under load",
		[COUNT_DROPPED_slow_skip] = "a slow client was passed over",
	};
	/* A throttle at work is what its rule asks for. */
	enum log_level level = why == COUNT_DROPPED_rate ? LOG_DEBUG : LOG_WARN;
	counter *n = &s->count->ns[ns->id].dropped[why];

	count_add(n, 1);
	if (log_on(level) && is_line_due(s, ns, why))
		log_event(level, "dropped", "ns=%s reason=%s total=%llu msg=\"%s\"", ns->name,
			  count_dropped_names[why], (unsigned long long)count_get(n), text[why]);
}

void seq_count_skipped(struct sequencer *s, const struct cfg_namespace *ns, uint32_t n)
{
	if (n == 0)
		return;
	count_add(&s->count->targets_skipped, n);
	if (is_line_due(s, ns, COUNT_DROPPED_N))
		log_event(LOG_WARN, "targets_skipped",
			  "ns=%s total=%llu msg=\"elements of target lists that are no ids\"", ns->name,
			  (unsigned long long)count_get(&s->count->targets_skipped));
}
