/* Views: parts and other sizes of a var, without a copy; and constants. They record nothing:
 * a view's gradient lies in that of its whole. */
#include "op/common.h"

static bool check_axis(mn__tape *tape, const char *operation, const mn__var *x, int axis)
{
    char sizes[64];
    if (axis >= 0 && axis < x->value.rank)
        return true;
    mn__tape_fail(tape, MN_ERROR_MISMATCH, "axes count from 0", "%s: axis %d of %s", operation,
                  axis, mn__tensor_sizes(&x->value, sizes));
    return false;
}

static mn__var *part(mn__tape *tape, mn__var *x, int axis, int64_t start, int64_t count)
{
    mn__tensor place = mn__tape_place(x);
    return mn__tape_view(tape, x, mn__tensor_slice(&x->value, axis, start, count),
                         mn__tensor_slice(&place, axis, start, count));
}

mn__var *mn__op_slice(mn__tape *tape, mn__var *x, int axis, int64_t start, int64_t count)
{
    if (!x || !check_axis(tape, "slice", x, axis))
        return NULL;
    if (start < 0 || count < 0 || start > x->value.size[axis] - count) {
        char sizes[64];
        return mn__tape_fail(tape, MN_ERROR_MISMATCH, "a slice lies within its tensor",
                             "slice: %lld from %lld on along axis %d of %s", (long long)count,
                             (long long)start, axis, mn__tensor_sizes(&x->value, sizes));
    }
    return part(tape, x, axis, start, count);
}

bool mn__op_split(mn__tape *tape, mn__var *x, int axis, const int64_t *sizes, int count,
                  mn__var **parts)
{
    if (!x || !check_axis(tape, "split", x, axis))
        return false;
    int64_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += sizes[i];
    if (sum != x->value.size[axis]) {
        char text[64];
        mn__tape_fail(tape, MN_ERROR_MISMATCH, "the parts add up to the whole",
                      "split: parts of %lld together along axis %d of %s", (long long)sum, axis,
                      mn__tensor_sizes(&x->value, text));
        return false;
    }
    for (int64_t i = 0, start = 0; i < count; start += sizes[i++])
        if (!(parts[i] = part(tape, x, axis, start, sizes[i])))
            return false;
    if (tape->recording) /* else the parts may be released before x */
        mn__tape_parts(x, parts, count);
    return true;
}

mn__var *mn__op_reshape(mn__tape *tape, mn__var *x, int rank, const int64_t *size)
{
    if (!x)
        return NULL;
    mn__tensor place = mn__tape_place(x), value;
    if (mn__tensor_reshape(&x->value, rank, size, &value) &&
        mn__tensor_reshape(&place, rank, size, &place))
        return mn__tape_view(tape, x, value, place);
    mn__tensor wanted = mn__tensor_of(NULL, x->value.dtype, rank, size);
    return mn__op_fail_sizes(tape, "reshape",
                             "keep the count of elements; copy a part with gaps first "
                             "(mn__op_concat of one part)",
                             "x", &x->value, "the result", &wanted);
}

mn__var *mn__op_constant(mn__tape *tape, int64_t count, float value)
{
    mn__var *out = mn__tape_new(tape, MN__F32, 1, &count);
    if (out)
        mn__tensor_fill(&tape->device->queue, &out->value, value);
    return out;
}

/* A parameter stays one, so that products still find its copy. */
mn__var *mn__op_detach(mn__tape *tape, mn__var *x)
{
    mn__var *out = x ? mn__tape_constant(tape, x->value) : NULL;
    if (out)
        out->param = x->param;
    return out;
}
