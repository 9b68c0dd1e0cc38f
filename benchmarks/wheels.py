"""Carries wheels to where only so much goes at a time: in parts here, whole again there, checked by their hash.

    python benchmarks/wheels.py split WHEELS OUT [--mib 60]    # each larger wheel of a folder, in parts, with its hash
    python benchmarks/wheels.py join WHEELS                    # in the folder with all parts; they are removed

gpu.py joins what lies in its folder of wheels by itself. TensorRT for RTX: `pip wheel --no-deps --wheel-dir wheels
tensorrt-rtx tensorrt-rtx-cu13 tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings`, for that machine's Python; 1.7.1's
libraries are 91 MiB, in parts of 60 and 31.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

MIB = 1 << 20
HASH = ".sha256"


def split(folder: Path, out: Path, most: int) -> list[Path]:
    """Write the wheels into `out`, in parts of at most `most` bytes; return what was written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for wheel in sorted(folder.glob("*.whl")):
        if wheel.stat().st_size <= most:
            written.append(Path(shutil.copy(wheel, out)))
            continue
        data = wheel.read_bytes()
        for number, start in enumerate(range(0, len(data), most)):
            written.append(out / f"{wheel.name}.part{number:02}")
            written[-1].write_bytes(data[start : start + most])
        written.append(out / f"{wheel.name}{HASH}")
        written[-1].write_text(hashlib.sha256(data).hexdigest())
    return written


def join(folder: Path) -> list[Path]:
    """Make wheels of the parts in the folder; return them. Raises SystemExit where one is not as it was."""
    made = []
    for told in sorted(folder.glob(f"*.whl{HASH}")):
        wheel = told.with_suffix("")
        parts = sorted(folder.glob(f"{wheel.name}.part*"))
        data = b"".join(part.read_bytes() for part in parts)
        if hashlib.sha256(data).hexdigest() != told.read_text().strip():
            raise SystemExit(f"{wheel.name} is not whole: {len(parts)} parts, {len(data)} bytes; copy its parts again")
        wheel.write_bytes(data)
        for part in (*parts, told):
            part.unlink()
        made.append(wheel)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("split", "join"))
    parser.add_argument("wheels", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--mib", type=int, default=60)
    given = parser.parse_args(arguments)
    if (given.action == "split") is (given.out is None):
        parser.error("split needs OUT, join takes none")
    done = split(given.wheels, given.out, given.mib * MIB) if given.action == "split" else join(given.wheels)
    print("\n".join(f"{one.name} {one.stat().st_size / MIB:.1f} MiB" for one in done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
