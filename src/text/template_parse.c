/* Tokens into a tree, by Jinja's grammar: conditions, or, and, not, comparisons, + and -,
 * ~, * / // %, **, signs, then attributes, items, calls, filters and tests. Lists and
 * chains are read by loops; what nests is read by recursion of bounded depth. */
#include <stdio.h>
#include <string.h>

#include "text/template_own.h"

enum { MOST_NESTED = 120 };

typedef struct parser {
    mn__arena *arena;
    const char *name;
    mn_error *error;
    const mn__jinja_token *at; /* an END stops all reading */
    int depth, loops, macros;
} parser;

typedef mn__jinja_node node;

static mn_status fail(const parser *p, mn_status code, const char *problem, const char *what)
{
    return mn__fail(p->error, code, mn__jinja_hint, "%s, line %d: %s%s%s", p->name, p->at->line,
                    problem, what ? " " : "", what ? what : "");
}

/* What stands at p->at, for errors. */
static mn_status unexpected(const parser *p, const char *wanted)
{
    static const char *const kinds[] = {
        [MN__JINJA_T_END] = "the end of the template",
        [MN__JINJA_T_TEXT] = "text",
        [MN__JINJA_T_PRINT] = "\"{{\"",
        [MN__JINJA_T_PRINT_END] = "\"}}\"",
        [MN__JINJA_T_BLOCK] = "\"{%\"",
        [MN__JINJA_T_BLOCK_END] = "\"%}\"",
        [MN__JINJA_T_VALUE] = "a string or number",
    };
    char shown[80];
    const mn__jinja_token *at = p->at;
    if (at->kind == MN__JINJA_T_NAME)
        snprintf(shown, sizeof shown, "'%.60s'", at->text);
    else if (at->kind == MN__JINJA_T_OPERATOR)
        snprintf(shown, sizeof shown, "'%c%.1s'", at->op & 0xFF,
                 at->op >> 8 ? (const char[]){(char)(at->op >> 8), '\0'} : "");
    else
        snprintf(shown, sizeof shown, "%s", kinds[at->kind]);
    return mn__fail(p->error, MN_ERROR_FORMAT, mn__jinja_hint, "%s, line %d: %s where %s should be",
                    p->name, at->line, shown, wanted);
}

static mn_status make(parser *p, mn__jinja_node_kind kind, node **out)
{
    *out = mn__arena_calloc(p->arena, 1, (int64_t)sizeof **out);
    if (!*out)
        return mn__fail(p->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", p->name);
    (*out)->kind = kind;
    (*out)->line = p->at->line;
    return MN_OK;
}

/* ---- Tokens --------------------------------------------------------------------------- */

static bool is_name(const mn__jinja_token *token, const char *name)
{
    return token->kind == MN__JINJA_T_NAME && strcmp(token->text, name) == 0;
}

static bool is_op(const mn__jinja_token *token, int op)
{
    return token->kind == MN__JINJA_T_OPERATOR && token->op == op;
}

static bool skip_name(parser *p, const char *name)
{
    bool is = is_name(p->at, name);
    p->at += is;
    return is;
}

static bool skip_op(parser *p, int op)
{
    bool is = is_op(p->at, op);
    p->at += is;
    return is;
}

static mn_status expect(parser *p, mn__jinja_token_kind kind, const char *wanted)
{
    if (p->at->kind != kind)
        return unexpected(p, wanted);
    p->at += kind != MN__JINJA_T_END;
    return MN_OK;
}

static mn_status expect_op(parser *p, int op, const char *wanted)
{
    return skip_op(p, op) ? MN_OK : unexpected(p, wanted);
}

static mn_status enter(parser *p)
{
    if (++p->depth > MOST_NESTED)
        return fail(p, MN_ERROR_FORMAT, "this is nested too deep", NULL);
    return MN_OK;
}

/* ---- Expressions ---------------------------------------------------------------------------- */

static mn_status parse_expression(parser *p, node **out);
static mn_status parse_or(parser *p, node **out);
static mn_status parse_unary(parser *p, bool filters, node **out);
static mn_status parse_postfix(parser *p, node **out);

/* Items up to the operator `end`, with commas; one may follow the last. */
static mn_status parse_items(parser *p, int end, const char *wanted, node **link)
{
    mn_status status = MN_OK;
    for (int64_t n = 0; !status && !skip_op(p, end); n++) {
        if (n > 0)
            status = expect_op(p, ',', wanted);
        if (!status && n > 0 && skip_op(p, end))
            break;
        if (!status)
            status = parse_expression(p, link);
        if (!status)
            link = &(*link)->next;
    }
    return status;
}

static mn_status parse_pairs(parser *p, node **link)
{
    mn_status status = MN_OK;
    for (int64_t n = 0; !status && !skip_op(p, '}'); n++) {
        if (n > 0)
            status = expect_op(p, ',', "',' or '}'");
        if (!status && n > 0 && skip_op(p, '}'))
            break;
        if (!status)
            status = parse_expression(p, link);
        if (!status)
            status = expect_op(p, ':', "':' of a dictionary");
        if (!status)
            status = parse_expression(p, &(*link)->next);
        if (!status)
            link = &(*link)->next->next;
    }
    return status;
}

/* One expression, or a tuple where commas follow; `ends` says what may not begin an item. */
static mn_status parse_tuple(parser *p, bool brackets, mn_status (*item)(parser *, node **),
                             node **out)
{
    node *first = NULL, **link = &first;
    bool tuple = false;
    mn_status status = make(p, MN__JINJA_TUPLE_OF, out);
    for (int64_t n = 0; !status; n++) {
        const mn__jinja_token *at = p->at;
        if (at->kind == MN__JINJA_T_BLOCK_END || at->kind == MN__JINJA_T_PRINT_END ||
            is_op(at, ')') || is_name(at, "in"))
            break;
        status = item(p, link);
        if (status || !skip_op(p, ','))
            break;
        link = &(*link)->next;
        tuple = true;
    }
    if (status)
        return status;
    if (!tuple && !first && !brackets)
        return unexpected(p, "an expression");
    if (!tuple && first)
        *out = first;
    else
        (*out)->items = first;
    return MN_OK;
}

static mn_status parse_bracketed(parser *p, node **out)
{
    mn_status status = parse_tuple(p, true, parse_expression, out);
    return status ? status : expect_op(p, ')', "')'");
}

static mn_status constant(parser *p, mn__jinja_value value, node **out)
{
    mn_status status = make(p, MN__JINJA_CONSTANT, out);
    if (!status)
        (*out)->constant = value;
    return status;
}

static mn_status parse_name(parser *p, node **out)
{
    const char *name = p->at->text;
    bool yes = strcmp(name, "true") == 0 || strcmp(name, "True") == 0;
    if (yes || strcmp(name, "false") == 0 || strcmp(name, "False") == 0)
        return constant(p, mn__jinja_bool(yes), out);
    if (strcmp(name, "none") == 0 || strcmp(name, "None") == 0)
        return constant(p, mn__jinja_none(), out);
    if (p->macros && (strcmp(name, "varargs") == 0 || strcmp(name, "kwargs") == 0 ||
                      strcmp(name, "caller") == 0))
        return fail(p, MN_ERROR_UNSUPPORTED, "a macro cannot use", name);
    mn_status status = make(p, MN__JINJA_NAME, out);
    if (!status)
        (*out)->name = name;
    return status;
}

/* Strings that follow each other are one. */
static mn_status parse_value(parser *p, node **out)
{
    mn__jinja_value value = p->at->value;
    int64_t bytes = 0;
    const mn__jinja_token *end = p->at;
    while (value.kind == MN__JINJA_STRING && end->kind == MN__JINJA_T_VALUE &&
           end->value.kind == MN__JINJA_STRING)
        bytes += end++->value.bytes;
    if (end - p->at > 1) {
        char *text = mn__arena_alloc(p->arena, bytes);
        if (!text)
            return mn__fail(p->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", p->name);
        value = mn__jinja_borrow(text, bytes);
        for (const mn__jinja_token *part = p->at; part < end; part++) {
            memcpy(text, part->value.as.text, (size_t)part->value.bytes);
            text += part->value.bytes;
        }
        p->at = end - 1;
    }
    return constant(p, value, out);
}

static mn_status parse_primary(parser *p, node **out)
{
    if (p->at->kind == MN__JINJA_T_NAME || p->at->kind == MN__JINJA_T_VALUE) {
        mn_status status =
            p->at->kind == MN__JINJA_T_NAME ? parse_name(p, out) : parse_value(p, out);
        p->at++;
        return status;
    }
    if (skip_op(p, '('))
        return parse_bracketed(p, out);
    if (!is_op(p->at, '[') && !is_op(p->at, '{'))
        return unexpected(p, "an expression");
    bool list = is_op(p->at, '[');
    mn_status status = make(p, list ? MN__JINJA_LIST_OF : MN__JINJA_DICT_OF, out);
    p->at++;
    if (status)
        return status;
    return list ? parse_items(p, ']', "',' or ']'", &(*out)->items)
                : parse_pairs(p, &(*out)->items);
}

/* Arguments after '('. */
static mn_status parse_arguments(parser *p, node **link)
{
    mn_status status = MN_OK;
    bool named = false;
    for (int64_t n = 0; !status && !skip_op(p, ')'); n++) {
        if (n > 0)
            status = expect_op(p, ',', "',' or ')'");
        if (!status && n > 0 && skip_op(p, ')'))
            break;
        if (!status && (is_op(p->at, '*') || is_op(p->at, MN__JINJA_OP('*', '*'))))
            status = fail(p, MN_ERROR_UNSUPPORTED, "arguments by * or ** are not supported", NULL);
        if (!status && p->at->kind == MN__JINJA_T_NAME && is_op(p->at + 1, '=')) {
            named = true;
            status = make(p, MN__JINJA_KEYWORD, link);
            if (!status)
                (*link)->name = p->at->text;
            p->at += 2;
            if (!status)
                status = parse_expression(p, &(*link)->a);
        } else if (!status && named) {
            status = unexpected(p, "a keyword argument");
        } else if (!status) {
            status = parse_expression(p, link);
        }
        if (!status)
            link = &(*link)->next;
    }
    return status;
}

static mn_status parse_call(parser *p, node **out)
{
    node *callee = *out;
    mn_status status = make(p, MN__JINJA_CALL, out);
    p->at++;
    if (status)
        return status;
    (*out)->a = callee;
    return parse_arguments(p, &(*out)->items);
}

/* a[...] after '['. */
static mn_status parse_subscript(parser *p, node *object, node **out)
{
    node *bounds[3] = {NULL, NULL, NULL};
    int count = 0;
    mn_status status = MN_OK;
    bool slice = false;
    while (!status && count < 3 && !is_op(p->at, ']')) {
        if (!is_op(p->at, ':'))
            status = parse_expression(p, &bounds[count]);
        count++;
        if (status || !skip_op(p, ':'))
            break;
        slice = true;
    }
    if (!status && !slice && !bounds[0])
        status = unexpected(p, "an index");
    if (!status)
        status = expect_op(p, ']', "']'");
    if (!status)
        status = make(p, slice ? MN__JINJA_SLICE : MN__JINJA_ITEM, out);
    if (status)
        return status;
    (*out)->a = object;
    (*out)->b = bounds[0];
    (*out)->c = bounds[1];
    (*out)->body = bounds[2];
    return MN_OK;
}

/* a.name or a.0 after '.'. */
static mn_status parse_attribute(parser *p, node *object, node **out)
{
    bool name = p->at->kind == MN__JINJA_T_NAME;
    if (!name && !(p->at->kind == MN__JINJA_T_VALUE && p->at->value.kind == MN__JINJA_INT))
        return unexpected(p, "an attribute's name");
    mn_status status = make(p, name ? MN__JINJA_ATTRIBUTE : MN__JINJA_ITEM, out);
    if (status)
        return status;
    (*out)->a = object;
    (*out)->name = name ? p->at->text : NULL;
    if (!name)
        status = constant(p, p->at->value, &(*out)->b);
    p->at++;
    return status;
}

static mn_status parse_postfix(parser *p, node **out)
{
    mn_status status = MN_OK;
    while (!status) {
        if (skip_op(p, '.'))
            status = parse_attribute(p, *out, out);
        else if (skip_op(p, '['))
            status = parse_subscript(p, *out, out);
        else if (is_op(p->at, '('))
            status = parse_call(p, out);
        else
            break;
    }
    return status;
}

static mn_status parse_filter(parser *p, node **out)
{
    node *input = *out;
    if (p->at->kind != MN__JINJA_T_NAME)
        return unexpected(p, "a filter's name");
    mn_status status = make(p, MN__JINJA_FILTER, out);
    if (status)
        return status;
    (*out)->a = input;
    (*out)->name = p->at++->text;
    return skip_op(p, '(') ? parse_arguments(p, &(*out)->items) : MN_OK;
}

/* Whether a test's one argument stands here without brackets. */
static bool begins_argument(const mn__jinja_token *at)
{
    if (at->kind == MN__JINJA_T_NAME)
        return !is_name(at, "else") && !is_name(at, "or") && !is_name(at, "and");
    return at->kind == MN__JINJA_T_VALUE || is_op(at, '[') || is_op(at, '{');
}

/* After `is`. */
static mn_status parse_test(parser *p, node **out)
{
    node *input = *out, *test;
    bool negated = skip_name(p, "not");
    if (p->at->kind != MN__JINJA_T_NAME)
        return unexpected(p, "a test's name");
    mn_status status = make(p, MN__JINJA_TEST, &test);
    if (status)
        return status;
    test->a = input;
    test->name = p->at++->text;
    if (skip_op(p, '(')) {
        status = parse_arguments(p, &test->items);
    } else if (begins_argument(p->at)) {
        if (is_name(p->at, "is"))
            return unexpected(p, "an operator");
        status = parse_primary(p, &test->items);
        if (!status)
            status = parse_postfix(p, &test->items);
    }
    *out = test;
    if (status || !negated)
        return status;
    status = make(p, MN__JINJA_NOT, out);
    if (!status)
        (*out)->a = test;
    return status;
}

static mn_status parse_filters(parser *p, node **out)
{
    mn_status status = MN_OK;
    while (!status) {
        if (skip_op(p, '|'))
            status = parse_filter(p, out);
        else if (skip_name(p, "is"))
            status = parse_test(p, out);
        else if (is_op(p->at, '('))
            status = parse_call(p, out);
        else
            break;
    }
    return status;
}

static mn_status parse_sign(parser *p, node **out)
{
    mn_status status = make(p, is_op(p->at, '-') ? MN__JINJA_NEGATE : MN__JINJA_POSITIVE, out);
    p->at++;
    return status ? status : parse_unary(p, false, &(*out)->a);
}

static mn_status parse_unary(parser *p, bool filters, node **out)
{
    mn_status status = enter(p);
    bool sign = is_op(p->at, '-') || is_op(p->at, '+');
    if (!status)
        status = sign ? parse_sign(p, out) : parse_primary(p, out);
    if (!status)
        status = parse_postfix(p, out);
    if (!status && filters)
        status = parse_filters(p, out);
    p->depth--;
    return status;
}

/* left op right op right ... of one rank, from the left. */
static mn_status parse_chain(parser *p, const int *ops, mn_status (*operand)(parser *, node **),
                             node **out)
{
    mn_status status = operand(p, out);
    while (!status) {
        int op = 0;
        for (int i = 0; ops[i]; i++)
            if (is_op(p->at, ops[i]))
                op = ops[i];
        if (!op)
            break;
        node *left = *out;
        status = make(p, MN__JINJA_BINARY, out);
        p->at++;
        if (status)
            break;
        (*out)->a = left;
        (*out)->op = op;
        status = operand(p, &(*out)->b);
    }
    return status;
}

static mn_status parse_operand(parser *p, node **out)
{
    return parse_unary(p, true, out);
}

static mn_status parse_power(parser *p, node **out)
{
    return parse_chain(p, (const int[]){MN__JINJA_OP('*', '*'), 0}, parse_operand, out);
}

static mn_status parse_product(parser *p, node **out)
{
    return parse_chain(p, (const int[]){'*', '/', MN__JINJA_OP('/', '/'), '%', 0}, parse_power,
                       out);
}

static mn_status parse_concat(parser *p, node **out)
{
    mn_status status = parse_product(p, out);
    if (status || !is_op(p->at, '~'))
        return status;
    node *first = *out, **link = &first->next;
    status = make(p, MN__JINJA_CONCAT, out);
    if (!status)
        (*out)->items = first;
    while (!status && skip_op(p, '~')) {
        status = parse_product(p, link);
        if (!status)
            link = &(*link)->next;
    }
    return status;
}

static mn_status parse_sum(parser *p, node **out)
{
    return parse_chain(p, (const int[]){'+', '-', 0}, parse_concat, out);
}

/* Skips a comparison's operator; 0 where there is none. */
static int skip_comparison(parser *p)
{
    static const int ops[] = {MN__JINJA_OP('=', '='), MN__JINJA_OP('!', '='), '<', '>',
                              MN__JINJA_OP('<', '='), MN__JINJA_OP('>', '=')};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (skip_op(p, ops[i]))
            return ops[i];
    if (skip_name(p, "in"))
        return MN__JINJA_IN;
    if (!is_name(p->at, "not") || !is_name(p->at + 1, "in"))
        return 0;
    p->at += 2;
    return MN__JINJA_NOT_IN;
}

static mn_status parse_comparison(parser *p, node **out)
{
    mn_status status = parse_sum(p, out);
    node **link = NULL;
    for (int op; !status && (op = skip_comparison(p)) != 0;) {
        if (!link) {
            node *first = *out;
            status = make(p, MN__JINJA_COMPARE, out);
            if (status)
                break;
            (*out)->a = first;
            link = &(*out)->items;
        }
        status = make(p, MN__JINJA_OPERAND, link);
        if (status)
            break;
        (*link)->op = op;
        status = parse_sum(p, &(*link)->a);
        link = &(*link)->next;
    }
    return status;
}

static mn_status parse_not(parser *p, node **out)
{
    if (!is_name(p->at, "not"))
        return parse_comparison(p, out);
    mn_status status = enter(p);
    if (!status)
        status = make(p, MN__JINJA_NOT, out);
    p->at++;
    if (!status)
        status = parse_not(p, &(*out)->a);
    p->depth--;
    return status;
}

static mn_status parse_words(parser *p, const char *word, mn__jinja_node_kind kind,
                             mn_status (*operand)(parser *, node **), node **out)
{
    mn_status status = operand(p, out);
    while (!status && is_name(p->at, word)) {
        node *left = *out;
        status = make(p, kind, out);
        p->at++;
        if (status)
            break;
        (*out)->a = left;
        status = operand(p, &(*out)->b);
    }
    return status;
}

static mn_status parse_and(parser *p, node **out)
{
    return parse_words(p, "and", MN__JINJA_AND, parse_not, out);
}

static mn_status parse_or(parser *p, node **out)
{
    return parse_words(p, "or", MN__JINJA_OR, parse_and, out);
}

static mn_status parse_expression(parser *p, node **out)
{
    mn_status status = enter(p);
    if (!status)
        status = parse_or(p, out);
    while (!status && is_name(p->at, "if")) {
        node *yes = *out;
        status = make(p, MN__JINJA_CHOICE, out);
        p->at++;
        if (status)
            break;
        (*out)->a = yes;
        status = parse_or(p, &(*out)->b);
        if (!status && skip_name(p, "else"))
            status = parse_expression(p, &(*out)->c);
    }
    p->depth--;
    return status;
}

/* ---- Statements --------------------------------------------------------------------------------
 */

static mn_status parse_body(parser *p, const char *const ends[], node **link);

/* "%}", a body, and one of the words that may end it, which stays at p->at. */
static mn_status parse_block(parser *p, const char *const ends[], node **body)
{
    skip_op(p, ':');
    mn_status status = expect(p, MN__JINJA_T_BLOCK_END, "\"%}\"");
    return status ? status : parse_body(p, ends, body);
}

/* A block whose only end is `end`. */
static mn_status parse_last_block(parser *p, const char *end, node **body)
{
    const char *const ends[] = {end, NULL};
    mn_status status = parse_block(p, ends, body);
    p->at += !status;
    return status;
}

static mn_status parse_if(parser *p, node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    mn_status status = MN_OK;
    for (node **link = out; !status;) {
        status = make(p, MN__JINJA_IF, link);
        if (!status)
            status = parse_tuple(p, false, parse_or, &(*link)->a);
        if (!status)
            status = parse_block(p, ends, &(*link)->body);
        if (status || skip_name(p, "endif"))
            break;
        link = &(*link)->otherwise;
        if (skip_name(p, "else"))
            return parse_last_block(p, "endif", link);
        p->at++; /* elif */
    }
    return status;
}

/* A name, or with a dot the attribute of a namespace. */
static mn_status parse_target_item(parser *p, node **out)
{
    if (p->at->kind != MN__JINJA_T_NAME)
        return unexpected(p, "a variable's name");
    mn_status status = parse_primary(p, out);
    if (!status && (*out)->kind != MN__JINJA_NAME)
        return fail(p, MN_ERROR_FORMAT, "a constant cannot be set", NULL);
    if (!status && skip_op(p, '.'))
        status = parse_attribute(p, *out, out);
    if (!status && (*out)->kind == MN__JINJA_ITEM)
        return unexpected(p, "an attribute's name");
    return status;
}

static bool has_attribute(const node *target)
{
    bool found = target->kind == MN__JINJA_ATTRIBUTE;
    if (target->kind == MN__JINJA_TUPLE_OF)
        for (const node *item = target->items; item; item = item->next)
            found |= item->kind == MN__JINJA_ATTRIBUTE;
    return found;
}

static mn_status parse_for(parser *p, node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    mn_status status = make(p, MN__JINJA_FOR, out);
    if (!status)
        status = parse_tuple(p, false, parse_target_item, &(*out)->a);
    if (!status && has_attribute((*out)->a))
        return fail(p, MN_ERROR_FORMAT, "a loop's variable cannot be an attribute", NULL);
    if (!status && !skip_name(p, "in"))
        return unexpected(p, "'in'");
    if (!status)
        status = parse_tuple(p, false, parse_or, &(*out)->b);
    if (!status && skip_name(p, "if"))
        status = parse_expression(p, &(*out)->c);
    if (!status && is_name(p->at, "recursive"))
        return fail(p, MN_ERROR_UNSUPPORTED, "recursive loops are not supported", NULL);
    p->loops++;
    if (!status)
        status = parse_block(p, ends, &(*out)->body);
    p->loops--;
    if (status || skip_name(p, "endfor"))
        return status;
    p->at++; /* else */
    return parse_last_block(p, "endfor", &(*out)->otherwise);
}

static mn_status parse_set(parser *p, node **out)
{
    mn_status status = make(p, MN__JINJA_SET, out);
    if (!status)
        status = parse_tuple(p, false, parse_target_item, &(*out)->a);
    if (status)
        return status;
    if (skip_op(p, '='))
        return parse_tuple(p, false, parse_expression, &(*out)->b);
    if (is_op(p->at, '|'))
        return fail(p, MN_ERROR_UNSUPPORTED, "a filter on a block of set is not supported", NULL);
    (*out)->kind = MN__JINJA_SET_BLOCK;
    return parse_last_block(p, "endset", &(*out)->body);
}

static mn_status parse_parameters(parser *p, node **link)
{
    mn_status status = expect_op(p, '(', "'('");
    bool defaults = false;
    for (int64_t n = 0; !status && !skip_op(p, ')'); n++) {
        if (n > 0)
            status = expect_op(p, ',', "',' or ')'");
        if (!status)
            status = parse_target_item(p, link);
        if (!status && (*link)->kind != MN__JINJA_NAME)
            return fail(p, MN_ERROR_FORMAT, "a parameter is a name", NULL);
        if (!status && skip_op(p, '=')) {
            defaults = true;
            status = parse_expression(p, &(*link)->a);
        } else if (!status && defaults) {
            status = unexpected(p, "a default value");
        }
        if (!status)
            link = &(*link)->next;
    }
    return status;
}

static mn_status parse_macro(parser *p, node **out)
{
    if (p->at->kind != MN__JINJA_T_NAME)
        return unexpected(p, "a macro's name");
    mn_status status = make(p, MN__JINJA_DEFINE, out);
    if (status)
        return status;
    (*out)->name = p->at++->text;
    int loops = p->loops;
    p->loops = 0;
    p->macros++;
    status = parse_parameters(p, &(*out)->items);
    if (!status)
        status = parse_last_block(p, "endmacro", &(*out)->body);
    p->macros--;
    p->loops = loops;
    return status;
}

static mn_status parse_group(parser *p, node **out)
{
    mn_status status = make(p, MN__JINJA_GROUP, out);
    return status ? status : parse_last_block(p, "endgeneration", &(*out)->body);
}

static mn_status parse_jump(parser *p, mn__jinja_node_kind kind, node **out)
{
    if (p->loops == 0)
        return fail(p, MN_ERROR_FORMAT,
                    kind == MN__JINJA_BREAK ? "break outside a loop" : "continue outside a loop",
                    NULL);
    return make(p, kind, out);
}

static mn_status parse_statement(parser *p, node **out)
{
    if (p->at->kind != MN__JINJA_T_NAME)
        return unexpected(p, "a statement");
    if (skip_name(p, "if"))
        return parse_if(p, out);
    if (skip_name(p, "for"))
        return parse_for(p, out);
    if (skip_name(p, "set"))
        return parse_set(p, out);
    if (skip_name(p, "macro"))
        return parse_macro(p, out);
    if (skip_name(p, "generation"))
        return parse_group(p, out);
    if (skip_name(p, "break"))
        return parse_jump(p, MN__JINJA_BREAK, out);
    if (skip_name(p, "continue"))
        return parse_jump(p, MN__JINJA_CONTINUE, out);
    if (strncmp(p->at->text, "end", 3) == 0 || strncmp(p->at->text, "el", 2) == 0)
        return unexpected(p, "another statement");
    char named[80];
    snprintf(named, sizeof named, "'%.60s' is not supported", p->at->text);
    return fail(p, MN_ERROR_UNSUPPORTED, "the statement", named);
}

static mn_status parse_tag(parser *p, node **out)
{
    mn_status status = enter(p);
    if (!status)
        status = parse_statement(p, out);
    if (!status)
        status = expect(p, MN__JINJA_T_BLOCK_END, "\"%}\"");
    p->depth--;
    return status;
}

static mn_status parse_print(parser *p, node **out)
{
    mn_status status = make(p, MN__JINJA_PRINT, out);
    if (!status)
        status = parse_tuple(p, false, parse_expression, &(*out)->a);
    return status ? status : expect(p, MN__JINJA_T_PRINT_END, "\"}}\"");
}

static mn_status parse_text(parser *p, node **out)
{
    mn_status status = make(p, MN__JINJA_TEXT, out);
    if (!status)
        (*out)->constant = mn__jinja_borrow(p->at->text, p->at->bytes);
    p->at++;
    return status;
}

static bool ends_here(const parser *p, const char *const ends[])
{
    if (p->at->kind != MN__JINJA_T_BLOCK)
        return false;
    for (int i = 0; ends[i]; i++)
        if (is_name(p->at + 1, ends[i]))
            return true;
    return false;
}

/* Statements up to one of the words; ends[0] is NULL at the top, where the template ends. */
static mn_status parse_body(parser *p, const char *const ends[], node **link)
{
    mn_status status = MN_OK;
    while (!status && p->at->kind != MN__JINJA_T_END && !ends_here(p, ends)) {
        if (p->at->kind == MN__JINJA_T_TEXT)
            status = parse_text(p, link);
        else if (p->at++->kind == MN__JINJA_T_PRINT)
            status = parse_print(p, link);
        else
            status = parse_tag(p, link);
        if (!status)
            link = &(*link)->next;
    }
    const char *last = NULL; /* the word that must come at the latest */
    for (int i = 0; ends[i]; i++)
        last = ends[i];
    if (!status && last && p->at->kind == MN__JINJA_T_END)
        return mn__fail(p->error, MN_ERROR_FORMAT, mn__jinja_hint,
                        "%s, line %d: the template ends where '%s' should be", p->name, p->at->line,
                        last);
    p->at += !status && last; /* "{%" */
    return status;
}

mn_status mn__jinja_parse(mn__arena *arena, const char *name, const mn__jinja_tokens *tokens,
                          mn__jinja_node **body, mn_error *error)
{
    parser p = {.arena = arena, .name = name, .error = error, .at = tokens->at};
    *body = NULL;
    return parse_body(&p, (const char *const[]){NULL}, body);
}
