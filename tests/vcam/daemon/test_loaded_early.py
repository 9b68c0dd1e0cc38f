"""Nothing that was compiled is loaded while pictures are due: the system takes up to 100 ms for it, in Python's lock.

Found by an hour of attacks: the first recording of a machine loaded what makes a certificate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from tests.support.every_command import COMMANDS
from tests.support.running_daemon import SwitchedDaemon
from vcam.commands import Stop
from vcam.errors import VcamError

def compiled():
    files = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    return {file for file in files if file.endswith((".so", ".pyd"))}

with SwitchedDaemon(Path(sys.argv[1]), {"panel": True, "port": 0}) as run:
    run.until(lambda: run.shows(0))
    before = compiled()
    for command in COMMANDS:
        if command == Stop():
            continue
        try:
            run.tell(command)
        except (VcamError, ValueError) as error:
            print(type(command).__name__, error, file=sys.stderr)
    print(*sorted(Path(file).name for file in compiled() - before))
"""


def test_no_command_loads_what_was_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], done.stderr
