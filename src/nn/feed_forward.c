/* The feed-forward sublayer. */
#include "nn/feed_forward.h"

#include <stdio.h>

mn_status mn__feed_forward_create(mn__feed_forward *layer, mn__params *params, const char *prefix,
                                  int64_t width, int64_t hidden, mn__activation activation,
                                  bool gated, bool bias, float deviation, mn_error *error)
{
    layer->activation = activation;
    layer->gated = gated;
    char name[128];
    snprintf(name, sizeof name, "%s.up", prefix);
    mn_status status = mn__linear_create(&layer->up, params, name, width,
                                         gated ? 2 * hidden : hidden, bias, deviation, error);
    if (status != MN_OK)
        return status;
    snprintf(name, sizeof name, "%s.down", prefix);
    return mn__linear_create(&layer->down, params, name, hidden, width, bias, deviation, error);
}

mn__var *mn__feed_forward_forward(const mn__feed_forward *layer, mn__tape *tape, mn__var *h)
{
    mn__var *hidden;
    if (layer->gated) {
        mn__var *both = mn__linear_forward(&layer->up, tape, h, MN__LINEAR), *part[2];
        if (!both)
            return NULL;
        int axis = both->value.rank - 1;
        int64_t half = both->value.size[axis] / 2, sizes[2] = {half, half};
        if (!mn__op_split(tape, both, axis, sizes, 2, part))
            return NULL;
        hidden = mn__op_gate(tape, layer->activation, part[0], part[1]);
    } else {
        hidden = mn__linear_forward(&layer->up, tape, h, layer->activation);
    }
    hidden = mn__op_dropout(tape, hidden, layer->dropout);
    return mn__linear_forward(&layer->down, tape, hidden, MN__LINEAR);
}
