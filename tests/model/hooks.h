/* hooks.h - the model build's version of every access of the shared memory (shm/order.h, -DSHM_MODEL).
 *
 * The shipped code is compiled as it is; only the accesses below become steps of the memory machine
 * (machine.h), which decides what a load returns. Included by shm/order.h alone.
 */
#ifndef MODEL_HOOKS_H
#define MODEL_HOOKS_H

#include <stdint.h>

/* `label` names the access, as in the ordering tables; order: as for C's atomics. Sizes: 4 or 8 bytes. */
uint64_t model_load(const volatile void *p, unsigned size, int order, const char *label);
void model_store(volatile void *p, unsigned size, uint64_t v, int order, const char *label);
void model_fence(int order, const char *label);

#define SHM_LOAD(label, p)         model_load((p), sizeof(*(p)), ORD_##label, #label)
#define SHM_STORE(label, p, v)     model_store((p), sizeof(*(p)), (v), ORD_##label, #label)
#define SHM_LOAD_RLX(label, p)     model_load((p), sizeof(*(p)), memory_order_relaxed, #label)
#define SHM_STORE_RLX(label, p, v) model_store((p), sizeof(*(p)), (v), memory_order_relaxed, #label)
#define SHM_FENCE(label)           model_fence(ORD_##label, #label)

#endif
