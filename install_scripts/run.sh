#!/usr/bin/env bash
# Sets up what is missing, then starts the camera: ./install_scripts/run.sh [arguments of `vcam run`]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment run
provider "$@"
exec "$PY" -m vcam run "$@"
