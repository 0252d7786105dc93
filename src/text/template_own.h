/* What the files of the template interpreter share: tokens, the tree, values and
 * the state of a rendering. */
#ifndef MN__TEXT_TEMPLATE_OWN_H
#define MN__TEXT_TEMPLATE_OWN_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/string.h"
#include "text/template.h"

/* ---- Values ------------------------------------------------------------------ */

typedef enum mn__jinja_kind {
    MN__JINJA_UNDEFINED, /* text: what is not there */
    MN__JINJA_NONE,
    MN__JINJA_BOOL,
    MN__JINJA_INT,
    MN__JINJA_FLOAT,
    MN__JINJA_STRING,
    MN__JINJA_LIST,
    MN__JINJA_TUPLE,
    MN__JINJA_DICT,
    MN__JINJA_NAMESPACE,
    MN__JINJA_LOOP,
    MN__JINJA_MACRO,
    MN__JINJA_METHOD,
    MN__JINJA_FUNCTION,
    MN__JINJA_ABSENT, /* an argument that was not given; never a template's value */
} mn__jinja_kind;

typedef struct mn__jinja_list mn__jinja_list;
typedef struct mn__jinja_dict mn__jinja_dict;
typedef struct mn__jinja_loop mn__jinja_loop;
typedef struct mn__jinja_macro mn__jinja_macro;
typedef struct mn__jinja_method mn__jinja_method;
typedef struct mn__jinja_builtin mn__jinja_builtin;
typedef struct mn__jinja_node mn__jinja_node;
typedef struct mn__jinja_scope mn__jinja_scope;

/* Immutable, but for namespaces. Strings are valid UTF-8, not NUL-ended. */
typedef struct mn__jinja_value {
    mn__jinja_kind kind;
    int64_t bytes; /* of text */
    union {
        bool yes;
        int64_t whole;
        double real;
        const char *text;
        mn__jinja_list *list; /* LIST and TUPLE */
        mn__jinja_dict *dict; /* DICT and NAMESPACE */
        const mn__jinja_loop *loop;
        const mn__jinja_macro *macro;
        const mn__jinja_method *method;
        const mn__jinja_builtin *function;
    } as;
} mn__jinja_value;

struct mn__jinja_list {
    mn__jinja_value *items;
    int64_t count, capacity;
};

struct mn__jinja_dict { /* in the order of insertion */
    mn__jinja_value *keys, *values;
    int64_t count, capacity;
};

struct mn__jinja_loop {
    const mn__jinja_list *items;
    int64_t index; /* from 0 */
};

struct mn__jinja_macro {
    const mn__jinja_node *node;
    mn__jinja_scope *scope; /* where it was defined */
};

struct mn__jinja_method {
    mn__jinja_value object;
    const char *name;
};

/* ---- The tree ------------------------------------------------------------------ */

typedef enum mn__jinja_node_kind {
    /* statements */
    MN__JINJA_TEXT,      /* constant */
    MN__JINJA_PRINT,     /* a */
    MN__JINJA_IF,        /* a, body, otherwise (which may be one IF: elif) */
    MN__JINJA_FOR,       /* target a, in b, if c or NULL, body, otherwise */
    MN__JINJA_SET,       /* target a, value b */
    MN__JINJA_SET_BLOCK, /* target a, body */
    MN__JINJA_DEFINE,    /* name; items: parameters (NAMEs; a: default or NULL); body */
    MN__JINJA_BREAK,
    MN__JINJA_CONTINUE,
    MN__JINJA_GROUP, /* body: generation */
    /* expressions */
    MN__JINJA_CONSTANT,  /* constant */
    MN__JINJA_NAME,      /* name */
    MN__JINJA_LIST_OF,   /* items */
    MN__JINJA_TUPLE_OF,  /* items */
    MN__JINJA_DICT_OF,   /* items: key, value, key, value ... */
    MN__JINJA_ATTRIBUTE, /* a.name */
    MN__JINJA_ITEM,      /* a[b] */
    MN__JINJA_SLICE,     /* a[b:c:body], each may be NULL */
    MN__JINJA_CALL,      /* a(items); a keyword argument has a name and its value in a */
    MN__JINJA_FILTER,    /* a | name(items) */
    MN__JINJA_TEST,      /* a is name(items) */
    MN__JINJA_KEYWORD,   /* name=a, in items */
    MN__JINJA_NOT,       /* a */
    MN__JINJA_NEGATE,    /* a */
    MN__JINJA_POSITIVE,  /* a */
    MN__JINJA_AND,       /* a, b */
    MN__JINJA_OR,        /* a, b */
    MN__JINJA_BINARY,    /* a op b */
    MN__JINJA_CONCAT,    /* items */
    MN__JINJA_COMPARE,   /* a, then items: OPERANDs */
    MN__JINJA_OPERAND,   /* op, a */
    MN__JINJA_CHOICE,    /* a if b else c or NULL */
} mn__jinja_node_kind;

/* An operator of one or two characters; `in` and `not in` are words. */
#define MN__JINJA_OP(first, second) ((first) | (second) << 8)
enum { MN__JINJA_IN = 1, MN__JINJA_NOT_IN = 2 };

struct mn__jinja_node {
    mn__jinja_node_kind kind;
    int line, op;
    const char *name; /* NUL-ended */
    mn__jinja_value constant;
    mn__jinja_node *a, *b, *c;
    mn__jinja_node *items, *body, *otherwise; /* lists by `next` */
    mn__jinja_node *next;
};

struct mn__template {
    mn__arena arena;
    const char *name;
    mn__jinja_node *body;
};

/* ---- Tokens ---------------------------------------------------------------------- */

typedef enum mn__jinja_token_kind {
    MN__JINJA_T_END,
    MN__JINJA_T_TEXT,
    MN__JINJA_T_PRINT,     /* {{ */
    MN__JINJA_T_PRINT_END, /* }} */
    MN__JINJA_T_BLOCK,     /* {% */
    MN__JINJA_T_BLOCK_END, /* %} */
    MN__JINJA_T_NAME,
    MN__JINJA_T_VALUE, /* a string or a number, in value */
    MN__JINJA_T_OPERATOR,
} mn__jinja_token_kind;

typedef struct mn__jinja_token {
    mn__jinja_token_kind kind;
    int line, op;
    const char *text; /* TEXT, NAME (which is NUL-ended) */
    int64_t bytes;
    mn__jinja_value value;
} mn__jinja_token;

typedef struct mn__jinja_tokens {
    mn__jinja_token *at; /* freed by mn__free */
    int64_t count, capacity;
} mn__jinja_tokens;

/* Cuts text into tokens, the last an END; texts go into the arena. White space around
 * tags is gone as their signs and trim_blocks and lstrip_blocks have it. */
mn_status mn__jinja_tokenize(mn__arena *arena, const char *name, const char *text, int64_t bytes,
                             mn__jinja_tokens *tokens, mn_error *error);
/* Statements from tokens. */
mn_status mn__jinja_parse(mn__arena *arena, const char *name, const mn__jinja_tokens *tokens,
                          mn__jinja_node **body, mn_error *error);

/* ---- A rendering -------------------------------------------------------------------- */

typedef struct mn__jinja_binding {
    const char *name;
    mn__jinja_value value;
} mn__jinja_binding;

struct mn__jinja_scope {
    mn__jinja_scope *parent;
    mn__jinja_binding *bindings;
    int64_t count, capacity;
};

typedef struct mn__jinja_run {
    const char *name; /* of the template */
    mn_error *error;
    mn__arena arena;   /* every value made while rendering */
    mn__string *out;   /* where statements print to */
    int64_t out_bytes; /* printed so far, also to what a macro returns */
    int64_t work_left; /* units: about a byte looked at */
    int64_t memory;    /* limits of the arena and of out_bytes */
    int64_t now;
    int line, depth;
    enum { MN__JINJA_RUNS, MN__JINJA_BREAKS, MN__JINJA_CONTINUES } flow;
} mn__jinja_run;

extern const char mn__jinja_hint[]; /* what to do instead of a template */

/* "NAME, line N: <format>". */
mn_status mn__jinja_fail(mn__jinja_run *run, mn_status code, const char *format, ...)
    MN__PRINTF(3, 4);
mn_status mn__jinja_no_memory(mn__jinja_run *run);
/* Counts work and refuses what is over the limit. */
mn_status mn__jinja_spend(mn__jinja_run *run, int64_t units);
/* From the run's arena, within its limit. */
mn_status mn__jinja_alloc(mn__jinja_run *run, int64_t bytes, void *out);
/* One level deeper, in a tree or in nested values; mn__jinja_leave comes back up. */
mn_status mn__jinja_enter(mn__jinja_run *run);
void mn__jinja_leave(mn__jinja_run *run);

/* So many more bytes of input: the limits grow with it. */
void mn__jinja_given(mn__jinja_run *run, int64_t bytes);
/* Prints a template's body to run->out. */
mn_status mn__jinja_run_template(mn__jinja_run *run, const mn__template *tmpl,
                                 const json_t *variables);

/* ---- Making values -------------------------------------------------------------------- */

mn__jinja_value mn__jinja_undefined(const char *name);
mn__jinja_value mn__jinja_none(void);
mn__jinja_value mn__jinja_bool(bool yes);
mn__jinja_value mn__jinja_int(int64_t whole);
mn__jinja_value mn__jinja_float(double real);
mn__jinja_value mn__jinja_borrow(const char *text, int64_t bytes);
/* A copy of a string that was built; frees it. */
mn_status mn__jinja_take(mn__jinja_run *run, mn__string *string, mn__jinja_value *out);
mn_status mn__jinja_list_new(mn__jinja_run *run, mn__jinja_kind kind, int64_t capacity,
                             mn__jinja_value *out);
mn_status mn__jinja_list_add(mn__jinja_run *run, mn__jinja_list *list, mn__jinja_value item);
mn_status mn__jinja_dict_new(mn__jinja_run *run, mn__jinja_kind kind, int64_t capacity,
                             mn__jinja_value *out);
/* Replaces the value of a key that is there. */
mn_status mn__jinja_dict_set(mn__jinja_run *run, mn__jinja_dict *dict, mn__jinja_value key,
                             mn__jinja_value value);
mn_status mn__jinja_of_json(mn__jinja_run *run, const json_t *json, mn__jinja_value *out);

/* ---- Looking at values ------------------------------------------------------------------- */

const char *mn__jinja_kind_name(mn__jinja_value value);
bool mn__jinja_is_number(mn__jinja_value value); /* BOOL too, as in Python */
int64_t mn__jinja_whole(mn__jinja_value value);  /* of INT or BOOL */
double mn__jinja_real(mn__jinja_value value);    /* of a number */
bool mn__jinja_truth(mn__jinja_value value);
bool mn__jinja_is_text(mn__jinja_value value, const char *text);
/* Code points of a STRING. */
int64_t mn__jinja_length(mn__jinja_value string);
mn_status mn__jinja_equal(mn__jinja_run *run, mn__jinja_value a, mn__jinja_value b, bool *equal);
/* <0, 0, >0; an error where Python has no order. */
mn_status mn__jinja_order(mn__jinja_run *run, mn__jinja_value a, mn__jinja_value b, int *order);
mn_status mn__jinja_contains(mn__jinja_run *run, mn__jinja_value in, mn__jinja_value item,
                             bool *found);
/* *found is false and *value UNDEFINED where the key is missing. */
mn_status mn__jinja_dict_find(mn__jinja_run *run, const mn__jinja_dict *dict, mn__jinja_value key,
                              mn__jinja_value *value, bool *found);
/* What a loop goes over: a list's items, a string's characters, a dictionary's keys. */
mn_status mn__jinja_iterate(mn__jinja_run *run, mn__jinja_value value,
                            const mn__jinja_list **items);
mn_status mn__jinja_attribute(mn__jinja_run *run, mn__jinja_value object, const char *name,
                              mn__jinja_value *out);
mn_status mn__jinja_item(mn__jinja_run *run, mn__jinja_value object, mn__jinja_value key,
                         mn__jinja_value *out);
/* Each bound is NONE or a whole number. */
mn_status mn__jinja_slice(mn__jinja_run *run, mn__jinja_value object,
                          const mn__jinja_value bounds[3], mn__jinja_value *out);
mn_status mn__jinja_binary(mn__jinja_run *run, int op, mn__jinja_value a, mn__jinja_value b,
                           mn__jinja_value *out);

/* ---- Values as text ------------------------------------------------------------------------ */

/* Python's str(); a STRING as it is. */
mn_status mn__jinja_print(mn__jinja_run *run, mn__jinja_value value, mn__string *out);
/* The same as a STRING value. */
mn_status mn__jinja_text(mn__jinja_run *run, mn__jinja_value value, mn__jinja_value *out);

typedef struct mn__jinja_json {
    const char *indent; /* NULL: on one line */
    int64_t indent_bytes;
    mn__jinja_value item, key; /* separators, STRINGs */
    bool ascii, sort;
} mn__jinja_json;
/* Python's json.dumps(). */
mn_status mn__jinja_dump(mn__jinja_run *run, mn__jinja_value value, const mn__jinja_json *form,
                         mn__string *out);

/* ---- Filters, tests, functions, methods ------------------------------------------------------ */

enum { MN__JINJA_MOST_ARGUMENTS = 16 };
typedef struct mn__jinja_arguments {
    mn__jinja_value values[MN__JINJA_MOST_ARGUMENTS];
    const char *names[MN__JINJA_MOST_ARGUMENTS]; /* NULL: by position; those come first */
    int64_t count;
} mn__jinja_arguments;

/* `self` is a filter's or test's value or a method's object; arguments are bound in the
 * order of `parameters`, what was not given is ABSENT. */
struct mn__jinja_builtin {
    const char *name;
    const char *parameters; /* "a b c", at most 4; NULL: takes them as they are */
    mn_status (*call)(mn__jinja_run *run, mn__jinja_value self,
                      const mn__jinja_arguments *arguments, mn__jinja_value *out);
    int required; /* how many of the parameters */
};

/* what: "filter", "test", "function", "method", for errors. */
mn_status mn__jinja_call(mn__jinja_run *run, const char *what, const mn__jinja_builtin *builtin,
                         mn__jinja_value self, const mn__jinja_arguments *arguments,
                         mn__jinja_value *out);
mn_status mn__jinja_filter(mn__jinja_run *run, const char *name, mn__jinja_value self,
                           const mn__jinja_arguments *arguments, mn__jinja_value *out);
mn_status mn__jinja_test(mn__jinja_run *run, const char *name, mn__jinja_value self,
                         const mn__jinja_arguments *arguments, bool *out);
mn_status mn__jinja_method_call(mn__jinja_run *run, const mn__jinja_method *method,
                                const mn__jinja_arguments *arguments, mn__jinja_value *out);
/* Whether Python's strings, lists or dictionaries have a method of that name. */
bool mn__jinja_has_method(mn__jinja_kind kind, const char *name);
/* A global function, or NULL. */
const mn__jinja_builtin *mn__jinja_function(const char *name);
/* The table's row of that name (the table ends with a NULL name), or NULL. */
const mn__jinja_builtin *mn__jinja_find(const mn__jinja_builtin *table, const char *name);

/* Python's str.strip, lstrip (sides 1), rstrip (2) or both (3); chars: ABSENT or NONE for
 * white space. */
mn_status mn__jinja_strip(mn__jinja_run *run, mn__jinja_value string, mn__jinja_value chars,
                          int sides, mn__jinja_value *out);
/* At most `most` occurrences, <0: all. */
mn_status mn__jinja_replace(mn__jinja_run *run, mn__jinja_value string, mn__jinja_value old,
                            mn__jinja_value with, int64_t most, mn__jinja_value *out);
typedef enum mn__jinja_case {
    MN__JINJA_UPPER,
    MN__JINJA_LOWER,
    MN__JINJA_CAPITALIZE,
    MN__JINJA_TITLE, /* the filter's, not Python's */
} mn__jinja_case;
mn_status mn__jinja_change_case(mn__jinja_run *run, mn__jinja_value string, mn__jinja_case change,
                                mn__jinja_value *out);

#endif
