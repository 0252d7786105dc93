/* State: what the attentions of a batch of streams carry from segment to
 * segment. It is a list of slots, tensors whose first dimension is the row (one
 * document's stream) and whose elements are stored, and of counters per row.
 * Being plain data, it is reset, copied, saved and loaded here, once for all
 * attention types. */
#ifndef MN__ATTENTION_STATE_H
#define MN__ATTENTION_STATE_H

#include "base/safetensors.h"
#include "tensor/tape.h"

enum { MN__SLOTS_MAX = 8, MN__COUNTERS_MAX = 4 };

typedef struct mn__slot {
    const char *name;
    mn__tensor value;   /* [rows, ...] */
    bool grows;         /* [rows, M, ...]: entries are only added, and counter 0 says how many
                           there are; what lies beyond means nothing */
    mn__var *live;      /* the value on the tape, where gradient passes through it:
                           from unrolled segments, or to `initial`; or NULL */
    mn__param *initial; /* what a row holds at a document's start; NULL: zeros */
} mn__slot;

/* One attention's. */
typedef struct mn__state {
    int slots, counters;
    mn__slot slot[MN__SLOTS_MAX];
    int64_t *counter[MN__COUNTERS_MAX]; /* [rows] each; 0 at a document's start */
    int64_t most[MN__COUNTERS_MAX];     /* what one may be, for files; never more than was read */
} mn__state;

/* All attentions' of a model, in the stack's order, for `rows` streams. */
typedef struct mn__states {
    mn__device *device;
    mn__arena nodes;
    mn__store store;
    mn__dtype compute; /* of what is kept as it is computed */
    mn__kept kept;     /* of keys and values: see mn__state_add_heads */
    int64_t rows, layers;
    mn__state *layer;  /* [layers] */
    int64_t *position; /* [rows]: tokens read of the row's document */
} mn__states;

mn_status mn__states_open(mn__states *states, mn__device *device, mn__dtype compute, int64_t rows,
                          int64_t layers, mn_error *error);
void mn__states_close(mn__states *states);
/* "auto", "f32", "bf16", "int8". */
const char *mn__kept_name(mn__kept kept);
int64_t mn__states_bytes(const mn__states *states);

/* For a type's create_state: adds a slot [rows, size...] of zeros or `initial`;
 * NULL when memory is short. */
mn__slot *mn__state_add(mn__states *states, mn__state *state, const char *name, mn__dtype dtype,
                        int rank, const int64_t *size, mn__param *initial);
/* The same for keys or values [rows, M, G, D], zeros, as states->kept says; of INT8 the last
 * size is mn__block_int8_bytes(D). */
mn__slot *mn__state_add_heads(mn__states *states, mn__state *state, const char *name, int64_t M,
                              int64_t G, int64_t D);
bool mn__state_add_counter(mn__states *states, mn__state *state);
/* What that counter may be at most, where it is less than the tokens read. */
void mn__state_bound_counter(mn__state *state, int counter, int64_t most);

/* Rows whose start[row] is true begin a document: their slots become the
 * initial ones, their counters 0. NULL: every row. Others stay bit-identical. */
void mn__states_start(mn__states *states, const bool *start);
/* The same on a recording tape (start not NULL): slots that are live or have an
 * initial parameter become live, with no gradient from a row's new document to
 * its old one. */
void mn__states_start_live(mn__states *states, mn__tape *tape, const bool *start);
/* Cuts the graph: no live vars any more. To be called before a tape's reset. */
void mn__states_cut(mn__states *states);
/* to's rows become from's (equal layouts: asserted). */
void mn__states_copy(mn__states *to, const mn__states *from);
/* One row of another. */
void mn__states_copy_row(mn__states *to, int64_t to_row, const mn__states *from, int64_t row);

/* What has to be kept to come back to the present place of all rows, while their documents go
 * on: slots that grow are not in it, as counters alone cut them down again. */
int64_t mn__states_snapshot_bytes(const mn__states *states);
void mn__states_snapshot(const mn__states *states, void *to);
/* Only where no row has begun another document since. */
void mn__states_rewind(mn__states *states, const void *snapshot);

/* A single row of states that differ in the room of slots that grow alone; `to` has enough. */
void mn__states_copy_grown(mn__states *to, const mn__states *from);

/* As named tensors ("state.3.memory", "state.3.counter0", "state.position") that
 * point into the state: *tensors is an array in `arena`. Of a single row, slots that grow
 * are as long as they are filled, so that a file fits states of another capacity. */
mn_status mn__states_list(const mn__states *states, mn__arena *arena, mn__safetensor **tensors,
                          int64_t *count, mn_error *error);
/* Reads those of a file; MN_ERROR_MISMATCH where names or sizes differ, or more is filled than
 * there is room for; MN_ERROR_FORMAT for counters that no reading leads to. */
mn_status mn__states_load(mn__states *states, const mn__safetensors *file, mn_error *error);

#endif
