#!/bin/sh
# test_install.sh SOURCE_DIR BINARY_DIR: installs into an empty prefix, then builds and runs a small
# C program against it, once found by CMake and once by pkg-config. The whole archive is linked, so
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

cat >"$work/user/main.c" <<'END'
#include <mneme.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    puts(mn_version());
    return strcmp(mn_version(), MN_VERSION) != 0;
}
END
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
"$work/user/build/user"

PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name mneme.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # words, on purpose
"$compiler" "$work/user/main.c" -o "$work/user/by_pkgconfig" \
    -Wl,--whole-archive "$(find "$work/prefix" -name libmneme.a)" -Wl,--no-whole-archive \
    $(pkg-config --cflags --libs mneme)
"$work/user/by_pkgconfig"
