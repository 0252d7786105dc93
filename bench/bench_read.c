/* How fast a long text is read, beside llama.cpp: a model of Qwen2-0.5B's shape with random
 * weights (read_model.h, made on first use), in bf16, keys and values too.
 *
 *   bench_read [--alone] [--short] [prompt] [generate] [open]
 *
 * Both sides read the same tokens in turn, with as many threads; llama.cpp in F16 or BF16, the
 * fastest of its forms at 2,048 tokens (llama_worker.py). Parts that are named are run, or all;
 * --short leaves out texts of more than 2,048 tokens, --alone the peer. Prints a table and, last,
 * one JSON object:
 *   prompt_512, _2048, _8192, _16384   our tokens a second over the peer's, from an empty session
 *                                      to the last token's logits
 *   prompt_8192_of_peak                2 FLOPs for each weight of the layers' matrices and token,
 *                                      and attention by its causal half, over the peak in bf16
 *   generate_bf16, _int8, _4bit        tokens a second over the peer's in F16 (or BF16), Q8_0,
 *                                      Q4_0: the smaller of the ratios after 512 and after 8,192
 *   generate_bf16_of_bandwidth         bytes of weights, keys and values read for a token, over
 *                                      the best rate at which 1 to n threads read 1 GiB
 *   open                               seconds from a process's start to the first token, with
 *                                      none of the folder in memory, over those of reading the
 *                                      model's file alone */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/threads.h"
#include "model/run.h"
#include "pairs.h"
#include "peak.h"
#include "read_model.h"
#include "reader/reading.h"

enum { LONGEST = 16384, SPOKEN = 32, ROUNDS = 5, CHUNK = 512 };

typedef struct options {
    bool alone, brief, prompt, generate, open;
} options;

static const char model_folder[] = MNEME_SOURCE_DIR "/build/bench-read";

/* ---- Ours ----------------------------------------------------------------------------------- */

typedef struct reader {
    mn__device device;
    mn__run run;
    mn__reading reading;
} reader;

static void open_reader(reader *r, mn__weights weights, int64_t capacity)
{
    const mn__dtype compute = MN__BF16;
    const mn__run_how how = {.weights = weights, .compute = &compute};
    const mn__reading_options reading = {.capacity = capacity, .chunk = CHUNK, .compute = compute};
    mn_error error;
    bench_check(mn__device_open(&r->device, &error), &error);
    bench_check(mn__run_open_as(&r->run, &r->device, model_folder, &how, &error), &error);
    bench_check(mn__reading_open(&r->reading, r->run.decoder, &r->run.params, &reading, &error),
                &error);
}

static void close_reader(reader *r)
{
    mn__reading_close(&r->reading);
    mn__run_close(&r->run);
    mn__device_close(&r->device);
}

static const float *logits_of(reader *r)
{
    mn_error error;
    const float *logits = mn__reading_logits(&r->reading, &error);
    bench_check(logits ? MN_OK : error.code, &error);
    return logits;
}

/* The tokens of llama_worker.py, read anew. */
static double time_prompt(reader *r, int64_t count)
{
    int32_t *ids = bench_take(count * (int64_t)sizeof *ids);
    mn_error error;
    for (int64_t i = 0; i < count; i++)
        ids[i] = (int32_t)((i * 7919 + 13) % 50021);
    bench_check(mn__reading_rewind(&r->reading, 0, NULL, &error), &error);
    double start = bench_now();
    bench_check(mn__reading_add(&r->reading, ids, count, &error), &error);
    logits_of(r);
    double seconds = bench_now() - start;
    mn__free(ids);
    return seconds;
}

static double time_tokens(reader *r, int count)
{
    int64_t read = r->reading.ids.count;
    mn_error error;
    double start = bench_now();
    for (int i = 0; i < count; i++) {
        int32_t id = (int32_t)((i * (int64_t)104729 + 7) % 50021);
        bench_check(mn__reading_add(&r->reading, &id, 1, &error), &error);
        logits_of(r);
    }
    double seconds = bench_now() - start;
    bench_check(mn__reading_rewind(&r->reading, read, NULL, &error), &error);
    return seconds;
}

/* ---- The peer ------------------------------------------------------------------------------- */

static peer *start_peer(void)
{
    json_t *request = json_pack("{s:s, s:i, s:i}", "model", model_folder, "threads", mn__threads(),
                                "tokens", LONGEST + 2 * SPOKEN);
    char *line = json_dumps(request, JSON_COMPACT);
    peer *worker = peer_start(MNEME_SOURCE_DIR "/bench/llama_worker.py");
    json_t *ready = worker ? peer_ask(worker, line) : NULL;
    free(line);
    json_decref(request);
    if (!ready) {
        fprintf(stderr, "no llama.cpp: its figures are missing\n");
        peer_stop(worker);
        return NULL;
    }
    printf("llama-cpp-python %s, %s; tokens/s at 2,048: ",
           json_string_value(json_object_get(ready, "version")),
           json_string_value(json_object_get(ready, "variant")));
    json_dumpf(json_object_get(ready, "tried"), stdout, 0);
    printf("\n");
    json_decref(ready);
    return worker;
}

/* What the peer says to "VERB VALUE"; the caller decrefs. */
static json_t *ask(peer *worker, const char *verb, const char *value)
{
    char line[64];
    snprintf(line, sizeof line, "%s %s", verb, value);
    json_t *answer = peer_ask(worker, line);
    if (answer)
        return answer;
    fprintf(stderr, "bench read: llama.cpp has ended\n");
    exit(1);
}

static double ask_seconds(peer *worker, const char *verb, int64_t count)
{
    char value[24];
    snprintf(value, sizeof value, "%lld", (long long)count);
    json_t *answer = ask(worker, verb, value);
    double seconds = json_number_value(json_object_get(answer, "seconds"));
    json_decref(answer);
    return seconds;
}

/* ---- Both, in turn --------------------------------------------------------------------------- */

typedef struct pair {
    double ours, theirs, ratio; /* tokens/s, medians; NAN: not measured */
} pair;

/* Of `count` things a round, which take ours[i] and theirs[i] seconds. */
static pair pair_of(double count, int rounds, double *ours, double *theirs)
{
    double ratios[ROUNDS];
    for (int i = 0; i < rounds; i++)
        ratios[i] = theirs[i] / ours[i];
    return (pair){.ours = count / bench_median(ours, rounds),
                  .theirs = count / bench_median(theirs, rounds),
                  .ratio = bench_median(ratios, rounds)};
}

static void print_pair(const char *what, int64_t tokens, pair p, const char *share, double value)
{
    printf("%-16s %6lld tokens %9.1f tokens/s", what, (long long)tokens, p.ours);
    if (!isnan(p.theirs))
        printf("  llama.cpp %8.1f  over it %5.2f", p.theirs, p.ratio);
    printf("  %s %.2f\n", share, value);
    fflush(stdout);
}

static double prompt_flops(int64_t count)
{
    double n = (double)count, matrices = 2 * (double)read_model_layer_weights();
    return n * (matrices + 2 * n * READ_WIDTH * READ_LAYERS) +
           2 * (double)read_model_head_weights();
}

static pair measure_prompt(reader *r, peer *worker, const bench_peak *peak, int64_t count,
                           double *share)
{
    double ours[ROUNDS], theirs[ROUNDS], shares[ROUNDS];
    int rounds = count <= 512 ? ROUNDS : count <= 2048 ? 3 : count <= 8192 ? 2 : 1;
    for (int i = 0; i < rounds; i++) {
        double before = bench_peak_measure(peak);
        ours[i] = time_prompt(r, count);
        shares[i] = prompt_flops(count) / ours[i] / (0.5 * (before + bench_peak_measure(peak)));
        theirs[i] = worker ? ask_seconds(worker, "prompt", count) : NAN;
    }
    pair p = pair_of((double)count, rounds, ours, theirs);
    *share = bench_median(shares, rounds);
    print_pair("prompt", count, p, "of the peak", *share);
    return p;
}

static void measure_prompts(const options *o, reader *r, peer *worker, json_t *figures)
{
    static const int64_t counts[] = {512, 2048, 8192, LONGEST};
    bench_peak peak = bench_peak_open(&r->device.queue, MN__BF16);
    time_prompt(r, CHUNK);
    for (int i = 0; i < (o->brief ? 2 : 4); i++) {
        char name[32];
        double share;
        pair p = measure_prompt(r, worker, &peak, counts[i], &share);
        snprintf(name, sizeof name, "prompt_%lld", (long long)counts[i]);
        bench_figure(figures, name, worker, p.ratio);
        snprintf(name, sizeof name, "prompt_%lld_of_peak", (long long)counts[i]);
        bench_figure(figures, name, true, share);
    }
}

/* ---- Generation ------------------------------------------------------------------------------ */

enum { ARRAY = 1 << 27 };

static double *new_array(void)
{
    double *x = bench_take((int64_t)ARRAY * 8);
#pragma omp parallel for
    for (int64_t i = 0; i < ARRAY; i++)
        x[i] = 1;
    return x;
}

/* Bytes/s of 1 to n threads that read the array of 1 GiB, the best. */
static double bandwidth(const double *x)
{
    int64_t n = ARRAY;
    double best = 0, sum = 0;
    for (int threads = 1; threads <= mn__threads(); threads++)
        for (int round = 0; round < 3; round++) {
            double start = bench_now();
#pragma omp parallel for simd num_threads(threads) reduction(+ : sum)
            for (int64_t i = 0; i < n; i++)
                sum += x[i];
            double rate = (double)n * 8 / (bench_now() - start);
            best = rate > best ? rate : best;
        }
    if (sum < 0) /* never: so that it is computed */
        printf("%g\n", sum);
    return best;
}

typedef struct form {
    const char *figure, *peer;
    mn__weights weights;
    double bytes; /* of a weight */
} form;

static const form forms[] = {{"generate_bf16", "f16", MN__WEIGHTS_BF16, 2},
                             {"generate_int8", "q8_0", MN__WEIGHTS_INT8, 34.0 / 32},
                             {"generate_4bit", "q4_0", MN__WEIGHTS_INT4, 18.0 / 32}};

static double generation_bytes(const form *f, int64_t past)
{
    double weights = (double)(read_model_layer_weights() + read_model_head_weights());
    double keys = 2.0 * READ_LAYERS * READ_KEY_HEADS * (READ_WIDTH / READ_HEADS);
    return weights * f->bytes + (double)past * keys * 2;
}

/* share: of the memory's rate around each round, of `bytes` a token. */
static pair measure_tokens(reader *r, peer *worker, const double *array, double bytes,
                           double *share)
{
    double ours[ROUNDS], theirs[ROUNDS], shares[ROUNDS];
    time_tokens(r, 4);
    for (int i = 0; i < ROUNDS; i++) {
        double before = bandwidth(array);
        ours[i] = time_tokens(r, SPOKEN);
        shares[i] = bytes * SPOKEN / ours[i] / (0.5 * (before + bandwidth(array)));
        theirs[i] = worker ? ask_seconds(worker, "generate", SPOKEN) : NAN;
    }
    *share = bench_median(shares, ROUNDS);
    return pair_of(SPOKEN, ROUNDS, ours, theirs);
}

static void measure_generation(const options *o, peer *worker, json_t *figures)
{
    static const int64_t past[] = {512, 8192};
    double ratio[3] = {INFINITY, INFINITY, INFINITY}, share = INFINITY, *array = new_array();
    printf("memory is read at %.1f GB/s\n", 1e-9 * bandwidth(array));
    for (int at = 0; at < (o->brief ? 1 : 2); at++) {
        for (int i = 0; i < 3; i++) {
            reader r;
            open_reader(&r, forms[i].weights, past[at] + 2 * SPOKEN);
            time_prompt(&r, past[at]);
            if (worker)
                json_decref(ask(worker, "weights", forms[i].peer));
            if (worker && i == 0)
                ask_seconds(worker, "prompt", past[at]);
            double of;
            pair p = measure_tokens(&r, worker, array, generation_bytes(&forms[i], past[at]), &of);
            print_pair(forms[i].figure, past[at], p, "of the bandwidth", of);
            ratio[i] = fmin(ratio[i], p.ratio);
            share = i == 0 ? fmin(share, of) : share;
            close_reader(&r);
        }
    }
    mn__free(array);
    for (int i = 0; i < 3; i++)
        bench_figure(figures, forms[i].figure, worker, ratio[i]);
    bench_figure(figures, "generate_bf16_of_bandwidth", true, share);
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* The kernel forgets the folder's files. */
static void forget(void)
{
    char **names, path[4096];
    int64_t count;
    mn_error error;
    bench_check(mn__file_list(model_folder, &names, &count, &error), &error);
    sync();
    for (int64_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", model_folder, names[i]);
        int file = open(path, O_RDONLY);
        if (file >= 0) {
            posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
            close(file);
        }
    }
    mn__free(names);
}

static double time_file(void)
{
    enum { BLOCK = 4 << 20 };
    char *block = bench_take(BLOCK);
    forget();
    double start = bench_now();
    int file = open(MNEME_SOURCE_DIR "/build/bench-read/model.safetensors", O_RDONLY);
    while (file >= 0 && read(file, block, BLOCK) > 0)
        continue;
    double seconds = bench_now() - start;
    close(file);
    mn__free(block);
    return seconds;
}

static double time_process(void)
{
    forget();
    double start = bench_now();
    pid_t process = fork();
    if (process == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        execl(MNEME_SOURCE_DIR "/build/release/mneme", "mneme", "generate", model_folder,
              "--prompt", "It was", "--tokens", "1", "--precision", "bf16", (char *)NULL);
        _exit(127);
    }
    int status = -1;
    waitpid(process, &status, 0);
    if (status) {
        fprintf(stderr, "bench read: mneme generate has failed\n");
        exit(1);
    }
    return bench_now() - start;
}

static void measure_open(json_t *figures)
{
    double opened[ROUNDS], read[ROUNDS], ratios[ROUNDS];
    time_process(); /* the first time */
    for (int i = 0; i < ROUNDS; i++) {
        opened[i] = time_process();
        read[i] = time_file();
        ratios[i] = opened[i] / read[i];
    }
    double ratio = bench_median(ratios, ROUNDS);
    printf("open             %.2f s to the first token; the file alone is read in %.2f s: %.2f\n",
           bench_median(opened, ROUNDS), bench_median(read, ROUNDS), ratio);
    bench_figure(figures, "open", true, ratio);
}

int main(int argc, char **argv)
{
    options o = {0};
    const struct {
        const char *name;
        bool *asked;
    } table[] = {{"--alone", &o.alone},
                 {"--short", &o.brief},
                 {"prompt", &o.prompt},
                 {"generate", &o.generate},
                 {"open", &o.open}};
    enum { KNOWN = sizeof table / sizeof *table };
    for (int i = 1; i < argc; i++) {
        int at = 0;
        while (at < KNOWN && strcmp(argv[i], table[at].name) != 0)
            at++;
        if (at == KNOWN) {
            fprintf(stderr,
                    "bench read: no part or option %s; there are --alone, --short, prompt, "
                    "generate and open\n",
                    argv[i]);
            return 2;
        }
        *table[at].asked = true;
    }
    if (!o.prompt && !o.generate && !o.open)
        o.prompt = o.generate = o.open = true;
    mn__threads_set(0);
    read_model_make(model_folder);
    json_t *figures = json_object();
    peer *worker = o.alone || !(o.prompt || o.generate) ? NULL : start_peer();
    if (o.prompt) {
        reader r;
        open_reader(&r, MN__WEIGHTS_BF16, LONGEST);
        measure_prompts(&o, &r, worker, figures);
        close_reader(&r);
    }
    if (o.generate)
        measure_generation(&o, worker, figures);
    peer_stop(worker);
    if (o.open)
        measure_open(figures);
    bench_figures_print(figures);
    return 0;
}
