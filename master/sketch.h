/* sketch.h - the users of each namespace in a form that replicas can unite: the smallest of their public
 * hashes (kmv.h).
 *
 *    ringcast:users:<node>   a JSON object, namespace -> hashes in hex, 16 digits each
 *
 * The crowd is walked in pieces, once in a third of the lease at least, several times a second while it is
 * small. Master process, on its loop; never blocks.
 */
#ifndef RC_SKETCH_H
#define RC_SKETCH_H

#include "common/buf.h"
#include "master/kmv.h"
#include "master/master.h"

struct sketch {
	struct kmv *ready[CFG_MAX_NAMESPACES];    /* of the last whole walk; NULL: nobody */
	struct kmv *building[CFG_MAX_NAMESPACES]; /* of the walk under way */
	uint32_t at;                              /* next entry of the crowd to look at */
};

void sketch_free(struct sketch *s);

/* A piece of the walk: the whole of it takes `turns` of them at most. */
void sketch_walk(struct sketch *s, const struct master *m, unsigned turns);

/* Append the text. 0, or -1 (ENOMEM). */
int sketch_put(const struct sketch *s, const struct master *m, struct buf *out) MUST_CHECK;

/* Unite `into` (by namespace, made as needed) with what a text says. Nonsense is passed over. */
void sketch_read(struct kmv **into, const struct master *m, struct slice text);

/* Free what stands in such an array. */
void sketch_clear(struct kmv **v);

#endif
