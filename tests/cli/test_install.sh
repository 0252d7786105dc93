#!/bin/sh
# test_install.sh SOURCE_DIR BINARY_DIR: installs into an empty prefix, then builds and runs a small
# C program against it, example.c, once found by CMake and once by pkg-config. The whole archive is linked, so
# that a dependency which either of them forgets to name is an error here.
set -eu
build=$2
if grep -q '^MNEME_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    echo "skipped: a library with a sanitizer in it is not one to install"
    exit 77
fi
work=$build/test_install
rm -rf "$work"
mkdir -p "$work/user"
cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"

# The use that the header shows is the example's, line by line, but for its names of files.
cp "$1/tests/cli/example.c" "$work/user/main.c"
sed -n 's/^ \*     *//p' "$work/prefix/include/mneme.h" |
    sed 's/"SmolLM2-135M-Instruct"/path/; s/"book.mns"/file/' >"$work/shown"
[ "$(wc -l <"$work/shown")" -gt 15 ]
while IFS= read -r line; do
    grep -qF -e "$line" "$work/user/main.c" || { echo "example.c lacks: $line"; exit 1; }
done <"$work/shown"

# A model for it to read with: a run of two steps.
i=0
while [ $i -lt 400 ]; do
    echo "Line $i: the river runs to the sea."
    i=$((i + 1))
done >"$work/book.txt"
cat >"$work/recipe.yaml" <<END
model: {depth: 1, width: 16, heads: 2}
attention: {type: xl, memory: 16}
data: {corpus: ["text=$work/book.txt@train"], segment: 16, batch: 2, tokenizer: bytes}
train: {steps: 2, threads: 1, validate_every: 0}
END
"$work/prefix/bin/mneme" train "$work/recipe.yaml" --run "$work/run"

# runs PROGRAM: it reads the book, keeps it, and says something.
runs() {
    rm -f "$work/book.mns"
    "$1" "$work/run" "$work/book.txt" "$work/book.mns" >"$work/said" 2>"$work/progress"
    [ -s "$work/said" ] && [ -s "$work/book.mns" ] && [ -s "$work/progress" ]
    "$work/prefix/bin/mneme" inspect "$work/book.mns" | grep -q 'mneme session'
}

cat >"$work/user/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.24)
project(user LANGUAGES C)
find_package(mneme 0.1 REQUIRED)
add_executable(user main.c)
target_link_libraries(user PRIVATE "$<LINK_LIBRARY:WHOLE_ARCHIVE,mneme::mneme>")
END
compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")

cmake -S "$work/user" -B "$work/user/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DCMAKE_C_COMPILER="$compiler" >"$work/user/configure.log"
cmake --build "$work/user/build"
runs "$work/user/build/user"

PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name mneme.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # words, on purpose
"$compiler" "$work/user/main.c" -o "$work/user/by_pkgconfig" \
    -Wl,--whole-archive "$(find "$work/prefix" -name libmneme.a)" -Wl,--no-whole-archive \
    $(pkg-config --cflags --libs mneme)
runs "$work/user/by_pkgconfig"
