#!/bin/sh
# test_anomalies.sh SOURCE_DIR BINARY_DIR: the program where something is wrong: a disk that is full
# in the middle, damaged files, unknown and ill-typed keys, options that contradict each other. Each
# time the documented exit status, the file or the option named, a hint; and nothing is lost.
. "$(dirname "$0")/program.sh"
export OMP_WAIT_POLICY=passive
cd "$work" || exit 1

# refuse STATUS WORDS COMMAND...: as expect; and the message is followed by a hint.
refuse() {
    expect "$@"
    if [ "$(grep -c '^ *[^ ]' err)" -lt 2 ]; then
        shift 2
        echo "$*: an error without a hint:"
        cat err
        failures=$((failures + 1))
    fi
}

# limited BLOCKS COMMAND...: files end at so many blocks of 512 bytes, where write() fails, as it
# does on a full disk. No fewer than 2: the OpenMP library of clang wants 1024 bytes of shared memory.
limited() {
    (
        # shellcheck disable=SC3045 # every sh of ours has -f
        ulimit -f "$1"
        shift
        "$@"
    )
}

# The thread sanitizer dies itself where files are limited.
disk=true
if grep -q __tsan_init "$mneme"; then
    disk=false
    echo "skipped: a full disk, which the thread sanitizer does not survive"
fi

# flip FILE OFFSET: changes one bit of a byte.
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf %03o $((byte ^ 1)))" >byte
    dd if=byte of="$1" bs=1 seek="$2" conv=notrunc 2>log
}

# same WHAT A B: two files are equal.
same() {
    cmp -s "$2" "$3" || { echo "$1: $2 and $3 differ"; failures=$((failures + 1)); }
}

mkdir texts
for i in 0 1 2 3 4 5 6 7 8 9; do
    yes "the river $i runs to the sea where some ships lie still, asleep" | head -n 30 >"texts/$i.txt"
done
cat >recipe.yaml <<'END'
model: {depth: 1, width: 16, heads: 2}
attention: {type: xl, memory: 16}
data: {corpus: [texts], prepared: data, validation: 0.2, test: 0.2, batch: 4, segment: 16}
schedule: {type: constant, rate: 1e-2}
train: {steps: 20, log_every: 5, validate_every: 10, checkpoint_every: 10, threads: 1, precision: f32}
END

# ---- A full disk ---------------------------------------------------------------------------

$disk && refuse 4 'data/.*cannot write' limited 2 "$mneme" prepare texts --out data --validation 0.2 --test 0.2
expect 0 '' "$mneme" prepare texts --out data --validation 0.2 --test 0.2
expect 0 '' "$mneme" inspect data

expect 0 'step 30' "$mneme" train recipe.yaml --run whole --set train.steps=30
expect 0 'step 20' "$mneme" train recipe.yaml --run run
cp -r run before
blocks=$(($(wc -c <run/last.safetensors) / 1024)) # half of it
$disk && refuse 4 'run/last.safetensors: cannot write' \
    limited $blocks "$mneme" train run --resume --set train.steps=30
same 'the checkpoint after a full disk' run/last.safetensors before/last.safetensors
[ -z "$(find run -name '*.tmp')" ] || { echo 'a full disk leaves unfinished files'; exit 1; }
expect 0 'whole\|step 30' "$mneme" train run --resume --set train.steps=30
"$mneme" eval whole --json | grep '"model"' >whole.model
"$mneme" eval run --json | grep '"model"' >run.model
same 'weights after a full disk and a resume' whole.model run.model

# A checkpoint at step 10, then no room for metrics: half of a line is written, and counts for nothing.
cp recipe.yaml often.yaml
lines=$((2 * $(wc -c <run/recipe.yaml) / 512 + 2))
$disk && refuse 4 'metrics.*cannot write\|events.*cannot write' limited $lines "$mneme" train often.yaml \
    --run metrics --set train.log_every=1 --set train.steps=400 --set train.checkpoint_every=0 \
    --set train.validate_every=0
$disk && expect 0 'step 400' "$mneme" train metrics --resume
! $disk || [ "$(grep -c '"kind": "train"' metrics/metrics.jsonl)" -eq 400 ] ||
    { echo 'lines of metrics were lost or doubled'; exit 1; }

rm -rf run/eval
$disk && refuse 4 'run/eval/carried.*cannot write' limited 2 "$mneme" eval run --csv --out figures
expect 0 '' "$mneme" eval run
$disk && refuse 4 'figures: cannot write' limited 2 "$mneme" eval run --out figures
$disk && refuse 4 'tokens.csv: cannot write' limited 16 "$mneme" eval run --tokens tokens.csv --out figures
$disk && refuse 4 'standard output' limited 2 "$mneme" eval run
$disk && refuse 4 'standard output' limited 2 "$mneme" generate run --tokens 3000
$disk && refuse 4 'report.html: cannot write' limited 2 "$mneme" report run
for file in figures tokens.csv run/report.html; do
    [ ! -e "$file" ] || { echo "a full disk leaves half of $file"; exit 1; }
done

# ---- Damaged files -----------------------------------------------------------------------------

damaged() {
    rm -rf hurt
    cp -r run hurt
}

damaged
flip hurt/last.safetensors $(($(wc -c <hurt/last.safetensors) - 100))
refuse 5 'hurt/last.safetensors' "$mneme" train hurt --resume --set train.steps=40
head -c 3000 run/last.safetensors >hurt/last.safetensors
refuse 5 'hurt/last.safetensors' "$mneme" train hurt --resume --set train.steps=40
same 'metrics of a refused resume' run/metrics.jsonl hurt/metrics.jsonl
flip hurt/best.safetensors $(($(wc -c <hurt/best.safetensors) - 100))
refuse 5 'hurt/best.safetensors' "$mneme" eval hurt
refuse 5 'hurt/best.safetensors' "$mneme" generate hurt
refuse 5 'hurt/best.safetensors' "$mneme" report hurt
refuse 5 'hurt/best.safetensors' "$mneme" train recipe.yaml --run other --from hurt
damaged
flip hurt/tokenizer/tokenizer.json 40
refuse 5 'hurt/tokenizer' "$mneme" eval hurt
damaged
echo 'train: {steps: 3' >hurt/recipe.yaml
refuse 3 'hurt/recipe.yaml:' "$mneme" train hurt --resume
refuse 3 'hurt/recipe.yaml:' "$mneme" eval hurt
damaged
printf '{"kind": "tra' >>hurt/metrics.jsonl # as a kill leaves it
expect 0 'hurt/report.html' "$mneme" report hurt --passage 0
expect 0 'step 40' "$mneme" train hurt --resume --set train.steps=40
expect 0 'hurt/report.html' "$mneme" report hurt --passage 0
flip hurt/metrics.jsonl 0
refuse 5 'hurt/metrics.jsonl' "$mneme" report hurt --passage 0
damaged
: >hurt/metrics.jsonl
refuse 5 'hurt/metrics.jsonl' "$mneme" train hurt --resume --set train.steps=40
flip data/shard-00000.ids 100
refuse 5 'data: shard 0' "$mneme" eval run --cleared
refuse 5 'data: shard 0' "$mneme" train recipe.yaml --run other
flip data/shard-00000.ids 100
rm -rf other
expect 0 '' "$mneme" eval run --cleared

# ---- Recipes ---------------------------------------------------------------------------------------

wrong() {
    words=$1
    shift
    refuse 3 "$words" "$mneme" train recipe.yaml --run wrong "$@"
}
wrong "did you mean 'steps'" --set train.stepz=3
wrong "did you mean 'train'" --set trane.steps=3
wrong 'out of range' --set train.steps=-5
wrong 'whole number' --set train.steps=many
wrong 'whole number' --set train.steps=2.5
wrong 'a list of 2' --set 'model.width=[1, 2]'
wrong 'a mapping of 1' --set 'model.width={a: 1}'
wrong 'expects one of' --set train.precision=f16
wrong 'true or false' --set data.shuffle=maybe
wrong 'memory' --set 'attention={type: full, memory: 16}'
wrong 'the types are' --set attention.type=xxl
wrong 'does not divide into' --set model.heads=3
wrong 'train.accumulate' --set train.accumulate=3
wrong 'only adafactor has a momentum' --set optimizer.momentum=0.9
wrong 'out of range' --set data.validation=2
wrong 'data.corpus' --set 'data={}'
wrong 'begin anew' --set train.unroll=2 --set data.reset=segment
wrong 'recompute' --set train.unroll=2 --set model.recompute=true
refuse 2 "no '='" "$mneme" train recipe.yaml --run wrong --set train.steps
[ ! -e wrong/last.safetensors ] || { echo 'a wrong recipe was trained'; exit 1; }
sed 's/depth: 1/depth: one/' recipe.yaml >typed.yaml
refuse 3 'typed.yaml:1' "$mneme" train typed.yaml --run wrong
sed 's/^schedule/schedules/' recipe.yaml >unknown.yaml
refuse 3 "unknown.yaml:4\|did you mean 'schedule'" "$mneme" train unknown.yaml --run wrong

# ---- Options that contradict each other -------------------------------------------------------------

refuse 2 'goes on with one' "$mneme" train recipe.yaml --run other --from run --resume
refuse 2 'goes on with one' "$mneme" train run --resume --from before
refuse 2 'holds a training already' "$mneme" train recipe.yaml --run run
refuse 9 'another size' "$mneme" train recipe.yaml --run other --from run --set model.width=32
refuse 4 'nowhere' "$mneme" train recipe.yaml --run other --from nowhere
refuse 4 'nowhere.yaml' "$mneme" train nowhere.yaml
refuse 9 'differs from the recipe' "$mneme" train recipe.yaml --run run --resume --set model.bias=true
refuse 2 'out of range' "$mneme" train recipe.yaml --run other --threads -1
mkdir untrained
cp -r run/recipe.yaml run/tokenizer untrained
refuse 4 'untrained: no weights yet' "$mneme" eval untrained
refuse 4 'untrained: no weights yet' "$mneme" generate untrained
refuse 4 'untrained: no weights yet' "$mneme" report untrained
refuse 2 'out of range' "$mneme" eval run --window -1
refuse 2 'out of range' "$mneme" eval run --rows 0
refuse 2 'expects one of' "$mneme" eval run --precision f16
refuse 3 'out of range' "$mneme" eval run --set attention.memory=-1
refuse 3 'out of range' "$mneme" eval run --set data.segment=0
refuse 3 'window' "$mneme" eval run --set attention.window=8
refuse 9 'another' "$mneme" eval run --set model.width=32
for option in '--top-p 1.5' '--top-p -0.1' '--min-p 2' '--top-k -1' '--tokens 0' '--tokens -3' \
    '--seed -1' '--temperature -1'; do
    # shellcheck disable=SC2086 # an option and its value
    refuse 2 'out of range' "$mneme" generate run $option
done
refuse 4 'nowhere' "$mneme" generate run --file nowhere
refuse 2 'out of range' "$mneme" report run --passage -1
refuse 2 'no split' "$mneme" report run --split x
refuse 2 'cannot begin at' "$mneme" report run --from 9999999
finish
