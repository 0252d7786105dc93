/* The same product by oneDNN, to measure ours against. */
#ifndef MN__BENCH_ONEDNN_H
#define MN__BENCH_ONEDNN_H

#include <stdbool.h>

#include "kernel/kernel.h"

typedef struct onednn_product onednn_product;

/* Holds oneDNN to a CPU level too; before its first product. */
void onednn_cap(mn__level level);
/* Two-dimensional, without bias, activation or sum. NULL where oneDNN has none. */
onednn_product *onednn_open(const mn__matmul *call);
void onednn_run(onednn_product *product);
void onednn_close(onednn_product *product); /* NULL is fine */

#endif
