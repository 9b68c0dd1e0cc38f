#!/usr/bin/env bash
# Runs the unit suite with the lowest versions that pyproject.toml allows, in an environment of its own (.venv-lowest).
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv-lowest"

cd "$ROOT"
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt \
    --editable ".[camera,obs,marking,microphone,dev]"
exec "$VENV/bin/python" -m pytest -m "not slow and not browser and not fuzz" -p no:cacheprovider "$@"
