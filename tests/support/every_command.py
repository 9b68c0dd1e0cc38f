"""One command of each kind that there is, for whoever tries them all."""

from __future__ import annotations

from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    EndRecording,
    Forget,
    Mirror,
    NextProfile,
    Panic,
    Pause,
    PreviousProfile,
    Reload,
    Resume,
    SetPrompt,
    Snapshot,
    StartRecording,
    Stop,
    Toggle,
    ToggleRecording,
    UseProfile,
    UseSource,
)

COMMANDS: list[Command] = [
    UseProfile("p1"),
    SetPrompt("ink"),
    ChangeLook({"seed": 3}),
    Mirror(True),
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
    StartRecording(),
    EndRecording(),
    ToggleRecording(),
    Snapshot(),
    Stop(),
]
