#!/bin/sh
# The tests that need no browser, no tool of the book and no cluster, with the oldest versions that settings.ini allows.
set -eu
cd "$(dirname "$0")/../.."
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
sed -n 's/^requirements = //p' settings.ini | tr ' ' '\n' | sed 's/>=/==/' >"$venv/oldest.txt"
uv=$(command -v uv || echo .venv/bin/uv)
"$uv" venv -q --python 3.11 "$venv/python"
VIRTUAL_ENV="$venv/python" "$uv" pip install -q -c "$venv/oldest.txt" -e . pytest pytest-xdist hypothesis
cd tests
"$venv/python/bin/python" -m pytest -q -n 2 --dist loadfile --ignore test_site.py --ignore test_chapters.py --ignore test_cluster.py \
    --ignore test_play.py --ignore test_tools.py --ignore test_in_step.py --ignore test_readme.py
