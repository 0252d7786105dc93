#!/bin/sh
# fuzz.sh [TARGET] [SECONDS]: runs fuzz targets (tests/fuzz/fuzz_*.c) from their seeds; new inputs are
# kept in build/fuzz/corpus/TARGET, a crash in build/fuzz/crashes.
set -eu
seconds=60
only=
for argument; do
    case $argument in
    '' | *[!0-9]*) only=$argument ;;
    *) seconds=$argument ;;
    esac
done
passed=0 failed=0
mkdir -p build/fuzz/crashes
for source in tests/fuzz/fuzz_*.c; do
    [ -e "$source" ] || { echo "no fuzz targets in tests/fuzz" >&2; exit 1; }
    target=$(basename "$source" .c)
    target=${target#fuzz_}
    [ -z "$only" ] || [ "$only" = "$target" ] || continue
    corpus=build/fuzz/corpus/$target
    seeds=tests/fuzz/seeds/$target
    mkdir -p "$corpus"
    [ -d "$seeds" ] || seeds=
    log=build/fuzz/$target.log
    printf 'fuzz %s for %s s ... ' "$target" "$seconds"
    if "build/fuzz/tests/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix=build/fuzz/crashes/"$target"- "$corpus" ${seeds:+"$seeds"} >"$log" 2>&1; then
        echo "ok ($(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log") inputs)"
        passed=$((passed + 1))
    else
        echo FAILED
        tail -n 40 "$log"
        failed=$((failed + 1))
    fi
done
[ $((passed + failed)) -gt 0 ] || { echo "there is no fuzz target '$only'" >&2; exit 2; }
echo "fuzz: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
