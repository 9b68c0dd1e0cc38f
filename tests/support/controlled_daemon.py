"""The daemon as the control server sees it, without a camera or an engine."""

from __future__ import annotations

import tomllib
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import tomli_w

from core.settings import Look
from vcam.commands import Command, SetPrompt, Status, changed
from vcam.control import profile_files as editing
from vcam.control.page_memory import Remembered, with_changes
from vcam.errors import ProfileError
from vcam.frames import Picture
from vcam.settings.profiles import check_id


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass
class ControlledDaemon:
    """Remembers what it is told; `error` is why it refuses commands, `status_error` why it tells no status."""

    preview: Picture = field(default_factory=lambda: np.full((48, 64, 3), (200, 30, 40), np.uint8))
    now: Status = field(default_factory=lambda: Status(state="running", prompt="a person"))
    commands: list[Command] = field(default_factory=list)
    error: Exception | None = None
    status_error: Exception | None = None
    seen: Picture | None = None
    files: dict[str, Any] = field(default_factory=dict)
    tries: list[Look] = field(default_factory=list)
    prompt_notes: tuple[str, ...] = ()
    memory: Remembered = field(default_factory=Remembered)

    def submit(self, command: Command) -> Future[None]:
        done: Future[None] = Future()
        self.commands.append(command)
        if isinstance(command, SetPrompt):
            self.now = replace(self.now, prompt=command.prompt, prompt_notes=self.prompt_notes)
        if self.error is None:
            done.set_result(None)
        else:
            done.set_exception(self.error)
        return done

    def status(self) -> Status:
        if self.status_error is not None:
            raise self.status_error
        return self.now

    def profiles(self) -> list[dict[str, Any]]:
        return [{"id": "ink", "name": "Ink", "description": "", "prompt": "ink", "current": True}]

    def look(self) -> dict[str, Any]:
        return {"prompt": "ink", "strength": 0.5}

    @property
    def camera(self) -> Picture | None:
        return self.seen

    def profile(self, id: str) -> dict[str, Any]:
        if id not in self.files:
            raise ProfileError(f"there is no profile {id!r}")
        return {"id": id, "yours": True, "profile": self.files[id]}

    def save_profile(self, id: str, data: object) -> None:
        editing.checked(id, data)
        self.files[id] = data

    def delete_profile(self, id: str) -> None:
        check_id(id)
        if self.files.pop(id, None) is None:
            raise ProfileError(f"there is no profile {id!r}")

    def own(self) -> dict[str, Any]:
        return {"strength": 0.5, "fusion_strength": 0.25}

    def words(self) -> dict[str, Any]:
        return {"styles": ["ink"], "words": ["ink", "person"]}

    def remembered(self) -> dict[str, Any]:
        return asdict(self.memory)

    def remember(self, given: dict[str, Any]) -> None:
        self.memory = with_changes(self.memory, given)

    def first_steps(self) -> list[dict[str, Any]]:
        return [{"id": "camera", "mark": "done", "title": "Your camera", "text": "Found", "command": ""}]

    def import_profile(self, id: str, text: str) -> None:
        check_id(id)
        try:
            self.files[id] = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ProfileError(f"{id}: it is not valid TOML ({error})", id) from error

    def profile_file(self, id: str) -> str:
        return tomli_w.dumps(self.profile(id)["profile"])

    def engine(self) -> dict[str, Any]:
        return {"steps": 2}

    def sources(self) -> list[dict[str, Any]]:
        return [{"source": "pattern", "name": "Test picture"}]

    def log(self) -> list[dict[str, Any]]:
        return [{"at": 1.5, "text": "running"}]

    def thumbnail(self, id: str) -> Future[bytes] | None:
        made = Future[bytes]()
        made.set_result(b"a picture")
        return None if id == "dear" else made

    def try_look(self, wanted: dict[str, Any]) -> Future[Picture]:
        self.tries.append(changed(Look(), wanted))
        return self.tried()

    def tried(self) -> Future[Picture]:
        done: Future[Picture] = Future()
        done.set_result(np.full((48, 64, 3), (0, 0, 200), np.uint8))
        return done
