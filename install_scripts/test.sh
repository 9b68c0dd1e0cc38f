#!/usr/bin/env bash
# Sets up what is missing, then runs every check; with arguments, pytest alone with these arguments.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment test
cd "$ROOT"
unset PYTHONSAFEPATH # the tests start programs of theirs that lie here
if [ $# -gt 0 ]; then
    exec "$PY" -m pytest "$@"
fi
"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy --platform linux
for system in win32 darwin; do # what runs there alone; what runs elsewhere alone is unreachable there
    "$PY" -m mypy --platform "$system" --no-warn-unreachable --cache-dir ".mypy_cache/$system" core vcam
done
"$PY" -m pytest -m "not slow and not browser and not fuzz" -n 4 --dist loadfile --cov --cov-report=term
# what runs in other processes (bridge, tray, the engine's child) is tested and not counted
"$PY" -m coverage report --include="core/*" --format=total --fail-under=95
"$PY" -m coverage report --include="vcam/*" --format=total --fail-under=88
"$PY" -m pytest -m browser # one at a time: a browser takes all cores
