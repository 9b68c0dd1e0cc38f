"""What goes wrong between us and OBS Studio."""

from __future__ import annotations

from vcam.errors import VcamError


class ObsError(VcamError):
    """OBS cannot be reached, or refused something; the message says what to do."""


class ObsGone(ObsError):
    """OBS is not there (any more), or what is there does not speak obs-websocket 5."""


class ObsPassword(ObsError):
    """OBS wants another password."""


class ObsRefused(ObsError):
    """OBS refused a request; code: obs-websocket's RequestStatus."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ObsNotInstalled(ObsError):
    """The package that speaks to OBS is not installed."""
