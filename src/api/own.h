/* What the public handles (include/mneme.h) are. */
#ifndef MN__API_OWN_H
#define MN__API_OWN_H

#include "model/run.h"
#include "reader/reading.h"
#include "text/chat.h"

struct mn_model {
    mn__device device;
    mn__run run;
    mn__dtype compute;
    mn__chat *chat;   /* or NULL */
    mn_error no_chat; /* why there is none */
};

struct mn_session {
    mn_model *model;
    mn__reading reading;
};

/* mn__limit_check, with the ways out as a program takes them. */
mn_status mn__model_check_length(const mn__run *run, int64_t tokens, mn__dtype compute,
                                 mn_error *error);

#endif
