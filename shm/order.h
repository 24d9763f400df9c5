/* order.h - every atomic access of the shared memory goes through these macros, by its label.
 *
 * The label names the access in the ordering tables (ring.h, slot.h), its memory order stands below, once. Two
 * other builds use the same code: a mutant build weakens one label with -DORD_<label>=memory_order_relaxed (some
 * test must then fail), and the model build (-DSHM_MODEL) replaces the access itself by a step of the explorer
 * in tests/model/.
 */
#ifndef RC_ORDER_H
#define RC_ORDER_H

#include <stdatomic.h>

#include "common/base.h"

/* --- ring.h */
#ifndef ORD_R0
#define ORD_R0 memory_order_release /* store reclaim */
#endif
#ifndef ORD_R1
#define ORD_R1 memory_order_release /* fence behind the store of `reclaim` */
#endif
#ifndef ORD_R3
#define ORD_R3 memory_order_release /* store next */
#endif
#ifndef ORD_R4
#define ORD_R4 memory_order_release /* store head */
#endif
#ifndef ORD_C1
#define ORD_C1 memory_order_acquire /* load head */
#endif
#ifndef ORD_C3
#define ORD_C3 memory_order_acquire /* fence before the load of `reclaim` */
#endif
#ifndef ORD_C5
#define ORD_C5 memory_order_acquire /* load reclaim */
#endif
#ifndef ORD_G1
#define ORD_G1 memory_order_release /* store cursor or tail */
#endif
#ifndef ORD_G2
#define ORD_G2 memory_order_acquire /* load cursor or tail */
#endif
/* --- slot.h (heartbeat words, label H1, are always relaxed: only their change counts) */
#ifndef ORD_K1
#define ORD_K1 memory_order_release /* store skip_to */
#endif
#ifndef ORD_K2
#define ORD_K2 memory_order_acquire /* load skip_to */
#endif
#ifndef ORD_S1
#define ORD_S1 memory_order_seq_cst /* fence between store `sleeping` and load head */
#endif
#ifndef ORD_S2
#define ORD_S2 memory_order_seq_cst /* fence between store head and load `sleeping` */
#endif

#ifdef SHM_MODEL
#include "tests/model/hooks.h"
#else
#define SHM_LOAD(label, p)         atomic_load_explicit((p), ORD_##label)
#define SHM_STORE(label, p, v)     atomic_store_explicit((p), (v), ORD_##label)
#define SHM_LOAD_RLX(label, p)     atomic_load_explicit((p), memory_order_relaxed)
#define SHM_STORE_RLX(label, p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define SHM_FENCE(label)           atomic_thread_fence(ORD_##label)
#endif

/* TSan does not see fences. It needs none of ours: what they order are atomic words; plain reads of protected memory are
 * ordered by R4/C1 and G1/G2, which it sees. */

#endif
