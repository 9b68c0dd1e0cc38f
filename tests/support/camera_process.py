"""`vcam run` with the fake engine, as a process that a test signals, asks and waits for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import av
import psutil

from tests.support import stacks
from tests.support.fake_engine import MODEL
from tests.support.patience import PATIENCE_S, until
from vcam import client
from vcam.commands import Status
from vcam.errors import VcamError

ROOT = Path(__file__).parents[2]


def made_folder(folder: Path) -> Path:
    """Return the folder with what a camera process needs in it."""
    for name in ("state", "log", "config"):
        (folder / name).mkdir(mode=0o700)
    return folder


class Camera:
    """`vcam run` in a process of its own, with the fake engine of that model, in a folder of `made_folder`.

    streams: stdin, stdout, stderr, ... of it.
    """

    def __init__(self, folder: Path, *arguments: str, model: str = "fake", **streams: Any) -> None:
        self.folder, self.log = folder, folder / "log" / "vcam.log"
        self.recording, self.stacks = folder / "out.mp4", folder / "stacks"
        self.stacks.mkdir()
        environment = {
            **os.environ,
            "VCAM_STATE_FOLDER": str(folder / "state"),
            "VCAM_LOG_FOLDER": str(folder / "log"),
            "VCAM_CONFIG_FOLDER": str(folder / "config"),
            stacks.FOLDER: str(self.stacks),
            MODEL: model,
        }
        command = [sys.executable, "-m", "tests.support.camera_program", "run", "--source", "pattern", "--port", "0"]
        sink = [] if "--sink" in arguments else ["--sink", str(self.recording), "--size", "96x64"]
        given: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "start_new_session": True,  # it has its session go before others: not that of all tests
            **streams,
        }
        self.process = subprocess.Popen([*command, *sink, *arguments], cwd=ROOT, env=environment, **given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing of it behind, whatever went wrong."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in (*self.engines(), psutil.Process(self.process.pid)):
                one.kill()
        self.process.communicate()

    def status(self) -> Status | None:
        try:
            return client.status(self.folder / "state")
        except VcamError:
            return None

    def until_running(self, but: int | None = None) -> None:
        """Wait until pictures come. but: of the process of an engine that is over."""

        def runs() -> bool:
            now = self.status()
            return now is not None and now.state == "running" and now.engine_pid != but

        def found() -> str:
            return f"{self.status()}\n{stacks.asked(self.stacks)}"

        until(lambda: runs() or self.process.poll() is not None, found)
        assert self.process.poll() is None, self.process.communicate()

    def engines(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self, engines: list[psutil.Process]) -> int:
        """Wait for its end; nothing of it is left. Its exit status."""
        status = self.process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(engines, timeout=PATIENCE_S)
        assert not alive
        assert not (self.folder / "state" / client.SESSION_FILE).exists()
        return status

    def plays(self) -> bool:
        with av.open(str(self.recording)) as container:
            return sum(1 for _ in container.decode(video=0)) > 0
