"""Engines for tests: ordinary, small ones of vcam.worker.factories.EngineProtocol; some misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.errors import SettingsError
from core.plans import TensorRtState
from core.settings import EngineSettings, Look, Lora
from vcam.frames import Picture
from vcam.worker.factories import ReportProgress

FACTORY = "tests.support.fake_engine:make"  # for WorkerTranslator and daemon.Parts

GATE = "FAKE_ENGINE_GATE"  # in the environment: the file that must be there for what is slow to go on
MODEL = "FAKE_ENGINE_MODEL"  # in the environment of tests.support.camera_program: what `make` is asked for


def wait_at_the_gate() -> None:
    gate = Path(os.environ[GATE])
    while not gate.exists():
        time.sleep(0.01)


class FakeEngine:
    """Inverts the picture; a look's seed is added to its red, LoRAs to its green. The prompt says how to misbehave."""

    bank_bytes = 1000
    refreshes = 0
    provider = ""
    changes_loras = True
    trouble = ""
    tensorrt = TensorRtState("its library is not installed")

    def __init__(self, settings: EngineSettings, look: Look, frame_s: float = 0.0) -> None:
        self.settings, self.look, self.frame_s = settings, look, frame_s
        if "talk" in look.prompt.split():  # as libraries do while they load
            print("a remark", file=sys.stderr, flush=True)
        self.delay = settings.steps - 1
        self.pictures: list[Picture] = []
        self.prepared: list[str] = []
        self.calls = 0

    def translate(self, picture: Picture) -> Picture | None:
        self.calls += 1
        words = self.look.prompt.split()
        self.refreshes += "drift" in words
        if "raise" in words or ("raise-once" in words and self.calls == 2):
            raise RuntimeError("CUDA error: an illegal\nmemory access was encountered")
        if "memory" in words:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if "hang-at-once" in words or ("hang" in words and self.calls > 2):
            time.sleep(3600)
        if "die" in words and self.calls > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in words:
            os._exit(3)
        end = time.perf_counter() + self.frame_s
        while time.perf_counter() < end:  # works, does not sleep: it takes a core away as an engine does
            np.sort(np.arange(20_000)[::-1])
        self.pictures.append(picture.copy())
        if len(self.pictures) <= self.delay:
            return None
        result = 255 - self.pictures.pop(0)
        result[..., 0] += np.uint8(self.look.seed)
        result[..., 1] += np.uint8(10 * len(self.settings.loras))
        return result

    def imagine(self) -> Picture | None:
        space = np.full((self.settings.height, self.settings.width, 3), 55, np.uint8)
        return self.translate(space)  # 200 all over

    def set_look(self, look: Look, frames: int = 0) -> None:
        if look.prompt == "refuse":
            raise SettingsError("guidance is 2, but the engine was built without")
        self.look = look

    def use_loras(self, given: tuple[Lora, ...], frames: int = 0) -> None:
        if given and given[0].path == "refuse":
            raise SettingsError("LoRA refuse: there is no such file")
        if given and given[0].path == "slow":
            wait_at_the_gate()
        self.settings = replace(self.settings, loras=given)

    def prepare(self, prompts: Iterable[str]) -> None:
        self.prepared.extend(prompts)

    def forget(self) -> None:
        self.pictures.clear()

    def another(self, look: Look) -> FakeEngine:
        return FakeEngine(self.settings, look, self.frame_s)

    def check_streams(self, count: int) -> int:
        return 0


def make(settings: EngineSettings, look: Look, threads: int, report: ReportProgress) -> FakeEngine:
    """A good one; the model "absent" cannot be had, "broken" and "buggy" raise, "busy" takes 0.1 s a picture.

    "slow-start" waits at the gate.
    """
    report("loading", 0.5)
    if settings.model == "absent":
        raise SettingsError("there is no model 'absent'; there are: fake")
    if settings.model == "buggy":
        raise ValueError("bug")
    if settings.model == "broken":
        raise RuntimeError("out of memory")
    if settings.model == "dies":
        os._exit(7)
    if settings.model == "slow-start":
        wait_at_the_gate()
    return FakeEngine(settings, look, 0.1 if settings.model == "busy" else 0.0)
