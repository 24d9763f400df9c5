/* delivered.h - to how many a message went that its publisher named (UP_TRACK): the last DELIVERED_MESSAGES
 * of this host.
 *
 *    delivered_track()        delivered_bind()           delivered_matched(), delivered_told()
 *    (id, request) ---------> (number of reached.h) ---> sockets and users it is for, and of them who has it
 *
 * Of this host alone, and of this master's life. A message that is refused stays without number and is not
 * found. Of several with one id the newest counts. What a worker tells is believed as it stands: it can
 * falsify the numbers, and nothing else. Of users at most KMV_MAX hashes are kept: beyond that their numbers
 * are estimates (kmv.h).
 *
 * Master process, on its loop; never blocks. 9 MB at the most, in use as it fills; none until a publisher
 * names a message.
 */
#ifndef RC_MASTER_DELIVERED_H
#define RC_MASTER_DELIVERED_H

#include "common/buf.h"
#include "master/master.h"

#define DELIVERED_MESSAGES 1024u

struct delivered;

void delivered_stop(struct master *m);

/* UP_TRACK. `id` is memory that the worker can write. False: it is nonsense. */
bool delivered_track(struct master *m, const struct child *c, uint16_t ns, uint32_t request,
		     struct slice id) MUST_CHECK;

/* The message of this request goes to `room` ("": to users in whatever room) under this number, which is not
 * 0 if anything is to be known of it. Again, if it had to wait in between. */
void delivered_bind(struct master *m, const struct child *c, uint32_t request, struct slice room,
		    uint32_t number);
/* It is not published. 0 is fine, here and below. */
void delivered_drop(struct master *m, uint32_t number);
bool delivered_is_tracked(const struct master *m, uint32_t number);

/* UP_MATCHED and UP_DELIVERED. `payload` is memory that the worker can write. False: it is nonsense. */
void delivered_matched(struct master *m, uint32_t number, struct slice payload);
bool delivered_told(struct master *m, uint32_t number, struct slice payload) MUST_CHECK;

/* The number of the newest message with this id in this room, or to users in whatever room; 0: none is known.
 */
uint32_t delivered_find(const struct master *m, uint16_t ns, struct slice room, struct slice id);

/* Append ,"delivered":{...}; nothing if there is no such number any more. 0, or -1 (ENOMEM). */
int delivered_put(const struct master *m, uint32_t number, struct buf *out) MUST_CHECK;

#endif
