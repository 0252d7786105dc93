#!/bin/sh
# check.sh [NAME...]: the form of the source, judged by machines. Each check prints one line, and on
# failure what is wrong where. `./dev check` runs them all.
# shellcheck disable=SC2016 # awk and the inner shells expand what stands in single quotes
set -eu
. dev.d/packages.sh
. dev.d/build.sh

CLANG_FORMAT_VERSION=14.0.6
MOST_LINES=1200

# The folders of src/, highest first: a file includes from its own folder and from those below.
LAYERS="cli serve api train eval reader optim model attention nn op tensor kernel data text base"

# sources NAME...: the project's files whose names match, as paths from the root.
sources() {
    names=
    for name; do
        names="$names${names:+ -o }-name $name"
    done
    set -f
    # shellcheck disable=SC2086 # words, on purpose
    find . \( -name .git -o -path './build*' -o -path ./runs -o -path './.bench' \) -prune \
        -o -type f \( $names \) -print | sed 's|^\./||' | sort
    set +f
}

c_sources() {
    sources '*.c' '*.h' '*.cc' '*.cu'
}

# Versions of clang-format disagree, so one judges: the system's clang-format-14, else PyPI's.
clang_format() {
    if ! command -v clang-format-14; then
        venv=build/clang-format
        if [ ! -x $venv/bin/clang-format ]; then
            echo "./dev: clang-format $CLANG_FORMAT_VERSION from PyPI into $venv" >&2
            python3 -m venv $venv >&2 &&
                $venv/bin/pip install -q "clang-format==$CLANG_FORMAT_VERSION" >&2 || return 1
        fi
        echo $venv/bin/clang-format
    fi
}

check_format() {
    tool=$(clang_format) || return 1
    case $($tool --version) in
    *" $CLANG_FORMAT_VERSION"*) ;;
    *) echo "clang-format $CLANG_FORMAT_VERSION is wanted, not $($tool --version)"; return 1 ;;
    esac
    c_sources | xargs "$tool" --dry-run -Werror >build/format.log 2>&1 && return 0
    awk -F: '/error: code should be/ { places[$1]++; next } /error:/ { print }
             END { for (file in places) print file ": " places[file] " lines" }' build/format.log
    echo "./dev check --fix-format mends them"
    return 1
}

fix_format() {
    c_sources | xargs "$(clang_format)" -i
}

# Every warning of the whole tree, tests and benchmarks with it, is an error.
check_warnings() {
    build werror
}

check_layers() {
    c_sources | grep -E '^(src|include)/' | xargs awk -v layers="$LAYERS" '
        BEGIN { n = split(layers, names, " "); for (i = 1; i <= n; i++) height[names[i]] = n - i + 1 }
        !/^[ \t]*#[ \t]*include[ \t]*"/ { next }
        {
            split($0, quoted, "\""); path = quoted[2]
            split(FILENAME, parts, "/"); split(path, target, "/")
            from = parts[2]; to = target[1]
            why = ""
            if (path == "mneme.h" && parts[1] != "include") why = ""
            else if (parts[1] == "include") why = "the public header stands alone"
            else if (path !~ /\.h$/) why = "only headers are included"
            else if (!(from in height)) why = "the folder src/" from " has no place in LAYERS"
            else if (!(to in height)) why = "write the path from src/, as in \"base/error.h\""
            else if (height[to] > height[from]) why = to " lies above " from
            if (why != "") { printf "%s:%d: \"%s\": %s\n", FILENAME, FNR, path, why; bad = 1 }
        }
        END { exit bad }'
}

check_headers() {
    flags="-std=c17 -D_GNU_SOURCE -Iinclude -Isrc -Itests -fopenmp -fsyntax-only"
    flags="$flags -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror"
    flags="$flags -DMN__LEVEL=baseline -DMN__LEVEL_baseline=1"
    sources '*.h' | xargs -P "$(nproc)" -I '{}' sh -c 'echo "#include \"$PWD/$1\"" | ${CC:-cc} $2 -x c -' \
        header '{}' "$flags" || return 1
    echo '#include "mneme.h"' | ${CXX:-c++} -Wall -Wextra -Werror -Iinclude -fsyntax-only -x c++ -
}

# What gcc alone understands would break the sanitizers and the fuzzing, which are clang's.
check_clang() {
    cmake --preset asan >build/asan.log 2>&1 || { cat build/asan.log; return 1; }
    # Sources that the build makes are not there yet; they are data.
    sed -n 's/^ *"command": "\(.*\)",*$/\1/p' build/asan/compile_commands.json |
        grep -v ' -c [^ ]*/build/asan/' |
        sed 's/\\"/"/g; s/\\\\/\\/g; s/ -o [^ ]* -c / -fsyntax-only -Werror /' >build/asan/commands
    cd build/asan
    tr '\n' '\0' <commands | xargs -0 -n 1 -P "$(nproc)" sh -c
}

# A static library hides nothing, so names are the fence: the public functions are mn_ and stand in
# the public header, what the library's files share is mn__. (Mangled C++ inlines are weak.)
check_symbols() {
    build release || return 1
    nm -A -g --defined-only build/release/src/libmneme.a | awk -v header=include/mneme.h '
        BEGIN { while ((getline line < header) > 0) text = text line "\n" }
        $(NF - 1) ~ /^[TDBRSGC]$/ {
            name = $NF; why = ""
            if (name ~ /^mn__/) next
            if (name !~ /^mn_/) why = "begins with neither mn_ nor mn__"
            else if (text !~ ("[^a-z0-9_]" name "\\(")) why = "is public by name, but not in " header
            if (why != "") { split($1, file, ":"); print file[2] ": " name " " why; bad = 1 }
        }
        END { exit bad }'
}

check_lengths() {
    c_sources | xargs awk -v most="$MOST_LINES" '
        FNR > most && !(FILENAME in long) { long[FILENAME]; print FILENAME ": over " most " lines" }
        END { for (file in long) exit 1 }'
}

check_spelling() {
    sources '*.c' '*.h' '*.cc' '*.cu' '*.md' '*.sh' '*.py' '*.cmake' '*.txt' '*.yaml' dev packages |
        grep -v -e '^tests/fuzz/seeds/' -e '/fixtures/' | xargs codespell -I dev.d/spelling.txt
}

check_scripts() {
    { echo dev .ci/run; sources '*.sh'; } | xargs shellcheck -x -P SCRIPTDIR
}

CHECKS="format layers lengths spelling scripts headers clang warnings symbols"

if [ "${1:-}" = --fix-format ]; then
    need_packages check
    fix_format
    exit
fi
need_packages build test check
[ -z "${CI:-}" ] || need_packages documents
log=build/check.log
mkdir -p build
passed=0 failed=0
# shellcheck disable=SC2086 # words, on purpose
[ $# -gt 0 ] || set -- $CHECKS
for name; do
    case " $CHECKS " in *" $name "*) ;; *) echo "the checks are: $CHECKS" >&2; exit 2 ;; esac
    printf '%-10s' "$name"
    if ("check_$name") >$log 2>&1 </dev/null; then
        echo ok
        passed=$((passed + 1))
    else
        echo FAILED
        grep -v -e '^\[[0-9/]*\] Building' -e '^\[[0-9/]*\] Linking' $log | head -n 100 | sed 's/^/    /'
        failed=$((failed + 1))
    fi
done
echo "check: $passed passed, $failed failed"
[ $failed -eq 0 ]
