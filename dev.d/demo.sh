#!/bin/sh
# demo.sh [--text FILE]: trains a small Transformer-XL for about two minutes, measures what its memory
# is worth, lets it write, and makes the report. `./dev demo` runs it, with CALLER the folder that the
# FILE is relative to.
set -eu
mneme=build/release/mneme
recipe=recipes/demo.yaml
SECONDS_TO_TRAIN=110

text=
case ${1:-} in
--text)
    [ $# -eq 2 ] || { echo "./dev demo --text FILE" >&2; exit 2; }
    case $2 in /*) text=$2 ;; *) text=${CALLER:-.}/$2 ;; esac
    [ -r "$text" ] || { echo "./dev demo: cannot read $text" >&2; exit 4; }
    ;;
'') ;;
*) echo "./dev demo [--text FILE]" >&2; exit 2 ;;
esac

# run: a folder of its own for each corpus, made anew by each demo.
run=runs/demo
prompt='static '
set --
if [ -n "$text" ]; then
    run=runs/demo-$(basename "$text" | tr -c 'A-Za-z0-9\n' '-')
    prompt='The '
    set -- --set "data.corpus=[\"text=$text\"]"
fi
rm -rf "$run"

# A first few steps say how many two minutes hold on this machine.
echo "demo: how fast is this machine?"
steps=12
result=$($mneme train $recipe --run "$run" --set train.steps=$steps \
    --set schedule.warmup=1 --set train.validate_every=0 --json "$@")
seconds=$(echo "$result" | sed -n 's/^  "seconds": *\([0-9.]*\).*/\1/p')
steps=$(awk -v seconds="$seconds" -v steps=$steps -v whole=$SECONDS_TO_TRAIN 'BEGIN {
    n = int(whole * steps / seconds / 10) * 10
    print (n < 60 ? 60 : n > 3000 ? 3000 : n)
}')
rm -rf "$run"

echo "demo: training for $steps steps, about two minutes"
$mneme train $recipe --run "$run" --set train.steps="$steps" "$@"

echo
echo "demo: the test text, with the state carried through it"
$mneme eval "$run" --out "$run/eval-carried.txt"
$mneme eval "$run" --cleared --out "$run/eval-cleared.txt"
sed -n '/^document/p;/^all/p' "$run/eval-carried.txt"
echo "demo: the same, with the state cleared before each segment"
sed -n '/^all/p' "$run/eval-cleared.txt"

mkdir -p "$run/samples"
$mneme generate "$run" --prompt "$prompt" --tokens 400 --top-p 0.95 >"$run/samples/demo.txt"
echo
echo "demo: it goes on after '$prompt':"
sed 's/^/    /' "$run/samples/demo.txt"
$mneme report "$run" >/dev/null

echo
echo "the run      $PWD/$run"
echo "the sample   $PWD/$run/samples/demo.txt"
echo "the figures  $PWD/$run/eval-carried.txt, eval-cleared.txt beside it"
echo "the report   file://$PWD/$run/report.html"
