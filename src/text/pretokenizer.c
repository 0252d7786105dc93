/* Pre-tokenizers, after the `tokenizers` package (src/pre_tokenizers, src/tokenizer/normalizer.rs).
 * A piece goes through all later stages before the next one is cut. */
#include "text/pretokenizer.h"

#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/byte_alphabet.h"
#include "text/pattern.h"
#include "text/utf8.h"

enum { DEPTH_MOST = 16 };

/* What becomes of the matches. */
typedef enum behavior { ISOLATED, REMOVED, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS } behavior;

typedef struct run run;
struct mn__pretokenizer_stage {
    mn_status (*process)(const mn__pretokenizer_stage *stage, run *r, int64_t index,
                         const char *text, int64_t bytes, bool at_start, mn_error *error);
    bool (*matches)(uint32_t code); /* characters to split at, or NULL: */
    mn__pattern pattern;            /* a known expression, or none: */
    mn__regex *regex;               /* an expression, or NULL: */
    mn__string string;              /* a string; Metaspace: the replacement */
    behavior behavior;
    bool invert;
    bool prepend, only_first; /* Metaspace: everywhere, or only where a document begins */
    bool splits;              /* Metaspace, ByteLevel */
    bool adds_space;          /* ByteLevel */
};

struct run {
    const mn__pretokenizer *pretokenizer;
    mn__pretokenizer_scratch *scratch;
    mn__pretoken_take take;
    void *user;
    int64_t until; /* of the first stage; -1: all */
    bool mapped;   /* into the alphabet of bytes, by a stage that is not the last */
};

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* On to the next stage, or to the model. */
static mn_status pass_on(run *r, int64_t index, const char *text, int64_t bytes, bool at_start,
                         mn_error *error)
{
    if (bytes == 0)
        return MN_OK;
    if (index + 1 < r->pretokenizer->count) {
        const mn__pretokenizer_stage *next = &r->pretokenizer->stages[index + 1];
        return next->process(next, r, index + 1, text, bytes, at_start, error);
    }
    if (!r->mapped)
        return r->take(r->user, text, bytes, error);
    mn__string *raw = &r->scratch->bytes;
    mn__string_clear(raw);
    mn__alphabet_to_bytes(text, bytes, raw);
    return raw->failed ? fail_memory(error) : r->take(r->user, raw->text, raw->bytes, error);
}

/* ---- Splitting --------------------------------------------------------------------------------
 */

/* Parts of a text in order, which are matches or lie between them. */
typedef struct part {
    int64_t begin, end;
    bool match;
} part;

typedef struct parts {
    const mn__pretokenizer_stage *stage;
    mn__matcher *matcher;
    const char *text;
    int64_t bytes;
    int64_t at;
    int64_t begin, end; /* the next match; begin < 0: not searched yet; bytes + 1: none */
    bool done;
} parts;

static int64_t character_end(const char *text, int64_t bytes, int64_t at)
{
    for (at++; at < bytes && ((unsigned char)text[at] & 0xC0) == 0x80;)
        at++;
    return at;
}

static mn_status find_match(parts *p, int64_t from, mn_error *error)
{
    const mn__pretokenizer_stage *stage = p->stage;
    p->begin = -1;
    if (stage->regex) {
        mn_status status = mn__regex_find(stage->regex, p->matcher, p->text, p->bytes, from,
                                          &p->begin, &p->end, error);
        if (status)
            return status;
    } else if (stage->matches) {
        for (int64_t at = from; p->begin < 0 && at < p->bytes;) {
            uint32_t code = 0;
            int length = mn__utf8_decode(p->text + at, p->bytes - at, &code);
            if (stage->matches(code))
                p->begin = at, p->end = at + length;
            at += length;
        }
    } else {
        const mn__string *string = &stage->string;
        const char *found = string->bytes > 0 && from < p->bytes
                                ? memmem(p->text + from, (size_t)(p->bytes - from), string->text,
                                         (size_t)string->bytes)
                                : NULL;
        if (found)
            p->begin = found - p->text, p->end = p->begin + string->bytes;
    }
    if (p->begin < 0)
        p->begin = p->end = p->bytes + 1;
    return MN_OK;
}

/* The next part; an expression may match nothing, which then parts what is around it. */
static mn_status next_part(parts *p, part *out, mn_error *error)
{
    mn_status status = MN_OK;
    if (p->begin < p->at && p->begin <= p->bytes)
        status = find_match(p, p->at, error);
    if (status)
        return status;
    int64_t stop = p->begin <= p->bytes ? p->begin : p->bytes;
    if (p->at < stop) {
        *out = (part){p->at, stop, false};
        p->at = stop;
    } else if (p->begin > p->bytes) {
        p->done = true;
    } else {
        *out = (part){p->begin, p->end, true};
        p->at = p->end;
        if (p->begin < p->end)
            p->begin = -1;
        else if (p->end == p->bytes)
            p->begin = p->bytes + 1;
        else
            status = find_match(p, character_end(p->text, p->bytes, p->end), error);
    }
    return status;
}

/* Whether a part goes on the one before it, and what both are then. */
static bool joins(behavior how, part *held, const part *next)
{
    bool join = how == CONTIGUOUS      ? held->match == next->match
                : how == WITH_PREVIOUS ? !held->match && next->match
                : how == WITH_NEXT     ? held->match && !next->match
                                       : false;
    if (join) {
        held->end = next->end;
        held->match = next->match;
    }
    return join;
}

static mn_status split(const mn__pretokenizer_stage *stage, run *r, int64_t index, const char *text,
                       int64_t bytes, bool at_start, mn_error *error)
{
    parts p = {stage, r->scratch->matcher, text, bytes, 0, -1, -1, false};
    part held = {0, 0, false}, next = {0, 0, false};
    bool holds = false;
    for (;;) {
        mn_status status = next_part(&p, &next, error);
        if (status)
            return status;
        next.match = next.match != stage->invert;
        if (!p.done && stage->behavior == REMOVED && next.match)
            continue;
        if (holds && !p.done && joins(stage->behavior, &held, &next))
            continue;
        if (holds)
            status = pass_on(r, index, text + held.begin, held.end - held.begin,
                             at_start && held.begin == 0, error);
        if (status || p.done)
            return status;
        held = next;
        holds = true;
    }
}

static mn_status split_known(const mn__pretokenizer_stage *stage, run *r, int64_t index,
                             const char *text, int64_t bytes, bool at_start, mn_error *error)
{
    int64_t until = index == 0 && r->until >= 0 ? r->until : bytes;
    for (int64_t at = 0, end; at < until; at = end) {
        end = mn__pattern_next(stage->pattern, text, bytes, at);
        mn_status status = pass_on(r, index, text + at, end - at, at_start && at == 0, error);
        if (status)
            return status;
    }
    return MN_OK;
}

/* ---- Stages that rewrite the text --------------------------------------------------------------
 */

static mn_status process_metaspace(const mn__pretokenizer_stage *stage, run *r, int64_t index,
                                   const char *text, int64_t bytes, bool at_start, mn_error *error)
{
    const mn__string *mark = &stage->string;
    mn__string *out = &r->scratch->text[index];
    mn__string_clear(out);
    bool marked = text[0] == ' ' ||
                  (bytes >= mark->bytes && memcmp(text, mark->text, (size_t)mark->bytes) == 0);
    if (stage->prepend && !marked && (at_start || !stage->only_first))
        mn__string_add(out, mark->text, mark->bytes);
    for (int64_t at = 0; at < bytes;) {
        const char *space = memchr(text + at, ' ', (size_t)(bytes - at));
        int64_t length = space ? space - text - at : bytes - at;
        mn__string_add(out, text + at, length);
        if (space)
            mn__string_add(out, mark->text, mark->bytes);
        at += length + (space != NULL);
    }
    if (out->failed)
        return fail_memory(error);
    if (stage->splits)
        return split(stage, r, index, out->text, out->bytes, at_start, error);
    return pass_on(r, index, out->text, out->bytes, at_start, error);
}

/* A piece of a byte-level stage: as it is where no other stage follows, else in the alphabet. */
static mn_status pass_bytes(run *r, int64_t index, const char *text, int64_t bytes, bool at_start,
                            mn_error *error)
{
    if (index + 1 == r->pretokenizer->count)
        return r->take(r->user, text, bytes, error);
    mn__string *out = &r->scratch->text[index];
    mn__string_clear(out);
    mn__bytes_to_alphabet(text, bytes, out);
    return out->failed ? fail_memory(error)
                       : pass_on(r, index, out->text, out->bytes, at_start, error);
}

static mn_status process_byte_level(const mn__pretokenizer_stage *stage, run *r, int64_t index,
                                    const char *text, int64_t bytes, bool at_start, mn_error *error)
{
    mn__string spaced = {0};
    mn_status status = MN_OK;
    int64_t until = bytes;
    if (index == 0 && r->until >= 0)
        until = r->until;
    if (stage->adds_space && text[0] != ' ') {
        mn__string_puts(&spaced, " ");
        mn__string_add(&spaced, text, bytes);
        if (spaced.failed) {
            mn__string_free(&spaced);
            return fail_memory(error);
        }
        text = spaced.text;
        until = bytes = spaced.bytes;
    }
    for (int64_t at = 0, end; !status && at < until; at = end) {
        end = stage->splits ? mn__pattern_next(MN__PATTERN_GPT2, text, bytes, at) : bytes;
        status = pass_bytes(r, index, text + at, end - at, at_start && at == 0, error);
    }
    mn__string_free(&spaced);
    return status;
}

/* ---- Characters to split at ---------------------------------------------------------------------
 */

static bool is_white(uint32_t code)
{
    return mn__utf8_is_space(code) && (code < 0x1C || code > 0x1F);
}

static bool is_number(uint32_t code)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

static bool is_punctuation(uint32_t code)
{
    if (code < 0x80)
        return code > ' ' && code < 0x7F && !(code >= '0' && code <= '9') &&
               !((code | 0x20) >= 'a' && (code | 0x20) <= 'z');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* ---- Parsing ------------------------------------------------------------------------------------
 */

static mn_status parse_behavior(mn__pretokenizer_stage *stage, mn__json object, mn__json_need need,
                                mn_error *error)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = "Isolated";
    mn_status status = mn__json_string(object, "behavior", need, &name, error);
    if (status)
        return status;
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            stage->behavior = (behavior)i;
            return MN_OK;
        }
    return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: the behavior \"%s\" is unknown",
                    object.file, name);
}

static mn_status parse_split(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                             mn__json object, mn_error *error)
{
    (void)pretokenizer;
    mn__json pattern;
    const char *regex = NULL, *string = NULL;
    mn_status status = parse_behavior(stage, object, MN__JSON_REQUIRED, error);
    if (!status)
        status = mn__json_bool(object, "invert", MN__JSON_OPTIONAL, &stage->invert, error);
    if (!status)
        status = mn__json_object(object, "pattern", MN__JSON_REQUIRED, &pattern, error);
    if (!status)
        status = mn__json_string(pattern, "Regex", MN__JSON_OPTIONAL, &regex, error);
    if (!status && !regex)
        status = mn__json_string(pattern, "String", MN__JSON_REQUIRED, &string, error);
    if (status)
        return status;
    if (string)
        mn__string_puts(&stage->string, string);
    else
        stage->pattern = mn__pattern_of(regex);
    if (stage->string.failed)
        return fail_memory(error);
    /* All of the text is in some match of a known expression. */
    bool whole = stage->behavior == ISOLATED || (stage->behavior == REMOVED && stage->invert);
    if (stage->pattern && whole) {
        stage->process = split_known;
        return MN_OK;
    }
    pretokenizer->loses |= stage->behavior == REMOVED;
    return regex ? mn__regex_compile(&stage->regex, regex, error) : MN_OK;
}

static mn_status parse_byte_level(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                                  mn__json object, mn_error *error)
{
    stage->process = process_byte_level;
    stage->adds_space = stage->splits = true;
    if (pretokenizer->byte_level)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: ByteLevel twice", object.file);
    pretokenizer->byte_level = true;
    mn_status status =
        mn__json_bool(object, "add_prefix_space", MN__JSON_OPTIONAL, &stage->adds_space, error);
    if (!status)
        status = mn__json_bool(object, "use_regex", MN__JSON_OPTIONAL, &stage->splits, error);
    pretokenizer->adds_space |= stage->adds_space;
    return status;
}

static mn_status parse_metaspace(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                                 mn__json object, mn_error *error)
{
    const char *mark, *scheme = NULL;
    bool adds = true;
    stage->process = process_metaspace;
    stage->behavior = WITH_NEXT;
    stage->splits = true;
    pretokenizer->loses = true;
    mn_status status = mn__json_string(object, "replacement", MN__JSON_REQUIRED, &mark, error);
    if (!status)
        status = mn__json_string(object, "prepend_scheme", MN__JSON_OPTIONAL, &scheme, error);
    if (!status)
        status = mn__json_bool(object, "add_prefix_space", MN__JSON_OPTIONAL, &adds, error);
    if (!status)
        status = mn__json_bool(object, "split", MN__JSON_OPTIONAL, &stage->splits, error);
    if (status)
        return status;
    if (!scheme)
        scheme = adds ? "always" : "never";
    stage->only_first = strcmp(scheme, "first") == 0;
    stage->prepend = stage->only_first || strcmp(scheme, "always") == 0;
    if (!stage->prepend && strcmp(scheme, "never"))
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: the prepend_scheme \"%s\" is unknown", object.file, scheme);
    if (mn__utf8_length(mark, (int64_t)strlen(mark)) != (int)strlen(mark))
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: 'replacement' is one character",
                        object.file);
    mn__string_puts(&stage->string, mark);
    return stage->string.failed ? fail_memory(error) : MN_OK;
}

static mn_status parse_digits(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                              mn__json object, mn_error *error)
{
    (void)pretokenizer;
    bool individual = false;
    mn_status status =
        mn__json_bool(object, "individual_digits", MN__JSON_OPTIONAL, &individual, error);
    stage->matches = is_number;
    stage->behavior = individual ? ISOLATED : CONTIGUOUS;
    return status;
}

static mn_status parse_punctuation(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                                   mn__json object, mn_error *error)
{
    stage->matches = is_punctuation;
    mn_status status = parse_behavior(stage, object, MN__JSON_OPTIONAL, error);
    pretokenizer->loses |= stage->behavior == REMOVED;
    return status;
}

static mn_status parse_whitespace(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                                  mn__json object, mn_error *error)
{
    (void)object;
    stage->invert = true;
    stage->behavior = REMOVED;
    pretokenizer->loses = true;
    return mn__regex_compile(&stage->regex, "\\w+|[^\\w\\s]+", error);
}

static mn_status parse_whitespace_split(mn__pretokenizer *pretokenizer,
                                        mn__pretokenizer_stage *stage, mn__json object,
                                        mn_error *error)
{
    (void)object, (void)error;
    stage->matches = is_white;
    stage->behavior = REMOVED;
    pretokenizer->loses = true;
    return MN_OK;
}

static const struct {
    const char *name;
    mn_status (*parse)(mn__pretokenizer *pretokenizer, mn__pretokenizer_stage *stage,
                       mn__json object, mn_error *error);
} types[] = {
    {"Split", parse_split},
    {"ByteLevel", parse_byte_level},
    {"Metaspace", parse_metaspace},
    {"Digits", parse_digits},
    {"Punctuation", parse_punctuation},
    {"Whitespace", parse_whitespace},
    {"WhitespaceSplit", parse_whitespace_split},
};

static mn_status add_stage(mn__pretokenizer *pretokenizer, mn__json object, const char *type,
                           mn_error *error)
{
    size_t at = 0, count = sizeof types / sizeof *types;
    while (at < count && strcmp(types[at].name, type))
        at++;
    if (at == count)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: the pre-tokenizer \"%s\" is unknown", object.file, type);
    if (pretokenizer->count == MN__PRETOKENIZER_STAGES)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: over %d pre-tokenizers",
                        object.file, MN__PRETOKENIZER_STAGES);
    if (!pretokenizer->stages)
        pretokenizer->stages =
            mn__calloc(MN__PRETOKENIZER_STAGES, (int64_t)sizeof *pretokenizer->stages);
    if (!pretokenizer->stages)
        return fail_memory(error);
    mn__pretokenizer_stage *stage = &pretokenizer->stages[pretokenizer->count++];
    stage->process = split;
    return types[at].parse(pretokenizer, stage, object, error);
}

static mn_status parse_at(mn__pretokenizer *pretokenizer, mn__json object, int depth,
                          mn_error *error)
{
    const char *type;
    mn_status status = mn__json_string(object, "type", MN__JSON_REQUIRED, &type, error);
    if (status)
        return status;
    if (strcmp(type, "Sequence"))
        return add_stage(pretokenizer, object, type, error);
    mn__json list;
    status = mn__json_array(object, "pretokenizers", MN__JSON_REQUIRED, &list, error);
    if (!status && depth == DEPTH_MOST)
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: pre-tokenizers nested over %d deep",
                          object.file, DEPTH_MOST);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++)
        status = parse_at(pretokenizer, (mn__json){object.file, json_array_get(list.value, i)},
                          depth + 1, error);
    return status;
}

/* Whether what a piece becomes is decided by the first stage's cuts alone. */
static bool has_known_pattern(const mn__pretokenizer *p)
{
    if (p->count == 0)
        return false;
    const mn__pretokenizer_stage *first = &p->stages[0];
    if (first->process == process_byte_level)
        return first->splits && !first->adds_space;
    return first->process == split_known;
}

mn_status mn__pretokenizer_parse(mn__pretokenizer *pretokenizer, const char *file,
                                 const json_t *value, mn_error *error)
{
    if (!value || json_is_null(value))
        return MN_OK;
    mn_status status = parse_at(pretokenizer, (mn__json){file, value}, 0, error);
    pretokenizer->known_pattern = has_known_pattern(pretokenizer);
    return status;
}

void mn__pretokenizer_free(mn__pretokenizer *pretokenizer)
{
    for (int64_t i = 0; i < pretokenizer->count; i++) {
        mn__string_free(&pretokenizer->stages[i].string);
        mn__regex_free(pretokenizer->stages[i].regex);
    }
    mn__free(pretokenizer->stages);
    *pretokenizer = (mn__pretokenizer){0};
}

void mn__pretokenizer_scratch_free(mn__pretokenizer_scratch *scratch)
{
    mn__matcher_free(scratch->matcher);
    for (int i = 0; i < MN__PRETOKENIZER_STAGES; i++)
        mn__string_free(&scratch->text[i]);
    mn__string_free(&scratch->bytes);
}

/* ---- Running ------------------------------------------------------------------------------------
 */

mn_status mn__pretokenizer_run(const mn__pretokenizer *pretokenizer,
                               mn__pretokenizer_scratch *scratch, const char *text, int64_t bytes,
                               int64_t until, bool at_start, mn__pretoken_take take, void *user,
                               mn_error *error)
{
    run r = {pretokenizer, scratch, take, user, until, false};
    for (int64_t i = 0; i + 1 < pretokenizer->count; i++)
        r.mapped |= pretokenizer->stages[i].process == process_byte_level;
    if (!scratch->matcher)
        scratch->matcher = mn__matcher_new();
    if (!scratch->matcher)
        return fail_memory(error);
    return pass_on(&r, -1, text, bytes, at_start, error);
}
