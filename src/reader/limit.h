/* Texts longer than the window that a model is made for. */
#ifndef MN__READER_LIMIT_H
#define MN__READER_LIMIT_H

#include "model/run.h"

/* The most tokens that a run reads of one text: its context, where some layer sees all of the
 * text, or its learned positions; INT64_MAX: no bound is known. */
int64_t mn__limit_of(const mn__run *run);
/* Bytes of keys and values that a token more takes. */
int64_t mn__limit_token_bytes(const mn__run *run, mn__dtype compute);
/* MN_ERROR_MISMATCH where `tokens` are more: names the ways out and what each costs. `what`
 * for the message: "the text". */
mn_status mn__limit_check(const mn__run *run, const char *what, int64_t tokens, mn__dtype compute,
                          mn_error *error);

#endif
