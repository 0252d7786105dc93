# shellcheck shell=sh
# build PRESET: configures and builds it in build/PRESET; configuring is silent unless it fails.
# Sourced by ./dev and its parts.
build() {
    mkdir -p "build/$1"
    cmake --preset "$1" >"build/$1/configure.log" 2>&1 || {
        cat "build/$1/configure.log"
        return 1
    }
    cmake --build --preset "$1" -- -k 0
}
