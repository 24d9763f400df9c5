/* start.c - what exists once per master: shared segments, the pid file, ids of namespaces. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "master/master.h"
#include "shm/seg.h"

static int fail(struct buf *error, const char *what)
{
	if (buf_printf(error, "%s: %s\n", what, strerror(errno)) == -1)
		error->len = 0; /* nothing more can be said */
	return -1;
}

/* ---- segments */

static int random_word(uint64_t *w)
{
	do {
		if (getrandom(w, sizeof(*w), 0) != sizeof(*w))
			return -1;
	} while (*w == 0);
	return 0;
}

/* The ring: header page, then the data. The writable view stays here; workers get a descriptor that can't
 * write. */
static int make_ring(struct master *m, uint64_t size, struct ring *ring)
{
	int fd = seg_create("ringcast-ring", SEG_PAGE + size);
	uint8_t *data;

	if (fd == -1)
		return -1;
	m->ring_fd = seg_reopen_readonly(fd);
	data = seg_map_twice(fd, SEG_PAGE, size, SEG_PAGE, PROT_READ | PROT_WRITE);
	close(fd);
	if (m->ring_fd == -1 || data == NULL ||
	    seg_keep_from_children(data - SEG_PAGE, SEG_PAGE + 2 * size) == -1)
		return -1;
	ring_init(ring, (struct ring_hdr *)(data - SEG_PAGE), data, size, size);
	return 0;
}

static int make_globals(struct master *m)
{
	int fd = seg_create("ringcast-globals", GLOBALS_BYTES);

	if (fd == -1)
		return -1;
	m->globals_fd = seg_reopen_readonly(fd);
	m->globals = seg_map(fd, 0, GLOBALS_BYTES, PROT_READ | PROT_WRITE);
	close(fd);
	if (m->globals_fd == -1 || m->globals == NULL ||
	    seg_keep_from_children(m->globals, GLOBALS_BYTES) == -1 ||
	    random_word(&m->globals->origin) == -1 || random_word(&m->globals->hash_key) == -1)
		return -1;
	m->globals->layout = GLOBALS_LAYOUT;
	m->globals->master_pid = (uint32_t)getpid();
	m->globals->start_ms = clock_mono_ms();
	m->globals->magic = GLOBALS_MAGIC;
	return 0;
}

static int make_counters(struct master *m)
{
	m->counters_fd = counters_create();
	if (m->counters_fd == -1)
		return -1;
	m->count = counters_map_block(m->counters_fd, COUNTERS_MASTER_BLOCK);
	return m->count == NULL ? -1 : seg_keep_from_children(m->count, COUNTERS_BLOCK);
}

int start_segments(struct master *m, const struct config *c, struct buf *error)
{
	int life[2];
	struct ring ring;

	if (make_ring(m, c->ring.size, &ring) == -1 || make_globals(m) == -1 || make_counters(m) == -1)
		return fail(error, "shared memory");
	if (pipe2(life, O_CLOEXEC) == -1)
		return fail(error, "pipe");
	m->life_read = life[0];
	m->life_write = life[1];
	m->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (m->wake_fd == -1)
		return fail(error, "eventfd");
	if (seq_init(&m->seq, &ring, m->globals->origin, m->globals->hash_key, m->count) == -1 ||
	    (m->seq.retained = retained_new(RETAINED_MAX_BYTES)) == NULL)
		return fail(error, "channel table");
	return 0;
}

static void close_if(int fd)
{
	if (fd != -1)
		close(fd);
}

void start_free_segments(struct master *m)
{
	const int fds[] = {m->ring_fd, m->globals_fd, m->counters_fd,
			   m->wake_fd, m->life_read,  m->life_write};

	if (m->seq.ring.data != NULL)
		seg_unmap_twice(m->seq.ring.data, m->seq.ring.size, SEG_PAGE);
	retained_free(m->seq.retained);
	seq_free(&m->seq);
	envelope_free(&m->inbound);
	buf_free(&m->unsigned_text);
	seg_unmap(m->globals, GLOBALS_BYTES);
	seg_unmap(m->count, COUNTERS_BLOCK);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close_if(fds[i]);
}

/* ---- namespaces */

static int find_name(const struct globals *g, uint32_t n, const char *name)
{
	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(g->namespaces[i], name) == 0)
			return (int)i;
	}
	return -1;
}

int start_register_namespaces(struct master *m, struct config *c)
{
	struct globals *g = m->globals;
	uint32_t n = atomic_load_explicit(&g->n_namespaces, memory_order_relaxed);

	for (size_t i = 0; i < c->n_namespaces; i++) {
		struct cfg_namespace *ns = &c->namespaces[i];
		int id = find_name(g, n, ns->name);

		if (id == -1) {
			if (n == CFG_MAX_NAMESPACES)
				return -1;
			id = (int)n++;
			snprintf(g->namespaces[id], sizeof(g->namespaces[id]), "%s", ns->name);
		}
		ns->id = (uint16_t)id;
	}
	/* Release: whoever reads the count finds the names below it: pairs with the acquire in
	 * worker/stats.c. */
	atomic_store_explicit(&g->n_namespaces, n, memory_order_release);
	return 0;
}

/* ---- pid file */

/* The lock, and not the number in the file, tells whether its master lives: a number may be somebody else's
 * by now. */
int start_pid_file(struct master *m, const char *path, struct buf *error)
{
	char text[32];
	int n;

	m->pid_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (m->pid_fd == -1)
		return fail(error, path);
	if (flock(m->pid_fd, LOCK_EX | LOCK_NB) == -1) {
		if (errno == EWOULDBLOCK && buf_printf(error, "%s: a running server holds it\n", path) == 0)
			return -1;
		return fail(error, path);
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(m->pid_fd, 0) == -1 || pwrite(m->pid_fd, text, (size_t)n, 0) != n)
		return fail(error, path);
	m->pid_file = strdup(path);
	return m->pid_file == NULL ? fail(error, path) : 0;
}

void start_remove_pid_file(struct master *m)
{
	if (m->pid_file != NULL)
		(void)unlink(m->pid_file); /* gone already: as good */
	free(m->pid_file);
	m->pid_file = NULL;
	close_if(m->pid_fd);
	m->pid_fd = -1;
}
