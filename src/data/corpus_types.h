/* The corpora; each is defined in corpus_<name>.c. */
#ifndef MN__DATA_CORPUS_TYPES_H
#define MN__DATA_CORPUS_TYPES_H

#include "data/corpus.h"

extern const mn__corpus_type mn__corpus_text;
extern const mn__corpus_type mn__corpus_folder;
extern const mn__corpus_type mn__corpus_pg19;
extern const mn__corpus_type mn__corpus_enwik;
extern const mn__corpus_type mn__corpus_wikitext;
extern const mn__corpus_type mn__corpus_tree;

/* A path's last name. */
const char *mn__corpus_base_name(const char *path);
/* Does `text` end in `ending`? */
bool mn__corpus_ends_in(const char *text, const char *ending);

/* " = Title = " and not " = = Section = = ": WikiText's first line of an article
 * (with or without its newline). *title is within the line. */
bool mn__wikitext_title(const char *line, int64_t bytes, const char **title, int64_t *title_bytes);

#endif
