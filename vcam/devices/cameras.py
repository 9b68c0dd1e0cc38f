"""The cameras of this machine: which there are, which one is meant, which one is the same as before."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vcam.errors import DeviceError

if sys.platform == "linux":
    from vcam.devices import v4l2

OUR_NAME = "StreamV2V Camera"
# What this program may publish through on Windows and macOS: as input it would show ourselves.
_OUTLETS = (OUR_NAME, "OBS Virtual Camera", "Unity Video Capture")
# Cameras that are programs, where the system itself does not say so: by the beginning of their names.
_PROGRAMS = (
    *_OUTLETS, "OBS-Camera", "OBS Cam", "Dummy video device", "DroidCam", "Iriun", "iVCam", "Camo", "EpocCam",
    "NVIDIA Broadcast", "ManyCam", "XSplit", "Snap Camera",
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """A camera of this machine.

    name: what people call it, one camera's alone: a second one of its model is "MODEL (2)". identity: of this device in
    this socket, the same after it was plugged in again. path: how to open it now, a number where the system has no
    paths (Windows, macOS). virtual: a program, not a lens, is behind it. idle: ... and that program does not run.
    model: the name that the device itself gives, `name` if empty. serial: its serial number, "" if it has none. links:
    other names that the system has for it.
    """

    name: str
    identity: str
    path: str | int
    virtual: bool = False
    idle: bool = False
    model: str = ""
    serial: str = ""
    links: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is the camera that this program makes."""
        return _model(self) == OUR_NAME


def list_cameras() -> list[Camera]:
    """Return the cameras of this machine in the system's order, virtual ones too, but never our own."""
    found = _cameras_on_linux() if sys.platform == "linux" else _cameras_elsewhere()
    return [camera for camera in told_apart(found) if not camera.is_ours]


def camera_line(camera: Camera) -> str:
    """Return the camera as a line of a list."""
    kind = ", virtual" + ", nothing feeds it now" * camera.idle if camera.virtual else ""
    return f"{camera.name}  ({camera.path}{kind})"


def _cameras_on_linux() -> list[Camera]:
    found: list[Camera] = []
    if sys.platform == "linux":
        for device in v4l2.devices():
            if not device.captures and not device.is_loopback:
                continue
            camera = Camera(device.name, v4l2.identity(device), device.path, virtual=device.is_loopback)
            idle = device.is_loopback and not device.captures
            found.append(replace(camera, idle=idle, serial=v4l2.serial(device), links=v4l2.links(device)))
    return found


def _cameras_elsewhere() -> list[Camera]:
    """Return those of Windows (DirectShow) or macOS (AVFoundation)."""
    import cv2
    from cv2_enumerate_cameras import enumerate_cameras

    backend = cv2.CAP_DSHOW if sys.platform == "win32" else cv2.CAP_AVFOUNDATION
    return [
        Camera(info.name, info.path, info.index, info.name.startswith(_PROGRAMS))
        for info in enumerate_cameras(backend)
        if sys.platform != "darwin" or info.name not in _OUTLETS
    ]


def present_identities() -> frozenset[str]:
    """Return the identities of what is there; quick, and opens nothing."""
    # to ask DirectShow or AVFoundation takes too long beside a picture
    found: frozenset[str] = frozenset()
    if sys.platform == "linux":
        found = v4l2.identities()
    return found


def told_apart(cameras: Iterable[Camera]) -> list[Camera]:
    """Return the cameras, each with a name and an identity that no other one has."""
    names: set[str] = set()
    identities: set[str] = set()
    apart = []
    for camera in cameras:
        name = _unused(camera.name, names)
        identity = _unused(camera.identity or name, identities)
        apart.append(replace(camera, name=name, identity=identity, model=camera.model or camera.name))
    return apart


def _unused(name: str, used: set[str]) -> str:
    """Return the name, numbered if it is in use, and put it among the used ones."""
    number, wanted = 1, name
    while name in used:
        number += 1
        name = f"{wanted} ({number})"
    used.add(name)
    return name


def choose_camera(wanted: str, cameras: Sequence[Camera]) -> Camera:
    """Return the camera called `wanted`: its name, number, path or identity, in any case, or a part of one name only.

    "" takes the first physical one, else the first virtual one that is at work. Raises DeviceError, which lists
    them.
    """
    refuse_ours(wanted)
    cameras = [camera for camera in cameras if not camera.is_ours]
    if not wanted:
        first = first_choice(cameras)
        if first is None:
            raise DeviceError("no camera was found; plug one in, or use --source pattern or --source FILE")
        return first
    low = wanted.casefold()
    for camera in cameras:
        if low in {known.casefold() for known in _known_as(camera)}:
            return camera
    parts = [camera for camera in cameras if low in camera.name.casefold()]
    if len(parts) == 1:
        return parts[0]
    there = ", ".join(f'"{camera.name}"' + " (virtual)" * camera.virtual for camera in cameras) or "none"
    raise DeviceError(f'no camera is called "{wanted}"; there are: {there}')


def refuse_ours(wanted: str) -> None:
    """Raise VcamError if the camera that this program makes is wanted as its source."""
    if wanted.casefold() == OUR_NAME.casefold():
        raise DeviceError(f'"{OUR_NAME}" is the camera that this program makes; choose a real one')


def first_choice(cameras: Sequence[Camera]) -> Camera | None:
    """Return the first physical camera, else the first virtual one that is at work, else None."""
    outlets = (OUR_NAME,) if sys.platform == "linux" else _OUTLETS
    physical = [camera for camera in cameras if not camera.virtual]
    at_work = [one for one in cameras if one.virtual and not one.idle and _model(one) not in outlets]
    return next(iter(physical + at_work), None)


def _known_as(camera: Camera) -> tuple[str, ...]:
    number = str(camera.path).removeprefix("/dev/video")
    links = (name for link in camera.links for name in (link, Path(link).name))
    return camera.name, camera.identity, str(camera.path), number, *links


# ----------------------------------------------------------------------------------------------- the same as before


@dataclass(frozen=True)
class ChosenCamera:
    """The camera that is in use.

    first: the identity of the one that was chosen; what is in use may be a replacement for it. strangers: identities of
    the other cameras that were there together with it: none of them is a replacement. missed: it is not there.
    """

    camera: Camera
    first: str
    strangers: frozenset[str] = frozenset()
    missed: bool = False


def choose_first(camera: Camera, cameras: Sequence[Camera]) -> ChosenCamera:
    """Return the camera as chosen among those that are there."""
    return ChosenCamera(camera, camera.identity, _others(camera, cameras))


def look_again(chosen: ChosenCamera, cameras: Sequence[Camera]) -> ChosenCamera:
    """Return what is in use among the cameras of now; `missed` if nothing is it.

    A camera is the same by its identity. A name is none: another camera of its model is taken only if it appeared
    after the chosen one was seen last, best with the same serial number: plugged into another socket.
    """
    for identity in (chosen.first, chosen.camera.identity):
        for camera in cameras:
            if camera.identity == identity:
                return ChosenCamera(camera, chosen.first, _others(camera, cameras))
    new = [camera for camera in cameras if camera.identity not in chosen.strangers and not camera.is_ours]
    alike = [camera for camera in new if _model(camera) == _model(chosen.camera)]
    if not alike:
        return replace(chosen, missed=True)
    alike.sort(key=lambda camera: camera.serial != chosen.camera.serial)
    return ChosenCamera(alike[0], chosen.first, chosen.strangers | _others(alike[0], cameras))


def seen_with(chosen: ChosenCamera, identities: frozenset[str]) -> ChosenCamera:
    """Return the chosen camera after a look at which identities are there while it gives pictures."""
    if chosen.camera.identity not in identities:
        return chosen
    return replace(chosen, strangers=chosen.strangers | (identities - {chosen.camera.identity, chosen.first}))


def namesakes(chosen: ChosenCamera, cameras: Sequence[Camera]) -> list[Camera]:
    """Return the other cameras of its model that are there."""
    return [camera for camera in cameras if _model(camera) == _model(chosen.camera) and not camera.is_ours]


def _others(camera: Camera, cameras: Sequence[Camera]) -> frozenset[str]:
    return frozenset(other.identity for other in cameras) - {camera.identity}


def _model(camera: Camera) -> str:
    return camera.model or camera.name
