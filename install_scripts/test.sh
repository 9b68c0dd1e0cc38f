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

# types: for each system beside the others and beside the tests, which mostly wait; said whole once those have ended
said=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$said"' EXIT
"$PY" -m mypy --platform linux >"$said/linux" 2>&1 &
checks="linux:$!"
for system in win32 darwin; do # what runs there alone; what runs elsewhere alone is unreachable there
    "$PY" -m mypy --config-file install_scripts/mypy-elsewhere.ini --platform "$system" \
        --cache-dir ".mypy_cache/$system" >"$said/$system" 2>&1 &
    checks="$checks $system:$!"
done
tests=0 types=0
"$PY" -m pytest -m "not slow and not browser and not fuzz" -n 4 --dist loadfile --cov --cov-report=term || tests=$?
for check in $checks; do
    status=0
    wait "${check#*:}" || status=$?
    echo "mypy for ${check%%:*}:"
    cat "$said/${check%%:*}"
    [ "$status" = 0 ] || types=$status
done
[ "$tests" = 0 ] || exit "$tests"
[ "$types" = 0 ] || exit "$types"

# what runs in other processes (bridge, tray, the engine's child) is tested and not counted
"$PY" -m coverage report --include="core/*" --format=total --fail-under=95
"$PY" -m coverage report --include="vcam/*" --format=total --fail-under=88
"$PY" -m pytest -m browser # one at a time: a browser takes all cores
