#!/usr/bin/env bash
# Looks up known advisories against the versions of constraints.txt and constraints-lowest.txt (pip-audit, OSV's data).
# Ends with 0 where there are none, 1 where there are some, 2 where the network does not allow to ask.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv-audit"
status=0

[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV" || exit 2
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit>=2.7" || exit 2
for file in constraints.txt constraints-lowest.txt; do
    echo "$file:" >&2
    # the file names every package, so nothing is resolved and nothing of it is installed
    said=$("$VENV/bin/python" -m pip_audit --requirement "$ROOT/$file" --no-deps --disable-pip \
        --vulnerability-service osv --progress-spinner off 2>&1)
    found=$?
    echo "$said"
    if [ $found -ne 0 ]; then
        case $said in
            *"known vulnerabilit"*) status=1 ;;
            *) [ $status -ne 0 ] || status=2 ;;
        esac
    fi
done
[ $status -ne 2 ] || echo "The advisories could not be asked for: the lines above say why" >&2
exit $status
