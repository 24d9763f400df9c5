/* intake.c - the least that a subscriber of Redis can be, and a WebSocket client that counts (bench/intake.py
 * runs both).
 *
 *   bench-intake --redis PATH --channel NAME --count FILE     SUBSCRIBE, blocking recv, redisReader, count,
 * free the reply bench-intake --ws PORT --path /PATH --count FILE          a WebSocket client on 127.0.0.1:
 * counts data frames
 *   ... --stall                                               the same, but after the 101 it never reads
 *
 * FILE gets 8 bytes that grow as messages come: whoever maps it can take a rate without disturbing. "ready"
 * on stdout when the subscription stands. Ends with status 0 when the other side closes or SIGTERM comes, 1
 * when something is wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/wsin.h"

#define READ_BYTES 16384 /* hiredis moves what is left with each reply: larger pieces cost more */
#define WS_BYTES   262144

static _Atomic uint64_t *count;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-intake: %s: %s\n", what, strerror(errno));
	exit(1);
}

static _Noreturn void bad(const char *what)
{
	fprintf(stderr, "bench-intake: %s\n", what);
	exit(1);
}

static void on_term(int signal_number)
{
	(void)signal_number;
	_exit(0);
}

static void open_count(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd == -1 || ftruncate(fd, sizeof(*count)) == -1)
		die(path);
	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (count == MAP_FAILED)
		die("mmap");
	close(fd);
}

static int dial(const struct sockaddr *to, socklen_t len)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || connect(fd, to, len) == -1)
		die("connect");
	return fd;
}

static void send_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n == -1)
			die("send");
		p += n;
		len -= (size_t)n;
	}
}

static void say_ready(void)
{
	if (puts("ready") == EOF || fflush(stdout) == EOF)
		die("stdout");
}

/* ---- Redis */

static int dial_redis(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(to.sun_path))
		bad("the path of the socket is too long");
	memcpy(to.sun_path, path, strlen(path) + 1);
	return dial((struct sockaddr *)&to, sizeof(to));
}

static bool is_push(const redisReply *r, const char *kind)
{
	return r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
	       r->element[0]->type == REDIS_REPLY_STRING && strcmp(r->element[0]->str, kind) == 0;
}

/* All replies that are complete. */
static void take_replies(redisReader *in)
{
	void *reply;

	for (;;) {
		if (redisReaderGetReply(in, &reply) != REDIS_OK)
			bad(in->errstr);
		if (reply == NULL)
			return;
		if (is_push(reply, "message"))
			atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
					      memory_order_relaxed);
		else if (is_push(reply, "subscribe"))
			say_ready();
		else
			bad("that is no message");
		freeReplyObject(reply);
	}
}

static void subscribe(const char *path, const char *channel)
{
	redisReader *in = redisReaderCreate();
	int fd = dial_redis(path);
	static char bytes[READ_BYTES];
	char command[512];
	ssize_t n;

	n = snprintf(command, sizeof(command), "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", strlen(channel),
		     channel);
	if (in == NULL || n < 0 || (size_t)n >= sizeof(command))
		bad("the channel's name is too long");
	send_all(fd, command, (size_t)n);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0) {
		if (redisReaderFeed(in, bytes, (size_t)n) != REDIS_OK)
			bad(in->errstr);
		take_replies(in);
	}
	if (n == -1)
		die("recv");
	redisReaderFree(in);
	close(fd);
}

/* ---- WebSocket */

static bool on_frame(void *arg, uint8_t fin_op, const uint8_t *payload, uint64_t len, uint64_t have)
{
	(void)arg;
	(void)payload;
	(void)len;
	(void)have;
	if ((fin_op & 0x0f) == 8)
		bad("the server closed the WebSocket");
	return true; /* a ping is not answered: the run is shorter than its deadline */
}

static void on_more(void *arg, const uint8_t *payload, uint64_t n)
{
	(void)arg;
	(void)payload;
	(void)n;
}

static bool on_end(void *arg)
{
	(void)arg;
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	return true;
}

/* The server's head, to its empty line, byte by byte: what follows belongs to the frames. */
static void read_head(int fd)
{
	char head[2048];
	size_t n = 0;

	while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0) {
		if (n == sizeof(head) || recv(fd, head + n, 1, 0) != 1)
			bad("no answer to the handshake");
		n++;
	}
	if (n < 12 || memcmp(head + 8, " 101", 4) != 0)
		bad("the handshake was refused");
}

static int dial_ws(uint16_t port, const char *path)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = dial((struct sockaddr *)&to, sizeof(to)), n;
	char head[1024];

	n = snprintf(head, sizeof(head),
		     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		     path, port);
	if (n < 0 || (size_t)n >= sizeof(head))
		bad("the path is too long");
	send_all(fd, head, (size_t)n);
	read_head(fd);
	return fd;
}

static void listen_ws(uint16_t port, const char *path, bool is_stalled)
{
	static const struct wsin_ops ops = {.frame = on_frame, .more = on_more, .end = on_end};
	static uint8_t bytes[WSIN_STASH + WS_BYTES];
	struct wsin in = {0};
	int fd = dial_ws(port, path);
	ssize_t n;

	say_ready();
	while (is_stalled)
		pause();
	while ((n = recv(fd, bytes + WSIN_STASH, WS_BYTES, 0)) > 0)
		if (wsin_feed(&in, bytes + WSIN_STASH, (size_t)n, &ops, NULL) == -1)
			bad("that is no WebSocket frame");
	if (n == -1)
		die("recv");
	close(fd);
}

/* ---- */

static _Noreturn void usage(void)
{
	fprintf(stderr, "usage: bench-intake --count FILE (--redis PATH --channel NAME | --ws PORT --path "
			"/PATH [--stall])\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"redis", required_argument, NULL, 'r'},
		{"channel", required_argument, NULL, 'c'},
		{"ws", required_argument, NULL, 'w'},
		{"path", required_argument, NULL, 'p'},
		{"count", required_argument, NULL, 'n'},
		{"stall", no_argument, NULL, 's'},
		{0},
	};
	const char *redis = NULL, *channel = NULL, *path = NULL, *counts = NULL;
	unsigned long port = 0;
	bool is_stalled = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			redis = optarg;
			break;
		case 'c':
			channel = optarg;
			break;
		case 'w':
			port = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			path = optarg;
			break;
		case 'n':
			counts = optarg;
			break;
		case 's':
			is_stalled = true;
			break;
		default:
			usage();
		}
	}
	if (counts == NULL || optind != argc || (redis == NULL) == (port == 0) || port > UINT16_MAX ||
	    (redis != NULL ? channel : path) == NULL)
		usage();
	if (signal(SIGTERM, on_term) == SIG_ERR)
		die("signal");
	open_count(counts);
	if (redis != NULL)
		subscribe(redis, channel);
	else
		listen_ws((uint16_t)port, path, is_stalled);
	return 0;
}
