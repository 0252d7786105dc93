#!/bin/sh
# quality.sh DATA [OUT]: trains small models of every memory on the bytes of books and reads whole
# books with them: what each memory is worth, at equal parameters and equal tokens. `./dev quality`
# runs it. DATA holds books/pg19 in its published layout, and books/novels and math/lean, folders of texts; OUT
# (runs/quality) receives the runs and quality.md, the tables. About five hours on two cores; a run that
# is trained and a book that a run has read are not done again: it can be stopped and started at any time.
#   STEPS=20 ./dev quality DATA          for a try, into runs/quality-20
#   ONLY=compressive ./dev quality DATA  one of: xl compressive variants memorizing recurrent all-books
set -eu
mneme=build/release/mneme
fail() { echo "quality: $*" >&2; exit 1; }
[ $# -ge 1 ] || { echo "usage: ./dev quality DATA [OUT]" >&2; exit 2; }
case ${ONLY:-xl} in
xl | compressive | variants | memorizing | recurrent | all-books) ;;
*) fail "ONLY is one of xl compressive variants memorizing recurrent all-books, not $ONLY" ;;
esac
absolute() { case $1 in /*) echo "$1" ;; *) echo "${CALLER:-$PWD}/$1" ;; esac; }
data=$(absolute "$1")
for folder in books/pg19 books/novels math/lean; do
    [ -d "$data/$folder" ] || fail "there is no $data/$folder"
done
out=runs/quality${STEPS:+-$STEPS}
[ $# -lt 2 ] || out=$(absolute "$2")
books=28444,40579,41607,53345 # of PG-19's test split: of one length, so that four rows read them
table=$out/quality.md
mkdir -p "$out"

# What all train on: prepared once, so that a run goes on also where the texts are copied anew.
[ -e "$out/books/dataset.json" ] ||
    $mneme prepare "pg19=$data/books/pg19" "folder=$data/books/novels@train" --out "$out/books"

# A part is done unless ONLY names another.
part() { [ -z "${ONLY:-}" ] || [ "$ONLY" = "$1" ]; }

# train NAME RECIPE SEED [OPTIONS]: a run $out/NAME-SEED; goes on where it stopped.
train() {
    run=$out/$1-$3 recipe=recipes/$2.yaml seed=$3
    shift 3
    [ ! -e "$run/trained" ] || return 0
    if [ -e "$run/last.safetensors" ]; then
        $mneme train "$run" --resume
    else
        rm -rf "$run"
        [ -z "${STEPS:-}" ] || set -- --set "train.steps=$STEPS" --set schedule.warmup=2 "$@"
        $mneme train "$recipe" --run "$run" --set "train.seed=$seed" \
            --set "data.corpus=[]" --set "data.prepared=$out/books" \
            --set train.validate_every=0 "$@" # the weights of the last step are what is read
    fi
    touch "$run/trained"
}

# bits RUN [OPTIONS]: sets `cell` to the bits a byte over the documents read.
bits() {
    run=$out/$1
    shift
    $mneme eval "$run" --csv --out "$run/eval.csv" "$@" || fail "cannot read with $run"
    cell=$(awk -F, '$1 == "total" { printf "%.4f", $10 }' "$run/eval.csv")
    [ -n "$cell" ] || fail "$run/eval.csv has no total"
}

# put PART LINE: a line of a part's table.
put() { echo "$2" >>"$out/$1.new"; }
begin() {
    printf '\n%s\n%s\n' "$2" "$3" >"$out/$1.new"
}
finish() { mv "$out/$1.new" "$out/$1.part"; }
test_books() { bits "$@" --split test --documents "$books"; }

# compare PART NAME RECIPE [OPTIONS]: two seeds of one row.
compare() {
    part=$1 row=$2 base=$3
    shift 3
    for number in 1 2; do train "$row" "$base" $number "$@"; done
    test_books "$row-1" && first=$cell
    test_books "$row-2" && put "$part" "| $row | $first | $cell |"
}

if part xl || part compressive; then
    begin headline "| bits a byte, four books | seed 1 | seed 2 |" "|---|---|---|"
    compare headline none compressive/small-none
    compare headline xl compressive/small-xl
    compare headline compressive compressive/small
    finish headline
fi

if part compressive; then
    begin sweep "| compressed memories at evaluation | bits a byte |" "|---|---|"
    for n in 0 64 128 256 512 1024; do
        test_books compressive-1 --set attention.compressed=$n
        put sweep "| $n | $cell |"
    done
    finish sweep
fi

if part variants; then
    begin variants "| compression | bits a byte |" "|---|---|"
    variant() {
        name=$1
        shift
        train "$name" compressive/small 1 "$@"
        test_books "$name-1"
        put variants "| $name | $cell |"
    }
    variant max --set attention.compression=max
    variant conv-autoencoding --set attention.loss=autoencoding
    variant mean --set attention.compression=mean
    variant most-used --set attention.compression=most_used
    variant dilated --set attention.compression=dilated --set attention.dilations=3
    train compressive compressive/small 1
    test_books compressive-1
    put variants "| conv, attention reconstruction | $cell |"
    variant conv-through-time --set attention.loss=none --set attention.through=everything \
        --set train.unroll=2 --set data.batch=8
    finish variants
fi

if part memorizing; then
    begin memorizing "| bits a byte, four books | seed 1 | seed 2 |" "|---|---|---|"
    compare memorizing no-memory memorizing/small --set attention.memory=0
    compare memorizing memorizing memorizing/small
    finish memorizing
    # A library and this source tree, each as one document: what is said once is said again.
    find "$data/math/lean" -type f -exec cat {} + | head -n 30000 >"$out/lean.txt"
    cat src/*/*.[ch] src/*/*/*.[ch] >"$out/source.txt"
    begin slots "| slots at evaluation | books | the first of mathlib 3 | this source tree |" "|---|---|---|---|"
    for n in 0 2048 8192 32768 131072; do
        test_books memorizing-1 --set attention.memory=$n && first=$cell
        bits memorizing-1 --set attention.memory=$n --data "text=$out/lean.txt" && second=$cell
        bits memorizing-1 --set attention.memory=$n --data "text=$out/source.txt"
        put slots "| $n | $first | $second | $cell |"
    done
    finish slots
fi

if part recurrent; then
    begin recurrent "| bits a byte, four books | seed 1 | seed 2 |" "|---|---|---|"
    compare recurrent slide block_recurrent/small-slide
    compare recurrent recurrent block_recurrent/small
    finish recurrent
    begin gates "| gate | dual | single | skip |" "|---|---|---|---|"
    for gate in fixed lstm; do
        cells=
        for form in dual single skip; do
            name=$gate-$form
            [ $name != fixed-skip ] || name=recurrent # trained above
            train $name block_recurrent/small 1 --set "model.layers=[{layers: [2],
                type: block_recurrent, window: 128, states: 128, scale: 16, spread: 0.5,
                gate: $gate, form: $form}]"
            test_books "$name-1"
            cells="$cells $cell |"
        done
        put gates "| $gate |$cells"
    done
    finish gates
fi

if part all-books; then
    begin all-books "| bits a byte, all 40 test books | |" "|---|---|"
    for reader in xl-1 compressive-1 memorizing-1 recurrent-1; do
        [ -e "$out/$reader/trained" ] || continue
        bits $reader --split test
        put all-books "| $reader | $cell |"
    done
    finish all-books
fi

cat "$out"/*.part >"$table"
cat "$table"
echo
echo "the tables   $table"
