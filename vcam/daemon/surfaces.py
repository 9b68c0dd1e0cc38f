"""What controls a running camera besides the command line: the panel with its API, and the bridge to OBS."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcam.devices.choose import load_readers
from vcam.log_file import announce
from vcam.worker.priority import go_first

__all__ = ["Surfaces", "go_first", "load", "opened"]

if TYPE_CHECKING:
    from vcam.control.camera_service import RunningCamera
    from vcam.control.page_memory import PageMemory
    from vcam.control.server import Server
    from vcam.settings.run_options import RunOptions
    from vcam.worker.translator import StartEngine


@dataclass(frozen=True)
class Surfaces:
    """Those that are open. port: the panel's, None without it. obs: how it stands with OBS Studio, "" if not asked."""

    port: int | None = None
    obs: Callable[[], str] = str


def load() -> None:
    """Load what surfaces and commands need, before pictures are due: a library that is loaded holds everything up."""
    import vcam.control.server
    import vcam.obs.supervisor  # noqa: F401

    load_readers()


@contextlib.contextmanager
def opened(
    camera: RunningCamera,
    start: StartEngine,
    state_folder: Path,
    thumbnails_folder: Path,
    memory: PageMemory,
    tell: Callable[[str], None],
) -> Iterator[Surfaces]:
    """Open the surfaces that the camera's options ask for while the body runs; raises VcamError if no port is free.

    start: makes an engine of its own for looks that are tried. memory: of the page. tell: says to the user what comes
    of OBS.
    """
    from vcam.control.camera_service import CameraService
    from vcam.control.previews import Previews
    from vcam.control.server import Server
    from vcam.control.thumbnails import Thumbnails

    options = camera.choice.options
    previews = Previews(start, options.mirror)
    service = CameraService(camera, previews, Thumbnails(thumbnails_folder, previews.translate), memory)
    port = options.port if options.panel else None
    with contextlib.closing(previews), Server(service, port, state_folder, options.obs.allow) as server:
        if server.port is not None:
            _show(server, options)
        with _bridge(camera, tell, server, state_folder) as obs, _controllers(camera, tell):
            yield Surfaces(server.port, obs)


def _show(server: Server, options: RunOptions) -> None:
    """Tell the user where the page is, and open it where that is wanted."""
    if options.port and server.port != options.port:
        announce(f"port {options.port} is taken; the panel is at port {server.port}")
    link = server.link()
    with contextlib.suppress(OSError):
        print(f"vcam: panel: {link}", file=sys.stderr, flush=True)  # not announced: a key is not for the log
    if options.open_panel:
        threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


@contextlib.contextmanager
def _controllers(camera: RunningCamera, tell: Callable[[str], None]) -> Iterator[None]:
    """Hear OSC and MIDI while the body runs, where config.toml asks for them; raises DeviceError."""
    osc, midi = camera.choice.options.osc, camera.choice.options.midi
    with contextlib.ExitStack() as heard:
        if osc.port is not None:
            from vcam.control.controllers import Hand
            from vcam.control.osc import OscReceiver

            receiver = heard.enter_context(OscReceiver(osc, Hand("OSC", "osc", osc.allow, camera.submit, tell)))
            tell(f"OSC: heard at {osc.host}, port {receiver.port}")
        if midi.port is not None:
            from vcam.control.controllers import Hand
            from vcam.control.midi import MidiReceiver

            heard.enter_context(MidiReceiver(midi, Hand("MIDI", "midi", midi.allow, camera.submit, tell)))
        yield


@contextlib.contextmanager
def _bridge(
    camera: RunningCamera, tell: Callable[[str], None], server: Server, folder: Path
) -> Iterator[Callable[[], str]]:
    """Run the bridge to OBS, and tell our script there of the profiles, while the body runs.

    Yields what tells how it stands, in words.
    """
    choice = camera.choice
    if not choice.options.obs.enabled:
        yield str
        return
    from vcam.obs import install, places
    from vcam.obs.bridge import Orders
    from vcam.obs.supervisor import BridgeProcess

    known = [(one.id, one.name) for one in choice.profiles.values()]
    for place in install.installed_in(places.config_folders()):
        with contextlib.suppress(OSError):  # the script then keeps the profiles that it knows
            install.write_profiles(place, known)
    session = server.bridge_session()
    orders = Orders(session.door, session.token, server.port, choice.options.obs)
    with BridgeProcess(orders, tell, folder) as bridge:
        yield lambda: bridge.state
