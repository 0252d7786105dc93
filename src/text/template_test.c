/* The tests of templates: `value is name`. */
#include <string.h>

#include "text/template_own.h"

typedef mn__jinja_value value;

#define TEST(name, expression)                                                          \
    static mn_status name(mn__jinja_run *run, value self, const mn__jinja_arguments *a, \
                          value *out)                                                   \
    {                                                                                   \
        (void)run;                                                                      \
        (void)a;                                                                        \
        *out = mn__jinja_bool(expression);                                              \
        return MN_OK;                                                                   \
    }

static bool is_sequence(value self)
{
    return self.kind == MN__JINJA_LIST || self.kind == MN__JINJA_TUPLE ||
           self.kind == MN__JINJA_STRING || self.kind == MN__JINJA_DICT ||
           self.kind == MN__JINJA_UNDEFINED; /* it has a length and items, none */
}

static bool is_callable(value self)
{
    return self.kind == MN__JINJA_MACRO || self.kind == MN__JINJA_METHOD ||
           self.kind == MN__JINJA_FUNCTION;
}

TEST(defined, self.kind != MN__JINJA_UNDEFINED)
TEST(undefined, self.kind == MN__JINJA_UNDEFINED)
TEST(none, self.kind == MN__JINJA_NONE)
TEST(string, self.kind == MN__JINJA_STRING)
TEST(mapping, self.kind == MN__JINJA_DICT)
TEST(number, mn__jinja_is_number(self))
TEST(integer, self.kind == MN__JINJA_INT)
TEST(floating, self.kind == MN__JINJA_FLOAT)
TEST(boolean, self.kind == MN__JINJA_BOOL)
TEST(is_true, self.kind == MN__JINJA_BOOL && self.as.yes)
TEST(is_false, self.kind == MN__JINJA_BOOL && !self.as.yes)
TEST(sequence, is_sequence(self))
TEST(iterable, is_sequence(self) || self.kind == MN__JINJA_LOOP)
TEST(callable, is_callable(self))

static mn_status remainder_of(mn__jinja_run *run, value self, int64_t by, value *out)
{
    if (by == 0)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "a division by 0");
    if (self.kind != MN__JINJA_INT && self.kind != MN__JINJA_BOOL)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s is not a whole number",
                              mn__jinja_kind_name(self));
    *out = mn__jinja_int(by == -1 ? 0 : mn__jinja_whole(self) % by);
    return MN_OK;
}

static mn_status odd(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    mn_status status = remainder_of(run, self, 2, out);
    *out = mn__jinja_bool(!status && out->as.whole != 0);
    return status;
}

static mn_status even(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    (void)a;
    mn_status status = remainder_of(run, self, 2, out);
    *out = mn__jinja_bool(!status && out->as.whole == 0);
    return status;
}

static mn_status divisible(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    value by = a->values[0];
    if (by.kind != MN__JINJA_INT)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "%s is not a whole number",
                              mn__jinja_kind_name(by));
    mn_status status = remainder_of(run, self, by.as.whole, out);
    *out = mn__jinja_bool(!status && out->as.whole == 0);
    return status;
}

static mn_status equal(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    bool is;
    mn_status status = mn__jinja_equal(run, self, a->values[0], &is);
    *out = mn__jinja_bool(is);
    return status;
}

static mn_status not_equal(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    mn_status status = equal(run, self, a, out);
    out->as.yes = !out->as.yes;
    return status;
}

#define ORDER(name, relation)                                                           \
    static mn_status name(mn__jinja_run *run, value self, const mn__jinja_arguments *a, \
                          value *out)                                                   \
    {                                                                                   \
        int order;                                                                      \
        mn_status status = mn__jinja_order(run, self, a->values[0], &order);            \
        *out = mn__jinja_bool(order relation 0);                                        \
        return status;                                                                  \
    }

ORDER(less, <)
ORDER(at_most, <=)
ORDER(greater, >)
ORDER(at_least, >=)

static mn_status in(mn__jinja_run *run, value self, const mn__jinja_arguments *a, value *out)
{
    bool found;
    mn_status status = mn__jinja_contains(run, a->values[0], self, &found);
    *out = mn__jinja_bool(found);
    return status;
}

static const mn__jinja_builtin tests[] = {
    {"defined", "", defined, 0},
    {"undefined", "", undefined, 0},
    {"none", "", none, 0},
    {"string", "", string, 0},
    {"mapping", "", mapping, 0},
    {"number", "", number, 0},
    {"integer", "", integer, 0},
    {"float", "", floating, 0},
    {"boolean", "", boolean, 0},
    {"true", "", is_true, 0},
    {"false", "", is_false, 0},
    {"sequence", "", sequence, 0},
    {"iterable", "", iterable, 0},
    {"callable", "", callable, 0},
    {"odd", "", odd, 0},
    {"even", "", even, 0},
    {"divisibleby", "num", divisible, 1},
    {"equalto", "other", equal, 1},
    {"eq", "other", equal, 1},
    {"==", "other", equal, 1},
    {"ne", "other", not_equal, 1},
    {"!=", "other", not_equal, 1},
    {"lt", "other", less, 1},
    {"<", "other", less, 1},
    {"lessthan", "other", less, 1},
    {"le", "other", at_most, 1},
    {"<=", "other", at_most, 1},
    {"gt", "other", greater, 1},
    {">", "other", greater, 1},
    {"greaterthan", "other", greater, 1},
    {"ge", "other", at_least, 1},
    {">=", "other", at_least, 1},
    {"in", "seq", in, 1},
    {NULL, NULL, NULL, 0},
};

mn_status mn__jinja_test(mn__jinja_run *run, const char *name, value self,
                         const mn__jinja_arguments *arguments, bool *out)
{
    const mn__jinja_builtin *found = mn__jinja_find(tests, name);
    *out = false;
    if (!found)
        return mn__jinja_fail(run, MN_ERROR_UNSUPPORTED, "the test '%s' is not supported", name);
    value result = mn__jinja_bool(false);
    mn_status status = mn__jinja_call(run, "test", found, self, arguments, &result);
    *out = mn__jinja_truth(result);
    return status;
}
