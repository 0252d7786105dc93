/* Bytes: id = byte. A document starts as if after a line's end. */
#include "text/tokenizer_types.h"

static mn_status parse(mn__tokenizer *tokenizer, mn_error *error)
{
    mn_status status = MN_OK;
    for (int byte = 0; byte < 256 && !status; byte++)
        status = mn__tokenizer_add_piece(tokenizer, &(char){(char)byte}, 1, error);
    tokenizer->start = '\n';
    tokenizer->unknown = -1;
    tokenizer->lossless = tokenizer->any_bytes = true;
    return status;
}

static mn_status encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error)
{
    (void)tokenizer, (void)last, (void)error;
    int32_t *id = mn__ids_extend(ids, bytes);
    for (int64_t i = 0; id && i < bytes; i++)
        id[i] = (unsigned char)text[i];
    *used = bytes;
    return MN_OK;
}

const mn__tokenizer_type mn__tokenizer_type_bytes = {
    .name = "bytes",
    .help = "256 ids, one for each byte",
    .parse = parse,
    .encode = encode,
};
