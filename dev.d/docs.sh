#!/bin/sh
# docs.sh: writes what the program says about itself into build/docs: the man page, and every verb
# with its options and every key of a recipe as Markdown.
# shellcheck disable=SC2016 # the backquotes are Markdown
set -eu
mneme=build/release/mneme
out=build/docs
mkdir -p $out
$mneme man >$out/mneme.1
{
    echo "# mneme, verb by verb"
    printf '\n```\n%s\n```\n' "$($mneme help)"
    $mneme help | sed -n '/^verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p' | while read -r verb; do
        printf '\n## %s\n\n```\n%s\n```\n' "$verb" "$($mneme help "$verb")"
    done
    printf '\n## Recipes\n\n```\n%s\n```\n' "$($mneme help recipe)"
} >$out/commands.md
echo "written: $out/mneme.1 (man -l), $out/commands.md"
