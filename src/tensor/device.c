/* The device that computes; the stores of its data. */
#include "tensor/device.h"

mn_status mn__device_open(mn__device *device, mn_error *error)
{
    *device = (mn__device){0};
    mn__level level;
    mn_status status = mn__kernel_level(&level, error);
    if (status != MN_OK)
        return status;
    return mn__queue_open(&device->queue, mn__kernel_table(level), error);
}

void mn__device_close(mn__device *device)
{
    mn__queue_close(&device->queue);
    *device = (mn__device){0};
}

void mn__store_init(mn__store *store, const mn__device *device, int64_t block_bytes)
{
    mn__arena_init(&store->arena, block_bytes);
    store->counting = device->counting;
}

/* A counting store moves the arena's figures alone; the first address is not
 * NULL, which would be a failure. */
void *mn__store_alloc(mn__store *store, int64_t bytes)
{
    if (!store->counting)
        return mn__arena_alloc(&store->arena, bytes);
    if (bytes < 0)
        return NULL;
    mn__arena *arena = &store->arena;
    uintptr_t address = 4096 + (uintptr_t)arena->used;
    arena->used += (bytes + 63) / 64 * 64;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return (void *)address;
}

mn__arena_mark mn__store_mark(const mn__store *store)
{
    if (store->counting)
        return (mn__arena_mark){.used = store->arena.used};
    return mn__arena_mark_now(&store->arena);
}

void mn__store_release(mn__store *store, mn__arena_mark mark)
{
    if (store->counting)
        store->arena.used = mark.used;
    else
        mn__arena_release(&store->arena, mark);
}

void *mn__store_release_except(mn__store *store, mn__arena_mark mark, const void *kept,
                               int64_t bytes)
{
    if (!store->counting)
        return mn__arena_release_except(&store->arena, mark, kept, bytes);
    mn__store_release(store, mark);
    return mn__store_alloc(store, bytes);
}

void mn__store_reset(mn__store *store)
{
    if (store->counting)
        store->arena.used = 0;
    else
        mn__arena_reset(&store->arena);
}

void mn__store_free(mn__store *store)
{
    mn__arena_free(&store->arena);
}
