/* load_check.c - is this the message that had to come next, whole and in the right place? */
#include "bench/load_conn.h"

#include <endian.h>
#include <string.h>
#include <unistd.h>

#include "common/wsframe.h"

static enum load_end end_of_code(unsigned code)
{
	static const struct {
		unsigned code;
		enum load_end end;
	} map[] = {
		{1000, END_1000}, {1001, END_1001}, {1002, END_1002}, {1007, END_1007}, {1008, END_1008},
		{1009, END_1009}, {1011, END_1011}, {1012, END_1012}, {1013, END_1013},
	};

	for (size_t i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].code == code)
			return map[i].end;
	return END_OTHER;
}

/* A message is complete with all steady clients: the last of them takes the time and wakes the publisher. */
static void completed(struct receiver *r, struct load_pub_shared *p, uint64_t sent_ns)
{
	uint64_t one = 1;

	if (sent_ns)
		hist_add(&r->res->last, r->now_ns > sent_ns ? r->now_ns - sent_ns : 0);
	if (atomic_load(&p->asleep) && atomic_exchange(&p->asleep, 0))
		if (write(p->wake_fd, &one, sizeof(one)) == -1)
			receiver_why(r, "eventfd: %m");
}

static void credit(struct receiver *r, struct conn *c, uint32_t pub, uint32_t upto, uint64_t sent_ns)
{
	struct conn_pub *cp = &c->pub[pub];

	for (; cp->credit < upto; cp->credit++) {
		uint64_t g = (uint64_t)cp->credit * r->o->channels + c->channel;

		if (atomic_fetch_add(&r->sh->got[pub][g % LOAD_WINDOW], 1) + 1 == c->members)
			completed(r, &r->sh->pub[pub], cp->credit + 1 == upto ? sent_ns : 0);
	}
}

void check_credit(struct receiver *r, struct conn *c, uint32_t pub, uint32_t upto)
{
	if (c->role == ROLE_STEADY && r->o->source != SOURCE_NONE)
		credit(r, c, pub, upto, 0);
}

static bool may_miss(const struct receiver *r, const struct conn *c)
{
	return c->role == ROLE_STALL || (c->role == ROLE_SLOW && r->o->may_skip);
}

/* The first message of a publisher that this connection gets. Older than asked for is fine: the server let
 * us in before our 101 was read. With no publisher of ours, nobody knows what must come first. */
static void first(struct receiver *r, struct conn *c, struct conn_pub *cp, uint32_t seq)
{
	cp->started = true;
	track_start(&cp->track, seq);
	if (r->o->source == SOURCE_NONE || seq <= cp->from)
		return;
	if (may_miss(r, c))
		r->res->skipped += seq - cp->from;
	else
		r->res->lost += seq - cp->from;
	receiver_why(r, "connection %u: first message is %u, not %u", c->index, seq, cp->from);
}

static void odd(struct receiver *r, struct conn *c, enum track_verdict v, uint32_t seq, uint32_t lost)
{
	static const char *const name[] = {"", "gap", "late", "repeated"};
	struct load_result *res = r->res;

	if (may_miss(r, c) && v == TRACK_GAP) {
		res->skipped += lost;
		return;
	}
	if (v == TRACK_GAP)
		res->lost += lost;
	else if (v == TRACK_REPEAT)
		res->repeated++;
	else {
		res->late++;
		res->lost -= res->lost > 0;
	}
	receiver_why(r, "connection %u, publisher %u: %s at %u (%u missing)", c->index, c->body.publisher,
		     name[v], seq, lost);
}

/* A whole, good message. */
static void deliver(struct receiver *r, struct conn *c)
{
	const uint64_t sent = c->body.time_ns;
	const uint32_t seq = c->body.seq;
	struct conn_pub *cp = &c->pub[c->body.publisher];
	enum track_verdict v;
	uint32_t lost = 0;

	if (unlikely(!cp->started))
		first(r, c, cp, seq);
	v = track_see(&cp->track, seq, &lost);
	if (unlikely(v != TRACK_OK))
		odd(r, c, v, seq, lost);
	if (unlikely(c->role == ROLE_STALL)) {
		r->res->stalled_got++;
		return;
	}
	r->res->slow_got += c->role == ROLE_SLOW;
	if (c->role == ROLE_STEADY)
		hist_add(&r->res->latency, r->now_ns > sent ? r->now_ns - sent : 0);
	if (c->role == ROLE_STEADY && r->o->source != SOURCE_NONE)
		credit(r, c, c->body.publisher, seq + 1, sent);
}

/* Is a message with a sound head for us? */
static bool accept_head(struct receiver *r, struct conn *c)
{
	if (!r->run_known) {
		r->run = c->body.run;
		r->run_known = true;
	}
	if (c->body.run != r->run || c->body.publisher >= r->o->publishers) {
		r->res->foreign++;
		return false;
	}
	if (r->o->source != SOURCE_NONE && c->body.channel != c->channel) {
		r->res->misrouted++;
		receiver_why(r, "connection %u of channel %u got one of channel %u", c->index, c->channel,
			     c->body.channel);
		return false;
	}
	return true;
}

static bool is_ignored(const struct load_opts *o, const uint8_t *p, uint64_t len)
{
	for (uint32_t i = 0; i < o->ignore.n; i++) {
		const size_t n = strlen(o->ignore.text[i]);

		if (len >= n && memcmp(p, o->ignore.text[i], n) == 0)
			return true;
	}
	return false;
}

/* `n` bytes of what stands behind the payload's head: its fill, and the wrap's tail. */
static bool rest_ok(const struct receiver *r, struct conn *c, const uint8_t *p, uint64_t n)
{
	const uint64_t off = c->body_off;
	const uint64_t fill = off < c->body_fill ? u64_min(n, c->body_fill - off) : 0;

	c->body_off += n;
	if (!payload_fill_ok(c->body_seed, off, p, fill))
		return false;
	return n == fill || memcmp(p + fill, r->o->unwrap.tail + (off + fill - c->body_fill), n - fill) == 0;
}

/* A frame's payload up to where the fill begins. */
static enum conn_body head_check(struct receiver *r, struct conn *c, uint8_t fin_op, const uint8_t *p,
				 uint64_t len)
{
	const uint8_t want = 0x80 | (r->o->binary ? WS_BINARY : WS_TEXT);
	const struct load_wrap *w = &r->o->unwrap;
	const uint64_t around = w->head_len + w->tail_len;

	if (unlikely(r->o->ignore.n) && is_ignored(r->o, p, len))
		return BODY_IGNORED;
	if (fin_op != want || len < PAYLOAD_MIN + around ||
	    (w->head_len && memcmp(p, w->head, w->head_len) != 0) ||
	    !payload_get(p + w->head_len, len - around, r->o->binary, &c->body, &c->body_seed))
		return BODY_BAD;
	c->body_off = 0;
	c->body_fill = len - around - PAYLOAD_MIN;
	return accept_head(r, c) ? BODY_OURS : BODY_FOREIGN;
}

static bool data_frame(struct receiver *r, struct conn *c, uint8_t fin_op, const uint8_t *p, uint64_t len,
		       uint64_t have)
{
	const uint64_t head = r->o->unwrap.head_len + PAYLOAD_MIN;

	r->res->bytes += len;
	c->body_is = BODY_FOREIGN;
	if (r->o->no_check)
		return true;
	c->body_is = head_check(r, c, fin_op, p, len);
	if (c->body_is >= BODY_FOREIGN && c->body_is != BODY_IGNORED && !rest_ok(r, c, p + head, have - head))
		c->body_is = BODY_BAD;
	return true;
}

static bool control_frame(struct check_arg *a, uint8_t opcode, const uint8_t *p, uint64_t len)
{
	uint16_t code;

	if (opcode == WS_PING)
		(void)conn_control(a->c, WS_PONG, p, len); /* a full socket proves life as well */
	if (opcode != WS_CLOSE)
		return true;
	if (len >= 2)
		memcpy(&code, p, 2);
	a->end = len >= 2 ? end_of_code(be16toh(code)) : END_OTHER;
	a->c->closing = true;
	if (a->c->state == CONN_OPEN)
		(void)conn_control(a->c, WS_CLOSE, p, len);
	return false;
}

static bool op_frame(void *arg, uint8_t fin_op, const uint8_t *p, uint64_t len, uint64_t have)
{
	struct check_arg *a = arg;

	if (fin_op & 0x08)
		return control_frame(a, fin_op & 0x0f, p, len);
	return data_frame(a->r, a->c, fin_op, p, len, have);
}

static void op_more(void *arg, const uint8_t *p, uint64_t n)
{
	struct check_arg *a = arg;
	struct conn *c = a->c;

	if (a->r->o->no_check || c->body_is == BODY_BAD || c->body_is == BODY_IGNORED)
		return;
	if (!rest_ok(a->r, c, p, n))
		c->body_is = BODY_BAD;
}

static bool op_end(void *arg)
{
	struct check_arg *a = arg;
	struct receiver *r = a->r;

	if (a->c->body_is == BODY_IGNORED) {
		r->res->ignored++;
		return true;
	}
	if (a->c->role != ROLE_STALL) /* ours alone to write */
		atomic_store_explicit(&r->res->deliveries,
				      atomic_load_explicit(&r->res->deliveries, memory_order_relaxed) + 1,
				      memory_order_relaxed);
	if (unlikely(a->c->body_is == BODY_BAD)) {
		r->res->corrupt++;
		receiver_why(r, "connection %u: a message that is not as it was sent", a->c->index);
	} else if (likely(a->c->body_is == BODY_OURS)) {
		deliver(r, a->c);
	}
	return true;
}

const struct wsin_ops check_ops = {WSIN_HEAD, op_frame, op_more, op_end};

static uint32_t published(const struct receiver *r, const struct conn *c, uint32_t pub)
{
	return load_in_channel(atomic_load(&r->sh->pub[pub].next), c->channel, r->o->channels);
}

void check_open(struct receiver *r, struct conn *c)
{
	for (uint32_t p = 0; p < r->o->publishers; p++) {
		c->pub[p].started = false;
		c->pub[p].from = published(r, c, p);
		check_credit(r, c, p, c->pub[p].from);
	}
}

void check_aim(struct receiver *r, struct conn *c)
{
	for (uint32_t p = 0; p < r->o->publishers; p++)
		c->pub[p].target = published(r, c, p);
}

static uint64_t missing_before(const struct conn_pub *cp, uint32_t upto)
{
	uint32_t at = cp->started ? cp->track.next : cp->from;

	return at < upto ? upto - at : 0;
}

bool check_reached(const struct receiver *r, const struct conn *c)
{
	for (uint32_t p = 0; p < r->o->publishers; p++)
		if (missing_before(&c->pub[p], c->pub[p].target) > 0)
			return false;
	return true;
}

bool check_complete(const struct receiver *r, const struct conn *c, uint64_t *missing)
{
	*missing = 0;
	if (r->o->source == SOURCE_NONE || r->o->no_check)
		return true;
	for (uint32_t p = 0; p < r->o->publishers; p++)
		*missing += missing_before(&c->pub[p], published(r, c, p));
	return *missing == 0;
}
