/* oneDNN's matrix product, over the C interfaces of its releases 2 and 3. */
#include "onednn.h"

#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>
#include <stdlib.h>

struct onednn_product {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
};

static dnnl_data_type_t type_of(mn__dtype dtype)
{
    return dtype == MN__BF16 ? dnnl_bf16 : dnnl_f32;
}

#if DNNL_VERSION_MAJOR >= 3

static bool describe(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, int64_t row,
                     int64_t column, mn__dtype dtype)
{
    dnnl_dims_t sizes = {rows, columns}, strides = {row, column};
    return dnnl_memory_desc_create_with_strides(out, 2, sizes, type_of(dtype), strides) ==
           dnnl_success;
}

static bool build(onednn_product *product, const dnnl_memory_desc_t form[3])
{
    dnnl_primitive_desc_t description;
    if (dnnl_matmul_primitive_desc_create(&description, product->engine, form[0], form[1], NULL,
                                          form[2], NULL) != dnnl_success)
        return false;
    bool built = dnnl_primitive_create(&product->primitive, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    return built;
}

static bool bind(onednn_product *product, dnnl_memory_desc_t form[3], void *const data[3])
{
    bool bound = true;
    for (int i = 0; i < 3; i++) {
        bound = bound && dnnl_memory_create(&product->memory[i], form[i], product->engine,
                                            data[i]) == dnnl_success;
        dnnl_memory_desc_destroy(form[i]);
    }
    return bound;
}

#else

static bool describe(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, int64_t row,
                     int64_t column, mn__dtype dtype)
{
    dnnl_dims_t sizes = {rows, columns}, strides = {row, column};
    return dnnl_memory_desc_init_by_strides(out, 2, sizes, type_of(dtype), strides) == dnnl_success;
}

static bool build(onednn_product *product, const dnnl_memory_desc_t form[3])
{
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description;
    if (dnnl_matmul_desc_init(&operation, &form[0], &form[1], NULL, &form[2]) != dnnl_success ||
        dnnl_primitive_desc_create(&description, &operation, NULL, product->engine, NULL) !=
            dnnl_success)
        return false;
    bool built = dnnl_primitive_create(&product->primitive, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    return built;
}

static bool bind(onednn_product *product, dnnl_memory_desc_t form[3], void *const data[3])
{
    bool bound = true;
    for (int i = 0; i < 3; i++)
        bound = bound && dnnl_memory_create(&product->memory[i], &form[i], product->engine,
                                            data[i]) == dnnl_success;
    return bound;
}

#endif

void onednn_cap(mn__level level)
{
#if defined(__x86_64__)
    static const dnnl_cpu_isa_t caps[MN__LEVELS] = {
        dnnl_cpu_isa_sse41,
        dnnl_cpu_isa_sse41,
        dnnl_cpu_isa_avx2,
        dnnl_cpu_isa_avx512_core,
        dnnl_cpu_isa_avx512_core_bf16,
        dnnl_cpu_isa_avx512_core_amx,
    };
    dnnl_set_max_cpu_isa(caps[level]);
#else
    (void)level;
#endif
}

onednn_product *onednn_open(const mn__matmul *call)
{
    onednn_product *product = calloc(1, sizeof *product);
    dnnl_memory_desc_t form[3];
    void *const data[3] = {(void *)(uintptr_t)call->a.data, (void *)(uintptr_t)call->b.data,
                           call->c};
    if (!product)
        return NULL;
    if (dnnl_engine_create(&product->engine, dnnl_cpu, 0) == dnnl_success &&
        dnnl_stream_create(&product->stream, product->engine, dnnl_stream_default_flags) ==
            dnnl_success &&
        describe(&form[0], call->m, call->k, call->a.row, call->a.column, call->a.dtype) &&
        describe(&form[1], call->k, call->n, call->b.row, call->b.column, call->b.dtype) &&
        describe(&form[2], call->m, call->n, call->c_row, 1, call->c_dtype) &&
        build(product, form) && bind(product, form, data))
        return product;
    onednn_close(product);
    return NULL;
}

void onednn_run(onednn_product *product)
{
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, product->memory[0]},
                                         {DNNL_ARG_WEIGHTS, product->memory[1]},
                                         {DNNL_ARG_DST, product->memory[2]}};
    dnnl_primitive_execute(product->primitive, product->stream, 3, arguments);
    dnnl_stream_wait(product->stream);
}

void onednn_close(onednn_product *product)
{
    if (!product)
        return;
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(product->memory[i]);
    dnnl_primitive_destroy(product->primitive);
    dnnl_stream_destroy(product->stream);
    dnnl_engine_destroy(product->engine);
    free(product);
}
