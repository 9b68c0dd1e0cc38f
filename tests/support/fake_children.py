"""Engines in child processes for tests: what the fake ones are asked for, and a child that is no process at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.settings import EngineSettings, Look, Lora
from tests.support.patience import PATIENCE_S
from vcam.frames import Frame
from vcam.worker.limits import Activity, Limits
from vcam.worker.process import EngineReport
from vcam.worker.translator import WorkerTranslator

SMALL = EngineSettings(model="fake", width=64, height=64, steps=1)
# Restarts come quickly; a healthy child may be silent for as long as a busy machine likes.
QUICK = Limits(
    load_s=PATIENCE_S,
    first_frame_s=PATIENCE_S,
    frame_s=PATIENCE_S,
    first_wait_s=0.01,
    longest_wait_s=0.02,
    tries=3,
)


def frame(index: int, grey: int = 0) -> Frame:
    """A camera's frame of that number, all grey."""
    return Frame(np.full((80, 100, 3), grey, np.uint8), index / 10, index)


def engine_pid(translator: WorkerTranslator) -> int:
    assert translator.state.facts is not None
    assert translator.state.facts.pid is not None
    return translator.state.facts.pid


class ScriptedChild:
    """An EngineProcess without a process: the test says what happens to it."""

    def __init__(self, settings: EngineSettings, look: Look) -> None:
        self.settings, self.look = settings, look
        self.failure, self.final, self.ready, self.refused = "", False, True, ""
        self.report = EngineReport()
        self.activity = Activity(0.0, loaded=True, pictures=1, frame_s=0.05)
        self.idle, self.closed, self.here = True, False, True
        self.idle_in_s = 0.0
        self.sent: list[object] = []

    def step(self) -> Frame | None:
        return None

    def give(self, frame: Frame) -> None: ...

    def set_look(self, look: Look, transition_ms: int) -> None:
        self.sent.append((look, transition_ms))

    def use_loras(self, loras: tuple[Lora, ...], transition_ms: int) -> None:
        self.settings = replace(self.settings, loras=loras)

    def is_but_for_loras(self, settings: EngineSettings) -> bool:
        return replace(self.settings, loras=settings.loras) == settings

    def send(self, order: object) -> None:
        self.sent.append(order)

    def waitable(self) -> list[object]:
        return []

    def close(self, grace_s: float = 0.0) -> None:
        self.closed = True
