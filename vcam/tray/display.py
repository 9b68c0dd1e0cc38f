"""Whether Qt can show anything here: asked before Qt is, which ends the program where it cannot."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# The library that a missing file belongs to: Debian and Ubuntu, Fedora.
_PACKAGES = {
    "libxcb-cursor": ("libxcb-cursor0", "xcb-util-cursor"),
    "libxcb-icccm": ("libxcb-icccm4", "xcb-util-wm"),
    "libxcb-image": ("libxcb-image0", "xcb-util-image"),
    "libxcb-keysyms": ("libxcb-keysyms1", "xcb-util-keysyms"),
    "libxcb-render-util": ("libxcb-render-util0", "xcb-util-renderutil"),
    "libxcb-util": ("libxcb-util1", "xcb-util"),
    "libxcb-xkb": ("libxcb-xkb1", "libxcb"),
    "libxcb": ("libxcb1", "libxcb"),
    "libxkbcommon-x11": ("libxkbcommon-x11-0", "libxkbcommon-x11"),
    "libxkbcommon": ("libxkbcommon0", "libxkbcommon"),
    "libX11-xcb": ("libx11-xcb1", "libX11-xcb"),
    "libX11": ("libx11-6", "libX11"),
    "libEGL": ("libegl1", "libglvnd-egl"),
    "libGL": ("libgl1", "libglvnd-glx"),
    "libfontconfig": ("libfontconfig1", "fontconfig"),
    "libdbus-1": ("libdbus-1-3", "dbus-libs"),
    "libglib-2": ("libglib2.0-0", "glib2"),
    "libwayland-client": ("libwayland-client0", "libwayland-client"),
    "libwayland-cursor": ("libwayland-cursor0", "libwayland-cursor"),
}


def missing_library(message: str) -> str:
    """Return the name of the library that the system's loader did not find, "" where its message is another one."""
    name, found, _ = message.partition(": cannot open shared object file")
    return name.rpartition(" ")[2] if found else ""


def remedy(library: str) -> str:
    """Return the sentence that names the packages for a library of Qt's that is not there."""
    stem = library.partition(".so")[0]
    known = next((names for start, names in _PACKAGES.items() if stem == start or stem.startswith(f"{start}.")), None)
    if known is None:
        return f"the tray icon needs the library {library}, which this system lacks: install the package that holds it"
    debian, fedora = known
    return (
        f"the tray icon needs the library {library}: sudo apt install {debian}"
        + (" libxcb-cursor0" if debian != "libxcb-cursor0" else "")
        + f" (Fedora: sudo dnf install {fedora}), then again"
    )


def platforms(environment: Mapping[str, str]) -> Sequence[str]:
    """Return Qt's platforms that it will try, in its order."""
    if asked := environment.get("QT_QPA_PLATFORM"):
        return [one.partition(":")[0] for one in asked.split(";")]
    wayland = environment.get("WAYLAND_DISPLAY") or environment.get("XDG_SESSION_TYPE") == "wayland"
    return ["wayland", "xcb"] if wayland else ["xcb"]


def why_not(plugins: Path, environment: Mapping[str, str] | None = None) -> str:
    """Return why Qt cannot show an icon here, in a sentence with the remedy; "" where nothing speaks against it.

    plugins: Qt's folder of platforms, each a library that the system's loader is asked for.
    """
    environment = os.environ if environment is None else environment
    if sys.platform != "linux":
        return ""
    if not any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        return "there is no display to show an icon on; start `vcam tray` in your desktop session"
    wrong = ""
    for name in platforms(environment):
        try:
            ctypes.CDLL(str(plugins / f"libq{name}.so"))
        except OSError as error:
            wrong = wrong or _words(name, str(error))
        else:
            return ""
    return wrong


def refusal(said: str) -> str:
    """Return what Qt's own last words mean; said: what it wrote before it ended."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reason = next((line for line in lines if "could not connect" in line.lower()), lines[0] if lines else "no reason")
    return f"Qt cannot show an icon here ({reason.rpartition(': ')[2]}); start `vcam tray` in your desktop session"


def _words(platform: str, message: str) -> str:
    library = missing_library(message)
    if not library or library.endswith(f"libq{platform}.so"):
        return f"Qt has no platform {platform!r}, which QT_QPA_PLATFORM asks for: unset it"
    return remedy(library)
