/* Rendering: a walk over the tree. Names are looked up from the innermost scope out; a
 * loop's body has a new scope in each round, a macro's and a set block's one of their own,
 * `if` none, as in Jinja. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "text/template_own.h"

typedef mn__jinja_node node;
typedef mn__jinja_value value;
typedef mn__jinja_scope scope;

enum { NODE_WORK = 16 };

static mn_status run_body(mn__jinja_run *run, scope *names, const node *body);
static mn_status evaluate(mn__jinja_run *run, scope *names, const node *n, value *out);

/* ---- Names ------------------------------------------------------------------------------ */

static mn_status scope_new(mn__jinja_run *run, scope *parent, scope **out)
{
    mn_status status = mn__jinja_alloc(run, (int64_t)sizeof **out, out);
    if (!status)
        **out = (scope){.parent = parent};
    return status;
}

static mn_status bind(mn__jinja_run *run, scope *names, const char *name, value bound)
{
    for (int64_t i = 0; i < names->count; i++)
        if (strcmp(names->bindings[i].name, name) == 0) {
            names->bindings[i].value = bound;
            return MN_OK;
        }
    if (names->count == names->capacity) {
        int64_t capacity = names->capacity ? 2 * names->capacity : 4;
        mn__jinja_binding *bindings;
        mn_status status =
            mn__jinja_alloc(run, mn__size_product(capacity, (int64_t)sizeof *bindings), &bindings);
        if (status)
            return status;
        if (names->count > 0)
            memcpy(bindings, names->bindings, (size_t)names->count * sizeof *bindings);
        names->bindings = bindings;
        names->capacity = capacity;
    }
    names->bindings[names->count++] = (mn__jinja_binding){name, bound};
    return MN_OK;
}

static mn_status look_up(mn__jinja_run *run, const scope *names, const char *name, value *out)
{
    for (; names; names = names->parent) {
        mn_status status = mn__jinja_spend(run, 1 + names->count);
        if (status)
            return status;
        for (int64_t i = 0; i < names->count; i++)
            if (strcmp(names->bindings[i].name, name) == 0) {
                *out = names->bindings[i].value;
                return MN_OK;
            }
    }
    const mn__jinja_builtin *function = mn__jinja_function(name);
    *out = mn__jinja_undefined(name);
    if (function)
        *out = (value){.kind = MN__JINJA_FUNCTION, .as.function = function};
    return MN_OK;
}

/* target = bound: a name, several, or an attribute of a namespace. */
static mn_status assign(mn__jinja_run *run, scope *names, const node *target, value bound)
{
    if (target->kind == MN__JINJA_NAME)
        return bind(run, names, target->name, bound);
    if (target->kind == MN__JINJA_ATTRIBUTE) {
        value object;
        mn_status status = look_up(run, names, target->a->name, &object);
        if (!status && object.kind != MN__JINJA_NAMESPACE)
            return mn__jinja_fail(run, MN_ERROR_FORMAT,
                                  "'%s' is %s: only a namespace's attributes can be set",
                                  target->a->name, mn__jinja_kind_name(object));
        int64_t bytes = (int64_t)strlen(target->name);
        return status ? status
                      : mn__jinja_dict_set(run, object.as.dict,
                                           mn__jinja_borrow(target->name, bytes), bound);
    }
    const mn__jinja_list *items;
    mn_status status = mn__jinja_iterate(run, bound, &items);
    const node *item = target->items;
    for (int64_t i = 0; !status && i < items->count && item; i++, item = item->next)
        status = assign(run, names, item, items->items[i]);
    int64_t wanted = 0;
    for (item = target->items; item; item = item->next)
        wanted++;
    if (!status && wanted != items->count)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%lld values for %lld names",
                              (long long)items->count, (long long)wanted);
    return status;
}

/* ---- Calls -------------------------------------------------------------------------------- */

static mn_status evaluate_arguments(mn__jinja_run *run, scope *names, const node *item,
                                    mn__jinja_arguments *out)
{
    mn_status status = MN_OK;
    out->count = 0;
    for (; !status && item; item = item->next) {
        if (out->count == MN__JINJA_MOST_ARGUMENTS)
            return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "over %d arguments are not supported",
                                  MN__JINJA_MOST_ARGUMENTS);
        bool named = item->kind == MN__JINJA_KEYWORD;
        out->names[out->count] = named ? item->name : NULL;
        status = evaluate(run, names, named ? item->a : item, &out->values[out->count]);
        out->count++;
    }
    return status;
}

/* Parameters by position, by name, by default; what is left is undefined. */
static mn_status bind_parameters(mn__jinja_run *run, scope *names, const node *macro,
                                 const mn__jinja_arguments *arguments)
{
    int64_t used = 0, place = 0;
    mn_status status = MN_OK;
    for (const node *p = macro->items; !status && p; p = p->next, place++) {
        value bound = mn__jinja_undefined(p->name);
        int64_t found = -1;
        for (int64_t i = 0; i < arguments->count; i++) {
            const char *name = arguments->names[i];
            if (name ? strcmp(name, p->name) == 0 : i == place) {
                bound = arguments->values[i];
                found = i;
                used++;
            }
        }
        if (found < 0 && p->a)
            status = evaluate(run, names, p->a, &bound);
        if (!status)
            status = bind(run, names, p->name, bound);
    }
    if (!status && used != arguments->count)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "the macro '%s' has no such arguments",
                              macro->name);
    return status;
}

/* What a body prints, as a value. */
static mn_status capture(mn__jinja_run *run, scope *names, const node *body, value *out)
{
    mn__string text = {0}, *outer = run->out;
    run->out = &text;
    mn_status status = run_body(run, names, body);
    run->out = outer;
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

static mn_status call_macro(mn__jinja_run *run, const mn__jinja_macro *macro,
                            const mn__jinja_arguments *arguments, value *out)
{
    scope *names;
    mn_status status = scope_new(run, macro->scope, &names);
    if (!status)
        status = bind_parameters(run, names, macro->node, arguments);
    return status ? status : capture(run, names, macro->node->body, out);
}

static mn_status evaluate_call(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value callee;
    mn__jinja_arguments arguments;
    mn_status status = evaluate(run, names, n->a, &callee);
    if (!status)
        status = evaluate_arguments(run, names, n->items, &arguments);
    run->line = n->line;
    if (status)
        return status;
    if (callee.kind == MN__JINJA_FUNCTION)
        return mn__jinja_call(run, "function", callee.as.function, mn__jinja_none(), &arguments,
                              out);
    if (callee.kind == MN__JINJA_METHOD)
        return mn__jinja_method_call(run, callee.as.method, &arguments, out);
    if (callee.kind == MN__JINJA_MACRO)
        return call_macro(run, callee.as.macro, &arguments, out);
    const char *name = n->a->name ? n->a->name : "this";
    if (callee.kind == MN__JINJA_UNDEFINED)
        return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "there is no function or method '%s'",
                              name);
    return mn__jinja_fail(run, MN_ERROR_FORMAT, "'%s' is %s and cannot be called", name,
                          mn__jinja_kind_name(callee));
}

static mn_status evaluate_applied(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value input;
    mn__jinja_arguments arguments;
    bool holds = false;
    mn_status status = evaluate(run, names, n->a, &input);
    if (!status)
        status = evaluate_arguments(run, names, n->items, &arguments);
    run->line = n->line;
    if (status)
        return status;
    if (n->kind == MN__JINJA_FILTER)
        return mn__jinja_filter(run, n->name, input, &arguments, out);
    status = mn__jinja_test(run, n->name, input, &arguments, &holds);
    *out = mn__jinja_bool(holds);
    return status;
}

/* ---- Operators ------------------------------------------------------------------------------ */

static mn_status too_large(mn__jinja_run *run)
{
    return mn__jinja_fail(run, MN_ERROR_FORMAT, "a number is too large");
}

/* Python's // and %: towards minus infinity, with the divisor's sign. */
static mn_status divide_whole(mn__jinja_run *run, int op, int64_t a, int64_t b, value *out)
{
    if (b == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a division by 0");
    if (a == INT64_MIN && b == -1)
        return too_large(run);
    int64_t quotient = a / b, remainder = a % b;
    if (remainder != 0 && (remainder < 0) != (b < 0)) {
        quotient--;
        remainder += b;
    }
    *out = mn__jinja_int(op == '%' ? remainder : quotient);
    return MN_OK;
}

static mn_status power_whole(mn__jinja_run *run, int64_t a, int64_t b, value *out)
{
    if (b < 0 && a == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a division by 0");
    if (b < 0) {
        *out = mn__jinja_float(pow((double)a, (double)b));
        return MN_OK;
    }
    int64_t result = 1;
    bool overflow = false;
    for (int64_t i = 0; i < b && a != 1 && a != 0 && !(a == -1 && i == (b & 1)); i++)
        overflow = overflow || __builtin_mul_overflow(result, a, &result) || i > 64;
    if (overflow)
        return too_large(run);
    *out = mn__jinja_int(a == 0 && b > 0 ? 0 : a == -1 ? ((b & 1) ? -1 : 1) : result);
    return MN_OK;
}

static mn_status binary_whole(mn__jinja_run *run, int op, int64_t a, int64_t b, value *out)
{
    int64_t result;
    bool overflow;
    switch (op) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &result);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &result);
        break;
    case '*':
        overflow = __builtin_mul_overflow(a, b, &result);
        break;
    case MN__JINJA_OP('*', '*'):
        return power_whole(run, a, b, out);
    default:
        return divide_whole(run, op, a, b, out);
    }
    *out = mn__jinja_int(result);
    return overflow ? too_large(run) : MN_OK;
}

static mn_status binary_real(mn__jinja_run *run, int op, double a, double b, value *out)
{
    bool divides = op == '/' || op == '%' || op == MN__JINJA_OP('/', '/');
    if (divides && b == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a division by 0");
    double remainder = divides ? fmod(a, b) : 0;
    if (remainder != 0 && (remainder < 0) != (b < 0))
        remainder += b;
    double result = op == '+'                      ? a + b
                    : op == '-'                    ? a - b
                    : op == '*'                    ? a * b
                    : op == '/'                    ? a / b
                    : op == '%'                    ? remainder
                    : op == MN__JINJA_OP('*', '*') ? pow(a, b)
                                                   : floor((a - remainder) / b + 0.5);
    *out = mn__jinja_float(result);
    return MN_OK;
}

static mn_status join_texts(mn__jinja_run *run, value a, value b, value *out)
{
    char *text;
    mn_status status = mn__jinja_spend(run, a.bytes + b.bytes);
    if (!status)
        status = mn__jinja_alloc(run, a.bytes + b.bytes, &text);
    if (status)
        return status;
    if (a.bytes > 0)
        memcpy(text, a.as.text, (size_t)a.bytes);
    if (b.bytes > 0)
        memcpy(text + a.bytes, b.as.text, (size_t)b.bytes);
    *out = mn__jinja_borrow(text, a.bytes + b.bytes);
    return MN_OK;
}

static mn_status join_lists(mn__jinja_run *run, value a, value b, value *out)
{
    const mn__jinja_list *parts[] = {a.as.list, b.as.list};
    mn_status status = mn__jinja_spend(run, parts[0]->count + parts[1]->count);
    if (!status)
        status = mn__jinja_list_new(run, a.kind, parts[0]->count + parts[1]->count, out);
    for (int p = 0; p < 2; p++)
        for (int64_t i = 0; !status && i < parts[p]->count; i++)
            status = mn__jinja_list_add(run, out->as.list, parts[p]->items[i]);
    return status;
}

static mn_status repeat_text(mn__jinja_run *run, value text, int64_t times, value *out)
{
    times = times < 0 ? 0 : times;
    int64_t bytes = mn__size_product(text.bytes, times);
    char *all;
    mn_status status = bytes < 0 ? mn__jinja_spend(run, INT64_MAX) : mn__jinja_spend(run, bytes);
    if (!status)
        status = mn__jinja_alloc(run, bytes, &all);
    if (status)
        return status;
    for (int64_t i = 0; i < bytes; i += text.bytes)
        memcpy(all + i, text.as.text, (size_t)text.bytes);
    *out = mn__jinja_borrow(all, bytes);
    return MN_OK;
}

mn_status mn__jinja_binary(mn__jinja_run *run, int op, value a, value b, value *out)
{
    bool lists = a.kind == MN__JINJA_LIST || a.kind == MN__JINJA_TUPLE;
    if (mn__jinja_is_number(a) && mn__jinja_is_number(b)) {
        bool whole = a.kind != MN__JINJA_FLOAT && b.kind != MN__JINJA_FLOAT && op != '/';
        return whole ? binary_whole(run, op, mn__jinja_whole(a), mn__jinja_whole(b), out)
                     : binary_real(run, op, mn__jinja_real(a), mn__jinja_real(b), out);
    }
    if (a.kind == MN__JINJA_UNDEFINED || b.kind == MN__JINJA_UNDEFINED)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "'%s' is undefined",
                              a.kind == MN__JINJA_UNDEFINED ? a.as.text : b.as.text);
    if (op == '+' && a.kind == MN__JINJA_STRING && b.kind == MN__JINJA_STRING)
        return join_texts(run, a, b, out);
    if (op == '+' && lists && a.kind == b.kind)
        return join_lists(run, a, b, out);
    if (op == '*' && a.kind == MN__JINJA_STRING && b.kind == MN__JINJA_INT)
        return repeat_text(run, a, b.as.whole, out);
    if (op == '*' && a.kind == MN__JINJA_INT && b.kind == MN__JINJA_STRING)
        return repeat_text(run, b, a.as.whole, out);
    const char sign[3] = {(char)(op & 0xFF), (char)(op >> 8), '\0'};
    return mn__jinja_fail(run, MN_ERROR_FORMAT, "'%s' does not work on %s and %s", sign,
                          mn__jinja_kind_name(a), mn__jinja_kind_name(b));
}

static mn_status compare(mn__jinja_run *run, int op, value a, value b, bool *holds)
{
    int order = 0;
    mn_status status;
    switch (op) {
    case MN__JINJA_OP('=', '='):
        return mn__jinja_equal(run, a, b, holds);
    case MN__JINJA_OP('!', '='):
        status = mn__jinja_equal(run, a, b, holds);
        *holds = !*holds;
        return status;
    case MN__JINJA_IN:
        return mn__jinja_contains(run, b, a, holds);
    case MN__JINJA_NOT_IN:
        status = mn__jinja_contains(run, b, a, holds);
        *holds = !*holds;
        return status;
    default:
        status = mn__jinja_order(run, a, b, &order);
        *holds = op == '<'                      ? order < 0
                 : op == '>'                    ? order > 0
                 : op == MN__JINJA_OP('<', '=') ? order <= 0
                                                : order >= 0;
        return status;
    }
}

/* a < b < c is (a < b) and (b < c). */
static mn_status evaluate_comparison(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value left, right;
    bool holds = true;
    mn_status status = evaluate(run, names, n->a, &left);
    for (const node *item = n->items; !status && holds && item; item = item->next, left = right) {
        status = evaluate(run, names, item->a, &right);
        run->line = n->line;
        if (!status)
            status = compare(run, item->op, left, right, &holds);
    }
    *out = mn__jinja_bool(holds);
    return status;
}

static mn_status evaluate_sign(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    mn_status status = evaluate(run, names, n->a, out);
    if (status)
        return status;
    if (!mn__jinja_is_number(*out))
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s has no sign", mn__jinja_kind_name(*out));
    if (n->kind == MN__JINJA_POSITIVE)
        return mn__jinja_binary(run, '+', mn__jinja_int(0), *out, out);
    return mn__jinja_binary(run, '*', mn__jinja_int(-1), *out, out);
}

/* ---- Expressions
 * --------------------------------------------------------------------------------- */

static mn_status evaluate_list(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    mn__jinja_kind kind = n->kind == MN__JINJA_LIST_OF ? MN__JINJA_LIST : MN__JINJA_TUPLE;
    mn_status status = mn__jinja_list_new(run, kind, 0, out);
    for (const node *item = n->items; !status && item; item = item->next) {
        value made;
        status = evaluate(run, names, item, &made);
        if (!status)
            status = mn__jinja_list_add(run, out->as.list, made);
    }
    return status;
}

static mn_status evaluate_dict(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    mn_status status = mn__jinja_dict_new(run, MN__JINJA_DICT, 0, out);
    for (const node *key = n->items; !status && key; key = key->next->next) {
        value name, made;
        status = evaluate(run, names, key, &name);
        if (!status)
            status = evaluate(run, names, key->next, &made);
        if (!status)
            status = mn__jinja_dict_set(run, out->as.dict, name, made);
    }
    return status;
}

static mn_status evaluate_part(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value object, key = mn__jinja_none(), bounds[3];
    const node *const places[3] = {n->b, n->c, n->body};
    mn_status status = evaluate(run, names, n->a, &object);
    if (!status && n->kind == MN__JINJA_ITEM)
        status = evaluate(run, names, n->b, &key);
    for (int i = 0; i < 3 && n->kind == MN__JINJA_SLICE; i++) {
        bounds[i] = mn__jinja_none();
        if (!status && places[i])
            status = evaluate(run, names, places[i], &bounds[i]);
    }
    run->line = n->line;
    if (status)
        return status;
    if (n->kind == MN__JINJA_ATTRIBUTE)
        status = mn__jinja_attribute(run, object, n->name, out);
    else if (n->kind == MN__JINJA_ITEM)
        status = mn__jinja_item(run, object, key, out);
    else
        status = mn__jinja_slice(run, object, bounds, out);
    return status;
}

static mn_status evaluate_concat(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    mn__string text = {0};
    mn_status status = MN_OK;
    for (const node *item = n->items; !status && item; item = item->next) {
        value part;
        status = evaluate(run, names, item, &part);
        if (!status)
            status = mn__jinja_print(run, part, &text);
    }
    if (!status)
        return mn__jinja_take(run, &text, out);
    mn__string_free(&text);
    return status;
}

static mn_status evaluate_logic(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value condition;
    mn_status status = evaluate(run, names, n->kind == MN__JINJA_CHOICE ? n->b : n->a, &condition);
    if (status)
        return status;
    bool yes = mn__jinja_truth(condition);
    const node *next = n->b;
    *out = condition;
    if (n->kind == MN__JINJA_NOT) {
        *out = mn__jinja_bool(!yes);
        return MN_OK;
    }
    if (n->kind == MN__JINJA_CHOICE) {
        next = yes ? n->a : n->c;
        *out = mn__jinja_undefined("the other choice");
    } else if (yes == (n->kind == MN__JINJA_OR)) {
        return MN_OK;
    }
    return next ? evaluate(run, names, next, out) : MN_OK;
}

static mn_status evaluate_binary(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    value a, b;
    mn_status status = evaluate(run, names, n->a, &a);
    if (!status)
        status = evaluate(run, names, n->b, &b);
    run->line = n->line;
    return status ? status : mn__jinja_binary(run, n->op, a, b, out);
}

static mn_status evaluate_kind(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    switch (n->kind) {
    case MN__JINJA_CONSTANT:
        *out = n->constant;
        return MN_OK;
    case MN__JINJA_NAME:
        return look_up(run, names, n->name, out);
    case MN__JINJA_LIST_OF:
    case MN__JINJA_TUPLE_OF:
        return evaluate_list(run, names, n, out);
    case MN__JINJA_DICT_OF:
        return evaluate_dict(run, names, n, out);
    case MN__JINJA_ATTRIBUTE:
    case MN__JINJA_ITEM:
    case MN__JINJA_SLICE:
        return evaluate_part(run, names, n, out);
    case MN__JINJA_CALL:
        return evaluate_call(run, names, n, out);
    case MN__JINJA_FILTER:
    case MN__JINJA_TEST:
        return evaluate_applied(run, names, n, out);
    case MN__JINJA_NEGATE:
    case MN__JINJA_POSITIVE:
        return evaluate_sign(run, names, n, out);
    case MN__JINJA_BINARY:
        return evaluate_binary(run, names, n, out);
    case MN__JINJA_CONCAT:
        return evaluate_concat(run, names, n, out);
    case MN__JINJA_COMPARE:
        return evaluate_comparison(run, names, n, out);
    default:
        return evaluate_logic(run, names, n, out);
    }
}

static mn_status evaluate(mn__jinja_run *run, scope *names, const node *n, value *out)
{
    *out = mn__jinja_none();
    run->line = n->line;
    mn_status status = mn__jinja_enter(run);
    if (!status)
        status = mn__jinja_spend(run, NODE_WORK);
    if (!status)
        status = evaluate_kind(run, names, n, out);
    mn__jinja_leave(run);
    return status;
}

/* ---- Statements
 * ------------------------------------------------------------------------------------- */

static mn_status print(mn__jinja_run *run, value printed)
{
    int64_t before = run->out->bytes;
    mn_status status = mn__jinja_print(run, printed, run->out);
    run->out_bytes += run->out->bytes - before;
    if (!status && run->out_bytes > run->memory)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "the template prints too much");
    return status;
}

/* Items of b for which c holds. */
static mn_status filter_items(mn__jinja_run *run, scope *names, const node *n,
                              const mn__jinja_list **items)
{
    value kept;
    mn_status status = mn__jinja_list_new(run, MN__JINJA_LIST, 0, &kept);
    for (int64_t i = 0; !status && i < (*items)->count; i++) {
        scope *inner;
        value holds;
        status = scope_new(run, names, &inner);
        if (!status)
            status = assign(run, inner, n->a, (*items)->items[i]);
        if (!status)
            status = evaluate(run, inner, n->c, &holds);
        if (!status && mn__jinja_truth(holds))
            status = mn__jinja_list_add(run, kept.as.list, (*items)->items[i]);
    }
    *items = status ? *items : kept.as.list;
    return status;
}

static mn_status run_round(mn__jinja_run *run, scope *names, const node *n, mn__jinja_loop at)
{
    scope *inner;
    mn__jinja_loop *loop;
    mn_status status = scope_new(run, names, &inner);
    if (!status)
        status = mn__jinja_alloc(run, (int64_t)sizeof *loop, &loop);
    if (status)
        return status;
    *loop = at;
    status = bind(run, inner, "loop", (value){.kind = MN__JINJA_LOOP, .as.loop = loop});
    if (!status)
        status = assign(run, inner, n->a, at.items->items[at.index]);
    return status ? status : run_body(run, inner, n->body);
}

static mn_status run_for(mn__jinja_run *run, scope *names, const node *n)
{
    value over;
    const mn__jinja_list *items;
    mn_status status = evaluate(run, names, n->b, &over);
    if (!status)
        status = mn__jinja_iterate(run, over, &items);
    if (!status && n->c)
        status = filter_items(run, names, n, &items);
    for (int64_t i = 0; !status && i < items->count && run->flow != MN__JINJA_BREAKS; i++) {
        run->flow = MN__JINJA_RUNS;
        status = run_round(run, names, n, (mn__jinja_loop){.items = items, .index = i});
    }
    run->flow = MN__JINJA_RUNS;
    if (status || items->count > 0 || !n->otherwise)
        return status;
    scope *inner;
    status = scope_new(run, names, &inner);
    return status ? status : run_body(run, inner, n->otherwise);
}

static mn_status run_if(mn__jinja_run *run, scope *names, const node *n)
{
    for (;;) {
        value condition;
        mn_status status = evaluate(run, names, n->a, &condition);
        if (status)
            return status;
        if (mn__jinja_truth(condition))
            return run_body(run, names, n->body);
        if (!n->otherwise || n->otherwise->kind != MN__JINJA_IF || n->otherwise->next)
            return run_body(run, names, n->otherwise);
        n = n->otherwise; /* elif, or an if alone in an else: the same */
    }
}

static mn_status run_set(mn__jinja_run *run, scope *names, const node *n)
{
    value set;
    mn_status status;
    if (n->kind == MN__JINJA_SET) {
        status = evaluate(run, names, n->b, &set);
    } else {
        scope *inner;
        status = scope_new(run, names, &inner);
        if (!status)
            status = capture(run, inner, n->body, &set);
    }
    run->line = n->line;
    return status ? status : assign(run, names, n->a, set);
}

static mn_status define(mn__jinja_run *run, scope *names, const node *n)
{
    mn__jinja_macro *macro;
    mn_status status = mn__jinja_alloc(run, (int64_t)sizeof *macro, &macro);
    if (status)
        return status;
    *macro = (mn__jinja_macro){n, names};
    return bind(run, names, n->name, (value){.kind = MN__JINJA_MACRO, .as.macro = macro});
}

static mn_status run_statement(mn__jinja_run *run, scope *names, const node *n)
{
    value printed;
    mn_status status;
    switch (n->kind) {
    case MN__JINJA_TEXT:
        return print(run, n->constant);
    case MN__JINJA_PRINT:
        status = evaluate(run, names, n->a, &printed);
        run->line = n->line;
        return status ? status : print(run, printed);
    case MN__JINJA_IF:
        return run_if(run, names, n);
    case MN__JINJA_FOR:
        return run_for(run, names, n);
    case MN__JINJA_SET:
    case MN__JINJA_SET_BLOCK:
        return run_set(run, names, n);
    case MN__JINJA_DEFINE:
        return define(run, names, n);
    case MN__JINJA_BREAK:
        run->flow = MN__JINJA_BREAKS;
        return MN_OK;
    case MN__JINJA_CONTINUE:
        run->flow = MN__JINJA_CONTINUES;
        return MN_OK;
    default:
        return run_body(run, names, n->body);
    }
}

static mn_status run_body(mn__jinja_run *run, scope *names, const node *body)
{
    mn_status status = mn__jinja_enter(run);
    for (; !status && body && run->flow == MN__JINJA_RUNS; body = body->next) {
        run->line = body->line;
        status = mn__jinja_spend(run, NODE_WORK);
        if (!status)
            status = run_statement(run, names, body);
    }
    mn__jinja_leave(run);
    return status;
}

mn_status mn__jinja_run_template(mn__jinja_run *run, const mn__template *tmpl,
                                 const json_t *variables)
{
    scope *names;
    value given = {.kind = MN__JINJA_NONE};
    mn_status status = scope_new(run, NULL, &names);
    if (!status)
        status = mn__jinja_of_json(run, variables, &given);
    if (!status && given.kind != MN__JINJA_DICT)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "the variables are no object");
    const char *name;
    json_t *item;
    int64_t i = 0;
    json_object_foreach((json_t *)(uintptr_t)variables, name, item)
    {
        if (!status)
            status = bind(run, names, name, given.as.dict->values[i++]);
    }
    return status ? status : run_body(run, names, tmpl->body);
}
