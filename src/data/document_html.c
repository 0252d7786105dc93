/* HTML as text: libxml2's parser calls us for each element and text; no tree is built, so
 * that memory is the text's. */
#include "data/document.h"

#ifdef MN__HAVE_LIBXML2

#include <libxml/HTMLparser.h>
#include <limits.h>
#include <string.h>

enum { MOST_DEPTH = 1000, MOST_WORDS = 10000 };

typedef struct writer {
    htmlParserCtxtPtr parser;
    mn__string *out;
    int64_t begin;      /* of this text in `out` */
    int depth, dropped; /* elements open; those of them inside one that is dropped */
    int kept_space;     /* <pre>s open */
    int breaks;         /* line ends due before the next character: 1, or 2 for an empty line */
    bool space;         /* due, too */
    bool too_deep, too_long;
} writer;

static bool is_one_of(const char *const *names, const xmlChar *name)
{
    for (; *names; names++)
        if (strcmp(*names, (const char *)name) == 0)
            return true;
    return false;
}

/* How many line ends an element begins and ends with. */
static int breaks_of(const xmlChar *name)
{
    static const char *const paragraphs[] = {
        "p",      "h1",   "h2",    "h3",     "h4",     "h5",    "h6",      "blockquote",
        "pre",    "ul",   "ol",    "dl",     "hr",     "table", "section", "article",
        "figure", "form", "aside", "header", "footer", NULL};
    static const char *const lines[] = {
        "div",     "li",         "tr",     "dt",   "dd",      "main",    "nav",     "option",
        "caption", "figcaption", "center", "body", "address", "summary", "details", NULL};
    return is_one_of(paragraphs, name) ? 2 : is_one_of(lines, name) ? 1 : 0;
}

static bool is_dropped(const xmlChar *name)
{
    static const char *const names[] = {"script",   "style",  "head",   "template",
                                        "noscript", "iframe", "object", NULL};
    return is_one_of(names, name);
}

static void due(writer *w, int breaks)
{
    w->breaks = breaks > w->breaks ? breaks : w->breaks;
    w->space = w->space && breaks == 0;
}

/* The element's name is in lower case. */
static void on_start(void *user, const xmlChar *name, const xmlChar **attributes)
{
    writer *w = user;
    (void)attributes;
    if (++w->depth > MOST_DEPTH) {
        w->too_deep = true;
        xmlStopParser(w->parser);
    }
    if (w->dropped || is_dropped(name)) {
        w->dropped++;
        return;
    }
    due(w, breaks_of(name));
    w->kept_space += strcmp((const char *)name, "pre") == 0;
    if (strcmp((const char *)name, "br") == 0) {
        w->breaks = w->breaks < 2 ? w->breaks + 1 : 2;
        w->space = false;
    }
}

static void on_end(void *user, const xmlChar *name)
{
    writer *w = user;
    w->depth--;
    if (w->dropped) {
        w->dropped--;
        return;
    }
    due(w, breaks_of(name));
    if (strcmp((const char *)name, "pre") == 0 && w->kept_space > 0)
        w->kept_space--;
    if (strcmp((const char *)name, "td") == 0 || strcmp((const char *)name, "th") == 0)
        w->space = true;
}

/* What is due, where something stands before it. */
static void write_due(writer *w)
{
    if (w->out->bytes > w->begin) {
        if (w->breaks)
            mn__string_add(w->out, "\n\n", w->breaks);
        else if (w->space)
            mn__string_add(w->out, " ", 1);
    }
    w->breaks = 0;
    w->space = false;
}

/* A character of `length` bytes. */
static void write_character(writer *w, const char *at, int length)
{
    bool space =
        length == 1 && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r' || *at == '\f');
    if (length == 2 && memcmp(at, "\xC2\xAD", 2) == 0) /* a soft hyphen */
        return;
    if (space && !w->kept_space) {
        w->space = true;
        return;
    }
    write_due(w);
    if (length == 2 && memcmp(at, "\xC2\xA0", 2) == 0)
        mn__string_add(w->out, " ", 1);
    else if (*at != '\r')
        mn__string_add(w->out, at, length);
}

static void on_text(void *user, const xmlChar *text, int bytes)
{
    writer *w = user;
    const char *at = (const char *)text, *end = at + bytes;
    if (w->dropped)
        return;
    while (at < end && !w->out->failed) {
        int length = mn__utf8_length(at, end - at);
        if (length > 0)
            write_character(w, at, length);
        at += length > 0 ? length : 1;
    }
    if (w->out->bytes - w->begin > MN__DOCUMENT_MOST_TEXT || w->out->failed) {
        w->too_long = true;
        xmlStopParser(w->parser);
    }
}

static void on_error(void *user, const char *format, ...)
{
    (void)user; /* HTML is often wrong; the parser goes on */
    (void)format;
}

/* Many attributes take the parser time by their square. */
static bool has_huge_tag(const char *html, int64_t bytes)
{
    int64_t words = 0;
    bool inside = false;
    char quote = '\0';
    for (int64_t i = 0; i < bytes; i++) {
        char c = html[i];
        if (!inside) {
            inside = c == '<';
            words = 0;
        } else if (quote) {
            quote = c == quote ? '\0' : quote;
        } else if (c == '"' || c == '\'') {
            quote = c;
            words++;
        } else if (c == '>') {
            inside = false;
        } else {
            words += c == ' ' || c == '\n' || c == '\t' || c == '=' || c == '/';
        }
        if (words > MOST_WORDS)
            return true;
    }
    return false;
}

static mn_status parse(const char *name, const mn__string *html, mn__string *text, mn_error *error)
{
    writer w = {.parser = htmlNewParserCtxt(), .out = text, .begin = text->bytes};
    if (!w.parser)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
    htmlSAXHandler handler = {
        .startElement = on_start,
        .endElement = on_end,
        .characters = on_text,
        .ignorableWhitespace = on_text,
        .error = on_error,
        .warning = on_error,
    };
    *w.parser->sax = handler;
    w.parser->userData = &w;
    htmlDocPtr tree =
        htmlCtxtReadMemory(w.parser, html->text, (int)html->bytes, NULL, "UTF-8",
                           HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC);
    bool memory = w.parser->errNo == XML_ERR_NO_MEMORY;
    xmlFreeDoc(tree);
    htmlFreeParserCtxt(w.parser);
    if (text->failed || memory)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
    if (w.too_deep)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: elements are nested over %d deep", name,
                        MOST_DEPTH);
    if (w.too_long)
        return mn__document_too_long(name, error);
    if (text->bytes > w.begin && text->text[text->bytes - 1] != '\n')
        mn__string_add(text, "\n", 1);
    return text->failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name) : MN_OK;
}

mn_status mn__document_html(const char *name, const char *html, int64_t bytes, mn__string *text,
                            mn_error *error)
{
    mn__string decoded = {0};
    mn_status status = mn__document_decode(name, html, bytes, &decoded, error);
    if (!status && decoded.bytes > INT_MAX)
        status = mn__document_too_long(name, error);
    if (!status && has_huge_tag(decoded.text, decoded.bytes))
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: an element has over %d attributes",
                          name, MOST_WORDS);
    if (!status && decoded.bytes > 0)
        status = parse(name, &decoded, text, error);
    mn__string_free(&decoded);
    return status;
}

#else

#include <assert.h>

/* mn__document_readable has said so before. */
mn_status mn__document_html(const char *name, const char *html, int64_t bytes, mn__string *text,
                            mn_error *error)
{
    (void)html;
    (void)bytes;
    (void)text;
    return mn__document_readable(name, MN__DOCUMENT_HTML, error);
}

#endif
