/* LINK: tests/unit/redis_rig.c master/redis.c master/redis_own.c master/redis_pending.c
 *       master/redis_subs.c master/redis_link.c master/redis_link_in.c master/redis_hello.c
 *       master/redis_reply.c master/redis_dial.c master/redis_tls.c master/redis_resolve.c
 *       master/redis_form.c master/redis_route.c master/redis_watch.c */
/* All of test_redis.c once more, in a json namespace: what holds for own messages in their own form holds for
 * those that travel signed, on the bare channel. */
#define RIG_JSON true
#include "tests/unit/test_redis.c"
