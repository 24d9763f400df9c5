/* proc.c - CPU and memory of a process tree. */
#include "bench/proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TREE_MAX 512

struct tree {
	pid_t pid[TREE_MAX];
	size_t n;
};

/* All of a small file, NUL-terminated. Returns its length, or -1. */
static ssize_t slurp(const char *path, char *dst, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd == -1)
		return -1;
	n = read(fd, dst, size - 1);
	close(fd);
	if (n >= 0)
		dst[n] = '\0';
	return n;
}

static bool is_number(const char *s)
{
	return *s != '\0' && s[strspn(s, "0123456789")] == '\0';
}

/* The fields of /proc/PID/stat behind the name, which may hold blanks and brackets itself. */
static bool stat_fields(pid_t pid, char *comm, size_t comm_size, pid_t *ppid, uint64_t ticks[2])
{
	char path[64], text[1024], *open_at, *close_at;
	int parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (slurp(path, text, sizeof(text)) <= 0)
		return false;
	open_at = strchr(text, '(');
	close_at = strrchr(text, ')');
	if (!open_at || !close_at)
		return false;
	*close_at = '\0';
	snprintf(comm, comm_size, "%s", open_at + 1);
	if (sscanf(close_at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &parent,
		   &ticks[0], &ticks[1]) != 3)
		return false;
	*ppid = parent;
	return true;
}

static bool tree_has(const struct tree *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->pid[i] == pid)
			return true;
	return false;
}

static uint64_t sched_ns(const char *path)
{
	char text[128];
	uint64_t ns;

	if (slurp(path, text, sizeof(text)) <= 0 || sscanf(text, "%" SCNu64, &ns) != 1)
		return 0;
	return ns;
}

/* One pass over /proc: children of what is in the tree join it; kernel threads named ksoftirqd are summed.
 * Returns whether the tree grew. (Not every kernel has /proc/PID/task/TID/children.) */
static bool tree_grow(struct tree *t, struct proc_use *use)
{
	DIR *dir = opendir("/proc");
	size_t before = t->n;
	struct dirent *e;

	if (!dir)
		return false;
	use->softirq_ns = 0;
	while ((e = readdir(dir)) != NULL) {
		char comm[64], path[300];
		uint64_t ticks[2];
		pid_t pid, ppid;

		if (!is_number(e->d_name))
			continue;
		pid = (pid_t)strtol(e->d_name, NULL, 10);
		if (!stat_fields(pid, comm, sizeof(comm), &ppid, ticks))
			continue;
		if (strncmp(comm, "ksoftirqd/", 10) == 0) {
			snprintf(path, sizeof(path), "/proc/%s/schedstat", e->d_name);
			use->softirq_ns += sched_ns(path);
		}
		if (t->n < TREE_MAX && tree_has(t, ppid) && !tree_has(t, pid))
			t->pid[t->n++] = pid;
	}
	closedir(dir);
	return t->n > before;
}

/* /proc/PID/schedstat is the first thread's alone, so all threads are summed. */
static uint64_t threads_ns(pid_t pid)
{
	char path[400];
	uint64_t sum = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((e = readdir(dir)) != NULL) {
		if (!is_number(e->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", (int)pid, e->d_name);
		sum += sched_ns(path);
	}
	closedir(dir);
	return sum;
}

static uint64_t pss_bytes(pid_t pid)
{
	char path[64], text[4096], *at;
	uint64_t kib;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	if (slurp(path, text, sizeof(text)) <= 0)
		return 0;
	at = strstr(text, "\nPss:");
	if (!at || sscanf(at + 5, "%" SCNu64, &kib) != 1)
		return 0;
	return kib * 1024;
}

int proc_use(pid_t pid, bool with_memory, struct proc_use *use)
{
	static struct tree t; /* 2 KiB; one caller */
	const uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
	char comm[64];
	uint64_t ticks[2];
	pid_t ppid;

	memset(use, 0, sizeof(*use));
	t.n = 1;
	t.pid[0] = pid;
	if (!stat_fields(pid, comm, sizeof(comm), &ppid, ticks))
		return -1;
	while (tree_grow(&t, use))
		;
	for (size_t i = 0; i < t.n; i++) {
		if (!stat_fields(t.pid[i], comm, sizeof(comm), &ppid, ticks))
			continue;
		use->processes++;
		use->cpu_ns += threads_ns(t.pid[i]);
		use->user_ns += ticks[0] * tick_ns;
		use->sys_ns += ticks[1] * tick_ns;
		if (with_memory)
			use->pss_bytes += pss_bytes(t.pid[i]);
	}
	return 0;
}
