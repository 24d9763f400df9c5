#include "master/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

static struct {
	int fd;
	uint64_t every_ms, due_ms; /* every_ms 0: no watchdog */
	struct sockaddr_un to;
	socklen_t to_len;
} notify = {.fd = -1};

/* A path, or "@name" in the abstract space. */
static int set_address(const char *name)
{
	size_t n = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || n < 2 || n >= sizeof(notify.to.sun_path)) {
		errno = EINVAL;
		return -1;
	}
	notify.to = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(notify.to.sun_path, name, n);
	if (name[0] == '@')
		notify.to.sun_path[0] = '\0';
	notify.to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/'));
	return 0;
}

/* WATCHDOG_USEC is for us unless WATCHDOG_PID names somebody else. */
static uint64_t watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

	if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	return strtoull(usec, NULL, 10) / 1000;
}

static void send_state(const char *state)
{
	if (notify.fd == -1)
		return;
	if (sendto(notify.fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&notify.to,
		   notify.to_len) == -1)
		log_event(LOG_WARN, "notify", "errno=%d msg=\"the service manager was not told\"", errno);
}

void notify_start(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	uint64_t ms = watchdog_ms();

	if (name != NULL) {
		if (set_address(name) == 0)
			notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (notify.fd == -1)
			log_event(LOG_WARN, "notify", "errno=%d msg=\"NOTIFY_SOCKET is of no use\"", errno);
		notify.every_ms = ms / 2;
	}
	if (unsetenv("NOTIFY_SOCKET") == -1 || unsetenv("WATCHDOG_USEC") == -1 ||
	    unsetenv("WATCHDOG_PID") == -1)
		log_event(LOG_WARN, "notify", "errno=%d", errno);
}

void notify_ready(void)
{
	send_state("READY=1\n");
}

void notify_reloading(void)
{
	char state[64];

	/* Microseconds of the monotonic clock. */
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu\n",
		 (unsigned long long)(clock_mono_ns() / 1000));
	send_state(state);
}

void notify_stopping(void)
{
	send_state("STOPPING=1\n");
}

void notify_tick(uint64_t now_ms)
{
	if (notify.every_ms == 0 || now_ms < notify.due_ms)
		return;
	notify.due_ms = now_ms + notify.every_ms;
	send_state("WATCHDOG=1\n");
}

void notify_stop(void)
{
	if (notify.fd != -1)
		close(notify.fd);
	notify.fd = -1;
}
