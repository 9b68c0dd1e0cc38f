"""A whole daemon at work in a thread, with a fake camera, a fake sink and the fake engine in a real child process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from core.settings import EngineSettings
from tests.support import patience
from tests.support.fake_camera import FakeCamera
from tests.support.fake_engine import FACTORY
from tests.support.fake_sink import FakeSink
from tests.support.patience import PATIENCE_S
from tests.support.pictures import SIZE
from tests.support.profile_files import write_profile
from vcam.commands import ChangeEngine
from vcam.daemon.daemon import Daemon, RunParts
from vcam.frames import FrameSource
from vcam.settings.config import ObsSettings, RecordSettings
from vcam.settings.run_options import RunOptions, RunReport


class RunningDaemon:
    """A daemon in a thread; what it reports, or raises, is in `done`."""

    def __init__(self, options: RunOptions, parts: RunParts) -> None:
        self.stop = threading.Event()
        self.parts = parts
        self.daemon = Daemon(options, parts, self.stop)
        self.done: Future[RunReport] = Future()
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self.done.set_result(self.daemon.run())
        except Exception as error:  # noqa: BLE001  told by the test's own thread
            self.done.set_exception(error)

    def end(self) -> RunReport:
        """Have it end in order; what it reports."""
        self.stop.set()
        report = self.done.result(PATIENCE_S)
        self.thread.join(PATIENCE_S)
        return report

    def tell(self, command: Any) -> None:
        """Have it carry out a command, and wait until it has."""
        self.daemon.submit(command).result(PATIENCE_S)

    def until(self, true: Callable[[], object], what: str = "as it should be") -> None:
        """Wait until it is; what: how it then is."""
        patience.until(true, lambda: f"not {what}: {self.daemon.status()}")

    def until_state(self, state: str) -> None:
        self.until(lambda: self.daemon.status().state == state, state)

    def engine_pid(self) -> int:
        pid = self.daemon.status().engine_pid
        assert pid is not None
        return pid


class SwitchedDaemon(RunningDaemon):
    """Has the profiles p0 to p3, whose seeds are 0 to 3. options: of the run; parts: in place of the test's own."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None, **parts: Any) -> None:
        self.folder = folder / "profiles"
        self.folder.mkdir(exist_ok=True)
        for n in range(4):
            write_profile(self.folder, f"p{n}", seed=n)
        self.sink = FakeSink()
        self.sources: list[FakeCamera] = []
        given: dict[str, Any] = {
            "engine": FACTORY,
            "settings_of": lambda profile, options: EngineSettings(
                model="fake", width=options.engine.width or 96, height=64, steps=options.engine.steps or 1
            ),
        }
        wished: dict[str, Any] = {"size": SIZE, "fps": 30, "panel": False, "obs": ObsSettings(enabled=False)}
        wished["record"] = RecordSettings(str(folder / "videos"))
        super().__init__(
            RunOptions(**(wished | (options or {})), profile="p0", profiles_folder=self.folder),
            RunParts(
                **(given | parts),
                open_source=self._open,
                open_sink=lambda options: self.sink,
                state_folder=lambda: folder,
                signals=False,
            ),
        )

    def _open(self, options: RunOptions) -> FrameSource:
        self.sources.append(FakeCamera(options.source))
        return self.sources[-1]

    def __enter__(self) -> Self:
        self.thread.start()
        self.until_state("running")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def change_beside(self, change: dict[str, Any]) -> None:
        """Have another engine built and taken over by, and see that the one before runs until then.

        For a daemon that holds the last picture: on a busy machine an engine is silent for longer than a card waits.
        """
        states = set[str]()

        def over() -> bool:
            now = self.daemon.status()
            states.add(now.state)
            return not now.notes

        pid = self.engine_pid()
        self.tell(ChangeEngine(change))
        self.until(lambda: self.daemon.status().notes, "preparing")
        self.until(over, "over")
        assert "running" in states
        assert states <= {"running", "waiting"}, states  # the camera, too, may be late on a busy machine
        assert self.engine_pid() != pid
        assert self.daemon.status().restarts == 0

    def shows(self, seed: int) -> bool:
        """Whether the translation by the profile of this seed was published last."""
        return self.sink.colour == (245 + seed, 55, 225)
