#include "tests/unit/worker_rig.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"
#include "shm/seg.h"
#include "worker/user_int.h"

#define HASH_KEY 0x1234u
#define NS_ID(i) ((uint16_t)((i) + 3))

static char any_origin[] = "*";
static char *origins[] = {any_origin};

static void name_space(struct cfg_namespace *n, unsigned i, const char *name, const char *prefix,
		       enum cfg_room room)
{
	*n = (struct cfg_namespace){
		.name = strdup(name),
		.id = NS_ID(i),
		.path = strdup(prefix),
		.path_prefix = strdup(prefix),
		.path_suffix = strdup(""),
		.room = room,
		.redis_prefix = strdup(name),
		.redis_suffix = strdup(""),
		.publish = CFG_SRC_CLIENT | CFG_SRC_API,
		.origins = origins,
		.n_origins = 1,
		.max_message = 16u << 20,
		.max_publication = 16u << 20,
	};
	assert_non_null(n->name);
}

void rig_init(struct rig *r)
{
	log_set_level(LOG_ERROR);
	memset(r, 0, sizeof(*r));
	r->now_ms = clock_mono_ms();
	name_space(&r->namespaces[RIG_DEMO], RIG_DEMO, "demo", "/ws/", CFG_ROOM_PATH);
	name_space(&r->namespaces[RIG_SKIP], RIG_SKIP, "skip", "/skip/", CFG_ROOM_PATH);
	name_space(&r->namespaces[RIG_ECHO], RIG_ECHO, "echo", "/echo", CFG_ROOM_CONN);
	name_space(&r->namespaces[RIG_FAMILY], RIG_FAMILY, "family", "/family", CFG_ROOM_NONE);
	name_space(&r->namespaces[RIG_READONLY], RIG_READONLY, "readonly", "/ro/", CFG_ROOM_PATH);
	r->namespaces[RIG_SKIP].slow = CFG_SLOW_SKIP;
	r->namespaces[RIG_READONLY].publish = CFG_SRC_API;
	r->config = (struct config){
		.workers = 2,
		.listens = r->listens,
		.n_listens = RIG_LISTENS,
		.admins = r->admins,
		.n_admins = 1,
		.ring = {.size = 1u << 20, .uplink_size = 1u << 18},
		.limits = {.max_head = 16384,
			   .max_headers = 100,
			   .max_message = 16u << 20,
			   .max_publication = 16u << 20,
			   .max_fragments = 1024,
			   .close_linger = 5000,
			   .slow_memory = 64u << 20,
			   .unknown_path_status = 404},
		.namespaces = r->namespaces,
		.n_namespaces = RIG_NAMESPACES,
	};
	r->listens[0].backlog = 64;
	r->auto_answer = true;
	r->channels = calloc(RIG_CHANNELS, sizeof(*r->channels));
	assert_non_null(r->channels);
}

/* Bound to *port, or to any if it is 0. A listener that is to leave its group and come back must have been
 * bound by its number: the kernel forgets a port that it chose itself. */
static int listen_on_loopback(uint16_t *port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(*port)};
	socklen_t len = sizeof(a);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static void make_segments(struct rig *r)
{
	uint64_t size = r->config.ring.size;
	int ring_fd = seg_create("rig-ring", SEG_PAGE + size), pipe_fds[2];
	uint8_t *data;

	assert_true(ring_fd >= 0);
	data = seg_map_twice(ring_fd, SEG_PAGE, size, SEG_PAGE, PROT_READ | PROT_WRITE);
	assert_non_null(data);
	ring_init(&r->ring, (struct ring_hdr *)(data - SEG_PAGE), data, size, size);
	assert_int_equal(slot_create(&r->slot, 0, 7, size, r->config.ring.uplink_size), 0);
	r->fds[0] = counters_create();
	r->blocks[0] = counters_map_block(r->fds[0], 0);
	r->blocks[1] = counters_map_block(r->fds[0], 1);
	assert_non_null(r->blocks[0]);
	assert_non_null(r->blocks[1]);
	r->fds[1] = seg_create("rig-globals", GLOBALS_BYTES);
	r->globals = seg_map(r->fds[1], 0, GLOBALS_BYTES, PROT_READ | PROT_WRITE);
	assert_non_null(r->globals);
	r->fds[2] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->fds[3] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_int_equal(pipe(pipe_fds), 0);
	r->fds[4] = pipe_fds[0];
	r->fds[5] = pipe_fds[1];
	r->boot.ring_fd = seg_reopen_readonly(ring_fd);
	close(ring_fd);
}

static void fill_globals(struct rig *r)
{
	struct globals *g = r->globals;

	g->layout = GLOBALS_LAYOUT;
	g->master_pid = (uint32_t)getpid();
	g->origin = 0xabcd;
	g->hash_key = HASH_KEY;
	g->start_ms = r->now_ms;
	atomic_store(&g->workers, 1u);
	atomic_store(&g->is_subscribed, 1u);
	for (unsigned i = 0; i < RIG_NAMESPACES; i++)
		snprintf(g->namespaces[NS_ID(i)], sizeof(g->namespaces[0]), "%s", r->namespaces[i].name);
	for (unsigned i = 0; i < NS_ID(0); i++)
		snprintf(g->namespaces[i], sizeof(g->namespaces[0]), "old%u", i);
	atomic_store(&g->n_namespaces, (uint32_t)NS_ID(RIG_NAMESPACES));
	atomic_store(&g->n_slots, 1u);
	atomic_store(&g->worker[0].state, (uint32_t)WORKER_SERVE);
	atomic_store(&g->worker[0].pid, (uint32_t)getpid());
	g->magic = GLOBALS_MAGIC;
}

void rig_start(struct rig *r)
{
	int any;

	make_segments(r);
	fill_globals(r);
	any = listen_on_loopback(&r->listen_port);
	r->listen_fds[0] = listen_on_loopback(&r->listen_port);
	close(any);
	r->admin_fds[0] = listen_on_loopback(&r->admin_port);
	r->boot.config = &r->config;
	r->boot.incarnation = 7;
	r->boot.start = r->config.ring.size;
	r->boot.slot_fd = dup(r->slot.fd);
	r->boot.counters_fd = dup(r->fds[0]);
	r->boot.globals_fd = r->fds[1];
	r->boot.wake_fd = r->fds[2];
	r->boot.master_wake_fd = r->fds[3];
	r->boot.master_pipe_fd = r->fds[4];
	r->boot.listen_fds = r->listen_fds;
	r->boot.admin_fds = r->admin_fds;
	r->control_pos = r->slot.control.head;
	r->data_pos = r->slot.data.head;
	r->w = worker_new(&r->boot);
	assert_non_null(r->w);
	r->w->now_ms = r->now_ms;
	rig_settle(r);
	assert_int_equal(r->hellos, 1);
}

void rig_stop(struct rig *r)
{
	worker_free(r->w);
	for (size_t i = 0; i < ARRAY_LEN(r->fds); i++)
		close(r->fds[i]);
	close(r->boot.ring_fd);
	close(r->listen_fds[0]);
	close(r->admin_fds[0]);
	seg_unmap_twice(r->ring.data, r->ring.size, SEG_PAGE);
	seg_unmap(r->globals, GLOBALS_BYTES);
	seg_unmap(r->blocks[0], COUNTERS_BLOCK);
	seg_unmap(r->blocks[1], COUNTERS_BLOCK);
	slot_close(&r->slot);
	free(r->assembly);
	free(r->channels);
	for (size_t i = 0; i < RIG_NAMESPACES; i++) {
		struct cfg_namespace *n = &r->namespaces[i];

		free(n->name);
		free(n->path);
		free(n->path_prefix);
		free(n->path_suffix);
		free(n->redis_prefix);
		free(n->redis_suffix);
	}
}

/* ---------------------------------------------------------------- the master */

static struct rig_channel *channel_of(struct rig *r, unsigned ns, struct slice room)
{
	struct rig_channel *ch;

	for (size_t i = 0; i < r->n_channels; i++) {
		ch = &r->channels[i];
		if (ch->ns == ns && ch->room_len == room.len && memcmp(ch->room, room.p, room.len) == 0)
			return ch;
	}
	assert_true(r->n_channels < RIG_CHANNELS);
	ch = &r->channels[r->n_channels++];
	ch->ns = (uint16_t)ns;
	ch->room_len = room.len;
	memcpy(ch->room, room.p, room.len);
	return ch;
}

struct rig_channel *rig_channel(struct rig *r, unsigned ns, const char *room)
{
	return channel_of(r, ns, (struct slice){room, strlen(room)});
}

static uint64_t gate_of(const struct rig *r)
{
	uint64_t cursor = slot_cursor(&r->slot);

	assert_true(cursor <= r->ring.head);
	return u64_max(cursor, slot_skip_to(&r->slot));
}

bool rig_has_space(const struct rig *r, size_t room_len, size_t payload_len)
{
	return ring_space(&r->ring, gate_of(r)) >= rec_size(room_len, payload_len);
}

static uint64_t commit_targeted(struct rig *r, struct rec *h, struct slice room, struct slice targets,
				struct slice payload, uint64_t prev)
{
	uint64_t gate = gate_of(r), pos;

	assert_true(ring_space(&r->ring, gate) >= rec_size_targeted(room.len, targets.len, payload.len));
	pos = rec_commit_targeted(&r->ring, gate, h, room, targets, payload, prev);
	slot_fence();
	if (slot_take_sleeping(&r->slot)) {
		uint64_t one = 1;

		assert_int_equal(write(r->fds[2], &one, sizeof(one)), sizeof(one));
	}
	return pos;
}

static uint64_t commit(struct rig *r, struct rec *h, struct slice room, struct slice payload, uint64_t prev)
{
	return commit_targeted(r, h, room, (struct slice){0}, payload, prev);
}

static uint64_t publish_tagged(struct rig *r, struct rig_channel *ch, uint8_t opcode, const void *p,
			       size_t len, uint32_t tag, uint64_t matched)
{
	struct slice room = {ch->room, ch->room_len};
	struct rec h = {.type = REC_PUBLICATION,
			.opcode = opcode,
			.ns = NS_ID(ch->ns),
			.hash = rec_channel_hash(HASH_KEY, NS_ID(ch->ns), room),
			.seq = ++ch->seq,
			.time_ns = clock_mono_ns(),
			.slot = tag != 0 ? 0 : REC_ALL,
			.incarnation = tag != 0 ? 7 : 0,
			.flags = r->rec_flags,
			.arg = {tag, matched}};

	ch->last = commit(r, &h, room, (struct slice){p, len}, ch->last);
	return ch->last;
}

uint64_t rig_publish(struct rig *r, struct rig_channel *ch, const void *p, size_t len)
{
	return publish_tagged(r, ch, WS_TEXT, p, len, 0, 0);
}

uint64_t rig_publish_counted(struct rig *r, struct rig_channel *ch, const void *p, size_t len,
			     uint64_t matched)
{
	return publish_tagged(r, ch, WS_TEXT, p, len, 0, matched);
}

uint64_t rig_publish_binary(struct rig *r, struct rig_channel *ch, const void *p, size_t len)
{
	return publish_tagged(r, ch, WS_BINARY, p, len, 0, 0);
}

/* Entries of one kind, by hash. */
struct target {
	uint64_t hash;
	const char *id;
};

static int by_hash(const void *a, const void *b)
{
	uint64_t x = ((const struct target *)a)->hash, y = ((const struct target *)b)->hash;

	return x < y ? -1 : x > y;
}

static void put_targets(struct buf *out, uint16_t kind, uint16_t ns, const char *const *ids)
{
	struct target *list;
	size_t n = 0;

	while (ids != NULL && ids[n] != NULL)
		n++;
	list = calloc(n + 1, sizeof(*list));
	assert_non_null(list);
	for (size_t i = 0; i < n; i++) {
		struct slice id = {ids[i], strlen(ids[i])};

		list[i].id = ids[i];
		list[i].hash = kind == REC_TARGET_USER ? rec_user_hash(HASH_KEY, ns, id)
						       : rec_group_hash(HASH_KEY, id);
	}
	qsort(list, n, sizeof(*list), by_hash);
	for (size_t i = 0; i < n; i++) {
		uint16_t len = (uint16_t)strlen(list[i].id);
		size_t size = rec_target_size(len);

		assert_int_equal(buf_reserve(out, size), 0);
		memset(out->p + out->len, 0, size);
		memcpy(out->p + out->len, &list[i].hash, 8);
		memcpy(out->p + out->len + 8, &kind, 2);
		memcpy(out->p + out->len + 10, &len, 2);
		memcpy(out->p + out->len + 12, list[i].id, len);
		out->len += size;
	}
	free(list);
}

void rig_targets(struct rig *r, unsigned ns, const char *const *users, const char *const *groups,
		 struct buf *out)
{
	(void)r;
	put_targets(out, REC_TARGET_USER, NS_ID(ns), users);
	put_targets(out, REC_TARGET_GROUP, NS_ID(ns), groups);
}

uint64_t rig_publish_to(struct rig *r, unsigned ns, uint8_t opcode, const char *const *users,
			const char *const *groups, const void *p, size_t len, uint64_t matched)
{
	struct rig_channel *ch = rig_channel(r, ns, "");
	struct slice payload = {p, len};
	struct buf block = {0};
	struct rec h = {.type = REC_PUBLICATION,
			.opcode = opcode,
			.ns = NS_ID(ns),
			.hash = rec_channel_hash(HASH_KEY, NS_ID(ns), (struct slice){0}),
			.seq = ++ch->seq,
			.time_ns = clock_mono_ns(),
			.slot = REC_ALL,
			.flags = (uint16_t)(REC_TARGETED | r->rec_flags),
			.arg = {0, matched}};

	rig_targets(r, ns, users, groups, &block);
	ch->last = commit_targeted(r, &h, (struct slice){0}, (struct slice){block.p, block.len}, payload,
				   ch->last);
	buf_free(&block);
	return ch->last;
}

void rig_control_payload(struct rig *r, const struct rec *h, struct slice room, struct slice payload)
{
	struct rec copy = *h;

	copy.slot = 0;
	copy.incarnation = 7;
	(void)commit(r, &copy, room, payload, 0);
}

void rig_control(struct rig *r, const struct rec *h, struct slice room)
{
	rig_control_payload(r, h, room, (struct slice){0});
}

void rig_reply(struct rig *r, uint32_t request, enum rec_reply reply, const char *text)
{
	const struct rec h = {.type = REC_REPLY, .id = request, .arg = {reply}};

	rig_control_payload(r, &h, (struct slice){0}, (struct slice){text, strlen(text)});
}

static void take_control(struct rig *r, const struct up_view *v)
{
	struct rec h = {
		.type = REC_SUBSCRIBED, .ns = v->h.ns, .hash = rec_channel_hash(HASH_KEY, v->h.ns, v->room)};
	struct rig_channel *ch;

	if (r->on_control != NULL)
		r->on_control(r, v);
	if (v->h.type == UP_HELLO)
		r->hellos++;
	if (v->h.type == UP_DRAINED)
		r->drained++;
	if (v->h.type != UP_ADD && v->h.type != UP_DROP)
		return;
	ch = channel_of(r, v->h.ns - NS_ID(0), v->room);
	/* A worker says ADD and DROP in turn, never the same twice. */
	assert_int_equal(ch->is_wanted, v->h.type == UP_DROP);
	ch->is_wanted = v->h.type == UP_ADD;
	if (v->h.type == UP_DROP) {
		ch->drops++;
		return;
	}
	ch->adds++;
	rig_control(r, &h, v->room);
}

static void publication(struct rig *r, const struct up_rec *h, struct slice room, struct slice payload)
{
	struct rig_channel *ch = channel_of(r, h->ns - NS_ID(0), room);
	bool wants_answer = (h->request & UP_REQUEST_ANSWER) != 0;

	r->publications++;
	r->publication = *h;
	if (r->on_publish != NULL)
		r->on_publish(r, ch, h->opcode, payload);
	publish_tagged(r, ch, h->opcode, payload.p, payload.len, wants_answer ? 0 : h->request, 0);
	if (wants_answer && r->auto_answer) {
		struct rec a = {.type = REC_ANSWER, .id = h->request, .seq = ch->seq, .arg = {REC_OFF, 99}};
		struct rec_counts counts = {.sockets = 3, .users = 2};

		rig_control_payload(r, &a, (struct slice){0},
				    (h->flags & UP_COUNT) != 0
					    ? (struct slice){(const char *)&counts, sizeof(counts)}
					    : (struct slice){0});
	}
}

/* A message in several records; checks the rules of uplink.h. */
static void take_part(struct rig *r, const struct up_view *v)
{
	if (v->h.type == UP_PUBLISH) {
		if (r->assembly != NULL)
			r->abandoned++;
		free(r->assembly);
		r->assembly = malloc(v->h.total);
		assert_non_null(r->assembly);
		r->assembly_first = v->h;
		r->assembly_len = 0;
		memcpy(r->assembly_room, v->room.p, v->room.len);
	}
	assert_non_null(r->assembly);
	assert_true(r->assembly_len + v->payload.len <= r->assembly_first.total);
	memcpy(r->assembly + r->assembly_len, v->payload.p, v->payload.len);
	r->assembly_len += v->payload.len;
	if (r->assembly_len < r->assembly_first.total)
		return;
	publication(r, &r->assembly_first, (struct slice){r->assembly_room, r->assembly_first.name_len},
		    (struct slice){(char *)r->assembly, r->assembly_len});
	free(r->assembly);
	r->assembly = NULL;
}

static void take_data(struct rig *r, const struct up_view *v)
{
	assert_true(v->payload.len <= UPLINK_CHUNK);
	if (v->h.type == UP_REQUEST) {
		r->requests++;
		if (r->on_request != NULL)
			r->on_request(r, v);
		return;
	}
	if (v->h.type == UP_CHUNK || v->h.total > v->h.payload) {
		take_part(r, v);
		return;
	}
	assert_int_equal(v->h.type, UP_PUBLISH);
	if (r->assembly != NULL) {
		r->abandoned++;
		free(r->assembly);
		r->assembly = NULL;
	}
	publication(r, &v->h, v->room, v->payload);
}

static void wake(struct rig *r)
{
	uint64_t one = 1;

	assert_int_equal(write(r->fds[2], &one, sizeof(one)), sizeof(one));
}

bool rig_uplinks(struct rig *r)
{
	struct up_view v;
	bool any = false;
	size_t n = 0;

	while (!r->hold_control && uplink_peek(&r->slot.control, r->control_pos, &v) == UP_RECORD) {
		take_control(r, &v);
		r->control_pos = v.end;
		any = true;
	}
	if (any && uplink_release(&r->slot.control, r->control_pos))
		wake(r);
	while (!r->hold_data && (r->data_records == 0 || n < r->data_records) &&
	       uplink_peek(&r->slot.data, r->data_pos, &v) == UP_RECORD) {
		if (!rig_has_space(r, v.room.len, v.h.total + 256u))
			break;
		take_data(r, &v);
		r->data_pos = v.end;
		any = true;
		n++;
	}
	if (n > 0 && uplink_release(&r->slot.data, r->data_pos))
		wake(r);
	return any;
}

/* ---------------------------------------------------------------- the worker's loop */

bool rig_turn(struct rig *r)
{
	bool any = rig_uplinks(r);
	uint64_t before = r->w->fanout.done, n;

	r->w->now_ms = r->now_ms;
	any |= worker_records(r->w);
	any |= r->w->fanout.done != before;
	if (read(r->fds[2], &n, sizeof(n)) == sizeof(n)) {
		publish_resume(r->w);
		any = true;
	}
	any |= conn_poll(r->w) > 0;
	return any;
}

void rig_settle(struct rig *r)
{
	int turns = 0;

	while (rig_turn(r))
		assert_true(turns++ < RIG_TURNS);
}

void rig_pass(struct rig *r, uint64_t ms)
{
	uint64_t end = r->now_ms + ms;

	while (r->now_ms < end) {
		r->now_ms += u64_min(50, end - r->now_ms);
		r->w->now_ms = r->now_ms;
		worker_tick(r->w);
		rig_settle(r);
	}
}

/* ---------------------------------------------------------------- clients */

void rig_dial(struct rig *r, struct rig_client *c, int send_buffer)
{
	int pair[2], big = 1 << 22;
	struct conn *conn;

	memset(c, 0, sizeof(*c));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	if (send_buffer != 0)
		assert_int_equal(
			setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer)), 0);
	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big)), 0);
	c->fd = pair[0];
	conn = conn_open(r->w, pair[1]);
	assert_non_null(conn);
	c->index = conn->index;
	c->gen = conn->gen;
}

static void send_all(struct rig_client *c, const void *p, size_t len)
{
	assert_int_equal(send(c->fd, p, len, MSG_NOSIGNAL), len);
}

void rig_request(struct rig_client *c, const char *path)
{
	char head[512];
	int n = snprintf(head, sizeof(head),
			 "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
			 path);

	send_all(c, head, (size_t)n);
}

void rig_identify(struct rig *r, struct rig_client *c, const char *user, const char *const *groups)
{
	struct conn *conn = rig_conn(r, c);
	struct session *s = session_open(r->w, conn);
	struct identity *who = calloc(1, sizeof(*who));
	unsigned n = 0;

	assert_non_null(s);
	assert_non_null(who);
	while (groups != NULL && groups[n] != NULL)
		n++;
	who->groups = calloc(n + 1, sizeof(*who->groups));
	assert_non_null(who->groups);
	who->is_allowed = true;
	/* Literals and the test's own arrays: they outlive the connection. */
	who->user = (struct slice){user, strlen(user)};
	for (; who->n_groups < n; who->n_groups++)
		who->groups[who->n_groups] =
			(struct slice){groups[who->n_groups], strlen(groups[who->n_groups])};
	s->who = who;
}

void rig_tell(struct rig *r, struct rig_client *c, struct slice tag, struct slice info)
{
	struct session *s = session_of(r->w, rig_conn(r, c));
	struct identity *who = calloc(1, sizeof(*who));

	assert_non_null(who);
	*who = (struct identity){
		.is_allowed = true, .user = session_user(r->w, s), .session = tag, .info = info};
	session_settle(r->w, s, who);
}

void rig_connect_as(struct rig *r, struct rig_client *c, const char *path, int send_buffer, const char *user,
		    const char *const *groups)
{
	rig_dial(r, c, send_buffer);
	rig_identify(r, c, user, groups);
	rig_request(c, path);
	rig_settle(r);
	rig_read(c, 0);
	assert_true(rig_take_101(c));
}

bool rig_take_101(struct rig_client *c)
{
	char *end = c->in.len == 0 ? NULL : memmem(c->in.p, c->in.len, "\r\n\r\n", 4);

	if (end == NULL)
		return false;
	if (c->in.len < 12 || memcmp(c->in.p, "HTTP/1.1 101", 12) != 0)
		fail_msg("not a 101: %.12s", c->in.p);
	c->used = (size_t)(end + 4 - c->in.p);
	return true;
}

void rig_connect(struct rig *r, struct rig_client *c, const char *path, int send_buffer)
{
	rig_dial(r, c, send_buffer);
	rig_request(c, path);
	rig_settle(r);
	rig_read(c, 0);
	assert_true(rig_take_101(c));
}

size_t rig_read(struct rig_client *c, size_t max)
{
	size_t total = 0;

	if (c->used > 0) {
		buf_shift(&c->in, c->used);
		c->used = 0;
	}
	while (max == 0 || total < max) {
		size_t want = max == 0 ? 65536 : u64_min(max - total, 65536);
		ssize_t n;

		assert_int_equal(buf_reserve(&c->in, want), 0);
		n = recv(c->fd, c->in.p + c->in.len, want, MSG_DONTWAIT);
		if (n == 0)
			c->is_eof = true;
		if (n == -1 && errno != EAGAIN)
			c->is_reset = true;
		if (n <= 0)
			break;
		c->in.len += (size_t)n;
		total += (size_t)n;
	}
	return total;
}

size_t rig_rest(const struct rig_client *c)
{
	return c->in.len - c->used;
}

bool rig_frame(struct rig_client *c, struct rig_frame *f)
{
	const uint8_t *p = (const uint8_t *)c->in.p + c->used;
	size_t n = c->in.len - c->used, header = 2;
	uint64_t len;

	if (n < 2)
		return false;
	assert_true((p[0] & 0x80) != 0);
	assert_int_equal(p[0] & 0x70, 0);
	assert_int_equal(p[1] & 0x80, 0);
	len = p[1];
	if (len == 126) {
		header = 4;
		if (n < header)
			return false;
		len = (uint64_t)p[2] << 8 | p[3];
	} else if (len == 127) {
		header = 10;
		if (n < header)
			return false;
		len = 0;
		for (int i = 0; i < 8; i++)
			len = len << 8 | p[2 + i];
	}
	assert_true(len <= 32u << 20); /* else this is no frame boundary */
	if (n - header < len)
		return false;
	*f = (struct rig_frame){p[0] & 0x0f, p + header, len};
	c->used += header + len;
	if (f->opcode == WS_CLOSE)
		c->close_code = len < 2 ? 1005 : (uint16_t)(f->payload[0] << 8 | f->payload[1]);
	return true;
}

void rig_send(struct rig_client *c, uint8_t opcode, const void *p, size_t len)
{
	uint8_t *frame = malloc(len + 14);
	size_t n;

	assert_non_null(frame);
	n = ws_header_put(frame, opcode, len);
	frame[1] |= 0x80;
	memset(frame + n, 0, 4); /* a mask of zeroes is a mask */
	n += 4;
	if (len > 0)
		memcpy(frame + n, p, len);
	send_all(c, frame, n + len);
	free(frame);
}

void rig_send_close(struct rig_client *c, uint16_t code)
{
	uint8_t p[2] = {(uint8_t)(code >> 8), (uint8_t)code};

	rig_send(c, WS_CLOSE, p, 2);
}

void rig_hang_up(struct rig_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	buf_free(&c->in);
	c->used = 0;
}

struct conn *rig_conn(struct rig *r, const struct rig_client *c)
{
	struct conn *conn = conn_at(&r->w->conns, c->index);

	return conn->gen == c->gen && conn->state != CONN_FREE ? conn : NULL;
}

void rig_expect(struct rig *r, struct rig_client *c, const char *payload)
{
	struct rig_frame f;

	rig_settle(r);
	rig_read(c, 0);
	if (!rig_frame(c, &f))
		fail_msg("no frame, but \"%s\" was expected", payload);
	assert_int_equal(f.opcode, WS_TEXT);
	if (f.len != strlen(payload) || memcmp(f.payload, payload, f.len) != 0)
		fail_msg("\"%.*s\" came, \"%s\" was expected", (int)u64_min(f.len, 60),
			 (const char *)f.payload, payload);
}

void rig_expect_nothing(struct rig *r, struct rig_client *c)
{
	rig_settle(r);
	rig_read(c, 0);
	assert_int_equal(rig_rest(c), 0);
	assert_false(c->is_eof);
	assert_false(c->is_reset);
}

void rig_expect_close(struct rig *r, struct rig_client *c, uint16_t code)
{
	struct rig_frame f;

	rig_settle(r);
	rig_read(c, 0);
	if (!rig_frame(c, &f))
		fail_msg("no frame, but a Close %u was expected", code);
	assert_int_equal(f.opcode, WS_CLOSE);
	assert_int_equal(c->close_code, code);
	assert_int_equal(rig_rest(c), 0);
}

/* ---------------------------------------------------------------- the admin listener */

int rig_admin(struct rig *r)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				.sin_port = htons(r->admin_port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

void rig_admin_turn(struct rig *r)
{
	ev_run(r->w->loop, EVRUN_NOWAIT);
	rig_turn(r);
}

void rig_admin_send(struct rig *r, int fd, const void *p, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < RIG_TURNS && done < len; i++) {
		ssize_t n = send(fd, (const char *)p + done, len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else
			rig_admin_turn(r);
	}
	assert_int_equal(done, len);
}

/* Bytes of the first answer in `text`, 0 if it is not complete. */
static size_t whole_answer(const char *text, size_t len)
{
	const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
	size_t n;

	if (end == NULL)
		return 0;
	n = (size_t)(end - text) + 4;
	if (length != NULL && length < end)
		n += strtoul(length + 16, NULL, 10);
	return n <= len ? n : 0;
}

size_t rig_admin_answer(struct rig *r, int fd, char *dst, size_t size)
{
	size_t len = 0, whole = 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (int i = 0; i < RIG_TURNS && whole == 0; i++) {
		ssize_t n;

		rig_admin_turn(r);
		n = recv(fd, dst, size - 1, MSG_DONTWAIT | MSG_PEEK);
		if (n == 0 || (n == -1 && errno != EAGAIN))
			break;
		if (n == -1) {
			poll(&p, 1, 1); /* the loopback is another core's work */
			continue;
		}
		dst[n] = '\0';
		len = (size_t)n;
		whole = whole_answer(dst, len);
	}
	if (whole == 0)
		return 0;
	assert_int_equal(recv(fd, dst, whole, 0), whole);
	dst[whole] = '\0';
	return whole;
}

/* ---------------------------------------------------------------- do all links agree? */

static void check_conn(const struct rig *r, const struct conn *c, uint32_t *n)
{
	const struct worker *w = r->w;
	const struct channel *ch;

	assert_int_equal(conn_at(&w->conns, c->index) == c, 1);
	if ((c->flags & CONN_BEHIND) != 0) {
		n[0]++;
		assert_int_equal(c->state, CONN_OPEN);
		assert_true((c->flags & CONN_BLOCKED) != 0);
	}
	if ((c->flags & CONN_PAUSED) != 0)
		n[1]++;
	if (c->state == CONN_OPEN)
		n[2]++;
	if (c->state == CONN_HANDSHAKE || c->state == CONN_AUTHORIZING || c->state == CONN_JOINING)
		n[3]++;
	if (c->ext != NULL && c->ext->partial != NULL)
		n[4]++;
	/* What is armed is what is wanted: nobody is forgotten, nobody spins. */
	assert_int_equal(c->armed & 1, (c->flags & (CONN_PAUSED | CONN_CLOSE_WAIT | CONN_HELD)) == 0);
	assert_int_equal(c->armed >> 1 & 1, (c->flags & CONN_BLOCKED) != 0);
	if ((c->flags & CONN_BLOCKED) != 0)
		assert_non_null(c->ext);
	if (c->state != CONN_OPEN)
		return;
	assert_int_not_equal(c->channel, CHANNEL_NONE);
	ch = channel_at(&w->channels, c->channel);
	assert_int_equal(ch->state, CHANNEL_SUBSCRIBED);
	assert_true(c->member < ch->n);
	assert_int_equal(channel_members((struct channel *)(uintptr_t)ch)[c->member], c->index);
	assert_int_equal(c->member < ch->n_live, (c->flags & CONN_BEHIND) == 0);
	assert_int_equal(c->flags & CONN_MATCHED, 0);
	if ((c->flags & CONN_BEHIND) != 0) {
		assert_true(c->ext->pos != 0 || c->ext->direct_pos != 0);
		/* One chain has it all where there are no rooms. */
		if (w->config->namespaces[c->ns].room == CFG_ROOM_NONE) {
			assert_int_not_equal(c->ext->pos, 0);
			assert_int_equal(c->ext->direct_pos, 0);
		}
	}
}

/* Users, their sockets and groups, and who has a claim on which namespace's own channel. */
static void check_users(const struct rig *r)
{
	const struct worker *w = r->w;
	uint32_t claims[RIG_NAMESPACES] = {0}, waiting[RIG_NAMESPACES] = {0}, sockets = 0, members = 0,
		 users = 0;

	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		const struct conn *c = conn_at(&w->conns, i);
		const struct session *s = c->state == CONN_FREE ? NULL : session_of(w, c);
		const struct user *u = s == NULL ? NULL : user_of(w, c);

		if (s == NULL)
			continue;
		claims[c->ns] += s->claim != USER_CLAIM_NONE;
		waiting[c->ns] += s->claim == USER_CLAIM_WAITING;
		if (c->state != CONN_OPEN) {
			assert_null(u);
			assert_true(c->state == CONN_JOINING || s->claim == USER_CLAIM_NONE);
			continue;
		}
		assert_int_equal(u != NULL, session_user(w, s).len > 0);
		if (u == NULL)
			continue;
		sockets++;
		assert_int_equal(s->claim, USER_CLAIM_HELD);
		assert_int_equal(u->ns, c->ns);
		assert_true(s->place < u->n);
		assert_int_equal(user_sockets(u)[s->place], c->index);
		assert_int_equal(user_find(w, c->ns, user_text(u)), s->user);
		if (s->place > 0)
			continue;
		users++;
		for (uint16_t g = 0; g < user_n_groups(u); g++) {
			const struct user_group *group = u->more->groups[g].group;

			members++;
			assert_true(g == 0 || u->more->groups[g - 1].group->hash <= group->hash);
			assert_int_equal(group->ns, u->ns);
			assert_ptr_equal(group->users[u->more->groups[g].place], u);
			assert_ptr_equal(user_group_find(w->users, u->ns, group->hash,
							 (struct slice){group->name, group->len}),
					 group);
		}
	}
	assert_int_equal(sockets, w->users->n_sockets);
	assert_int_equal(users, w->users->users.n);
	for (uint32_t b = 0; b < w->users->groups.n_buckets; b++) {
		for (struct hash_node *n =
			     w->users->groups.segment[b >> HASH_SEGMENT_BITS][b & (HASH_SEGMENT - 1)];
		     n != NULL; n = n->next) {
			uint32_t in_it = CONTAINER_OF(n, struct user_group, node)->n;

			assert_true(in_it > 0);
			members -= in_it;
		}
	}
	assert_int_equal(members, 0);
	for (uint16_t ns = 0; ns < RIG_NAMESPACES; ns++) {
		uint32_t index = user_channel(w, ns);

		assert_int_equal(claims[ns], w->users->ns[ns].claims);
		assert_int_equal(claims[ns] > 0, index != CHANNEL_NONE);
		for (uint32_t i = w->users->ns[ns].waiting; i != CONN_NONE; i = conn_at(&w->conns, i)->member)
			waiting[ns]--;
		assert_int_equal(waiting[ns], 0);
		if (index == CHANNEL_NONE)
			continue;
		assert_true(channel_at(&w->channels, index)->is_held);
		assert_int_equal(channel_at(&w->channels, index)->room_len, 0);
		assert_int_equal(channel_at(&w->channels, index)->ns, ns);
	}
}

static uint32_t count_partials(const struct rig *r, const struct partial_list *l, bool is_copy)
{
	uint64_t bytes = 0, last = 0;
	uint32_t n = 0;

	for (const struct partial *p = l->first; p != NULL; p = p->next) {
		uint32_t before = CONN_NONE;

		assert_int_equal(p->copy != NULL, is_copy);
		assert_int_not_equal(p->first, CONN_NONE);
		if (!is_copy) {
			assert_true(p->pos > last);
			/* never released while in use */
			assert_true(p->pos >= slot_cursor(&r->slot));
			last = p->pos;
		}
		bytes += p->frame_len;
		for (uint32_t i = p->first; i != CONN_NONE; i = conn_at(&r->w->conns, i)->ext->partial_next) {
			const struct conn *c = conn_at(&r->w->conns, i);

			assert_ptr_equal(c->ext->partial, p);
			assert_int_equal(c->ext->partial_prev, before);
			assert_true(c->ext->off < p->frame_len);
			before = i;
			n++;
		}
		assert_ptr_equal(p->next == NULL ? l->last : p->next->prev, p);
	}
	if (is_copy)
		assert_int_equal(bytes, r->w->behind.copy_bytes);
	return n;
}

static void check_idle(const struct rig *r, const struct channel *ch)
{
	const uint32_t *m = channel_members((struct channel *)(uintptr_t)ch);
	uint32_t idle = 0;

	for (uint32_t i = ch->n_live; i < ch->n; i++)
		idle += conn_at(&r->w->conns, m[i])->ext->pos == 0;
	assert_int_equal(idle, ch->n_idle);
}

static uint32_t count_channels(const struct rig *r)
{
	const struct channel_table *t = &r->w->channels;
	uint32_t n = 0;

	for (uint32_t b = 0; b < t->n_buckets; b++) {
		for (uint32_t i = t->bucket[b]; i != CHANNEL_NONE; i = channel_at(t, i)->next) {
			const struct channel *ch = channel_at(t, i);

			assert_int_not_equal(ch->state, CHANNEL_FREE);
			assert_true(ch->n > 0 || ch->waiting != CONN_NONE || ch->is_held);
			assert_true(ch->n_live <= ch->n);
			check_idle(r, ch);
			assert_int_equal(ch->batch, CHANNEL_NONE);
			n += ch->n;
		}
	}
	return n;
}

void rig_check(const struct rig *r)
{
	const struct worker *w = r->w;
	uint32_t n[5] = {0}, free_list = 0, listed = 0;

	for (uint32_t i = 0; i < w->conns.n_segments * CONN_SEGMENT; i++) {
		const struct conn *c = conn_at(&w->conns, i);

		if (c->state == CONN_FREE)
			free_list++;
		else
			check_conn(r, c, n);
	}
	assert_int_equal(w->conns.n + free_list, w->conns.n_segments * CONN_SEGMENT);
	for (uint32_t i = w->behind.first; i != CONN_NONE; i = conn_at(&w->conns, i)->ext->behind_next)
		listed++;
	assert_int_equal(n[0], listed);
	assert_int_equal(n[0], w->behind.n);
	listed = 0;
	for (uint32_t i = w->starving_head; i != CONN_NONE; i = conn_at(&w->conns, i)->ext->starving_next)
		listed++;
	assert_int_equal(n[1], listed);
	assert_int_equal(n[2], w->conns.n_open);
	assert_int_equal(n[2], count_get(&w->count->connections));
	assert_int_equal(n[3], w->conns.n_handshaking);
	assert_int_equal(n[4], count_partials(r, &w->behind.held, false) +
				       count_partials(r, &w->behind.copied, true));
	assert_int_equal(n[2], count_channels(r));
	check_users(r);
	assert_true(slot_cursor(&r->slot) <= w->fanout.done);
	/* Half-sent frames hold a quarter of the ring at most. */
	if (w->fanout.done == r->ring.head)
		assert_true(w->fanout.done - slot_cursor(&r->slot) <= r->ring.size / 4);
}
