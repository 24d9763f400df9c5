#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define LINE_MAX_BYTES 2048

#define EVENTS_MAX 128 /* names of events in the program; those beyond are not limited */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static int log_fd = STDERR_FILENO;
static char *log_path;
static enum log_level log_level = LOG_INFO;
static char log_proc[32] = "master";

/* How much was written of one event in the second `at` of the monotonic clock. */
static struct storm {
	const char *event;
	uint64_t at;
	uint32_t written, left_out;
} storms[EVENTS_MAX];

static int open_path(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

static void set_fd(int fd)
{
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
}

int log_open(const char *path)
{
	char *copy;
	int fd;

	if (path == NULL || path[0] == '\0') {
		set_fd(STDERR_FILENO);
		free(log_path);
		log_path = NULL;
		return 0;
	}
	copy = strdup(path);
	if (copy == NULL)
		return -1;
	fd = open_path(path);
	if (fd == -1) {
		free(copy);
		return -1;
	}
	set_fd(fd);
	free(log_path);
	log_path = copy;
	return 0;
}

int log_reopen(void)
{
	int fd;

	if (log_path == NULL)
		return 0;
	fd = open_path(log_path);
	if (fd == -1)
		return -1;
	set_fd(fd);
	return 0;
}

int log_descriptor(void)
{
	return log_fd;
}

void log_set_level(enum log_level level)
{
	log_level = level;
}

enum log_level log_get_level(void)
{
	return log_level;
}

int log_level_parse(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
		if (strcmp(level_names[i], name) == 0)
			return (int)i;
	}
	return -1;
}

void log_set_proc(const char *proc)
{
	snprintf(log_proc, sizeof(log_proc), "%s", proc);
	memset(storms, 0, sizeof(storms)); /* what the parent left out is the parent's to tell */
}

/* snprintf at the end of a line that may be full already. */
static size_t append(char *line, size_t used, const char *fmt, ...) PRINTF_LIKE(3, 4);

static size_t append_v(char *line, size_t used, const char *fmt, va_list ap)
{
	int n = vsnprintf(line + used, LINE_MAX_BYTES - used, fmt, ap);

	if (n < 0)
		return used;
	return u64_min(used + (size_t)n, LINE_MAX_BYTES - 1);
}

static size_t append(char *line, size_t used, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	used = append_v(line, used, fmt, ap);
	va_end(ap);
	return used;
}

static struct storm *storm_of(const char *event)
{
	for (size_t i = 0; i < EVENTS_MAX; i++) {
		if (storms[i].event == NULL)
			storms[i].event = event;
		if (storms[i].event == event || strcmp(storms[i].event, event) == 0)
			return &storms[i];
	}
	return NULL;
}

/* A new second: what the old one left out is told. */
static void storm_over(struct storm *s, uint64_t now)
{
	uint32_t n = s->left_out;

	s->at = now;
	s->written = s->left_out = 0;
	if (n > 0)
		log_event(LOG_WARN, "log_storm", "reason=%s total=%u msg=\"lines left out\"", s->event, n);
}

static bool is_left_out(const char *event)
{
	struct storm *s = storm_of(event);
	uint64_t now = clock_mono_ms() / 1000;

	if (s == NULL)
		return false;
	if (s->at != now)
		storm_over(s, now);
	if (s->written < LOG_STORM) {
		s->written++;
		return false;
	}
	s->left_out++;
	return true;
}

void log_tick(void)
{
	uint64_t now = clock_mono_ms() / 1000;

	for (size_t i = 0; i < EVENTS_MAX && storms[i].event != NULL; i++) {
		if (storms[i].left_out > 0 && storms[i].at != now)
			storm_over(&storms[i], now);
	}
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
	int saved = errno;
	char line[LINE_MAX_BYTES + 1];
	struct timespec ts;
	struct tm tm;
	size_t used;
	va_list ap;

	if (level > log_level || (level != LOG_DEBUG && is_left_out(event)))
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	used = strftime(line, LINE_MAX_BYTES, "ts=%Y-%m-%dT%H:%M:%S", &tm);
	used = append(line, used, ".%03ldZ level=%s proc=%s pid=%ld event=%s", ts.tv_nsec / 1000000,
		      level_names[level], log_proc, (long)getpid(), event);
	if (fmt != NULL) {
		used = append(line, used, " ");
		va_start(ap, fmt);
		used = append_v(line, used, fmt, ap);
		va_end(ap);
	}
	line[used++] = '\n';
	if (write(log_fd, line, used) == -1) {
		/* The log itself failed (disk full, reader gone): nobody is left to tell. */
	}
	errno = saved;
}

static bool is_plain(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != '"' && c != '\\' && c != '=';
}

const char *log_quote(struct log_quoted *dst, const char *p, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = u64_min(len, LOG_QUOTE_MAX);
	bool plain = len > 0 && len <= LOG_QUOTE_MAX;
	char *o = dst->s;

	for (size_t i = 0; i < n && plain; i++)
		plain = is_plain((unsigned char)p[i]);
	if (plain) {
		memcpy(dst->s, p, n);
		dst->s[n] = '\0';
		return dst->s;
	}
	*o++ = '"';
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)p[i];

		if (c == '"' || c == '\\') {
			*o++ = '\\';
			*o++ = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			*o++ = '\\';
			*o++ = 'x';
			*o++ = hex[c >> 4];
			*o++ = hex[c & 15];
		} else {
			*o++ = (char)c;
		}
	}
	*o++ = '"';
	if (len > n)
		*o++ = '+';
	*o = '\0';
	return dst->s;
}
