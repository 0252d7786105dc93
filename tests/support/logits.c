/* Logits, read and compared. */
#include "support/logits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/model.h"

void logits_read(mn__decoder *decoder, mn__params *params, const int32_t *ids, int64_t n,
                 float *logits)
{
    mn_error error;
    mn__states states;
    mn__tape tape;
    bool start = true;
    int32_t *every = malloc((size_t)n * sizeof *every);
    assert_non_null(every);
    for (int32_t i = 0; i < n; i++)
        every[i] = i;
    mn__tape_init(&tape, params, MN__F32);
    succeed(mn__decoder_states_open(decoder, &states, 1, n, MN__F32, &error), &error);
    mn__segment segment = {.B = 1, .T = n, .start = &start};
    mn__var *hidden = mn__decoder_forward(decoder, &tape, &segment, ids, &states);
    mn__var *out = mn__decoder_logits(decoder, &tape, hidden, every, n);
    succeed(mn__tape_status(&tape, &error), &error);
    memcpy(logits, out->value.data, (size_t)(n * mn__decoder_vocabulary(decoder)) * sizeof *logits);
    mn__tape_reset(&tape);
    mn__states_close(&states);
    mn__tape_free(&tape);
    free(every);
}

void logits_compare(const char *what, const float *logits, const float *right, int64_t count,
                    double bound)
{
    double most = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs((double)right[i]));
        worst = fmax(worst, fabs((double)logits[i] - (double)right[i]));
        assert_true(isfinite(logits[i]));
    }
    if (most == 0 || worst > bound * most)
        fail_msg("%s: logits of up to %g differ by %g", what, most, worst);
}
