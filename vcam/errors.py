"""Every error of the daemon and the command line that a user can mend, beneath those of the engine (core.errors).

    VcamError               is a core.errors.StreamV2VError, as core's SettingsError and ModelError are
    ├── OptionError         a value of the command line, of a file or of a form cannot be used
    │   ├── ConfigError     in config.toml
    │   └── ProfileError    in a profile, or there is no such profile
    ├── CommandError        a command to the running camera cannot be understood or carried out
    ├── ClientError         no camera is running, it does not answer, or it refuses
    ├── DeviceError         a camera or a virtual camera cannot be used
    ├── VideoError          a video, a picture or its sound cannot be read or written
    ├── RemoteError         an engine server cannot be used, or what it or its camera sends
    │   ├── RemoteRefused   one of the two ends the connection for a reason that has a name
    │   ├── CodecError      a picture on its way cannot be encoded or decoded as was agreed
    │   └── MessageTooLarge a message on its way is larger than may be
    ├── ServiceError        the start at login cannot be set up
    └── ObsError            OBS Studio cannot be reached, or refused something
        ├── ObsGone         it is not there, or not any more
        ├── ObsPassword     it wants another password
        ├── ObsRefused      it refused a request
        └── ObsNotInstalled the package that speaks with it is missing

The message is one line that names the thing, what is wrong with it and what to do. Whoever answers an error catches
StreamV2VError; anything else that is raised, a ValueError too, is a bug of ours and is logged with its traceback.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import StreamV2VError


class VcamError(StreamV2VError):
    """An expected failure; the message is one line that names the thing, what is wrong and what to do."""


class OptionError(VcamError):
    """A value cannot be used; the message names it, the option or key, and what is allowed."""


class ConfigError(OptionError):
    """config.toml cannot be used; the message names file, key, value and what is allowed."""


class ProfileError(OptionError):
    """A profile cannot be used; the message names file, key, value and what is allowed.

    id: of the profile that is meant. path: its file, None where there is none.
    """

    def __init__(self, message: str, id: str = "", path: Path | None = None) -> None:
        super().__init__(message)
        self.id = id
        self.path = path


class CommandError(VcamError):
    """A command cannot be understood or carried out; the message names what is wrong and what is allowed."""


class ClientError(VcamError):
    """The running camera cannot be asked, or refuses; the message says why."""


class DeviceError(VcamError):
    """A camera or a virtual camera cannot be used; the message names it and what to do."""


class VideoError(VcamError):
    """A video, a picture or its sound cannot be read or written; the message names the file."""


class RemoteError(VcamError):
    """An engine server cannot be used, or a message between it and its camera; the message says why."""


class RemoteRefused(RemoteError):
    """A server or a camera ends a connection; code: why, in a word (vcam.remote.protocol.Refusal)."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class CodecError(RemoteError):
    """A picture on its way to or from a server cannot be encoded or decoded as was agreed; the message says why."""


class MessageTooLarge(RemoteError):
    """A message of a WebSocket is larger than may be; it is ended before the rest of it comes."""

    def __init__(self) -> None:
        super().__init__("a message is larger than may be")


class ServiceError(VcamError):
    """The start at login cannot be set up; the message names the command or file that failed."""


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
