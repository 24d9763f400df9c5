/* LINK: master/config_load.c master/config_ns.c master/config_print.c master/config_scan.c
 * master/config_doc.c master/config_lex.c master/config_confuse.c master/config_value.c master/config_url.c
 * master/config_file.c master/config_auth.c master/config_feed.c master/config_rule.c master/cli.c */
/* config: whole files with the exact list of their problems (tests/unit/config: x.conf with x.expect is
 * refused with just that; without one it loads, and what -T prints of it loads to the same), single values at
 * their bounds, and that the table, docs/configuration.md and etc/ringcast.conf say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config_keys.h"
#include "common/log.h"
#include "master/cli.h"
#include "master/config_load.h"
#include "master/config_value.h"

/* ---- helpers ---- */

/* The directory of this source, as the compiler was given it: tests run in the root of the repository. */
static const char *source_dir(void)
{
	static char dir[512];

	snprintf(dir, sizeof(dir), "%s", __FILE__);
	*strrchr(dir, '/') = '\0';
	return dir;
}

static char *read_whole(const char *path)
{
	FILE *f = fopen(path, "r");
	struct buf b = {0};
	char chunk[4096];
	size_t n;

	if (f == NULL)
		return NULL;
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		assert_int_equal(buf_put(&b, chunk, n), 0);
	fclose(f);
	assert_int_equal(buf_put(&b, "", 1), 0);
	return b.p;
}

/* A template for mkstemp() and mkdtemp(). */
static void temp_template(char *dst, size_t size)
{
	const char *dir = getenv("TMPDIR");

	snprintf(dst, size, "%s/rc-config-XXXXXX", dir != NULL && *dir != '\0' ? dir : P_tmpdir);
}

/* All occurrences of `from` replaced, in a fresh string. */
static char *replace(const char *s, const char *from, const char *to)
{
	struct buf b = {0};
	const char *hit;

	while ((hit = strstr(s, from)) != NULL) {
		assert_int_equal(buf_put(&b, s, (size_t)(hit - s)), 0);
		assert_int_equal(buf_puts(&b, to), 0);
		s = hit + strlen(from);
	}
	assert_int_equal(buf_puts(&b, s), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	return b.p;
}

/* Load text as a file called "f"; problems, if any, into *problems (fresh string). */
static struct config *load_text(const char *text, const struct cli *cli, char **problems)
{
	struct buf errors = {0};
	struct config *c;
	char path[64];
	int fd = memfd_create("config", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	c = config_load(path, cli, &errors);
	close(fd);
	assert_int_equal(buf_put(&errors, "", 1), 0);
	*problems = replace(errors.p, path, "f");
	buf_free(&errors);
	return c;
}

/* What the loader says of a text; "" if it loads. Valid until the next call. */
static const char *problems_of(const char *text)
{
	static char *last;
	struct config *c;

	free(last);
	c = load_text(text, NULL, &last);
	assert_true((c == NULL) == (*last != '\0'));
	config_free(c);
	return last;
}

static struct config *must_load(const char *text, const struct cli *cli)
{
	char *problems;
	struct config *c = load_text(text, cli, &problems);

	assert_string_equal(problems, "");
	assert_non_null(c);
	free(problems);
	return c;
}

/* The effective configuration without its first line, which names the file. */
static char *printed(const struct config *c)
{
	char *text = NULL, *rest;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	assert_int_equal(config_print(c, f), 0);
	fclose(f);
	rest = strdup(strchr(text, '\n') + 1);
	free(text);
	return rest;
}

/* ---- whole files ---- */

static void round_trip(const struct config *c)
{
	char *first = printed(c), *second;
	struct config *again = must_load(first, NULL);

	second = printed(again);
	assert_string_equal(first, second);
	config_free(again);
	free(first);
	free(second);
}

static void one_file(const char *path)
{
	struct buf errors = {0};
	struct config *c = config_load(path, NULL, &errors);
	char *expect_path = replace(path, ".conf", ".expect"), *expected = read_whole(expect_path), *got,
	     *dir = NULL;

	assert_int_equal(buf_put(&errors, "", 1), 0);
	assert_true(asprintf(&dir, "%s/config/", source_dir()) > 0);
	got = replace(errors.p, dir, "");
	assert_string_equal(got, expected ? expected : "");
	assert_true((c == NULL) == (expected != NULL));
	if (c != NULL)
		round_trip(c);
	config_free(c);
	buf_free(&errors);
	free(expect_path);
	free(expected);
	free(got);
	free(dir);
}

static void test_files(void **state)
{
	glob_t g;
	char pattern[600];

	(void)state;
	snprintf(pattern, sizeof(pattern), "%s/config/*.conf", source_dir());
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_true(g.gl_pathc >= 6);
	for (size_t i = 0; i < g.gl_pathc; i++) {
		print_message("  %s\n", g.gl_pathv[i]);
		one_file(g.gl_pathv[i]);
	}
	globfree(&g);
}

static void test_defaults(void **state)
{
	struct buf errors = {0};
	struct config *c = config_load(NULL, NULL, &errors);

	(void)state;
	assert_non_null(c);
	assert_int_equal(errors.len, 0);
	assert_null(c->file);
	assert_int_equal(c->workers, value_auto_workers());
	assert_int_equal(c->n_listens, 1);
	assert_string_equal(c->listens[0].host, "127.0.0.1");
	assert_int_equal(c->listens[0].port, 8080);
	assert_int_equal(c->n_admins, 1);
	assert_int_equal(c->admins[0].port, 8081);
	assert_null(c->admins[0].api_key);
	assert_null(c->redis.url);
	assert_int_equal(c->redis.resend_delay, 1000);
	assert_int_equal(c->log_level, LOG_INFO);
	assert_int_equal(c->ring.size, 64 * 1024 * 1024);
	assert_int_equal(c->limits.max_message, 65536);
	assert_int_equal(c->n_namespaces, 2);
	assert_string_equal(c->namespaces[0].name, "demo");
	assert_string_equal(c->namespaces[0].path_prefix, "/ws/");
	assert_string_equal(c->namespaces[0].path_suffix, "");
	assert_int_equal(c->namespaces[0].room, CFG_ROOM_PATH);
	assert_int_equal(c->namespaces[0].publish, CFG_SRC_CLIENT | CFG_SRC_API | CFG_SRC_REDIS);
	assert_int_equal(c->namespaces[0].n_origins, 1);
	assert_string_equal(c->namespaces[0].origins[0], "*");
	assert_string_equal(c->namespaces[1].name, "echo");
	assert_int_equal(c->namespaces[1].room, CFG_ROOM_CONN);
	assert_string_equal(c->namespaces[1].redis_prefix, "echo:");
	assert_int_equal(c->namespaces[1].publish, CFG_SRC_CLIENT);
	round_trip(c);
	config_free(c);
	buf_free(&errors);
}

static void test_missing_file(void **state)
{
	struct buf errors = {0};

	(void)state;
	assert_null(config_load("/nonexistent/rc.conf", NULL, &errors));
	assert_int_equal(buf_put(&errors, "", 1), 0);
	assert_string_equal(errors.p, "/nonexistent/rc.conf: No such file or directory\n");
	errors.len = 0;
	assert_null(config_load("/", NULL, &errors));
	assert_int_equal(buf_put(&errors, "", 1), 0);
	assert_string_equal(errors.p, "/: not a regular file\n");
	buf_free(&errors);
}

/* Values of good-all.conf that -T masks or cannot show. */
static void test_good_values(void **state)
{
	char path[600];
	struct buf errors = {0};
	struct config *c;
	const struct cfg_namespace *ns;
	char channel[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/config/good-all.conf", source_dir());
	c = config_load(path, NULL, &errors);
	assert_non_null(c);
	assert_string_equal(c->file, path);
	assert_string_equal(c->log_file, "it's.log");
	assert_string_equal(c->admins[0].api_key, "secret-key");
	assert_string_equal(c->admins[0].host, "*");
	assert_null(c->admins[1].api_key);
	assert_string_equal(c->listens[1].host, "::1");
	assert_true(c->listens[2].is_unix);
	assert_int_equal(c->listens[2].mode, 0600);
	assert_true(c->redis.tls);
	assert_false(c->redis.tls_verify);
	assert_string_equal(c->redis.user, "me");
	assert_string_equal(c->redis.password, "p@ss/w:rd");
	assert_string_equal(c->redis.host, "redis.example");
	assert_int_equal(c->redis.port, 6390);
	assert_int_equal(c->redis.db, 3);
	assert_int_equal(c->redis.resend_delay, 0);
	ns = config_find(c, (struct slice){"family", 6});
	assert_non_null(ns);
	assert_string_equal(ns->route_key, "track \"id\"");
	assert_string_equal(ns->path_prefix, "/feed/");
	assert_string_equal(ns->path_suffix, "/live");
	assert_int_equal(ns->publish, 0);
	assert_int_equal(ns->opcode, CFG_OPCODE_BINARY);
	assert_int_equal(ns->slow, CFG_SLOW_SKIP);
	assert_true(ns->on_gap_close);
	assert_true(ns->eager);
	assert_int_equal(ns->n_origins, 2);
	assert_int_equal(ns->max_message, 3072);
	assert_int_equal(config_redis_channel(ns, (struct slice){"x", 1}, channel, sizeof(channel)), 6);
	assert_string_equal(channel, "family");
	ns = config_find(c, (struct slice){"own", 3});
	assert_int_equal(config_redis_channel(ns, (struct slice){"r1", 2}, channel, sizeof(channel)), 8);
	assert_string_equal(channel, "own:r1:x");
	assert_int_equal(config_redis_channel(ns, (struct slice){"r1", 2}, channel, 9), 8);
	assert_int_equal(config_redis_channel(ns, (struct slice){"r1", 2}, channel, 8), 0);
	assert_null(config_find(c, (struct slice){"ow", 2}));
	config_free(c);
	buf_free(&errors);

	c = must_load("namespace a { path = '/{room}' redis_channel = '{room}' }", NULL);
	assert_int_equal(
		config_redis_channel(c->namespaces, (struct slice){"x", 1}, channel, sizeof(channel)), 1);
	assert_int_equal(config_redis_channel(c->namespaces, (struct slice){"ringcast:m:x", 12}, channel,
					      sizeof(channel)),
			 0);
	config_free(c);
}

/* ---- single problems ---- */

static void test_problems(void **state)
{
	static const struct {
		const char *text, *expected;
	} t[] = {
		{"", ""},
		{"workers = 1", ""},
		{"workers=64 log_level=warn", ""},
		{"workers = ${RINGCAST_TEST_N}", ""},
		{"workers = ${RINGCAST_UNSET:-7}", ""},
		{"pid_file = \"${RINGCAST_TEST_N}${RINGCAST_UNSET:-}\"", ""},
		{"pid_file = '${RINGCAST_UNSET}'", ""},
		{"pid_file = \"\\${RINGCAST_UNSET}\"", ""},
		{"pid_file = \"a\\\nb\"\r\nworkers = 0",
		 "f:3: workers: \"0\" is out of range: auto, 1 to 64\n"},
		{"workers = \"${RINGCAST_TEST_BAD}\"",
		 "f:1: workers: the value of the environment variable is not valid here\n"},
		{"pid_file = \"${RINGCAST_UNSET}\"",
		 "f:1: pid_file: the environment variable RINGCAST_UNSET is not set\n"},
		{"pid_file = ${RINGCAST_UNSET}",
		 "f:1: pid_file: the environment variable RINGCAST_UNSET is not set\n"},
		{"listen \"${RINGCAST_UNSET}\" { }",
		 "f:1: listen: the environment variable RINGCAST_UNSET is not set\n"},
		{"pid_file = \"${RINGCAST_UNSET\"",
		 "f:1: malformed ${...}: ${NAME} or ${NAME:-default} is expected\n"},
		{"pid_file = \"${}\"", "f:1: malformed ${...}: ${NAME} or ${NAME:-default} is expected\n"},
		{"pid_file = a${X}", "f:1: \"${X}\" stands where a key or a section is expected\n"},
		{"pid_file = \"a\nb\"", "f:1: the string is not closed on its line\n"},
		{"pid_file = \"a", "f:1: the string is not closed\n"},
		{"pid_file = 'a\\", "f:1: bad escape sequence in a string\n"},
		{"pid_file = \"\\400\"", "f:1: bad escape sequence in a string\n"},
		{"pid_file = \"\\0\"", "f:1: bad escape sequence in a string\n"},
		{"pid_file = \"\\8\"", "f:1: bad escape sequence in a string\n"},
		{"pid_file = \"\\xg\"", "f:1: bad escape sequence in a string\n"},
		{"pid_file = \"\\n\"", "f:1: pid_file: control character in the value\n"},
		{"pid_file = \"\\x41\\102\\\"\"", ""},
		{"pid_file = \"\t\"", "f:1: control character in a string\n"},
		{"workers = 1 \x01", "f:1: control character\n"},
		{"workers = 1; user = x", "f:1: unexpected character; quote the value\n"},
		{"workers 1", "f:1: \"1\" stands where = is expected\n"},
		{"a = b \"x\\\ny\"",
		 "f:1: a: no such key\nf:1: \"x\\?y\" stands where a key or a section is expected\n"},
		{"workers }", "f:1: } stands where = or { is expected\n"},
		{"workers = ,", "f:1: , stands where a value is expected\n"},
		{"workers =", "f:1: the file ends where a value is expected\n"},
		{"'workers' = 1", "f:1: \"workers\" stands where a key or a section is expected\n"},
		{"}", "f:1: } stands where a key or a section is expected\n"},
		{"listen \"a\" backlog", "f:1: \"backlog\" stands where { is expected\n"},
		{"trusted_proxies = { \"a\" \"b\" }", "f:1: \"b\" stands where , or } is expected\n"},
		{"trusted_proxies = { = }", "f:1: = stands where a value or } is expected\n"},
		{"trusted_proxies = { \"a\" }",
		 "f:1: trusted_proxies: \"a\" is no address, ADDRESS/BITS or unix:\n"},
		{"/* never closed\n\n", "f:1: the comment is not closed\n"},
		{"# a\n// b\n/* c\n d */ nope = 1 # e\n", "f:4: nope: no such key\n"},
		{"//////\n####\n/**/ /***/ nope = 1", "f:3: nope: no such key\n"},
		{"__title = 1", "f:1: __title: no such key\n"},
		{"a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{a{",
		 "f:1: a: no such section\nf:1: sections are nested too deeply\n"},
		{"include(\"f\")", "f:1: include: /proc/self/fd/f: No such file or directory\n"},
		{"include(\"\")", "f:1: include: a plain path is expected, without \\ and ${}\n"},
		{"include(\"${HOME}/x\")", "f:1: include: a plain path is expected, without \\ and ${}\n"},
		{"include(a, b)", "f:1: , stands where ) is expected\n"},
		{"include({)", "f:1: { stands where the path of a file is expected\n"},
		{"ring { size = 1m uplink_size = 2m }", "f:1: ring.uplink_size: must not exceed ring.size\n"},
		{"ring { size = 5g }", "f:1: ring.size: \"5g\" is out of range: 1m to 4g\n"},
		{"ring { size = 1m }", ""},
		{"ring { size = 4g }", ""},
		{"limits { max_message = 16m }", ""},
		{"ring { size = 32m } limits { max_message = 16m }",
		 "f:1: limits.max_message: must not exceed a quarter of ring.size: 8m of 32m\n"},
		{"ring { size = 32m } limits { max_message = 8m max_publication = 8388609 }",
		 "f:1: limits.max_publication: must not exceed a quarter of ring.size: 8m of 32m\n"},
		{"limits { unknown_path_status = 405 }",
		 "f:1: limits.unknown_path_status: \"405\" is out of range: 403 to 404\n"},
		{"stop { close_code = 1005 }",
		 "f:1: stop.close_code: must be 1001, 1012, 1013 or 3000 to 4999\n"},
		{"stop { close_code = 4999 }", ""},
		{"redis { url = \"redis://:s3cret@h:0\" }",
		 "f:1: redis.url: host or host:port is expected in the URL, port 1 to 65535\n"},
		{"namespace a { path = '/a' slow = skip opcode = text }", ""},
		{"namespace a { path = '/a/{room}/b' }\nnamespace b { path = '/a/{room}' }", ""},
		{"namespace a { path = '/a/{room}' }\nnamespace b { path = '/a/' }", ""},
		{"namespace a { path = '/{room}/x' }\nnamespace b { path = '/y/{room}' }",
		 "f:2: namespace.path: matches the same paths as that of \"a\" (/{room}/x)\n"},
		{"namespace a { path = '/a' }\nnamespace b { path = '/a' }",
		 "f:2: namespace.path: matches the same paths as that of \"a\" (/a)\n"},
		{"namespace a { path = '/a' redis_channel = x }\nnamespace b { path = '/b' redis_channel = x "
		 "}",
		 "f:2: namespace.redis_channel: can be the same Redis channel as one of \"a\"\n"},
		{"namespace a { path = '/a/{room}' redis_channel = 'x:{room}:y' }\nnamespace b { path = '/b' "
		 "redis_channel = 'x:1:y' }",
		 "f:2: namespace.redis_channel: can be the same Redis channel as one of \"a\"\n"},
		{"namespace a { path = '/a/{room}' redis_channel = 'x:{room}:y' }\nnamespace b { path = '/b' "
		 "redis_channel = 'x:1/2:y' }",
		 ""},
		{"namespace a { path = '/a/{room}' redis_channel = 'x:{room}' }\nnamespace b { path = "
		 "'/b/{room}' redis_channel = 'x:1{room}' }",
		 "f:2: namespace.redis_channel: can be the same Redis channel as one of \"a\"\n"},
		{"namespace a { path = '/a/{room}' redis_channel = 'x:{room}' }\nnamespace b { path = "
		 "'/b/{room}' redis_channel = 'y:{room}' }",
		 ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		const char *got = problems_of(t[i].text);

		if (strcmp(got, t[i].expected) != 0)
			print_message("  text %zu: %s\n", i, t[i].text);
		assert_string_equal(got, t[i].expected);
	}
}

static void test_many_problems(void **state)
{
	struct buf b = {0};
	const char *got;
	size_t lines = 0;

	(void)state;
	for (int i = 0; i < 3000; i++)
		assert_int_equal(buf_printf(&b, "k%d = %d\n", i, i), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	got = problems_of(b.p);
	for (const char *p = got; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	assert_int_equal(lines, 1000);
	assert_memory_equal(got, "f:1: k0: no such key\nf:2: k1: no such key\n", 42);
	buf_free(&b);
}

static void test_too_many_namespaces(void **state)
{
	struct buf b = {0};

	(void)state;
	for (int i = 1; i <= CFG_MAX_NAMESPACES; i++)
		assert_int_equal(buf_printf(&b, "namespace n%d { path = '/%d' }\n", i, i), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(problems_of(b.p), "");
	b.len--;
	assert_int_equal(buf_puts(&b, "namespace one-more { path = '/more' }\n"), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(problems_of(b.p), "f:1: namespace: there are 65 of them, 64 are possible\n");
	buf_free(&b);
}

/* A file that includes itself must end, and quickly. */
static void test_include_cycle(void **state)
{
	char dir[256], path[300], *text;
	struct buf errors = {0};
	FILE *f;

	(void)state;
	temp_template(dir, sizeof(dir));
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/loop", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs("include(loop)\ninclude(loop)\n", f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_null(config_load(path, NULL, &errors));
	assert_int_equal(buf_put(&errors, "", 1), 0);
	text = replace(errors.p, dir, "D");
	assert_string_equal(text, "D/loop:1: include: files are included too deeply\n");
	free(text);
	buf_free(&errors);
	unlink(path);
	rmdir(dir);
}

/* ---- the table ---- */

/* What must stand beside a key for it to make sense, in a file of its own. */
static const char *const companions[][3] = {
	/* section, kind (the first of config_key.only, "" = any), text */
	{"namespace", "", "path = '/p'"},
	{"namespace", "", "auth = a"},
	{"namespace", "", "envelope = json"},
	{"auth", "", "type = hook"},
	{"auth", "", "url = 'http://h/'"},
	{"auth", "hook", "type = hook"},
	{"auth", "hook", "url = 'http://h/'"},
	{"auth", "jwt", "type = jwt"},
	{"auth", "jwt", "algorithms = RS256"},
	{"auth", "jwt", "keys = tests/unit/config/keys.json"},
	{"rule", "", "action = ignore"},
	{"rule", "reply", "action = reply"},
	{"rule", "reply", "frame = x"},
	{"rule", "publish", "action = publish"},
	{"rule", "publish", "frame = x"},
	{"rule", "store", "action = store"},
	{"rule", "store", "key = k"},
	{"rule", "store", "value = v"},
	{"idle", "", "frame = x"},
	{"idle", "", "after = 1s"},
};

static void put_companions(struct buf *b, const struct config_key *k)
{
	size_t kind_len = k->only == NULL ? 0 : strcspn(k->only, "|");

	for (size_t i = 0; i < ARRAY_LEN(companions); i++) {
		const char *kind = companions[i][1], *text = companions[i][2];

		if (strcmp(companions[i][0], k->section) != 0 || strlen(kind) != kind_len ||
		    (kind_len > 0 && memcmp(kind, k->only, kind_len) != 0))
			continue;
		if (strncmp(text, k->name, strlen(k->name)) != 0 || text[strlen(k->name)] != ' ')
			assert_int_equal(buf_printf(b, " %s", text), 0);
	}
}

/* A value of a key, in a file of its own: the problems. */
static const char *one_key(const struct config_key *k, const char *value)
{
	const char *around = strcmp(k->section, "rule") == 0   ? "namespace n { path = '/p' rule r"
			     : strcmp(k->section, "idle") == 0 ? "namespace n { path = '/p' idle"
							       : k->section;
	bool is_titled = strcmp(k->section, "listen") == 0 || strcmp(k->section, "admin") == 0 ||
			 strcmp(k->section, "namespace") == 0 || strcmp(k->section, "auth") == 0;
	const char *problems;
	struct buf b = {0};

	if (strcmp(k->section, "namespace") == 0)
		assert_int_equal(buf_puts(&b, "auth a { type = hook url = 'http://h/' } "), 0);
	assert_int_equal(buf_printf(&b, "%s%s%s %s = %s", around,
				    !is_titled                             ? ""
				    : strcmp(k->section, "namespace") == 0 ? " n"
									   : " unix:x",
				    *k->section ? " {" : "", k->name, value),
			 0);
	put_companions(&b, k);
	assert_int_equal(buf_puts(&b, around != k->section ? " } }" : *k->section ? " }" : ""), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	problems = problems_of(b.p);
	buf_free(&b);
	return problems;
}

static bool is_number(const struct config_key *k)
{
	return k->type == CKEY_UINT || k->type == CKEY_SIZE || k->type == CKEY_DURATION ||
	       k->type == CKEY_OCTAL;
}

/* Keys whose ends depend on others, or that have no number just outside. */
static bool is_entangled(const struct config_key *k)
{
	static const char *const names[] = {"uplink_size", "backoff_min", "backoff_max", "close_code",
					     "offline_max", "memory_limit"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(k->name, names[i]) == 0)
			return true;
	return false;
}

static void test_bounds(void **state)
{
	struct config_text t;
	char value[64];

	(void)state;
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		const char *unit = k->type == CKEY_DURATION ? "ms" : "";
		const char *fmt = k->type == CKEY_OCTAL ? "%lo%s" : "%lu%s";

		if (k->when != CKEY_NOW || !is_number(k) || is_entangled(k))
			continue;
		assert_string_equal(one_key(k, config_key_format(k, k->min, &t)), "");
		assert_string_equal(one_key(k, config_key_format(k, k->max, &t)), "");
		snprintf(value, sizeof(value), fmt, (unsigned long)k->max + 1, unit);
		assert_non_null(strstr(one_key(k, value), "out of range"));
		if (k->min > 0 && (!k->zero_ok || k->min > 1)) {
			snprintf(value, sizeof(value), fmt, (unsigned long)k->min - 1, unit);
			assert_non_null(strstr(one_key(k, value), "out of range"));
		}
		assert_true((*one_key(k, "0") == '\0') == (k->min == 0 || k->zero_ok));
	}
}

/* Every key has a default that can be read, help, and a place that nobody else uses. */
static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		assert_true(k->help != NULL && *k->help != '\0');
		if (k->def != NULL && k->when != CKEY_PARAM)
			assert_string_equal(one_key(k, k->def), "");
		for (size_t j = 0; j < i; j++) {
			const struct config_key *o = &config_keys[j];

			if (strcmp(k->section, o->section) != 0)
				continue;
			assert_string_not_equal(k->name, o->name);
			if (k->size > 0 && o->size > 0)
				assert_true(k->offset >= o->offset + o->size ||
					    o->offset >= k->offset + k->size);
		}
	}
}

/* Keys of later versions: neutral values pass, others are refused; nothing is ignored silently. */
static void test_later(void **state)
{
	(void)state;
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		const char *value = k->type == CKEY_BOOL     ? "on"
				    : k->type == CKEY_LIST   ? "{ 'x' }"
				    : k->type == CKEY_STRING ? "x"
							     : "1";

		if (k->when == CKEY_LATER)
			assert_non_null(strstr(one_key(k, value), ": not in this version\n"));
	}
}

/* ---- docs and etc ---- */

/* The row of a key in docs/configuration.md. RINGCAST_PRINT_ROWS=1 prints all of them, to be pasted there. */
static char *doc_row(const struct config_key *k)
{
	static const char *const types[] = {
		[CKEY_UINT] = "number",
		[CKEY_SIZE] = "size",
		[CKEY_DURATION] = "duration",
		[CKEY_BOOL] = "",
		[CKEY_ENUM] = "",
		[CKEY_OCTAL] = "octal",
		[CKEY_WORKERS] = "number",
		[CKEY_STRING] = "string",
		[CKEY_LIST] = "list",
		[CKEY_TEMPLATE] = "template",
	};
	struct config_range range;
	char *row = NULL;
	const char *r = config_key_range(k, &range);

	assert_true(asprintf(&row, "| `%s` | %s%s%s | %s%s%s | %s | %s |\n", k->name, types[k->type],
			     *types[k->type] && *r ? ": " : "", r, k->def ? "`" : "", k->def ? k->def : "",
			     k->def ? "`" : "", k->reloadable ? "yes" : "no", k->help) > 0);
	return row;
}

/* The text of "## `name`" up to the next heading, in a fresh string; NULL if there is none. */
static char *doc_section(const char *doc, const char *name)
{
	const char *p, *end;
	char heading[64];

	snprintf(heading, sizeof(heading), "\n## %s%s%s\n", *name ? "`" : "",
		 *name ? name : "Outside of any section", *name ? "`" : "");
	p = strstr(doc, heading);
	if (p == NULL)
		return NULL;
	end = strstr(p + strlen(heading), "\n## ");
	return end == NULL ? strdup(p) : strndup(p, (size_t)(end - p) + 1);
}

static void print_rows(void)
{
	const char *section = NULL;

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		char *row;

		if (k->when != CKEY_NOW)
			continue;
		if (section == NULL || strcmp(section, k->section) != 0)
			printf("\n## `%s`\n", k->section);
		section = k->section;
		row = doc_row(k);
		fputs(row, stdout);
		free(row);
	}
}

static void test_docs(void **state)
{
	char path[600], *doc;

	(void)state;
	if (getenv("RINGCAST_PRINT_ROWS") != NULL)
		print_rows();
	snprintf(path, sizeof(path), "%s/../../docs/configuration.md", source_dir());
	doc = read_whole(path);
	assert_non_null(doc);
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		bool now = k->when == CKEY_NOW;
		char *section = doc_section(doc, now ? k->section : "later"), *row = NULL;

		assert_non_null(section);
		if (now)
			row = doc_row(k);
		else
			assert_true(asprintf(&row, "`%s%s%s`", k->section, *k->section ? "." : "", k->name) >
				    0);
		if (strstr(section, row) == NULL)
			fail_msg("docs/configuration.md lacks in \"%s\": %s", now ? k->section : "later",
				 row);
		free(section);
		free(row);
	}
	free(doc);
}

/* etc/ringcast.conf: prose begins with "# ", a setting at its default with "#", an example of a key without
 * one with "##". Uncommented (but for the examples), it must mean the same. */
static char *uncommented(const char *text)
{
	struct buf b = {0};

	for (const char *p = text; *p != '\0';) {
		const char *end = strchrnul(p, '\n'), *q = p + strspn(p, "\t ");

		if (q[0] == '#' && q[1] != '#' && q[1] != ' ' && q[1] != '\n')
			q++;
		assert_int_equal(buf_put(&b, q, (size_t)(end - q)), 0);
		assert_int_equal(buf_put(&b, "\n", 1), 0);
		p = *end == '\0' ? end : end + 1;
	}
	assert_int_equal(buf_put(&b, "", 1), 0);
	return b.p;
}

/* Does `name =` stand in a section of that kind, commented or not? A section opens and closes on lines of its
 * own. */
static bool etc_has(const char *text, const char *section, const char *name)
{
	char inside[4][32] = {""};
	size_t depth = 0;

	for (const char *p = text; *p != '\0';) {
		const char *end = strchrnul(p, '\n'), *q = p + strspn(p, "\t ");
		size_t hashes = strspn(q, "#"), len;

		q += hashes;
		p = *end == '\0' ? end : end + 1;
		len = strspn(q, "abcdefghijklmnopqrstuvwxyz_");
		if (hashes > 0 && *q == ' ')
			continue; /* prose */
		if (*q == '}') {
			assert_true(depth > 0);
			depth--;
		} else if (len > 0 && end[-1] == '{') {
			assert_true(++depth < ARRAY_LEN(inside));
			snprintf(inside[depth], sizeof(inside[0]), "%.*s", (int)len, q);
		} else if (len == strlen(name) && memcmp(q, name, len) == 0 &&
			   strncmp(q + len, " =", 2) == 0 && strcmp(inside[depth], section) == 0) {
			return true;
		}
	}
	assert_int_equal(depth, 0);
	return false;
}

static void test_etc(void **state)
{
	char path[600], *text, *active, *as_is, *all, *problems;
	struct config *c;

	(void)state;
	snprintf(path, sizeof(path), "%s/../../etc/ringcast.conf", source_dir());
	text = read_whole(path);
	assert_non_null(text);
	for (size_t i = 0; i < config_n_keys; i++)
		if (config_keys[i].when == CKEY_NOW &&
		    !etc_has(text, config_keys[i].section, config_keys[i].name))
			fail_msg("etc/ringcast.conf lacks %s.%s", config_keys[i].section,
				 config_keys[i].name);
	c = must_load(text, NULL);
	as_is = printed(c);
	config_free(c);
	active = uncommented(text);
	c = load_text(active, NULL, &problems);
	assert_string_equal(problems, "");
	all = printed(c);
	assert_string_equal(as_is, all);
	config_free(c);
	free(problems);
	free(active);
	free(as_is);
	free(all);
	free(text);
}

/* ---- etc/feeds.conf ---- */

static const struct cfg_rule *find_rule(const struct cfg_namespace *ns, const char *name)
{
	for (size_t i = 0; i < ns->n_rules; i++)
		if (strcmp(ns->rules[i].name, name) == 0)
			return &ns->rules[i];
	fail_msg("no rule %s", name);
	return NULL;
}

static const struct cfg_namespace *must_find(const struct config *c, const char *name)
{
	const struct cfg_namespace *ns = config_find(c, (struct slice){name, strlen(name)});

	if (ns == NULL)
		fail_msg("no namespace %s", name);
	return ns;
}

/* What the five have in common, and where they differ. */
static void check_feeds(const struct config *c)
{
	static const struct {
		const char *name, *prefix, *route_key, *user_query;
		bool room_is_int, targeted_only, first_frames, is_greeted;
		enum cfg_refuse refuse;
		uint32_t idle;
	} t[] = {
		{"broadcasts", "/api/creator/broadcast/ws", NULL, "user_id", false, false, true, true,
		 CFG_REFUSE_403, 30000},
		{"track_comments", "/api/ws/track/", "track_id", "user_id", false, false, false, true,
		 CFG_REFUSE_403, 0},
		{"forum_threads", "/api/forum/ws/thread/", "thread_id", NULL, true, false, false, true,
		 CFG_REFUSE_CLOSE, 30000},
		{"forum_global", "/api/forum/ws/global", NULL, NULL, false, false, false, true,
		 CFG_REFUSE_CLOSE, 30000},
		{"book_requests", "/api/book-requests/ws", NULL, "user_id", false, true, true, false,
		 CFG_REFUSE_403, 30000},
	};

	assert_int_equal(c->n_namespaces, ARRAY_LEN(t));
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		const struct cfg_namespace *ns = must_find(c, t[i].name);

		assert_string_equal(ns->path_prefix, t[i].prefix);
		assert_string_equal(ns->redis_prefix, t[i].name);
		assert_false(ns->redis_has_room);
		assert_int_equal(ns->envelope, CFG_ENVELOPE_JSON);
		assert_true(ns->eager && ns->presence && ns->n_origins == 0 && ns->bad_frames == 5);
		assert_int_equal(ns->max_message, 16384);
		assert_ptr_equal(ns->auth, &c->auths[0]);
		assert_string_equal(ns->route_key ? ns->route_key : "-",
				    t[i].route_key ? t[i].route_key : "-");
		assert_string_equal(ns->user_query ? ns->user_query : "-",
				    t[i].user_query ? t[i].user_query : "-");
		assert_int_equal(ns->user_query_is_int, t[i].user_query != NULL);
		assert_int_equal(ns->room_is_int, t[i].room_is_int);
		assert_int_equal(ns->targeted_only, t[i].targeted_only);
		assert_int_equal(ns->hook_first_frames, t[i].first_frames);
		assert_int_equal(ns->greeting != NULL, t[i].is_greeted);
		assert_int_equal(ns->refuse, t[i].refuse);
		assert_int_equal(ns->idle.after, t[i].idle);
		assert_false(ns->idle.any_frame);
	}
	assert_int_equal(c->stop.close_code, 1012);
	assert_int_equal(c->limits.unknown_path_status, 403);
	assert_int_equal(c->auths[0].type, CFG_AUTH_HOOK);
	assert_int_equal(c->auths[0].recheck, 60000);
}

/* A frame of feeds.conf for user 7 in room 5. */
static const char *frame_of(const struct template *t)
{
	static const char info[] = "{\"username\":\"alice\",\"tag\":\"0123abcd\"}";
	static const char value[] = "{\"id\":\"b1\",\"message\":\"hi\",\"type\":\"alert\",\"created_by\":3,"
				    "\"created_at\":\"now\"}";
	static const struct slice msg[] = {{"false", 5}};
	static const struct template_values v = {
		.room = {"5", 1},
		.user = {"7", 1},
		.monotonic_us = 1500000,
		.msg = msg,
		.info = {info, sizeof(info) - 1},
		.value = {value, sizeof(value) - 1},
	};
	static struct buf out;

	buf_free(&out);
	assert_int_equal(template_render(t, &v, TEMPLATE_AS_JSON, &out), 0);
	assert_int_equal(buf_put(&out, "", 1), 0);
	return out.p;
}

static void check_feed_frames(const struct config *c)
{
	const struct cfg_namespace *ns = must_find(c, "broadcasts");
	const struct cfg_rule *r;

	assert_string_equal(frame_of(ns->greeting),
			    "{\"type\":\"connected\",\"message\":\"Connected to broadcast live updates\"}");
	assert_string_equal(frame_of(ns->idle.frame), "ping");
	r = find_rule(ns, "ping");
	assert_true(r->match == CFG_MATCH_TEXT && r->action == CFG_ACTION_REPLY);
	assert_string_equal(frame_of(r->frame), "pong");
	assert_int_equal(find_rule(ns, "pong")->action, CFG_ACTION_IGNORE);
	ns = must_find(c, "track_comments");
	assert_string_equal(
		frame_of(ns->greeting),
		"{\"type\":\"connected\",\"track_id\":\"5\",\"message\":\"Connected to comment updates\"}");
	r = find_rule(ns, "typing");
	assert_true(r->action == CFG_ACTION_PUBLISH && r->is_low && r->throttle == 1000);
	assert_string_equal(frame_of(r->frame), "{\"type\":\"user_typing\",\"track_id\":\"5\",\"user_id\":7,"
						"\"username\":\"alice\",\"is_typing\":false}");
	ns = must_find(c, "forum_threads");
	assert_string_equal(frame_of(ns->greeting),
			    "{\"type\":\"connected\",\"thread_id\":5,\"message\":\"Connected to "
			    "thread 5 live updates\",\"user_id\":7}");
	assert_string_equal(frame_of(find_rule(ns, "typing")->frame),
			    "{\"type\":\"user_typing\",\"thread_id\":5,\"user_id\":7,\"username\":\"alice\","
			    "\"is_typing\":false}");
	assert_string_equal(frame_of(find_rule(ns, "ping")->frame), "{\"type\":\"pong\"}");
	assert_string_equal(frame_of(ns->idle.frame), "{\"type\":\"heartbeat\",\"timestamp\":1.500000}");
	ns = must_find(c, "forum_global");
	assert_string_equal(
		frame_of(ns->greeting),
		"{\"type\":\"connected\",\"message\":\"Connected to global forum updates\",\"user_id\":7,"
		"\"session_id\":\"0123abcd...\"}");
	assert_string_equal(frame_of(find_rule(ns, "ping")->frame),
			    "{\"type\":\"pong\",\"timestamp\":1.500000}");
	assert_string_equal(frame_of(find_rule(ns, "heartbeat")->frame), "{\"type\":\"heartbeat_ack\"}");
	ns = must_find(c, "book_requests");
	assert_int_equal(find_rule(ns, "refresh_quota")->action, CFG_ACTION_FORWARD);
	assert_int_equal(find_rule(ns, "refresh_pending")->action, CFG_ACTION_FORWARD);
}

/* What the file offers in comments instead must work, too. */
static void check_feed_alternative(const char *text)
{
	char *a = replace(text, "#+ ", ""),
	     *b = replace(a, "rule \"get_active_broadcast\" { action = \"forward\" }", ""),
	     *d = replace(b, "rule \"acknowledge_broadcast\" { action = \"forward\" }", "");
	struct config *c = must_load(d, NULL);
	const struct cfg_namespace *ns = must_find(c, "broadcasts");
	const struct cfg_rule *ack = find_rule(ns, "acknowledge_broadcast");

	assert_int_equal(ns->retain, CFG_RETAIN_REDIS);
	assert_string_equal(frame_of(ns->retain_key), "current_broadcast");
	assert_string_equal(frame_of(ns->retain_unless), "broadcast:b1:ack:7");
	assert_string_equal(frame_of(ns->retain_frame),
			    "{\"type\":\"active_broadcast\",\"broadcast\":{\"id\":\"b1\",\"message\":\"hi\","
			    "\"message_type\":\"alert\",\"created_by\":3,\"created_at\":\"now\"}}");
	assert_int_equal(find_rule(ns, "get_active_broadcast")->action, CFG_ACTION_RETAINED);
	assert_true(ack->action == CFG_ACTION_STORE && ack->ttl == 24 * 3600 * 1000 && ack->n_coerce == 1);
	assert_string_equal(template_text(ack->key), "broadcast:{msg.broadcast_id}:ack:{user}");
	assert_string_equal(template_text(ack->value), "1");
	config_free(c);
	free(a);
	free(b);
	free(d);
}

/* And the legacy mode. */
static void check_feed_legacy(const char *text)
{
	char *a = replace(text, "#auth \"legacy\"", "auth \"legacy\"");
	char *b = replace(a, "route_key = \"track_id\"\n\tauth = \"app\"",
			  "route_key = \"track_id\"\n\tauth = \"legacy\"");
	char *d = replace(b, "\"username\":\"{info.username}\"", "\"username\":\"?\"");
	struct config *c = must_load(d, NULL);

	assert_int_equal(must_find(c, "track_comments")->auth->type, CFG_AUTH_QUERY);
	assert_int_equal(must_find(c, "broadcasts")->auth->type, CFG_AUTH_HOOK);
	config_free(c);
	free(a);
	free(b);
	free(d);
}

static void test_feeds(void **state)
{
	char path[600], *text;
	struct config *c;

	(void)state;
	unsetenv("REDIS_URL");
	unsetenv("RINGCAST_HOOK_URL");
	snprintf(path, sizeof(path), "%s/../../etc/feeds.conf", source_dir());
	text = read_whole(path);
	assert_non_null(text);
	c = must_load(text, NULL);
	assert_string_equal(c->auths[0].url, "http://127.0.0.1:8000/internal/ws");
	assert_string_equal(c->redis.url, "redis://127.0.0.1:6379/0");
	check_feeds(c);
	check_feed_frames(c);
	round_trip(c);
	config_free(c);
	setenv("REDIS_URL", "sentinel://s1,s2/main", 1);
	setenv("RINGCAST_HOOK_URL", "unix:/run/app.sock:/hook", 1);
	c = must_load(text, NULL);
	assert_string_equal(c->auths[0].url, "unix:/run/app.sock:/hook");
	assert_string_equal(c->redis.sentinel_name, "main");
	config_free(c);
	unsetenv("REDIS_URL");
	unsetenv("RINGCAST_HOOK_URL");
	check_feed_alternative(text);
	check_feed_legacy(text);
	free(text);
}

/* Values of good-feeds.conf that -T masks or cannot show. */
static void test_feed_values(void **state)
{
	char path[600];
	struct buf errors = {0};
	const struct cfg_namespace *ns;
	const struct cfg_auth *a;
	struct config *c;

	(void)state;
	snprintf(path, sizeof(path), "%s/config/good-feeds.conf", source_dir());
	c = config_load(path, NULL, &errors);
	assert_non_null(c);
	a = &c->auths[0];
	assert_string_equal(a->secret, "secret-key");
	assert_int_equal(a->n_cache_key, 3);
	assert_int_equal(a->cache_key[1].place, CFG_PLACE_HEADER);
	assert_string_equal(a->cache_key[1].name, "x-device");
	assert_string_equal(a->cache_key[2].name, "a.b");
	assert_int_equal(a->recheck, 0);
	assert_null(a->user_claim);
	assert_int_equal(a->leeway, 0);
	assert_int_equal(c->auths[1].recheck, 60000); /* the default of a hook */
	assert_null(c->auths[1].secret);
	a = &c->auths[2];
	assert_int_equal(a->type, CFG_AUTH_JWT);
	assert_int_equal(a->algorithms, CFG_ALG_RS256 | CFG_ALG_ES256 | CFG_ALG_EDDSA);
	assert_int_equal(a->keys_len, strlen(a->keys_text));
	assert_memory_equal(a->keys_text, "{\"keys\":[", 9);
	assert_int_equal(a->n_from, 5);
	assert_null(a->from[0].name);
	assert_string_equal(a->from[1].name, "x-token");
	assert_int_equal(a->from[4].place, CFG_PLACE_SUBPROTOCOL);
	assert_string_equal(a->user_claim, "uid");
	assert_null(a->groups_claim);
	assert_int_equal(a->recheck, 0);
	assert_int_equal(a->concurrency, 0);
	a = &c->auths[3];
	assert_int_equal(a->algorithms, CFG_ALG_HS256);
	assert_int_equal(a->n_from, 1); /* the default */
	assert_true(a->from[0].place == CFG_PLACE_HEADER && a->from[0].name == NULL);
	assert_string_equal(a->user_claim, "sub");
	assert_string_equal(a->groups_claim, "groups");
	assert_null(a->audience);
	assert_int_equal(c->limits.msg_burst, 5);
	assert_int_equal(c->limits.connect_burst, 9);
	ns = must_find(c, "broadcasts");
	assert_true(ns->msg_rate == 5 && ns->msg_burst == 50 && ns->user_rate == 0);
	assert_int_equal(ns->bad_frames, 0);
	assert_true(ns->idle.any_frame);
	assert_string_equal(find_rule(ns, "it's a \"text\"")->name, "it's a \"text\"");
	assert_int_equal(ns->rules[1].coerce[0].as, CFG_COERCE_INT);
	assert_string_equal(ns->rules[1].coerce[1].name, "s");
	ns = must_find(c, "comments");
	assert_true(ns->msg_rate == 100 && ns->msg_burst == 100 && ns->user_rate == 7);
	ns = must_find(c, "threads");
	assert_true(ns->room_is_int);
	assert_string_equal(ns->path_prefix, "/t/");
	assert_string_equal(ns->path_suffix, "/live");
	ns = must_find(c, "requests");
	assert_ptr_equal(ns->auth, &c->auths[4]);
	assert_string_equal(ns->user_query, "id");
	assert_false(ns->user_query_is_int);
	assert_int_equal(ns->idle.after, 0);
	config_free(c);
	buf_free(&errors);
}

static void test_too_many_parts(void **state)
{
	struct buf b = {0};

	(void)state;
	for (int i = 0; i <= CFG_MAX_AUTHS; i++)
		assert_int_equal(buf_printf(&b, "auth a%d { type = query }\n", i), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(problems_of(b.p), "f: auth: there are 33 of them, 32 are possible\n");
	b.len = 0;
	assert_int_equal(buf_puts(&b, "namespace n { path = '/'\n"), 0);
	for (int i = 0; i <= CFG_MAX_RULES; i++)
		assert_int_equal(buf_printf(&b, "rule r%d { action = ignore }\n", i), 0);
	assert_int_equal(buf_puts(&b, "}"), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(problems_of(b.p), "f:1: namespace: there are 65 rules, 64 are possible\n");
	b.len = 0;
	assert_int_equal(
		buf_puts(&b, "namespace n { path = '/' rule r { action = reply frame = x coerce = { a:int"),
		0);
	for (int i = 0; i < CFG_MAX_FIELDS; i++)
		assert_int_equal(buf_printf(&b, ", 'a%d:int'", i), 0);
	assert_int_equal(buf_puts(&b, "} } }"), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	assert_string_equal(problems_of(b.p), "f:1: rule.coerce: there are 17 fields, 16 are possible\n");
	buf_free(&b);
}

/* ---- options ---- */

static int parse(struct cli *cli, char **said, ...)
{
	char *argv[64] = {(char *)"ringcast"};
	size_t len;
	FILE *err;
	va_list ap;
	int argc = 1, rc;

	va_start(ap, said);
	while ((argv[argc] = va_arg(ap, char *)) != NULL)
		argc++;
	va_end(ap);
	err = open_memstream(said, &len);
	assert_non_null(err);
	rc = cli_parse(argc, argv, cli, err);
	fclose(err);
	return rc;
}

static void test_cli(void **state)
{
	struct cli cli;
	char *said;

	(void)state;
	assert_int_equal(parse(&cli, &said, NULL), 0);
	assert_int_equal(cli.action, CLI_RUN);
	assert_null(cli.config_file);
	assert_null(cli.redis);
	free(said);
	assert_int_equal(parse(&cli, &said, "-tc", "a.conf", "--listen", "*:1", "--listen=unix:/x", "--admin",
			       "[::]:0", "--workers", "auto", "--redis", "", "--log-level", "debug", "--pid",
			       "p", NULL),
			 0);
	assert_int_equal(cli.action, CLI_TEST);
	assert_string_equal(cli.config_file, "a.conf");
	assert_int_equal(cli.n_listens, 2);
	assert_string_equal(cli.listens[1], "unix:/x");
	assert_int_equal(cli.n_admins, 1);
	assert_true(cli.has_workers);
	assert_int_equal(cli.workers, value_auto_workers());
	assert_string_equal(cli.redis, "");
	assert_int_equal(cli.log_level, LOG_DEBUG);
	assert_string_equal(cli.pid_file, "p");
	free(said);
	assert_int_equal(parse(&cli, &said, "-s", "upgrade", NULL), 0);
	assert_int_equal(cli.action, CLI_SIGNAL);
	assert_int_equal(cli.signal, SIGUSR2);
	free(said);
	assert_int_equal(parse(&cli, &said, "--version", NULL), 0);
	assert_int_equal(cli.action, CLI_VERSION);
	free(said);
}

static void test_cli_errors(void **state)
{
	static char *const t[][4] = {
		{(char *)"--nope", NULL, (char *)"unknown or ambiguous option: --nope"},
		{(char *)"-x", NULL, (char *)"unknown or ambiguous option: x"},
		{(char *)"--listen", NULL, (char *)"the option needs a value: --listen"},
		{(char *)"file", NULL, (char *)"unexpected argument: file"},
		{(char *)"-tV", NULL, (char *)"only one of -t, -T, -s, -V and -h is possible"},
		{(char *)"-sstart", NULL, (char *)"-s: reload, upgrade, reopen, stop or quit is expected"},
		{(char *)"-c", (char *)"", (char *)"-c: a file is expected"},
		{(char *)"--workers", (char *)"65",
		 (char *)"--workers: \"65\" is out of range: auto, 1 to 64"},
		{(char *)"--listen", (char *)"8080",
		 (char *)"--listen: \"8080\" has no port: ADDRESS:PORT or unix:PATH is expected"},
		{(char *)"--redis", (char *)"localhost",
		 (char *)"--redis: redis://, rediss://, unix:/// or sentinel:// is expected"},
		{(char *)"--log-level", (char *)"all",
		 (char *)"--log-level: error, warn, info or debug is expected"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct cli cli;
		char *said;

		assert_int_equal(parse(&cli, &said, t[i][0], t[i][1], NULL), -1);
		assert_memory_equal(said, "ringcast: ", 10);
		*strchr(said, '\n') = '\0';
		assert_string_equal(said + 10, t[i][2]);
		free(said);
	}
}

static void test_overrides(void **state)
{
	struct cli cli = {.listens = {"127.0.0.1:1", "unix:/run/x"},
			  .n_listens = 2,
			  .admins = {"127.0.0.1:2"},
			  .n_admins = 1,
			  .has_workers = true,
			  .workers = 5,
			  .has_log_level = true,
			  .log_level = LOG_ERROR,
			  .redis = "",
			  .pid_file = "p"};
	struct config *c =
		must_load("workers = 2 log_level = debug pid_file = q listen '127.0.0.1:9' { backlog = 7 } "
			  "admin '127.0.0.1:8' { api_key = k } redis { url = 'redis://h' }",
			  &cli);
	char *problems;

	(void)state;
	assert_int_equal(c->n_listens, 2);
	assert_int_equal(c->listens[0].port, 1);
	assert_int_equal(c->listens[0].backlog, 4096);
	assert_string_equal(c->listens[1].path, "/run/x");
	assert_int_equal(c->listens[1].mode, 0660);
	assert_int_equal(c->n_admins, 1);
	assert_int_equal(c->admins[0].port, 2);
	assert_string_equal(c->admins[0].api_key, "k"); /* an option must not take the lock off */
	assert_int_equal(c->workers, 5);
	assert_int_equal(c->log_level, LOG_ERROR);
	assert_null(c->redis.url);
	assert_null(c->redis.host);
	assert_string_equal(c->pid_file, "p");
	config_free(c);

	cli = (struct cli){
		.listens = {"127.0.0.1:5", "127.0.0.1:5"}, .n_listens = 2, .redis = "unix:///r.sock?db=4"};
	c = load_text("", &cli, &problems);
	assert_null(c);
	assert_string_equal(problems, "listen: 127.0.0.1:5 is taken by another listener\n");
	free(problems);
	cli.n_listens = 1;
	c = must_load("", &cli);
	assert_true(c->redis.is_unix);
	assert_string_equal(c->redis.path, "/r.sock");
	assert_int_equal(c->redis.db, 4);
	assert_int_equal(c->n_admins, 1);
	config_free(c);
}

static void test_signal(void **state)
{
	char path[256], text[32], *said = NULL;
	int fd, status;
	size_t len;
	FILE *err = open_memstream(&said, &len);
	pid_t child;

	(void)state;
	temp_template(path, sizeof(path));
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(cli_send_signal(NULL, SIGTERM, err), 2);
	assert_int_equal(cli_send_signal("", SIGTERM, err), 2);
	assert_int_equal(cli_send_signal("/nonexistent/pid", SIGTERM, err), 2);
	assert_int_equal(cli_send_signal(path, SIGTERM, err), 2); /* empty */
	assert_int_equal(pwrite(fd, "-1\n", 3, 0), 3);
	assert_int_equal(cli_send_signal(path, SIGTERM, err), 2);
	assert_int_equal(pwrite(fd, "12x", 3, 0), 3);
	assert_int_equal(cli_send_signal(path, SIGTERM, err), 2);

	child = fork();
	if (child == 0) {
		for (;;)
			pause();
	}
	snprintf(text, sizeof(text), "%d\n", (int)child);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	assert_int_equal(cli_send_signal(path, SIGTERM, err), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	assert_int_equal(cli_send_signal(path, SIGTERM, err), 2);
	fclose(err);
	assert_non_null(strstr(said, "is not running"));
	assert_non_null(strstr(said, "no process id"));
	free(said);
	close(fd);
	unlink(path);
}

static void test_version(void **state)
{
	char *said = NULL;
	size_t len;
	FILE *out = open_memstream(&said, &len);
	static const char *const names[] = {"\nhiredis ", "\nlibev ",  "\nwslay ", "\nlibconfuse ",
					    "\nopenssl ", "\nllhttp ", "\nxxhash "};

	(void)state;
	cli_print_version(out);
	fclose(out);
	assert_memory_equal(said, "ringcast " RC_VERSION "\n", sizeof("ringcast " RC_VERSION "\n") - 1);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_non_null(strstr(said, names[i]));
	free(said);
}

/* ---- values ---- */

static void test_listener(void **state)
{
	static const struct {
		const char *text, *host;
		int port; /* -1: refused */
	} t[] = {
		{"127.0.0.1:8080", "127.0.0.1", 8080},
		{"[::1]:80", "::1", 80},
		{"*:80", "*", 80},
		{":80", "*", 80},
		{"localhost:81", "127.0.0.1", 81},
		{"0.0.0.0:0", "0.0.0.0", 0},
		{"[::]:65535", "::", 65535},
		{"127.0.0.1", NULL, -1},
		{"127.0.0.1:", NULL, -1},
		{"127.0.0.1:65536", NULL, -1},
		{"127.0.0.1:+1", NULL, -1},
		{"127.0.0.1: 1", NULL, -1},
		{"::1:80", NULL, -1},
		{"[::1]", NULL, -1},
		{"[127.0.0.1]:80", NULL, -1},
		{"example.com:80", NULL, -1},
		{"[]:80", NULL, -1},
		{"", NULL, -1},
		{":", NULL, -1},
		{"[::1:80", NULL, -1},
		{"127.1:80", NULL, -1},
		{"[fe80::1%lo]:80", NULL, -1},
	};
	char path[200] = "unix:/";

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct cfg_listener l = {0};
		struct value_error err;
		int rc = value_listener(t[i].text, &l, &err);

		assert_int_equal(rc, t[i].port < 0 ? -1 : 0);
		if (rc == 0) {
			assert_string_equal(l.addr, t[i].text);
			assert_string_equal(l.host, t[i].host);
			assert_int_equal(l.port, t[i].port);
		} else {
			assert_null(l.addr);
		}
		config_listener_clear(&l);
	}
	for (size_t len = 106; len <= 109; len++) { /* sun_path holds 107 bytes and a NUL */
		struct cfg_listener l = {0};
		struct value_error err;

		memset(path + 6, 'x', len - 1);
		path[5 + len] = '\0';
		assert_int_equal(value_listener(path, &l, &err), len <= 107 ? 0 : -1);
		config_listener_clear(&l);
	}
}

static void test_redis_url(void **state)
{
	static const struct {
		const char *url, *host, *user, *password;
		int port;
		unsigned db;
	} good[] = {
		{"redis://h", "h", NULL, NULL, 6379, 0},
		{"redis://h/", "h", NULL, NULL, 6379, 0},
		{"redis://127.0.0.1:7000/15", "127.0.0.1", NULL, NULL, 7000, 15},
		{"redis://[::1]:7000", "::1", NULL, NULL, 7000, 0},
		{"rediss://u:p@h:1/0", "h", "u", "p", 1, 0},
		{"redis://:p%40%2f%25@h", "h", NULL, "p@/%", 6379, 0},
		{"redis://u%3Ax:a:b@c@h", "h", "u:x", "a:b@c", 6379, 0},
	};
	static const char *const bad[] = {
		"redis:/h",        "redis://",       "redis://:6379",   "redis://h:0",
		"redis://h:65536", "redis://h:x",    "redis://h:",      "redis://h/x",
		"redis://h/1/2",   "redis://h?db=1", "redis://u@h",     "redis://:@h",
		"redis://:%@h",    "redis://:%0@h",  "redis://:%zz@h",  "redis://:%00@h",
		"redis://%:p@h",   "redis://h h",    "redis://[::1",    "redis://[::g]:1",
		"redis://[::1]x",  "redis://a_b$c",  "unix://x",        "unix://",
		"unix:///a?x",     "unix:///a?db=",  "unix:///a?db=1x", "unix:///a?db=99999999999",
		"sentinel://h",    "http://h",       "h:6379",          "redis://:p/w@h",
	};
	struct cfg_redis r = {0};
	struct value_error err;
	char *masked;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(value_redis_url(good[i].url, &r, &err), 0);
		assert_string_equal(r.url, good[i].url);
		assert_string_equal(r.host, good[i].host);
		assert_int_equal(r.port, good[i].port);
		assert_int_equal(r.db, good[i].db);
		assert_string_equal(r.user ? r.user : "-", good[i].user ? good[i].user : "-");
		assert_string_equal(r.password ? r.password : "-", good[i].password ? good[i].password : "-");
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (value_redis_url(bad[i], &r, &err) != -1)
			fail_msg("%s is taken", bad[i]);
		assert_null(r.url);
		assert_null(r.password);
	}
	assert_int_equal(value_redis_url("redis://u%3Ax:a:b@c@h:1/2", &r, &err), 0);
	masked = value_redis_masked(&r);
	assert_string_equal(masked, "redis://u%3Ax:***@h:1/2");
	free(masked);
	assert_int_equal(value_redis_url("unix:///run/r.sock?db=7", &r, &err), 0);
	assert_true(r.is_unix && !r.tls);
	assert_string_equal(r.path, "/run/r.sock");
	assert_int_equal(r.db, 7);
	assert_null(r.host);
	assert_int_equal(value_redis_url("", &r, &err), 0);
	assert_null(r.url);
	config_redis_clear(&r);
}

static void test_sentinel_url(void **state)
{
	static const char *const bad[] = {
		"sentinel://h",        "sentinel://h/",      "sentinel:///m",
		"sentinel://h1,,h2/m", "sentinel://h1,/m",   "sentinel://h:0/m",
		"sentinel://h/m/x",    "sentinel://h/m?x",   "sentinel://h/a b",
		"sentinel://u@h/m",    "sentinel://[::g]/m", "sentinel://1,2,3,4,5,6,7,8,9/m",
		"sentinels://h/m",
	};
	struct cfg_redis r = {0};
	struct value_error err;
	char *masked;

	(void)state;
	assert_int_equal(value_redis_url("sentinel://me:p%40ss@s1,[::1]:7,s3:26380/my.main-1_x/4", &r, &err),
			 0);
	assert_int_equal(r.n_sentinels, 3);
	assert_string_equal(r.sentinels[0].host, "s1");
	assert_int_equal(r.sentinels[0].port, 26379);
	assert_string_equal(r.sentinels[1].host, "::1");
	assert_int_equal(r.sentinels[1].port, 7);
	assert_int_equal(r.sentinels[2].port, 26380);
	assert_string_equal(r.sentinel_name, "my.main-1_x");
	assert_string_equal(r.host, "s1");
	assert_int_equal(r.port, 26379);
	assert_string_equal(r.user, "me");
	assert_string_equal(r.password, "p@ss");
	assert_int_equal(r.db, 4);
	assert_true(!r.tls && !r.is_unix);
	masked = value_redis_masked(&r);
	assert_string_equal(masked, "sentinel://me:***@s1,[::1]:7,s3:26380/my.main-1_x/4");
	free(masked);
	assert_int_equal(value_redis_url("sentinel://1,2,3,4,5,6,7,8/m/", &r, &err), 0);
	assert_int_equal(r.n_sentinels, 8);
	assert_int_equal(r.db, 0);
	assert_int_equal(value_redis_url("redis://h", &r, &err), 0);
	assert_int_equal(r.n_sentinels, 0);
	assert_null(r.sentinel_name);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (value_redis_url(bad[i], &r, &err) != -1)
			fail_msg("%s is taken", bad[i]);
		assert_int_equal(r.n_sentinels, 0);
	}
	config_redis_clear(&r);
}

static void test_network(void **state)
{
	static const struct {
		const char *text, *printed, *in, *out;
	} t[] = {
		{"10.0.0.0/8", "10.0.0.0/8", "::ffff:10.255.255.255", "::ffff:11.0.0.0"},
		{"10.1.2.3", "10.1.2.3/32", "::ffff:10.1.2.3", "::ffff:10.1.2.2"},
		{"10.1.2.128/25", "10.1.2.128/25", "::ffff:10.1.2.255", "::ffff:10.1.2.127"},
		{"0.0.0.0/0", "0.0.0.0/0", "::ffff:1.2.3.4", "::1"},
		{"::/0", "::/0", "::ffff:1.2.3.4", NULL},
		{"::1", "::1/128", "::1", "::2"},
		{"2001:db8::/33", "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8", "::ffff:10.9.9.9", "::10.9.9.9"},
	};
	uint8_t address[16];
	char text[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct cfg_network n;
		struct value_error err;

		assert_int_equal(value_network(t[i].text, &n, &err), 0);
		value_network_text(&n, text, sizeof(text));
		assert_string_equal(text, t[i].printed);
		assert_int_equal(inet_pton(AF_INET6, t[i].in, address), 1);
		assert_true(config_network_has(&n, address));
		if (t[i].out == NULL)
			continue;
		assert_int_equal(inet_pton(AF_INET6, t[i].out, address), 1);
		assert_false(config_network_has(&n, address));
	}
}

static void test_origin(void **state)
{
	static const char *const t[][2] = {
		{"https://Example.ORG", "https://example.org"},
		{"HTTPS://example.org:443", "https://example.org"},
		{"http://a:80", "http://a"},
		{"http://a:443", "http://a:443"},
		{"https://a:80", "https://a:80"},
		{"http://a:0080", "http://a"},
		{"http://[0:0:0::1]:80", "http://[::1]"},
		{"http://[::FFFF]:81", "http://[::ffff]:81"},
		{"app+x.y-z://h_1.", "app+x.y-z://h_1."},
		{"wss://a:443", "wss://a"},
		{"ftp://a:80", "ftp://a:80"},
		{"null", NULL},
		{"", NULL},
		{"://a", NULL},
		{"http://", NULL},
		{"http://a/", NULL},
		{"http://a/b", NULL},
		{"http://a:", NULL},
		{"http://a:0", NULL},
		{"http://a:65536", NULL},
		{"http://a:100000", NULL},
		{"http://a:8o", NULL},
		{"http://u@a", NULL},
		{"1http://a", NULL},
		{"ht tp://a", NULL},
		{"http://a b", NULL},
		{"http://[::1", NULL},
		{"http://[]", NULL},
		{"http://[::g]", NULL},
		{"http://[::1]x", NULL},
		{"http://[::1]80", NULL},
		{"*", NULL},
		{"http://*", NULL},
		{"http:a", NULL},
	};
	char out[64], tight[15];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		bool ok = config_origin_normalise((struct slice){t[i][0], strlen(t[i][0])}, out, sizeof(out));

		if (ok != (t[i][1] != NULL))
			print_message("  origin %s\n", t[i][0]);
		assert_int_equal(ok, t[i][1] != NULL);
		if (ok)
			assert_string_equal(out, t[i][1]);
	}
	assert_true(config_origin_normalise((struct slice){"https://abc.de", 14}, tight, sizeof(tight)));
	assert_false(config_origin_normalise((struct slice){"https://abc.def", 15}, tight, sizeof(tight)));
	assert_false(config_origin_normalise((struct slice){"http://a\0b", 10}, out, sizeof(out)));
}

static void test_needs_restart(void **state)
{
	struct config *a = must_load("redis { url = 'redis://a' }", NULL);
	struct config *b =
		must_load("ring { size = 8m } limits { max_message = 1k } redis { url = 'redis://b' }", NULL);
	struct buf out = {0};

	(void)state;
	assert_int_equal(config_needs_restart(a, a, &out), 0);
	assert_int_equal(config_needs_restart(a, b, &out), 2);
	assert_int_equal(buf_put(&out, "", 1), 0);
	assert_string_equal(out.p, "ring.size redis.url");
	buf_free(&out);
	config_free(a);
	config_free(b);
	config_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_missing_file),
		cmocka_unit_test(test_good_values),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_many_problems),
		cmocka_unit_test(test_too_many_namespaces),
		cmocka_unit_test(test_include_cycle),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_later),
		cmocka_unit_test(test_docs),
		cmocka_unit_test(test_etc),
		cmocka_unit_test(test_feeds),
		cmocka_unit_test(test_feed_values),
		cmocka_unit_test(test_too_many_parts),
		cmocka_unit_test(test_sentinel_url),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_cli),
		cmocka_unit_test(test_cli_errors),
		cmocka_unit_test(test_overrides),
		cmocka_unit_test(test_signal),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_listener),
		cmocka_unit_test(test_redis_url),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_needs_restart),
	};

	setenv("RINGCAST_API_KEY", "secret-key", 1);
	setenv("REDIS_PASSWORD", "p%40ss%2Fw:rd", 1);
	setenv("RINGCAST_TEST_N", "3", 1);
	setenv("RINGCAST_TEST_BAD", "s3cret", 1);
	unsetenv("RINGCAST_UNSET");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
