#!/bin/sh
# What a machine needs, each part only if it is missing:  setup.sh venv | data | browser
set -eu
cd "$(dirname "$0")/../.."
py=.venv/bin/python

fail() { printf '%s\n' "$@" >&2; exit 1; }

apt() { # install Debian packages where that is allowed; quiet unless it fails
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else return 1; fi
    log=$(mktemp)
    lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -60 2>/dev/null)
    echo "installing $* with apt-get"
    { { [ "$lists" ] || $sudo apt-get -qq update; } && DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends "$@"; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}

compiler() { # annoy ships as source
    printf '#include <Python.h>\n' | c++ -x c++ -fsyntax-only -I"$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')" - 2>/dev/null
}

venv() {
    stamp=.venv/installed   # says where: an environment that was moved or copied is made anew
    place=$(cat $stamp 2>/dev/null || pwd -P)
    [ "$place" = "$(pwd -P)" ] && $py -m pip --version >/dev/null 2>&1 || rm -rf .venv
    [ -e $stamp ] && [ $stamp -nt settings.ini ] && [ $stamp -nt setup.py ] && [ $stamp -nt .github/constraints.txt ] && return
    command -v python3 >/dev/null || apt python3 g++ python3-dev python3-venv || fail "Python 3.11 or newer is needed: install python3."
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || command -v uv >/dev/null ||
        fail "Python 3.11 or newer is needed; python3 here is $(python3 -V). Install a newer one, or uv, which brings its own."
    compiler || apt g++ python3-dev python3-venv ||
        fail "A C++ compiler and Python's headers are needed: apt-get install g++ python3-dev python3-venv"
    echo "installing into .venv"
    [ -x $py ] || {
        if command -v uv >/dev/null; then uv venv -q --seed --python '>=3.11' .venv
        else python3 -m venv .venv >/dev/null 2>&1 || { rm -rf .venv; apt python3-venv && python3 -m venv .venv; } ||
            fail "python3 -m venv does not work here: apt-get install python3-venv"
        fi
    }
    uv=$(command -v uv) || { $py -m pip install -q --disable-pip-version-check uv 2>/dev/null && uv=.venv/bin/uv; } || uv=
    export UV_SYSTEM_CERTS=true   # trust what this machine trusts
    wanted="-q -c .github/constraints.txt -e .[dev]"
    { [ "$uv" ] && VIRTUAL_ENV=.venv "$uv" pip install $wanted; } || $py -m pip install --disable-pip-version-check $wanted
    [ -e .git ] && .venv/bin/nbdev_install_hooks >/dev/null 2>&1 || true
    pwd -P >$stamp
}

data() {
    load() { $py nbs/_tools/check_data.py; }
    said=$(load 2>&1) && return
    case "${FASHION_MNIST_DIR:-}$said" in
        "Fashion-MNIST was not found"*) apt dataset-fashion-mnist && load || fail "$said" ;;
        *) fail "$said" ;;
    esac
}

browser() { # the tests say which pages they skip where there is none; CI may not skip
    for b in "${CHROMIUM:-}" chromium-headless-shell chromium chromium-browser google-chrome; do
        [ "$b" ] && command -v "$b" >/dev/null && return
    done
    apt chromium-headless-shell 2>/dev/null || apt chromium && return  # the first is a third as much, and faster
    [ "${CI:-}" != true ] || fail "The tests of the pages need Chromium: apt-get install chromium"
    echo "no Chromium and no right to install it: the tests of the pages will be skipped"
}

"$1"
