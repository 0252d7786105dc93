/* What a decoder says of a text. */
#ifndef TESTS_SUPPORT_LOGITS_H
#define TESTS_SUPPORT_LOGITS_H

#include "model/decoder.h"

/* Logits [n, V] of one text, read at once, computed in F32. Fails the test where it cannot. */
void logits_read(mn__decoder *decoder, mn__params *params, const int32_t *ids, int64_t n,
                 float *logits);
/* Fails unless they are within `bound` of the largest of `right`; 0: equal to the bit. */
void logits_compare(const char *what, const float *logits, const float *right, int64_t count,
                    double bound);

#endif
