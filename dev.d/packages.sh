# shellcheck shell=sh
# need_packages GROUP...: installs what the groups of `packages` name and the machine lacks.
# Sourced by ./dev. With everything present it calls no package manager and no network.

packages_release() {
    (
        . /etc/os-release
        echo "$ID-$VERSION_ID"
    )
}

# packages_of GROUP...: the names that this release needs.
packages_of() {
    awk -v groups=" $* " -v release="@$(packages_release)" '
        { sub(/#.*/, "") }
        NF && index(groups, " " $1 " ") {
            names = ""; limited = 0; mine = 0
            for (i = 2; i <= NF; i++)
                if ($i ~ /^@/) { limited = 1; if ($i == release) mine = 1 }
                else names = names $i "\n"
            if (!limited || mine) printf "%s", names
        }' packages | sort -u
}

need_packages() {
    # Another system has other names: the build says what it misses, and nothing is installed.
    command -v dpkg-query >/dev/null || return 0
    missing=
    for name in $(packages_of "$@"); do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) || status=
        [ "$status" = installed ] || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "./dev: these packages are missing, and there is no sudo:$missing" >&2
            echo "       as root: apt-get install$missing" >&2
            return 1
        }
        sudo=sudo
    fi
    echo "./dev: installing with apt-get${sudo:+ (sudo)}:$missing"
    # shellcheck disable=SC2086 # words, on purpose
    {
        $sudo apt-get update -q &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
                $missing </dev/null
    } || {
        echo "./dev: apt-get failed; the packages needed are:$missing" >&2
        return 1
    }
}
