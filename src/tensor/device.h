/* A device: a kernel table with its queue, or the counting device, which runs
 * the same program with sizes alone: it hands out addresses without memory,
 * its kernels add up floating-point operations, and so it answers what a run
 * needs before it starts. */
#ifndef MN__TENSOR_DEVICE_H
#define MN__TENSOR_DEVICE_H

#include "kernel/kernel.h"

/* What a counting device has seen. */
typedef struct mn__counted {
    double products;  /* FLOPs of matrix products */
    double attention; /* FLOPs of attention, the visible part */
    double bytes;     /* moved by all other kernels */
} mn__counted;

typedef struct mn__device {
    mn__queue queue;
    bool counting;
    mn__counted counted;
} mn__device;

mn_status mn__device_open(mn__device *device, mn_error *error);
mn_status mn__device_open_counting(mn__device *device, mn_error *error);
void mn__device_close(mn__device *device);

/* An arena of tensor data: real, or counted only (used and peak are true, the
 * addresses are not). */
typedef struct mn__store {
    mn__arena arena;
    bool counting;
} mn__store;

void mn__store_init(mn__store *store, const mn__device *device, int64_t block_bytes);
void *mn__store_alloc(mn__store *store, int64_t bytes); /* NULL when memory is short */
mn__arena_mark mn__store_mark(const mn__store *store);
void mn__store_release(mn__store *store, mn__arena_mark mark);
void *mn__store_release_except(mn__store *store, mn__arena_mark mark, const void *kept,
                               int64_t bytes); /* see mn__arena_release_except */
void mn__store_reset(mn__store *store);
void mn__store_free(mn__store *store);

#endif
