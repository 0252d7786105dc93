/* What tests of modules that can fail share. */
#ifndef TESTS_UNIT_FAULTS_H
#define TESTS_UNIT_FAULTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"

/* Evaluates `call` (an mn_status) with the first, the second, ... allocation
 * failing until it succeeds: each failure must say so and leak nothing. */
#define CHECK_EVERY_ALLOCATION(call)                                     \
    do {                                                                 \
        int64_t nth_ = 0, bytes_ = mn__memory_now().bytes;               \
        mn_status status_;                                               \
        do {                                                             \
            mn__memory_fail_nth(++nth_);                                 \
            status_ = (call);                                            \
            mn__memory_fail_nth(0);                                      \
            assert_int_equal(mn__memory_now().bytes, bytes_);            \
            assert_true(status_ == MN_OK || status_ == MN_ERROR_MEMORY); \
        } while (status_ && nth_ < 100000);                              \
        assert_int_equal(status_, MN_OK);                                \
        assert_true(nth_ > 1); /* there was something to fail */         \
    } while (0)

#endif
