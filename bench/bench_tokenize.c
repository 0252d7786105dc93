/* How fast text becomes ids, on one thread: byte-level BPE beside the tokenizers package, which is
 * timed in turn on the same files, and SentencePiece's BPE.
 *
 *   bench_tokenize [--alone] [TOKENIZER.json TEXT...]
 *
 * Without arguments: Phi-2's vocabulary (GPT-2's with white space added) on English novels, at most
 * 4 MB of them, from the data folder ($MNEME_DATA); --alone leaves the peer out. Prints a table
 * and, last, one JSON object:
 *   bpe_mb_per_s            10^6 bytes of text a second
 *   over_huggingface        the peer's time over ours
 *   sentencepiece_mb_per_s  the first of the files, by Llama 2's tokenizer.model */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "pairs.h"
#include "peak.h"
#include "text/tokenizer.h"

enum { REPEATS = 5, FILES_MOST = 64, BYTES_MOST = 4000000 };

typedef struct corpus {
    char *path[FILES_MOST], *text[FILES_MOST];
    int64_t bytes[FILES_MOST], total;
    int count;
} corpus;

static char *join(const char *folder, const char *name)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    return path.text;
}

/* A file, unless it is no text of ours or there is enough. */
static void add_file(corpus *c, char *path)
{
    mn_error error;
    char *text = NULL;
    int64_t bytes = 0;
    if (c->count < FILES_MOST && c->total < BYTES_MOST)
        bench_check(mn__file_read(path, 0, &text, &bytes, &error), &error);
    if (bytes == 0 || c->total + bytes > BYTES_MOST) {
        mn__free(text);
        mn__free(path);
        return;
    }
    c->path[c->count] = path;
    c->text[c->count] = text;
    c->bytes[c->count++] = bytes;
    c->total += bytes;
}

static void add_folder(corpus *c, const char *folder)
{
    char **names;
    int64_t count;
    mn_error error;
    bench_check(mn__file_list(folder, &names, &count, &error), &error);
    for (int64_t i = 0; i < count; i++)
        add_file(c, join(folder, names[i]));
    mn__free(names);
}

static void close_corpus(corpus *c)
{
    for (int i = 0; i < c->count; i++) {
        mn__free(c->path[i]);
        mn__free(c->text[i]);
    }
}

/* Seconds for the first `files` files; how many ids they are. */
static double time_ours(const mn__tokenizer *tokenizer, const corpus *c, int files, int64_t *count)
{
    mn__ids ids = {0};
    mn_error error;
    *count = 0;
    double start = bench_now();
    for (int i = 0; i < files; i++) {
        mn__ids_clear(&ids);
        bench_check(mn__tokenizer_encode(tokenizer, c->text[i], c->bytes[i], &ids, &error), &error);
        *count += ids.count;
    }
    double seconds = bench_now() - start;
    mn__ids_free(&ids);
    return seconds;
}

/* ---- The peer ----------------------------------------------------------------------------- */

static peer *start_peer(const char *tokenizer, const corpus *c, int64_t *ids)
{
    json_t *request = json_object(), *files = json_array();
    for (int i = 0; i < c->count; i++)
        json_array_append_new(files, json_string(c->path[i]));
    json_object_set_new(request, "tokenizer", json_string(tokenizer));
    json_object_set_new(request, "files", files);
    char *line = json_dumps(request, JSON_COMPACT);
    peer *worker = peer_start(MNEME_SOURCE_DIR "/bench/tokenizers_worker.py");
    json_t *ready = worker ? peer_ask(worker, line) : NULL;
    free(line);
    json_decref(request);
    if (!ready) {
        fprintf(stderr, "no tokenizers package: its figure is missing\n");
        peer_stop(worker);
        return NULL;
    }
    *ids = json_integer_value(json_object_get(ready, "ids"));
    printf(
        "tokenizers %s, by %s; seconds: ", json_string_value(json_object_get(ready, "tokenizers")),
        json_string_value(json_object_get(ready, "variant")));
    json_dumpf(json_object_get(ready, "tried"), stdout, 0);
    printf("\n");
    json_decref(ready);
    return worker;
}

static double time_peer(peer *worker)
{
    json_t *answer = worker ? peer_ask(worker, "encode") : NULL;
    double seconds = answer ? json_number_value(json_object_get(answer, "seconds")) : NAN;
    json_decref(answer);
    return seconds;
}

/* ---- Measuring ---------------------------------------------------------------------------- */

static double measure_bpe(const char *path, const corpus *c, bool alone, double *ratio)
{
    mn__tokenizer *tokenizer;
    mn_error error;
    int64_t ids, theirs = -1;
    double rates[REPEATS], ratios[REPEATS];
    bench_check(mn__tokenizer_load(&tokenizer, path, &error), &error);
    peer *worker = alone ? NULL : start_peer(path, c, &theirs);
    time_ours(tokenizer, c, c->count, &ids);
    if (worker && ids != theirs) {
        fprintf(stderr, "bench tokenize: %lld ids, the peer's are %lld\n", (long long)ids,
                (long long)theirs);
        exit(1);
    }
    for (int i = 0; i < REPEATS; i++) {
        double seconds = time_ours(tokenizer, c, c->count, &ids);
        ratios[i] = time_peer(worker) / seconds;
        rates[i] = 1e-6 * (double)c->total / seconds;
    }
    *ratio = bench_median(ratios, REPEATS);
    double rate = bench_median(rates, REPEATS);
    printf("%-22s %8.2f MB %9lld ids %7.1f MB/s  %.1f .. %.1f", "byte-level BPE",
           1e-6 * (double)c->total, (long long)ids, rate, rates[0], rates[REPEATS - 1]);
    if (worker)
        printf("  over tokenizers %.2f  %.2f .. %.2f", *ratio, ratios[0], ratios[REPEATS - 1]);
    printf("\n");
    peer_stop(worker);
    mn__tokenizer_free(tokenizer);
    return rate;
}

static double measure_sentencepiece(const char *path, const corpus *c)
{
    mn__tokenizer *tokenizer;
    mn_error error;
    int64_t ids = 0;
    double rates[REPEATS];
    if (!mn__file_exists(path))
        return NAN;
    bench_check(mn__tokenizer_load(&tokenizer, path, &error), &error);
    for (int i = 0; i < 3; i++)
        rates[i] = 1e-6 * (double)c->bytes[0] / time_ours(tokenizer, c, 1, &ids);
    double rate = bench_median(rates, 3);
    printf("%-22s %8.2f MB %9lld ids %7.1f MB/s  %.1f .. %.1f\n", "SentencePiece",
           1e-6 * (double)c->bytes[0], (long long)ids, rate, rates[0], rates[2]);
    mn__tokenizer_free(tokenizer);
    return rate;
}

int main(int argc, char **argv)
{
    const char *root = getenv("MNEME_DATA");
    root = root ? root : MNEME_SOURCE_DIR "/../shared/data";
    bool alone = argc > 1 && strcmp(argv[1], "--alone") == 0;
    int first = 1 + alone;
    corpus c = {0};
    char *vocabulary =
        first < argc ? mn__strdup(argv[first]) : join(root, "tokenizers/phi2/tokenizer.json");
    char *novels = join(root, "books/novels"),
         *model = join(root, "tokenizers/llama2/tokenizer.model");
    for (int i = first + 1; i < argc; i++)
        add_file(&c, mn__strdup(argv[i]));
    if (first >= argc && mn__file_is_folder(novels))
        add_folder(&c, novels);
    if (c.count == 0) {
        fprintf(stderr, "bench tokenize: no text; bench_tokenize [--alone] TOKENIZER.json TEXT..., "
                        "or set MNEME_DATA\n");
        return 2;
    }
    double ratio, rate = measure_bpe(vocabulary, &c, alone, &ratio);
    double sentencepiece = measure_sentencepiece(model, &c);
    json_t *all = json_object();
    bench_figure(all, "bpe_mb_per_s", true, rate);
    bench_figure(all, "over_huggingface", !alone, ratio);
    bench_figure(all, "sentencepiece_mb_per_s", true, sentencepiece);
    bench_figures_print(all);
    close_corpus(&c);
    mn__free(vocabulary);
    mn__free(novels);
    mn__free(model);
    return 0;
}
