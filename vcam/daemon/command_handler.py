"""Carries out the commands that change the look, the engine or the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vcam.commands import (
    ChangeEngine,
    ChangeLook,
    Command,
    EndRecording,
    Forget,
    Mirror,
    NextProfile,
    PreviousProfile,
    Reload,
    SetPrompt,
    Snapshot,
    StartRecording,
    ToggleRecording,
    UseMicrophone,
    UseProfile,
    UseSource,
)
from vcam.daemon.auto_preset import AutoPreset
from vcam.daemon.recorder import Recorder, origin_of
from vcam.devices.source_switch import SourceSwitch
from vcam.errors import ProfileError, VcamError
from vcam.frames import FrameSource
from vcam.settings.model_facts import check_source
from vcam.settings.profiles import load_profiles
from vcam.settings.run_options import RunOptions
from vcam.settings.selection import Choice, neighbour, prompts, with_engine, with_look, with_profile
from vcam.worker.translator import WorkerTranslator


class CommandHandler:
    """Holds the choice of profile, look and engine, and changes it. `choice` may be read from any thread.

    `apply` belongs to one thread, and may take as long as reading a profile or opening a source takes.
    """

    def __init__(
        self,
        choice: Choice,
        auto: AutoPreset,
        source: SourceSwitch,
        translator: WorkerTranslator,
        open_source: Callable[[RunOptions], FrameSource],
        recorder: Recorder,
    ) -> None:
        self.choice, self.auto, self._recorder = choice, auto, recorder
        self._source, self._translator, self._open_source = source, translator, open_source

    def apply(self, command: Command) -> None:
        """Carry out a command; raises StreamV2VError if it is refused, and has changed nothing then."""
        choice = self.choice
        match command:
            case UseProfile(text):
                self._use_profile(text)
            case NextProfile():
                self._use_profile(neighbour(choice, 1))
            case PreviousProfile():
                self._use_profile(neighbour(choice, -1))
            case SetPrompt(prompt, transition_ms):
                given = choice.profile.transition_ms if transition_ms is None else transition_ms
                self._use(replace(choice, look=replace(choice.look, prompt=prompt)), given)
            case ChangeLook(changes):
                self._use(with_look(choice, changes), choice.profile.transition_ms)
            case Mirror(on):
                options = replace(choice.options, mirror=not choice.options.mirror if on is None else on)
                self.choice = replace(choice, options=options)
                if options.mirror != choice.options.mirror:
                    self._translator.forget()  # what it remembers lies on the other side
            case UseSource(source):
                self._use_source(source)
            case ChangeEngine(changes):
                self._use(with_engine(choice, changes), 0)
            case Reload():
                self._reload()
            case Forget():
                self._translator.forget()
            case StartRecording():
                self._recorder.start()
            case EndRecording():
                self._recorder.end()
            case ToggleRecording():
                self._recorder.toggle()
            case UseMicrophone(on):
                self._recorder.listen(on)
            case Snapshot():
                self._recorder.snapshot()
            case _:
                raise TypeError(f"{command} is not a command of this queue")

    def adjust_preset(self) -> None:
        """Take another preset where the measurements of this machine ask for it."""
        wanted = self.auto.look(self.choice, self._translator.state)
        if wanted is not None:
            self._use(wanted, 0)

    def _use(self, choice: Choice, transition_ms: int) -> None:
        check_source(choice.options.source, choice.settings.model)
        self.choice = choice
        self._translator.use(choice.settings, choice.look, transition_ms)

    def _use_source(self, source: str) -> None:
        before = self.choice.options
        check_source(source, self.choice.settings.model)
        origin = origin_of(source)
        if origin is not origin_of(before.source) and Path(before.sink).suffix:
            raise VcamError(
                f"{before.sink} says that it is {origin_of(before.source)}, which would not be true of what comes from "
                f"{source}: end the camera (vcam stop) and start it with --source {source}"
            )
        options = replace(before, source=source)
        opened = self._open_source(options)
        try:
            self._recorder.mark(origin)
        except BaseException:
            opened.close()
            raise
        self.choice = replace(self.choice, options=options)
        self._source.use(opened)

    def _reload(self) -> list[ProfileError]:
        """Read the profiles as they are on the disk now, and have new prompts encoded ahead."""
        before = self.choice
        profiles, problems = load_profiles(before.options.profiles_folder)
        self.choice = replace(before, profiles=profiles)
        if prompts(self.choice) != prompts(before):
            self._translator.prepare(prompts(self.choice))
        return problems

    def _use_profile(self, text: str) -> None:
        problems = self._reload()
        choice = with_profile(self.choice, text, problems)
        self._use(choice, choice.profile.transition_ms)
