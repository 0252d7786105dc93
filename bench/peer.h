/* A peer of a benchmark: a worker program in Python that reads a line, works, and
 * answers with one JSON line, so that both sides can be timed in turn. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <jansson.h>
#include <stdbool.h>

typedef struct peer peer;

/* Starts `python script`; the interpreter is $MNEME_BENCH_PYTHON, or that of an
 * environment of the benchmarks' own in build/bench-venv, which is made on first
 * use with the packages of bench/requirements.txt. NULL, with the reason on
 * stderr, where that fails. */
peer *peer_start(const char *script);
/* Sends a line, waits for the answer; NULL where the worker has ended or does
 * not answer in JSON. The caller decrefs. */
json_t *peer_ask(peer *worker, const char *line);
void peer_stop(peer *worker); /* NULL is fine */

#endif
