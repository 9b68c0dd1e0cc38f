"""What controls a running camera besides the command line: the panel with its API, and the bridge to OBS."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.errors import StreamV2VError
from vcam.devices.choose import load_readers
from vcam.errors import VcamError
from vcam.log_file import announce
from vcam.worker.priority import go_first

__all__ = ["Surfaces", "go_first", "load", "opened"]

if TYPE_CHECKING:
    from vcam.control.camera_service import RunningCamera
    from vcam.control.page_memory import PageMemory
    from vcam.control.server import Server
    from vcam.daemon.event_log import EventLog
    from vcam.settings.run_options import RunOptions
    from vcam.worker.translator import StartEngine

_PAGE, _OBS = "the page", "the bridge to OBS"
_Opened = TypeVar("_Opened")


@dataclass(frozen=True)
class Surfaces:
    """Those that are open. port: the panel's, None without it. obs: how it stands with OBS Studio, "" if not asked."""

    port: int | None = None
    obs: Callable[[], str] = str


def load(log: EventLog) -> None:
    """Load what surfaces and commands need, before pictures are due: a library that is loaded holds everything up.

    One that cannot be loaded costs its surface alone, and is told.
    """
    for part, one in ((_PAGE, _load_page), (_OBS, _load_obs), ("recordings", load_readers)):
        try:
            one()
        except Exception as error:  # noqa: BLE001  a damaged library raises what it likes
            log.fault(f"{part} cannot be loaded", error)


def _load_page() -> None:
    import vcam.control.server  # noqa: F401


def _load_obs() -> None:
    import vcam.obs.supervisor  # noqa: F401


@contextlib.contextmanager
def opened(
    camera: RunningCamera,
    start: StartEngine,
    state_folder: Path,
    thumbnails_folder: Path,
    memory: PageMemory,
    log: EventLog,
) -> Iterator[Surfaces]:
    """Open the surfaces that the camera's options ask for while the body runs; raises VcamError if no port is free.

    start: makes an engine of its own for looks that are tried. memory: of the page. log: told what comes of each.
    Whatever else is raised by one costs that one alone: the camera goes on.
    """
    with contextlib.ExitStack() as open_now:
        each = _Each(open_now, log)
        server = each.open(_PAGE, lambda: _page(camera, start, state_folder, thumbnails_folder, memory), VcamError)
        obs = None
        if server is not None:
            obs = each.open(_OBS, lambda: _bridge(camera, log.say, server, state_folder))
        each.open("OSC", lambda: _osc(camera, log.say))
        each.open("MIDI", lambda: _midi(camera, log.say))
        yield Surfaces(None if server is None else server.port, obs or str)


class _Each:
    """Opens surfaces one after the other, so that none costs another. until: closes them, the last one first."""

    def __init__(self, until: contextlib.ExitStack, log: EventLog) -> None:
        self._until, self._log = until, log

    def open(
        self,
        part: str,
        make: Callable[[], contextlib.AbstractContextManager[_Opened]],
        raised: type[Exception] | tuple[()] = (),
    ) -> _Opened | None:
        """Return what it gives; None where it fails, which is told. raised: what is for whoever started the run."""
        try:
            surface = make()
            given = surface.__enter__()
        except raised:
            raise
        except StreamV2VError as error:
            self._log.trouble(part, f"{part}: {error}")
            return None
        except Exception as error:  # noqa: BLE001  see above
            self._log.fault(f"{part} cannot be opened", error)
            self._log.trouble(part, f"{part} cannot be opened ({type(error).__name__}: {error})")
            return None

        def close() -> None:
            try:
                surface.__exit__(None, None, None)
            except Exception as error:  # noqa: BLE001  the others are still to be closed
                self._log.fault(f"{part} cannot be closed", error)

        self._until.callback(close)
        return given


@contextlib.contextmanager
def _page(
    camera: RunningCamera, start: StartEngine, state_folder: Path, thumbnails_folder: Path, memory: PageMemory
) -> Iterator[Server]:
    """Serve the page and the door while the body runs; raises VcamError if no port is free."""
    from vcam.control.camera_service import CameraService
    from vcam.control.previews import Previews
    from vcam.control.server import Server
    from vcam.control.thumbnails import Thumbnails

    options = camera.choice.options
    previews = Previews(start)
    service = CameraService(camera, previews, Thumbnails(thumbnails_folder, previews.translate), memory)
    port = options.port if options.panel else None
    with contextlib.closing(previews), Server(service, port, state_folder, options.obs.allow) as server:
        if server.port is not None:
            _show(server, options)
        yield server


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
def _osc(camera: RunningCamera, tell: Callable[[str], None]) -> Iterator[None]:
    """Hear OSC while the body runs, where config.toml asks for it; raises DeviceError."""
    osc = camera.choice.options.osc
    if osc.port is None:
        yield
        return
    from vcam.control.controllers import Hand
    from vcam.control.osc import OscReceiver

    with OscReceiver(osc, Hand("OSC", "osc", osc.allow, camera.submit, tell)) as receiver:
        tell(f"OSC: heard at {osc.host}, port {receiver.port}")
        yield


@contextlib.contextmanager
def _midi(camera: RunningCamera, tell: Callable[[str], None]) -> Iterator[None]:
    """Hear MIDI while the body runs, where config.toml asks for it; raises DeviceError."""
    midi = camera.choice.options.midi
    if midi.port is None:
        yield
        return
    from vcam.control.controllers import Hand
    from vcam.control.midi import MidiReceiver

    with MidiReceiver(midi, Hand("MIDI", "midi", midi.allow, camera.submit, tell)):
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
    latency = (lambda: camera.status().latency_now_ms) if choice.options.obs.sync_audio else None
    with BridgeProcess(orders, tell, folder, latency_ms=latency) as bridge:
        yield lambda: bridge.state
