/* A family's names, for the parameters that a decoder has. */
#include "model/naming.h"

#include <stdio.h>
#include <string.h>

static void expand(const char *pattern, int64_t layer, const char *ending, char out[128])
{
    const char *mark = strchr(pattern, '#');
    if (mark)
        snprintf(out, 128, "%.*s%lld%s%s", (int)(mark - pattern), pattern, (long long)layer,
                 mark + 1, ending);
    else
        snprintf(out, 128, "%s%s", pattern, ending);
}

/* 0: weights, 1: biases; NULL: the naming has none. */
static const char *our_ending(const mn__naming *naming, int64_t ending)
{
    if (ending)
        return naming->kind == MN__NAMING_TABLE ? NULL : ".bias";
    return naming->kind == MN__NAMING_NORM ? ".gain" : ".weight";
}

static int64_t layers_of(const mn__naming *naming, int64_t depth)
{
    return strchr(naming->ours[0], '#') ? depth : 1;
}

bool mn__match_is_turned(const mn__match *match)
{
    return match->naming->kind == MN__NAMING_TURNED && match->columns;
}

static bool find(mn__match *match, const mn__params *params, const mn__naming *naming,
                 int64_t layer, int64_t ending)
{
    *match = (mn__match){.naming = naming};
    if (!our_ending(naming, ending))
        return false;
    for (; match->ours < 2 && naming->ours[match->ours]; match->ours++) {
        char name[128];
        expand(naming->ours[match->ours], layer, our_ending(naming, ending), name);
        mn__param *param = mn__params_find(params, name);
        if (!param)
            return false;
        match->param[match->ours] = param;
        match->rows += param->value.size[0];
        match->columns = param->value.rank == 2 ? param->value.size[1] : 0;
    }
    for (; match->theirs < 2 && naming->theirs[match->theirs]; match->theirs++)
        expand(naming->theirs[match->theirs], layer, ending ? ".bias" : ".weight",
               match->their_name[match->theirs]);
    return true;
}

bool mn__matches_next(mn__matches *m)
{
    for (const mn__naming *naming; (naming = &m->family->names[m->naming])->kind; m->naming++) {
        for (; m->layer < layers_of(naming, m->depth); m->layer++) {
            while (m->ending < 2)
                if (find(&m->match, m->params, naming, m->layer, m->ending++))
                    return true;
            m->ending = 0;
        }
        m->layer = 0;
    }
    return false;
}

bool mn__family_names(const mn__family *family, int64_t depth, const char *parameter)
{
    for (const mn__naming *naming = family->names; naming->kind; naming++)
        for (int64_t i = 0; i < layers_of(naming, depth); i++)
            for (int n = 0; n < 4; n++) {
                char name[128];
                if (!naming->ours[n / 2] || !our_ending(naming, n % 2))
                    continue;
                expand(naming->ours[n / 2], i, our_ending(naming, n % 2), name);
                if (!strcmp(name, parameter))
                    return true;
            }
    return false;
}
