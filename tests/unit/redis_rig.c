#include "tests/unit/redis_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/wsframe.h"

#define MUST(x) assert_true(x)

/* ---- the world ---- */

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
	(void)loop;
	(void)w;
	(void)revents;
}

void rig_open(struct rig *g)
{
	char log[96];

	memset(g, 0, sizeof(*g));
	snprintf(g->dir, sizeof(g->dir), "/tmp/rc-redis-XXXXXX");
	MUST(mkdtemp(g->dir) != NULL);
	snprintf(g->sock, sizeof(g->sock), "%s/r.sock", g->dir);
	snprintf(log, sizeof(log), "%s/log", g->dir);
	MUST(log_open(log) == 0);
	log_set_level(LOG_DEBUG);
	g->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	MUST(g->loop != NULL);
	ev_timer_init(&g->tick, on_tick, 0.002, 0.002);
	ev_timer_start(g->loop, &g->tick);
}

void rig_close(struct rig *g)
{
	const char *rm[] = {"rm", "-rf", g->dir, NULL};

	if (g->pid > 0)
		rig_redis_kill(g);
	ev_timer_stop(g->loop, &g->tick);
	ev_loop_destroy(g->loop);
	MUST(log_open(NULL) == 0);
	rig_run_program(rm);
}

void rig_give_up(const char *file, int line, const char *cond)
{
	print_error("waited in vain for: %s\n", cond);
	_fail(file, line);
}

void rig_run(struct rig *g, unsigned ms)
{
	uint64_t until = clock_mono_ms() + ms;

	while (clock_mono_ms() < until)
		ev_run(g->loop, EVRUN_ONCE);
}

static pid_t spawn(const char *const *argv)
{
	pid_t pid = fork();
	int null;

	MUST(pid != -1);
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	null = open("/dev/null", O_RDWR);
	if (null == -1 || dup2(null, 0) == -1 || dup2(null, 1) == -1 || dup2(null, 2) == -1)
		_exit(126);
	closefrom(3);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

void rig_run_program(const char *const *argv)
{
	int status;
	pid_t pid = spawn(argv);

	MUST(waitpid(pid, &status, 0) == pid);
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

uint16_t rig_free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	MUST(fd != -1 && bind(fd, (struct sockaddr *)&in, len) == 0);
	MUST(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
	close(fd);
	return ntohs(in.sin_port);
}

static redisContext *admin(struct rig *g)
{
	struct timeval patience = {10, 0};
	redisContext *c = redisConnectUnixWithTimeout(g->sock, patience);

	if (c != NULL && c->err != 0) {
		redisFree(c);
		return NULL;
	}
	return c;
}

static bool answers(struct rig *g)
{
	redisContext *c = admin(g);
	redisReply *reply = c == NULL ? NULL : redisCommand(c, "PING");
	bool ok =
		reply != NULL && (reply->type == REDIS_REPLY_STATUS || strncmp(reply->str, "NOAUTH", 6) == 0);

	freeReplyObject(reply);
	if (c != NULL)
		redisFree(c);
	return ok;
}

void rig_redis_start(struct rig *g, const char *const *args)
{
	const char *argv[40] = {"redis-server", "--port", "0",     "--unixsocket", g->sock, "--save", "",
				"--appendonly", "no",     "--dir", g->dir,         "--hz",  "50"};
	uint64_t until = clock_mono_ms() + 15000;
	size_t n = 13;

	for (; args != NULL && *args != NULL; args++)
		argv[n++] = *args;
	MUST(n < ARRAY_LEN(argv));
	g->pid = spawn(argv);
	while (!answers(g)) {
		struct timespec pause = {0, 5000000};

		MUST(clock_mono_ms() < until);
		nanosleep(&pause, NULL);
	}
}

void rig_redis_kill(struct rig *g)
{
	MUST(kill(g->pid, SIGKILL) == 0);
	MUST(waitpid(g->pid, NULL, 0) == g->pid);
	g->pid = 0;
}

long long rig_command(struct rig *g, const char *fmt, ...)
{
	redisContext *c = admin(g);
	redisReply *reply;
	long long value;
	va_list ap;

	MUST(c != NULL);
	va_start(ap, fmt);
	reply = redisvCommand(c, fmt, ap);
	va_end(ap);
	MUST(reply != NULL);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", fmt, reply->str);
	value = reply->type == REDIS_REPLY_ARRAY && reply->elements > 1 ? reply->element[1]->integer
									: reply->integer;
	freeReplyObject(reply);
	redisFree(c);
	return value;
}

void rig_publish(struct rig *g, const char *channel, const void *p, size_t len)
{
	(void)rig_command(g, "PUBLISH %s %b", channel, p, len);
}

/* ---- a node ---- */

static uint64_t hash_bytes(const char *p, size_t len)
{
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)p[i]) * 1099511628211u;
	return h;
}

bool rig_is_json;

static const char wrap_begin[] = "{\"m\":\"", wrap_end[] = "\"}";

/* What clients get. What was not read is read here, as the sequencer would; the buffers stay for the next. */
static struct slice client_text(const struct redis_publication *pub)
{
	static struct envelope own;
	const struct envelope *e = pub->envelope;
	size_t around = sizeof(wrap_begin) - 1 + sizeof(wrap_end) - 1;

	if (pub->ns->envelope != CFG_ENVELOPE_JSON)
		return pub->payload;
	if (e == NULL && envelope_read(&own, pub->payload, NULL) != ENVELOPE_OK)
		return pub->payload;
	if (e == NULL)
		e = &own;
	if (e->payload.len < around || memcmp(e->payload.p, wrap_begin, sizeof(wrap_begin) - 1) != 0)
		return e->payload;
	return (struct slice){e->payload.p + sizeof(wrap_begin) - 1, e->payload.len - around};
}

static bool on_publication(void *arg, const struct redis_publication *pub)
{
	struct rig_node *n = arg;
	struct rig_message *m;
	struct slice text = client_text(pub);
	size_t head = u64_min(text.len, sizeof(m->head) - 1);

	if (n->room == 0) {
		n->refused++;
		if (n->on_refused != NULL)
			n->on_refused(n);
		return false;
	}
	n->room -= n->room > 0;
	if (n->flood) {
		n->n_flood++;
		return true;
	}
	if (n->n_got == n->cap_got) {
		n->cap_got = n->cap_got == 0 ? 256 : n->cap_got * 2;
		n->got = realloc(n->got, n->cap_got * sizeof(*n->got));
		MUST(n->got != NULL);
	}
	m = &n->got[n->n_got++];
	*m = (struct rig_message){.origin = pub->origin,
				  .id = pub->id,
				  .len = text.len,
				  .opcode = pub->opcode,
				  .local = pub->local,
				  .is_read = pub->envelope != NULL,
				  .request = pub->token.request,
				  .sub = pub->sub};
	m->hash = hash_bytes(text.p, text.len);
	memcpy(m->head, text.p, head);
	if (pub->room.len < sizeof(m->room) && pub->room.len > 0)
		memcpy(m->room, pub->room.p, pub->room.len);
	MUST(pub->ns == &n->ns);
	MUST(pub->time_ns != 0 && pub->time_ns <= clock_mono_ns());
	if (n->on_message != NULL)
		n->on_message(n);
	return true;
}

static void on_subscribed(void *arg, struct redis_sub *sub, void *owner)
{
	struct rig_node *n = arg;

	MUST(owner == n && redis_sub_confirmed(sub));
	n->subscribed++;
}

static void on_published(void *arg, struct redis_token token, bool ok)
{
	struct rig_node *n = arg;

	MUST(token.slot == 3 && token.incarnation == 4);
	*(ok ? &n->acked : &n->acked_bad) += 1;
	n->last_acked = token.request;
}

static void on_state(void *arg, bool up)
{
	struct rig_node *n = arg;

	MUST(up != n->up);
	n->up = up;
	*(up ? &n->ups : &n->downs) += 1;
}

static void on_gap(void *arg)
{
	((struct rig_node *)arg)->gaps++;
}

static void on_room(void *arg)
{
	((struct rig_node *)arg)->rooms++;
}

void rig_node_init(struct rig_node *n, struct rig *g, uint64_t origin)
{
	memset(n, 0, sizeof(*n));
	n->g = g;
	n->origin = origin;
	n->room = -1;
	n->ns = (struct cfg_namespace){.name = (char *)(uintptr_t) "t",
				       .id = RIG_NS_ID,
				       .max_publication = 1 << 20,
				       .redis_has_room = true,
				       .envelope = rig_is_json ? CFG_ENVELOPE_JSON : CFG_ENVELOPE_PLAIN};
	n->cfg = (struct cfg_redis){
		.is_unix = true,
		.path = g->sock,
		.timeout = 3000,
		.ping_interval = 1000,
		.backoff_min = 10,
		.backoff_max = 100,
		.pending_size = 16 << 20,
		.resend_delay = 300,
		.tls_verify = true,
	};
}

void rig_node_tcp(struct rig_node *n, const char *host, uint16_t port)
{
	n->cfg.is_unix = false;
	n->cfg.path = NULL;
	n->cfg.host = (char *)(uintptr_t)host;
	n->cfg.port = port;
}

void rig_node_open(struct rig_node *n)
{
	static const struct redis_events proto = {
		.on_publication = on_publication,
		.on_subscribed = on_subscribed,
		.on_published = on_published,
		.on_state = on_state,
		.on_gap = on_gap,
		.on_room = on_room,
	};
	struct redis_events ev = proto;

	ev.arg = n;
	ev.on_internal = n->on_internal;
	n->r = redis_new(n->g->loop, &n->cfg, n->origin, &ev);
	MUST(n->r != NULL);
}

void rig_node_close(struct rig_node *n)
{
	redis_free(n->r);
	rig_node_forget(n);
}

void rig_node_forget(struct rig_node *n)
{
	free(n->got);
	n->got = NULL;
	n->n_got = n->cap_got = 0;
}

struct redis_sub *rig_subscribe(struct rig_node *n, const char *channel)
{
	struct redis_sub *sub = redis_subscribe(n->r, &n->ns, channel, n);

	MUST(sub != NULL);
	return sub;
}

enum redis_result rig_say(struct rig_node *n, const char *channel, struct redis_sub *sub, const char *text,
			  uint32_t request)
{
	struct redis_token token = {.slot = 3, .incarnation = 4, .request = request};
	struct slice payload = {text, strlen(text)};
	struct buf object = {0};
	enum redis_result res;

	if (request == 0)
		token = (struct redis_token){0};
	if (rig_is_json) {
		MUST(buf_printf(&object, "%s%s%s", wrap_begin, text, wrap_end) == 0);
		payload = (struct slice){object.p, object.len};
	}
	res = redis_publish(n->r, &n->ns, (struct slice){"room", 4}, channel, sub, WS_TEXT, payload, token);
	buf_free(&object);
	return res;
}

struct redis_stats rig_stats_of(struct rig_node *n)
{
	struct redis_stats s;

	redis_get_stats(n->r, &s);
	return s;
}

size_t rig_count(const struct rig_node *n, uint64_t origin)
{
	size_t count = 0;

	for (size_t i = 0; i < n->n_got; i++)
		count += n->got[i].origin == origin;
	return count;
}

void rig_check_run(const struct rig_node *n, uint64_t origin, const char *tag, size_t expect)
{
	size_t k = 0;
	char want[32];

	for (size_t i = 0; i < n->n_got; i++) {
		if (n->got[i].origin != origin)
			continue;
		snprintf(want, sizeof(want), "%s%zu", tag, k++);
		assert_string_equal(n->got[i].head, want);
	}
	assert_int_equal(k, expect);
}

/* ---- listening ---- */

static int listen_on(const struct sockaddr *sa, socklen_t len)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	MUST(fd != -1 && bind(fd, sa, len) == 0 && listen(fd, 64) == 0);
	return fd;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	MUST(fd != -1 && strlen(path) < sizeof(un.sun_path));
	memcpy(un.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* ---- the proxy ---- */

static void pipe_watch(struct rig_pipe *p)
{
	for (int i = 0; i < 2; i++)
		(p->x->silent ? ev_io_stop : ev_io_start)(p->x->g->loop, &p->io[i]);
}

static void pipe_close(struct rig_pipe *p)
{
	struct rig_pipe **at = &p->x->pipes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	for (int i = 0; i < 2; i++) {
		ev_io_stop(p->x->g->loop, &p->io[i]);
		close(p->fd[i]);
	}
	free(p);
}

static void on_pipe(struct ev_loop *loop, ev_io *w, int revents)
{
	struct rig_pipe *p = w->data;
	int side = w == &p->io[1];
	char bytes[16384];
	ssize_t n = recv(p->fd[side], bytes, sizeof(bytes), MSG_DONTWAIT);

	(void)loop;
	(void)revents;
	if (n == -1 && errno == EAGAIN)
		return;
	/* Blocks when the other side is full: messages in these tests fit. */
	if (n <= 0 || send(p->fd[!side], bytes, (size_t)n, MSG_NOSIGNAL) != n)
		pipe_close(p);
}

static void on_proxy(struct ev_loop *loop, ev_io *w, int revents)
{
	struct rig_proxy *x = w->data;
	int fd = accept4(x->fd, NULL, NULL, SOCK_CLOEXEC), up = -1;
	struct rig_pipe *p;

	(void)loop;
	(void)revents;
	if (fd == -1)
		return;
	up = connect_unix(x->g->sock);
	if (up == -1) {
		close(fd);
		return;
	}
	p = calloc(1, sizeof(*p));
	MUST(p != NULL);
	p->x = x;
	p->fd[0] = fd;
	p->fd[1] = up;
	for (int i = 0; i < 2; i++) {
		ev_io_init(&p->io[i], on_pipe, p->fd[i], EV_READ);
		p->io[i].data = p;
	}
	p->next = x->pipes;
	x->pipes = p;
	pipe_watch(p);
}

void rig_proxy_open(struct rig_proxy *x, struct rig *g)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);

	memset(x, 0, sizeof(*x));
	x->g = g;
	x->fd = listen_on((struct sockaddr *)&in, len);
	MUST(getsockname(x->fd, (struct sockaddr *)&in, &len) == 0);
	x->port = ntohs(in.sin_port);
	ev_io_init(&x->io, on_proxy, x->fd, EV_READ);
	x->io.data = x;
	ev_io_start(g->loop, &x->io);
}

void rig_proxy_silence(struct rig_proxy *x, bool silent)
{
	x->silent = silent;
	for (struct rig_pipe *p = x->pipes; p != NULL; p = p->next)
		pipe_watch(p);
}

void rig_proxy_close(struct rig_proxy *x)
{
	while (x->pipes != NULL)
		pipe_close(x->pipes);
	ev_io_stop(x->g->loop, &x->io);
	close(x->fd);
}

/* ---- the scripted server ---- */

void rig_fake_send(struct rig_fake_conn *c, const void *p, size_t len)
{
	MUST(send(c->fd, p, len, MSG_NOSIGNAL) == (ssize_t)len || errno == EPIPE);
}

void rig_fake_says(struct rig_fake_conn *c, const char *text)
{
	rig_fake_send(c, text, strlen(text));
}

bool rig_is(redisReply *arg, const char *word)
{
	return arg->len == strlen(word) && memcmp(arg->str, word, arg->len) == 0;
}

static void confirm(struct rig_fake_conn *c, redisReply *verb, redisReply *channel)
{
	struct buf b = {0};

	MUST(buf_printf(&b, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n:1\r\n", verb->len,
			rig_is(verb, "SUBSCRIBE") ? "subscribe" : "unsubscribe", channel->len,
			channel->str) == 0);
	rig_fake_send(c, b.p, b.len);
	buf_free(&b);
}

static void usual(struct rig_fake_conn *c, size_t argc, redisReply **argv)
{
	if (rig_is(argv[0], "PING"))
		rig_fake_says(c, c->subscriber ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n");
	else if (rig_is(argv[0], "PUBLISH"))
		rig_fake_says(c, ":0\r\n");
	else if (rig_is(argv[0], "SUBSCRIBE") || rig_is(argv[0], "UNSUBSCRIBE"))
		for (size_t i = 1; i < argc; i++)
			confirm(c, argv[0], argv[i]);
	else
		rig_fake_says(c, "+OK\r\n");
}

static void fake_conn_close(struct rig_fake_conn *c)
{
	struct rig_fake_conn **at = &c->f->conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	ev_io_stop(c->f->g->loop, &c->io);
	close(c->fd);
	redisReaderFree(c->reader);
	free(c);
}

static void on_fake_conn(struct ev_loop *loop, ev_io *w, int revents)
{
	struct rig_fake_conn *c = w->data;
	char bytes[16384];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	redisReply *cmd = NULL;

	(void)loop;
	(void)revents;
	if (n == -1 && errno == EAGAIN)
		return;
	if (n <= 0) {
		fake_conn_close(c);
		return;
	}
	MUST(redisReaderFeed(c->reader, bytes, (size_t)n) == REDIS_OK);
	while (redisReaderGetReply(c->reader, (void **)&cmd) == REDIS_OK && cmd != NULL) {
		MUST(cmd->type == REDIS_REPLY_ARRAY && cmd->elements > 0);
		if (rig_is(cmd->element[0], "SUBSCRIBE"))
			c->subscriber = true;
		if (c->f->script == NULL || !c->f->script(c, cmd->elements, cmd->element))
			usual(c, cmd->elements, cmd->element);
		freeReplyObject(cmd);
	}
}

static void on_fake(struct ev_loop *loop, ev_io *w, int revents)
{
	struct rig_fake *f = w->data;
	int fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC);
	struct rig_fake_conn *c;

	(void)revents;
	if (fd == -1)
		return;
	c = calloc(1, sizeof(*c));
	MUST(c != NULL);
	c->f = f;
	c->fd = fd;
	c->reader = redisReaderCreate();
	MUST(c->reader != NULL);
	c->next = f->conns;
	f->conns = c;
	f->accepted++;
	ev_io_init(&c->io, on_fake_conn, fd, EV_READ);
	c->io.data = c;
	ev_io_start(loop, &c->io);
}

static void fake_start(struct rig_fake *f, const struct sockaddr *sa, socklen_t len)
{
	f->fd = listen_on(sa, len);
	ev_io_init(&f->io, on_fake, f->fd, EV_READ);
	f->io.data = f;
	ev_io_start(f->g->loop, &f->io);
}

void rig_fake_open_tcp(struct rig_fake *f, struct rig *g)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);

	memset(f, 0, sizeof(*f));
	f->g = g;
	fake_start(f, (struct sockaddr *)&in, len);
	MUST(getsockname(f->fd, (struct sockaddr *)&in, &len) == 0);
	f->port = ntohs(in.sin_port);
}

void rig_fake_open(struct rig_fake *f, struct rig *g)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	memset(f, 0, sizeof(*f));
	f->g = g;
	snprintf(f->path, sizeof(f->path), "%s/fake.sock", g->dir);
	MUST(strlen(f->path) < sizeof(un.sun_path));
	memcpy(un.sun_path, f->path, strlen(f->path) + 1);
	fake_start(f, (struct sockaddr *)&un, sizeof(un));
}

void rig_fake_close(struct rig_fake *f)
{
	while (f->conns != NULL)
		fake_conn_close(f->conns);
	ev_io_stop(f->g->loop, &f->io);
	close(f->fd);
}

struct rig_fake_conn *rig_fake_subscriber(struct rig_fake *f)
{
	struct rig_fake_conn *c = f->conns;

	while (c != NULL && !c->subscriber)
		c = c->next;
	return c;
}
