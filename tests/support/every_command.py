"""One command of each kind that there is, for whoever tries them all."""

from __future__ import annotations

from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    Forget,
    NextProfile,
    Panic,
    Pause,
    PreviousProfile,
    Reload,
    Resume,
    SetPrompt,
    Stop,
    Toggle,
    UseProfile,
    UseSource,
)

COMMANDS: list[Command] = [
    UseProfile("p1"),
    SetPrompt("ink"),
    ChangeLook({"seed": 3}),
    UseSource("pattern"),
    ChangeEngine({"steps": 2}),
    Reload(),
    NextProfile(),
    PreviousProfile(),
    Pause(),
    Resume(),
    Toggle(),
    Panic(),
    Forget(),
    Stop(),
]
