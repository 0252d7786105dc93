/* Families of pretrained models: for each, how its config.json is said in a recipe's words,
 * and which of its tensors are which of the decoder's. The table is families.c; config.c
 * reads by it and pretrained.c loads by it. A family is data: what it needs and the decoder
 * lacks becomes an option of the decoder, which recipes have too. */
#ifndef MN__MODEL_FAMILY_H
#define MN__MODEL_FAMILY_H

#include "base/arena.h"
#include "base/json.h"
#include "base/yaml.h"

/* What a key of config.json is to an option of a recipe's `model`. */
typedef enum mn__key_kind {
    MN__KEY_END,
    MN__KEY_INT,
    MN__KEY_FLOAT,
    MN__KEY_BOOL,       /* true says `yes` (NULL: "true"), false says `no` (NULL: "false") */
    MN__KEY_ACTIVATION, /* a name of transformers' */
    MN__KEY_TRUE,       /* must be true, false */
    MN__KEY_FALSE,
    MN__KEY_WIDTH, /* must be as large as the model's width */
} mn__key_kind;

typedef struct mn__family_key {
    const char *key;
    mn__key_kind kind;
    const char *option;
    const char *fallback; /* where the key is missing or null; NULL: it must be there */
    const char *yes, *no;
} mn__family_key;

/* Which layers see a window alone. */
typedef enum mn__family_window {
    MN__WINDOW_NONE,
    MN__WINDOW_ALL,    /* all, where there is a sliding_window */
    MN__WINDOW_LAYERS, /* by layer_types; or use_sliding_window, from max_window_layers on */
} mn__family_window;

typedef enum mn__naming_kind {
    MN__NAMING_END,
    MN__NAMING_LINEAR, /* weight [out, in] and, where ours has one, bias [out] */
    MN__NAMING_TURNED, /* the same with their weight [in, out] */
    MN__NAMING_NORM,   /* our gain and bias, their weight and bias */
    MN__NAMING_TABLE,  /* weight alone, without its first `skip` rows */
} mn__naming_kind;

/* Names without ".weight"; '#' is the layer. The rows of all of theirs, one after the other
 * and alike in size, are the rows of all of ours. */
typedef struct mn__naming {
    mn__naming_kind kind;
    const char *ours[2], *theirs[2];
    int64_t skip;
} mn__naming;

typedef struct mn__family {
    const char *type;         /* config.json's model_type */
    const char *architecture; /* transformers' class; NULL: it has none of its own */
    const char *help;         /* the models so called */
    const mn__family_key *keys;
    const char *options;    /* of `model`, the same for all of the family */
    const char *context;    /* the key of the longest text */
    const char *vocabulary; /* that of the vocabulary's size; NULL: vocab_size */
    bool rope;              /* config.json says how positions turn */
    bool unturned;          /* some layers have no positions: no_rope_layers */
    const char *ratio;      /* the key of a factor of the frequencies' base; or NULL */
    double partial;         /* of a head that turns, where the key is missing */
    bool partial_key;       /* transformers reads that key of this family */
    mn__family_window window;
    int64_t window_fallback; /* where sliding_window is missing (not null); 0: none */
    const mn__naming *names;
    const char *prefix;       /* of their names; files of the bare model lack it */
    const char *const *spare; /* ends of names of tensors that hold no weights; NULL-ended */
} mn__family;

/* NULL-ended; and one by its model_type, or NULL. */
extern const mn__family *const mn__families[];
const mn__family *mn__family_find(const char *type);

/* Activations: theirs, ours. Of several names for one of ours the first is written. */
extern const char *const mn__config_activations[][2]; /* ended by NULL */

/* A way to stretch rotary positions, of one name in both, beside its `factor`. */
typedef struct mn__rope_words {
    const char *name;
    const char *const (*floats)[2]; /* their keys, options of `model`; ended by NULL */
    bool original;                  /* it counts from the length of the first training */
    bool length;                    /* and by that of the text that is planned for */
    bool truncates, lists;          /* rope_truncate; rope_short and rope_long */
} mn__rope_words;
const mn__rope_words *mn__rope_words_find(const char *name); /* NULL: there is none */

/* What a config.json says. */
typedef struct mn__config {
    const mn__family *family;
    mn__yaml_node *recipe; /* {model: {...}, attention: {...}}, in the arena */
    int64_t vocabulary;
    int64_t context; /* the longest text that the model is for */
    int64_t tokens;  /* planned for */
    int64_t end_count;
    const int32_t *ends; /* [end_count]: ids at which a text ends (eos_token_id) */
} mn__config;

/* tokens: what frequencies that depend on the length are made for; 0: the context.
 * MN_ERROR_UNSUPPORTED, with what is missing, for families and settings not known here;
 * MN_ERROR_FORMAT for a key that is missing or of another type. `path` names the file in
 * errors and lives as long as the arena. */
mn_status mn__config_read(mn__config *config, mn__arena *arena, const char *path,
                          const json_t *root, int64_t tokens, mn_error *error);
/* eos_token_id, an id or a list of them, of config.json or generation_config.json; where it
 * is missing, what was there stays. */
mn_status mn__config_read_ends(mn__config *config, mn__arena *arena, const char *path,
                               const json_t *root, mn_error *error);

#endif
