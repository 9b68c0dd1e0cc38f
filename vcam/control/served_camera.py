"""`ServedCamera`: what the control server needs of the daemon."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from vcam.commands import Command, Status
from vcam.frames import Picture


class ServedCamera(Protocol):
    """What the server needs of the daemon."""

    @property
    def preview(self) -> Picture:
        """What was published last."""

    @property
    def camera(self) -> Picture | None:
        """What the camera saw last, in the published size; None while it rests."""

    def submit(self, command: Command) -> Future[None]:
        """Queue a command."""

    def status(self) -> Status:
        """Return the state of everything."""

    def profiles(self) -> list[dict[str, Any]]:
        """All profiles."""

    def profile(self, id: str) -> dict[str, Any]:
        """One profile in the shape of its file; raises ProfileError."""

    def save_profile(self, id: str, data: object) -> None:
        """Write a profile into the user's folder; raises ProfileError."""

    def delete_profile(self, id: str) -> None:
        """Remove one of the user's; raises ProfileError."""

    def look(self) -> dict[str, Any]:
        """Return the look as it is now."""

    def own(self) -> dict[str, Any]:
        """Return what the model takes where the look says nothing."""

    def words(self) -> dict[str, Any]:
        """Return the styles and words that the model knows; no words where it reads any."""

    def remembered(self) -> dict[str, Any]:
        """Return what the page remembers of its user."""

    def remember(self, given: dict[str, Any]) -> None:
        """Change that; raises CommandError."""

    def first_steps(self) -> list[dict[str, Any]]:
        """Return how it stands with the first steps of a new user."""

    def import_profile(self, id: str, text: str) -> None:
        """Write a profile's file into the user's folder; raises ProfileError."""

    def profile_file(self, id: str) -> str:
        """Return the profile as the text of its file; raises ProfileError."""

    def engine(self) -> dict[str, Any]:
        """Return what the engine is built from."""

    def sources(self) -> list[dict[str, Any]]:
        """Return what can be translated on this machine; slow."""

    def log(self) -> list[dict[str, Any]]:
        """Return what happened: at (seconds since 1970) and text."""

    def thumbnail(self, id: str) -> Future[bytes] | None:
        """Return the test picture in the profile's look, as JPEG; None if too dear. Raises ProfileError."""

    def try_look(self, wanted: dict[str, Any]) -> Future[Picture]:
        """Return the newest camera picture in another look, privately; raises CommandError, ProfileError."""
