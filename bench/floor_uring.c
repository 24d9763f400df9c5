/* floor_uring.c - the floor's broadcast by io_uring: is it worth its trouble? */
#include "bench/floor.h"

#include <errno.h>
#include <stdlib.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#include <sys/socket.h>

#define DEPTH 512

struct floor_uring {
	struct io_uring ring;
};

struct floor_uring *floor_uring_open(void)
{
	struct floor_uring *u = calloc(1, sizeof(*u));
	unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	int rc;

	if (!u)
		return NULL;
	rc = io_uring_queue_init(DEPTH, &u->ring, flags);
	if (rc == -EINVAL)
		rc = io_uring_queue_init(DEPTH, &u->ring, 0);
	if (rc < 0) {
		free(u);
		errno = -rc;
		return NULL;
	}
	return u;
}

/* Take all completions of a round of `n`; an entry carries its place in fds. */
static void reap(struct floor_uring *u, const int *fds, uint32_t n, size_t len,
		 void (*stuck)(void *arg, int fd, size_t done), void *arg)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		if (unlikely(cqe->res != (int)len))
			stuck(arg, fds[cqe->user_data], cqe->res > 0 ? (size_t)cqe->res : 0);
		if (++seen == n)
			break;
	}
	io_uring_cq_advance(&u->ring, seen);
}

int floor_uring_send(struct floor_uring *u, const int *fds, uint32_t n_fds, const uint8_t *p, size_t n,
		     void (*stuck)(void *arg, int fd, size_t done), void *arg)
{
	for (uint32_t at = 0; at < n_fds;) {
		uint32_t k = 0;

		for (; k < DEPTH && at + k < n_fds; k++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

			io_uring_prep_send(sqe, fds[at + k], p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
			io_uring_sqe_set_data64(sqe, at + k);
		}
		if (io_uring_submit_and_wait(&u->ring, k) < 0)
			return -1;
		reap(u, fds, k, n, stuck, arg);
		at += k;
	}
	return 0;
}

#else

struct floor_uring *floor_uring_open(void)
{
	errno = ENOSYS;
	return NULL;
}

int floor_uring_send(struct floor_uring *u, const int *fds, uint32_t n_fds, const uint8_t *p, size_t n,
		     void (*stuck)(void *arg, int fd, size_t done), void *arg)
{
	(void)u, (void)fds, (void)n_fds, (void)p, (void)n, (void)stuck, (void)arg;
	errno = ENOSYS;
	return -1;
}

#endif
