/* What nats add up to. */
#include "eval/perplexity.h"

#include <math.h>

double mn__perplexity(double nats, int64_t units)
{
    return exp(nats / (double)units);
}

double mn__bits_per(double nats, int64_t units)
{
    return nats / log(2.0) / (double)units;
}

/* Range 2k and 2k + 1 halve [2^k, 2^(k+1)), but for k = 0, which holds one. */
int mn__position_range(int64_t position)
{
    if (position < 2)
        return (int)position;
    int k = 63 - __builtin_clzll((unsigned long long)position);
    return 2 * k + (int)((position >> (k - 1)) & 1);
}

int64_t mn__position_first(int range)
{
    if (range < 2)
        return range;
    return ((int64_t)2 + range % 2) << (range / 2 - 1);
}
