"""The ways in to a running camera besides the command line: the panel with its API, and the ear at OBS Studio."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcam.log_file import announce

if TYPE_CHECKING:
    from vcam.control.camera_service import Camera
    from vcam.control.previews import Start


@dataclass(frozen=True)
class Surfaces:
    """Those that are open. port: the panel's, None without it. obs: how it stands with OBS Studio, "" if not asked."""

    port: int | None = None
    obs: Callable[[], str] = str


@contextlib.contextmanager
def opened(
    camera: Camera, start: Start, state_folder: Path, thumbnails_folder: Path, tell: Callable[[str], None]
) -> Iterator[Surfaces]:
    """The surfaces that the camera's options ask for, while the body runs; raises VcamError if no port is free.

    start: makes an engine of its own for looks that are tried. tell: says to the user what comes of OBS.
    """
    options = camera.choice.options
    if not options.panel:
        with _listening(camera, tell, None) as obs:
            yield Surfaces(None, obs)
        return
    from vcam.control.camera_service import Desk
    from vcam.control.previews import Tryouts
    from vcam.control.server import Server
    from vcam.control.thumbnails import Thumbnails

    tryouts = Tryouts(start, options.mirror)
    desk = Desk(camera, tryouts, Thumbnails(thumbnails_folder, tryouts.ask))
    with contextlib.closing(tryouts), Server(desk, options.port, state_folder) as server:
        if options.port and server.port != options.port:
            announce(f"port {options.port} is taken; the panel is at port {server.port}")
        link = server.link()
        print(f"vcam: panel: {link}", file=sys.stderr, flush=True)  # not said: a key is not for the log
        if options.open_panel:
            threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()
        with _listening(camera, tell, server.picture_link) as obs:
            yield Surfaces(server.port, obs)


@contextlib.contextmanager
def _listening(
    camera: Camera, tell: Callable[[str], None], picture_link: Callable[[], str] | None
) -> Iterator[Callable[[], str]]:
    """Listen to OBS, and tell our script there of the profiles, while the body runs; gives how it stands, in words."""
    choice = camera.choice
    if not choice.options.obs.enabled:
        yield str
        return
    from vcam.obs import install, places
    from vcam.obs.link import ObsLink

    known = [(one.id, one.name) for one in choice.profiles.values()]
    for folder in install.installed_in(places.config_folders()):
        with contextlib.suppress(OSError):  # the script then keeps the profiles that it knows
            install.write_profiles(folder, known)
    with ObsLink(choice.options.obs, camera.submit, tell, picture_link) as link:
        yield lambda: link.state
