#!/bin/sh
# test_convert.sh SOURCE_DIR BINARY_DIR: mneme convert: a run and its folder say the same text; what
# is there stays; what has no counterpart is refused.
. "$(dirname "$0")/program.sh"
export OMP_WAIT_POLICY=passive
cd "$work" || exit 1

mkdir texts
for i in 0 1 2 3 4 5; do
    yes "the river $i runs to the sea where some ships lie still, asleep" | head -n 20 >"texts/$i.txt"
done
cat >recipe.yaml <<'END_OF_RECIPE'
model: {depth: 2, width: 32, heads: 4, kv_heads: 2, norm: rms, gated: true, activation: silu,
  positions: rope}
attention: {type: full}
data: {corpus: [texts], prepared: data, validation: 0.2, test: 0.2, batch: 4, segment: 32}
schedule: {type: constant, rate: 3e-3}
train: {steps: 30, validate_every: 30, checkpoint_every: 30, threads: 1, precision: f32}
END_OF_RECIPE
train() {
    run=$1
    shift
    expect 0 'step' "$mneme" train recipe.yaml --run "$run" "$@"
}

# said MODEL: what it says after a beginning, by the most probable tokens.
said() {
    "$mneme" generate "$1" --prompt 'the river' --tokens 20 --temperature 0 --json |
        sed -n 's/.*"text": //p'
}

# alike A B: both say the same.
alike() {
    if [ -z "$(said "$1")" ] || [ "$(said "$1")" != "$(said "$2")" ]; then
        echo "$1 and $2 say different texts: '$(said "$1")' and '$(said "$2")'"
        failures=$((failures + 1))
    fi
}

train llama
expect 0 'LlamaForCausalLM.*texts of up to 32 tokens' "$mneme" convert llama llama-hf --to huggingface
alike llama llama-hf
expect 0 'a pretrained model, llama' "$mneme" inspect llama-hf
for file in config.json model.safetensors tokenizer.json tokenizer_config.json; do
    [ -s "llama-hf/$file" ] || { echo "no llama-hf/$file"; failures=$((failures + 1)); }
done
expect 2 'is there already' "$mneme" convert llama llama-hf
expect 2 'add --force' "$mneme" convert llama llama-hf
expect 0 '"context": 100' "$mneme" convert llama llama-hf --force --context 100 --json
expect 0 '"max_position_embeddings": 100' cat llama-hf/config.json
expect 2 'what is to be converted' "$mneme" convert llama llama --force
expect 2 'is there already' "$mneme" convert llama-hf llama
expect 0 'LlamaForCausalLM' "$mneme" convert llama-hf again
cmp llama-hf/model.safetensors again/model.safetensors || failures=$((failures + 1))
cmp llama-hf/tokenizer.json again/tokenizer.json || failures=$((failures + 1))
cmp llama-hf/config.json again/config.json || failures=$((failures + 1))
expect 0 'LlamaForCausalLM' "$mneme" convert llama half --type bf16
expect 0 'BF16' "$mneme" inspect half/model.safetensors

train qwen --set model.attention_bias=inputs --set data.tokenizer=characters --set data.prepared=letters
expect 0 'Qwen2ForCausalLM' "$mneme" convert qwen qwen-hf
alike qwen qwen-hf

train gpt --set 'model={depth: 2, width: 32, heads: 4, bias: true, attention_bias: true, positions: learned, max_positions: 64, activation: gelu_tanh}' \
    --set data.reset=segment
expect 0 'GPT2LMHeadModel.*texts of up to 64 tokens' "$mneme" convert gpt gpt-hf
alike gpt gpt-hf
expect 2 'learned 64 positions' "$mneme" convert gpt gpt-more --context 100
expect 2 'has its own tokenizer' "$mneme" convert gpt gpt-other --tokenizer llama/tokenizer
mkdir beside
echo '{}' >beside/tokenizer_config.json
expect 2 'is there already' "$mneme" convert gpt beside

# GGUF: rotary pairs come half a head apart; it has no vocabulary with it.
expect 5 'tokenizer.ggml.model' "$mneme" convert "$source/tests/fuzz/seeds/gguf_model/llama.gguf" gguf
printf 'abab ba\n' >few.txt
expect 0 '' "$mneme" prepare few.txt --tokenizer characters --out few
expect 0 'LlamaForCausalLM' "$mneme" convert "$source/tests/fuzz/seeds/gguf_model/llama.gguf" gguf \
    --tokenizer few
expect 0 'a pretrained model, llama' "$mneme" inspect gguf

# Nothing is written for what has no counterpart.
train far --set attention.type=compressive --set 'model={depth: 1, width: 32, heads: 4}' \
    --set train.steps=2
expect 7 'far: the model has no counterpart.*compressive' "$mneme" convert far far-hf
expect 7 'differs in' "$mneme" convert far far-hf
train pieces --set data.tokenizer=words --set data.prepared=words --set train.steps=2
expect 7 'as the tokenizer words does' "$mneme" convert pieces pieces-hf
for folder in far-hf pieces-hf; do
    [ ! -e "$folder" ] || { echo "$folder was written though it is refused"; exit 1; }
done

expect 4 'nowhere' "$mneme" convert nowhere made
expect 4 'nowhere.bin' "$mneme" convert nowhere.bin made
printf 'this is no checkpoint of any kind' >strange.bin
expect 5 'no checkpoint of llama2.c' "$mneme" convert strange.bin made
expect 2 'expects one of' "$mneme" convert llama made --to gguf
expect 2 'wants MODEL' "$mneme" convert llama
[ ! -e made ] || { echo 'something was written all the same'; exit 1; }
finish
