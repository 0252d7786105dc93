/* TensorBoard event files: scalars by step. The format is TFRecord framing
 * around protobuf messages of tensorflow/core/util/event.proto. */
#ifndef MN__TRAIN_EVENTS_H
#define MN__TRAIN_EVENTS_H

#include "base/string.h"

/* CRC-32C (Castagnoli), as of RFC 3720; and as TFRecord stores it. */
uint32_t mn__crc32c(const void *data, int64_t bytes);
uint32_t mn__crc32c_masked(const void *data, int64_t bytes);

/* Appends the record that an event file begins with. */
void mn__events_begin(mn__string *out, double wall_time);
/* Appends one scalar. */
void mn__events_scalar(mn__string *out, double wall_time, int64_t step, const char *tag,
                       float value);

#endif
