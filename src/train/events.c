/* TensorBoard event files.
 *
 * A record is: length (u64), masked CRC of the length, data, masked CRC of the
 * data, little-endian. The data is an Event message:
 *   1 wall_time: double   2 step: int64   3 file_version: string
 *   5 summary: {1 value: {1 tag: string, 2 simple_value: float}} */
#include "train/events.h"

#include <assert.h>
#include <string.h>

uint32_t mn__crc32c(const void *data, int64_t bytes)
{
    const unsigned char *byte = data;
    uint32_t crc = 0xffffffffU;
    for (int64_t i = 0; i < bytes; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78U : 0);
    }
    return ~crc;
}

uint32_t mn__crc32c_masked(const void *data, int64_t bytes)
{
    uint32_t crc = mn__crc32c(data, bytes);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

/* ---- Protobuf's wire format ----------------------------------------------------- */

enum wire { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { MESSAGE_MAX = 512, TAG_MAX = 128 };

struct message {
    unsigned char data[MESSAGE_MAX];
    int64_t bytes;
};

static void put_little_endian(struct message *message, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        message->data[message->bytes++] = (unsigned char)(value >> (8 * i));
}

static void put_varint(struct message *message, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        put_little_endian(message, 0x80 | (value & 0x7f), 1);
    put_little_endian(message, value, 1);
}

static void put_key(struct message *message, int field, enum wire wire)
{
    put_varint(message, (uint64_t)field << 3 | (uint64_t)wire);
}

static void put_double(struct message *message, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(message, field, FIXED64);
    put_little_endian(message, bits, 8);
}

static void put_float(struct message *message, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(message, field, FIXED32);
    put_little_endian(message, bits, 4);
}

static void put_bytes(struct message *message, int field, const void *data, int64_t bytes)
{
    put_key(message, field, BYTES);
    put_varint(message, (uint64_t)bytes);
    memcpy(message->data + message->bytes, data, (size_t)bytes);
    message->bytes += bytes;
}

/* ---- Records ----------------------------------------------------------------------- */

static void put_record(mn__string *out, const struct message *event)
{
    struct message head = {.bytes = 0}, foot = {.bytes = 0};
    put_little_endian(&head, (uint64_t)event->bytes, 8);
    put_little_endian(&head, mn__crc32c_masked(head.data, 8), 4);
    put_little_endian(&foot, mn__crc32c_masked(event->data, event->bytes), 4);
    mn__string_add(out, head.data, head.bytes);
    mn__string_add(out, event->data, event->bytes);
    mn__string_add(out, foot.data, foot.bytes);
}

void mn__events_begin(mn__string *out, double wall_time)
{
    struct message event = {.bytes = 0};
    put_double(&event, 1, wall_time);
    put_bytes(&event, 3, "brain.Event:2", 13);
    put_record(out, &event);
}

void mn__events_scalar(mn__string *out, double wall_time, int64_t step, const char *tag,
                       float scalar)
{
    struct message event = {.bytes = 0}, summary = {.bytes = 0}, value = {.bytes = 0};
    assert(strlen(tag) <= TAG_MAX);
    put_bytes(&value, 1, tag, (int64_t)strlen(tag));
    put_float(&value, 2, scalar);
    put_bytes(&summary, 1, value.data, value.bytes);
    put_double(&event, 1, wall_time);
    put_key(&event, 2, VARINT);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, 5, summary.data, summary.bytes);
    put_record(out, &event);
}
