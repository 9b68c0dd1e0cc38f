"""`vcam imagine`: a film of prompts alone, each picture made of the text and the noise (text-to-image streaming)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from core.settings import EngineSettings, Look, Origin
from vcam.errors import VcamError
from vcam.offline.translate import Progress, real_engine, shown, stop_on_signal
from vcam.settings.config import MarkingSettings
from vcam.settings.model_facts import IMAGINE, check_source
from vcam.video import Kind, Media, Note, Picture, Pixels, kept, marker_for, to_stderr, writing


class ImaginingEngine(Protocol):
    """What `imagine` asks of an engine (core.engine.Engine)."""

    @property
    def settings(self) -> EngineSettings:
        """Return with what it was built, nothing left to choose."""

    @property
    def delay(self) -> int:
        """Return after how many calls the first picture comes."""

    def imagine(self) -> Pixels | None:
        """Return the next picture of the look, None for the first `delay` calls."""

    def set_look(self, look: Look, frames: int = 0) -> None:
        """Use the look from the next picture on; prompts blend over `frames` pictures."""


MakeEngine = Callable[[EngineSettings, Look], ImaginingEngine]


class PromptSwitch(NamedTuple):
    """From picture `at` on the prompt is another one, to which `frames` pictures lead."""

    at: int
    prompt: str
    frames: int


def timetable(prompts: Sequence[str], pictures: int, transition: int | None = None) -> list[PromptSwitch]:
    """Return when each prompt begins: all have the same time, the first one begins at once.

    transition: pictures from one to the next, at most the time of a prompt; None: half of that. Raises VcamError where
    there are more prompts than pictures.
    """
    if len(prompts) > pictures:
        raise VcamError(f"{len(prompts)} prompts need as many pictures, and there are {pictures}: give more --seconds")
    share = pictures / len(prompts)
    frames = round(share / 2) if transition is None else min(transition, int(share))
    return [PromptSwitch(round(share * index), prompt, frames if index else 0) for index, prompt in enumerate(prompts)]


@dataclass(frozen=True)
class Transition:
    """How a film goes from one prompt to the next, in grey levels (0..255) between a picture and the next one.

    Each change is the root of the mean squared difference of all pixels and colours. mean, largest: of the transition's
    changes; rest: the mean change while the prompt before stood (0 where its picture stands still). unevenness: largest
    by mean: 1 is a walk in even steps, the number of pictures is one jump.
    """

    prompt: str
    pictures: int
    mean: float
    largest: float
    rest: float
    unevenness: float


def transitions(switches: Sequence[PromptSwitch], changes: Sequence[float], delay: int) -> list[Transition]:
    """Return how smooth each switch but the first is; changes[i]: from picture i to picture i + 1.

    delay: pictures under way when the prompt changed, each of which has a little more of it (the stream batch's rows).
    """
    found = []
    for before, one in itertools.pairwise(switches):
        first = one.at - 1
        steps = changes[first : first + max(one.frames, 1) + delay]
        resting = changes[before.at + before.frames + delay : first]
        if not steps:
            continue
        mean, largest = float(np.mean(steps)), float(np.max(steps))
        rest = float(np.mean(resting)) if len(resting) else 0.0
        found.append(Transition(one.prompt, len(steps), mean, largest, rest, largest / mean if mean else 1.0))
    return found


@dataclass(frozen=True)
class ImagineReport:
    """What was made: pictures, seconds and pictures per second of making (engine start not counted), and with what."""

    frames_out: int
    seconds: float
    fps: float
    model: str
    runtime: str
    bank: str
    target: str
    width: int
    height: int
    transitions: tuple[Transition, ...]
    interrupted: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ImagineJob:
    """What is made.

    seconds, fps: of the film. look: of all prompts. transition_ms: None for half of a prompt's time.
    """

    prompts: tuple[str, ...]
    target: Path
    settings: EngineSettings
    look: Look = field(default_factory=Look)
    seconds: float = 20.0
    fps: float = 24.0
    transition_ms: int | None = None
    marking: MarkingSettings = field(default_factory=MarkingSettings)


def imagine(
    job: ImagineJob,
    *,
    progress: bool | Progress = True,
    make_engine: MakeEngine | None = None,
    note: Note = to_stderr,
) -> ImagineReport:
    """Make the film of the job's prompts, one after the other, and measure how smoothly it goes from each to the next.

    Ctrl-C and SIGTERM complete the file with what was done. Raises SettingsError for a model that only translates
    pictures, VcamError: then nothing is found under the target's name.
    """
    notes, noted = kept(note)
    check_source(IMAGINE, job.settings.model)
    pictures = max(1, round(job.seconds * job.fps))
    waited = None if job.transition_ms is None else round(job.transition_ms / 1000 * job.fps)
    switches = timetable(job.prompts, pictures, waited)
    rate = Fraction(job.fps).limit_denominator(1001)
    size = job.settings.width, job.settings.height
    media = Media(Path(IMAGINE), Kind.VIDEO, *size, rate=rate, constant_rate=rate, tick=1 / rate)
    marker = marker_for(job.marking, noted, Origin.GENERATED)
    look = replace(job.look, prompt=switches[0].prompt)
    changes: list[float] = []
    last: Pixels | None = None
    count = 0
    with stop_on_signal() as stop, writing(job.target, media, noted, marker) as writer:
        engine = make_engine(job.settings, look) if make_engine else real_engine(job.settings, look, noted)
        started = time.monotonic()
        with shown(progress, pictures) as show:
            for picture in imagined(engine, look, switches, pictures):
                writer.write(Picture(picture, time=count / rate, duration=1 / rate))
                if last is not None:
                    changes.append(change(last, picture))
                last, count = picture, count + 1
                show(count, pictures)
                if stop.is_set():
                    break
        seconds = time.monotonic() - started
        writer.finish(cut=stop.is_set())
    if stop.is_set():
        noted(f"{job.target}: stopped; it holds the {count} pictures done so far")
    return ImagineReport(
        frames_out=count,
        seconds=round(seconds, 3),
        fps=round(count / seconds, 3) if seconds else 0.0,
        model=job.settings.model,
        runtime=str(engine.settings.runtime),
        bank=str(job.settings.policy),
        target=str(job.target),
        width=size[0],
        height=size[1],
        transitions=tuple(transitions(switches, changes, engine.delay)),
        interrupted=stop.is_set(),
        notes=tuple(notes),
    )


def change(before: Pixels, after: Pixels) -> float:
    """Return the root of the mean squared difference of two pictures, in grey levels."""
    difference = np.subtract(after, before, dtype=np.float32)
    return float(np.sqrt(np.mean(np.square(difference))))


def imagined(engine: ImaginingEngine, look: Look, switches: Sequence[PromptSwitch], pictures: int) -> Iterator[Pixels]:
    """Yield so many pictures; of each switch, the picture `at` is the first that has something of its prompt."""
    due = {switch.at: switch for switch in switches[1:]}
    for index in range(pictures + engine.delay):
        if (switch := due.get(index - engine.delay)) is not None:
            engine.set_look(replace(look, prompt=switch.prompt), switch.frames)
        picture = engine.imagine()
        if picture is not None:
            yield picture
