/* LINK: master/listen.c */
/* Listening sockets: addresses, the reuseport group, what a reload keeps, what an older server left behind.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "master/listen.h"

struct rig {
	char dir[64];
	char path[96], addr[104];
	struct listen_set set;
	struct config c;
	struct cfg_listener listens[4], admins[2];
	struct buf error;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	const char *tmp = getenv("TMPDIR");

	if (r == NULL)
		return -1;
	*state = r;
	snprintf(r->dir, sizeof(r->dir), "%s/rc-listen-XXXXXX",
		 tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	if (mkdtemp(r->dir) == NULL)
		return -1;
	snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
	snprintf(r->addr, sizeof(r->addr), "unix:%s", r->path);
	r->c.listens = r->listens;
	r->c.admins = r->admins;
	r->c.workers = 3;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	listen_close(&r->set, LISTEN_CLIENT);
	listen_close(&r->set, LISTEN_ADMIN);
	assert_null(r->set.v);
	buf_free(&r->error);
	unlink(r->path);
	assert_int_equal(rmdir(r->dir), 0);
	free(r);
	return 0;
}

static struct cfg_listener tcp(const char *addr, const char *host, uint16_t port)
{
	return (struct cfg_listener){
		.addr = (char *)(uintptr_t)addr, .host = (char *)(uintptr_t)host, .port = port, .backlog = 8};
}

static struct cfg_listener local(struct rig *r, mode_t mode)
{
	return (struct cfg_listener){
		.addr = r->addr, .is_unix = true, .path = r->path, .backlog = 8, .mode = mode};
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	return ntohs(a.sin6_port); /* at the same place for IPv4 */
}

static bool accepts(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on != 0;
}

static void open_ok(struct rig *r)
{
	assert_int_equal(listen_open(&r->set, &r->c, 0, &r->error), 0);
	assert_int_equal(r->error.len, 0);
}

static void assert_error(struct rig *r, const char *text)
{
	size_t before = r->set.n;

	assert_int_equal(listen_open(&r->set, &r->c, 0, &r->error), -1);
	assert_int_equal(r->set.n, before);
	assert_int_equal(buf_put(&r->error, "", 1), 0);
	if (strstr(r->error.p, text) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", text, r->error.p);
	r->error.len = 0;
}

static void test_one_socket_per_position_on_one_port(void **state)
{
	struct rig *r = *state;
	struct buf out = {0};
	char expect[64];
	int fd[3];

	r->listens[0] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->admins[0] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->c.n_listens = r->c.n_admins = 1;
	open_ok(r);
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, i);
		assert_true(accepts(fd[i]));
		assert_int_equal(port_of(fd[i]), port_of(fd[0]));
		assert_true(i == 0 || fd[i] != fd[i - 1]);
		assert_int_equal(listen_fd(&r->set, &r->c, LISTEN_ADMIN, 0, i),
				 listen_fd(&r->set, &r->c, LISTEN_ADMIN, 0, 0));
	}
	assert_int_equal(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 3), -1);
	assert_int_not_equal(port_of(listen_fd(&r->set, &r->c, LISTEN_ADMIN, 0, 0)), port_of(fd[0]));
	snprintf(expect, sizeof(expect), "127.0.0.1:%u", port_of(fd[0]));
	assert_int_equal(listen_addresses(&r->set, &r->c, LISTEN_CLIENT, &out), 0);
	assert_int_equal(out.len, strlen(expect));
	assert_memory_equal(out.p, expect, out.len);
	buf_free(&out);
}

/* A worker takes its socket out of the group by shutdown(); listen() must bring it back to the same port. */
static void test_a_chosen_port_survives_leaving_the_group(void **state)
{
	struct rig *r = *state;
	int fd;
	uint16_t port;

	r->listens[0] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->c.n_listens = r->c.workers = 1;
	open_ok(r);
	fd = listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 0);
	port = port_of(fd);
	assert_int_equal(shutdown(fd, SHUT_RD), 0);
	assert_false(accepts(fd));
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(port_of(fd), port);
}

static void test_the_same_address_twice_is_two(void **state)
{
	struct rig *r = *state;

	r->listens[0] = r->listens[1] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->c.n_listens = 2;
	open_ok(r);
	assert_int_equal(r->set.n, 6);
	assert_int_not_equal(port_of(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 1)),
			     port_of(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 1, 1)));
}

/* SO_REUSEPORT alone would let two servers share a port. */
static void test_a_port_in_use_is_refused(void **state)
{
	struct rig *r = *state;
	struct listen_set other = {0};
	char addr[32];

	r->listens[0] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->c.n_listens = 1;
	assert_int_equal(listen_open(&other, &r->c, 0, &r->error), 0);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", other.v[0].port);
	r->listens[1] = tcp(addr, "127.0.0.1", other.v[0].port);
	r->c.n_listens = 2;
	assert_error(r, "cannot bind 127.0.0.1:");
	assert_error(r, "Address already in use");
	assert_int_equal(r->set.n, 0); /* the first one, which was free, was closed again */
	listen_close(&other, LISTEN_CLIENT);
	open_ok(r);
}

static void test_ipv6_is_only_ipv6(void **state)
{
	struct rig *r = *state;
	struct buf out = {0};
	char four[32];
	int on = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(on);
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	if (fd == -1 || bind(fd, (struct sockaddr *)&a, sizeof(a)) == -1) {
		print_message("no IPv6 on this machine: only the refusal is tried\n");
		r->listens[0] = tcp("[::1]:0", "::1", 0);
		r->c.n_listens = 1;
		assert_error(r, "cannot bind [::1]:0");
		return;
	}
	close(fd);
	r->listens[0] = tcp("[::1]:0", "::1", 0);
	r->c.n_listens = 1;
	open_ok(r);
	fd = listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 0);
	assert_int_equal(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, &len), 0);
	assert_int_equal(on, 1);
	assert_int_equal(listen_addresses(&r->set, &r->c, LISTEN_CLIENT, &out), 0);
	assert_memory_equal(out.p, "[::1]:", 6);
	buf_free(&out);
	/* IPv4 with the same number is another address. */
	snprintf(four, sizeof(four), "127.0.0.1:%u", port_of(fd));
	r->listens[1] = tcp(four, "127.0.0.1", port_of(fd));
	r->c.n_listens = 2;
	if (listen_open(&r->set, &r->c, 0, &r->error) == -1) {
		assert_int_equal(errno, EADDRINUSE); /* by somebody else, that is */
		r->error.len = 0;
	}
}

static void test_a_reload_keeps_adds_and_closes(void **state)
{
	struct rig *r = *state;
	int kept;

	r->listens[0] = tcp("127.0.0.1:0", "127.0.0.1", 0);
	r->listens[1] = local(r, 0600);
	r->c.n_listens = 2;
	open_ok(r);
	kept = listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 1);
	assert_int_equal(r->set.n, 4);
	r->c.workers = 5;
	open_ok(r);
	assert_int_equal(r->set.n, 6);
	assert_int_equal(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 1), kept);
	assert_int_equal(port_of(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 4)), port_of(kept));
	r->c.workers = 2;
	r->c.n_listens = 1;
	listen_keep(&r->set, &r->c);
	assert_int_equal(r->set.n, 2);
	assert_int_equal(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 1), kept);
	assert_int_equal(access(r->path, F_OK), -1);
}

static void test_unix_mode_and_removal(void **state)
{
	struct rig *r = *state;
	struct stat st;

	r->listens[0] = local(r, 0640);
	r->c.n_listens = 1;
	open_ok(r);
	assert_int_equal(r->set.n, 1); /* shared by all positions */
	assert_int_equal(listen_fd(&r->set, &r->c, LISTEN_CLIENT, 0, 2), r->set.v[0].fd);
	assert_int_equal(stat(r->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	r->listens[0].mode = 0666;
	open_ok(r);
	assert_int_equal(stat(r->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	listen_close(&r->set, LISTEN_CLIENT);
	assert_int_equal(access(r->path, F_OK), -1);
}

static int bound_unix(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void test_unix_leftovers(void **state)
{
	struct rig *r = *state;
	int fd = bound_unix(r->path);
	FILE *f;

	r->listens[0] = local(r, 0600);
	r->c.n_listens = 1;
	assert_int_equal(listen(fd, 1), 0);
	assert_error(r, "Address already in use");
	close(fd);
	open_ok(r); /* nobody answers: it is removed */
	listen_close(&r->set, LISTEN_CLIENT);
	f = fopen(r->path, "w");
	assert_non_null(f);
	fclose(f);
	assert_error(r, "is no socket");
	assert_int_equal(access(r->path, F_OK), 0);
}

/* The successor bound the path meanwhile: it is not ours to remove. */
static void test_unix_of_a_successor_stays(void **state)
{
	struct rig *r = *state;
	int fd;

	r->listens[0] = local(r, 0600);
	r->c.n_listens = 1;
	open_ok(r);
	assert_int_equal(unlink(r->path), 0);
	fd = bound_unix(r->path);
	listen_close(&r->set, LISTEN_CLIENT);
	assert_int_equal(access(r->path, F_OK), 0);
	close(fd);
}

static void test_a_bad_path(void **state)
{
	struct rig *r = *state;
	char missing[] = "/nonexistent-directory/s";
	char addr[] = "unix:/nonexistent-directory/s";

	r->listens[0] = (struct cfg_listener){.addr = addr, .is_unix = true, .path = missing, .backlog = 1};
	r->c.n_listens = 1;
	assert_error(r, "cannot bind unix:/nonexistent-directory/s: No such file");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_one_socket_per_position_on_one_port),
		TEST(test_a_chosen_port_survives_leaving_the_group),
		TEST(test_the_same_address_twice_is_two),
		TEST(test_a_port_in_use_is_refused),
		TEST(test_ipv6_is_only_ipv6),
		TEST(test_a_reload_keeps_adds_and_closes),
		TEST(test_unix_mode_and_removal),
		TEST(test_unix_leftovers),
		TEST(test_unix_of_a_successor_stays),
		TEST(test_a_bad_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
