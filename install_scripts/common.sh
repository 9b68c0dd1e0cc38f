# shellcheck shell=bash
# Sourced by run.sh and test.sh: sets up .venv once, then costs nothing. Needs bash 3.2, Python >= 3.11 and no more.
# Sets ROOT (the checkout) and PY (the environment's python); `environment run` or `environment test` makes them ready.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
export PYTHONSAFEPATH=1 # no Python that is started here executes what lies in the folder one stands in

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

# The first Python that will do: $PYTHON, then the machine's own, then the versioned ones (pyenv's too).
find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    fail "no Python >= 3.11 found. Install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv;" \
        "Fedora: sudo dnf install python3.12; macOS: brew install python@3.12), or name one: PYTHON=/path/to/python3 $0"
}

# What pip cannot install is named, with its remedy, before minutes go into a download.
check_system() {
    local python=$1 missing
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        fail "$python has no venv module. Debian, Ubuntu: sudo apt-get install" \
            "$("$python" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')"
    [ "$(uname -s)" = Linux ] || return 0
    missing=$("$python" - <<'CHECK'
import ctypes

missing = []
for library in ("libGL.so.1", "libgthread-2.0.so.0", "libxcb.so.1"):  # what opencv-python's wheel does not bring
    try:
        ctypes.CDLL(library)
    except OSError:
        missing.append(library)
print(" ".join(missing))
CHECK
    ) || fail "$python does not run"
    [ -z "$missing" ] ||
        fail "OpenCV needs $missing, which this system lacks. Debian, Ubuntu: sudo apt-get install libgl1 libglib2.0-0 libxcb1;" \
            "Fedora: sudo dnf install mesa-libGL glib2 libxcb; Arch: sudo pacman -S libglvnd glib2 libxcb"
}

# What an installation depends on, in one text: equal text, nothing to do.
wanted() {
    printf '%s\n' "$ROOT"
    cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$ROOT/install_scripts/common.sh"
}

has_nvidia() {
    command -v nvidia-smi >/dev/null || [ -e /proc/driver/nvidia/version ] || [ -e /usr/lib/wsl/lib/libcuda.so.1 ]
}

# A card that TensorRT for RTX is made for, by its compute capability (core/runtimes/tensorrt/library.py).
has_rtx() {
    command -v nvidia-smi >/dev/null || return 1
    case $(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null) in
        *7.5* | *8.0* | *8.6* | *8.9* | *12.0* | *12.1*) ;;
        *) return 1 ;;
    esac
}

# The driver's version where it is older than CUDA 13 needs, for which PyTorch and TensorRT for RTX are built; else nothing.
old_driver() {
    local version
    version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    case ${version%%.*} in '' | *[!0-9]*) return 0 ;; esac
    [ "${version%%.*}" -ge 580 ] || printf '%s\n' "$version"
}

# What makes pictures quickest there; the camera runs without it too. With an old driver each start looks again.
install_tensorrt() {
    local old
    rm -f "$VENV/.old-driver"
    has_rtx || return 0
    old=$(old_driver)
    if [ -n "$old" ]; then
        touch "$VENV/.old-driver"
        say "RTX card found, but its driver is $old, and PyTorch and TensorRT for RTX need 580 or newer: install a newer" \
            "NVIDIA driver, then start again. Until then the CPU does the work"
        return 0
    fi
    say "RTX card found: installing TensorRT for RTX (about 100 MB; its licence is NVIDIA's)"
    "$PY" -m pip install --quiet --disable-pip-version-check --constraint "$ROOT/constraints.txt" \
        --editable "${ROOT}[tensorrt]" >&2 ||
        say "TensorRT for RTX could not be installed, pip says why above: going on without it"
}

# On Linux the ordinary torch wheel brings gigabytes of CUDA. Without an NVIDIA GPU take PyTorch's own CPU wheel, unless
# pip is set up to find packages elsewhere: then it is asked alone.
install_cpu_torch() {
    [ "$(uname -s)" = Linux ] && [ "$(uname -m)" = x86_64 ] && ! has_nvidia || return 0
    case $("$PY" -m pip config list 2>/dev/null) in *index-url* | *find-links* | *no-index*) return 0 ;; esac
    "$PY" -c 'import torch' >/dev/null 2>&1 && return 0
    say "No NVIDIA GPU found: installing the CPU build of PyTorch"
    "$PY" -m pip install --quiet --retries 1 --no-deps --index-url https://download.pytorch.org/whl/cpu \
        "$(grep '^torch==' "$ROOT/constraints.txt")" ||
        say "PyTorch's CPU builds could not be reached: installing the ordinary build instead (several GB)"
}

# Which of ONNX Runtime's builds fits the card that this machine has: openvino, migraphx, or none.
provider_for_card() {
    [ "$(uname -s)" = Linux ] && [ "$(uname -m)" = x86_64 ] && ! has_nvidia || return 0
    case $(cat "${VCAM_CARDS:-/sys/class/drm}"/card*/device/vendor 2>/dev/null) in
        *0x1002*) if [ -e "${ROCM_PATH:-/opt/rocm}" ]; then echo migraphx; fi ;;
        *0x8086*) echo openvino ;;
    esac
}

# `provider [arguments of vcam run]`: installs ONNX Runtime for another maker's card, the one that --provider names or
# that fits. Such a package holds the same module as the ordinary one, so it lies apart, in .venv/provider, where
# core/runtimes/onnx/providers.py finds it. (On macOS the ordinary one has CoreML.)
provider() {
    local asked='' previous='' one wanted package
    for one in "$@"; do
        case $one in --provider=*) asked=${one#*=} ;; esac
        [ "$previous" != --provider ] || asked=$one
        previous=$one
    done
    wanted=$asked
    [ -n "$wanted" ] && [ "$wanted" != auto ] || wanted=$(provider_for_card)
    case $wanted in openvino | migraphx) ;; *) return 0 ;; esac
    package=$(grep "^onnxruntime-$wanted==" "$ROOT/constraints-providers.txt") || return 0
    if [ "$(cat "$VENV/provider/.package" 2>/dev/null)" = "$package" ]; then return 0; fi
    if [ "$wanted" != "$asked" ] && [ "$(cat "$VENV/.no-provider" 2>/dev/null)" = "$package" ]; then return 0; fi
    say "Installing ONNX Runtime with $wanted, for this machine's card (--provider cpu does without)"
    rm -rf "$VENV/provider"
    if "$PY" -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps --target "$VENV/provider" \
        "$package" >&2; then
        printf '%s\n' "$package" >"$VENV/provider/.package"
        return 0
    fi
    rm -rf "$VENV/provider"
    [ "$wanted" != "$asked" ] || fail "$package could not be installed: pip says why above"
    printf '%s\n' "$package" >"$VENV/.no-provider"
    say "$package could not be installed, so the CPU does the work; --provider $wanted tries it again"
}

# `environment run`: .venv holds the checkout and all that running it needs, at the versions of constraints.txt.
# `environment test`: the same, and what the checks need.
environment() {
    local purpose=$1 extras=camera,obs,marking,microphone python quiet=--quiet
    [ "$purpose" = run ] || extras=camera,obs,marking,microphone,tray,dev
    if [ ! -e "$VENV/.installing" ] && "$PY" -c '' >/dev/null 2>&1 && wanted | cmp -s - "$VENV/.ready-$purpose"; then
        [ ! -e "$VENV/.old-driver" ] || install_tensorrt
        return
    fi
    python=$(find_python) || exit 1
    check_system "$python"
    # An installation that was cut short, or a Python that has gone: begin again (pip's cache makes it quick).
    if [ -e "$VENV/.installing" ] || ! "$PY" -m pip --version >/dev/null 2>&1; then
        rm -rf "$VENV"
        say "Making .venv with $python"
        "$python" -m venv "$VENV" || { rm -rf "$VENV"; fail "$python could not make $VENV"; }
    fi
    touch "$VENV/.installing"
    install_cpu_torch
    say "Installing into .venv: the first time takes some minutes"
    [ -t 2 ] && quiet= # a person sees pip's progress
    "$PY" -m pip install $quiet --disable-pip-version-check --constraint "$ROOT/constraints.txt" \
        --editable "${ROOT}[$extras]" >&2 ||
        fail "the installation did not finish: pip says why above. The same command tries again"
    install_tensorrt
    "$PY" -c 'import cv2, torch' || fail "what was installed does not load: the line above says why"
    wanted >"$VENV/.ready-run"
    [ "$purpose" = run ] || wanted >"$VENV/.ready-$purpose"
    rm -f "$VENV/.installing"
}
