"""What the control server asks of a running daemon beyond commands: profiles as files, looks tried in private."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Protocol

from vcam import fit
from vcam.commands import IMAGINE, Command, Reload, Status, changed
from vcam.control import profile_files as editing
from vcam.control.first_steps import Chosen, first_steps, has_camera_library
from vcam.control.page_memory import PageMemory
from vcam.control.previews import Previews
from vcam.control.thumbnails import Thumbnails
from vcam.devices import imagined
from vcam.devices.cameras import list_cameras
from vcam.errors import CommandError, ProfileError, VcamError
from vcam.frames import Frame, Picture
from vcam.log_file import callable_here
from vcam.settings.engine_options import sizes_like
from vcam.settings.model_facts import imagines, own_values, words_of
from vcam.settings.profiles import Profile, load_profiles, to_toml, user_profile_folder
from vcam.settings.selection import Choice, profile_list

_SAVED_S = 5.0  # how long a saved profile waits until the daemon has read it


class RunningCamera(Protocol):
    """What CameraService needs of the daemon."""

    @property
    def preview(self) -> Picture:
        """What was published last."""

    @property
    def camera(self) -> Frame | None:
        """What the camera saw last; None while it rests."""

    @property
    def choice(self) -> Choice:
        """What is to be shown now, and by which engine."""

    def submit(self, command: Command) -> Future[None]:
        """Queue a command."""

    def status(self) -> Status:
        """Return the state of everything."""

    def log(self) -> list[dict[str, Any]]:
        """Return what happened."""


class CameraService:
    """The control server's view of the daemon; its methods are those of ServedCamera. Thread-safe."""

    def __init__(self, camera: RunningCamera, previews: Previews, thumbnails: Thumbnails, memory: PageMemory) -> None:
        self._camera, self._previews, self._thumbnails, self._memory = camera, previews, thumbnails, memory
        self._given = camera.choice.options.profiles_folder
        self._folder = self._given or user_profile_folder()
        self._shown: tuple[Frame, Picture] | None = None
        self.submit: Callable[[Command], Future[None]] = camera.submit
        self.status: Callable[[], Status] = camera.status
        self.log: Callable[[], list[dict[str, Any]]] = camera.log

    @property
    def preview(self) -> Picture:
        """What was published last."""
        return self._camera.preview

    @property
    def camera(self) -> Picture | None:
        """What the camera saw last, cut and mirrored as what is published."""
        raw = self._camera.camera
        if raw is None:
            return None
        if self._shown is None or self._shown[0] is not raw:
            self._shown = raw, fit.viewed(raw.picture, self._size(), raw.shot)
        return self._shown[1]

    def _size(self) -> tuple[int, int]:
        status = self._camera.status()
        return status.width, status.height

    def profiles(self) -> list[dict[str, Any]]:
        """Return all profiles."""
        return profile_list(self._camera.choice)

    def look(self) -> dict[str, Any]:
        """Return the look as it is now."""
        return asdict(self._camera.choice.look)

    def own(self) -> dict[str, Any]:
        """Return what the model takes where the look says nothing."""
        return own_values(self._camera.choice.settings.model)

    def words(self) -> dict[str, Any]:
        """Return the styles and words that the model knows; no words where it reads any."""
        return dict(words_of(self._camera.choice.settings.model))

    def engine(self) -> dict[str, Any]:
        """Return what the engine is built from, and the sizes that fill what is published."""
        settings, status = self._camera.choice.settings, self._camera.status()
        sizes = sizes_like((status.width, status.height), (settings.width, settings.height))
        return asdict(settings) | {"sizes": sizes}

    def remembered(self) -> dict[str, Any]:
        """Return what the page remembers of its user."""
        return asdict(self._memory.now)

    def remember(self, given: dict[str, Any]) -> None:
        """Change that."""
        self._memory.change(given)

    def first_steps(self) -> list[dict[str, Any]]:
        """Return how it stands with the first steps of a new user."""
        options = self._camera.choice.options
        asked = Chosen(options.source, options.sink)
        steps = first_steps(self._camera.status(), asked, sys.platform, has_camera_library())
        return [asdict(step) | {"command": callable_here(step.command, at_terminal=False)} for step in steps]

    def sources(self) -> list[dict[str, Any]]:
        """Return the cameras, the test picture, and imagined pictures where the model makes them.

        Of each what UseSource takes, and a name for people.
        """
        cameras = [{"source": f"camera:{one.name}", "name": one.name} for one in list_cameras()]
        own = [{"source": "pattern", "name": "Test picture"}]
        if imagines(self._camera.choice.settings.model):
            own.append({"source": IMAGINE, "name": imagined.NAME})
        return [*cameras, *own]

    def profile(self, id: str) -> dict[str, Any]:
        """Return one profile in the shape of its file."""
        return editing.detail(self._profile(id))

    def save_profile(self, id: str, data: object) -> None:
        """Write a profile into the user's folder."""
        editing.save(id, data, self._folder)
        self._reload()

    def import_profile(self, id: str, text: str) -> None:
        """Write a profile's file, as somebody else made it, into the user's folder."""
        editing.imported(id, text, self._folder)
        self._reload()

    def profile_file(self, id: str) -> str:
        """Return the profile as the text of its file."""
        return to_toml(self._profile(id))

    def delete_profile(self, id: str) -> None:
        """Remove one of the user's."""
        editing.delete(id, self._folder)
        self._reload()

    def thumbnail(self, id: str) -> Future[bytes] | None:
        """Return the test picture in the profile's look, as JPEG; None unless the included model is used."""
        profile = self._profile(id)
        settings = self._camera.choice.settings_of(profile)
        if settings.model != "embedded":
            return None
        return self._thumbnails.get(settings, profile.look)

    def try_look(self, wanted: dict[str, Any]) -> Future[Picture]:
        """Translate the newest camera picture in a profile's look, or in the current one with changes."""
        changes = dict(wanted)
        id = changes.pop("profile", None)
        if id is not None and not isinstance(id, str):
            raise CommandError("try: profile must be text")
        profile = None if id is None else self._profile(id)
        choice = self._camera.choice
        look = changed(profile.look if profile else choice.look, changes)
        settings = choice.settings_of(profile) if profile else choice.settings
        raw = self._camera.camera
        if raw is None:
            raise VcamError("the camera rests; there is no picture to try a look on")
        picture = fit.viewed(raw.picture, self._size(), raw.shot)
        return self._previews.translate(settings, look, picture, imagined=raw.imagined)

    def _reload(self) -> None:
        with contextlib.suppress(TimeoutError):  # the file is written; the daemon reads it when it comes to it
            self._camera.submit(Reload()).result(_SAVED_S)

    def _profile(self, id: str) -> Profile:
        profiles, problems = load_profiles(self._given)
        if id in profiles:
            return profiles[id]
        raise next((one for one in problems if one.id == id), ProfileError(f"there is no profile {id[:60]!r}", id))
