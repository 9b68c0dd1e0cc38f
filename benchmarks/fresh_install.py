"""What a user's first and last day leave on the disk: installed by pipx and by uv into an empty home, run, removed.

    python benchmarks/fresh_install.py                       # builds the wheel; pipx and uv are found on the path
    python benchmarks/fresh_install.py --with uv --extras marking
    python benchmarks/fresh_install.py --container           # as root, on Linux: and what is left on the whole disk

Each installer gets an empty home of its own, with no setting of ours or of the desktop's, and the versions of
constraints.txt. Where packages are found is as pip and uv are set up here (PIP_FIND_LINKS, UV_FIND_LINKS, ...): on
Linux without an NVIDIA GPU let them find PyTorch's CPU build, or gigabytes of CUDA are fetched. Ends with 1 where a
command fails, or `vcam uninstall` leaves a file or a folder. A container has processes and shared memory of its own,
and a disk of its own over this machine's: whatever is written anywhere lies in its layer (in memory: 8 GB for each).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "streamv2v-camera"
# a hundred seconds: Python compiles what it loads for the first time, and the engine shall have time to translate
RUN = ("run", "--source", "pattern", "--sink", "none", "--frames", "3000", "--port", "0")
UNINSTALL = ("uninstall", "--yes")
CONTAINER = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "sh", "-eu", "-c")
# $1 this folder, then the command; the layer of a container holds what it wrote
IN_CONTAINER = """
of_it=$(mktemp -d)
mount -t tmpfs tmpfs "$of_it"
mkdir "$of_it/layer" "$of_it/work" "$of_it/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$of_it/layer,workdir=$of_it/work" "$of_it/root"
for one in proc sys dev; do mount --rbind "/$one" "$of_it/root/$one"; done
mount -t tmpfs tmpfs "$of_it/root/dev/shm"
checkout=$1
shift
status=0
chroot "$of_it/root" "$@" || status=$?
left=$(cd "$of_it/layer" && find . ! -type d ! -path ".$checkout/*"; ls "$of_it/root/dev/shm")
echo "left on the container's disk and in its memory: ${left:-nothing}"
[ -z "$left" ] || status=1
exit "$status"
"""
OTHERS = ("VCAM_", "XDG_", "PYTHON", "PIPX_", "UV_TOOL_", "UV_CACHE_DIR", "VIRTUAL_ENV")  # settings of who runs this


def environment_of(home: Path, here: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a user whose home is that folder, and who has set up nothing."""
    kept = {name: value for name, value in here.items() if not name.startswith(OTHERS)}
    return kept | {"HOME": str(home), "TMPDIR": str(home / "tmp")}


def install_command(installer: str, wheel: str, constraints: Path) -> list[str]:
    """Return what installs the wheel (with its extras) with that installer."""
    if installer == "pipx":
        return ["pipx", "install", "--python", sys.executable, f"--pip-args=--constraint {constraints}", wheel]
    return ["uv", "tool", "install", "--python", sys.executable, "--constraints", str(constraints), wheel]


def remove_command(installer: str) -> list[str]:
    """Return what removes the program itself."""
    return [installer, *(["tool"] if installer == "uv" else []), "uninstall", PACKAGE]


def everything_in(home: Path, but: Iterable[Path] = ()) -> set[str]:
    """Return every file and folder of a home, folders with a / at the end, but for those in some folders."""
    outside = [str(one) for one in but]
    found = set()
    for folder, folders, files in os.walk(home):
        folders[:] = [one for one in folders if os.path.join(folder, one) not in outside]
        inside = os.path.relpath(folder, home)
        found |= {os.path.normpath(os.path.join(inside, one)) for one in files}
        found |= {os.path.normpath(os.path.join(inside, one)) + "/" for one in folders}
    return found


def in_short(paths: Iterable[str], parts: int = 3) -> list[str]:
    """Return the paths as a few lines: how many there are in each folder of the first `parts` levels."""
    count = Counter("/".join(path.rstrip("/").split("/")[:parts]) for path in paths)
    return [f"{folder} ({number})" if number > 1 else folder for folder, number in sorted(count.items())]


def carried_out(command: Sequence[str], environment: Mapping[str, str], home: Path) -> bool:
    """Run a command in that home, say how it ended and its last lines; return whether it ended well."""
    start_s = time.monotonic()
    done = subprocess.run(
        command, env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(f"  $ {' '.join(command)}   ({time.monotonic() - start_s:.0f} s, status {done.returncode})", flush=True)
    for line in done.stdout.strip().splitlines()[-12:]:
        print(f"      {line}")
    return done.returncode == 0


def trial(installer: str, wheel: str, constraints: Path) -> bool:
    """Install, run, uninstall and remove in an empty home; say what is left; return whether nothing of ours is."""
    with tempfile.TemporaryDirectory(prefix="vcam-") as folder:  # short: a socket's name may have 107 letters
        home = Path(folder).resolve()
        (home / "tmp").mkdir()
        environment = environment_of(home, os.environ)
        print(f"{installer}:", flush=True)
        if not carried_out(install_command(installer, wheel, constraints), environment, home):
            return False
        vcam = home / ".local" / "bin" / "vcam"
        program = [vcam.resolve().parents[1]]  # Python keeps what it has compiled in there
        size = sum(one.stat().st_size for one in program[0].rglob("*") if one.is_file())
        print(f"  the program's environment: {size / 1e9:.1f} GB")
        before = everything_in(home, program)
        ran = carried_out([str(vcam), *RUN], environment, home)
        made = everything_in(home, program) - before
        print(f"  the run made {len(made)} files and folders: {', '.join(in_short(made)) or 'none'}")
        removed = carried_out([str(vcam), *UNINSTALL], environment, home)
        left = everything_in(home, program) - before
        print(f"  vcam uninstall left: {', '.join(sorted(left)) or 'nothing'}")
        gone = carried_out(remove_command(installer), environment, home)
        kept = everything_in(home)
        ours = [one for one in kept if PACKAGE in one or one.endswith("/vcam")]
        print(f"  {installer} keeps for itself: {', '.join(in_short(kept)) or 'nothing'}")
        print(f"  of these with our name: {', '.join(sorted(ours)) or 'none'}", flush=True)
        return ran and removed and gone and bool(made) and not left


def built(folder: Path) -> Path:
    """Return the wheel of this checkout, built into that folder."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def main(argv: Sequence[str] | None = None) -> int:
    """Try each installer; return 0 if all that was asked for is there and left nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="installers", default="pipx,uv", help="default: pipx,uv")
    parser.add_argument("--extras", default="", help="of the package, as marking,microphone (default: none)")
    parser.add_argument("--container", action="store_true", help="in a container of its own")
    given = parser.parse_args(argv)
    if given.container:
        again = [sys.executable, __file__, "--with", given.installers, "--extras", given.extras]
        return subprocess.run([*CONTAINER, IN_CONTAINER, "sh", str(ROOT), *again], check=False).returncode
    with tempfile.TemporaryDirectory() as folder:
        wheel = str(built(Path(folder))) + (f"[{given.extras}]" if given.extras else "")
        well = True
        for installer in given.installers.split(","):
            if shutil.which(installer) is None:
                print(f"{installer}: is not on the path")
                well = False
            else:
                well = trial(installer, wheel, ROOT / "constraints.txt") and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
