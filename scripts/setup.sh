#!/usr/bin/env bash
# Sets up what the tests, the demo and the proxy need, and does nothing when it is all there.
#
# .venvs/<minor>   the package with its development tools, on the oldest and the newest supported Python found
# .venvs/oldest, .venvs/newest   links to those two
# .venvs/sdk-*     the Python SDKs, which cannot share an environment (both install a package `customerio`)
# .venvs/prometheus   Prometheus and promtool, unless they are installed: unpacked, so that no service is started
# .venvs/redis     redis-server with the libraries it needs, unless it is installed: unpacked likewise
# tests/sdks/node/node_modules   the Node SDK
#
# `run` sets up the newest Python alone, `demo` an SDK beside it, `tests` (the default) all.
#
# Each finished part leaves a stamp of what it was made from, so an unchanged part costs nothing.
# An SDK or a program that cannot be installed is skipped with one line; its tests are then skipped too.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly scope=${1:-tests}

readonly oldest_minor=12 newest_minor=14 # what mitmproxy 12.2 runs on
readonly venvs=.venvs log=.venvs/setup.log

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# A stamp names the place too: environments hold absolute paths.
stamp_of() { { pwd; printf '%s\n' "$1"; cat "${@:2}"; } | cksum; }
is_fresh() { [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$2" ]; }

quietly() { "$@" >>"$log" 2>&1; }

# must WHAT COMMAND...: without it there is nothing to go on with.
must() {
    local what=$1
    shift
    quietly "$@" || { tail -n 15 "$log" >&2; fail "$what failed"; }
}

interpreters() {
    compgen -c python3. | grep -E '^python3\.[0-9]+$' | sort -u || true
    echo python3
    if command -v pyenv >/dev/null; then ls "$(pyenv root)"/versions/*/bin/python3 2>/dev/null || true; fi
    if command -v uv >/dev/null; then uv python list --only-installed 2>/dev/null | awk '{print $2}' || true; fi
}

# Prints "<minor> <full version> <path>" if this is a released, supported Python that can make environments.
describe() {
    "$1" - "$oldest_minor" "$newest_minor" 2>/dev/null <<'PYTHON' || true
import sys
import ensurepip, venv
low, high = map(int, sys.argv[1:])
version = sys.version_info
if version[0] == 3 and low <= version[1] <= high and version[3] == "final":
    print("3.%d %s %s" % (version[1], sys.version.split()[0], sys.executable))
PYTHON
}

# make_venv FOLDER PYTHON VERSION: an environment of exactly this Python, new if need be.
make_venv() {
    [ "$("$1/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null)" = "$3" ] && return
    rm -rf "$1"
    quietly "$2" -m venv "$1"
}

install_package() { # MINOR VERSION PYTHON
    local folder=$venvs/$1 stamp
    stamp=$(stamp_of "$2" pyproject.toml)
    is_fresh "$folder" "$stamp" && return
    say "installing cio-proxy and its tools for Python $2 ($3)"
    must "making $folder" make_venv "$folder" "$3" "$2"
    must "installing pip" "$folder/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' # the first with --group
    must "installing cio-proxy" "$folder/bin/python" -m pip install --quiet --editable . --group dev
    echo "$stamp" >"$folder/.stamp"
}

install_python_sdk() { # NAME MINOR VERSION
    local folder=$venvs/sdk-$1 requirements=tests/sdks/python/$1.txt stamp
    stamp=$(stamp_of "$3" "$requirements")
    is_fresh "$folder" "$stamp" && return
    say "installing the Python SDK of $requirements"
    if make_venv "$folder" "$venvs/$2/bin/python" "$3" &&
        quietly "$folder/bin/python" -m pip install --quiet --requirement "$requirements"; then
        echo "$stamp" >"$folder/.stamp"
    else
        rm -rf "$folder"
        say "SKIPPED the Python SDK of $requirements: it could not be installed (see $log)"
    fi
}

install_node() {
    if command -v node >/dev/null && command -v npm >/dev/null; then return; fi
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing nodejs and npm with apt-get"
    quietly apt-get update &&
        quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs npm
}

install_node_sdk() {
    local folder=tests/sdks/node stamp
    if ! install_node; then
        say "SKIPPED the Node SDK: install Node.js 20 or newer, with npm"
        return
    fi
    stamp=$(stamp_of "$(node --version)" $folder/package.json $folder/package-lock.json)
    is_fresh $folder/node_modules "$stamp" && return
    say "installing the Node SDK of $folder/package.json"
    if quietly npm ci --prefix $folder --no-audit --no-fund; then
        echo "$stamp" >$folder/node_modules/.stamp
    else
        rm -rf $folder/node_modules
        say "SKIPPED the Node SDK: npm ci failed (see $log)"
    fi
}

unpack_debian() { # FOLDER PACKAGE...
    local folder=$1 package
    shift
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then quietly apt-get update || return 1; fi
    mkdir -p "$folder" && (cd "$folder" && apt-get download "$@") >>$log 2>&1 || return 1
    for package in "$folder"/*.deb; do quietly dpkg-deb --extract "$package" "$folder" || return 1; done
    rm "$folder"/*.deb
}

install_prometheus() {
    local folder=$venvs/prometheus
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then return; fi
    [ -f $folder/.stamp ] && return
    say "unpacking Debian's package prometheus into $folder"
    if unpack_debian $folder prometheus && quietly $folder/usr/bin/prometheus --version &&
        quietly $folder/usr/bin/promtool --version; then
        touch $folder/.stamp
    else
        rm -rf $folder
        say "SKIPPED Prometheus: install prometheus and promtool (see $log)"
    fi
}

install_redis() {
    local folder=$venvs/redis libraries
    if command -v redis-server >/dev/null; then return; fi
    [ -f $folder/.stamp ] && return
    say "unpacking Debian's package redis-server into $folder"
    if unpack_debian $folder redis-server redis-tools libjemalloc2 liblzf1 &&
        libraries=$(printf '%s:' $folder/usr/lib/*-linux-gnu) &&
        quietly env LD_LIBRARY_PATH="$libraries" $folder/usr/bin/redis-server --version; then
        touch $folder/.stamp
    else
        rm -rf $folder
        say "SKIPPED Redis: install redis-server (see $log)"
    fi
}

# The first interpreter found of each minor version, oldest first.
found=$(interpreters | while read -r python; do describe "$python"; done | sort -t . -k 2,2n -s | awk '!seen[$1]++')
[ -n "$found" ] || fail "no Python 3.$oldest_minor to 3.$newest_minor with venv found on PATH, in pyenv or in uv: install one, for example with 'pyenv install 3.13' or 'apt-get install python3.13-venv'"
read -r first first_version first_python <<<"$(head -n 1 <<<"$found")"
read -r last last_version last_python <<<"$(tail -n 1 <<<"$found")"

mkdir -p $venvs
: >$log
[ -e $venvs/newest ] || say "the first set-up takes a minute or two"
install_package "$last" "$last_version" "$last_python"
ln -sfn "$last" $venvs/newest
if [ "$scope" != run ]; then
    install_node_sdk
    install_python_sdk track "$last" "$last_version"
fi
if [ "$scope" = tests ]; then
    install_package "$first" "$first_version" "$first_python"
    ln -sfn "$first" $venvs/oldest
    install_python_sdk cdp "$last" "$last_version"
    install_prometheus
    install_redis
fi
if [ "$scope" = tests ] && [ "$first" != "$last" ]; then
    say "using Python $first_version and $last_version"
else
    say "using Python $last_version"
fi
