# shellcheck shell=sh
# What tests of the program share. Sourced with $1 the source folder and $2 the build's: sets mneme,
# work (an empty folder) and source.
set -eu
# shellcheck disable=SC2034 # for those who source this
source=$1
# shellcheck disable=SC2034 # likewise
mneme=$2/mneme
work=$2/tests/cli/$(basename "$0" .sh)
rm -rf "$work"
mkdir -p "$work"
failures=0

# expect STATUS WORDS COMMAND...: the exit status; and that what it printed contains WORDS.
expect() {
    want=$1 words=$2
    shift 2
    got=0
    "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
    if [ "$got" -ne "$want" ]; then
        echo "$*: exit status $got, not $want"
        cat "$work/out" "$work/err"
        failures=$((failures + 1))
    elif ! cat "$work/out" "$work/err" | grep -q -e "$words"; then
        echo "$*: does not say '$words' but:"
        cat "$work/out" "$work/err"
        failures=$((failures + 1))
    fi
}

finish() {
    [ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
}
