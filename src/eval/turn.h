/* What a conversation about a text is made of, as ids: the text, and each question with what
 * leads to its answer; by a model's chat template (text/chat.h), or as it is typed.
 *
 * The text is the beginning of the first message, and the first question follows it after an
 * empty line; so that it is read before there is a question. A template is shown messages that
 * are marks, and what stands between these is used: what was read is never rendered again. */
#ifndef MN__EVAL_TURN_H
#define MN__EVAL_TURN_H

#include "text/chat.h"
#include "text/tokenizer.h"

/* What turns are made with; all is borrowed. */
typedef struct mn__turns {
    const mn__chat *chat; /* NULL: texts as they are */
    const mn__tokenizer *tokenizer;
    const mn__ids *before; /* what stands before a text that is as it is (model/run.h) */
} mn__turns;

/* Appends what is read before any question. */
mn_status mn__turn_text(const mn__turns *turns, const char *text, int64_t bytes, mn__ids *ids,
                        mn_error *error);

typedef enum mn__turn_place {
    MN__TURN_ALONE, /* nothing was read */
    MN__TURN_FIRST, /* after the text */
    MN__TURN_LATER, /* after an answer, of which the end is not read yet */
} mn__turn_place;
/* Appends a question's ids and what comes before the answer. MN_ERROR_UNSUPPORTED: a template
 * that changes messages so that they are not found again. */
mn_status mn__turn_question(const mn__turns *turns, mn__turn_place place, const char *question,
                            int64_t bytes, mn__ids *ids, mn_error *error);

#endif
