"""A machine that has TensorRT for RTX, as far as a program sees: its library is the stand-in, which runs on the CPU.

For real `python -m vcam` processes and their children, by PYTHONPATH alone.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from core.runtimes.tensorrt.library import CHOICE
from tests.support.patience import PATIENCE_S
from vcam import client
from vcam.commands import Command, Status
from vcam.errors import VcamError

ROOT = Path(__file__).parents[2]

# what `import tensorrt_rtx` finds
TENSORRT = """
import os, sys
from tests.support import trt_stand_in
sys.modules["tensorrt_rtx"] = trt_stand_in.module(os.environ.get("STAND_IN_VERSION", "1.7.1.116"), "tensorrt_rtx")
"""
# what every Python runs when it starts: the module that knows TensorRT's devices, once it is there, knows one more
SITE = """
import sys
from importlib.machinery import PathFinder

class Devices:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "core.runtimes.tensorrt.readiness":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.DEVICES = ("cuda", "cpu")
            module._capability = lambda device: "8.9"
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Devices)
"""


class TensorRtMachine:
    """Its folders, and programs that run on it. library, gpu: whether it has what TensorRT needs."""

    def __init__(self, folder: Path, model: Path, *, library: bool = True, gpu: bool = True) -> None:
        self.model = model
        self.engines, self.state = folder / "engines", folder / "state"
        self.profiles = folder / "config" / "profiles"
        self.profiles.mkdir(parents=True)
        site = folder / "site"
        site.mkdir()
        if library:
            (site / "tensorrt_rtx.py").write_text(TENSORRT)
        if gpu:
            (site / "sitecustomize.py").write_text(SITE)
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "VCAM_CONFIG_FOLDER": str(folder / "config"),
            "VCAM_STATE_FOLDER": str(self.state),
            "VCAM_LOG_FOLDER": str(folder / "logs"),
            "VCAM_ENGINES_FOLDER": str(self.engines),
            "OMP_NUM_THREADS": "1",
            CHOICE: "" if library else "none",
        }
        self.profile("plain", "steps = 1")

    def profile(self, id: str, engine: str) -> None:
        """A profile whose engine is that, without a bank."""
        text = f'name = "{id}"\n[look]\nprompt = "ink person"\n[engine]\npolicy = "off"\n{engine}\n'
        (self.profiles / f"{id}.toml").write_text(text)

    def command(self, verb: str, *arguments: str) -> list[str]:
        """A command line, with the model and the device where the verb takes them."""
        if verb in ("run", "engines"):
            arguments = (*arguments, "--model", str(self.model), "--engine-size", "64x64", "--device", "cpu", "--json")
        return [sys.executable, "-m", "vcam", verb, *arguments]

    def vcam(self, verb: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A verb, carried out."""
        command, given = self.command(verb, *arguments), self.environment | environment
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=PATIENCE_S)

    def engine_folders(self) -> list[str]:
        """What lies in the cache besides its helper files."""
        return sorted(path.name for path in self.engines.iterdir() if path.is_dir()) if self.engines.is_dir() else []

    def take_engine_of(self, other: TensorRtMachine) -> Path:
        """The other's cache, copied; the folder of its one engine."""
        shutil.copytree(other.engines, self.engines)
        (name,) = self.engine_folders()
        return self.engines / name


class Camera:
    """`vcam run` at work."""

    def __init__(
        self,
        machine: TensorRtMachine,
        *arguments: str,
        runtime: str = "tensorrt",
        source: str = "pattern",
        before: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """before: a command that starts the program."""
        self.machine = machine
        options = ["--source", source, "--sink", "none", "--profile", "plain", "--size", "96x64", "--fps", "10"]
        options += ["--threads", "1", "--port", "0"]
        self.errors = machine.state.with_name("stderr.txt")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*before, *machine.command("run", *options, "--runtime", runtime, *arguments)],
                env=machine.environment | environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # it has its session go before others: not that of all tests
            )
        self.children: dict[int, psutil.Process] = {}

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines():
            engine.kill()
        self.process.kill()
        self.process.communicate()

    def status(self) -> Status | None:
        """None while it cannot be asked."""
        try:
            return client.status(self.machine.state)
        except VcamError:
            return None

    def until(self, true: Callable[[Status], Any]) -> Status:
        """The first status of which that is true; the pictures never stop meanwhile."""
        end = time.monotonic() + PATIENCE_S
        published = collections.deque([-1], maxlen=100)
        while time.monotonic() < end:
            assert self.process.poll() is None, self.errors.read_text()
            status = self.status()
            if status is not None:
                if true(status):
                    return status
                published.append(status.published)
                assert len(published) < 100 or published[0] < published[-1], "nothing is published any more"
            time.sleep(0.1)
        raise AssertionError(f"it did not happen: {self.status()}\n{self.errors.read_text()}")

    def goes_on(self, pictures: int = 5) -> Status:
        """Until that many more pictures were translated, and published."""
        now = self.until(lambda _: True)
        return self.until(
            lambda s: s.translated >= now.translated + pictures and s.published >= now.published + pictures
        )

    def tell(self, command: Command) -> Status:
        """Have it carry out a command."""
        return client.send(command, self.machine.state)

    def engines(self) -> list[psutil.Process]:
        """Its engines' processes that live, oldest first."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = [one for one in children if one.is_running() and _is_engine(one)]
        self.children |= {one.pid: one for one in found}
        return sorted(found, key=lambda one: (one.create_time(), one.pid))

    def picture(self) -> bytes:
        """What was published last, as JPEG."""
        session = json.loads((self.machine.state / client.SESSION_FILE).read_text())
        connection = http.client.HTTPConnection("127.0.0.1", session["port"], timeout=PATIENCE_S)
        connection.request("GET", "/api/v1/picture.jpg", headers={"Authorization": f"Bearer {session['token']}"})
        data = connection.getresponse().read()
        connection.close()
        return data

    def end(self) -> dict[str, Any]:
        """Wait for its end; what it says at it. Nothing of it is left."""
        self.engines()
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, self.errors.read_text()
        assert not re.search("Traceback|Warning|it/s", self.errors.read_text()), self.errors.read_text()
        _, alive = psutil.wait_procs(self.children.values(), timeout=PATIENCE_S)
        assert not alive
        assert not [name for name in self.machine.engine_folders() if name.startswith(".part-")]
        told: dict[str, Any] = json.loads(output.splitlines()[-1])
        return told


def _is_engine(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
