/* A growing list of token ids. A failed allocation is remembered in `failed`
 * and later calls do nothing, so that only the end needs a check. */
#ifndef MN__TEXT_IDS_H
#define MN__TEXT_IDS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mn__ids {
    int32_t *id; /* [count] */
    int64_t count, capacity;
    bool failed;
} mn__ids;

void mn__ids_add(mn__ids *ids, int32_t id);
/* Makes `count` more and returns where they begin; NULL when memory is short. */
int32_t *mn__ids_extend(mn__ids *ids, int64_t count);
void mn__ids_clear(mn__ids *ids); /* keeps the memory */
void mn__ids_free(mn__ids *ids);

#ifdef __cplusplus
}
#endif
#endif
