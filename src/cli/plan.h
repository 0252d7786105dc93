/* A plan, printed. */
#ifndef MN__CLI_PLAN_H
#define MN__CLI_PLAN_H

#include <jansson.h>

#include "train/plan.h"

/* The figures as JSON; NULL when memory is short. */
json_t *mn__plan_json(const mn__plan *plan);

#endif
