# shellcheck shell=sh
# build PRESET [TARGET]: configures it and builds all of it, or TARGET, in build/PRESET; configuring
# is silent unless it fails.
# Sourced by ./dev and its parts.
build() {
    mkdir -p "build/$1"
    cmake --preset "$1" >"build/$1/configure.log" 2>&1 || {
        cat "build/$1/configure.log"
        return 1
    }
    cmake --build --preset "$1" ${2:+--target "$2"} -- -k 0
}
