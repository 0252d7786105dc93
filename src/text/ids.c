/* Growing lists of ids. */
#include "text/ids.h"

#include "base/memory.h"

enum { LEAST_CAPACITY = 256 };

static bool reserve(mn__ids *ids, int64_t more)
{
    if (ids->failed)
        return false;
    int64_t need = ids->count + more;
    if (need <= ids->capacity)
        return true;
    int64_t doubled = 2 * ids->capacity;
    int64_t capacity = need > doubled ? need : doubled;
    capacity = capacity > LEAST_CAPACITY ? capacity : LEAST_CAPACITY;
    int32_t *moved = mn__realloc(ids->id, mn__size_product(capacity, (int64_t)sizeof(int32_t)));
    if (!moved) {
        ids->failed = true;
        return false;
    }
    ids->id = moved;
    ids->capacity = capacity;
    return true;
}

void mn__ids_add(mn__ids *ids, int32_t id)
{
    if (reserve(ids, 1))
        ids->id[ids->count++] = id;
}

int32_t *mn__ids_extend(mn__ids *ids, int64_t count)
{
    if (!reserve(ids, count))
        return NULL;
    ids->count += count;
    return ids->id + ids->count - count;
}

void mn__ids_clear(mn__ids *ids)
{
    ids->count = 0;
    ids->failed = false;
}

void mn__ids_free(mn__ids *ids)
{
    mn__free(ids->id);
    *ids = (mn__ids){0};
}
