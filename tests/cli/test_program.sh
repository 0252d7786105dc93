#!/bin/sh
# test_program.sh SOURCE_DIR BINARY_DIR: the frame of the program: help, errors with hints and exit
# statuses, prepare, inspect, completions, the man page.
. "$(dirname "$0")/program.sh"

expect 2 'mneme help' "$mneme"
expect 0 'usage: mneme VERB' "$mneme" help
expect 0 'usage: mneme VERB' "$mneme" --help
expect 0 'mneme 0' "$mneme" --version
expect 2 'did you mean prepare' "$mneme" prepar
expect 2 'did you mean inspect' "$mneme" help inspct

# Every verb has a page, and every page names its options.
for verb in $("$mneme" help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    expect 0 "usage: mneme $verb" "$mneme" help "$verb"
    expect 0 "usage: mneme $verb" "$mneme" "$verb" --help
done

# A recipe's keys: of each section, of each attention type, of the corpus.
for words in '^model:' 'logit_scale' 'attention: type: xl' 'same_length' 'full|window|xl' '^data:' \
    'train_vocab' '^optimizer:' 'factor_from' '^schedule:' 'warmup' '^train:' 'validate_every'; do
    expect 0 "$words" "$mneme" help recipe
done
expect 0 'same_length' "$mneme" man
if "$mneme" help recipe | grep -q '^  out '; then
    echo "help recipe: \`out\` is prepare's alone"
    exit 1
fi

# The command line.
expect 2 'did you mean --train-vocab' "$mneme" prepare --train-vocabb 3
expect 2 'wants a value' "$mneme" prepare --out
expect 2 'whole number' "$mneme" prepare --train-vocab three
expect 2 'two dashes' "$mneme" prepare -o x
expect 2 'does not know what to do' "$mneme" inspect a b
expect 2 'wants PATH' "$mneme" inspect
expect 2 'does not know' "$mneme" help prepare extra
expect 4 'no such' "$mneme" inspect -- --strange
expect 2 'wants a folder' "$mneme" prepare "$work"
expect 2 'something to read' "$mneme" prepare --out "$work/data"

# Data sets.
printf 'one two three\n' >"$work/text"
expect 4 'nowhere' "$mneme" prepare "$work/nowhere" --out "$work/data"
expect 0 'bytes' "$mneme" prepare "$work/text" --out="$work/data"
expect 0 'nothing was done' "$mneme" prepare "$work/text" --out "$work/data"
expect 9 'other settings' "$mneme" prepare "$work/text" --out "$work/data" --tokenizer characters
expect 0 '"tokens": 14' "$mneme" inspect --json "$work/data"
expect 0 '3' "$mneme" inspect "$work/data"
expect 0 '14' "$mneme" inspect "$work/data" --verify
printf 'X' | dd of="$work/data/shard-00000.ids" bs=1 conv=notrunc 2>"$work/err"
expect 0 '14' "$mneme" inspect "$work/data"
expect 5 'other ids than were written' "$mneme" inspect "$work/data" --verify
expect 2 'is for data sets' "$mneme" inspect "$source/tests/golden/xl_pre.safetensors" --verify

# Files.
expect 0 'tensors' "$mneme" inspect "$source/tests/golden/xl_pre.safetensors"
expect 0 '"kind": "safetensors"' "$mneme" inspect "$source/tests/golden/xl_pre.safetensors" --json
head -c 1000 "$source/tests/golden/xl_pre.safetensors" >"$work/cut.safetensors"
expect 5 'cut.safetensors' "$mneme" inspect "$work/cut.safetensors"
expect 7 'inspect reads' "$mneme" inspect "$work/text"

# Pretrained models.
pretrained="$source/tests/golden/pretrained"
expect 0 'a pretrained model, qwen2' "$mneme" inspect "$pretrained/qwen2"
expect 0 'layers 1 to 2: .window, feed_forward' "$mneme" inspect "$pretrained/qwen2"
expect 0 '"family": "phi3"' "$mneme" inspect "$pretrained/phi3" --json
expect 0 'products in int8, 11 tensors' "$mneme" inspect "$pretrained/llama" --weights int8
expect 0 'embeddings in BF16, 1 tensor,' "$mneme" inspect "$pretrained/smollm3" --weights int4
expect 0 '"form": "bf16"' "$mneme" inspect "$pretrained/llama" --weights bf16 --json
expect 0 'products in f16, 11 tensors' "$mneme" inspect "$pretrained/llama" --weights f16
expect 0 'products in int4, 9 tensors' "$mneme" inspect "$pretrained/llama" --weights int4
expect 0 'products in int8, 2 tensors, [0-9,]* bytes (rows that are no blocks of 32: layers.0' \
    "$mneme" inspect "$pretrained/llama" --weights int4
expect 0 'layers.1.feed_forward.down.weight' "$mneme" inspect "$pretrained/llama" --weights int4 --json
expect 0 '"state_bytes": 4096' "$mneme" plan "$pretrained/llama" --tokens 16 --json
expect 0 '"state_bytes": 2048' "$mneme" plan "$pretrained/llama" --tokens 16 --json --cache bf16
expect 0 '"state_bytes": 4352' "$mneme" plan "$pretrained/llama" --tokens 16 --json --cache int8
expect 0 '"weights_bytes"' "$mneme" plan "$pretrained/llama" --weights int4 --json
expect 0 '"parameters": 6432' "$mneme" plan "$source/tests/fuzz/seeds/gguf_model/llama.gguf" --json
expect 0 'Q4_0' "$mneme" inspect "$source/tests/fuzz/seeds/gguf_model/llama.gguf"
expect 3 'for products in it' "$mneme" generate "$pretrained/llama" --weights bf16
expect 0 'a session' "$mneme" plan "$pretrained/llama" --tokens 100
expect 0 '36 more than the window of 64' "$mneme" plan "$pretrained/llama" --tokens 100
expect 0 '"tokens": 64' "$mneme" plan "$pretrained/llama" --json
expect 2 'name the page: --out' "$mneme" report "$source/tests/fuzz/seeds/gguf_model/llama.gguf"
expect 9 'learned 50 positions' "$mneme" plan "$pretrained/gpt2" --tokens 51
expect 2 'set is for recipes' "$mneme" plan "$pretrained/llama" --set model.depth=3
expect 2 'for pretrained models' "$mneme" plan "$source/recipes/tinyshakespeare.yaml" --tokens 9
expect 4 'tokenizer.json' "$mneme" generate "$pretrained/llama"
mkdir "$work/model"
sed 's/llama/mamba/' "$pretrained/llama/config.json" >"$work/model/config.json"
expect 7 'known here are llama' "$mneme" inspect "$work/model"

# Shells and the man page.
"$mneme" completion bash >"$work/bash"
expect 0 train-vocab bash -c "source '$work/bash'; COMP_WORDS=(mneme prepare --tr); COMP_CWORD=2; _mneme
    echo \"\$COMPREPLY\""
expect 2 'bash, zsh and fish' "$mneme" completion csh
expect 0 'SH EXIT STATUS' "$mneme" man

# A full disk is an error, not silence.
if [ -w /dev/full ]; then
    status=0
    "$mneme" help >/dev/full 2>"$work/err" || status=$?
    [ "$status" -eq 4 ] || { echo "help to a full disk: exit status $status"; exit 1; }
fi
finish
