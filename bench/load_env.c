/* load_env.c - where and how a run was made. */
#include "bench/load_env.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"

/* The value of the first line that begins with `key`, without blanks, '=', ':' and quotes around it. */
static void line_of(const char *path, const char *key, char *dst, size_t size)
{
	FILE *f = fopen(path, "re");
	char text[512], *at, *end;

	while (f && fgets(text, sizeof(text), f)) {
		if (strncmp(text, key, strlen(key)) != 0)
			continue;
		at = text + strlen(key);
		at += strspn(at, " \t=:\"");
		end = at + strlen(at);
		while (end > at && strchr(" \t\n\"", end[-1]))
			end--;
		snprintf(dst, size, "%.*s", (int)(end - at), at);
		break;
	}
	if (f)
		fclose(f);
}

static void read_date(char *dst, size_t size)
{
	const time_t now = time(NULL);
	struct tm tm;

	if (!localtime_r(&now, &tm) || strftime(dst, size, "%Y-%m-%d %H:%M:%S %z", &tm) == 0)
		dst[0] = '\0';
}

void load_env_read(struct load_env *env)
{
	const long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
	const long page = sysconf(_SC_PAGESIZE);
	struct utsname u;

	memset(env, 0, sizeof(*env));
	read_date(env->date, sizeof(env->date));
	if (uname(&u) == 0) {
		snprintf(env->host, sizeof(env->host), "%s", u.nodename);
		snprintf(env->kernel, sizeof(env->kernel), "%s %s", u.sysname, u.release);
		snprintf(env->machine, sizeof(env->machine), "%s", u.machine);
	}
	line_of("/etc/os-release", "PRETTY_NAME", env->system, sizeof(env->system));
	line_of("/proc/cpuinfo", "model name", env->cpu, sizeof(env->cpu));
	env->cpus = cpus > 0 ? (uint32_t)cpus : 0;
	env->memory_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
	snprintf(env->build, sizeof(env->build), "ringcast-bench %s, %s %s", RC_VERSION,
#ifdef __clang__
		 "clang",
#else
		 "gcc",
#endif
		 __VERSION__);
}

static bool has_secret_name(const char *name, size_t len)
{
	static const char *const words[] = {"key",    "token",    "secret", "auth",
					    "cookie", "password", "session"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		for (size_t at = 0; at + strlen(words[i]) <= len; at++)
			if (strncasecmp(name + at, words[i], strlen(words[i])) == 0)
				return true;
	return false;
}

/* How much of an argument may be shown: all, or up to the value of "Name: value" or of "?name=value" whose
 * name tells that it is a secret. What follows is left out altogether: it is seldom worth showing. */
static size_t shown(const char *arg, bool after_key)
{
	const char *address = strstr(arg, "://");
	size_t name = 0;

	if (after_key)
		return 0;
	if (address && strchr(address, '@')) /* user:password@ */
		return (size_t)(address + 3 - arg);
	for (size_t i = 0; arg[i]; i++) {
		if ((arg[i] == ':' || arg[i] == '=') && has_secret_name(arg + name, i - name))
			return i + 1;
		if (arg[i] == '?' || arg[i] == '&' || arg[i] == '=')
			name = i + 1;
	}
	return strlen(arg);
}

/* In quotes where a shell would take it apart. */
static int put_argument(struct buf *b, const char *arg, size_t len)
{
	const bool whole = arg[len] == '\0';
	bool plain = len > 0 || !whole;

	for (size_t i = 0; i < len; i++)
		plain &= isalnum((unsigned char)arg[i]) || strchr("-_./:=,+@%", arg[i]) != NULL;
	if (!plain && buf_puts(b, "'") == -1)
		return -1;
	for (size_t i = 0; i < len; i++)
		if (arg[i] == '\'' ? buf_puts(b, "'\\''") == -1 : buf_put(b, arg + i, 1) == -1)
			return -1;
	if (!whole && buf_puts(b, "***") == -1)
		return -1;
	return plain ? 0 : buf_puts(b, "'");
}

/* --api-key, or what getopt takes for it. */
static bool is_key_option(const char *arg)
{
	return strlen(arg) > 3 && strncmp("--api-key", arg, strlen(arg)) == 0;
}

const char *load_env_command(int argc, char **argv)
{
	static struct buf b;

	for (int i = 0; i < argc; i++) {
		const bool after_key = i > 0 && is_key_option(argv[i - 1]);
		const char *arg = i == 0 ? "ringcast-bench" : argv[i];

		if (i > 0 && buf_puts(&b, " ") == -1)
			return "";
		if (put_argument(&b, arg, shown(arg, after_key)) == -1)
			return "";
	}
	return buf_put(&b, "", 1) == -1 ? "" : b.p;
}
