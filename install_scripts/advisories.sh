#!/usr/bin/env bash
# Looks up known advisories against the versions of constraints.txt and its two siblings (pip-audit, OSV's data).
# Ends with 0 where there are none, 1 where there are some, 2 where they could not be asked for.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv-audit"
status=0

refused() {
    echo "The advisories could not be asked for: $1. Run this where the network allows it." >&2
    exit 2
}

[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV" || refused "no environment could be made in $VENV"
said=$("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip-audit>=2.7" 2>&1) ||
    refused "pip-audit could not be installed ($(tail -n 1 <<<"$said"))"
for file in constraints.txt constraints-lowest.txt constraints-providers.txt; do
    # the file names every package, so nothing is resolved and nothing of it is installed
    said=$("$VENV/bin/python" -m pip_audit --requirement "$ROOT/$file" --no-deps --disable-pip \
        --vulnerability-service osv --progress-spinner off 2>&1)
    found=$?
    case "$found $said" in
        0*) echo "$file: no known advisories" ;;
        *"known vulnerabilit"*) echo "$file:" && echo "$said" && status=1 ;;
        *) refused "$(grep -v '^ ' <<<"$said" | tail -n 1)" ;;
    esac
done
exit $status
