/* Where gradients lie.
 *
 * A var made by an operation owns its gradient; a view's lies inside that of
 * its root. To spare a pass that clears memory, a first contribution sets and
 * later ones add. For that each root knows whether all of its gradient is set,
 * and, where mn__op_split has cut it into disjoint parts, each part knows it for
 * itself. A contribution through any other view first clears what is unset.
 *
 * Memory comes from a pool: a list of buffers by size, given back when the
 * operation that made the var has been walked. */
#include "tensor/gradient.h"

#include <assert.h>

struct mn__pooled {
    void *data;
    int64_t bytes;
    struct mn__pooled *next;
};

/* ---- The pool ------------------------------------------------------------------ */

static void *pool_take(mn__tape *tape, int64_t bytes)
{
    for (struct mn__pooled **link = &tape->pooled; *link; link = &(*link)->next) {
        struct mn__pooled *cell = *link;
        if (cell->bytes != bytes)
            continue;
        *link = cell->next;
        cell->next = tape->spare;
        tape->spare = cell;
        return cell->data;
    }
    return mn__store_alloc(&tape->gradients, bytes);
}

static void pool_give(mn__tape *tape, void *data, int64_t bytes)
{
    struct mn__pooled *cell = tape->spare;
    if (cell)
        tape->spare = cell->next;
    else if (!(cell = mn__arena_calloc(&tape->cells, 1, sizeof *cell)))
        return; /* the buffer is not used again before the reset */
    *cell = (struct mn__pooled){data, bytes, tape->pooled};
    tape->pooled = cell;
}

static int64_t gradient_bytes(const mn__var *root)
{
    return (mn__tensor_bytes(&root->value) + 63) / 64 * 64;
}

void mn__gradient_give_back(mn__tape *tape, mn__var *var)
{
    if (!var->gradient || var->param)
        return;
    pool_give(tape, var->gradient, gradient_bytes(var));
    var->gradient = NULL;
    var->gradient_set = false;
}

/* ---- What is set ------------------------------------------------------------------ */

static mn__var *root_of(mn__var *var)
{
    while (var->whole)
        var = var->whole;
    return var;
}

static bool covers(const mn__var *view)
{
    return mn__tensor_elements(&view->value) == mn__tensor_elements(&view->whole->value);
}

/* A view that is another var with other sizes, as after a reshape: that var. */
static mn__var *canonical(mn__var *var)
{
    while (var->whole && covers(var))
        var = var->whole;
    return var;
}

static bool is_part(const mn__var *var, const mn__var *whole)
{
    for (const mn__var *part = whole->parts; part; part = part->next_part)
        if (part == var)
            return true;
    return false;
}

static bool *set_flag(mn__var *var)
{
    return var->param ? &var->param->gradient_set : &var->gradient_set;
}

static bool is_set(mn__var *var)
{
    var = canonical(var);
    if (*set_flag(var))
        return true;
    return var->whole && is_set(var->whole);
}

static mn__tensor place_of(mn__var *var)
{
    mn__var *root = root_of(var);
    mn__tensor place = var->whole ? var->place : mn__tape_place(var);
    char *base = root->param ? (char *)root->param->gradient : root->gradient;
    place.data = (void *)((uintptr_t)base + (uintptr_t)place.data);
    return place;
}

static void clear(mn__tape *tape, mn__var *var)
{
    mn__tensor place = place_of(var);
    mn__tensor_fill(&tape->device->queue, &place, 0.0f);
}

void mn__gradient_complete(mn__tape *tape, mn__var *var)
{
    var = canonical(var);
    if (is_set(var))
        return;
    if (var->whole && !is_part(var, canonical(var->whole))) {
        mn__gradient_complete(tape, var->whole);
        return;
    }
    if (!var->parts)
        clear(tape, var);
    for (mn__var *part = var->parts; part; part = part->next_part)
        mn__gradient_complete(tape, part);
    *set_flag(var) = true;
}

static bool any_part_set(const mn__var *var)
{
    for (const mn__var *part = var->parts; part; part = part->next_part)
        if (part->gradient_set || any_part_set(part))
            return true;
    return false;
}

/* True if the caller has to add; marks var as set otherwise. */
static bool claim(mn__tape *tape, mn__var *var)
{
    var = canonical(var);
    bool part = var->whole && is_part(var, canonical(var->whole));
    if (is_set(var) || any_part_set(var) || (var->whole && !part)) {
        mn__gradient_complete(tape, var);
        return true;
    }
    *set_flag(var) = true;
    return false;
}

static bool has_memory(mn__tape *tape, mn__var *root)
{
    if (root->param || root->gradient)
        return true;
    root->gradient = pool_take(tape, gradient_bytes(root));
    if (!root->gradient)
        mn__tape_fail(tape, MN_ERROR_MEMORY,
                      "use a smaller batch, a shorter segment or `recompute: true`",
                      "no memory for a gradient of %lld bytes", (long long)gradient_bytes(root));
    return root->gradient;
}

/* ---- For operations ------------------------------------------------------------------ */

mn__tensor mn__tape_place(const mn__var *whole)
{
    if (whole->whole)
        return whole->place;
    return mn__tensor_of(NULL, whole->value.dtype, whole->value.rank, whole->value.size);
}

void mn__tape_parts(mn__var *whole, mn__var *const *parts, int count)
{
    whole = canonical(whole);
    /* Cut before: these are views like any other. A parameter's gradient is set as a whole, for
     * the optimizer looks at that alone. */
    if (count < 2 || whole->parts || root_of(whole)->param)
        return;
    for (int i = 0; i < count; i++) {
        parts[i]->next_part = whole->parts;
        whole->parts = parts[i];
    }
}

bool mn__tape_gradient(mn__tape *tape, mn__var *var, mn__tensor *gradient, bool *accumulate)
{
    if (!var || !var->wants_gradient || !has_memory(tape, root_of(var)))
        return false;
    *accumulate = claim(tape, var);
    *gradient = place_of(var);
    return true;
}

bool mn__tape_gradient_to_add(mn__tape *tape, mn__var *var, mn__tensor *gradient)
{
    if (!var || !var->wants_gradient || !has_memory(tape, root_of(var)))
        return false;
    mn__gradient_complete(tape, var);
    *gradient = place_of(var);
    return true;
}

mn__tensor mn__tape_gradient_of(mn__tape *tape, mn__var *out)
{
    assert(root_of(out)->gradient);
    mn__gradient_complete(tape, out);
    return place_of(out);
}

void mn__tape_contribute(mn__tape *tape, mn__var *var, float factor, const mn__tensor *source)
{
    mn__tensor gradient;
    bool accumulate;
    if (!mn__tape_gradient(tape, var, &gradient, &accumulate))
        return;
    mn__tensor_axpby(&tape->device->queue, &gradient, factor, source, accumulate ? 1.0f : 0.0f);
}

bool mn__tape_hand_over(mn__var *out, mn__var *var)
{
    bool fits = out->value.dtype == var->value.dtype &&
                mn__tensor_elements(&out->value) == mn__tensor_elements(&var->value);
    if (!fits || !var->wants_gradient || var->whole || var->param || var->gradient || out->whole)
        return false;
    var->gradient = out->gradient;
    var->gradient_set = true;
    out->gradient = NULL;
    out->gradient_set = false;
    return true;
}
