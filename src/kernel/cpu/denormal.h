/* Denormal numbers (below 2^-126) count as zero while a thread multiplies: an
 * instruction that meets one costs a hundred others, and the sharp weights of
 * trained attention are full of them. The thread's setting is put back after. */
#ifndef MN__KERNEL_CPU_DENORMAL_H
#define MN__KERNEL_CPU_DENORMAL_H

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* Returns what mn__denormals_restore takes. */
static inline unsigned mn__denormals_to_zero(void)
{
#if defined(__SSE2__)
    enum { RESULTS = 0x8000, OPERANDS = 0x0040 }; /* FTZ and DAZ */
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | RESULTS | OPERANDS);
    return before;
#else
    return 0;
#endif
}

static inline void mn__denormals_restore(unsigned before)
{
#if defined(__SSE2__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

#endif
