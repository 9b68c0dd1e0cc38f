"""The few V4L2 calls that OpenCV and pyvirtualcam leave out (Linux): who a device is, its controls, healing it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

assert sys.platform == "linux"

SYSFS = Path("/sys/class/video4linux")
LOOPBACK_DRIVER = "v4l2 loopback"
_PROGRAMS = ("v4l2loopback", "akvcam")  # drivers of cameras that are programs, without spaces
_QUERYCAP = 0x80685600  # struct v4l2_capability, 104 bytes
_QUERYCTRL = 0xC0445624  # struct v4l2_queryctrl, 68 bytes
_S_CTRL = 0xC008561C  # struct v4l2_control: id, value
_STREAMON = 0x40045612
_BUF_TYPE_OUTPUT = 2
_CAP_CAPTURE = 0x1
_CAP_OUTPUT = 0x2
_NEXT_CTRL = 0x80000000
_FORMAT = re.compile(r".{1,4}:(\d+)x(\d+)@")  # "YU12:640x480@30"


@dataclass(frozen=True)
class Device:
    """A V4L2 node: its path, the card's name, driver, bus address, and whether it now captures or takes pictures."""

    path: str
    name: str
    driver: str
    bus: str
    captures: bool
    takes_output: bool

    @property
    def is_loopback(self) -> bool:
        """Whether a program, not a lens, is behind it."""
        return self.driver.replace(" ", "").startswith(_PROGRAMS)


def query(path: str, name: str = "") -> Device:
    """Return what the node at `path` says about itself; raises OSError (EACCES, ENOENT, ...)."""
    with _opened(path) as fd:
        answer = bytearray(104)
        fcntl.ioctl(fd, _QUERYCAP, answer)
    driver, card, bus, _, _, caps = struct.unpack_from("<16s32s32sIII", answer)
    return Device(
        path, _text(card) or name, _text(driver), _text(bus), bool(caps & _CAP_CAPTURE), bool(caps & _CAP_OUTPUT)
    )


def devices(sysfs: Path = SYSFS, dev: Path = Path("/dev")) -> list[Device]:
    """Return all V4L2 nodes in the order of their numbers; one that may not be opened is told by name, capturing."""
    found = []
    for node in _nodes(sysfs):
        path, name = str(dev / node.name), _read(node / "name")
        try:
            found.append(query(path, name))
        except OSError:
            driver = LOOPBACK_DRIVER if "virtual" in str(node.resolve()) else ""
            found.append(Device(path, name, driver, "", captures=True, takes_output=False))
    return found


def _nodes(sysfs: Path) -> list[Path]:
    nodes = [node for node in sysfs.glob("video*") if node.name[5:].isdigit()] if sysfs.is_dir() else []
    return sorted(nodes, key=lambda node: int(node.name[5:]))


def identity(device: Device, sysfs: Path = SYSFS) -> str:
    """Return what stays the same when the camera comes back under another number: its socket, node and name."""
    return _identity(sysfs / Path(device.path).name, device.name)


def identities(sysfs: Path = SYSFS) -> frozenset[str]:
    """Return the identities of all nodes; opens none, so that it can be asked often."""
    return frozenset(_identity(node, _read(node / "name")) for node in _nodes(sysfs))


def _identity(node: Path, name: str) -> str:
    place = node / "device"  # absent for a loopback device, whose number is its own for good
    socket = os.path.realpath(place if place.exists() else node).removeprefix("/sys/devices/")
    return f"{socket}/{_read(node / 'index') or '0'}/{name}"


def serial(device: Device, sysfs: Path = SYSFS) -> str:
    """Return the USB serial number of a camera, "" if it has none."""
    place = sysfs / Path(device.path).name / "device"
    return _read(Path(os.path.realpath(place)).parent / "serial") if place.exists() else ""


def links(device: Device, by: Path = Path("/dev/v4l")) -> tuple[str, ...]:
    """Return udev's own paths of the device (by-id, by-path)."""
    real = os.path.realpath(device.path)
    return tuple(str(link) for link in sorted(by.glob("by-*/*")) if os.path.realpath(link) == real)


def kept_size(path: str, sysfs: Path = SYSFS) -> tuple[int, int] | None:
    """Return width and height of a v4l2loopback device that somebody has open, None where it has no format.

    As long as it is open, even when nobody writes, module 0.12 keeps the format of its last writer, says so, and shows
    what another writer sends in another size as a damaged picture. Later modules say nothing without a writer.
    """
    found = _FORMAT.match(_read(sysfs / Path(os.path.realpath(path)).name / "format"))
    return (int(found[1]), int(found[2])) if found else None


def heal(path: str) -> None:
    """Give a v4l2loopback 0.12 device, which refuses every writer after the first, back its output side.

    Harmless where it is not needed; raises OSError if the device cannot be opened.
    """
    with _opened(path) as fd, contextlib.suppress(OSError):  # EINVAL is the usual answer, and does its work
        fcntl.ioctl(fd, _STREAMON, struct.pack("i", _BUF_TYPE_OUTPUT))
    query(path)


def set_control(path: str, name: str, value: int) -> bool:
    """Set a control of the device by its name; False if the device has none of that name."""
    with _opened(path) as fd:
        number = _NEXT_CTRL
        while True:
            entry = bytearray(struct.pack("<I64x", number))
            try:
                fcntl.ioctl(fd, _QUERYCTRL, entry)
            except OSError:
                return False
            number, _, label = struct.unpack_from("<II32s", entry)
            if _text(label).lower().replace(" ", "_") == name:
                fcntl.ioctl(fd, _S_CTRL, struct.pack("<Ii", number, value))
                return True
            number |= _NEXT_CTRL


def holders(path: str, proc: Path = Path("/proc")) -> list[str]:
    """Programs that have the device open, as "name (pid N)", as far as this user may see."""
    return _users(path, proc, lambda fd: True)


def writers(path: str, proc: Path = Path("/proc")) -> list[str]:
    """Programs that have the device open only to write to it, as `holders` names them: pyvirtualcam at work."""
    return _users(path, proc, _only_writes)


def _only_writes(fd: Path) -> bool:
    """Whether /proc/PID/fdinfo says so of the open file /proc/PID/fd/N."""
    for line in (fd.parent.parent / "fdinfo" / fd.name).read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE == os.O_WRONLY
    return False


def _users(path: str, proc: Path, counts: Callable[[Path], bool]) -> list[str]:
    found = []
    for process in proc.iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(fd) == path and counts(fd) for fd in (process / "fd").iterdir()):
                found.append(f"{_read(process / 'comm')} (pid {process.name})")
    return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace").strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
