/* Fills, copies and sums of tensors with any strides, against loops over indices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tensor/tensor.h"

enum { ELEMENTS = 4096 };

/* Sizes that three tensors share, inside wider ones: `whole` is where a part is cut from. */
static const struct layout {
    int64_t size[MN__RANK_MAX], whole[3][MN__RANK_MAX];
    int fills; /* calls of the kernel that fill the third */
} layouts[] = {
    {{2, 5, 3, 8}, {{2, 5, 3, 8}, {2, 5, 3, 8}, {2, 5, 3, 8}}, 1},
    {{2, 5, 3, 8}, {{2, 5, 9, 8}, {2, 5, 3, 8}, {2, 5, 4, 8}}, 1}, /* heads of a wider product */
    {{2, 5, 3, 8}, {{2, 7, 9, 8}, {2, 6, 3, 8}, {2, 9, 4, 8}}, 2}, /* and of a longer one */
    {{2, 5, 3, 8}, {{2, 5, 3, 9}, {2, 5, 3, 16}, {3, 5, 3, 10}}, 1},
    {{2, 1, 3, 1}, {{2, 4, 3, 1}, {2, 1, 3, 2}, {2, 1, 5, 1}}, 1},
    {{1, 1, 1, 7}, {{2, 2, 2, 9}, {1, 1, 1, 7}, {1, 5, 1, 7}}, 1},
};

struct held {
    float data[ELEMENTS], expected[ELEMENTS];
    mn__tensor part, other; /* of `data`; of `expected` */
};

static int fills;
static const mn__kernels *counted;

static void count_fill(mn__queue *queue, mn__matrix out, float value)
{
    fills++;
    counted->fill(queue, out, value);
}

static mn__tensor cut(mn__tensor whole, const int64_t *size)
{
    for (int axis = 0; axis < MN__RANK_MAX; axis++)
        whole = mn__tensor_slice(&whole, axis, whole.size[axis] - size[axis], size[axis]);
    return whole;
}

static void hold(struct held *held, const int64_t *whole, const int64_t *size, int seed)
{
    for (int i = 0; i < ELEMENTS; i++)
        held->data[i] = held->expected[i] = (float)((i * 37 + seed * 101) % 512);
    mn__tensor all = mn__tensor_of(held->data, MN__F32, MN__RANK_MAX, whole);
    assert_true(mn__tensor_elements(&all) <= ELEMENTS);
    held->part = cut(all, size);
    held->other = cut(mn__tensor_of(held->expected, MN__F32, MN__RANK_MAX, whole), size);
}

static float *at(const mn__tensor *tensor, int64_t n)
{
    int64_t offset = 0;
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        offset += n % tensor->size[axis] * tensor->stride[axis];
        n /= tensor->size[axis];
    }
    return (float *)tensor->data + offset;
}

static void all_elements_and_no_others(void **state)
{
    (void)state;
    static struct held held[3];
    mn__kernels counting = *mn__kernel_table(MN__LEVEL_BASELINE);
    counted = mn__kernel_table(MN__LEVEL_BASELINE);
    counting.fill = count_fill;
    mn__queue opened, *queue = &opened;
    mn_error error;
    assert_int_equal(mn__queue_open(queue, &counting, &error), MN_OK);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const struct layout *layout = &layouts[i];
        for (int k = 0; k < 3; k++)
            hold(&held[k], layout->whole[k], layout->size, k);
        int64_t n = mn__tensor_elements(&held[0].part);
        mn__tensor_convert(queue, &held[0].part, &held[1].part);
        mn__tensor_axpby(queue, &held[1].part, 2, &held[2].part, 0.5f);
        fills = 0;
        mn__tensor_fill(queue, &held[2].part, 3);
        assert_int_equal(fills, layout->fills);
        for (int64_t e = 0; e < n; e++) {
            float first = *at(&held[1].other, e), second = *at(&held[2].other, e);
            *at(&held[0].other, e) = first;
            *at(&held[1].other, e) = 2 * second + 0.5f * first;
            *at(&held[2].other, e) = 3;
        }
        for (int k = 0; k < 3; k++)
            assert_memory_equal(held[k].data, held[k].expected, sizeof held[k].data);
    }
    mn__queue_close(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_elements_and_no_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
